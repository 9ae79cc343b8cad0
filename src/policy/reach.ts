/**
 * Whether anything at all may pass between two members: what decides who needs to know of whom (design D7). Exact: for each
 * direction there must be a protocol and port that the one's egress and the other's ingress both let through; replies need no rule.
 *
 * Members of equal labels and ports are one, and every answer is kept, so a mesh of a thousand members with few identities asks
 * little. A new policy or setting needs a new `Reach`.
 */
import { formatLabelList, type Labels } from "../identity/labels.ts";
import { countSpec, type EngineSettings, implicitRules, isClosed, noSelections, selectingSpecs } from "./active.ts";
import { bindRule, type BoundRule, keyRanges, makeBinding, resolveNames } from "./bind.ts";
import { type CompiledRule, compileSegments, precedenceOf } from "./compile.ts";
import { KEY_END, KIND_FORWARD, KIND_NO_RULE, kindOf, makeDecision } from "./decision.ts";
import { type IdentityRecord, identityRecord, matchesPeer } from "./identity_index.ts";
import { type Direction, EGRESS, INGRESS, type NamedPort, type Policy } from "./model.ts";

/** One end of the question. */
export interface ReachMember {
  readonly labels: Labels;
  readonly namedPorts: readonly NamedPort[];
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
  readonly #known = new Map<string, Known>();
  readonly #byMember = new WeakMap<ReachMember, Known>();

  constructor(policies: Iterable<Policy>, settings: EngineSettings) {
    this.#policies = [...policies];
    this.#settings = settings;
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
    const key = formatLabelList(member.labels) + JSON.stringify(member.namedPorts);
    let known = this.#known.get(key);
    if (known === undefined) this.#known.set(key, known = this.#resolve(member));
    this.#byMember.set(member, known);
    return known;
  }

  #resolve(member: ReachMember): Known {
    const record = identityRecord(0, member.labels, member.namedPorts);
    const { policy } = this.#settings;
    const specs = this.#policies.flatMap((one) => selectingSpecs(one, record.set, policy));
    const selections = noSelections();
    for (const spec of specs) countSpec(selections, spec, 1);
    const binding = makeBinding(this.#settings, member.namedPorts);
    return {
      record,
      rules: [...specs.flatMap((spec) => spec.rules), ...implicitRules(selections, policy)].map((rule) =>
        bindRule(rule, binding)
      ),
      closes: [
        isClosed(selections.closesIngress, record.set, policy),
        isClosed(selections.closesEgress, record.set, policy),
      ],
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
    precedence: precedenceOf(rule.tier, rule.priority, rule.verdict),
    verdict: rule.verdict,
    ranges,
  };
}

/** Whether some key is let through by both. */
function meet(a: readonly number[], b: readonly number[]): boolean {
  let i = 0;
  let j = 0;
  while (i < a.length && j < b.length) {
    if (kindOf(a[i + 1]!) === KIND_FORWARD && kindOf(b[j + 1]!) === KIND_FORWARD) return true;
    const endA = a[i + 2] ?? KEY_END;
    const endB = b[j + 2] ?? KEY_END;
    if (endA <= endB) i += 2;
    if (endB <= endA) j += 2;
  }
  return false;
}
