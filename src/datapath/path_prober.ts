/**
 * Finds out what the ways to the peers take, and keeps `PathMtus` up to date. A way is looked at when a session with its peer
 * comes up, when the machine says that a datagram was too big for it, when the peer is somewhere else, when data goes and nothing
 * comes back, when the peer is looking for a narrow way itself, and every ten minutes as long as there is a session. A peer that answers
 * no probe at all says nothing about its way: then everything stays as it was.
 *
 * Everything here is bounded: numbers per peer slot, and a few searches at a time. Nothing happens per packet but `take`.
 */
import { readI32, readU16 } from "../bytes/integers.ts";
import { FAMILY_NONE, familyOf, OWN_ADDRESS_AT, UNDERLAY_ADDR_BYTES } from "../ip/underlay_addr.ts";
import { NEW_HANDSHAKE_MS } from "../tunnel/constants.ts";
import { NEVER, type Peer } from "../tunnel/peer.ts";
import { TRANSPORT_HEADER_BYTES } from "../wire/wg_message.ts";
import { counterOf } from "./counters.ts";
import type { Node } from "./node.ts";
import {
  kindOfMessage,
  NO_PATH_MESSAGE,
  PATH_REPLY,
  PATH_REQUEST,
  PATH_REST,
  sequenceAt,
  smallestMessageBytes,
  writePathMessage,
} from "./path_message.ts";
import { outerHeaderBytes } from "./path_mtu.ts";
import { PathSearch, SMALLEST_PROBE_BYTES } from "./path_search.ts";
import type { SealedRuns } from "./sealed_run.ts";

const PROBE_ANSWER_PIECES = counterOf("probeAnswerPieces");

/** A way that carries traffic is looked at again after this (RFC 8899 §5.1.1 and RFC 4821 §7.7 have the same number). */
const AGAIN_AFTER_MS = 600_000;
/** On a hint no sooner than this after the last look. */
const HINT_AFTER_MS = 15_000;
/** Data went, and for so long nothing came back. */
const SILENCE_MS = 3_000;
/** How long an answer may take. */
const ANSWER_MS = 1_000;
/** Peers are looked over this often. */
const SCAN_MS = 1_000;
/** Searches at a time; other peers wait for their turn. */
const MAX_SEARCHES = 32;
const MAX_ANSWER_BYTES = 192;
/** around a probe: IPv6, UDP, WireGuard's header and its longest tag */
const LARGEST_WRAP_BYTES = 96;

interface Running {
  readonly peer: Peer;
  readonly search: PathSearch;
  /** sequence number of the first size of the round */
  firstSequence: number;
  dueAtMs: number;
}

export class PathProber {
  readonly #node: Node;
  readonly #runs: SealedRuns;
  readonly #isOn: boolean;
  readonly #running = new Map<number, Running>();
  /** by peer slot; 0: never */
  readonly #lookedAtMs: Float64Array;
  readonly #isWanted: Uint8Array;
  /** of the endpoint that was looked at */
  readonly #endpointSums: Int32Array;
  #sequence = 1;
  #scanAtMs = 0;
  #nextAtMs = NEVER;

  constructor(node: Node, runs: SealedRuns) {
    this.#node = node;
    this.#runs = runs;
    this.#isOn = node.parts.probesPaths === true;
    const { maxPeers } = node.parts.layout;
    this.#lookedAtMs = new Float64Array(maxPeers);
    this.#isWanted = new Uint8Array(maxPeers);
    this.#endpointSums = new Int32Array(maxPeers);
  }

