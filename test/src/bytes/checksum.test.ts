import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Checksummer, complement, fold, sumOctets, updateChecksum } from "../../../src/bytes/checksum.ts";
import { naiveSum } from "../../support/inner_packets.ts";

/** Check values of known sums: octets `(7*i + 3) & 255`, count and folded sum. */
const KNOWN: [count: number, sum: number][] = [
  [0, 0x0000],
  [1, 0x0300],
  [2, 0x030a],
  [3, 0x140a],
  [20, 0x96dc],
  [21, 0x25dd],
  [63, 0x8db2],
  [64, 0x8e6e],
  [65, 0x516f],
  [127, 0x1d62],
  [128, 0x1dde],
  [1420, 0x44b1],
  [9000, 0x607e],
  [65535, 0xbf43],
];

/** An arena with `content` at `at`, and noise around it that must not count. */
function placed(content: Uint8Array, at: number): Uint8Array {
  const arena = new Uint8Array(Math.ceil((at + content.length + 8) / 4) * 4).fill(0xa5);
  arena.set(content, at);
  return arena;
}

describe("Checksummer", () => {
  it.each(KNOWN)("sums %i octets to the known value at every alignment", (count, sum) => {
    const content = Uint8Array.from({ length: count }, (_, i) => (7 * i + 3) & 255);
    for (let at = 0; at < 8; at++) expect(new Checksummer(placed(content, at)).sum(at, at + count)).toBe(sum);
    expect(fold(sumOctets(content, 0, count))).toBe(sum);
  });

  it("sums the example of RFC 1071 §3 to ddf2", () => {
    const content = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
    expect(new Checksummer(content).sum(0, 8)).toBe(0xddf2);
    expect(complement(0xddf2)).toBe(0x220d);
  });

  it("does not overflow on the heaviest range it takes: 128 KiB of 0xff, at every alignment", () => {
    const content = new Uint8Array(131072).fill(0xff);
    for (let at = 0; at < 4; at++) expect(new Checksummer(placed(content, at)).sum(at, at + 131072)).toBe(0xffff);
  });

  it("equals the word-by-word sum for any octets at any place", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(9), (content, at) => {
      expect(new Checksummer(placed(content, at)).sum(at, at + content.length)).toBe(naiveSum(content));
    }));
  });

  it("sums an array that starts inside its buffer", () => {
    const whole = Uint8Array.from({ length: 64 }, (_, i) => i);
    expect(new Checksummer(whole.subarray(8, 60)).sum(3, 40)).toBe(naiveSum(whole.subarray(11, 48)));
  });

  it("refuses an array that its lanes cannot cover", () => {
    expect(() => new Checksummer(new Uint8Array(7))).toThrow(RangeError);
    expect(() => new Checksummer(new Uint8Array(16).subarray(1, 5))).toThrow(RangeError);
  });
});

describe("fold and complement", () => {
  it("fold sums beyond 32 bits, and keep 0xffff apart from 0", () => {
    expect([0, 1, 0xffff, 0x10000, 0x1fffe, 2 ** 40].map(fold)).toEqual([0, 1, 0xffff, 1, 0xffff, 0x100]);
    expect([0, 0xffff, 0x1fffe].map(complement)).toEqual([0xffff, 0, 0]);
  });
});

describe("updateChecksum", () => {
  it("gives what summing anew gives, for any word replaced", () => {
    const word = fc.nat(0xffff);
    fc.assert(
      fc.property(fc.array(word, { minLength: 2, maxLength: 12 }), word, fc.nat(), (words, replacement, pick) => {
        words[0] = words[0]! | 1; // all zero is the one sum that has two forms
        const at = 1 + pick % (words.length - 1);
        const sumOf = (list: number[]) => list.reduce((a, b) => a + b, 0);
        const before = complement(sumOf(words));
        const updated = updateChecksum(before, words[at]!, replacement);
        words[at] = replacement;
        expect(updated).toBe(complement(sumOf(words)));
      }),
    );
  });

  it("does as RFC 1624 §4 says: 0xdd2f, 0x5555 to 0x3285, is 0x0000", () => {
    expect(updateChecksum(0xdd2f, 0x5555, 0x3285)).toBe(0x0000);
  });
});
