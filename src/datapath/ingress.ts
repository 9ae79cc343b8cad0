/**
 * The life of a packet that arrives: from the underlay to the TUN. Read this file top to bottom; it mirrors `egress.ts`.
 *
 *     1 open         tunnel/                   WireGuard: session, tag, replay window; handshakes end here
 *     2 decapsulate  encapsulation.ts          Geneve or VXLAN; the VNI claims the source's identity. A bare packet claims none
 *     3 outer        Node, tunnel/             outer source among the peer's allowed IPs, outer destination ours
 *     4 parse        wire/packet.ts            what is inside, is it whole
 *     5 identity     ipcache/                  the inner source is that peer's, and the claimed identity is the source's
 *     6 destination  Node                      only our own addresses are delivered
 *     7 admit        admission.ts              conntrack, and policy for a flow that is new
 *     8 deliver      offload/merge.ts          merged with its neighbours, then one write to the TUN
 *
 * In a mesh without encryption a datagram begins with step 2, and the underlay's source address says which peer it is of.
 *
 * Which of two shapes a packet out of WireGuard has can be seen from the packet (`looksLikeEnvelope`), whatever mode the peer is
 * in: so a peer that moves between native and tunnel loses nothing, and one that has not heard of it yet is still understood. Both
 * shapes end in step 5: the identity is the one that the ipcache gives to an address behind that very peer.
 *
 * The first step that does not answer FORWARD ends the packet. Anything may arrive here: no step throws.
 * Hot file (bench: `scripts/bench/throughput`, `scripts/bench/micro.ts`).
 */
import { readI32, readU16, readU32LE, readU8, writeU16, writeU8 } from "../bytes/integers.ts";
import { updateChecksum } from "../bytes/checksum.ts";
import { IDENTITY_HOST, IDENTITY_KUBE_APISERVER, IDENTITY_REMOTE_NODE, isWorldIdentity } from "../identity/reserved.ts";
import { Merger } from "../offload/merge.ts";
import { GSO_UDP } from "../offload/virtio.ts";
import { FAMILY_IPV4, familyOf } from "../ip/underlay_addr.ts";
import type { OffloadSwitches, ReceivedRun } from "../ports.ts";
import {
  DROP_FRAGMENT,
  DROP_IDENTITY_MISMATCH,
  DROP_INVALID_IDENTITY,
  DROP_NO_SESSION,
  DROP_NOT_ALLOWED_IP,
  DROP_NOT_FOR_US,
  DROP_TRUNCATED,
  DROP_TUN_WRITE,
  DROP_UNENCRYPTED,
  DROP_UNKNOWN_MESSAGE,
  DROP_UNKNOWN_SENDER,
  FORWARD,
  REDIRECT,
  type Verdict,
} from "../verdict.ts";
import { PacketInfo, readPacket } from "../wire/packet.ts";
import { admit } from "./admission.ts";
import { counterOf, INGRESS } from "./counters.ts";
import type { EchoProbe } from "./echo_probe.ts";
import { decapsulate, decapsulatePlain, Envelope, looksLikeEnvelope } from "./encapsulation.ts";
import { FlowMemo } from "./flow_memo.ts";
import { IngressTrain } from "./ingress_train.ts";
import { clampMss, TCP_SYN } from "./mss.ts";
import type { Node } from "./node.ts";
import type { PathProber } from "./path_prober.ts";

const MESSAGE_TRANSPORT = 4;
const ECN_CE = 3;
/** the only octet of a datagram that some kernels need behind others (`ffi/udp_send.ts`) */
const FILLER = 7;
/** what a TUN write answers to a superpacket that the kernel does not want */
const EINVAL = 22;
const NOT_REFUSED = -1;
/** of a bare packet */
const NO_VNI = -1;
const NO_OUTER_UDP = -1;

