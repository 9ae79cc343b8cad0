/** Patterns of names: Cilium's own table, the one spelling, and a naive matcher that tries everything. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { canonicalName, matchesPattern, readPattern } from "../../../src/fqdn/pattern.ts";

function patternOf(text: string): string {
  const read = readPattern(text);
  if ("error" in read) throw new Error(`${text} ${read.error}`);
  return read.pattern;
}

function matches(pattern: string, name: string): boolean {
  return matchesPattern(patternOf(pattern), canonicalName(name) ?? "no name");
}

/** Tries every way in which the stars of a pattern as people write it can be spent. Exponential, and obviously right. */
function naiveMatch(pattern: string, name: string): boolean {
  const rooted = pattern.endsWith(".") ? pattern.slice(0, -1) : pattern;
  if (/^\*+$/.test(rooted)) return true;
  const leading = /^\*{2,}\./.exec(rooted);
  if (leading === null) return naiveGlob(rooted, name);
  const rest = rooted.slice(leading[0].length);
  const labels = name.split(".");
  return labels.slice(1).some((_, index) => naiveGlob(rest, labels.slice(index + 1).join(".")));
}

function naiveGlob(pattern: string, text: string): boolean {
  if (pattern === "") return text === "";
  if (pattern[0] !== "*") return text !== "" && pattern[0] === text[0] && naiveGlob(pattern.slice(1), text.slice(1));
  if (naiveGlob(pattern.slice(1), text)) return true;
  return text !== "" && text[0] !== "." && naiveGlob(pattern, text.slice(1));
}

describe("matchesPattern", () => {
  it.each([
    ["*.cilium.io", ["www.cilium.io", "WWW.Cilium.IO."], ["cilium.io", "a.b.cilium.io"]],
    ["*cilium.io", ["cilium.io", "subcilium.io"], ["www.cilium.io"]],
    ["sub*.cilium.io", ["sub.cilium.io", "subdomain.cilium.io"], ["www.cilium.io", "su.cilium.io"]],
    ["**.cilium.io", ["app.cilium.io", "test.app.cilium.io"], ["cilium.io", "appcilium.io"]],
    ["****.cilium.io", ["app.cilium.io", "test.app.cilium.io"], ["cilium.io"]],
    ["**cilium.io", ["cilium.io", "subcilium.io"], ["www.cilium.io"]],
    ["a.**.io", ["a.b.io"], ["a.io", "a.b.c.io"]],
    ["*.ci*.io", ["anysub.cilium.io", "anysub.ci.io", "anysub.ciliumandmore.io"], ["cilium.io"]],
    ["*.*.cilium.io", ["_foobar._tcp.cilium.io"], ["_tcp.cilium.io"]],
    ["**.*.io", ["a.b.io", "a.b.c.io"], ["b.io"]],
    ["a*a.io", ["aa.io", "aba.io"], ["a.io"]],
    ["cilium.io", ["cilium.io", "CILIUM.io."], ["www.cilium.io", "cilium.io.com"]],
    ["*", [".", "io", "svc.cluster.local", "_foobar._tcp.cilium.io"], []],
    ["**", [".", "io", "a.b.c"], []],
    ["*.", [".", "io", "a.b.c"], []],
    ["*.com", ["a.com"], [".", "com", "a.b.com"]],
    ["**.com", ["a.com"], [".", "com"]],
  ])("%s matches what Cilium says, and nothing else", (pattern, yes, no) => {
    for (const name of yes) expect(matches(pattern, name), name).toBe(true);
    for (const name of no) expect(matches(pattern, name), name).toBe(false);
  });

  it("agrees with a matcher that tries everything", () => {
    const label = fc.stringMatching(/^[ab]{1,4}$/);
    const name = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join("."));
    const pattern = fc.tuple(
      fc.constantFrom("", "", "**.", "***."),
      fc.array(fc.stringMatching(/^[ab*]{1,5}$/), { minLength: 1, maxLength: 4 }),
    ).map(([leading, labels]) => leading + labels.join("."));
    fc.assert(
      fc.property(pattern, name, (written, asked) => {
        expect(matches(written, asked)).toBe(naiveMatch(written, asked));
      }),
      { numRuns: 20_000 },
    );
  });

  it("ends on the patterns that make a backtracking matcher hang", () => {
    const pattern = `${"a*".repeat(120)}b.io`;
    expect(matches(pattern, `${"a".repeat(245)}.io`)).toBe(false);
    expect(matches(pattern, `${"a".repeat(245)}b.io`)).toBe(true);
  });

  it("still answers after more patterns than it keeps compiled", () => {
    for (let index = 0; index < 10_000; index++) expect(matches(`*.n${index}.io`, `x.n${index}.io`)).toBe(true);
    expect(matches("*.n1.io", "x.n2.io")).toBe(false);
  });
});

describe("readPattern", () => {
  it.each([
    ["CILIUM.io", "cilium.io."],
    ["cilium.io.", "cilium.io."],
    ["*", "*"],
    ["*.", "*"],
    ["**.", "*"],
    ["***", "*"],
    ["***.Cilium.io", "**.cilium.io."],
    ["a***b.**.io", "a*b.*.io."],
  ])("spells %s as %s", (text, pattern) => {
    expect(readPattern(text)).toEqual({ pattern });
  });

  it.each([
    ["", /empty/],
    [".", /empty label/],
    ["a..b", /empty label/],
    [".a", /empty label/],
    ["a b", /character/],
    ["a/b", /character/],
    ["[a]+", /character/],
    ["é.fr", /character/],
    ["a".repeat(256), /longer than 255/],
  ])("refuses %s with the reason", (text, reason) => {
    expect(readPattern(text)).toEqual({ error: expect.stringMatching(reason) });
  });

  it("reads its own spelling as itself", () => {
    fc.assert(fc.property(fc.stringMatching(/^[aB*.]{1,12}$/), (text) => {
      const read = readPattern(text);
      if ("pattern" in read) expect(readPattern(read.pattern)).toEqual(read);
    }));
  });

  it("takes every name, as the name", () => {
    fc.assert(fc.property(fc.stringMatching(/^[aB_.-]{1,12}$/), (text) => {
      const name = canonicalName(text);
      fc.pre(name !== undefined && name !== ".");
      expect(readPattern(text)).toEqual({ pattern: name });
    }));
  });

  it("never throws on any text", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
      const read = readPattern(text);
      expect("pattern" in read !== "error" in read).toBe(true);
      canonicalName(text);
    }));
  });
});

describe("canonicalName", () => {
  it.each([
    ["www.Cilium.io", "www.cilium.io."],
    ["www.cilium.io.", "www.cilium.io."],
    [".", "."],
    ["_sip._tcp.a-b.c", "_sip._tcp.a-b.c."],
    ["", undefined],
    ["a..b", undefined],
    ["..", undefined],
    ["*.cilium.io", undefined],
    ["a b", undefined],
    ["\u212a.io", undefined], // Kelvin sign: its lower case is a plain k
    ["a".repeat(256), undefined],
  ])("of %s is %s", (text, name) => {
    expect(canonicalName(text)).toBe(name);
  });
});
