/**
 * Longest-prefix match: prefix -> a small integer (a slot of somebody's table).
 *
 * One hash table per family holds the prefixes of every length. A look-up asks it once per length that is in use, longest
 * first: a mesh uses a handful (/32, a few pod ranges, /0), so that is two to five probes, whatever the number of prefixes.
 * Memory follows the number of prefixes, not how they are spread, which a trie of wide nodes would not give.
 *
 * Hot file (bench: `scripts/bench/micro.ts`, stage "prefix"). `find...` allocates nothing.
 */
import { readI32 } from "../bytes/integers.ts";
import { type IpPrefix, maskedPrefix } from "./address.ts";

/** What a look-up answers when no prefix covers the address. */
export const NO_VALUE = -1;

const MIN_BUCKETS = 16;

/** Odd constants with well mixed bits (golden ratio, xxHash primes). Prefixes come from the hub, so no seed is needed. */
const MIX_A = 0x9e3779b1 | 0;
const MIX_B = 0x85ebca77 | 0;
const MIX_C = 0xc2b2ae3d | 0;
const MIX_D = 0x27d4eb2f | 0;
const MIX_LENGTH = 0x165667b1 | 0;

// A bucket is a run of int32: the words of the prefix, then length + 1 (0 = empty), then the value.
const V4_STRIDE = 4;
const V6_STRIDE = 8;

/** Mask of the first `length` bits, one word per length 0 to 32. */
const MASKS = Int32Array.from({ length: 33 }, (_, length) => length === 0 ? 0 : -1 << (32 - length));

/** IPv4 and IPv6 prefixes with a value each; the longest that covers an address wins. Grows as needed. */
export class PrefixTable {
  readonly #v4 = new Family(1, V4_STRIDE, 32);
  readonly #v6 = new Family(4, V6_STRIDE, 128);

  /** Number of prefixes. */
  get size(): number {
    return this.#v4.size + this.#v6.size;
  }

  /**
   * Adds a prefix, or replaces its value. Host bits of the address are ignored.
   * @param value an integer from 0 to 2^31 - 1
   */
  set(prefix: IpPrefix, value: number): void {
    if (!Number.isInteger(value) || value < 0 || value > 0x7fffffff) {
      throw new RangeError(`Cannot store value ${value} for a prefix: not an integer from 0 to 2^31 - 1`);
    }
    this.#familyOf(prefix).set(maskedPrefix(prefix).address, prefix.length, value);
  }

  /** Removes exactly this prefix; whether it was there. */
  delete(prefix: IpPrefix): boolean {
    return this.#familyOf(prefix).delete(maskedPrefix(prefix).address, prefix.length);
  }

  /** Value of exactly this prefix, or -1. */
  get(prefix: IpPrefix): number {
    return this.#familyOf(prefix).get(maskedPrefix(prefix).address, prefix.length);
  }

  /** Removes everything. */
  clear(): void {
    this.#v4.clear();
    this.#v6.clear();
  }

  /** Value of the longest prefix that covers an IPv4 address, or -1. @param word as `readI32` gives it */
  find4(word: number): number {
    return this.#v4.find4(word);
  }

  /** Value of the longest prefix that covers the IPv6 address at `at`, or -1. The caller has checked that 16 octets exist. */
  find6(bytes: Uint8Array, at: number): number {
    return this.#v6.find6(bytes, at);
  }

  /** `find4` or `find6` for an address inside a packet. @param version 4 or 6 */
  find(bytes: Uint8Array, at: number, version: number): number {
    return version === 4 ? this.#v4.find4(readI32(bytes, at)) : this.#v6.find6(bytes, at);
  }

  /** All prefixes, in no particular order, with host bits cleared. The table must not change meanwhile. */
  *entries(): IterableIterator<[IpPrefix, number]> {
    yield* this.#v4.entries();
    yield* this.#v6.entries();
  }

  #familyOf(prefix: IpPrefix): Family {
    const { address, length } = prefix;
    const family = address.length === 4 ? this.#v4 : this.#v6;
    const isValid = address.length * 8 === family.maxLength && Number.isInteger(length) && length >= 0;
    if (!isValid || length > family.maxLength) {
      throw new RangeError(`Cannot use prefix of ${address.length} octets and length ${length}: out of range`);
    }
    return family;
  }
}

