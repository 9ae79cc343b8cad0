/**
 * Which flow the fragments of a packet belong to: only the first has ports, so it is judged like any packet, and when it may
 * pass the others are taken for its flow (Cilium's `enable-ipv4-fragments-tracking`). One that comes before its first is dropped.
 *
 * What a later fragment says cannot be put over what the first was judged by: it may not begin before the first one ends
 * (RFC 1858, RFC 3128, RFC 5722). Whether later ones overlap each other is for the destination to see.
 *
 * Fixed memory, made when the first fragment comes; no allocation per packet. An entry lives as long as Linux keeps fragments.
 */
import { readI32 } from "../bytes/integers.ts";
import { DROP_FRAGMENT, DROP_FRAGMENT_NOT_FOUND, FORWARD, type Verdict } from "../verdict.ts";
import type { FragmentInfo } from "../wire/fragment.ts";
import type { PacketInfo } from "../wire/packet.ts";

/** Fragmented packets under way at a time: with 64 octets each 64 KiB. */
const SETS = 256;
const WAYS = 4;
const ENTRIES = SETS * WAYS;
/** net.ipv4.ipfrag_time */
const LIFETIME_MS = 30_000;
/** addresses (8 words), id, version and protocol */
const KEY_WORDS = 10;
const ADDRESS_WORDS = 4;

export class FragmentTable {
  readonly #seed: number;
  readonly #keys = new Int32Array(ENTRIES * KEY_WORDS);
  readonly #expiresAtMs = new Float64Array(ENTRIES);
  readonly #ports = new Uint16Array(ENTRIES * 2);
  readonly #icmp = new Uint16Array(ENTRIES);
  /** one past the first fragment's data */
  readonly #firstEnd = new Uint16Array(ENTRIES);
  readonly #key = new Int32Array(KEY_WORDS);

  /** @param seed any 32 bits that others cannot know: who does can make fragments of others be forgotten */
  constructor(seed: number) {
    this.#seed = seed;
  }

  /** Keeps the flow of a first fragment that may pass. */
  add(bytes: Uint8Array, packet: PacketInfo, fragment: FragmentInfo, nowMs: number): void {
    const set = this.#hash(bytes, packet, fragment);
    let entry = this.#findIn(set, nowMs);
    if (entry < 0) entry = this.#victimIn(set, nowMs);
    this.#keys.set(this.#key, entry * KEY_WORDS);
    this.#expiresAtMs[entry] = nowMs + LIFETIME_MS;
    this.#ports[2 * entry] = packet.sourcePort;
    this.#ports[2 * entry + 1] = packet.destinationPort;
    this.#icmp[entry] = (packet.icmpType << 8) | packet.icmpCode;
    this.#firstEnd[entry] = fragment.endOffset;
  }

  /**
   * Gives a later fragment the ports of its first.
   * @returns FORWARD; DROP_FRAGMENT_NOT_FOUND: no first one has passed; DROP_FRAGMENT: it lies over the first one
   */
  fill(bytes: Uint8Array, packet: PacketInfo, fragment: FragmentInfo, nowMs: number): Verdict {
    const entry = this.#findIn(this.#hash(bytes, packet, fragment), nowMs);
    if (entry < 0) return DROP_FRAGMENT_NOT_FOUND;
    if (fragment.offset < this.#firstEnd[entry]!) return DROP_FRAGMENT;
    packet.sourcePort = this.#ports[2 * entry]!;
    packet.destinationPort = this.#ports[2 * entry + 1]!;
    packet.icmpType = this.#icmp[entry]! >> 8;
    packet.icmpCode = this.#icmp[entry]! & 0xff;
    return FORWARD;
  }

  /** Makes the key. @returns the first entry of its set */
  #hash(bytes: Uint8Array, packet: PacketInfo, fragment: FragmentInfo): number {
    const key = this.#key;
    const words = packet.version === 4 ? 1 : 4;
    let hash = this.#seed;
    for (let i = 0; i < 4; i++) {
      key[i] = i < words ? readI32(bytes, packet.sourceAt + 4 * i) : 0;
      key[4 + i] = i < words ? readI32(bytes, packet.destinationAt + 4 * i) : 0;
    }
    key[8] = fragment.id;
    key[9] = (packet.version << 8) | packet.protocol;
    for (let i = 0; i < KEY_WORDS; i++) {
      hash = Math.imul(hash ^ key[i]!, 0x9e3779b1 | 0);
      hash ^= hash >>> 15;
    }
    return (hash & (SETS - 1)) * WAYS;
  }

  #findIn(set: number, nowMs: number): number {
    for (let entry = set; entry < set + WAYS; entry++) {
      if (this.#expiresAtMs[entry]! > nowMs && this.#isKeyOf(entry)) return entry;
    }
    return -1;
  }

  #isKeyOf(entry: number): boolean {
    const at = entry * KEY_WORDS;
    for (let i = 0; i < KEY_WORDS; i++) if (this.#keys[at + i] !== this.#key[i]) return false;
    return true;
  }

  /**
   * The entry of a full set that goes: one that is over, else the oldest of the sender that wants it, else the oldest of whoever has
   * most there. So a flood of one sender makes it forget its own packets, not those of others.
   */
  #victimIn(set: number, nowMs: number): number {
    let victim = set;
    let most = -1;
    for (let entry = set; entry < set + WAYS; entry++) {
      if (this.#expiresAtMs[entry]! <= nowMs) return entry;
      const share = this.#isFrom(entry, this.#key, 0) ? WAYS + 1 : this.#shareOf(entry, set);
      if (share < most || (share === most && this.#expiresAtMs[entry]! >= this.#expiresAtMs[victim]!)) continue;
      victim = entry;
      most = share;
    }
    return victim;
  }

  /** How many entries of the set its sender has. */
  #shareOf(entry: number, set: number): number {
    let share = 0;
    for (let other = set; other < set + WAYS; other++) {
      if (this.#isFrom(other, this.#keys, entry * KEY_WORDS)) share++;
    }
    return share;
  }

  /** Whether an entry's packet has the source address that begins the key at `at`. */
  #isFrom(entry: number, keys: Int32Array, at: number): boolean {
    const from = entry * KEY_WORDS;
    for (let i = 0; i < ADDRESS_WORDS; i++) if (this.#keys[from + i] !== keys[at + i]) return false;
    return true;
  }
}
