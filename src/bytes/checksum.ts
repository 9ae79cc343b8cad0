/**
 * The Internet checksum (RFC 1071) over ranges of the arena, and its incremental update (RFC 1624).
 *
 * Hot file (bench: `scripts/bench/micro.ts`, stage "checksum"). Sums are plain numbers: below 2^53 until folded.
 */

import { type VectorCode, vectorCodeOf } from "./packet_memory.ts";

const IS_LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Shorter ranges are summed octet by octet. */
const LEAST_BYTES = 16;
/** So many sums, and there is load: only then is the vector code made, which an idle member would have in memory for nothing. */
const LOAD_SUMS = 2048;

/**
 * Sums a byte array of one ArrayBuffer as 16-bit big-endian words.
 * Holds the lane view of the buffer, so that a sum makes none. One per arena.
 */
export class Checksummer {
  readonly #bytes: Uint8Array;
  readonly #lanes: Int32Array;
  readonly #offset: number;
  #vectors: VectorCode | undefined;
  #sums = 0;

  /** @param bytes the arena; its offset in its ArrayBuffer and its length must be multiples of 4 */
  constructor(bytes: Uint8Array) {
    if (bytes.byteOffset % 4 !== 0 || bytes.length % 4 !== 0) {
      throw new RangeError("Arena is not a multiple of 4 octets");
    }
    this.#bytes = bytes;
    this.#lanes = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    this.#offset = bytes.byteOffset;
  }

  /**
   * Folded 16-bit sum of `[at, end)` as if `at` were an even offset; an odd last octet is padded with zero on the right.
   * The range must be inside the arena, and at most 128 KiB long. 0 to 0xffff, not complemented.
   */
  sum(at: number, end: number): number {
    if (end - at < LEAST_BYTES) return fold(sumOctets(this.#bytes, at, end));
    if (this.#vectors !== undefined) return this.#vectors.sum(this.#offset + at, this.#offset + end);
    if (++this.#sums === LOAD_SUMS) this.#vectors = vectorCodeOf(this.#bytes.buffer);
    return this.#sumInLanes(at, end);
  }

  #sumInLanes(at: number, end: number): number {
    const bytes = this.#bytes;
    let position = at;
    // Up to a lane boundary by octets. An odd start shifts every later octet to the other half of its word: swap at the end.
    const isOdd = (at & 1) !== 0;
    const head = isOdd ? bytes[position++]! << 8 : 0;
    let rest = 0;
    if ((position & 2) !== 0) {
      rest = nativeU16(bytes, position);
      position += 2;
    }
    const lastLane = end >> 2;
    rest += this.#sumLanes(position >> 2, lastLane);
    position = lastLane << 2;
    if (position + 1 < end) {
      rest += nativeU16(bytes, position);
      position += 2;
    }
    if (position < end) rest += IS_LITTLE_ENDIAN ? bytes[position]! : bytes[position]! << 8;
    const folded = IS_LITTLE_ENDIAN ? swap(fold(rest)) : fold(rest);
    return isOdd ? fold(head + swap(folded)) : folded;
  }

  /** Sum of the 16-bit halves of lanes `[lane, lastLane)`, in the CPU's order; below 2^32. */
  #sumLanes(lane: number, lastLane: number): number {
    const lastFour = lane + ((lastLane - lane) & ~3);
    let sum = this.#sumFours(lane, lastFour);
    for (let i = lastFour; i < lastLane; i++) {
      const a = this.#lanes[i]!;
      sum += (a & 0xffff) + (a >>> 16);
    }
    return sum;
  }

  /**
   * The same for a multiple of 4 lanes: one addition, one shift, one addition a lane. `upper` adds the upper halves, `all` the
   * whole lanes modulo 2^32; taking `upper * 2^16` from `all` leaves the sum of the lower halves, below 2^31 for 2^15 lanes.
   *
   * A loop of its own, with `| 0` at every step: that is what keeps both engines in 32-bit registers. (1408 octets: 98 ns on
   * Bun, 104 on Deno; with the rest of the lanes in the same function 110 and 150.)
   */
  #sumFours(lane: number, lastLane: number): number {
    const lanes = this.#lanes;
    let all = 0;
    let upper = 0;
    for (let i = lane; i < lastLane; i += 4) {
      const a = lanes[i]!, b = lanes[i + 1]!, c = lanes[i + 2]!, d = lanes[i + 3]!;
      all = (all + ((((a + b) | 0) + ((c + d) | 0)) | 0)) | 0;
      upper = (upper + ((a >>> 16) + (b >>> 16)) + ((c >>> 16) + (d >>> 16))) | 0;
    }
    return ((all - (upper << 16)) >>> 0) + upper;
  }
}

function nativeU16(bytes: Uint8Array, at: number): number {
  return IS_LITTLE_ENDIAN ? bytes[at]! | (bytes[at + 1]! << 8) : (bytes[at]! << 8) | bytes[at + 1]!;
}

function swap(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8);
}

/** Unfolded sum of `[at, end)` as 16-bit big-endian words, for short ranges: headers. */
export function sumOctets(bytes: Uint8Array, at: number, end: number): number {
  let total = 0;
  let position = at;
  for (; position + 1 < end; position += 2) total += (bytes[position]! << 8) | bytes[position + 1]!;
  if (position < end) total += bytes[position]! << 8;
  return total;
}

/** Folds a sum (a non-negative integer below 2^53) into 16 bits; not complemented. */
export function fold(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x1_0000);
  return folded;
}

/** The checksum field for a sum: folded and complemented. */
export function complement(sum: number): number {
  return ~fold(sum) & 0xffff;
}

/**
 * The checksum field after one 16-bit word under it changed, `HC' = ~(~HC + ~m + m')`.
 * @see RFC 1624 §3 (equation 3), which unlike RFC 1141 never turns 0xffff into 0x0000
 */
export function updateChecksum(checksum: number, oldWord: number, newWord: number): number {
  return complement((~checksum & 0xffff) + (~oldWord & 0xffff) + newWord);
}
