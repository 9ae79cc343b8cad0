/**
 * The control side of policy: objects, identities and settings in, updates for the datapath's table out.
 *
 * Inputs only note what changed; `takeUpdate` resolves it, and touches no more than that: a policy put again recomputes the classes
 * of identities that its changed rules match, an identity added costs one match and at most two classes. Only policies that select
 * the subject are resolved.
 *
 * Read first: model.ts (what a policy is), bind.ts (defaults), classes.ts (what the table is made of).
 */
import type { Labels } from "../identity/labels.ts";
import { isWireIdentity } from "../identity/ranges.ts";
import { IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6, RESERVED_LABELS } from "../identity/reserved.ts";
import type { IpAddress, IpPrefix } from "../ip/address.ts";
import { ActiveRule, type RulePart } from "./active_rule.ts";
import {
  countSpec,
  type EngineSettings,
  implicitRules,
  isClosed,
  LOCALHOST_POLICY,
  noSelections,
  selectingSpecs,
  type Subject,
} from "./active.ts";
import { bindRule, type BoundRule, makeBinding, standardMatching } from "./bind.ts";
import { type PrefixChanges, WORLD_IPV4, WORLD_IPV6 } from "./cidr_identities.ts";
import { Classes } from "./classes.ts";
import { auditKind, KIND_FORWARD, KIND_NO_RULE, makeDecision } from "./decision.ts";
import { FORWARD } from "../verdict.ts";
import { explainFlow, type Explanation, type RuleRef } from "./explain.ts";
import { IdentityIndex, type IdentityRecord, identityRecord } from "./identity_index.ts";
import { LocalRecords } from "./local_records.ts";
import { type Direction, INGRESS, type NamedPort, type Policy, type PolicySpec, type Rule } from "./model.ts";
import { changedNamespaces, localNamespaceOf, type Namespaces, withNamespaceLabels } from "./namespaces.ts";
import { RuleNumbers } from "./rule_numbers.ts";
import { type LabelSet, labelSet } from "./selector.ts";
import type { PolicyUpdate } from "./table.ts";

export type { EngineSettings, Subject } from "./active.ts";
export type { PrefixChanges } from "./cidr_identities.ts";
export type { Explanation, RuleRef } from "./explain.ts";
export type { Namespaces } from "./namespaces.ts";

/** A policy and what of it is in force. */
interface PolicyState {
  policy: Policy | undefined;
  /** those that select the subject */
  specs: readonly PolicySpec[];
  readonly rules: Map<string, ActiveRule>;
}

interface GivenIdentity {
  readonly labels: Labels;
  readonly namedPorts: readonly NamedPort[];
}

const OPEN = makeDecision(KIND_FORWARD, -1);
const CLOSED = makeDecision(KIND_NO_RULE, -1);
const AUDITED = makeDecision(auditKind(KIND_NO_RULE), -1);

export class PolicyEngine {
  #settings: EngineSettings | undefined;
  #subject: Subject | undefined;
  #subjectSet: LabelSet = labelSet({});
  #namespaces: Namespaces = new Map();
  readonly #given = new Map<number, GivenIdentity>();
  readonly #policies = new Map<string, PolicyState>();
  /** policies to look at again */
  readonly #dirty = new Set<string>();

