/**
 * The flow table: which flows were allowed, so that their later packets and their replies pass without asking policy anew.
 *
 * Open addressing with a bounded window: a flow's tag stands in one of the WINDOW slots from its home on, so a look-up costs at
 * most that, whatever anybody sends. Entries themselves are packed apart, never move, and are known by their index. Only allowed
 * flows are in the table; each remembers the policy revision that allowed it, and the datapath asks again when that changed.
 *
 * Fragments never come here (`readPacket` drops them). Callers have checked that the source address is the sender's own: the
 * table believes that a packet of the opening direction comes from the opener.
 *
 * Hot file (bench: `scripts/bench/micro.ts`, stage "conntrack"). Read flow_key.ts first.
 */
import { equalRange } from "../bytes/compare.ts";
import { ICMP_HEADER_BYTES, PROTOCOL_TCP } from "../wire/numbers.ts";
import { ICMP6_ECHO_REPLY, ICMP_ECHO_REPLY, type PacketInfo } from "../wire/packet.ts";
import { ExpiryWheel } from "./expiry_wheel.ts";
import { FlowKey, KEY_WORDS, KIND_ECHO } from "./flow_key.ts";
import { isClosing, isOpeningSyn, lifetimeOf, nextState, STATE_ASSURED, STATE_REPLIED } from "./lifetimes.ts";

/** What `find`, `findRelated` and `insert` answer when there is no entry. */
export const NO_FLOW = -1;

/** Slots per entry of the capacity: so sparse that a window is practically never full of other flows. */
const SLOTS_PER_ENTRY = 4;
const WINDOW = 16;
/** Slots searched for a victim when the table is full: about 24 flows, and all of a table for fewer than 20. */
const EVICTION_WINDOW = 96;
/** A finished handshake protects a TCP flow from eviction until it was silent for so long. */
const PROTECTED_S = 300;
/**
 * When the table is full, flows go that belong to whoever has at least as many as the one that wants room. An established TCP flow goes
 * only where that one has fewer than one in FEW of the capacity, and its own owner more than one in MANY.
 */
const FEW = 64;
const MANY = 16;
/** Owners are peer slots, of which there are 4096, and OWN_FLOWS. */
const OWNERS = 1 << 13;
/** Owner of the flows that our own programs open. */
export const OWN_FLOWS = OWNERS - 1;
/** Ages in seconds that `recentFlows` tells apart; beyond, all are old. */
const AGES = 4096;

/** Opener is side a of the key; beside the bits of lifetimes.ts. */
const STATE_OPENED_BY_A = 128;

/** One flow, as status and lists show it. Addresses are 4 or 16 octets. */
export interface FlowSnapshot {
  readonly protocol: number;
  readonly opener: Uint8Array;
  readonly responder: Uint8Array;
  /** ICMP echo: the identifier; other ICMP: the type */
  readonly openerPort: number;
  readonly responderPort: number;
  /** an ICMP echo, whose ports are no type */
  readonly isEcho: boolean;
  /** direction that opened it: INGRESS 0 or EGRESS 1 */
  readonly direction: number;
  readonly state: "new" | "established" | "closing";
  readonly identity: number;
  readonly rule: number;
  readonly revision: number;
  readonly packets: number;
  readonly replyPackets: number;
  readonly bytes: number;
  readonly replyBytes: number;
  /** whole seconds, of the clock that `nowMs` counts in */
  readonly lastSeenSeconds: number;
  readonly expiresAtSeconds: number;
}

/** Flows by both of their directions. All memory is reserved at construction; pages are touched as flows come. */
export class ConntrackTable {
  /** Largest number of flows. */
  readonly capacity: number;
  /** Whether the packet of the last `find` or `findRelated` that answered an entry travels against the opening direction. */
  isReply = false;
  /** what the last `find` or `insert` that gave an entry gave */
  last = NO_FLOW;
  /** Flows that had to go before their time because the table was full. */
  evictions = 0;

