/**
 * The control side of policy: objects, identities, names and settings in, updates for the datapath's table out.
 *
 * Inputs only note what changed; `takeUpdate` resolves it, and touches no more than that: a policy put again recomputes the classes
 * of identities that its changed rules match, an identity or an address added costs one match and at most two classes. Only policies
 * that select the subject are resolved.
 *
 * Read first: model.ts (what a policy is), bind.ts (defaults), rules_in_force.ts and classes.ts (what the table is made of).
 */
import { type Labels, SOURCE_NODE } from "../identity/labels.ts";
import { IDENTITY_WORLD, IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6, RESERVED_LABELS } from "../identity/reserved.ts";
import type { IpAddress, IpPrefix } from "../ip/address.ts";
import {
  countSpec,
  type EngineSettings,
  implicitRules,
  isBaselineAsked,
  isClosed,
  LOCALHOST_POLICY,
  noSelections,
  selectingSpecs,
  type Subject,
  type SubjectSets,
  subjectSets,
  withSource,
} from "./active.ts";
import { makeBinding, standardMatching } from "./bind.ts";
import { type PrefixChanges, WORLD_IPV4, WORLD_IPV6 } from "./cidr_identities.ts";
import { auditKind, KIND_FORWARD, KIND_NO_RULE, makeDecision, makeKey } from "./decision.ts";
import { FORWARD, REDIRECT } from "../verdict.ts";
import { explainFlow, type Explanation, type JudgedBy, judgedBy, type RuleRef } from "./explain.ts";
import { GivenIdentities } from "./given_identities.ts";
import { identityRecord } from "./identity_index.ts";
import { LearnedNames } from "./learned_names.ts";
import { hostPrefix, LocalRecords } from "./local_records.ts";
import {
  type Direction,
  INGRESS,
  type NamedPort,
  type Policy,
  type PolicySpec,
  type Rule,
  TIER_BASELINE,
} from "./model.ts";
import type { Namespaces } from "./namespaces.ts";
import { hasSources, mentions, PeerSources, type PolicyService, type SourceChange } from "./peer_sources.ts";
import type { CidrGroup } from "./read_cidr_group.ts";
import { type ActiveRules, RulesInForce } from "./rules_in_force.ts";
import type { PolicyUpdate } from "./table.ts";

export type { EngineSettings, Subject } from "./active.ts";
export type { PrefixChanges, PrefixEntry } from "./cidr_identities.ts";
export type { Explanation, JudgedBy, RuleRef } from "./explain.ts";
export type { Namespaces } from "./namespaces.ts";
export type { PolicyService } from "./peer_sources.ts";
export type { CidrGroup } from "./read_cidr_group.ts";

/** A policy and what of it is in force. */
interface PolicyState {
  policy: Policy | undefined;
  /** those that select the subject */
  specs: readonly PolicySpec[];
  readonly rules: ActiveRules;
}

const OPEN = makeDecision(KIND_FORWARD, -1);
const CLOSED = makeDecision(KIND_NO_RULE, -1);
const AUDITED = makeDecision(auditKind(KIND_NO_RULE), -1);

