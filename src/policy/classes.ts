/**
 * Classes of one direction: identities that the same rules match share one, and it is compiled once. A class is found again by the
 * exclusive-or of its rules' hashes, so that adding a rule to a class or taking one out costs no sorting of keys.
 */
import { type CompiledRule, compileSegments, kindOfRule, precedenceOf, type Weight } from "./compile.ts";
import type { DirectionUpdate } from "./direction_table.ts";
import type { IdentityRecord } from "./identity_index.ts";
import { TIER_BASELINE } from "./model.ts";

/** A rule as it applies to identities: one for all, or one for each way its port names resolve. */
export interface Instance extends CompiledRule {
  /** order among equal precedence */
  readonly policy: string;
  readonly content: string;
  /** scattered over 32 bits */
  readonly hash: number;
  /** its rule is gone: it leaves the classes at the next flush */
  isDead: boolean;
  /** scratch of one look for a class */
  stamp: number;
}

/** Shared by updates that have nothing to say: most touch one direction only. */
const NO_INTEGERS = new Int32Array(0);
const NO_WORDS = new Uint32Array(0);

let instances = 0;
let stamps = 0;

/** What happens where no rule decides, and which rules are asked. */
export interface Defaults {
  readonly isEnforced: boolean;
  /** decision where no rule decides */
  readonly otherwise: number;
  /** deny rules only report */
  readonly isAudited: boolean;
  /** rules of the baseline tier are asked */
  readonly asksBaseline: boolean;
}

export function makeInstance(
  from: { index: number; weight: Weight; policy: string; content: string },
  ranges: Uint32Array,
): Instance {
  return {
    index: from.index,
    tier: from.weight.tier,
    precedence: precedenceOf(from.weight),
    verdict: from.weight.verdict,
    kind: kindOfRule(from.weight),
    ranges,
    policy: from.policy,
    content: from.content,
    hash: scatter(++instances),
    isDead: false,
    stamp: 0,
  };
}

/** Precedence, then an order that does not depend on when a rule came. */
function compareInstances(a: Instance, b: Instance): number {
  if (a.precedence !== b.precedence) return a.precedence - b.precedence;
  if (a.policy !== b.policy) return a.policy < b.policy ? -1 : 1;
  return a.content < b.content ? -1 : a.content > b.content ? 1 : 0;
}

interface Class {
  readonly number: number;
  readonly hash: number;
  /** sorted; without those that match everybody */
  readonly rules: readonly Instance[];
  /** identities that have it */
  uses: number;
}

export class Classes {
  /** rules that match everybody, sorted */
  #everybody: Instance[] = [];
  #defaults: Defaults;
  /** the class of identities that no other rule matches, known or not; number 0 */
  readonly #base: Class = { number: 0, hash: 0, rules: [], uses: 0 };
  readonly #byHash = new Map<number, Class[]>();
  readonly #classOf = new Map<IdentityRecord, Class>();
  readonly #free: number[] = [];
  #nextNumber = 1;

  // What the next flush has to do
  readonly #added = new Map<IdentityRecord, Instance[]>();
  readonly #removed: IdentityRecord[] = [];
  readonly #fresh = new Set<Class>();
  #isAllStale = true;

  /** @param otherwise decision where no rule decides, until `setDefaults` */
  constructor(otherwise: number) {
    this.#defaults = { isEnforced: false, otherwise, isAudited: false, asksBaseline: true };
  }

  setDefaults(defaults: Defaults): void {
    const { isEnforced, otherwise, isAudited, asksBaseline } = this.#defaults;
    if (
      defaults.isEnforced !== isEnforced || defaults.otherwise !== otherwise || defaults.isAudited !== isAudited ||
      defaults.asksBaseline !== asksBaseline
    ) this.#isAllStale = true;
    this.#defaults = defaults;
  }

  addForEverybody(instance: Instance): void {
    this.#everybody.push(instance);
    this.#isAllStale = true;
  }

  /** Some rule for everybody was marked dead. */
  touchEverybody(): void {
    this.#isAllStale = true;
  }

  /** One more rule matches an identity. The same one twice is one. */
  add(record: IdentityRecord, instance: Instance): void {
    const list = this.#added.get(record);
    if (list === undefined) this.#added.set(record, [instance]);
    else list.push(instance);
  }