  readonly #key: FlowKey;
  readonly #wheel: ExpiryWheel;
  /** per slot: hash | 1 of the flow there, 0 = free; and its entry */
  readonly #tags: Int32Array;
  readonly #entries: Int32Array;
  readonly #homeShift: number;
  /** entries never used are `#used ..`; those given back stand in `#free[0 .. #freeCount)` */
  readonly #free: Int32Array;
  #freeCount = 0;
  #used = 0;

  // per entry
  readonly #keys: Int32Array;
  readonly #slots: Int32Array;
  readonly #states: Uint8Array;
  readonly #directions: Uint8Array;
  readonly #owners: Uint16Array;
  readonly #revisions: Float64Array;
  readonly #identities: Uint32Array;
  readonly #rules: Int32Array;
  readonly #expiresAt: Int32Array;
  readonly #lastSeen: Int32Array;
  /** opening direction, reply direction */
  readonly #packets: Float64Array;
  readonly #bytes: Float64Array;
  /** flows, by owner */
  readonly #counts: Int32Array;

  /**
   * @param capacity flows, 1 to 2^24
   * @param seed     at least 8 secret random octets, against flows chosen to collide
   */
  constructor(capacity: number, seed: Uint8Array) {
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > 1 << 24) {
      throw new RangeError(`Cannot make a flow table for ${capacity} flows: not from 1 to 2^24`);
    }
    this.capacity = capacity;
    this.#key = new FlowKey(seed);
    this.#wheel = new ExpiryWheel(capacity);
    const slotBits = Math.max(6, Math.ceil(Math.log2(capacity * SLOTS_PER_ENTRY)));
    this.#homeShift = 32 - slotBits;
    const slots = 2 ** slotBits + WINDOW;
    // One buffer for all columns: the system gives a large one page by page as flows come, and fills small ones at once (4 MB).
    const room = new ArrayBuffer(slots * 8 + capacity * (4 * KEY_WORDS + 68) + 4 * OWNERS);
    let at = 0;
    const take = (bytes: number): number => (at += bytes) - bytes;
    this.#revisions = new Float64Array(room, take(8 * capacity), capacity);
    this.#packets = new Float64Array(room, take(16 * capacity), 2 * capacity);
    this.#bytes = new Float64Array(room, take(16 * capacity), 2 * capacity);
    this.#tags = new Int32Array(room, take(4 * slots), slots);
    this.#entries = new Int32Array(room, take(4 * slots), slots);
    this.#free = new Int32Array(room, take(4 * capacity), capacity);
    this.#keys = new Int32Array(room, take(4 * KEY_WORDS * capacity), capacity * KEY_WORDS);
    this.#slots = new Int32Array(room, take(4 * capacity), capacity);
    this.#identities = new Uint32Array(room, take(4 * capacity), capacity);
    this.#rules = new Int32Array(room, take(4 * capacity), capacity);
    this.#expiresAt = new Int32Array(room, take(4 * capacity), capacity);
    this.#lastSeen = new Int32Array(room, take(4 * capacity), capacity);
    this.#counts = new Int32Array(room, take(4 * OWNERS), OWNERS);
    this.#owners = new Uint16Array(room, take(2 * capacity), capacity);
    this.#states = new Uint8Array(room, take(capacity), capacity);
    this.#directions = new Uint8Array(room, take(capacity), capacity);
  }

  /** Number of flows, expired ones included until they are met. */
  get size(): number {
    return this.#used - this.#freeCount;
  }

  /**
   * The flow of a packet, in either direction; sets `isReply`.
   *
   * A flow past its lifetime is removed and not found. Neither is a closed TCP flow when the other side opens one with the same
   * ports: that is a new flow, in its own direction.
   *
   * @param packet as `readPacket` wrote it, for the same `bytes`
   * @returns index of the entry, valid until the next `insert`, `remove` or `expire`; or -1
   */
  find(bytes: Uint8Array, packet: PacketInfo, nowMs: number): number {
    const key = this.#key;
    key.setPacket(bytes, packet);
    let entry = this.#findLive(nowMs);
    if (entry === NO_FLOW) {
      if (!isEchoReply(key, packet)) return NO_FLOW;
      key.setOneWay(bytes, packet); // perhaps allowed earlier, as a packet that answers nothing
      entry = this.#findLive(nowMs);
      if (entry === NO_FLOW) return NO_FLOW;
    }
    const isReply = this.#isReplyTo(entry);
    if (isReply && isOpeningSyn(packet.protocol, packet.tcpFlags) && isClosing(this.#states[entry]!)) {
      this.remove(entry);
      return NO_FLOW;
    }
    this.isReply = isReply;
    this.last = entry;
    return entry;
  }

  /**
   * The flow that an ICMP error is about; sets `isReply` for the error itself: it travels to the sender of the packet it quotes.
   *
   * The quotation must belong to a known flow, and the error must go to the quoted sender; so nobody gets an error in that names
   * a flow that is not there (RFC 5927 §4). Sequence numbers are not known here: TCP itself checks them.
   *
   * @param packet an ICMP error (types 3, 11, 12; ICMPv6 1 to 4) as `readPacket` wrote it
   */
  findRelated(bytes: Uint8Array, packet: PacketInfo, nowMs: number): number {
    const quotedAt = packet.transportAt + ICMP_HEADER_BYTES;
    const key = this.#key;
    if (!key.setQuoted(bytes, quotedAt, packet.end, packet.version)) return NO_FLOW;
    const isV4 = packet.version === 4;
    if (!equalRange(bytes, packet.destinationAt, bytes, quotedAt + (isV4 ? 12 : 8), isV4 ? 4 : 16)) return NO_FLOW;
    const entry = this.#findLive(nowMs);
    if (entry !== NO_FLOW) this.isReply = !this.#isReplyTo(entry);
    return entry;
  }

  /**
   * Adds the flow that an allowed packet opens, and counts the packet. A flow of the same key is replaced.
   *
   * @param direction INGRESS 0 or EGRESS 1
   * @param identity  of the other side
   * @param revision  of the policy that allowed it, an integer below 2^53
   * @param owner     whose flow it is when room is short: slot of the peer that opened it, or OWN_FLOWS
   * @returns index, or -1 when the table is full of flows that deserve to stay
   */
  insert(
    bytes: Uint8Array,
    packet: PacketInfo,
    direction: number,
    identity: number,
    revision: number,
    nowMs: number,
    owner: number,
  ): number {
    const key = this.#key;
    key.setPacket(bytes, packet);
    if (isEchoReply(key, packet)) key.setOneWay(bytes, packet);
    const nowSeconds = Math.floor(nowMs / 1000);
    const old = this.#findKey();
    if (old !== NO_FLOW) this.remove(old);
    const slot = this.#makeRoom(nowSeconds, owner);
    if (slot < 0) return NO_FLOW;
    const entry = this.#freeCount > 0 ? this.#free[--this.#freeCount]! : this.#used++;
    this.#tags[slot] = key.hash | 1;
    this.#entries[slot] = entry;
    this.#slots[entry] = slot;
    this.#owners[entry] = owner;
    this.#counts[owner]!++;
    const keyAt = entry * KEY_WORDS;
    for (let i = 0; i < key.wordCount; i++) this.#keys[keyAt + i] = key.words[i]!;
    const state = nextState(0, packet.protocol, packet.tcpFlags, false);
    this.#states[entry] = key.isFromA ? state | STATE_OPENED_BY_A : state;
    this.#directions[entry] = direction;
    this.#identities[entry] = identity;
    this.#revisions[entry] = revision;
    this.#rules[entry] = -1;
    this.#lastSeen[entry] = nowSeconds;
    this.#expiresAt[entry] = nowSeconds + lifetimeOf(state, packet.protocol);
    this.#packets[2 * entry] = 1;
    this.#packets[2 * entry + 1] = 0;
    this.#bytes[2 * entry] = packet.end - packet.at;
    this.#bytes[2 * entry + 1] = 0;
    this.#wheel.add(entry, this.#expiresAt[entry]!, nowSeconds);
    this.isReply = false;
    this.last = entry;
    return entry;
  }

  /**
   * Counts a packet that passes, and moves the flow's state and lifetime on. Its direction is `isReply` of the `find` that gave
   * `entry`, which must have been the last one.
   */
  touch(entry: number, packet: PacketInfo, nowMs: number): void {
    const nowSeconds = Math.floor(nowMs / 1000);
    const state = nextState(this.#states[entry]!, packet.protocol, packet.tcpFlags, this.isReply);
    this.#states[entry] = state | (this.#states[entry]! & STATE_OPENED_BY_A);
    const side = 2 * entry + (this.isReply ? 1 : 0);
    this.#packets[side] = this.#packets[side]! + 1;
    this.#bytes[side] = this.#bytes[side]! + packet.end - packet.at;
    this.#lastSeen[entry] = nowSeconds;
    const expiresAt = nowSeconds + lifetimeOf(state, packet.protocol);
    this.#expiresAt[entry] = expiresAt;
    if (expiresAt < this.#wheel.dueOf(entry)) {
      this.#wheel.remove(entry);
      this.#wheel.add(entry, expiresAt, nowSeconds);
    }
  }

  /** Counts another packet right behind one that `touch` was called for: of the same flags, way and second. */
  touchAgain(entry: number, octets: number): void {
    const side = 2 * entry + (this.isReply ? 1 : 0);
    this.#packets[side] = this.#packets[side]! + 1;
    this.#bytes[side] = this.#bytes[side]! + octets;
  }

  /** Forgets a flow. */
  remove(entry: number): void {
    this.#wheel.remove(entry);
    this.#release(entry);
  }

  /**
   * Forgets flows that are past their lifetime. Call it now and then; `find` never answers an expired flow anyway.
   * @param budget most entries to look at
   * @returns how many it forgot
   */
  expire(nowMs: number, budget: number): number {
    const nowSeconds = Math.floor(nowMs / 1000);
    let removed = 0;
    for (let i = 0; i < budget; i++) {
      const entry = this.#wheel.takeDue(nowSeconds);
      if (entry < 0) break;
      if (this.#expiresAt[entry]! <= nowSeconds) {
        this.#release(entry);
        removed++;
      } else this.#wheel.add(entry, this.#expiresAt[entry]!, nowSeconds);
    }
    return removed;
  }

  /** Policy revision that last allowed the flow. */
  revisionOf(entry: number): number {
    return this.#revisions[entry]!;
  }

  /** Notes that the flow was judged again and may stay. @param identity of the other side now */
  setJudged(entry: number, revision: number, identity: number): void {
    this.#revisions[entry] = revision;
    this.#identities[entry] = identity;
  }

  protocolOf(entry: number): number {
    return this.#keys[entry * KEY_WORDS]! & 0xff;
  }

  /** Port that the flow was opened to; of an echo, its identifier. */
  responderPortOf(entry: number): number {
    const ports = this.#keys[entry * KEY_WORDS + 1]!;
    return (this.#states[entry]! & STATE_OPENED_BY_A) !== 0 ? ports & 0xffff : ports >>> 16;
  }

  /** Direction of the packet that opened the flow: INGRESS 0 or EGRESS 1. */
  directionOf(entry: number): number {
    return this.#directions[entry]!;
  }

  /** Identity of the other side when the flow was last judged. */
  identityOf(entry: number): number {
    return this.#identities[entry]!;
  }

  /** The rule that allowed the flow, as the caller numbers rules; -1 until it is set. */
  ruleOf(entry: number): number {
    return this.#rules[entry]!;
  }

  setRule(entry: number, rule: number): void {
    this.#rules[entry] = rule;
  }

  /** A key with this table's secret seed, for a table beside it. */
  makeKey(): FlowKey {
    return this.#key.another();
  }

  /**
   * The flows alive that had a packet last, newest first. Allocates: for lists.
   * @param limit most of them, 0 or more
   */
  recentFlows(nowMs: number, limit: number): FlowSnapshot[] {
    const nowSeconds = Math.floor(nowMs / 1000);
    // How many were seen how many seconds ago: tells where to stop without sorting a whole table.
    const counts = new Int32Array(AGES);
    for (let entry = 0; entry < this.#used; entry++) {
      if (this.#isAlive(entry, nowSeconds)) counts[this.#ageOf(entry, nowSeconds)]!++;
    }
    let oldest = 0;
    for (let count = counts[0]!; oldest < AGES - 1 && count < limit; count += counts[oldest]!) oldest++;
    const found: number[] = [];
    for (let entry = 0; entry < this.#used; entry++) {
      if (this.#isAlive(entry, nowSeconds) && this.#ageOf(entry, nowSeconds) <= oldest) found.push(entry);
    }
    found.sort((a, b) => this.#lastSeen[b]! - this.#lastSeen[a]!);
    return found.slice(0, limit).map((entry) => this.#snapshot(entry));
  }

  /** Seconds since the last packet, as far as they are told apart. */
  #ageOf(entry: number, nowSeconds: number): number {
    return Math.min(AGES - 1, Math.max(0, nowSeconds - this.#lastSeen[entry]!));
  }

  #isAlive(entry: number, nowSeconds: number): boolean {
    const slot = this.#slots[entry]!;
    return this.#tags[slot] !== 0 && this.#entries[slot] === entry && this.#expiresAt[entry]! > nowSeconds;
  }

  /** All flows that are still alive. Allocates: for status, not for the packet path. The table must not change meanwhile. */
  *flows(nowMs: number): IterableIterator<FlowSnapshot> {
    const nowSeconds = Math.floor(nowMs / 1000);
    for (let slot = 0; slot < this.#tags.length; slot++) {
      const entry = this.#entries[slot]!;
      if (this.#tags[slot] !== 0 && this.#expiresAt[entry]! > nowSeconds) yield this.#snapshot(entry);
    }
  }

  #snapshot(entry: number): FlowSnapshot {
    const keyAt = entry * KEY_WORDS;
    const head = this.#keys[keyAt]!, ports = this.#keys[keyAt + 1]!, state = this.#states[entry]!;
    const octets = head >> 16 === 4 ? 4 : 16;
    const a = new Uint8Array(octets), b = new Uint8Array(octets);
    for (let i = 0; i < octets; i++) {
      const wordAt = keyAt + 2 + 2 * (i >> 2);
      a[i] = this.#keys[wordAt]! >> (24 - 8 * (i & 3));
      b[i] = this.#keys[wordAt + 1]! >> (24 - 8 * (i & 3));
    }
    const isOpenedByA = (state & STATE_OPENED_BY_A) !== 0;
    const aPort = ports >>> 16, bPort = ports & 0xffff;
    return {
      protocol: head & 0xff,
      opener: isOpenedByA ? a : b,
      responder: isOpenedByA ? b : a,
      openerPort: isOpenedByA ? aPort : bPort,
      responderPort: isOpenedByA ? bPort : aPort,
      isEcho: ((head >> 8) & 0xff) === KIND_ECHO,
      direction: this.#directions[entry]!,
      state: isClosing(state) ? "closing" : (state & STATE_REPLIED) !== 0 ? "established" : "new",
      identity: this.#identities[entry]!,
      rule: this.#rules[entry]!,
      revision: this.#revisions[entry]!,
      packets: this.#packets[2 * entry]!,
      replyPackets: this.#packets[2 * entry + 1]!,
      bytes: this.#bytes[2 * entry]!,
      replyBytes: this.#bytes[2 * entry + 1]!,
      lastSeenSeconds: this.#lastSeen[entry]!,
      expiresAtSeconds: this.#expiresAt[entry]!,
    };
  }

  #isReplyTo(entry: number): boolean {
    return this.#key.isFromA !== ((this.#states[entry]! & STATE_OPENED_BY_A) !== 0);
  }

  /** The entry of `#key`, unless its time is over. */
  #findLive(nowMs: number): number {
    const entry = this.#findKey();
    if (entry === NO_FLOW || this.#expiresAt[entry]! * 1000 > nowMs) return entry;
    this.remove(entry);
    return NO_FLOW;
  }

  #findKey(): number {
    const tags = this.#tags;
    const tag = this.#key.hash | 1;
    const home = this.#key.hash >>> this.#homeShift;
    for (let slot = home; slot < home + WINDOW; slot++) {
      if (tags[slot] === tag && this.#hasKey(this.#entries[slot]!)) return this.#entries[slot]!;
    }
    return NO_FLOW;
  }

  #hasKey(entry: number): boolean {
    const words = this.#key.words;
    const keys = this.#keys;
    const keyAt = entry * KEY_WORDS;
    for (let i = 0; i < this.#key.wordCount; i++) if (keys[keyAt + i] !== words[i]) return false;
    return true;
  }

  /** A free slot in the window of `#key`, with a free entry to go with it; evicts if it must. -1 when nothing may go. */
  #makeRoom(nowSeconds: number, owner: number): number {
    const home = this.#key.hash >>> this.#homeShift;
    let slot = this.#freeSlot(home);
    const isFull = this.#freeCount === 0 && this.#used === this.capacity;
    if (slot >= 0 && !isFull) return slot;
    const victim = this.#findVictim(home, slot < 0 ? WINDOW : EVICTION_WINDOW, nowSeconds, owner);
    if (victim === NO_FLOW) return -1;
    if (slot < 0) slot = this.#slots[victim]!;
    this.remove(victim);
    this.evictions++;
    return slot;
  }

  #freeSlot(home: number): number {
    for (let slot = home; slot < home + WINDOW; slot++) if (this.#tags[slot] === 0) return slot;
    return -1;
  }

  /** The flow that is missed least among those near `home`: by class, then by how long it has been silent. */
  #findVictim(home: number, window: number, nowSeconds: number, owner: number): number {
    let victim = NO_FLOW;
    let leastWorth = Infinity;
    for (let i = 0, slot = home; i < window; i++, slot++) {
      if (slot === this.#tags.length) slot = 0;
      if (this.#tags[slot] === 0) continue;
      const entry = this.#entries[slot]!;
      const worth = this.#worthOf(entry, nowSeconds, owner) * 2 ** 32 + this.#lastSeen[entry]!;
      if (worth < leastWorth) {
        leastWorth = worth;
        victim = entry;
      }
    }
    return victim;
  }

  /**
   * Lowest goes first. Over or closing: 0. Of somebody with very many: 1 not answered (or a handshake not done), 2 answered, 3 an
   * established connection. Of others: 4 not answered, 5 answered. Infinity: not to be evicted.
   * @param owner whom the room is for
   */
  #worthOf(entry: number, nowSeconds: number, owner: number): number {
    const state = this.#states[entry]!;
    if (isClosing(state) || this.#expiresAt[entry]! <= nowSeconds) return 0;
    const wanted = this.#counts[owner]!;
    const holder = this.#owners[entry]!;
    const held = this.#counts[holder]!;
    if (held < wanted) return Infinity;
    const hasMany = held * MANY > this.capacity;
    const isTcp = (this.#keys[entry * KEY_WORDS]! & 0xff) === PROTOCOL_TCP;
    if ((state & (isTcp ? STATE_ASSURED : STATE_REPLIED)) === 0) return hasMany ? 1 : 4;
    if (!isTcp || nowSeconds - this.#lastSeen[entry]! > PROTECTED_S) return hasMany ? 2 : 5;
    const mayCut = hasMany && holder !== owner && holder !== OWN_FLOWS && wanted * FEW < this.capacity;
    return mayCut ? 3 : Infinity;
  }

  /** Gives back slot and entry of a flow that is no longer in the wheel. */
  #release(entry: number): void {
    this.#tags[this.#slots[entry]!] = 0;
    this.#counts[this.#owners[entry]!]!--;
    this.#free[this.#freeCount++] = entry;
  }
}

function isEchoReply(key: FlowKey, packet: PacketInfo): boolean {
  return key.kind === KIND_ECHO && (packet.icmpType === ICMP_ECHO_REPLY || packet.icmpType === ICMP6_ECHO_REPLY);
}