/** The prefixes of one family. Linear probing, at most half full; deletion moves later buckets back, so there are no tombstones. */
class Family {
  readonly maxLength: number;
  readonly #words: number;
  readonly #stride: number;
  /** prefixes per length */
  readonly #counts: Int32Array;
  /** lengths in use, longest first; only the first `#lengthCount` are valid */
  readonly #lengths: Uint8Array;
  #lengthCount = 0;
  #buckets: Int32Array;
  /** number of buckets - 1 */
  #mask = MIN_BUCKETS - 1;
  size = 0;

  constructor(words: number, stride: number, maxLength: number) {
    this.#words = words;
    this.#stride = stride;
    this.maxLength = maxLength;
    this.#counts = new Int32Array(maxLength + 1);
    this.#lengths = new Uint8Array(maxLength + 1);
    this.#buckets = new Int32Array(MIN_BUCKETS * stride);
  }

  find4(word: number): number {
    const buckets = this.#buckets;
    const mask = this.#mask;
    const lengths = this.#lengths;
    const count = this.#lengthCount;
    for (let i = 0; i < count; i++) {
      const length = lengths[i]!;
      const key = word & MASKS[length]!;
      for (let bucket = hash4(key, length) & mask;; bucket = (bucket + 1) & mask) {
        const at = bucket * V4_STRIDE;
        const stored = buckets[at + 1]!;
        if (stored === length + 1 && buckets[at] === key) return buckets[at + 2]!;
        if (stored === 0) break;
      }
    }
    return NO_VALUE;
  }

  find6(bytes: Uint8Array, at: number): number {
    const a = readI32(bytes, at), b = readI32(bytes, at + 4), c = readI32(bytes, at + 8), d = readI32(bytes, at + 12);
    const lengths = this.#lengths;
    const count = this.#lengthCount;
    for (let i = 0; i < count; i++) {
      const length = lengths[i]!;
      const bucketAt = this.#locate6(
        a & wordMask(length, 0),
        b & wordMask(length, 32),
        c & wordMask(length, 64),
        d & wordMask(length, 96),
        length,
      );
      if (this.#buckets[bucketAt + 4] !== 0) return this.#buckets[bucketAt + 5]!;
    }
    return NO_VALUE;
  }

  get(address: Uint8Array, length: number): number {
    const at = this.#locate(address, length);
    return this.#buckets[at + this.#words] === 0 ? NO_VALUE : this.#buckets[at + this.#words + 1]!;
  }