  /** A session with the peer has come up. */
  noteSession(peer: Peer, nowMs: number): void {
    this.#node.refreshPath(peer.slot);
    if (this.#isOn && this.#sinceMs(peer.slot, nowMs) >= AGAIN_AFTER_MS) this.#want(peer.slot, nowMs);
  }

  /** Forgets a peer. */
  remove(slot: number): void {
    this.#running.delete(slot);
    this.#isWanted[slot] = 0;
    this.#lookedAtMs[slot] = 0;
  }

  /**
   * Takes a packet out of WireGuard that is a probe, or the answer to one of ours.
   * @returns false: it is neither
   */
  take(at: number, end: number, peerSlot: number, nowMs: number): boolean {
    const { arena, wireguard } = this.#node.parts;
    const kind = kindOfMessage(arena, at, end);
    if (kind === NO_PATH_MESSAGE) return false;
    const isV4 = arena[at]! >> 4 === 4;
    const from = isV4 ? wireguard.allowedIps.find4(readI32(arena, at + 12)) : wireguard.allowedIps.find6(arena, at + 8);
    if (from !== peerSlot || !this.#node.isOwnUnderlay(isV4 ? at + 16 : at + 24, isV4 ? 4 : 6)) return false;
    // where packets travel bare, and underlay and mesh addresses may be the same, it may be a program's
    if (kind === PATH_REST) {
      if (this.#node.acceptsNative(nowMs)) return false;
      this.#node.parts.counters.add(PROBE_ANSWER_PIECES, 1);
      return true;
    }
    const sequence = readU16(arena, sequenceAt(arena, at));
    if (kind === PATH_REPLY) this.#noteAnswer(peerSlot, sequence, nowMs);
    else {
      this.#answer(peerSlot, sequence, nowMs);
      this.#noteLooking(peerSlot, end - at, nowMs);
    }
    return true;
  }

  /**
   * Sends what is due, a comparison when nothing is.
   * @returns when to call again at the latest, Infinity: at the next occasion
   */
  tick(nowMs: number): number {
    if (!this.#isOn || (nowMs < this.#nextAtMs && nowMs < this.#scanAtMs)) return this.#nextAtMs;
    if (nowMs >= this.#scanAtMs) this.#scan(nowMs);
    for (const running of this.#running.values()) if (nowMs >= running.dueAtMs) this.#goOn(running, nowMs);
    let nextAtMs = NEVER;
    for (const running of this.#running.values()) nextAtMs = Math.min(nextAtMs, running.dueAtMs);
    this.#nextAtMs = nextAtMs;
    return nextAtMs;
  }

  /** since the way was last looked at */
  #sinceMs(slot: number, nowMs: number): number {
    const atMs = this.#lookedAtMs[slot]!;
    return atMs === 0 ? Infinity : nowMs - atMs;
  }

  #want(slot: number, nowMs: number): void {
    this.#isWanted[slot] = 1;
    this.#scanAtMs = Math.min(this.#scanAtMs, nowMs);
    this.#nextAtMs = Math.min(this.#nextAtMs, nowMs);
  }

  #scan(nowMs: number): void {
    const { wireguard, underlay, layout } = this.#node.parts;
    this.#scanAtMs = nowMs + SCAN_MS;
    if (this.#node.plain.isOn) return;
    for (let toAt = underlay.takeTooBig(); toAt >= 0; toAt = underlay.takeTooBig()) {
      const slot = (toAt - layout.addressesAt) / UNDERLAY_ADDR_BYTES;
      if (slot < layout.maxPeers && this.#sinceMs(slot, nowMs) >= HINT_AFTER_MS) this.#isWanted[slot] = 1;
    }
    for (const peer of wireguard.peers()) {
      if (!wireguard.hasSession(peer, nowMs)) continue;
      if (this.#isWanted[peer.slot] === 0 && !this.#isDue(peer, nowMs)) continue;
      this.#isWanted[peer.slot] = 1;
      if (this.#running.size < MAX_SEARCHES && !this.#running.has(peer.slot)) this.#begin(peer, nowMs);
    }
  }

  /** Whether there is a reason to look at a way that nobody has asked for. */
  #isDue(peer: Peer, nowMs: number): boolean {
    const sinceMs = this.#sinceMs(peer.slot, nowMs);
    if (sinceMs >= AGAIN_AFTER_MS || this.#endpointSums[peer.slot] !== this.#sumEndpoint(peer)) return true;
    const silentMs = peer.newHandshakeAtMs === NEVER ? 0 : nowMs - (peer.newHandshakeAtMs - NEW_HANDSHAKE_MS);
    return silentMs >= SILENCE_MS && sinceMs >= HINT_AFTER_MS;
  }

  #sumEndpoint(peer: Peer): number {
    const { arena } = this.#node.parts;
    let sum = 0;
    for (let i = 0; i < OWN_ADDRESS_AT; i += 4) {
      sum = Math.imul(sum ^ readI32(arena, peer.endpointAt + i), 0x9e3779b1 | 0);
    }
    return sum;
  }

  #begin(peer: Peer, nowMs: number): void {
    const { arena } = this.#node.parts;
    this.#isWanted[peer.slot] = 0;
    this.#lookedAtMs[peer.slot] = Math.max(1, nowMs);
    this.#endpointSums[peer.slot] = this.#sumEndpoint(peer);
    // without an envelope there is nothing that the peer would take for ours
    if (familyOf(arena, peer.endpointAt) === FAMILY_NONE || this.#node.envelopeBytesOf(peer.slot) === 0) return;
    const search = new PathSearch(this.#node.paths.underlayBytes);
    const running: Running = { peer, search, firstSequence: 0, dueAtMs: 0 };
    this.#running.set(peer.slot, running);
    this.#sendRound(running, nowMs);
  }

  #sendRound(running: Running, nowMs: number): void {
    const { search } = running;
    running.firstSequence = this.#sequence;
    this.#sequence = (this.#sequence + search.sizes.length) & 0xffff;
    this.#sendWanted(running, nowMs);
  }

  #sendWanted(running: Running, nowMs: number): void {
    const { peer, search } = running;
    const { wireguard } = this.#node.parts;
    running.dueAtMs = nowMs + ANSWER_MS;
    for (let index = 0; index < search.sizes.length; index++) {
      if (!search.isWanted(index)) continue;
      if (!this.#sendProbe(running, index)) search.refuse(index);
    }
    wireguard.afterSend(peer, nowMs, false);
  }

  #sendProbe({ peer, search, firstSequence }: Running, index: number): boolean {
    const node = this.#node;
    const { arena, layout, wireguard, cipher, underlay } = node.parts;
    const session = peer.current!; // Invariant: there is a session, or nothing is sent
    const outer = outerHeaderBytes(arena, peer) + TRANSPORT_HEADER_BYTES + session.sendTagBytes;
    const at = layout.fromTunAt;
    const packetAt = at + TRANSPORT_HEADER_BYTES;
    const packetEnd = packetAt + search.sizes[index]! - outer;
    const version = node.writeNodes(peer.slot, packetAt);
    if (packetEnd - packetAt < smallestMessageBytes(version)) return false;
    writePathMessage(arena, packetAt, packetEnd, version, PATH_REQUEST, (firstSequence + index) & 0xffff, node.sums);
    const end = wireguard.writeTransport(session, cipher, arena, at, packetEnd, at);
    return underlay.sendWhole(at, end, peer.endpointAt) === 0;
  }

  #answer(slot: number, sequence: number, nowMs: number): void {
    const node = this.#node;
    const { arena, layout, wireguard, cipher } = node.parts;
    const peer = wireguard.peerAt(slot);
    const session = peer?.current;
    if (peer === undefined || session === undefined || !wireguard.hasSession(peer, nowMs)) return;
    if (node.envelopeBytesOf(slot) === 0) return;
    const at = layout.fromTunAt;
    const packetAt = at + TRANSPORT_HEADER_BYTES;
    const version = node.writeNodes(slot, packetAt);
    const packetEnd = packetAt + smallestMessageBytes(version);
    writePathMessage(arena, packetAt, packetEnd, version, PATH_REPLY, sequence, node.sums);
    this.#runs.reserve(MAX_ANSWER_BYTES);
    const end = wireguard.writeTransport(session, cipher, arena, at, packetEnd, this.#runs.at);
    this.#runs.add(end, peer.endpointAt, 0);
    wireguard.afterSend(peer, nowMs, false);
  }

  /**
   * A peer that tries sizes between the smallest and the largest has found its way narrow, and ours is mostly the same one. We may not
   * notice: what the peer sends us still arrives.
   * @param packetBytes of its probe, without what was around it
   */
  #noteLooking(slot: number, packetBytes: number, nowMs: number): void {
    const isBetween = packetBytes > SMALLEST_PROBE_BYTES &&
      packetBytes < this.#node.paths.underlayBytes - LARGEST_WRAP_BYTES;
    if (this.#isOn && isBetween && this.#sinceMs(slot, nowMs) >= HINT_AFTER_MS) this.#want(slot, nowMs);
  }

  #noteAnswer(slot: number, sequence: number, nowMs: number): void {
    const running = this.#running.get(slot);
    if (running === undefined) return;
    const index = (sequence - running.firstSequence) & 0xffff;
    if (running.search.note(index)) this.#goOn(running, nowMs);
  }

  #goOn(running: Running, nowMs: number): void {
    const { peer, search } = running;
    if (!this.#node.parts.wireguard.hasSession(peer, nowMs)) {
      this.#running.delete(peer.slot);
      return;
    }
    switch (search.step()) {
      case "again":
        return this.#sendWanted(running, nowMs);
      case "next-round":
        this.#learn(peer, search.answered); // already the truth, if not all of it
        return this.#sendRound(running, nowMs);
      case "found":
        this.#learn(peer, search.answered);
    }
    this.#running.delete(peer.slot);
  }

  #learn(peer: Peer, pathBytes: number): void {
    const { paths } = this.#node;
    if (paths.pathOf(peer.slot) !== pathBytes) paths.setPath(peer, pathBytes, this.#node.wrapBytesOf(peer.slot));
  }
}
