import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type CompiledRule, compileSegments, kindOfRule, precedenceOf } from "../../../src/policy/compile.ts";
import {
  KEY_END,
  KIND_DENY,
  KIND_FORWARD,
  KIND_NO_RULE,
  kindOf,
  makeDecision,
  makeKey,
  ruleOf,
} from "../../../src/policy/decision.ts";
import { type RuleVerdict, TIER_ADMIN, TIER_BASELINE, TIER_NORMAL } from "../../../src/policy/model.ts";

const OTHERWISE = makeDecision(KIND_NO_RULE, -1);

function rule(index: number, verdict: RuleVerdict, ranges: number[], tier = TIER_NORMAL, priority = 0): CompiledRule {
  const weight = { tier, priority, verdict };
  const precedence = precedenceOf(weight);
  return { index, tier, verdict, precedence, kind: kindOfRule(weight), ranges: Uint32Array.from(ranges) };
}

function compile(rules: CompiledRule[]): number[] {
  return compileSegments(rules.sort((a, b) => a.precedence - b.precedence || a.index - b.index), OTHERWISE);
}

function decisionAt(segments: readonly number[], key: number): number {
  let found = segments[1]!;
  for (let i = 0; i < segments.length; i += 2) if (segments[i]! <= key) found = segments[i + 1]!;
  return found;
}

describe("decisions", () => {
  it("hold kind and rule", () => {
    for (const index of [-1, 0, 1, 2 ** 29 - 2]) {
      expect(ruleOf(makeDecision(KIND_DENY, index))).toBe(index);
      expect(kindOf(makeDecision(KIND_DENY, index))).toBe(KIND_DENY);
    }
    expect(makeKey(255, 65_535)).toBe(KEY_END - 1);
  });
});

describe("compileSegments", () => {
  it("parts the key space without gaps and joins what is equal", () => {
    const web = makeKey(6, 80);
    expect(compile([rule(1, "allow", [web, web + 1]), rule(1, "allow", [web + 1, web + 3])])).toEqual([
      0,
      OTHERWISE,
      web,
      makeDecision(KIND_FORWARD, 1),
      web + 3,
      OTHERWISE,
    ]);
    expect(compile([])).toEqual([0, OTHERWISE]);
    expect(compile([rule(4, "deny", [0, KEY_END])])).toEqual([0, makeDecision(KIND_DENY, 4)]);
  });

  it("lets a pass skip the rest of its tier only", () => {
    const segments = compile([
      rule(1, "pass", [10, 20], TIER_ADMIN, 1),
      rule(2, "deny", [0, 30], TIER_ADMIN, 2),
      rule(3, "allow", [0, 15], TIER_NORMAL),
      rule(4, "deny", [0, 40], TIER_BASELINE),
    ]);
    const verdicts = [5, 12, 17, 25, 35, 45].map((
      key,
    ) => [kindOf(decisionAt(segments, key)), ruleOf(decisionAt(segments, key))]);
    expect(verdicts).toEqual([
      [KIND_DENY, 2],
      [KIND_FORWARD, 3],
      [KIND_DENY, 4],
      [KIND_DENY, 2],
      [KIND_DENY, 4],
      [KIND_NO_RULE, -1],
    ]);
  });

  it("keeps an order of priorities that pass cannot jump backwards", () => {
    const segments = compile([
      rule(1, "allow", [0, 9], TIER_ADMIN, 1),
      rule(2, "pass", [0, 9], TIER_ADMIN, 2),
      rule(3, "deny", [0, 9], TIER_ADMIN, 3),
    ]);
    expect(ruleOf(decisionAt(segments, 4))).toBe(1);
  });

  it("decides every key as going through the rules in order does", () => {
    const ruleArb = fc.record({
      verdict: fc.constantFrom<RuleVerdict>("allow", "deny", "pass"),
      tier: fc.constantFrom(TIER_ADMIN, TIER_NORMAL, TIER_BASELINE),
      priority: fc.constantFrom(0, 1, 1.01, 2, 1000),
      bounds: fc.uniqueArray(fc.nat(24), { minLength: 2, maxLength: 6 }).map((b) => b.sort((x, y) => x - y)).map((b) =>
        b.slice(0, b.length & ~1)
      ),
    });
    fc.assert(
      fc.property(fc.array(ruleArb, { maxLength: 10 }), (list) => {
        const rules = list.map((r, i) => rule(i, r.verdict, r.bounds, r.tier, r.priority));
        const segments = compile(rules);
        for (let i = 2; i < segments.length; i += 2) {
          expect(segments[i]! > segments[i - 2]! && segments[i + 1] !== segments[i - 1]).toBe(true);
        }
        for (let key = 0; key < 26; key++) {
          let expected = OTHERWISE;
          let passedTier = -1;
          for (const one of rules) {
            if (
              one.tier === passedTier ||
              !one.ranges.some((from, i) => i % 2 === 0 && from <= key && key < one.ranges[i + 1]!)
            ) continue;
            if (one.verdict === "pass") passedTier = one.tier;
            else {
              expected = makeDecision(one.verdict === "deny" ? KIND_DENY : KIND_FORWARD, one.index);
              break;
            }
          }
          expect(decisionAt(segments, key)).toBe(expected);
        }
      }),
      { numRuns: 1000 },
    );
  });
});
