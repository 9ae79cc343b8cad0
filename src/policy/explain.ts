/**
 * Why a packet passes or not: every rule that matches, and the one that decides. Works on rules, not on the compiled table, so it is
 * also a second opinion about it.
 */
import { DROP_POLICY_DENIED, DROP_POLICY_DENY, FORWARD, REDIRECT, type Verdict } from "../verdict.ts";
import { type BoundRule, keyRanges, resolveNames } from "./bind.ts";
import { precedenceOf } from "./compile.ts";
import { makeKey } from "./decision.ts";
import { type IdentityRecord, matchesPeer } from "./identity_index.ts";
import type { L7Rules, RuleVerdict } from "./model.ts";

/** A rule by what people call it. */
export interface RuleRef {
  /** rule index in the table */
  readonly index: number;
  /** key that the policy was put under */
  readonly policy: string;
  /** where it stands in its object, e.g. "spec.ingress[0]" */
  readonly path: string;
  readonly verdict: RuleVerdict;
  readonly tier: number;
}

export interface Explanation {
  readonly verdict: Verdict;
  /** the rule that decides; `undefined` when none does, so that the direction's default holds */
  readonly decidedBy: RuleRef | undefined;
  /** rules that match, strongest first */
  readonly matched: readonly RuleRef[];
  /** what no rule allows is dropped in this direction */
  readonly isEnforced: boolean;
  /** what the proxy judges by, when the verdict is REDIRECT; else empty. One that matches is enough */
  readonly l7: readonly JudgedBy[];
  /** the drop that audit mode held back; only there when it did */
  readonly audited?: Verdict;
}

/** A rule that a proxy completes. */
export interface JudgedBy {
  readonly rule: RuleRef;
  readonly l7: L7Rules;
}

export interface ExplainedRule {
  readonly ref: RuleRef;
  readonly bound: BoundRule;
}

/**
 * Judges one flow by going through the rules.
 * @param other `undefined`: an identity that nobody knows, which only rules for everybody match
 */
export function explainFlow(
  rules: Iterable<ExplainedRule>,
  isEnforced: boolean,
  other: IdentityRecord | undefined,
  protocol: number,
  port: number,
): Explanation {
  const key = makeKey(protocol, port);
  const matching = [...rules].filter((rule) => matchesFlow(rule.bound, other, key)).sort(compareRules);
  const deciding = decidingOf(matching);
  return {
    verdict: deciding === undefined ? (isEnforced ? DROP_POLICY_DENIED : FORWARD) : verdictOf(deciding),
    decidedBy: deciding?.ref,
    matched: matching.map((rule) => rule.ref),
    isEnforced,
    l7: alternativesOf(matching, deciding),
  };
}

/**
 * What a proxy judges a flow by; empty when no L7 rule decides.
 * @param asked rules about the other side, strongest first, with the ranges of keys that each has there
 */
export function judgedBy(
  asked: readonly { readonly rule: ExplainedRule; readonly ranges: Uint32Array }[],
  key: number,
): JudgedBy[] {
  // a rule stands there twice when it has ports both by number and by name
  const matching = new Set(asked.filter(({ ranges }) => holds(ranges, key)).map(({ rule }) => rule));
  const inOrder = [...matching];
  return alternativesOf(inOrder, decidingOf(inOrder));
}

/** The first that decides. @param matching strongest first */
function decidingOf(matching: readonly ExplainedRule[]): ExplainedRule | undefined {
  return matching.find((rule, i) => rule.ref.verdict !== "pass" && !isPassed(matching, i));
}

/**
 * The L7 rules beside the one that decides, itself among them: all of the same weight and for the same proxy. Rules for HTTP and for
 * DNS on one port (of different policies; Cilium calls it a conflict and applies neither) cannot both be served: the first in order
 * takes the flow to its proxy, and the other kind opens nothing, so the mistake never lets more through than either policy says.
 */
function alternativesOf(matching: readonly ExplainedRule[], deciding: ExplainedRule | undefined): JudgedBy[] {
  const kind = deciding?.bound.rule.l7?.kind;
  if (deciding === undefined || kind === undefined) return [];
  return matching.flatMap((rule) => {
    const { l7 } = rule.bound.rule;
    return l7?.kind === kind && precedence(rule) === precedence(deciding) ? [{ rule: rule.ref, l7 }] : [];
  });
}

function verdictOf({ ref, bound }: ExplainedRule): Verdict {
  return ref.verdict === "deny" ? DROP_POLICY_DENY : bound.rule.l7 === undefined ? FORWARD : REDIRECT;
}

/** A stronger rule of its tier passes the flow on. */
function isPassed(matching: readonly ExplainedRule[], at: number): boolean {
  const tier = matching[at]!.ref.tier;
  return matching.slice(0, at).some((rule) => rule.ref.verdict === "pass" && rule.ref.tier === tier);
}

function matchesFlow(bound: BoundRule, other: IdentityRecord | undefined, key: number): boolean {
  if (bound.peers !== undefined) {
    if (other === undefined || !bound.peers.some((peer) => matchesPeer(peer, other))) return false;
  }
  return holds(bound.ranges, key) ||
    (other !== undefined && bound.names.length > 0 &&
      holds(keyRanges(resolveNames(bound.names, other.namedPorts, bound.rule.verdict === "deny")), key));
}

function holds(ranges: Uint32Array, key: number): boolean {
  for (let i = 0; i < ranges.length; i += 2) if (ranges[i]! <= key && key < ranges[i + 1]!) return true;
  return false;
}

/** The order in which the compiled table attributes. */
function compareRules(a: ExplainedRule, b: ExplainedRule): number {
  const byPrecedence = precedence(a) - precedence(b);
  if (byPrecedence !== 0) return byPrecedence;
  if (a.ref.policy !== b.ref.policy) return a.ref.policy < b.ref.policy ? -1 : 1;
  return a.bound.content < b.bound.content ? -1 : a.bound.content > b.bound.content ? 1 : 0;
}

function precedence(rule: ExplainedRule): number {
  return precedenceOf(rule.bound.rule);
}
