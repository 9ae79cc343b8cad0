/**
 * The flows that go through a proxy: found by the addresses and ports of either direction, and by handle.
 *
 * Columns of typed arrays, one slot a flow, made when a proxy is switched on; nothing is allocated for a flow or a packet. A flow has
 * two TCP connections, which end apart from each other: the one that the opener thinks it has with the other side (it ends at the
 * proxy), and the one that the proxy makes to the other side.
 *
 * A slot's next flow gets the next of its 15 handles, and a handle rests before it is used again: until then packets on their way,
 * and a proxy's socket in TIME_WAIT, may still mean the flow before.
 */
import { equalRange } from "../bytes/compare.ts";
import type { FlowKey } from "../conntrack/flow_key.ts";
import {
  isClosing,
  isOpeningSyn,
  nextState,
  OTHER_LIFETIME_S,
  STATE_ASSURED,
  STATE_OPENER_FIN,
  STATE_REPLIED,
  STATE_REPLIER_FIN,
  TCP_CLOSING_LIFETIME_S,
  TCP_LIFETIME_S,
  TCP_OPENING_LIFETIME_S,
} from "../conntrack/lifetimes.ts";
import { PROTOCOL_TCP } from "../wire/numbers.ts";
import type { PacketInfo } from "../wire/packet.ts";
import { proxyAddressOf, ROLE_CLIENT, ROLE_SERVER } from "./proxy_addresses.ts";
import { FIRST_HANDLE, GENERATIONS, MAX_REDIRECTED, type RedirectView, slotOfHandle } from "./redirect_view.ts";

/** What look-ups answer when there is no such flow, and `insert` when there is no room. */
export const NO_SLOT = -1;

/** The opener's connection, and the proxy's to the other side. */
export const LEG_OPENER = 0;
export const LEG_SERVER = 1;

const BUCKETS = 2 * MAX_REDIRECTED;
/** UDP answers come at once or not at all. */
const UDP_LIFETIME_S = OTHER_LIFETIME_S / 2;
/** the opener is gone, the proxy may still have something to say to the other side */
const TCP_HALF_LIFETIME_S = 60;
/** Linux keeps the socket of whoever closed first for 60 s (TIME_WAIT). */
const TIME_WAIT_S = 65;
/** Packets of a flow that is over may still come for so long. */
const REST_S = 5;
/** Slots looked at, to find a handle that has rested and to find a flow that may go. */
const HANDLE_TRIES = 8;
const EVICTION_TRIES = 256;
/** How long the ends of a flow that was cut may go on sending: TCP gives up after a quarter of an hour (tcp_retries2). */
const BLOCKED_S = 1800;
/** A UDP flow with an answer, and a TCP connection whose handshake nobody finishes, make room when silent for so long. */
const EVICT_AFTER_S = 2;
/** Flows that others may open: a peer with many connections must not keep our own programs from their proxies. */
export const MAX_INGRESS = MAX_REDIRECTED * 3 / 4;
/** When there is no room, a peer that has fewer than FEW of them takes the place of a flow of one that has more than MANY. */
const FEW_FLOWS = MAX_INGRESS / 64;
const MANY_FLOWS = MAX_INGRESS / 16;
/** Owners are peer slots, of which there are 4096, and -1. */
const OWNERS = 1 << 13;
const INGRESS = 0;
const ANY_DIRECTION = -1;

/** State bit beside those of lifetimes.ts: the proxy closed the opener's connection before the opener did. */
const STATE_PROXY_CLOSED_FIRST = 64;

/** Per slot: opener's address, the other side's, and the one of ours that the proxy made its connection from. */
const ADDRESS_BYTES = 16;
const SLOT_ADDRESS_BYTES = 3 * ADDRESS_BYTES;
const AT_PROXY_ADDRESSES = MAX_REDIRECTED * SLOT_ADDRESS_BYTES;

export class RedirectTable {
  /** Whether the packet of the last `find` that answered a slot travels against the opening direction. */
  isReply = false;

