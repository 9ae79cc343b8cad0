import { blake2s as reference } from "@noble/hashes/blake2.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { blake2s } from "../../../src/bytes/blake2s.ts";
import { toHex } from "../../../src/bytes/text.ts";

/** Octets of the self-test of RFC 7693, appendix E. */
function selfTestOctets(length: number, seed: number): Uint8Array {
  const octets = new Uint8Array(length);
  let a = Math.imul(0xdead4bad, seed), b = 1;
  for (let i = 0; i < length; i++) {
    const t = (a + b) >>> 0;
    a = b;
    b = t;
    octets[i] = t >>> 24;
  }
  return octets;
}

describe("blake2s", () => {
  it("gives the answer of RFC 7693, appendix B", () => {
    const answer = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
    expect(toHex(blake2s(32, undefined, new TextEncoder().encode("abc")))).toBe(answer);
  });

  it("passes the self-test of RFC 7693, appendix E: lengths around a block, four output lengths, with a key and without", () => {
    const answers: Uint8Array[] = [];
    for (const outputBytes of [16, 20, 28, 32]) {
      for (const inputBytes of [0, 3, 64, 65, 255, 1024]) {
        const input = selfTestOctets(inputBytes, inputBytes);
        answers.push(blake2s(outputBytes, undefined, input));
        answers.push(blake2s(outputBytes, selfTestOctets(outputBytes, outputBytes), input));
      }
    }
    const all = Uint8Array.from(answers.flatMap((answer) => [...answer]));
    expect(toHex(blake2s(32, undefined, all))).toBe("6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe");
  });

  it("answers as another program does, in one piece and in two, from anywhere in a buffer", () => {
    const key = fc.option(fc.uint8Array({ minLength: 1, maxLength: 32 }), { nil: undefined });
    fc.assert(fc.property(
      fc.uint8Array({ maxLength: 300 }),
      fc.nat(300),
      key,
      fc.integer({ min: 1, max: 32 }),
      (input, cut, key, outputBytes) => {
        const wanted = toHex(reference(input, { dkLen: outputBytes, ...(key && { key }) }));
        expect(toHex(blake2s(outputBytes, key, input))).toBe(wanted);
        expect(toHex(blake2s(outputBytes, key, input.subarray(0, cut), input.subarray(cut)))).toBe(wanted);
      },
    ));
  });

  it("keeps its arguments, and gives away nothing that it works on", () => {
    const key = new Uint8Array(32).fill(7), input = new Uint8Array(100).fill(9);
    const answer = blake2s(32, key, input);
    const before = toHex(answer);
    blake2s(32, undefined, input);
    expect(toHex(answer)).toBe(before);
    expect([...key, ...input].every((octet, i) => octet === (i < 32 ? 7 : 9))).toBe(true);
  });

  it("refuses lengths that BLAKE2s does not have", () => {
    const input = new Uint8Array(1);
    for (const outputBytes of [0, 33, 1.5, NaN]) {
      expect(() => blake2s(outputBytes, undefined, input)).toThrow(RangeError);
    }
    expect(() => blake2s(32, new Uint8Array(33), input)).toThrow(RangeError);
  });
});