  readonly #index = new IdentityIndex<RulePart>();
  readonly #classes: readonly [Classes, Classes] = [new Classes(OPEN), new Classes(OPEN)];
  readonly #local = new LocalRecords({
    put: (record) => this.#replaceRecord(record),
    remove: (identity) => this.#dropRecord(identity),
    get: (identity) => this.#index.get(identity),
  });
  readonly #numbers = new RuleNumbers();
  readonly #rules = new Map<number, ActiveRule>();
  readonly #selections = noSelections();
  #revision = 0;

  constructor() {
    for (const [identity, labels] of RESERVED_LABELS) {
      const prefix = identity === IDENTITY_WORLD_IPV4
        ? WORLD_IPV4
        : identity === IDENTITY_WORLD_IPV6
        ? WORLD_IPV6
        : undefined;
      this.#addRecord(identityRecord(identity, labels, [], prefix));
    }
  }

  // Inputs

  /** The endpoint that the table is for. */
  setSubject(subject: Subject): void {
    this.#subject = subject;
    this.#refreshSubject();
    this.#dirtyAll();
  }

  setSettings(settings: EngineSettings): void {
    const isNewCluster = settings.cluster !== this.#settings?.cluster;
    this.#settings = settings;
    this.#local.setMatching(standardMatching(settings.policy));
    if (isNewCluster) this.#relabel(() => true);
    this.#refreshSubject();
    this.#dirtyAll();
  }

  /** Puts or replaces a policy. Rules that stay the same keep their index and hits. */
  putPolicy(key: string, policy: Policy): void {
    const state = this.#policies.get(key);
    if (state === undefined) this.#policies.set(key, { policy, specs: [], rules: new Map() });
    else state.policy = policy;
    this.#dirty.add(key);
  }

  removePolicy(key: string): void {
    const state = this.#policies.get(key);
    if (state === undefined) return;
    state.policy = undefined;
    this.#dirty.add(key);
  }

  /**
   * Puts or replaces an identity of the mesh.
   * @param namedPorts ports of the members that have it, for egress rules by name
   * @returns false for numbers that the mesh may not define: reserved ones, and those of a node's own scope
   */
  putIdentity(identity: number, labels: Labels, namedPorts: readonly NamedPort[] = []): boolean {
    if (!isWireIdentity(identity) || identity === 0 || RESERVED_LABELS.has(identity)) return false;
    this.#given.set(identity, { labels, namedPorts });
    this.#putRecord(identity, labels, namedPorts);
    return true;
  }

  removeIdentity(identity: number): void {
    if (this.#given.delete(identity)) this.#removeRecord(identity);
  }

  /**
   * An address and the identity that the mesh gives it (a node's too: 1, 6, 7). Where the settings let prefixes match addresses
   * inside the cluster, each gets a local identity of its own, which `takePrefixes` reports and look-ups must use.
   */
  putAddress(address: IpAddress, identity: number): void {
    this.#local.putAddress(address, identity);
  }

  removeAddress(address: IpAddress): void {
    this.#local.removeAddress(address);
  }

  /** Current labels of the local cluster's namespaces: all of them. */
  setNamespaces(namespaces: Namespaces): void {
    const changed = changedNamespaces(this.#namespaces, namespaces);
    this.#namespaces = new Map(namespaces);
    if (changed.size === 0) return;
    const cluster = this.#settings?.cluster ?? "";
    this.#relabel((labels) => changed.has(localNamespaceOf(labels, cluster) ?? ""));
    const subject = this.#subject && localNamespaceOf(this.#subject.labels, cluster);
    if (subject === undefined || !changed.has(subject)) return;
    this.#refreshSubject();
    this.#dirtyAll();
  }

  // Outputs

  /**
   * Resolves what changed. The first is a full image, the others follow each other; each must be applied, in order. Apply it before
   * the `put` and after nothing of `takePrefixes`, or all in one message.
   * @returns `undefined` when the table is up to date, or while subject or settings are not known
   */
  takeUpdate(): PolicyUpdate | undefined {
    if (!this.#resolve()) return undefined;
    const isFull = this.#revision === 0;
    return isFull || this.#classes[0].isStale || this.#classes[1].isStale ? this.#makeUpdate(isFull) : undefined;
  }

  /** The whole table, for a datapath that starts anew. Later updates follow it. `undefined` as for `takeUpdate`. */
  takeFullUpdate(): PolicyUpdate | undefined {
    return this.#resolve() ? this.#makeUpdate(true) : undefined;
  }

  /**
   * Changes of the ipcache since the last call: prefixes that rules in force mention, and their local identities. Call it after
   * `takeUpdate`. A prefix at or inside a mesh entry must not replace or shadow that entry: addresses of the mesh keep their identity.
   */
  takePrefixes(): PrefixChanges {
    return this.#local.takeChanges();
  }

  /** All prefixes in use, for a datapath that starts anew. */
  allPrefixes(): PrefixChanges["put"] {
    return this.#local.all();
  }

  /** Identity that look-ups use for an address: of a member or node that was put, or outside the mesh. */
  identityOfAddress(address: IpAddress): number {
    return this.#local.identityOf(address);
  }

  /** Identity of an address outside the mesh. */
  identityOfOutside(address: IpAddress): number {
    return this.#local.identityOf(address);
  }

  /** What is in force: number of rules that select the subject, and identities known (reserved and prefixes among them). */
  get sizes(): { readonly rules: number; readonly identities: number; readonly policies: number } {
    return { rules: this.#rules.size, identities: this.#index.size, policies: this.#policies.size };
  }

  /** The rule behind an index, as of the last update. */
  ruleOf(index: number): RuleRef | undefined {
    return this.#rules.get(index)?.ref;
  }

  /** Whether a policy selects the subject, as of the last update; one may close a direction without having a rule. */
  isSelecting(key: string): boolean {
    return (this.#policies.get(key)?.specs.length ?? 0) > 0;
  }

  /** All rules in force, by index. */
  rules(): RuleRef[] {
    return [...this.#rules.values()].map((rule) => rule.ref).sort((a, b) => a.index - b.index);
  }

  /** Whether what no rule allows is dropped. False while subject or settings are not known; the table is closed then. */
  isEnforced(direction: Direction): boolean {
    return this.#settings !== undefined && this.#isClosed(direction);
  }

  /**
   * Why a flow passes or not, as of the last update.
   * @param other the other side: a number, or labels of somebody who need not be there
   * @param port  destination port, or ICMP type
   */
  explain(direction: Direction, other: number | Labels, protocol: number, port: number): Explanation {
    const record = typeof other === "number" ? this.#index.get(other) : this.#stranger(other);
    const rules = [...this.#rules.values()].filter((rule) => rule.bound.rule.direction === direction);
    const why = explainFlow(rules, this.isEnforced(direction), record, protocol, port);
    const isAudited = this.#settings?.policy.auditMode === true && why.verdict !== FORWARD;
    return isAudited ? { ...why, verdict: FORWARD, audited: why.verdict } : why;
  }

  // Identities

  #addRecord(record: IdentityRecord): void {
    for (const entry of this.#index.add(record)) {
      for (const part of entry.users) this.#join(part, record);
    }
  }

  #putRecord(identity: number, labels: Labels, namedPorts: readonly NamedPort[]): void {
    const current = withNamespaceLabels(labels, this.#namespaces, this.#settings?.cluster ?? "");
    this.#replaceRecord(identityRecord(identity, current, namedPorts));
    this.#local.refreshIdentity(identity);
  }

  #removeRecord(identity: number): void {
    this.#dropRecord(identity);
    this.#local.refreshIdentity(identity);
  }

  #replaceRecord(record: IdentityRecord): void {
    const before = this.#index.get(record.identity);
    if (before !== undefined && sameRecord(before, record)) return;
    this.#dropRecord(record.identity);
    this.#addRecord(record);
  }

  #dropRecord(identity: number): void {
    const record = this.#index.remove(identity);
    if (record !== undefined) { for (const classes of this.#classes) classes.drop(record); }
  }

  #relabel(isMeant: (labels: Labels) => boolean): void {
    for (const [identity, given] of this.#given) {
      if (isMeant(given.labels)) this.#putRecord(identity, given.labels, given.namedPorts);
    }
  }

  #stranger(labels: Labels): IdentityRecord {
    return identityRecord(0, withNamespaceLabels(labels, this.#namespaces, this.#settings?.cluster ?? ""));
  }

  #join(part: RulePart, record: IdentityRecord): void {
    const instance = part.owner.instanceFor(part, record);
    if (instance !== undefined) this.#classesOf(part).add(record, instance);
  }

  #classesOf(part: RulePart): Classes {
    return this.#classes[part.owner.bound.rule.direction];
  }

  // Resolution

  #refreshSubject(): void {
    const labels = this.#subject?.labels ?? {};
    this.#subjectSet = labelSet(withNamespaceLabels(labels, this.#namespaces, this.#settings?.cluster ?? ""));
  }

  #dirtyAll(): void {
    this.#isRulesStale = true;
    for (const key of this.#policies.keys()) this.#dirty.add(key);
  }

  /** @returns false while there is nobody to resolve for */
  #resolve(): boolean {
    const settings = this.#settings;
    if (settings === undefined || this.#subject === undefined) return false;
    if (!this.#isRulesStale && this.#dirty.size === 0) return true;
    for (const key of this.#dirty) this.#reactivate(key);
    this.#dirty.clear();
    this.#replaceRules(LOCALHOST_POLICY, this.#implicit, implicitRules(this.#selections, settings.policy));
    for (const direction of [0, 1] as const) {
      const closed = this.#isClosed(direction);
      const isAudited = settings.policy.auditMode === true;
      this.#classes[direction].setDefault(closed, closed ? (isAudited ? AUDITED : CLOSED) : OPEN, isAudited);
    }
    this.#isRulesStale = false;
    return true;
  }

  /** subject or settings changed: modes and implicit rules are to be looked at even without policies */
  #isRulesStale = true;

  readonly #implicit = new Map<string, ActiveRule>();

  #isClosed(direction: Direction): boolean {
    const closing = direction === INGRESS ? this.#selections.closesIngress : this.#selections.closesEgress;
    return isClosed(closing, this.#subjectSet, this.#settings!.policy);
  }

  /** Brings what is in force of one policy up to date. */
  #reactivate(key: string): void {
    const state = this.#policies.get(key);
    if (state === undefined) return;
    const specs = state.policy === undefined
      ? []
      : selectingSpecs(state.policy, this.#subjectSet, this.#settings!.policy);
    for (const spec of state.specs) countSpec(this.#selections, spec, -1);
    for (const spec of specs) countSpec(this.#selections, spec, 1);
    state.specs = specs;
    this.#replaceRules(key, state.rules, specs.flatMap((spec) => spec.rules));
    if (state.policy === undefined) this.#policies.delete(key);
  }

  /** Rules of the same content stay as they are; new ones come before old ones go, so that shared prefixes keep their identity. */
  #replaceRules(key: string, active: Map<string, ActiveRule>, rules: readonly Rule[]): void {
    if (rules.length === 0 && active.size === 0) return;
    const wanted = new Map<string, BoundRule>();
    const binding = makeBinding(this.#settings!, this.#subject!.namedPorts);
    for (const rule of rules) {
      const bound = bindRule(rule, binding);
      if (!wanted.has(bound.content)) wanted.set(bound.content, bound);
    }
    for (const [content, bound] of wanted) {
      const kept = active.get(content);
      if (kept === undefined) active.set(content, this.#activate(key, bound));
      else if (kept.ref.path !== bound.rule.path) kept.ref = { ...kept.ref, path: bound.rule.path };
    }
    for (const [content, rule] of active) {
      if (wanted.has(content)) continue;
      active.delete(content);
      this.#deactivate(rule);
    }
  }

  #activate(key: string, bound: BoundRule): ActiveRule {
    const rule = new ActiveRule(this.#numbers.take(), key, bound);
    this.#rules.set(rule.ref.index, rule);
    for (const prefix of prefixesOf(bound)) this.#local.usePrefix(prefix);
    for (const part of rule.parts) {
      if (part.peers === undefined) {
        for (const instance of part.instances.values()) this.#classesOf(part).addForEverybody(instance);
        continue;
      }
      part.entries = part.peers.map((peer) => this.#index.use(peer, part));
      for (const entry of part.entries) for (const record of entry.matched) this.#join(part, record);
    }
    return rule;
  }

  #deactivate(rule: ActiveRule): void {
    rule.kill();
    this.#rules.delete(rule.ref.index);
    this.#numbers.give(rule.ref.index);
    for (const part of rule.parts) {
      if (part.peers === undefined) this.#classesOf(part).touchEverybody();
      for (const entry of part.entries) {
        for (const record of entry.matched) this.#classesOf(part).touch(record);
        this.#index.release(entry, part);
      }
    }
    for (const prefix of prefixesOf(rule.bound)) this.#local.releasePrefix(prefix);
  }

  #makeUpdate(isFull: boolean): PolicyUpdate {
    return {
      revision: ++this.#revision,
      isFull,
      ruleCount: this.#numbers.count,
      freshRules: this.#numbers.takeFresh(),
      ingress: this.#classes[0].flush(isFull),
      egress: this.#classes[1].flush(isFull),
    };
  }
}

/** Every prefix that a rule mentions, holes too. */
function prefixesOf(bound: BoundRule): IpPrefix[] {
  return (bound.peers ?? []).flatMap((peer) => (peer.kind === "cidr" ? [peer.prefix, ...peer.except] : []));
}

/** A prefix belongs to its identity: it does not change. */
function sameRecord(a: IdentityRecord, b: IdentityRecord): boolean {
  const names = Object.keys(b.set.labels);
  return names.length === a.set.pairs.length && names.every((name) => a.set.labels[name] === b.set.labels[name]) &&
    a.place === b.place && JSON.stringify(a.namedPorts) === JSON.stringify(b.namedPorts);
}
