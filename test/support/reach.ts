/**
 * Whether anything at all may pass between two members, asked pair by pair: what `src/hub/visibility.ts` (design D7) must agree with,
 * which asks for all at once. Exact: for each
 * direction there must be a protocol and port that the one's egress and the other's ingress both let through; replies need no rule.
 *
 * Members of equal labels and ports are one, and every answer is kept, so a mesh of a thousand members with few identities asks
 * little. A new policy or setting needs a new `Reach`.
 */
import { formatLabelList, type Labels } from "../../src/identity/labels.ts";
import { FORWARD, REDIRECT } from "../../src/verdict.ts";
import {
  countSpec,
  type EngineSettings,
  implicitRules,
  isBaselineAsked,
  isClosed,
  noSelections,
  selectingSpecs,
  subjectSets,
} from "../../src/policy/active.ts";
import { bindRule, type BoundRule, keyRanges, makeBinding, resolveNames } from "../../src/policy/bind.ts";
import { type CompiledRule, compileSegments, kindOfRule, precedenceOf } from "../../src/policy/compile.ts";
import {
  KEY_END,
  KIND_FORWARD,
  KIND_NO_RULE,
  kindOf,
  makeDecision,
  VERDICT_OF_KIND,
} from "../../src/policy/decision.ts";
import { type IdentityRecord, identityRecord, matchesPeer } from "../../src/policy/identity_index.ts";
import { type Direction, EGRESS, INGRESS, type NamedPort, type Policy, TIER_BASELINE } from "../../src/policy/model.ts";
import { PeerSources } from "../../src/policy/peer_sources.ts";

/** One end of the question. */
export interface ReachMember {
  readonly labels: Labels;
  readonly namedPorts: readonly NamedPort[];
  /** of its node, for policies with a nodeSelector */
  readonly nodeLabels?: Labels;
}

/** A member with what policies say about it. */
interface Known {
  readonly record: IdentityRecord;
  readonly rules: readonly BoundRule[];
  readonly closes: readonly [ingress: boolean, egress: boolean];
  /** answers by the other's number */
  readonly answers: Map<number, boolean>;
  readonly number: number;
}

export class Reach {
  readonly #policies: readonly Policy[];
  readonly #settings: EngineSettings;
  readonly #sources: PeerSources;
  readonly #known = new Map<string, Known>();
  readonly #byMember = new WeakMap<ReachMember, Known>();

  /** @param sources groups and services that policies name; they must not change */
  constructor(policies: Iterable<Policy>, settings: EngineSettings, sources = new PeerSources()) {
    this.#policies = [...policies];
    this.#settings = settings;
    this.#sources = sources;
  }

  /** Whether any packet may start a flow from one to the other, or back. A member always reaches its like and itself the same way. */
  mayTalk(a: ReachMember, b: ReachMember): boolean {
    if (this.#settings.policy.auditMode === true) return true; // nothing is dropped
    const one = this.#look(a);
    const other = this.#look(b);
    let answer = one.answers.get(other.number);
    if (answer === undefined) {
      answer = passes(one, other) || passes(other, one);
      one.answers.set(other.number, answer);
      other.answers.set(one.number, answer);
    }
    return answer;
  }

  #look(member: ReachMember): Known {
    const seen = this.#byMember.get(member);
    if (seen !== undefined) return seen;
    const key = formatLabelList(member.labels) + JSON.stringify([member.namedPorts, member.nodeLabels]);
    let known = this.#known.get(key);
    if (known === undefined) this.#known.set(key, known = this.#resolve(member));
    this.#byMember.set(member, known);
    return known;
  }

  #resolve(member: ReachMember): Known {
    const record = identityRecord(0, member.labels, member.namedPorts);
    const sets = subjectSets(member.labels, member.nodeLabels);
    const { policy } = this.#settings;
    const specs = this.#policies.flatMap((one) => selectingSpecs(one, sets, policy));
    const selections = noSelections();
    for (const spec of specs) countSpec(selections, spec, 1);
    const binding = makeBinding(this.#settings, member.namedPorts, this.#sources);
    const rules = [...specs.flatMap((spec) => spec.rules), ...implicitRules(selections, policy)];
    const closing = [selections.closesIngress, selections.closesEgress] as const;
    const asksBaseline = closing.map((count, direction) => {
      const hasPass = rules.some((rule) => rule.direction === direction && rule.verdict === "pass");
      return isBaselineAsked(count, hasPass, policy);
    });
    return {
      record,
      rules: rules.filter(({ tier, direction }) => tier !== TIER_BASELINE || asksBaseline[direction])
        .map((rule) => bindRule(rule, binding)),
      closes: [isClosed(closing[0], sets, policy), isClosed(closing[1], sets, policy)],
      answers: new Map(),
      number: this.#known.size,
    };
  }
}

/** Whether something may start at one and arrive at the other. */
function passes(from: Known, to: Known): boolean {
  return meet(segmentsOf(from, EGRESS, to.record), segmentsOf(to, INGRESS, from.record));
}

function segmentsOf(subject: Known, direction: Direction, other: IdentityRecord): readonly number[] {
  const rules: CompiledRule[] = [];
  for (const bound of subject.rules) {
    if (bound.rule.direction !== direction) continue;
    if (bound.peers !== undefined && !bound.peers.some((peer) => matchesPeer(peer, other))) continue;
    rules.push(compiled(bound, bound.ranges));
    if (bound.names.length === 0) continue;
    rules.push(compiled(bound, keyRanges(resolveNames(bound.names, other.namedPorts, bound.rule.verdict === "deny"))));
  }
  rules.sort((a, b) => a.precedence - b.precedence);
  return compileSegments(rules, makeDecision(subject.closes[direction] ? KIND_NO_RULE : KIND_FORWARD, -1));
}

function compiled({ rule }: BoundRule, ranges: Uint32Array): CompiledRule {
  return {
    index: 0,
    tier: rule.tier,
    precedence: precedenceOf(rule),
    verdict: rule.verdict,
    kind: kindOfRule(rule),
    ranges,
  };
}

/** Whether some key is let through by both. */
function meet(a: readonly number[], b: readonly number[]): boolean {
  let i = 0;
  let j = 0;
  while (i < a.length && j < b.length) {
    if (isOpen(a[i + 1]!) && isOpen(b[j + 1]!)) return true;
    const endA = a[i + 2] ?? KEY_END;
    const endB = b[j + 2] ?? KEY_END;
    if (endA <= endB) i += 2;
    if (endB <= endA) j += 2;
  }
  return false;
}

/** What a proxy has to judge may pass. */
function isOpen(decision: number): boolean {
  const verdict = VERDICT_OF_KIND[kindOf(decision)];
  return verdict === FORWARD || verdict === REDIRECT;
}
