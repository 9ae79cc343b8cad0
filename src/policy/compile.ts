/**
 * Rules that match one identity -> segments over the whole key space. All precedence ends here.
 *
 * Order of decision: lower tier first; inside a tier lower priority first; at equal priority deny, then allow, then allow as far as a
 * proxy allows it, then pass: who is allowed without conditions has none to meet. A pass skips the rest of its tier. What nothing
 * decides has the default. Among equals the first of the list gets the attribution.
 * @see facts policy.md sections 9, 11 and 14
 */
import { auditKind, KEY_END, KIND_DENY, KIND_DNS, KIND_FORWARD, KIND_HTTP, makeDecision } from "./decision.ts";
import type { L7Rules, RuleVerdict } from "./model.ts";

/** One rule as it applies to one identity: every name and default resolved. */
export interface CompiledRule {
  /** rule index in the table */
  readonly index: number;
  readonly tier: number;
  /** from `precedenceOf`: lower decides first */
  readonly precedence: number;
  readonly verdict: RuleVerdict;
  /** from `kindOfRule`: what it decides when it does */
  readonly kind: number;
  /** pairs (first key, one past the last key), sorted, without overlap */
  readonly ranges: Uint32Array;
}

const RANK: Readonly<Record<RuleVerdict, number>> = { deny: 0, allow: 1, pass: 3 };
const RANK_PROXY = 2;
/** Priorities are 0 to 1000 and a fraction for the rule's place in its object. */
const TIER_STEP = 1e6;
const PRIORITY_STEP = 4;

/** What orders rules, and what they decide. */
export interface Weight {
  readonly tier: number;
  readonly priority: number;
  readonly verdict: RuleVerdict;
  readonly l7?: L7Rules;
}

/** A number that orders rules: tier, then priority (0 to 2000, fractions in hundredths), then deny, allow, L7 allow, pass. */
export function precedenceOf({ tier, priority, verdict, l7 }: Weight): number {
  const rank = verdict === "allow" && l7 !== undefined ? RANK_PROXY : RANK[verdict];
  return tier * TIER_STEP + Math.round(priority * 100) * PRIORITY_STEP + rank;
}

/** KIND_... that a rule decides; of no meaning for a pass. */
export function kindOfRule({ verdict, l7 }: Pick<Weight, "verdict" | "l7">): number {
  if (verdict === "deny") return KIND_DENY;
  return l7 === undefined ? KIND_FORWARD : l7.kind === "http" ? KIND_HTTP : KIND_DNS;
}

/**
 * Segments as pairs (first key, decision), first key 0, neighbours different.
 * @param rules   sorted by precedence; equal ones in the order of attribution
 * @param otherwise decision where no rule decides
 * @param isAudited deny rules only report
 */
export function compileSegments(rules: readonly CompiledRule[], otherwise: number, isAudited = false): number[] {
  const bounds = boundsOf(rules);
  const decisions = decide(rules, bounds, otherwise, isAudited);
  const segments: number[] = [];
  for (let i = 0; i < bounds.length; i++) {
    if (i > 0 && decisions[i] === segments[segments.length - 1]) continue;
    segments.push(bounds[i]!, decisions[i]!);
  }
  return segments;
}

/** Every key where some rule starts or ends, and 0; sorted, distinct. */
function boundsOf(rules: readonly CompiledRule[]): number[] {
  const bounds = [0];
  for (const rule of rules) {
    for (let i = 0; i < rule.ranges.length; i++) if (rule.ranges[i]! < KEY_END) bounds.push(rule.ranges[i]!);
  }
  bounds.sort((a, b) => a - b);
  let count = 1;
  for (let i = 1; i < bounds.length; i++) if (bounds[i] !== bounds[count - 1]) bounds[count++] = bounds[i]!;
  bounds.length = count;
  return bounds;
}

/**
 * Paints the intervals between bounds, strongest rule first; what is painted stays. `next[i]` leads to the first interval from `i`
 * on that is not painted (paths are halved), so that each interval is visited about once per tier.
 */
function decide(
  rules: readonly CompiledRule[],
  bounds: readonly number[],
  otherwise: number,
  isAudited: boolean,
): number[] {
  const count = bounds.length;
  const decisions = new Array<number>(count).fill(otherwise);
  const next: number[] = [];
  for (let i = 0; i <= count; i++) next.push(i);
  const open = (from: number) => {
    let i = from;
    while (next[i] !== i) i = next[i] = next[next[i]!]!;
    return i;
  };
  /** tier whose rest is skipped, per interval; made when the first pass comes */
  let passed: number[] | undefined;
  for (const rule of rules) {
    for (let r = 0; r < rule.ranges.length; r += 2) {
      const last = rule.ranges[r + 1]!;
      for (let i = open(placeOf(bounds, rule.ranges[r]!)); i < count && bounds[i]! < last; i = open(i + 1)) {
        if (passed !== undefined && passed[i] === rule.tier) continue;
        if (rule.verdict === "pass") (passed ??= new Array<number>(count).fill(-1))[i] = rule.tier;
        else {
          decisions[i] = makeDecision(isAudited ? auditKind(rule.kind) : rule.kind, rule.index);
          next[i] = i + 1;
        }
      }
    }
  }
  return decisions;
}

function placeOf(bounds: readonly number[], key: number): number {
  let low = 0;
  let high = bounds.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (bounds[middle]! <= key) low = middle;
    else high = middle;
  }
  return low;
}