export class PolicyEngine {
  #settings: EngineSettings | undefined;
  #subject: Subject | undefined;
  #subjectSets: SubjectSets = subjectSets({}, undefined);
  readonly #given = new GivenIdentities({
    put: (record) => {
      this.#rules.putRecord(record);
      this.#local.refreshIdentity(record.identity);
    },
    remove: (identity) => {
      this.#rules.removeRecord(identity);
      this.#local.refreshIdentity(identity);
    },
  });
  readonly #policies = new Map<string, PolicyState>();
  /** policies to look at again */
  readonly #dirty = new Set<string>();
  /** subject or settings changed: modes and implicit rules are to be looked at even without policies */
  #isAllDirty = true;

  readonly #sources = new PeerSources();
  /** policies with rules in force that name groups or services */
  readonly #sourceUsers = new Set<string>();
  readonly #local: LocalRecords = new LocalRecords({
    put: (record) => this.#rules.putRecord(record),
    remove: (identity) => this.#rules.removeRecord(identity),
    get: (identity) => this.#rules.record(identity),
  });
  readonly #names = new LearnedNames((address, patterns) => this.#local.setLearned(address, patterns));
  #nodeUses = 0;
  readonly #rules = new RulesInForce({
    usePrefix: (prefix) => this.#local.usePrefix(prefix),
    releasePrefix: (prefix) => this.#local.releasePrefix(prefix),
    usePattern: (pattern) => this.#names.usePattern(pattern),
    releasePattern: (pattern) => this.#names.releasePattern(pattern),
    useNodes: () => this.#local.setNodesMeant(++this.#nodeUses > 0),
    releaseNodes: () => this.#local.setNodesMeant(--this.#nodeUses > 0),
  });
  readonly #implicit: ActiveRules = new Map();
  readonly #selections = noSelections();
  #revision = 0;

  constructor() {
    for (const [identity, labels] of RESERVED_LABELS) {
      const prefix = identity === IDENTITY_WORLD_IPV4
        ? WORLD_IPV4
        : identity === IDENTITY_WORLD_IPV6
        ? WORLD_IPV6
        : undefined;
      this.#rules.putRecord(identityRecord(identity, labels, [], prefix));
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
    this.#settings = settings;
    this.#local.setMatching(standardMatching(settings.policy));
    this.#given.setCluster(settings.cluster);
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
    return this.#given.put(identity, labels, namedPorts);
  }

  removeIdentity(identity: number): void {
    this.#given.remove(identity);
  }

  /**
   * An address and the identity that the mesh gives it (a node's too: 1, 6, 7). Where the settings let prefixes match addresses
   * inside the cluster, each gets a local identity of its own, which `takePrefixes` reports and look-ups must use. Addresses inside
   * the mesh never match FQDN peers.
   */
  putAddress(address: IpAddress, identity: number): void {
    this.#local.putMesh(hostPrefix(address), identity);
  }

  removeAddress(address: IpAddress): void {
    this.#local.removeMesh(hostPrefix(address), "inside");
  }

  /** A whole prefix of the mesh with one identity: as `putAddress`. The longest prefix counts. */
  putPrefix(prefix: IpPrefix, identity: number): void {
    this.#local.putMesh(prefix, identity);
  }

  removePrefix(prefix: IpPrefix): void {
    this.#local.removeMesh(prefix, "inside");
  }

  /**
   * A prefix of the mesh whose identity is a world one: reached through the mesh, and outside all the same. It gets a local identity,
   * so that CIDR rules and learned names see its addresses.
   */
  putOutside(prefix: IpPrefix): void {
    this.#local.putMesh(prefix, IDENTITY_WORLD);
  }

  removeOutside(prefix: IpPrefix): void {
    this.#local.removeMesh(prefix, "outside");
  }

  /**
   * A node's address with its labels, for peers that are nodes (`fromNodes`). `removeAddress` takes it back.
   * @param labels plain keys, or with a source. The name of its cluster (`io.cilium.k8s.policy.cluster`) belongs to them: such peers
   *               mean nodes of the local cluster unless they say otherwise
   */
  putNode(address: IpAddress, identity: number, labels: Labels): void {
    this.#local.putMesh(hostPrefix(address), identity, withSource(labels, SOURCE_NODE));
  }

  /** Puts or replaces a CIDR group. Only policies with a rule that means it are bound again; so for services. */
  putCidrGroup(group: CidrGroup): void {
    this.#noteSource(this.#sources.putGroup(group));
  }

  removeCidrGroup(name: string): void {
    this.#noteSource(this.#sources.removeGroup(name));
  }

  /** @param key "<namespace>/<name>" */
  putService(key: string, service: PolicyService): void {
    this.#noteSource(this.#sources.putService(key, service));
  }

  removeService(key: string): void {
    this.#noteSource(this.#sources.removeService(key));
  }

  /**
   * What a name stands for now. Addresses that a pattern in force names get a local identity each, which `takePrefixes` reports.
   * @param name      as `canonicalName` of src/fqdn gives it
   * @param addresses all that are alive; none: the name is forgotten
   */
  putNames(name: string, addresses: readonly IpAddress[]): void {
    this.#names.put(name, addresses);
  }

  /** Current labels of the local cluster's namespaces: all of them. */
  setNamespaces(namespaces: Namespaces): void {
    const changed = this.#given.setNamespaces(namespaces);
    if (!changed.has(this.#given.namespaceOf(this.#subject?.labels ?? {}) ?? "")) return;
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
    return isFull || this.#rules.isStale ? this.#rules.makeUpdate(++this.#revision, isFull) : undefined;
  }

  /** The whole table, for a datapath that starts anew. Later updates follow it. `undefined` as for `takeUpdate`. */
  takeFullUpdate(): PolicyUpdate | undefined {
    return this.#resolve() ? this.#rules.makeUpdate(++this.#revision, true) : undefined;
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

  /** Identity that look-ups use for an address: of the mesh, learned for a name, of a prefix that rules mention, or the world's. */
  identityOfAddress(address: IpAddress): number {
    return this.#local.identityOf(address);
  }

  /** Patterns of the FQDN peers in force, sorted: names that they match are to be learned. Resolved as of the last update. */
  fqdnPatterns(): readonly string[] {
    return this.#names.patterns;
  }

  /** Proxies that rules in force need; that for DNS learns the names of FQDN peers as well. */
  get proxiesNeeded(): { readonly http: boolean; readonly dns: boolean } {
    return {
      http: this.#rules.needsProxy("http"),
      dns: this.#rules.needsProxy("dns") || this.#names.patterns.length > 0,
    };
  }

  /** What is in force: number of rules that select the subject, and identities known (reserved and prefixes among them). */
  get sizes(): { readonly rules: number; readonly identities: number; readonly policies: number } {
    return { rules: this.#rules.size, identities: this.#rules.identities, policies: this.#policies.size };
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
    return [...this.#rules.all()].map((rule) => rule.ref).sort((a, b) => a.index - b.index);
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
    const record = typeof other === "number" ? this.#rules.record(other) : this.#given.recordOf(0, other);
    const asksBaseline = this.#asksBaseline(direction);
    const rules = [...this.#rules.all()].filter(({ bound: { rule } }) =>
      rule.direction === direction && (asksBaseline || rule.tier !== TIER_BASELINE)
    );
    const why = explainFlow(rules, this.isEnforced(direction), record, protocol, port);
    const isDropped = why.verdict !== FORWARD && why.verdict !== REDIRECT;
    return isDropped && this.#isAudited ? { ...why, verdict: FORWARD, audited: why.verdict } : why;
  }

  /**
   * What a proxy judges a redirected flow by, as of the last update: one rule that matches is enough. Empty when the flow is not to be
   * redirected (any more): it is denied, no rule allows it, or a rule allows it without conditions.
   */
  l7RulesFor(direction: Direction, identity: number, protocol: number, port: number): readonly JudgedBy[] {
    if (this.#revision === 0) return [];
    return judgedBy(this.#rules.asked(direction, identity), makeKey(protocol, port));
  }

  // Resolution

  #refreshSubject(): void {
    const { labels = {}, nodeLabels } = this.#subject ?? {};
    this.#subjectSets = subjectSets(this.#given.currentLabels(labels), nodeLabels);
  }

  #dirtyAll(): void {
    this.#isAllDirty = true;
    for (const key of this.#policies.keys()) this.#dirty.add(key);
  }

  #noteSource(change: SourceChange | undefined): void {
    if (change === undefined) return;
    for (const key of this.#sourceUsers) {
      const specs = this.#policies.get(key)?.specs ?? [];
      if (specs.some(({ rules }) => rules.some((rule) => mentions(rule, change)))) this.#dirty.add(key);
    }
  }

  /** @returns false while there is nobody to resolve for */
  #resolve(): boolean {
    const settings = this.#settings;
    if (settings === undefined || this.#subject === undefined) return false;
    if (!this.#isAllDirty && this.#dirty.size === 0) return true;
    for (const key of this.#dirty) this.#reactivate(key);
    this.#dirty.clear();
    this.#replaceRules(LOCALHOST_POLICY, this.#implicit, implicitRules(this.#selections, settings.policy));
    for (const direction of [0, 1] as const) {
      const isEnforced = this.#isClosed(direction);
      const isAudited = this.#isAudited;
      const otherwise = isEnforced ? (isAudited ? AUDITED : CLOSED) : OPEN;
      const asksBaseline = this.#asksBaseline(direction);
      this.#rules.setDefaults(direction, { isEnforced, otherwise, isAudited, asksBaseline });
    }
    this.#isAllDirty = false;
    return true;
  }

  get #isAudited(): boolean {
    return this.#settings?.policy.auditMode === true;
  }

  #isClosed(direction: Direction): boolean {
    return isClosed(this.#closing(direction), this.#subjectSets, this.#settings!.policy);
  }

  #asksBaseline(direction: Direction): boolean {
    const settings = this.#settings?.policy;
    return settings === undefined ||
      isBaselineAsked(this.#closing(direction), this.#rules.hasPass(direction), settings);
  }

  #closing(direction: Direction): number {
    return direction === INGRESS ? this.#selections.closesIngress : this.#selections.closesEgress;
  }

  /** Brings what is in force of one policy up to date. */
  #reactivate(key: string): void {
    const state = this.#policies.get(key);
    if (state === undefined) return;
    const specs = state.policy === undefined
      ? []
      : selectingSpecs(state.policy, this.#subjectSets, this.#settings!.policy);
    for (const spec of state.specs) countSpec(this.#selections, spec, -1);
    for (const spec of specs) countSpec(this.#selections, spec, 1);
    state.specs = specs;
    const rules = specs.flatMap((spec) => spec.rules);
    if (rules.some(hasSources)) this.#sourceUsers.add(key);
    else this.#sourceUsers.delete(key);
    this.#replaceRules(key, state.rules, rules);
    if (state.policy === undefined) this.#policies.delete(key);
  }

  #replaceRules(key: string, active: ActiveRules, rules: readonly Rule[]): void {
    this.#rules.replace(key, active, rules, makeBinding(this.#settings!, this.#subject!.namedPorts, this.#sources));
  }
}