  set(address: Uint8Array, length: number, value: number): void {
    let at = this.#locate(address, length);
    if (this.#buckets[at + this.#words] === 0) {
      if ((this.size + 1) * 2 > this.#mask + 1) {
        this.#grow();
        at = this.#locate(address, length);
      }
      for (let i = 0; i < this.#words; i++) this.#buckets[at + i] = readI32(address, 4 * i);
      this.#buckets[at + this.#words] = length + 1;
      this.size++;
      this.#count(length, 1);
    }
    this.#buckets[at + this.#words + 1] = value;
  }

  delete(address: Uint8Array, length: number): boolean {
    const at = this.#locate(address, length);
    if (this.#buckets[at + this.#words] === 0) return false;
    this.#closeGap(at / this.#stride);
    this.size--;
    this.#count(length, -1);
    return true;
  }

  clear(): void {
    this.#buckets = new Int32Array(MIN_BUCKETS * this.#stride);
    this.#mask = MIN_BUCKETS - 1;
    this.#counts.fill(0);
    this.#lengthCount = 0;
    this.size = 0;
  }

  *entries(): IterableIterator<[IpPrefix, number]> {
    const buckets = this.#buckets;
    for (let at = 0; at < buckets.length; at += this.#stride) {
      const stored = buckets[at + this.#words]!;
      if (stored === 0) continue;
      const address = new Uint8Array(4 * this.#words);
      for (let i = 0; i < address.length; i++) address[i] = buckets[at + (i >> 2)]! >> (24 - 8 * (i & 3));
      yield [{ address, length: stored - 1 }, buckets[at + this.#words + 1]!];
    }
  }

  /** Where the bucket of a masked prefix starts: its own, or the empty one that ends its probe. */
  #locate(address: Uint8Array, length: number): number {
    if (this.#words === 4) {
      return this.#locate6(readI32(address, 0), readI32(address, 4), readI32(address, 8), readI32(address, 12), length);
    }
    const key = readI32(address, 0);
    for (let bucket = hash4(key, length) & this.#mask;; bucket = (bucket + 1) & this.#mask) {
      const at = bucket * V4_STRIDE;
      const stored = this.#buckets[at + 1];
      if (stored === 0 || (stored === length + 1 && this.#buckets[at] === key)) return at;
    }
  }

  #locate6(a: number, b: number, c: number, d: number, length: number): number {
    const buckets = this.#buckets;
    const mask = this.#mask;
    for (let bucket = hash6(a, b, c, d, length) & mask;; bucket = (bucket + 1) & mask) {
      const at = bucket * V6_STRIDE;
      const stored = buckets[at + 4]!;
      if (stored === 0) return at;
      if (
        stored === length + 1 && buckets[at + 3] === d && buckets[at + 2] === c && buckets[at + 1] === b &&
        buckets[at] === a
      ) return at;
    }
  }

  #hashAt(at: number): number {
    const buckets = this.#buckets;
    const length = buckets[at + this.#words]! - 1;
    if (this.#words === 1) return hash4(buckets[at]!, length);
    return hash6(buckets[at]!, buckets[at + 1]!, buckets[at + 2]!, buckets[at + 3]!, length);
  }

  /** Empties a bucket, and moves those after it that would no longer be reached. */
  #closeGap(gap: number): void {
    const buckets = this.#buckets;
    const stride = this.#stride;
    let bucket = gap;
    for (;;) {
      bucket = (bucket + 1) & this.#mask;
      const at = bucket * stride;
      if (buckets[at + this.#words] === 0) break;
      const home = this.#hashAt(at) & this.#mask;
      // It may move when its home is not within (gap, bucket], seen around the ring.
      if (((bucket - home) & this.#mask) < ((bucket - gap) & this.#mask)) continue;
      buckets.copyWithin(gap * stride, at, at + stride);
      gap = bucket;
    }
    buckets.fill(0, gap * stride, gap * stride + stride);
  }

  #grow(): void {
    const old = this.#buckets;
    this.#mask = 2 * this.#mask + 1;
    this.#buckets = new Int32Array((this.#mask + 1) * this.#stride);
    for (let from = 0; from < old.length; from += this.#stride) {
      if (old[from + this.#words] === 0) continue;
      const bucket = old.subarray(from, from + this.#stride);
      this.#buckets.set(bucket, this.#emptyFor(bucket));
    }
  }

  /** The first free bucket for one that is known not to be in the table. */
  #emptyFor(bucket: Int32Array): number {
    const length = bucket[this.#words]! - 1;
    const hash = this.#words === 1
      ? hash4(bucket[0]!, length)
      : hash6(bucket[0]!, bucket[1]!, bucket[2]!, bucket[3]!, length);
    let index = hash & this.#mask;
    while (this.#buckets[index * this.#stride + this.#words] !== 0) index = (index + 1) & this.#mask;
    return index * this.#stride;
  }

  #count(length: number, change: number): void {
    this.#counts[length] = this.#counts[length]! + change;
    this.#lengthCount = 0;
    for (let i = this.maxLength; i >= 0; i--) if (this.#counts[i]! > 0) this.#lengths[this.#lengthCount++] = i;
  }
}

/** Mask for the word of an IPv6 address that starts at bit `from`. */
function wordMask(length: number, from: number): number {
  return length >= from + 32 ? -1 : length <= from ? 0 : MASKS[length - from]!;
}

function hash4(word: number, length: number): number {
  const mixed = Math.imul(word ^ Math.imul(length, MIX_LENGTH), MIX_A);
  return mixed ^ (mixed >>> 15);
}

function hash6(a: number, b: number, c: number, d: number, length: number): number {
  let mixed = Math.imul(a ^ Math.imul(length, MIX_LENGTH), MIX_A);
  mixed = Math.imul(mixed ^ (mixed >>> 15) ^ b, MIX_B);
  mixed = Math.imul(mixed ^ (mixed >>> 13) ^ c, MIX_C);
  mixed = Math.imul(mixed ^ (mixed >>> 16) ^ d, MIX_D);
  return mixed ^ (mixed >>> 15);
}