  /** All addresses, for `rewritePacket`: those of flows at `fromAt`, `toAt`, `proxyAt`, the proxy addresses at `roleAt`. */
  readonly addresses = new Uint8Array(AT_PROXY_ADDRESSES + 4 * ADDRESS_BYTES);
  /** 0 = the slot is free */
  readonly handles = new Uint16Array(MAX_REDIRECTED);
  readonly versions = new Uint8Array(MAX_REDIRECTED);
  readonly protocols = new Uint8Array(MAX_REDIRECTED);
  /** that opened the flow: INGRESS 0 or EGRESS 1 */
  readonly directions = new Uint8Array(MAX_REDIRECTED);
  /** KIND_HTTP or KIND_DNS */
  readonly kinds = new Uint8Array(MAX_REDIRECTED);
  readonly fromPorts = new Uint16Array(MAX_REDIRECTED);
  readonly toPorts = new Uint16Array(MAX_REDIRECTED);
  /** where the proxy listens; 0 = the flow is blocked */
  readonly proxyPorts = new Uint16Array(MAX_REDIRECTED);
  /** where the proxy's connection to the other side comes from; 0 = there was none yet */
  readonly serverLegPorts = new Uint16Array(MAX_REDIRECTED);
  /** of the other side */
  readonly identities = new Uint32Array(MAX_REDIRECTED);
  /** of the policy that last let the flow be */
  readonly revisions = new Float64Array(MAX_REDIRECTED);
  /** of the opener, and to it; headers included */
  readonly packets = new Float64Array(2 * MAX_REDIRECTED);
  readonly bytes = new Float64Array(2 * MAX_REDIRECTED);
  /** whole seconds of `nowMs` */
  readonly lastSeen = new Int32Array(MAX_REDIRECTED);

  readonly #key: FlowKey;
  readonly #view: RedirectView;
  readonly #heads = new Int16Array(BUCKETS).fill(NO_SLOT);
  readonly #next = new Int16Array(MAX_REDIRECTED).fill(NO_SLOT);
  readonly #buckets = new Uint16Array(MAX_REDIRECTED);
  /** per slot: LEG_OPENER, LEG_SERVER */
  readonly #states = new Uint8Array(2 * MAX_REDIRECTED);
  readonly #expiresAt = new Int32Array(MAX_REDIRECTED);
  /** free slots, the one that was given back first in front */
  readonly #free = new Uint16Array(MAX_REDIRECTED);
  #freeAt = 0;
  #freeCount = MAX_REDIRECTED;
  readonly #generations = new Uint8Array(MAX_REDIRECTED);
  /** per handle: second from which it may be used */
  readonly #restsUntil = new Int32Array(FIRST_HANDLE * (GENERATIONS + 1));
  /** per slot: the peer that opened it, as `#countOf` counts; and flows that others opened, by peer */
  readonly #owners = new Uint16Array(MAX_REDIRECTED);
  readonly #counts = new Uint16Array(OWNERS);
  #ingressCount = 0;
  #sweepAt = 0;
  #evictAt = 0;

  /**
   * @param key   of a secret seed: nobody may choose flows that fall into one bucket
   * @param view  told of flows that are over; of a new one `publish` tells it
   * @param nowMs where the handles begin: a proxy may still know some of a table before this one
   */
  constructor(key: FlowKey, view: RedirectView, nowMs: number) {
    this.#key = key;
    this.#view = view;
    view.clearAll();
    const first = Math.floor(nowMs);
    for (let i = 0; i < MAX_REDIRECTED; i++) this.#free[i] = (first + i) & (MAX_REDIRECTED - 1);
    this.#generations.fill(first % GENERATIONS);
    for (const role of [ROLE_CLIENT, ROLE_SERVER]) {
      this.addresses.set(proxyAddressOf(role, 4), this.roleAt(role, 4));
      this.addresses.set(proxyAddressOf(role, 6), this.roleAt(role, 6));
    }
  }

