/**
 * Memory that C may use: arrays and their addresses.
 *
 * Small typed arrays live on the garbage-collected heap of either runtime, until somebody asks for their `buffer` or, through
 * `pointerOf`, for their address. Those made here start from an ArrayBuffer, which both keep outside from the first.
 */
import { runtime } from "./runtime/index.ts";

/** Octets at a fixed address, zero at first. The address is good for as long as this object is reachable. */
export interface Memory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** the same octets as 32-bit integers in the CPU's byte order; the length is rounded up to 8 octets for it */
  readonly words: Int32Array<ArrayBuffer>;
  readonly address: number;
}

/** Makes `count` octets, rounded up to a multiple of 8. */
export function allocate(count: number): Memory {
  const buffer = new ArrayBuffer(Math.max(8, (count + 7) & ~7));
  const bytes = new Uint8Array(buffer);
  return { bytes, words: new Int32Array(buffer), address: runtime().pointerOf(bytes) };
}

/**
 * Makes an arena: zeroed octets at a fixed address, which the system gives page by page as they are touched (seen on Bun and
 * on Deno: 128 MiB asked for, 1 MiB resident). Its length is rounded up to a multiple of 8.
 */
export function makeArena(bytes: number): Uint8Array<ArrayBuffer> {
  if (!Number.isInteger(bytes) || bytes <= 0 || bytes > 0x7fff_fff8) {
    throw new RangeError(`Cannot make an arena of ${bytes} octets: not between 1 and 2^31 - 8`);
  }
  return new Uint8Array(new ArrayBuffer((bytes + 7) & ~7));
}

/** Text as C wants it: UTF-8 and a zero octet. A zero inside the text would cut it short for C, and is refused. */
export function cText(text: string): Memory {
  if (text.includes("\0")) throw new RangeError("Cannot pass text with a zero octet to C");
  const encoded = new TextEncoder().encode(text);
  const memory = allocate(encoded.length + 1);
  memory.bytes.set(encoded);
  return memory;
}

const HIGH = 4294967296;

/** Writes an address into the 64-bit field that starts at word `at`. */
export function writeAddress(words: Int32Array, at: number, address: number): void {
  words[at] = address; // the low 32 bits of any integer below 2^53
  words[at + 1] = address / HIGH;
}
