/**
 * The life of a packet that leaves: from the TUN to the underlay. Read this file top to bottom.
 *
 *     1 parse        wire/packet.ts            what is it, is it whole
 *     2 source       Node                      only our own addresses may send
 *     2a proxy       redirect.ts               what a proxy of ours sent gets its flow's addresses; its flow was admitted
 *     3 ipcache      ipcache/                  who has the destination: identity and peer
 *     4 admit        admission.ts              conntrack, and policy for a flow that is new
 *     5 session      tunnel/                   is there a WireGuard session; if not, wait for one
 *     6 split        offload/split.ts          a superpacket becomes segments, in place; what is too big for the way, fragments
 *     7 encapsulate  encapsulation.ts          Geneve or VXLAN, our identity in the VNI; nothing to a native peer
 *     8 seal         tunnel/                   into the run that goes out next
 *
 * In a mesh without encryption there is no step 5, and 8 is a copy (`plain_tunnel.ts`).
 *
 * Steps 1 to 5 run once per superpacket, 6 to 8 once per segment. The first step that does not answer FORWARD ends the packet;
 * its sender is told where that helps (`error_answers.ts`).
 * Hot file (bench: `scripts/bench/throughput`, `scripts/bench/micro.ts`).
 */
import { readI32, readU16 } from "../bytes/integers.ts";
import { FAMILY_NONE, familyOf } from "../ip/underlay_addr.ts";
import { Splitter } from "../offload/split.ts";
import type { Peer } from "../tunnel/peer.ts";
import type { Session } from "../tunnel/session.ts";
import {
  DROP_FRAGMENT,
  DROP_INVALID_SOURCE_IP,
  DROP_NO_PROXY,
  DROP_NO_REDIRECT,
  DROP_NO_TUNNEL_ENDPOINT,
  DROP_NO_UNDERLAY_ADDRESS,
  DROP_PACKET_TOO_BIG,
  DROP_STAGED_OVERFLOW,
  DROP_UNROUTABLE,
  FORWARD,
  REDIRECT,
  type Verdict,
} from "../verdict.ts";
import { PacketInfo, readPacket } from "../wire/packet.ts";
import { admit } from "./admission.ts";
import { SEALED_SUPERPACKET_BYTES } from "./arena.ts";
import { counterOf, EGRESS } from "./counters.ts";
import { encapsulate, encapsulatePlain, isSummed } from "./encapsulation.ts";
import { ErrorAnswers, isAnswered } from "./error_answers.ts";
import { DONT_FRAGMENT, InnerFragments } from "./inner_fragments.ts";
import { clampMss, isChecksumUnfinished, TCP_SYN } from "./mss.ts";
import type { Node } from "./node.ts";
import { OwnPath } from "./own_path.ts";
import { proxyRoleOf, ROLE_NONE } from "./proxy_addresses.ts";
import type { SealedRuns } from "./sealed_run.ts";
import type { Staging } from "./staging.ts";

const WIREGUARD_HEADER_BYTES = 16;
const PADDING_MULTIPLE = 16;
/** of WireGuard's own AEAD, for which the largest plaintext is reckoned */
const TAG_BYTES = 16;
/** A fragment sealed: its envelope, WireGuard's header, padding and tag. */
const FRAGMENT_ROOM_BYTES = 256;
const TO_UNDERLAY_DATAGRAMS = counterOf("toUnderlayDatagrams");
const TO_UNDERLAY_BYTES = counterOf("toUnderlayBytes");
const STAGED_PACKETS = counterOf("stagedPackets");

export class Egress {
  readonly #node: Node;
  readonly #runs: SealedRuns;
  readonly #staging: Staging;
  readonly #splitter: Splitter;
  readonly #fragments: InnerFragments;
  readonly #answers: ErrorAnswers;
  readonly #ownPath: OwnPath;
  readonly #packet = new PacketInfo();
  /** the octets that padding overwrites: in a superpacket they belong to the next segment */
  readonly #saved = new Uint8Array(PADDING_MULTIPLE);
  #hasPacket = false;
  #isFragment = false;
  #identity = 0;
  #peerSlot = -1;
  /** ROLE_... of the address that the packet at hand was sent to */
  #proxyRole = ROLE_NONE;
  /** of the packet at hand; 0: it goes bare */
  #envelopeBytes = 0;
  /** of the segment at hand, where its envelope needs it and it is known; else -1 */
  #innerSum = -1;
  /** largest packet that would have gone, of one that was too big, and the end of it or of its first segment */
  #limit = 0;
  #tooBigEnd = 0;

