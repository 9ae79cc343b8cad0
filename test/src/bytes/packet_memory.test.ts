import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Checksummer } from "../../../src/bytes/checksum.ts";
import { makePacketMemory, type VectorCode, vectorCodeOf } from "../../../src/bytes/packet_memory.ts";
import { naiveSum } from "../../support/inner_packets.ts";

/** Octets with noise everywhere around what a test places, and the code for them. */
function memoryOf(bytes: number, isShared: boolean): VectorCode & { readonly octets: Uint8Array } {
  const octets = makePacketMemory(bytes, isShared).fill(0xa5);
  return { octets, ...vectorCodeOf(octets.buffer)! };
}

describe.each([["one thread's memory", false], ["shared memory", true]])("the vector sum of %s", (_, isShared) => {
  const { octets, sum } = memoryOf(262_144, isShared);

  it("equals the word-by-word sum for every length to 300 at every alignment", () => {
    for (let count = 0; count <= 300; count++) {
      for (let at = 64; at < 80; at++) {
        for (let i = 0; i < count; i++) octets[at + i] = 37 * i + count;
        expect(sum(at, at + count)).toBe(naiveSum(octets.subarray(at, at + count)));
        octets.fill(0xa5, at, at + count);
      }
    }
  });

  it("equals it for any octets at any place", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 3000 }), fc.nat(100_000), (content, at) => {
      octets.set(content, at);
      expect(sum(at, at + content.length)).toBe(naiveSum(content));
      octets.fill(0xa5, at, at + content.length);
    }));
  });

  it("does not overflow on 128 KiB of 0xff, and reads to the last octet", () => {
    octets.fill(0xff, octets.length - 131_073);
    for (let at = octets.length - 131_073; at < octets.length - 131_069; at++) {
      expect(sum(at, at + 131_072 - 3)).toBe(naiveSum(octets.subarray(at, at + 131_072 - 3)));
    }
    expect(sum(octets.length - 131_072, octets.length)).toBe(0xffff);
    octets.fill(0xa5, octets.length - 131_073);
  });
});

describe.each([["one thread's memory", false], ["shared memory", true]])("the comparison in %s", (_, isShared) => {
  const { octets, isSame } = memoryOf(65_536, isShared);

  it("sees any bit that the mask has, in any octet, and no other", () => {
    const [a, b, mask, count] = [101, 707, 1280, 96];
    const bit = fc.nat(8 * count - 1);
    fc.assert(
      fc.property(fc.uint8Array({ minLength: count, maxLength: count }), bit, bit, (content, masked, turned) => {
        octets.set(content, a);
        octets.set(content, b);
        octets.fill(0, mask, mask + count);
        octets[mask + (masked >> 3)] = 1 << (masked & 7);
        octets[b + (turned >> 3)] = octets[b + (turned >> 3)]! ^ (1 << (turned & 7));
        expect(isSame(a, b, mask, count)).toBe(masked === turned ? 0 : 1);
      }),
    );
  });

  it("looks at no octet beyond those that it is asked for", () => {
    octets.fill(0xff, 4096, 4128);
    octets.fill(7, 0, 32);
    octets.fill(7, 512, 528).fill(8, 528, 544);
    expect(isSame(0, 512, 4096, 16)).toBe(1);
    expect(isSame(0, 512, 4096, 32)).toBe(0);
  });
});

describe("packet memory", () => {
  it("is zero at first, of the length asked for rounded to 8, and refuses what cannot be", () => {
    expect(makePacketMemory(13)).toEqual(new Uint8Array(16));
    expect(makePacketMemory(65_537).length).toBe(65_544);
    for (const bad of [0, -1, 1.5, NaN, 2 ** 31]) expect(() => makePacketMemory(bad)).toThrow(RangeError);
  });

  it("is shared where that is asked for", () => {
    expect(makePacketMemory(8, true).buffer).toBeInstanceOf(SharedArrayBuffer);
    expect(makePacketMemory(8).buffer).toBeInstanceOf(ArrayBuffer);
  });

  it("has code only where it was made for it", () => {
    expect(vectorCodeOf(new ArrayBuffer(65_536))).toBeUndefined();
  });

  it("gives a checksummer the same sums before and after it turns to vector instructions", () => {
    const octets = makePacketMemory(4096);
    for (let i = 0; i < octets.length; i++) octets[i] = 29 * i + (i >> 5);
    const [whole, inner] = [new Checksummer(octets), new Checksummer(octets.subarray(8, 4000))];
    for (let round = 0; round < 4000; round++) {
      const at = round % 61, end = 100 + at + round % 1500;
      expect(whole.sum(at, end)).toBe(naiveSum(octets.subarray(at, end)));
      expect(inner.sum(at, end)).toBe(naiveSum(octets.subarray(8 + at, 8 + end)));
    }
  });
});