  /** Flows, expired ones included until they are met. */
  get size(): number {
    return MAX_REDIRECTED - this.#freeCount;
  }

  fromAt(slot: number): number {
    return slot * SLOT_ADDRESS_BYTES;
  }

  toAt(slot: number): number {
    return slot * SLOT_ADDRESS_BYTES + ADDRESS_BYTES;
  }

  /** Our own address that the proxy's connection to the other side comes from. */
  proxyAt(slot: number): number {
    return slot * SLOT_ADDRESS_BYTES + 2 * ADDRESS_BYTES;
  }

  /** @param role ROLE_CLIENT or ROLE_SERVER */
  roleAt(role: number, version: number): number {
    return AT_PROXY_ADDRESSES + (role - 1) * ADDRESS_BYTES + (version === 4 ? 0 : 2 * ADDRESS_BYTES);
  }

  /** Our own address in the flow. */
  ownAt(slot: number): number {
    return this.directions[slot] === 0 ? this.toAt(slot) : this.fromAt(slot);
  }

  /** The other side's. */
  remoteAt(slot: number): number {
    return this.directions[slot] === 0 ? this.fromAt(slot) : this.toAt(slot);
  }

  /**
   * The flow of a packet by its real addresses, in either direction; sets `isReply`. A flow that is over is forgotten when
   * somebody opens one with the same ports.
   *
   * @param packet TCP or UDP
   */
  find(bytes: Uint8Array, packet: PacketInfo, nowMs: number): number {
    this.#key.setPacket(bytes, packet);
    let slot = this.#heads[this.#bucketOfKey()]!;
    while (slot !== NO_SLOT && !this.#isFlowOf(slot, bytes, packet)) slot = this.#next[slot]!;
    if (slot === NO_SLOT) return NO_SLOT;
    const isReopened = this.#isOver(slot) && this.#opens(packet);
    if (!isReopened && this.#expiresAt[slot]! * 1000 > nowMs) return slot;
    this.remove(slot, nowMs);
    return NO_SLOT;
  }

  /** The flow that a handle stands for. */
  findHandle(handle: number, nowMs: number): number {
    const slot = slotOfHandle(handle);
    if (this.handles[slot] !== handle || handle === 0) return NO_SLOT;
    if (this.#expiresAt[slot]! * 1000 > nowMs) return slot;
    this.remove(slot, nowMs);
    return NO_SLOT;
  }

  /**
   * Adds the flow that a packet opens. It must not be there yet. The packet is not counted: see `touch`.
   * @param peer slot of the peer at the other side, or -1
   * @returns its slot, or NO_SLOT when 4096 flows are alive, or 3072 that others opened and the peer has its share of them, or no
   *          handle has rested
   */
  insert(
    bytes: Uint8Array,
    packet: PacketInfo,
    direction: number,
    identity: number,
    revision: number,
    kind: number,
    proxyPort: number,
    nowMs: number,
    peer: number,
  ): number {
    const nowSeconds = Math.floor(nowMs / 1000);
    const owner = peer & (OWNERS - 1);
    if (this.#isFullFor(direction)) this.#evict(INGRESS, owner, nowSeconds, nowMs);
    else if (this.#freeCount === 0) this.#evict(ANY_DIRECTION, owner, nowSeconds, nowMs);
    if (this.#isFullFor(direction)) return NO_SLOT;
    const slot = this.#takeSlot(nowSeconds);
    if (slot === NO_SLOT) return NO_SLOT;
    this.#owners[slot] = owner;
    if (direction === INGRESS) {
      this.#ingressCount++;
      this.#counts[owner]!++;
    }
    this.#key.setPacket(bytes, packet);
    const bucket = this.#bucketOfKey();
    this.#buckets[slot] = bucket;
    this.#next[slot] = this.#heads[bucket]!;
    this.#heads[bucket] = slot;
    this.versions[slot] = packet.version;
    this.protocols[slot] = packet.protocol;
    this.directions[slot] = direction;
    this.kinds[slot] = kind;
    this.fromPorts[slot] = packet.sourcePort;
    this.toPorts[slot] = packet.destinationPort;
    this.proxyPorts[slot] = proxyPort;
    this.serverLegPorts[slot] = 0;
    this.identities[slot] = identity;
    this.revisions[slot] = revision;
    this.packets[2 * slot] = this.packets[2 * slot + 1] = 0;
    this.bytes[2 * slot] = this.bytes[2 * slot + 1] = 0;
    this.#states[2 * slot] = this.#states[2 * slot + 1] = 0;
    this.lastSeen[slot] = nowSeconds;
    this.#expiresAt[slot] = nowSeconds + this.#lifetimeOf(slot);
    const fromAt = this.fromAt(slot);
    const octets = packet.version === 4 ? 4 : 16;
    for (let i = 0; i < octets; i++) {
      this.addresses[fromAt + i] = bytes[packet.sourceAt + i]!;
      this.addresses[fromAt + ADDRESS_BYTES + i] = bytes[packet.destinationAt + i]!;
    }
    this.isReply = false;
    return slot;
  }

  /**
   * Moves the state and the lifetime of a flow on by a packet, and counts those between the opener and the proxy.
   * @param leg     LEG_OPENER or LEG_SERVER
   * @param isReply the packet travels towards whoever opened that leg's connection: the opener, or the proxy
   */
  touch(slot: number, leg: number, isReply: boolean, packet: PacketInfo, nowMs: number): void {
    const nowSeconds = Math.floor(nowMs / 1000);
    const before = this.#states[2 * slot + leg]!;
    let state = nextState(before, packet.protocol, packet.tcpFlags, isReply);
    const hasNewFin = ((state ^ before) & STATE_REPLIER_FIN & state) !== 0;
    if (leg === LEG_OPENER && hasNewFin && (before & STATE_OPENER_FIN) === 0) state |= STATE_PROXY_CLOSED_FIRST;
    this.#states[2 * slot + leg] = state;
    this.lastSeen[slot] = nowSeconds;
    this.#expiresAt[slot] = nowSeconds + this.#lifetimeOf(slot);
    if (leg !== LEG_OPENER) return;
    const side = 2 * slot + (isReply ? 1 : 0);
    this.packets[side] = this.packets[side]! + 1;
    this.bytes[side] = this.bytes[side]! + packet.end - packet.at;
  }

  /** Lets the proxies see a flow: before its first packet goes to one, and when its identity changed. */
  publish(slot: number): void {
    this.#view.write(
      this.handles[slot]!,
      this.directions[slot]!,
      this.versions[slot]!,
      this.protocols[slot]!,
      this.identities[slot]!,
      this.addresses,
      this.fromAt(slot),
      this.toAt(slot),
      this.fromPorts[slot]!,
      this.toPorts[slot]!,
    );
  }

  /** Notes where the proxy's connection to the other side comes from: a new connection, whatever was there before. */
  openServerLeg(slot: number, bytes: Uint8Array, packet: PacketInfo): void {
    const to = this.proxyAt(slot);
    const octets = packet.version === 4 ? 4 : 16;
    for (let i = 0; i < octets; i++) this.addresses[to + i] = bytes[packet.sourceAt + i]!;
    this.serverLegPorts[slot] = packet.sourcePort;
    this.#states[2 * slot + LEG_SERVER] = 0;
  }

  /** Forgets a flow; its handle rests. */
  remove(slot: number, nowMs: number): void {
    this.#remove(slot, this.#restOf(slot), nowMs);
  }

  #remove(slot: number, restSeconds: number, nowMs: number): void {
    const bucket = this.#buckets[slot]!;
    if (this.#heads[bucket] === slot) this.#heads[bucket] = this.#next[slot]!;
    else {
      let before = this.#heads[bucket]!;
      while (this.#next[before] !== slot) before = this.#next[before]!;
      this.#next[before] = this.#next[slot]!;
    }
    this.#restsUntil[this.handles[slot]!] = Math.floor(nowMs / 1000) + restSeconds;
    this.handles[slot] = 0;
    if (this.directions[slot] === INGRESS) {
      this.#ingressCount--;
      this.#counts[this.#owners[slot]!]!--;
    }
    this.#view.clear(slot);
    this.#free[(this.#freeAt + this.#freeCount++) & (MAX_REDIRECTED - 1)] = slot;
  }

  /**
   * Ends a flow whose proxy is gone, or that policy cut, but keeps it in mind for a while: what its ends still send must not be taken
   * for the start of another flow. Only a packet that opens one takes its place.
   */
  block(slot: number, nowMs: number): void {
    if (this.proxyPorts[slot] === 0) return;
    this.proxyPorts[slot] = 0;
    this.#view.clear(slot);
    this.#expiresAt[slot] = Math.floor(nowMs / 1000) + BLOCKED_S;
  }

  /** Whether a flow was ended by `block`. */
  isBlocked(slot: number): boolean {
    return this.proxyPorts[slot] === 0;
  }

  /** The next flow that is past its lifetime, among the next `budget` slots; NO_SLOT: none. Call it now and then. */
  takeExpired(nowMs: number, budget: number): number {
    const nowSeconds = Math.floor(nowMs / 1000);
    for (let i = 0; i < budget; i++) {
      const slot = this.#sweepAt;
      this.#sweepAt = (slot + 1) & (MAX_REDIRECTED - 1);
      if (this.handles[slot] !== 0 && this.#expiresAt[slot]! <= nowSeconds) {
        this.remove(slot, nowMs);
        return slot;
      }
    }
    return NO_SLOT;
  }

  /** For lists: "new" until an answer came, then "established" until it closes. */
  stateOf(slot: number): "new" | "established" | "closing" {
    const state = this.#states[2 * slot]!;
    return isClosing(state) ? "closing" : (state & STATE_REPLIED) !== 0 ? "established" : "new";
  }

  /** Whether a slot has a flow that goes on. */
  isAlive(slot: number, nowMs: number): boolean {
    return this.handles[slot] !== 0 && !this.isBlocked(slot) && this.#expiresAt[slot]! * 1000 > nowMs;
  }

  #isFullFor(direction: number): boolean {
    return direction === INGRESS && this.#ingressCount >= MAX_INGRESS;
  }

  #isOver(slot: number): boolean {
    return this.proxyPorts[slot] === 0 || isClosing(this.#states[2 * slot]!);
  }

  /** Whether a packet of the flow that `isReply` was set for can open one in its place. */
  #opens(packet: PacketInfo): boolean {
    return packet.protocol === PROTOCOL_TCP ? isOpeningSyn(packet.protocol, packet.tcpFlags) : !this.isReply;
  }

  /** Seeded, and the same for both directions. */
  #bucketOfKey(): number {
    return (this.#key.hash >>> 8) & (BUCKETS - 1);
  }

  /** Whether the packet belongs to the slot's flow; sets `isReply` if so. */
  #isFlowOf(slot: number, bytes: Uint8Array, packet: PacketInfo): boolean {
    const { version, protocol, sourcePort, destinationPort, sourceAt, destinationAt } = packet;
    if (this.versions[slot] !== version || this.protocols[slot] !== protocol) return false;
    const octets = version === 4 ? 4 : 16;
    const fromAt = this.fromAt(slot), toAt = fromAt + ADDRESS_BYTES;
    if (
      this.fromPorts[slot] === sourcePort && this.toPorts[slot] === destinationPort &&
      equalRange(this.addresses, fromAt, bytes, sourceAt, octets) &&
      equalRange(this.addresses, toAt, bytes, destinationAt, octets)
    ) {
      this.isReply = false;
      return true;
    }
    if (
      this.fromPorts[slot] !== destinationPort || this.toPorts[slot] !== sourcePort ||
      !equalRange(this.addresses, fromAt, bytes, destinationAt, octets) ||
      !equalRange(this.addresses, toAt, bytes, sourceAt, octets)
    ) return false;
    this.isReply = true;
    return true;
  }

  #lifetimeOf(slot: number): number {
    if (this.protocols[slot] !== PROTOCOL_TCP) return UDP_LIFETIME_S;
    const opener = this.#states[2 * slot]!;
    if (!isClosing(opener)) return (opener & STATE_ASSURED) !== 0 ? TCP_LIFETIME_S : TCP_OPENING_LIFETIME_S;
    const isServerDone = this.serverLegPorts[slot] === 0 || isClosing(this.#states[2 * slot + LEG_SERVER]!);
    return isServerDone ? TCP_CLOSING_LIFETIME_S : TCP_HALF_LIFETIME_S;
  }

  /** Seconds that the handle of a flow has to rest: a proxy's socket may linger unless the opener closed first, or reset. */
  #restOf(slot: number): number {
    if (this.protocols[slot] !== PROTOCOL_TCP) return REST_S;
    const state = this.#states[2 * slot]!;
    return isClosing(state) && (state & STATE_PROXY_CLOSED_FIRST) === 0 ? REST_S : TIME_WAIT_S;
  }

  /** A free slot with a handle that has rested, which it then has. */
  #takeSlot(nowSeconds: number): number {
    const tries = Math.min(HANDLE_TRIES, this.#freeCount);
    for (let i = 0; i < tries; i++) {
      const slot = this.#free[this.#freeAt]!;
      this.#freeAt = (this.#freeAt + 1) & (MAX_REDIRECTED - 1);
      this.#freeCount--;
      for (let n = 0; n < GENERATIONS; n++) {
        const generation = this.#generations[slot]! % GENERATIONS + 1;
        this.#generations[slot] = generation;
        const handle = generation * FIRST_HANDLE + slot;
        if (this.#restsUntil[handle]! > nowSeconds) continue;
        this.handles[slot] = handle;
        return slot;
      }
      this.#free[(this.#freeAt + this.#freeCount++) & (MAX_REDIRECTED - 1)] = slot;
    }
    return NO_SLOT;
  }

  /**
   * Makes room: a question that had its answer, or a connection that is over or never began; else, for a peer that has few, the most
   * silent of those met of a peer that has many.
   * @param direction of who may go
   * @param owner     whom the room is for
   */
  #evict(direction: number, owner: number, nowSeconds: number, nowMs: number): void {
    const mayTake = direction === INGRESS && this.#counts[owner]! < FEW_FLOWS;
    let victim = NO_SLOT;
    for (let i = 0; i < MAX_REDIRECTED; i++) {
      if (i >= EVICTION_TRIES && (!mayTake || victim !== NO_SLOT)) break;
      const slot = this.#evictAt;
      this.#evictAt = (slot + 1) & (MAX_REDIRECTED - 1);
      if (this.handles[slot] === 0 || (direction !== ANY_DIRECTION && this.directions[slot] !== direction)) continue;
      if (this.#mayGo(slot, nowSeconds)) return this.remove(slot, nowMs);
      if (!mayTake || this.#counts[this.#owners[slot]!]! <= MANY_FLOWS) continue;
      if (victim === NO_SLOT || this.lastSeen[slot]! < this.lastSeen[victim]!) victim = slot;
    }
    // its ends know nothing of it, and go on
    if (victim !== NO_SLOT) this.#remove(victim, BLOCKED_S, nowMs);
  }

  #mayGo(slot: number, nowSeconds: number): boolean {
    if (this.#expiresAt[slot]! <= nowSeconds) return true;
    if (nowSeconds - this.lastSeen[slot]! < EVICT_AFTER_S) return false;
    const state = this.#states[2 * slot]!;
    if (this.proxyPorts[slot] === 0) return true;
    return this.protocols[slot] === PROTOCOL_TCP
      ? isClosing(state) || (state & STATE_ASSURED) === 0
      : (state & STATE_REPLIED) !== 0;
  }
}
