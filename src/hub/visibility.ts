/**
 * Which members need to know of each other (design D7): those between which the policies leave any traffic at all. Asked per
 * class, not per member: a class is all members of one identity, and policies see nothing finer.
 *
 * Coarse on purpose, and only ever in one direction: a class may be shown that later turns out to be closed on every port, but
 * none is hidden that could be talked to. What really passes is decided on the member by the whole policy engine.
 */
import { KEY_CLUSTER, type Labels, SOURCE_K8S } from "../identity/labels.ts";
import {
  type Direction,
  EGRESS,
  type Entity,
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
  const matcher = new Matcher(classes, settings, localCluster);
  const selecting: Policy[][] = classes.map(() => []);
  for (const policy of policies) {
    const selected = new Bitset(classes.length);
    for (const spec of policy.specs) selected.addAll(matcher.mayHoldFor(spec));
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
  const dropsNothing = settings.enforcementMode === "never" || settings.auditMode === true;
  if (dropsNothing) return { ingress: undefined, egress: undefined };
  const specs = policies.flatMap((policy) => policy.specs).filter((spec) => matcher.mayHoldFor(spec).has(index));
  return {
    ingress: directionOf(specs, INGRESS, matcher, settings),
    egress: directionOf(specs, EGRESS, matcher, settings),
  };
}

/**
 * Who is let through in a direction. A spec for hosts only opens: whether it holds for a member is decided by labels that are not
 * those of its identity, so what it closes or denies is left to the member.
 */
function directionOf(
  specs: readonly PolicySpec[],
  direction: Direction,
  matcher: Matcher,
  settings: PolicySettings,
): Bitset | undefined {
  const certain = specs.filter((spec) => spec.isForNodes !== true);
  const closes = (spec: PolicySpec) => direction === INGRESS ? spec.closesIngress : spec.closesEgress;
  const isClosed = settings.enforcementMode === "always" || certain.some(closes);
  const ofDirection = (rule: Rule) => rule.direction === direction;
  const denied = certain.flatMap(({ rules }) => rules).filter((rule) => ofDirection(rule) && deniesEverything(rule));
  if (!isClosed && denied.length === 0) return undefined;
  const allowed = specs.flatMap(({ rules }) => rules).filter((rule) => ofDirection(rule) && allowsSomething(rule));
  const open = new Bitset(matcher.count);
  if (!isClosed) open.fill();
  for (const rule of allowed) open.addAll(matcher.mayMean(rule));
  for (const rule of denied) open.removeAll(matcher.surelyMeans(rule));
  // what an earlier tier accepts, a deny of the normal one does not close
  for (const rule of allowed) if (rule.tier < TIER_NORMAL) open.addAll(matcher.mayMean(rule));
  return open;
}

/** A deny that no allow of its tier outranks. Those of other tiers decide in an order of their own: not counted. */
function deniesEverything(rule: Rule): boolean {
  return rule.verdict === "deny" && rule.ports === undefined && rule.names.length === 0 && rule.tier === TIER_NORMAL;
}

/** What a proxy completes counts as allowed. */
function allowsSomething(rule: Rule): boolean {
  return rule.verdict === "allow" && (rule.ports === undefined || rule.ports.length > 0 || rule.names.length > 0);
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
  readonly #settings: PolicySettings;
  readonly #localCluster: string;
  readonly #sets: readonly LabelSet[];
  readonly #known = new Map<string, Bitset>();

  constructor(classes: readonly MemberClass[], settings: PolicySettings, localCluster: string) {
    this.count = classes.length;
    this.#settings = settings;
    this.#localCluster = localCluster;
    this.#sets = classes.map(({ labels }) => labelSet(labels));
  }

  /** Classes that a spec may select: exactly those, but for the hosts of a nodeSelector, which may be any. */
  mayHoldFor(spec: PolicySpec): Bitset {
    if (spec.isForNodes !== true) return this.#select(spec.subject);
    return this.#settings.hostFirewall === true ? this.#everybody() : new Bitset(this.count);
  }

  /** Everybody that a rule may be about: no less than it means. */
  mayMean(rule: Rule): Bitset {
    return this.#peersOf(rule, true);
  }

  /** Everybody that a rule is about for sure: no more than it means. */
  surelyMeans(rule: Rule): Bitset {
    return this.#peersOf(rule, false);
  }

  #peersOf(rule: Rule, counts: boolean): Bitset {
    if (rule.peers === undefined) return this.#everybody();
    const set = new Bitset(this.count);
    for (const peer of rule.peers) set.addAll(this.#peer(peer, counts));
    return set;
  }

  /** @param counts whether those are among them of whom it cannot be said here */
  #peer(peer: Peer, counts: boolean): Bitset {
    const unsure = () => counts ? this.#everybody() : new Bitset(this.count);
    switch (peer.kind) {
      case "selector":
        return this.#select(peer.selector);
      case "entity":
        return this.#entity(peer.entity);
      case "cidr":
      case "cidrGroup":
        return this.#canPrefixesMeanMembers(peer) ? unsure() : new Bitset(this.count);
      case "service": // its pods, by a selector that is not here
        return unsure();
      case "fqdn": // names never mean an address inside the mesh
      case "node": // members are endpoints
        return new Bitset(this.count);
    }
  }

  #canPrefixesMeanMembers(peer: Peer): boolean {
    const { cidrMatchMode, flavor } = this.#settings;
    const isStandard = peer.kind === "cidr" && peer.isStandard === true;
    return (cidrMatchMode ?? []).includes("pods") || (isStandard && flavor === "kubernetes");
  }

  #entity(entity: Entity): Bitset {
    if (entity === "all") return this.#everybody();
    const ofCluster = (labels: Labels) => labels[`${SOURCE_K8S}:${KEY_CLUSTER}`];
    if (entity === "cluster") return this.#where(({ labels }) => ofCluster(labels) === this.#localCluster);
    if (entity === "cluster-mesh") return this.#where(({ labels }) => ofCluster(labels) !== undefined);
    return new Bitset(this.count); // the world, nodes and other reserved identities are no members
  }

  #select(selector: Selector): Bitset {
    const bound = bindSelector(selector, this.#settings.defaultLocalCluster ? this.#localCluster : undefined);
    const known = this.#known.get(bound.id);
    if (known !== undefined) return known;
    const matching = this.#where((set) => matchesSelector(bound, set));
    this.#known.set(bound.id, matching);
    return matching;
  }

  #where(isMeant: (set: LabelSet) => boolean): Bitset {
    const set = new Bitset(this.count);
    this.#sets.forEach((one, i) => isMeant(one) && set.add(i));
    return set;
  }

  #everybody(): Bitset {
    const set = new Bitset(this.count);
    set.fill();
    return set;
  }
}
