import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { equalConstantTime, equalRange } from "../../../src/bytes/compare.ts";

describe("equalConstantTime", () => {
  it("is true for equal content only", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1 }), fc.nat(), fc.integer({ min: 1, max: 255 }), (a, at, change) => {
        expect(equalConstantTime(a, Uint8Array.from(a))).toBe(true);
        const b = Uint8Array.from(a);
        b[at % a.length] = b[at % a.length]! ^ change;
        expect(equalConstantTime(a, b)).toBe(false);
      }),
    );
  });

  it("is false for a prefix, and true for two empty arrays", () => {
    expect(equalConstantTime(Uint8Array.of(1, 2), Uint8Array.of(1, 2, 0))).toBe(false);
    expect(equalConstantTime(new Uint8Array(0), new Uint8Array(0))).toBe(true);
  });
});

describe("equalRange", () => {
  it("compares exactly the range, not its neighbours", () => {
    const a = Uint8Array.of(9, 1, 2, 3, 9), b = Uint8Array.of(1, 2, 3, 7);
    expect(equalRange(a, 1, b, 0, 3)).toBe(true);
    expect(equalRange(a, 1, b, 0, 4)).toBe(false);
    expect(equalRange(a, 0, b, 0, 3)).toBe(false);
    expect(equalRange(a, 4, b, 0, 0)).toBe(true);
  });
});
