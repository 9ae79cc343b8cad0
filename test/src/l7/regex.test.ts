import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkRegex, compileRegex } from "../../../src/l7/regex.ts";

describe("checkRegex", () => {
  it.each(["", "GET", "/v[0-9]+/.*", "(?i)get", "a|b", "[[:word:]]+", "\\pL", "(?P<n>a)", "\\Qa.b\\E", "a{1000}"])(
    "has nothing against %s",
    (source) => {
      expect(checkRegex(source)).toBeUndefined();
      expect(compileRegex(source)).toBeDefined();
    },
  );

  it.each([
    ["(", "missing closing )"],
    ["*", "missing argument to repetition operator"],
    ["(?=a)", "invalid or unsupported Perl syntax"],
    ["(?<=a)b", "invalid"],
    ["(a)\\1", "invalid escape sequence"],
    ["a{1001}", "invalid repeat count"],
    ["((a{100}){100}){100}", "invalid repeat count"],
    ["x".repeat(5000), "longer than"],
    ["[\\w-]{0,999}[\\w/]{0,999}".repeat(2), "too large"],
    ["(".repeat(1500) + ")".repeat(1500), "nests too deeply"],
  ])("says what is wrong with %s", (source, reason) => {
    expect(checkRegex(source)).toContain(reason);
    expect(compileRegex(source)).toBeUndefined();
  });

  it("answers for any text at all", () => {
    fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 60 }), (source) => {
      const fault = checkRegex(source);
      expect(compileRegex(source) === undefined).toBe(fault !== undefined);
    }));
  });
});

describe("compileRegex", () => {
  it("matches the whole value only", () => {
    const regex = compileRegex("a+")!;
    expect([regex.matches("aa"), regex.matches("aab"), regex.matches("baa"), regex.matches("")]).toEqual([
      true,
      false,
      false,
      false,
    ]);
  });

  it("ends on values and expressions that make a backtracking matcher run for years", () => {
    const value = "a".repeat(16_384);
    for (const source of ["(a+)+b", "(a|a)*b", "(a*)*b", "(.*)(.*)(.*)(.*)(.*)x", "(?:a?){500}a{500}b", ".*a.{900}c"]) {
      expect(compileRegex(source)!.matches(value)).toBe(false);
    }
  });

  it("keeps what it compiled, and forgets the oldest of many", () => {
    const first = compileRegex("kept");
    expect(compileRegex("kept")).toBe(first);
    for (let i = 0; i < 300; i++) compileRegex(`one${i}`);
    expect(compileRegex("kept")).toBe(first);
    for (let i = 0; i < 600; i++) compileRegex(`many${i}`);
    expect(compileRegex("kept")).not.toBe(first);
  });
});
