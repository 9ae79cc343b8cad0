/**
 * BLAKE2s (RFC 7693), the hash of WireGuard's handshake; libsodium has none.
 *
 * Ours, because a handshake asks for a hundred blocks and then for none in two minutes, so what it costs is what it costs before a
 * compiler has seen it. noble's made an object for each mixing, a megabyte a handshake; this makes the answer alone (DECISIONS, D32).
 * The working state is this module's, and wiped after each call.
 */
import { readU32LE, writeU32LE } from "./integers.ts";

const BLOCK_BYTES = 64;
const MAX_OUTPUT_BYTES = 32;
const MAX_KEY_BYTES = 32;

/** Of SHA-256: fractional parts of the square roots of the first eight primes (§2.6). */
const IV = Int32Array.of(
  ...[0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a],
  ...[0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19],
);

/** Which message word each half of a mixing takes: one row a round (§2.7). */
const SIGMA = Uint8Array.of(
  ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  ...[14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
  ...[11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
  ...[7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
  ...[9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
  ...[2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
  ...[12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
  ...[13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
  ...[6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
  ...[10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
);

const state = new Int32Array(8);
const work = new Int32Array(16);
const words = new Int32Array(16);
const block = new Uint8Array(BLOCK_BYTES);
let filled = 0;
let total = 0;

/**
 * The hash of `first || second`.
 *
 * @param outputBytes 1 to 32; another length is another hash, not a part of the longer one
 * @param key         up to 32 octets: then it is a MAC
 * @throws RangeError for any other length
 */
export function blake2s(
  outputBytes: number,
  key: Uint8Array | undefined,
  first: Uint8Array,
  second?: Uint8Array,
): Uint8Array {
  const keyBytes = key?.length ?? 0;
  if (!Number.isInteger(outputBytes) || outputBytes < 1 || outputBytes > MAX_OUTPUT_BYTES) {
    throw new RangeError(`Cannot make ${outputBytes} octets of BLAKE2s: not between 1 and ${MAX_OUTPUT_BYTES}`);
  }
  if (keyBytes > MAX_KEY_BYTES) {
    throw new RangeError(`Cannot key BLAKE2s with ${keyBytes} octets: more than ${MAX_KEY_BYTES}`);
  }
  state.set(IV);
  state[0]! ^= 0x0101_0000 ^ (keyBytes << 8) ^ outputBytes;
  filled = 0;
  total = 0;
  if (keyBytes > 0) {
    absorb(key!);
    filled = BLOCK_BYTES; // the key has a block of its own, padded
  }
  absorb(first);
  if (second !== undefined) absorb(second);
  compress(total + filled, -1);
  for (let i = 0; i < MAX_OUTPUT_BYTES / 4; i++) writeU32LE(block, 4 * i, state[i]!);
  const output = block.slice(0, outputBytes);
  block.fill(0);
  words.fill(0);
  work.fill(0);
  state.fill(0);
  return output;
}

/** A full block waits for the next octet: the last one is compressed otherwise. */
function absorb(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) {
    if (filled === BLOCK_BYTES) {
      total += BLOCK_BYTES;
      compress(total, 0);
      block.fill(0);
      filled = 0;
    }
    const count = Math.min(BLOCK_BYTES - filled, bytes.length - at);
    for (let i = 0; i < count; i++) block[filled + i] = bytes[at + i]!;
    filled += count;
    at += count;
  }
}

/** `F` of §3.2 over `block`. @param hashed octets up to its end @param last -1 for the last block, otherwise 0 */
function compress(hashed: number, last: number): void {
  for (let i = 0; i < 16; i++) words[i] = readU32LE(block, 4 * i);
  for (let i = 0; i < 8; i++) {
    work[i] = state[i]!;
    work[8 + i] = IV[i]!;
  }
  work[12]! ^= hashed;
  work[13]! ^= hashed / 2 ** 32;
  work[14]! ^= last;
  for (let row = 0; row < SIGMA.length; row += 16) {
    mix(0, 4, 8, 12, words[SIGMA[row]!]!, words[SIGMA[row + 1]!]!);
    mix(1, 5, 9, 13, words[SIGMA[row + 2]!]!, words[SIGMA[row + 3]!]!);
    mix(2, 6, 10, 14, words[SIGMA[row + 4]!]!, words[SIGMA[row + 5]!]!);
    mix(3, 7, 11, 15, words[SIGMA[row + 6]!]!, words[SIGMA[row + 7]!]!);
    mix(0, 5, 10, 15, words[SIGMA[row + 8]!]!, words[SIGMA[row + 9]!]!);
    mix(1, 6, 11, 12, words[SIGMA[row + 10]!]!, words[SIGMA[row + 11]!]!);
    mix(2, 7, 8, 13, words[SIGMA[row + 12]!]!, words[SIGMA[row + 13]!]!);
    mix(3, 4, 9, 14, words[SIGMA[row + 14]!]!, words[SIGMA[row + 15]!]!);
  }
  for (let i = 0; i < 8; i++) state[i]! ^= work[i]! ^ work[8 + i]!;
}

/** `G` of §3.1, on four words of `work`. */
function mix(a: number, b: number, c: number, d: number, x: number, y: number): void {
  let wa = work[a]!, wb = work[b]!, wc = work[c]!, wd = work[d]!;
  wa = (wa + wb + x) | 0;
  wd = rotateRight(wd ^ wa, 16);
  wc = (wc + wd) | 0;
  wb = rotateRight(wb ^ wc, 12);
  wa = (wa + wb + y) | 0;
  wd = rotateRight(wd ^ wa, 8);
  wc = (wc + wd) | 0;
  wb = rotateRight(wb ^ wc, 7);
  work[a] = wa;
  work[b] = wb;
  work[c] = wc;
  work[d] = wd;
}

function rotateRight(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits));
}