  /** Some rule of this identity was marked dead. */
  touch(record: IdentityRecord): void {
    if (!this.#added.has(record)) this.#added.set(record, []);
  }

  /** An identity is gone. */
  drop(record: IdentityRecord): void {
    this.#added.delete(record);
    if (this.#classOf.has(record)) this.#removed.push(record);
  }

  /** Whether there is anything to tell. */
  get isStale(): boolean {
    return this.#isAllStale || this.#added.size > 0 || this.#removed.length > 0;
  }

  /** Classes and their identities now, for a table that follows the last flush (or a new one). */
  flush(isFull: boolean): DirectionUpdate {
    const identities: number[] = [];
    const left: Class[] = [];
    for (const record of this.#removed) {
      this.#leave(record, left);
      identities.push(record.identity, 0);
    }
    for (const [record, added] of this.#added) {
      const before = this.#classOf.get(record) ?? this.#base;
      const after = this.#intern(before, added);
      if (after === before) continue;
      this.#leave(record, left);
      if (after !== this.#base) {
        this.#classOf.set(record, after);
        after.uses++;
      }
      identities.push(record.identity, after.number);
    }
    this.#removed.length = 0;
    this.#added.clear();
    const freed = this.#forgetUnused(left);
    return this.#emit(isFull, isFull ? this.#allIdentities() : identities, freed);
  }

  #leave(record: IdentityRecord, left: Class[]): void {
    const before = this.#classOf.get(record);
    if (before === undefined) return;
    this.#classOf.delete(record);
    if (--before.uses === 0) left.push(before);
  }

  /** The class with what is left of a class's rules, and more. Rules are sorted only for a class that is new. */
  #intern(from: Class, added: readonly Instance[]): Class {
    const stamp = ++stamps;
    let hash = 0;
    const rules: Instance[] = [];
    for (const list of [from.rules, added]) {
      for (const rule of list) {
        if (rule.isDead || rule.stamp === stamp) continue;
        rule.stamp = stamp;
        rules.push(rule);
        hash ^= rule.hash;
      }
    }
    if (rules.length === 0) return this.#base;
    const candidates = this.#byHash.get(hash);
    const found = candidates?.find((one) => one.rules.length === rules.length && isStamped(one.rules, stamp));
    if (found !== undefined) return found;
    rules.sort(compareInstances);
    const made: Class = { number: this.#free.pop() ?? this.#nextNumber++, hash, rules, uses: 0 };
    if (candidates === undefined) this.#byHash.set(hash, [made]);
    else candidates.push(made);
    this.#fresh.add(made);
    return made;
  }

  /** @returns numbers of classes that a table may know */
  #forgetUnused(left: readonly Class[]): number[] {
    const freed: number[] = [];
    for (const one of left) {
      if (one.uses > 0 || !this.#forget(one)) continue;
      if (!this.#fresh.delete(one)) freed.push(one.number);
      this.#free.push(one.number);
    }
    return freed;
  }

  #forget(one: Class): boolean {
    const candidates = this.#byHash.get(one.hash);
    const at = candidates?.indexOf(one) ?? -1;
    if (candidates === undefined || at < 0) return false;
    candidates.splice(at, 1);
    if (candidates.length === 0) this.#byHash.delete(one.hash);
    return true;
  }

  #allIdentities(): number[] {
    const identities: number[] = [];
    for (const [record, one] of this.#classOf) identities.push(record.identity, one.number);
    return identities;
  }

  *#allClasses(): Iterable<Class> {
    yield this.#base;
    for (const candidates of this.#byHash.values()) yield* candidates;
  }

  #emit(isFull: boolean, identities: number[], freed: readonly number[]): DirectionUpdate {
    const classes: number[] = [];
    if (!isFull) { for (const number of freed) classes.push(number, 0); }
    if (this.#isAllStale) this.#everybody = this.#everybody.filter((rule) => !rule.isDead).sort(compareInstances);
    const segments: number[] = [];
    for (const one of isFull || this.#isAllStale ? this.#allClasses() : this.#fresh) {
      const compiled = compileSegments(this.#rulesOf(one), this.#defaults.otherwise, this.#defaults.isAudited);
      classes.push(one.number, compiled.length / 2);
      for (const word of compiled) segments.push(word);
    }
    this.#fresh.clear();
    this.#isAllStale = false;
    return {
      isEnforced: this.#defaults.isEnforced,
      identities: identities.length === 0 ? NO_INTEGERS : Int32Array.from(identities),
      classes: classes.length === 0 ? NO_INTEGERS : Int32Array.from(classes),
      segments: segments.length === 0 ? NO_WORDS : Uint32Array.from(segments),
    };
  }

  /**
   * The rules that are asked about an identity, strongest first, as of the last flush.
   * @param record `undefined`: an identity that nobody knows
   */
  rulesFor(record: IdentityRecord | undefined): readonly Instance[] {
    return this.#rulesOf((record && this.#classOf.get(record)) ?? this.#base).filter((rule) => !rule.isDead);
  }

  /** Sorted: the rules for everybody and the class's own. */
  #rulesOf(one: Class): readonly Instance[] {
    const all = this.#everybody.length === 0 ? one.rules : [...this.#everybody, ...one.rules].sort(compareInstances);
    return this.#defaults.asksBaseline ? all : all.filter(({ tier }) => tier !== TIER_BASELINE);
  }
}

function isStamped(rules: readonly Instance[], stamp: number): boolean {
  for (let i = 0; i < rules.length; i++) if (rules[i]!.stamp !== stamp) return false;
  return true;
}

/** Spreads a counter over 32 bits (the finalizer of MurmurHash3), so that exclusive-ors of few seldom meet. */
function scatter(counter: number): number {
  let x = Math.imul(counter, 0x9e3779b1);
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
