/**
 * Which members need to know of each other (design D7): those between which the policies leave any traffic at all. Asked per
 * class, not per member: a class is all members of one identity, and policies see nothing finer.
 *
 * Coarse on purpose, and only ever in one direction: a class may be shown that later turns out to be closed on every port, but
 * none is hidden that could be talked to. What really passes is decided on the member by the whole policy engine.
 */
import type { Labels } from "../identity/labels.ts";
import {
  type Direction,
  EGRESS,
  INGRESS,
  keyOfPolicy,
  type Peer,
  type Policy,
  type PolicySettings,
  type PolicySpec,
  type Rule,
  type Selector,
  TIER_NORMAL,
} from "../policy/model.ts";
import { bindSelector, type LabelSet, labelSet, matchesSelector } from "../policy/selector.ts";
import { Bitset } from "./bitset.ts";

/** Members of one identity. */
export interface MemberClass {
  readonly identity: number;
  readonly labels: Labels;
}

/** What the members of a class are sent. */
export interface ClassView {
  /** indices of classes whose members it may talk to; `undefined` = all, those to come too */
  readonly peers: Bitset | undefined;
  /** indices of classes whose identities it must know: its peers, and what its own policies let in or out */
  readonly identities: Bitset | undefined;
  /** keys (`keyOfPolicy`) of the policies that select it, in order */
  readonly policies: readonly string[];
}

/** One direction of a class: who is let through. `undefined` = everybody. */
interface Openness {
  readonly ingress: Bitset | undefined;
  readonly egress: Bitset | undefined;
}

/**
 * Computes the view of every class, by position in `classes`.
 *
 * @param localCluster name that `defaultsCluster` selectors ask for
 */
export function computeViews(
  classes: readonly MemberClass[],
  policies: readonly Policy[],
  settings: PolicySettings,
  localCluster: string,
): ClassView[] {
  const matcher = new Matcher(classes, settings.defaultLocalCluster ? localCluster : undefined);
  const selecting: Policy[][] = classes.map(() => []);
  for (const policy of policies) {
    const selected = new Bitset(classes.length);
    for (const spec of policy.specs) selected.addAll(matcher.select(spec.subject));
    for (let i = 0; i < classes.length; i++) if (selected.has(i)) selecting[i]!.push(policy);
  }
  const keys = selecting.map((list) => list.map(keyOfPolicy).sort());
  const open = selecting.map((list, i) => opennessOf(list, i, matcher, settings));
  if (open.every(({ ingress, egress }) => ingress === undefined && egress === undefined)) {
    return keys.map((policyKeys) => ({ peers: undefined, identities: undefined, policies: policyKeys }));
  }
  const inbound = transpose(open.map(({ ingress }) => ingress), classes.length);
  const outbound = transpose(open.map(({ egress }) => egress), classes.length);
  return open.map((own, i) => {
    const peers = union(
      intersection(own.egress, inbound[i]!, classes.length),
      intersection(own.ingress, outbound[i]!, classes.length),
    );
    const identities = copyOf(peers, classes.length);
    if (own.ingress !== undefined) identities.addAll(own.ingress);
    if (own.egress !== undefined) identities.addAll(own.egress);
    return { peers, identities, policies: keys[i]! };
  });
}

/** What policies leave open around one class. */
function opennessOf(policies: readonly Policy[], index: number, matcher: Matcher, settings: PolicySettings): Openness {
  if (settings.enforcementMode === "never") return { ingress: undefined, egress: undefined };
  const specs = policies.flatMap((policy) => policy.specs).filter((spec) => matcher.select(spec.subject).has(index));
  const isAlways = settings.enforcementMode === "always";
  return {
    ingress: directionOf(specs, INGRESS, isAlways || specs.some((spec) => spec.closesIngress), matcher),
    egress: directionOf(specs, EGRESS, isAlways || specs.some((spec) => spec.closesEgress), matcher),
  };
}

function directionOf(
  specs: readonly PolicySpec[],
  direction: Direction,
  isClosed: boolean,
  matcher: Matcher,
): Bitset | undefined {
  const rules = specs.flatMap((spec) => spec.rules).filter((rule) => rule.direction === direction);
  const denied = rules.filter((rule) => rule.verdict === "deny" && deniesEverything(rule));
  if (!isClosed && denied.length === 0) return undefined;
  const open = new Bitset(matcher.count);
  if (!isClosed) open.fill();
  for (const rule of rules) if (rule.verdict === "allow" && hasPorts(rule)) open.addAll(matcher.peersOf(rule));
  for (const rule of denied) open.removeAll(matcher.peersOf(rule));
  return open;
}

/** A deny that no allow of the same kind of policy outranks. Other tiers decide in an order of their own: not counted. */
function deniesEverything(rule: Rule): boolean {
  return rule.ports === undefined && rule.names.length === 0 && rule.tier === TIER_NORMAL;
}

function hasPorts(rule: Rule): boolean {
  return rule.ports === undefined || rule.ports.length > 0 || rule.names.length > 0;
}

/** For each class, those that let it through: `rows[i].has(j)` becomes `result[j].has(i)`. */
function transpose(rows: readonly (Bitset | undefined)[], count: number): Bitset[] {
  const result = Array.from({ length: count }, () => new Bitset(count));
  rows.forEach((row, i) => {
    for (let j = 0; j < count; j++) if (row === undefined || row.has(j)) result[j]!.add(i);
  });
  return result;
}

function intersection(a: Bitset | undefined, b: Bitset, count: number): Bitset {
  const result = copyOf(b, count);
  if (a !== undefined) {
    for (let i = 0; i < result.words.length; i++) {
      result.words[i] = result.words[i]! & a.words[i]!;
    }
  }
  return result;
}

function union(a: Bitset, b: Bitset): Bitset {
  a.addAll(b);
  return a;
}

function copyOf(set: Bitset, count: number): Bitset {
  const copy = new Bitset(count);
  copy.addAll(set);
  return copy;
}

/** Answers selectors with sets of classes; the same selector is worked out once. */
class Matcher {
  readonly count: number;
  readonly #localCluster: string | undefined;
  readonly #sets: readonly LabelSet[];
  readonly #known = new Map<string, Bitset>();

  constructor(classes: readonly MemberClass[], localCluster: string | undefined) {
    this.count = classes.length;
    this.#localCluster = localCluster;
    this.#sets = classes.map(({ labels }) => labelSet(labels));
  }

  select(selector: Selector): Bitset {
    const bound = bindSelector(selector, this.#localCluster);
    const known = this.#known.get(bound.id);
    if (known !== undefined) return known;
    const matching = new Bitset(this.count);
    this.#sets.forEach((set, i) => matchesSelector(bound, set) && matching.add(i));
    this.#known.set(bound.id, matching);
    return matching;
  }

  /** Everybody that a rule is about. */
  peersOf(rule: Rule): Bitset {
    const set = new Bitset(this.count);
    if (rule.peers === undefined) set.fill();
    else for (const peer of rule.peers) set.addAll(this.#peer(peer));
    return set;
  }

  #peer(peer: Peer): Bitset {
    if (peer.kind === "selector") return this.select(peer.selector);
    const set = new Bitset(this.count);
    // members are endpoints of this cluster: addresses outside and nodes are never among them
    if (peer.kind === "entity" && ["all", "cluster", "cluster-mesh"].includes(peer.entity)) set.fill();
    return set;
  }
}