  constructor(node: Node, runs: SealedRuns, staging: Staging) {
    this.#node = node;
    this.#runs = runs;
    this.#staging = staging;
    this.#splitter = new Splitter(node.parts.arena);
    this.#fragments = new InnerFragments(node.parts.arena);
    this.#answers = new ErrorAnswers(node);
    this.#ownPath = new OwnPath(node);
  }

  /**
   * Takes what was read from the TUN: the virtio header where there is one, then the IP packet. HEADROOM_BYTES before `at` and
   * TAILROOM_BYTES behind `end` are ours to write. A drop is counted here.
   *
   * @returns FORWARD when it was sealed, or staged until there is a session
   */
  run(at: number, end: number, nowMs: number): Verdict {
    this.#hasPacket = false;
    this.#isFragment = false;
    this.#identity = 0;
    this.#proxyRole = ROLE_NONE;
    const verdict = this.#steps(at, end, nowMs);
    if (verdict !== FORWARD) {
      this.#node.drop(EGRESS, verdict, this.#hasPacket ? this.#packet : undefined, this.#identity);
      if (this.#hasPacket && isAnswered(verdict)) this.#answer(verdict, nowMs);
    }
    return verdict;
  }

  #steps(at: number, end: number, nowMs: number): Verdict {
    const { arena } = this.#node.parts;
    const packet = this.#packet;
    const parsed = readPacket(arena, at + this.#node.virtioBytes, end, packet); // 1
    if (parsed !== FORWARD) {
      if (parsed !== DROP_FRAGMENT) return parsed;
      const read = this.#node.fragments.read(at + this.#node.virtioBytes, end, packet, nowMs);
      if (read !== FORWARD) return read;
      this.#isFragment = true;
    }
    this.#hasPacket = true;
    if (!this.#node.isOwnAddress(packet.sourceAt, packet.version)) return DROP_INVALID_SOURCE_IP; // 2
    const role = proxyRoleOf(arena, packet.destinationAt, packet.version);
    this.#proxyRole = role;
    if (role !== ROLE_NONE) {
      if (this.#isFragment) return DROP_FRAGMENT; // a proxy's packets are rewritten whole, or not at all
      const turned = this.#turn(packet, role, nowMs); // 2a
      if (turned !== FORWARD) return turned === REDIRECT ? FORWARD : turned;
    }
    const found = this.#findDestination(packet); // 3
    if (found !== FORWARD) return found;
    if (role === ROLE_NONE) {
      const admitted = admit(this.#node, packet, EGRESS, this.#identity, nowMs); // 4
      if (admitted === REDIRECT) {
        return this.#isFragment ? DROP_FRAGMENT : this.#node.redirects!.returnToProxy(packet);
      }
      if (admitted === DROP_NO_PROXY) this.#node.redirects?.refuse(packet);
      if (admitted !== FORWARD) return admitted;
      if (this.#isFragment) this.#node.fragments.noteAdmitted(packet, nowMs);
    }

    const slot = this.#peerSlot;
    const peer = slot < 0 ? undefined : this.#node.parts.wireguard.peerAt(slot);
    if (peer === undefined) return DROP_NO_TUNNEL_ENDPOINT;
    if ((packet.tcpFlags & TCP_SYN) !== 0) {
      const isPartial = isChecksumUnfinished(arena, packet.at, this.#node.virtioBytes);
      clampMss(arena, packet, this.#node.paths.largestTcpOf(slot), isPartial);
    }
    if (this.#node.plain.isOn) return this.#sendPlain(peer, at, end);
    const isBare = this.#node.isSentBare(slot, packet);
    this.#envelopeBytes = isBare ? 0 : this.#node.envelopeBytesOf(slot);
    if (this.#envelopeBytes === 0 && !isBare) return DROP_NO_TUNNEL_ENDPOINT;
    const session = this.#node.parts.wireguard.sealing(peer, nowMs); // 5
    if (session === undefined) return this.#stage(peer, at, end);
    return this.#sealSegments(peer, session, at, end, nowMs); // 6, 7, 8
  }

  /** What a proxy of ours sent gets the addresses of its flow. FORWARD: it goes to the peer; REDIRECT: it was written to the TUN. */
  #turn(packet: PacketInfo, role: number, nowMs: number): Verdict {
    const { redirects } = this.#node;
    if (redirects === undefined) return DROP_NO_REDIRECT;
    const found = redirects.findFromProxy(packet, role, nowMs);
    if (found !== FORWARD) return found;
    if (!redirects.isForTun(role)) return redirects.fromProxy(packet, role);
    const written = redirects.returnFromProxy(packet, role);
    return written === FORWARD ? REDIRECT : written;
  }

  #findDestination(packet: PacketInfo): Verdict {
    const { arena, ipcache } = this.#node.parts;
    const entry = packet.version === 4
      ? ipcache.find4(readI32(arena, packet.destinationAt))
      : ipcache.find6(arena, packet.destinationAt);
    if (entry < 0) return DROP_UNROUTABLE;
    this.#identity = ipcache.identityOf(entry);
    this.#peerSlot = ipcache.peerOf(entry);
    return FORWARD;
  }

  /** A peer that nobody can find is not waited for. */
  #stage(peer: Peer, at: number, end: number): Verdict {
    const { arena, counters } = this.#node.parts;
    if (familyOf(arena, peer.endpointAt) === FAMILY_NONE) return DROP_NO_UNDERLAY_ADDRESS;
    if (this.#proxyRole !== ROLE_NONE) this.#node.redirects!.undoFromProxy(this.#packet, this.#proxyRole);
    if (!this.#staging.add(peer.slot, arena, at, end)) return DROP_STAGED_OVERFLOW;
    peer.stagedCount = this.#staging.countOf(peer.slot);
    counters.add(STAGED_PACKETS, 1);
    return FORWARD;
  }

  #sealSegments(peer: Peer, session: Session, at: number, end: number, nowMs: number): Verdict {
    const node = this.#node;
    const { wireguard, counters } = node.parts;
    const splitter = this.#splitter;
    const begun = node.virtioBytes > 0 ? splitter.begin(at, end) : splitter.beginPlain(at, end);
    if (begun !== FORWARD) return begun;
    const packet = this.#packet;
    const entropy = this.#flowEntropy(packet);
    const outerClass = packet.trafficClass & node.outerClassMask; // RFC 6040: ECN is copied to the outer header
    const before = this.#runs.sentBytes;
    this.#runs.reserve(SEALED_SUPERPACKET_BYTES);
    let datagrams = 0;
    const limit = node.paths.limitOf(peer.slot, packet.version);
    const needsSum = isSummed(this.#envelopeBytes);
    while (splitter.next()) {
      const { segmentAt, segmentEnd } = splitter;
      this.#innerSum = needsSum ? splitter.sumSegment() : -1;
      if (segmentEnd - segmentAt > limit) {
        if (!this.#mayFragment(packet, segmentAt, segmentEnd, limit)) return DROP_PACKET_TOO_BIG;
        datagrams += this.#sealFragments(peer, session, entropy, outerClass);
        continue;
      }
      if (node.paths.isSqueezed(peer.slot, segmentEnd - segmentAt)) {
        this.#ownPath.tell(peer, packet, this.#runs.at, nowMs);
        this.#sealSqueezed(peer, session, segmentAt, segmentEnd, entropy, outerClass);
      } else this.#sealSegment(peer, session, segmentAt, segmentEnd, entropy, outerClass);
      datagrams++;
    }
    wireguard.afterSend(peer, nowMs, true);
    counters.add(TO_UNDERLAY_DATAGRAMS, datagrams);
    counters.add(TO_UNDERLAY_BYTES, this.#runs.sentBytes - before);
    return FORWARD;
  }

  /** Begins to cut a segment that is too big for the way. False: it says that it may not be, and its sender gets to know. */
  #mayFragment(packet: PacketInfo, segmentAt: number, segmentEnd: number, limit: number): boolean {
    const { arena } = this.#node.parts;
    this.#limit = limit;
    this.#tooBigEnd = segmentEnd;
    if (packet.version !== 4 || (readU16(arena, segmentAt + 6) & DONT_FRAGMENT) !== 0) return false;
    return this.#fragments.begin(segmentAt, segmentEnd, limit);
  }

  #sealFragments(peer: Peer, session: Session, entropy: number, outerClass: number): number {
    const fragments = this.#fragments;
    let datagrams = 0;
    this.#innerSum = -1;
    while (fragments.next()) {
      this.#runs.reserve(this.#limit + FRAGMENT_ROOM_BYTES);
      this.#sealSegment(peer, session, fragments.fragmentAt, fragments.fragmentEnd, entropy, outerClass);
      datagrams++;
    }
    return datagrams;
  }

  /** IPv6 goes no lower than 1280: where the way does, fragments of the underlay carry it, each datagram on its own. */
  #sealSqueezed(peer: Peer, session: Session, at: number, end: number, entropy: number, outerClass: number): void {
    this.#runs.flush();
    this.#sealSegment(peer, session, at, end, entropy, outerClass);
    this.#runs.flush();
  }

  #sealSegment(
    peer: Peer,
    session: Session,
    segmentAt: number,
    segmentEnd: number,
    entropy: number,
    outerClass: number,
  ): void {
    const node = this.#node;
    const { arena, wireguard, cipher } = node.parts;
    const envelope = this.#envelopeBytes;
    const outerAt = envelope === 0 ? segmentAt : encapsulate(
      arena,
      node.templateAt(peer.slot),
      envelope,
      segmentAt,
      segmentEnd,
      entropy,
      node.sums,
      this.#innerSum,
    );
    const padding = this.#paddingOf(segmentEnd - outerAt, session.sendTagBytes);
    const saved = this.#saved;
    for (let i = 0; i < padding; i++) {
      saved[i] = arena[segmentEnd + i]!;
      arena[segmentEnd + i] = 0;
    }
    const runs = this.#runs;
    const messageEnd = wireguard.writeTransport(
      session,
      cipher,
      arena,
      outerAt - WIREGUARD_HEADER_BYTES,
      segmentEnd + padding,
      runs.at,
    );
    for (let i = 0; i < padding; i++) arena[segmentEnd + i] = saved[i]!;
    runs.add(messageEnd, peer.endpointAt, outerClass);
  }

  /** Up to a multiple of 16, but never past the largest plaintext (WireGuard paper §5.4.6), less what a tag is longer. */
  #paddingOf(plaintextBytes: number, tagBytes: number): number {
    const padding = -plaintextBytes & (PADDING_MULTIPLE - 1);
    const room = this.#node.maxPlaintextBytes - (tagBytes - TAG_BYTES) - plaintextBytes;
    return padding <= room ? padding : Math.max(0, room);
  }

  /** Without encryption: to the peer's tunnel on the underlay, as it is. */
  #sendPlain(peer: Peer, at: number, end: number): Verdict {
    const node = this.#node;
    const { arena, counters } = node.parts;
    const { plain } = node;
    const runs = plain.runs;
    if (runs === undefined || !plain.isKnown(peer.slot)) return DROP_NO_UNDERLAY_ADDRESS;
    const splitter = this.#splitter;
    const begun = node.virtioBytes > 0 ? splitter.begin(at, end) : splitter.beginPlain(at, end);
    if (begun !== FORWARD) return begun;
    const toAt = plain.addressAt(peer.slot);
    const outerClass = this.#packet.trafficClass & node.outerClassMask;
    const before = runs.sentBytes;
    runs.reserve(SEALED_SUPERPACKET_BYTES);
    let datagrams = 0;
    while (splitter.next()) {
      runs.add(
        encapsulatePlain(arena, plain.template, splitter.segmentAt, splitter.segmentEnd, runs.at),
        toAt,
        outerClass,
      );
      datagrams++;
    }
    peer.txBytes += runs.sentBytes - before;
    counters.add(TO_UNDERLAY_DATAGRAMS, datagrams);
    counters.add(TO_UNDERLAY_BYTES, runs.sentBytes - before);
    return FORWARD;
  }

  /** Tells the sender of the packet at hand; what a proxy of ours sent is shown to it as it sent it. */
  #answer(verdict: Verdict, nowMs: number): void {
    const packet = this.#packet;
    if (this.#proxyRole !== ROLE_NONE) this.#node.redirects?.undoFromProxy(packet, this.#proxyRole);
    const end = verdict === DROP_PACKET_TOO_BIG ? this.#tooBigEnd : packet.end;
    this.#answers.answer(verdict, packet, end, this.#limit, nowMs);
  }

  #flowEntropy(packet: PacketInfo): number {
    const { arena } = this.#node.parts;
    const mixed = readU16(arena, packet.sourceAt + 2) ^ readU16(arena, packet.destinationAt + 2) ^
      Math.imul(packet.sourcePort + 1, 0x9e37) ^ Math.imul(packet.destinationPort + 1, 0x85eb);
    return (mixed ^ (mixed >>> 14)) & 0x3fff;
  }
}