const FROM_UNDERLAY_DATAGRAMS = counterOf("fromUnderlayDatagrams");
const FROM_UNDERLAY_BYTES = counterOf("fromUnderlayBytes");
const FROM_UNDERLAY_RUNS = counterOf("fromUnderlayRuns");
const TO_TUN_PACKETS = counterOf("toTunPackets");
const TO_TUN_BYTES = counterOf("toTunBytes");
const TO_TUN_WRITES = counterOf("toTunWrites");
const FILLER_DATAGRAMS = counterOf("fillerDatagrams");
const HANDSHAKES_RECEIVED = counterOf("handshakesReceived");

export class Ingress {
  readonly #node: Node;
  readonly #echo: EchoProbe;
  readonly #prober: PathProber;
  readonly #merger: Merger | undefined;
  readonly #packet = new PacketInfo();
  readonly #envelope = new Envelope();
  readonly #memo = new FlowMemo();
  readonly #train: IngressTrain;
  readonly #single = new Int32Array(2);
  readonly #write: (pieces: Int32Array, count: number) => boolean;
  /** gso_type of the superpacket that was refused, whose packets are being written one by one */
  #refusedType = NOT_REFUSED;
  #hasPacket = false;
  #identity = 0;

  constructor(node: Node, echo: EchoProbe, prober: PathProber) {
    this.#node = node;
    this.#echo = echo;
    this.#prober = prober;
    const { arena, tun, layout } = node.parts;
    this.#train = new IngressTrain(arena, layout.trainMaskAt);
    if (tun.hasOffload) this.#merger = new Merger(arena, { tcp: tun.mergesTcp, udp: tun.mergesUdp });
    this.#write = (pieces, count) => this.#writeTun(pieces, count);
  }

  /** Switches merging, and what the TUN reads. Between batches only. */
  switchOffload(switches: OffloadSwitches): void {
    this.#node.parts.tun.switchOffload(switches);
    this.#alignMerger();
  }

