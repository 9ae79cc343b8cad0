/**
 * The rules that hold for the subject, and everybody they are about: joins the index of identities to the classes that the table is
 * made of. A rule that comes or goes touches the identities that it matches, an identity the rules that match it.
 */
import type { IpPrefix } from "../ip/address.ts";
import { ActiveRule, type RulePart } from "./active_rule.ts";
import { type Binding, bindRule, type BoundRule } from "./bind.ts";
import { Classes, type Defaults } from "./classes.ts";
import { KIND_FORWARD, makeDecision } from "./decision.ts";
import { IdentityIndex, type IdentityRecord } from "./identity_index.ts";
import type { Direction, L7Rules, Rule } from "./model.ts";
import { RuleNumbers } from "./rule_numbers.ts";
import type { PolicyUpdate } from "./table.ts";

/** Who keeps what only exists while some rule speaks of it. */
export interface PeerUses {
  usePrefix(prefix: IpPrefix): void;
  releasePrefix(prefix: IpPrefix): void;
  /** a pattern of FQDN peers */
  usePattern(pattern: string): void;
  releasePattern(pattern: string): void;
  /** peers that are nodes by their labels */
  useNodes(): void;
  releaseNodes(): void;
}

/** The rules of one policy that are in force, by their content. */
export type ActiveRules = Map<string, ActiveRule>;

const OPEN = makeDecision(KIND_FORWARD, -1);

export class RulesInForce {
  readonly #uses: PeerUses;
  readonly #index = new IdentityIndex<RulePart>();
  readonly #classes: readonly [Classes, Classes] = [new Classes(OPEN), new Classes(OPEN)];
  readonly #numbers = new RuleNumbers();
  readonly #rules = new Map<number, ActiveRule>();
  /** pass rules of each direction */
  readonly #passes: [ingress: number, egress: number] = [0, 0];
  /** rules that each proxy completes */
  readonly #proxied: Record<L7Rules["kind"], number> = { http: 0, dns: 0 };

  constructor(uses: PeerUses) {
    this.#uses = uses;
  }

  // Identities

  record(identity: number): IdentityRecord | undefined {
    return this.#index.get(identity);
  }

  get identities(): number {
    return this.#index.size;
  }

  /** Puts or replaces the record of its identity. */
  putRecord(record: IdentityRecord): void {
    const before = this.#index.get(record.identity);
    if (before !== undefined && isSameRecord(before, record)) return;
    this.removeRecord(record.identity);
    for (const entry of this.#index.add(record)) {
      for (const part of entry.users) this.#join(part, record);
    }
  }

  removeRecord(identity: number): void {
    const record = this.#index.remove(identity);
    if (record !== undefined) { for (const classes of this.#classes) classes.drop(record); }
  }

  // Rules

  get size(): number {
    return this.#rules.size;
  }

  /** By its index in the table. */
  get(index: number): ActiveRule | undefined {
    return this.#rules.get(index);
  }

  all(): Iterable<ActiveRule> {
    return this.#rules.values();
  }

  /** Whether any rule of a direction passes on to the next tier. */
  hasPass(direction: Direction): boolean {
    return this.#passes[direction] > 0;
  }

  /** Whether any rule is completed by a proxy of a kind. */
  needsProxy(kind: L7Rules["kind"]): boolean {
    return this.#proxied[kind] > 0;
  }

  /**
   * Rules of a direction that are asked about an identity, strongest first, each with the ranges of keys that it has there. As of the
   * last update.
   */
  asked(direction: Direction, identity: number): { readonly rule: ActiveRule; readonly ranges: Uint32Array }[] {
    return this.#classes[direction].rulesFor(this.#index.get(identity)).flatMap(({ index, ranges }) => {
      const rule = this.#rules.get(index);
      return rule === undefined ? [] : [{ rule, ranges }];
    });
  }

  /** Rules of the same content stay as they are; new ones come before old ones go, so that shared prefixes keep their identity. */
  replace(key: string, active: ActiveRules, rules: readonly Rule[], binding: Binding): void {
    if (rules.length === 0 && active.size === 0) return;
    const wanted = new Map<string, BoundRule>();
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
    this.#count(bound.rule, 1);
    for (const prefix of prefixesOf(bound)) this.#uses.usePrefix(prefix);
    for (const peer of bound.rule.peers ?? []) {
      if (peer.kind === "fqdn") this.#uses.usePattern(peer.pattern);
      if (peer.kind === "node") this.#uses.useNodes();
    }
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
    const { bound, ref } = rule;
    rule.kill();
    this.#rules.delete(ref.index);
    this.#numbers.give(ref.index);
    this.#count(bound.rule, -1);
    for (const part of rule.parts) {
      if (part.peers === undefined) this.#classesOf(part).touchEverybody();
      for (const entry of part.entries) {
        for (const record of entry.matched) this.#classesOf(part).touch(record);
        this.#index.release(entry, part);
      }
    }
    for (const prefix of prefixesOf(bound)) this.#uses.releasePrefix(prefix);
    for (const peer of bound.rule.peers ?? []) {
      if (peer.kind === "fqdn") this.#uses.releasePattern(peer.pattern);
      if (peer.kind === "node") this.#uses.releaseNodes();
    }
  }

  #count({ verdict, direction, l7 }: Rule, step: number): void {
    if (verdict === "pass") this.#passes[direction] += step;
    if (l7 !== undefined) this.#proxied[l7.kind] += step;
  }

  #join(part: RulePart, record: IdentityRecord): void {
    const instance = part.owner.instanceFor(part, record);
    if (instance !== undefined) this.#classesOf(part).add(record, instance);
  }

  #classesOf(part: RulePart): Classes {
    return this.#classes[part.owner.bound.rule.direction];
  }

  // The table

  setDefaults(direction: Direction, defaults: Defaults): void {
    this.#classes[direction].setDefaults(defaults);
  }

  /** Whether there is anything to tell. */
  get isStale(): boolean {
    return this.#classes[0].isStale || this.#classes[1].isStale;
  }

  makeUpdate(revision: number, isFull: boolean): PolicyUpdate {
    return {
      revision,
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
function isSameRecord(a: IdentityRecord, b: IdentityRecord): boolean {
  const names = Object.keys(b.set.labels);
  return names.length === a.set.pairs.length && names.every((name) => a.set.labels[name] === b.set.labels[name]) &&
    a.place === b.place && JSON.stringify(a.namedPorts) === JSON.stringify(b.namedPorts);
}