  #alignMerger(): void {
    const { mergesTcp, mergesUdp } = this.#node.parts.tun;
    this.#merger?.setOptions({ tcp: mergesTcp, udp: mergesUdp });
  }

  /**
   * Takes one received run; each of its datagrams lives or dies alone. Drops are counted here.
   * @param isPlain it came on the socket of the unencrypted tunnel
   */
  run(run: ReceivedRun, nowMs: number, isPlain: boolean): void {
    const { counters } = this.#node.parts;
    counters.add(FROM_UNDERLAY_RUNS, 1);
    counters.add(FROM_UNDERLAY_BYTES, run.end - run.at);
    this.#memo.forget();
    this.#train.forget();
    const isWhole = !run.isTruncated && run.segmentBytes > 0; // an empty datagram is a run of size 0
    const segmentBytes = isWhole ? run.segmentBytes : run.end - run.at;
    let datagrams = 0;
    let at = run.at;
    do {
      const end = Math.min(at + segmentBytes, run.end);
      this.#hasPacket = false;
      this.#identity = 0;
      const verdict = run.isTruncated
        ? DROP_TRUNCATED
        : isPlain
        ? this.#plainSteps(at, end, run, nowMs)
        : this.#steps(at, end, run, nowMs);
      if (verdict !== FORWARD) {
        this.#node.drop(INGRESS, verdict, this.#hasPacket ? this.#packet : undefined, this.#identity);
      }
      datagrams++;
      at = end;
    } while (at < run.end);
    counters.add(FROM_UNDERLAY_DATAGRAMS, datagrams);
  }

  /** Ends a batch: what was held for merging is written. Nothing is kept across batches. */
  finish(): void {
    const { tun } = this.#node.parts;
    const changes = tun.offloadChanges;
    this.#merger?.flush(this.#write);
    if (tun.offloadChanges !== changes) this.#alignMerger();
    this.#refusedType = NOT_REFUSED;
  }

  #steps(at: number, end: number, run: ReceivedRun, nowMs: number): Verdict {
    const { arena, wireguard, cipher } = this.#node.parts;
    if (end - at < 4) return this.#isFiller(at, end) ? FORWARD : DROP_UNKNOWN_MESSAGE;
    if (readU32LE(arena, at) !== MESSAGE_TRANSPORT) {
      const verdict = wireguard.receiveControl(arena, at, end, run.fromAt, nowMs, this.#node.unixMs);
      if (verdict === FORWARD) this.#node.parts.counters.add(HANDSHAKES_RECEIVED, 1);
      return verdict;
    }
    const opened = wireguard.open(cipher, arena, at, end, run.fromAt, nowMs); // 1
    if (opened !== FORWARD) {
      if (opened === DROP_NO_SESSION) wireguard.noteLostSession(run.fromAt, nowMs);
      return opened;
    }
    const { openedAt, openedEnd } = wireguard;
    if (openedEnd === openedAt) return FORWARD; // keepalive
    const { slot } = wireguard.openedPeer!;
    if (this.#isNextOfTrain(openedAt, openedEnd, slot, run.ecn)) return FORWARD;
    return this.#opened(openedAt, openedEnd, slot, run.ecn, nowMs);
  }

  /** Steps 2 to 8 for a packet that is like the one before it (`ingress_train.ts`). */
  #isNextOfTrain(at: number, end: number, peerSlot: number, outerEcn: number): boolean {
    const train = this.#train;
    const isNext = outerEcn !== ECN_CE && train.isNext(at, end, peerSlot) &&
      this.#merger!.extend(train.innerAt, train.innerEnd, train.ipHeaderBytes);
    if (!isNext) {
      train.forget();
      return false;
    }
    const octets = train.innerEnd - train.innerAt;
    const { conntrack, counters } = this.#node.parts;
    conntrack.touchAgain(train.flow, octets);
    counters.add(TO_TUN_PACKETS, 1);
    counters.add(TO_TUN_BYTES, octets);
    return true;
  }

  #opened(at: number, end: number, peerSlot: number, outerEcn: number, nowMs: number): Verdict {
    const node = this.#node;
    const { arena } = node.parts;
    const envelope = this.#envelope;
    if (this.#prober.take(at, end, peerSlot, nowMs)) return FORWARD;
    const isBare = node.acceptsNative(nowMs) && !this.#isEnvelopeOf(at, end, peerSlot);
    if (isBare) {
      const verdict = this.#inner(at, end, NO_VNI, peerSlot, outerEcn, nowMs);
      if (verdict === FORWARD) this.#noteTrain(at, end, NO_OUTER_UDP, peerSlot);
      return verdict;
    }
    const unwrapped = decapsulate(arena, at, end, node.tunnelProtocol, envelope); // 2
    if (unwrapped !== FORWARD) return unwrapped;
    if (this.#peerOfOuterSource() !== peerSlot) return DROP_NOT_ALLOWED_IP; // 3
    if (!node.isOwnUnderlay(envelope.outerDestinationAt, envelope.outerVersion)) return DROP_NOT_FOR_US;
    const verdict = this.#inner(envelope.innerAt, envelope.innerEnd, envelope.vni, peerSlot, outerEcn, nowMs);
    if (verdict === FORWARD) this.#noteTrain(at, end, envelope.udpAt - at, peerSlot);
    return verdict;
  }

  /** Notes the packet at hand, where its flow is known and the merger has it. */
  #noteTrain(at: number, end: number, udpAt: number, peerSlot: number): void {
    if (this.#merger !== undefined && this.#memo.isKnown) {
      this.#train.note(at, end, udpAt, this.#packet, peerSlot, this.#memo.flow);
    } else this.#train.forget();
  }

  /** Steps 2 and 3 without encryption: the socket has our underlay address, and the source's must be a peer's. */
  #plainSteps(at: number, end: number, run: ReceivedRun, nowMs: number): Verdict {
    const node = this.#node;
    const { arena, wireguard } = node.parts;
    if (!node.plain.isOn) return DROP_UNENCRYPTED;
    if (end - at < 4 && this.#isFiller(at, end)) return FORWARD;
    const unwrapped = decapsulatePlain(arena, at, end, node.tunnelProtocol, this.#envelope); // 2
    if (unwrapped !== FORWARD) return unwrapped;
    const peerSlot = familyOf(arena, run.fromAt) === FAMILY_IPV4
      ? wireguard.allowedIps.find4(readI32(arena, run.fromAt + 4))
      : wireguard.allowedIps.find6(arena, run.fromAt + 8);
    const peer = peerSlot < 0 ? undefined : wireguard.peerAt(peerSlot);
    if (peer === undefined) return DROP_NOT_ALLOWED_IP; // 3
    peer.rxBytes += end - at;
    if (this.#isNextOfTrain(at, end, peerSlot, run.ecn)) return FORWARD;
    const { innerAt, innerEnd, vni } = this.#envelope;
    const verdict = this.#inner(innerAt, innerEnd, vni, peerSlot, run.ecn, nowMs);
    if (verdict === FORWARD) this.#noteTrain(at, end, NO_OUTER_UDP, peerSlot);
    return verdict;
  }

  /** Whether what a peer sent is an envelope between its underlay address and ours. */
  #isEnvelopeOf(at: number, end: number, peerSlot: number): boolean {
    const node = this.#node;
    const { arena, wireguard } = node.parts;
    if (!looksLikeEnvelope(arena, at, end, node.tunnelProtocol)) return false;
    const isV4 = readU8(arena, at) >> 4 === 4;
    const from = isV4 ? wireguard.allowedIps.find4(readI32(arena, at + 12)) : wireguard.allowedIps.find6(arena, at + 8);
    return from === peerSlot && node.isOwnUnderlay(isV4 ? at + 16 : at + 24, isV4 ? 4 : 6);
  }

  #inner(at: number, end: number, vni: number, peerSlot: number, outerEcn: number, nowMs: number): Verdict {
    const node = this.#node;
    const { arena } = node.parts;
    const packet = this.#packet;
    const parsed = readPacket(arena, at, end, packet); // 4
    const isFragment = parsed === DROP_FRAGMENT;
    if (isFragment) {
      const read = node.fragments.read(at, end, packet, nowMs);
      if (read !== FORWARD) return read;
    } else if (parsed !== FORWARD) return parsed;
    this.#hasPacket = true;
    const memo = this.#memo;
    if (!isFragment && memo.isSame(arena, packet, vni, peerSlot)) {
      node.parts.conntrack.touch(memo.flow, packet, nowMs); // 5, 6 and 7 were answered for the packet before
    } else {
      memo.forget();
      const judged = this.#judge(packet, isFragment, vni, peerSlot, nowMs);
      if (judged !== FORWARD) return judged;
    }
    if ((packet.tcpFlags & TCP_SYN) !== 0) clampMss(arena, packet, node.paths.largestTcpOf(peerSlot), false);
    if (outerEcn === ECN_CE) markCongestion(arena, packet);
    this.#deliver(packet); // 8
    return FORWARD;
  }

  /** Steps 5 to 7. A packet for a proxy has its addresses when this answers FORWARD. */
  #judge(packet: PacketInfo, isFragment: boolean, vni: number, peerSlot: number, nowMs: number): Verdict {
    const node = this.#node;
    const known = this.#checkIdentity(packet, vni, peerSlot); // 5
    if (known !== FORWARD) return known;
    if (!node.isOwnAddress(packet.destinationAt, packet.version)) return DROP_NOT_FOR_US; // 6
    const admitted = admit(node, packet, INGRESS, this.#identity, nowMs); // 7
    if (admitted === REDIRECT) {
      if (isFragment) return DROP_FRAGMENT;
      node.redirects!.toProxy(packet);
      return FORWARD;
    }
    if (admitted !== FORWARD) return admitted;
    const { arena, conntrack } = node.parts;
    if (isFragment) node.fragments.noteAdmitted(packet, nowMs);
    else this.#memo.note(arena, packet, vni, peerSlot, conntrack.last);
    return FORWARD;
  }

  /** It says nothing, and is no attack: counted, and forgotten. */
  #isFiller(at: number, end: number): boolean {
    const { arena, counters } = this.#node.parts;
    if (end - at !== 1 || arena[at] !== FILLER) return false;
    counters.add(FILLER_DATAGRAMS, 1);
    return true;
  }

  #peerOfOuterSource(): number {
    const { arena, wireguard } = this.#node.parts;
    const envelope = this.#envelope;
    return envelope.outerVersion === 4
      ? wireguard.allowedIps.find4(readI32(arena, envelope.outerSourceAt))
      : wireguard.allowedIps.find6(arena, envelope.outerSourceAt);
  }

  /**
   * The identity that policy sees is the one that the hub vouched for, the ipcache's; the VNI must agree with it, and the address
   * must belong to the peer that sent it. A node's own traffic comes as remote-node and takes the address's identity (Cilium).
   */
  #checkIdentity(packet: PacketInfo, vni: number, peerSlot: number): Verdict {
    const { arena, ipcache } = this.#node.parts;
    if (vni === 0 || vni === IDENTITY_HOST) return DROP_INVALID_IDENTITY;
    const entry = packet.version === 4
      ? ipcache.find4(readI32(arena, packet.sourceAt))
      : ipcache.find6(arena, packet.sourceAt);
    if (entry < 0 || ipcache.peerOf(entry) !== peerSlot) return DROP_UNKNOWN_SENDER;
    const identity = ipcache.identityOf(entry);
    this.#identity = identity;
    if (vni === NO_VNI) return FORWARD;
    if (vni === IDENTITY_REMOTE_NODE || vni === IDENTITY_KUBE_APISERVER) return FORWARD;
    return isSameIdentity(vni, ipcache.wireIdentityOf(entry)) ? FORWARD : DROP_IDENTITY_MISMATCH;
  }

  #deliver(packet: PacketInfo): void {
    if (this.#echo.takeReply(this.#node.parts.arena, packet)) return;
    const { counters, arena } = this.#node.parts;
    counters.add(TO_TUN_PACKETS, 1);
    counters.add(TO_TUN_BYTES, packet.end - packet.at);
    if (this.#merger !== undefined) {
      this.#merger.add(packet.at, packet.end);
      return;
    }
    const at = packet.at - this.#node.virtioBytes;
    arena.fill(0, at, packet.at);
    this.#single[0] = at;
    this.#single[1] = packet.end;
    this.#writeTun(this.#single, 1);
  }

  /** @returns false: the kernel may want these pieces as the packets that they are */
  #writeTun(pieces: Int32Array, count: number): boolean {
    const { arena, tun, counters } = this.#node.parts;
    const written = tun.write(pieces, count);
    counters.add(TO_TUN_WRITES, 1);
    if (written >= 0) {
      if (this.#refusedType !== NOT_REFUSED && count === 1) this.#noteRefused();
      return true;
    }
    if (written === -EINVAL && count > 1) {
      this.#refusedType = arena[pieces[0]! + 1]!;
      return false;
    }
    this.#node.tunError = -written;
    this.#node.drop(INGRESS, DROP_TUN_WRITE, undefined, 0);
    return true;
  }

  /** A packet was taken alone that was refused with others: so it was for the merging. */
  #noteRefused(): void {
    this.#node.parts.tun.refuseMerged(this.#refusedType === GSO_UDP, EINVAL);
    this.#refusedType = NOT_REFUSED;
  }
}

/** Whether the claim in a VNI is the identity that the mesh gives the source. Outside, the family may be said or not. */
function isSameIdentity(vni: number, identity: number): boolean {
  return vni === identity || (isWorldIdentity(vni) && isWorldIdentity(identity));
}

/**
 * A congested underlay marked the outer header: marks the inner packet when it is ECN-capable. One that is not is left alone, as
 * the Linux device does, although RFC 6040 §4.2 would drop it.
 */
function markCongestion(bytes: Uint8Array, packet: PacketInfo): void {
  const ecn = packet.trafficClass & 3;
  if (ecn === 0 || ecn === ECN_CE) return;
  if (packet.version === 6) {
    writeU8(bytes, packet.at + 1, bytes[packet.at + 1]! | 0x30);
    return;
  }
  const word = readU16(bytes, packet.at);
  writeU16(bytes, packet.at, word | ECN_CE);
  writeU16(bytes, packet.at + 10, updateChecksum(readU16(bytes, packet.at + 10), word, word | ECN_CE));
}
