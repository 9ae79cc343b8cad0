/**
 * Who is there, and which selectors pick whom. Both directions are indexed by labels, so that a new selector looks at few identities
 * and a new identity at few selectors: each selector is anchored at the condition that fewest identities meet.
 */
import { type IpPrefix, prefixContains } from "../ip/address.ts";
import { KEY_CLUSTER, KEY_NAMESPACE, KEY_SERVICE_ACCOUNT, type Labels } from "../identity/labels.ts";
import { IDENTITY_WORLD } from "../identity/reserved.ts";
import { PrefixTree } from "../ip/prefix_tree.ts";
import type { CidrMatch, NamedPort, Requirement } from "./model.ts";
import { type BoundSelector, type LabelSet, labelSet, matchesSelector } from "./selector.ts";

/** An identity, as far as policy cares. */
export interface IdentityRecord {
  readonly identity: number;
  readonly set: LabelSet;
  readonly namedPorts: readonly NamedPort[];
  /** the addresses it stands for, when it is one of addresses */
  readonly prefix: IpPrefix | undefined;
  /** whose addresses those are; outside when absent */
  readonly place?: Place;
}

/** Whose an address is: somebody's outside, a node's, a pod's (or member's). */
export type Place = "outside" | "node" | "pod";

export function identityRecord(
  identity: number,
  labels: Labels,
  namedPorts: readonly NamedPort[] = [],
  prefix?: IpPrefix,
): IdentityRecord {
  return { identity, set: labelSet(labels), namedPorts, prefix };
}

/** A peer of rules with every default filled in. */
export type BoundPeer =
  | { readonly kind: "selector"; readonly id: string; readonly selector: BoundSelector }
  | {
    readonly kind: "cidr";
    readonly id: string;
    readonly prefix: IpPrefix;
    readonly except: readonly IpPrefix[];
    /** addresses inside the cluster that it means as well */
    readonly matching: readonly CidrMatch[];
  };

/**
 * Whether a peer is meant. A prefix means outside addresses, and others where the settings say so: identities that carry labels of
 * their own are never inside, nor is an address in a hole. Identity 2 (world of a single-stack peer) stands for all of them, so only a prefix of length 0 holds it.
 */
export function matchesPeer(peer: BoundPeer, record: IdentityRecord): boolean {
  if (peer.kind === "selector") return matchesSelector(peer.selector, record.set);
  const inner = record.prefix;
  if (inner === undefined) return record.identity === IDENTITY_WORLD && peer.prefix.length === 0;
  if (record.place === "node" && !peer.matching.includes("nodes")) return false;
  if (record.place === "pod" && !peer.matching.includes("pods")) return false;
  return isWithin(inner, peer.prefix) && !peer.except.some((hole) => isWithin(inner, hole));
}

function isWithin(inner: IpPrefix, outer: IpPrefix): boolean {
  return inner.length >= outer.length && prefixContains(outer, inner.address);
}

/** A peer in use, with everyone it matches and what its user keeps with it. */
export interface PeerEntry<User> {
  readonly peer: BoundPeer;
  readonly matched: Set<IdentityRecord>;
  readonly users: Set<User>;
}

/** Identities with one key: all of them, by value. */
interface Posting {
  count: number;
  readonly byValue: Map<string, IdentityRecord[]>;
}

export class IdentityIndex<User> {
  readonly #records = new Map<number, IdentityRecord>();
  /** records of prefixes: one for each */
  readonly #byPrefix = new PrefixTree<IdentityRecord>();
  readonly #postings = new Map<string, Posting>();
  readonly #entries = new Map<string, PeerEntry<User>>();
  /** entries anchored at (key, value) */
  readonly #byValue = new Map<string, Map<string, Set<PeerEntry<User>>>>();
  /** entries anchored at the presence of a key */
  readonly #byKey = new Map<string, Set<PeerEntry<User>>>();
  /** entries with no positive condition */
  readonly #unanchored = new Set<PeerEntry<User>>();
  readonly #cidrs = new PrefixTree<Set<PeerEntry<User>>>();

  get(identity: number): IdentityRecord | undefined {
    return this.#records.get(identity);
  }

  get records(): Iterable<IdentityRecord> {
    return this.#records.values();
  }

  get size(): number {
    return this.#records.size;
  }

  /** Adds an identity that is not there. @returns the entries that match it */
  add(record: IdentityRecord): PeerEntry<User>[] {
    this.#records.set(record.identity, record);
    if (record.prefix !== undefined) this.#byPrefix.set(record.prefix, record);
    for (const [key, value] of record.set.pairs) this.#post(key, value, record);
    const entries = this.#entriesOf(record);
    for (const entry of entries) entry.matched.add(record);
    return entries;
  }

  /** Takes an identity out of everything. @returns what was removed */
  remove(identity: number): IdentityRecord | undefined {
    const record = this.#records.get(identity);
    if (record === undefined) return undefined;
    for (const entry of this.#entriesOf(record)) entry.matched.delete(record);
    for (const [key, value] of record.set.pairs) this.#unpost(key, value, record);
    if (record.prefix !== undefined) this.#byPrefix.delete(record.prefix);
    this.#records.delete(identity);
    return record;
  }

  /** The entry of a peer, made when nobody uses it yet. */
  use(peer: BoundPeer, user: User): PeerEntry<User> {
    let entry = this.#entries.get(peer.id);
    if (entry === undefined) {
      entry = { peer, matched: new Set(), users: new Set() };
      this.#entries.set(peer.id, entry);
      this.#anchor(entry);
      for (const candidates of this.#candidates(peer)) {
        for (const record of candidates) if (matchesPeer(peer, record)) entry.matched.add(record);
      }
    }
    entry.users.add(user);
    return entry;
  }

  /** Ends a use; an entry without users is forgotten. */
  release(entry: PeerEntry<User>, user: User): void {
    entry.users.delete(user);
    if (entry.users.size > 0) return;
    this.#entries.delete(entry.peer.id);
    for (const anchors of this.#anchorsOf(entry.peer)) anchors.delete(entry);
    if (entry.peer.kind === "cidr" && this.#cidrs.get(entry.peer.prefix)?.size === 0) {
      this.#cidrs.delete(entry.peer.prefix);
    }
  }

  #entriesOf(record: IdentityRecord): PeerEntry<User>[] {
    const found: PeerEntry<User>[] = [];
    const collect = (entries: Iterable<PeerEntry<User>> | undefined) => {
      if (entries === undefined) return;
      for (const entry of entries) if (matchesPeer(entry.peer, record) && !found.includes(entry)) found.push(entry);
    };
    for (const [key, value] of record.set.pairs) {
      collect(this.#byValue.get(key)?.get(value));
      collect(this.#byKey.get(key));
    }
    collect(this.#unanchored);
    for (const prefix of record.identity === IDENTITY_WORLD ? WHOLE_WORLD : [record.prefix]) {
      if (prefix !== undefined) { for (const entries of this.#cidrs.around(prefix)) collect(entries); }
    }
    return found;
  }

  // Postings

  #post(key: string, value: string, record: IdentityRecord): void {
    let posting = this.#postings.get(key);
    if (posting === undefined) this.#postings.set(key, posting = { count: 0, byValue: new Map() });
    posting.count++;
    const records = posting.byValue.get(value);
    if (records === undefined) posting.byValue.set(value, [record]);
    else records.push(record);
  }

  #unpost(key: string, value: string, record: IdentityRecord): void {
    const posting = this.#postings.get(key);
    const records = posting?.byValue.get(value);
    const at = records?.lastIndexOf(record) ?? -1;
    if (posting === undefined || records === undefined || at < 0) return;
    posting.count--;
    records[at] = records[records.length - 1]!;
    records.pop();
    if (records.length === 0) posting.byValue.delete(value);
    if (posting.count === 0) this.#postings.delete(key);
  }

  /** Lists that together hold everyone whom a peer can match. */
  #candidates(peer: BoundPeer): Iterable<Iterable<IdentityRecord>> {
    if (peer.kind === "cidr") {
      const world = peer.prefix.length === 0 ? this.#records.get(IDENTITY_WORLD) : undefined;
      return [this.#byPrefix.within(peer.prefix), world === undefined ? [] : [world]];
    }
    const anchor = this.#bestAnchor(peer.selector);
    if (anchor === undefined) return [this.#records.values()];
    const posting = this.#postings.get(anchor.key);
    if (posting === undefined) return [];
    if (anchor.operator === "Exists") return posting.byValue.values();
    return anchor.values.map((value) => posting.byValue.get(value) ?? []);
  }

  /** The positive condition that fewest identities meet; `undefined` when there is none. */
  #bestAnchor(selector: BoundSelector): Requirement | undefined {
    let best: Requirement | undefined;
    let bestCost = Infinity;
    for (const requirement of selector.requirements) {
      const cost = this.#costOf(requirement);
      if (cost < bestCost) [best, bestCost] = [requirement, cost];
    }
    return best;
  }

  #costOf(requirement: Requirement): number {
    const posting = this.#postings.get(requirement.key);
    const bias = COMMON_KEYS.includes(requirement.key) ? 0.5 : 0;
    if (requirement.operator === "Exists") return (posting?.count ?? 0) + bias + 0.25;
    if (requirement.operator !== "In") return Infinity;
    let count = bias;
    for (const value of requirement.values) count += posting?.byValue.get(value)?.length ?? 0;
    return count;
  }

  // Anchors. Chosen once: postings may change later, so the choice is remembered.

  readonly #chosen = new WeakMap<BoundPeer, Requirement>();

  #anchor(entry: PeerEntry<User>): void {
    if (entry.peer.kind === "selector") {
      const anchor = this.#bestAnchor(entry.peer.selector);
      if (anchor !== undefined) this.#chosen.set(entry.peer, anchor);
    }
    for (const anchors of this.#anchorsOf(entry.peer)) anchors.add(entry);
  }

  #anchorsOf(peer: BoundPeer): Set<PeerEntry<User>>[] {
    if (peer.kind === "cidr") {
      let entries = this.#cidrs.get(peer.prefix);
      if (entries === undefined) this.#cidrs.set(peer.prefix, entries = new Set());
      return [entries];
    }
    const anchor = this.#chosen.get(peer);
    if (anchor === undefined) return [this.#unanchored];
    if (anchor.operator === "Exists") return [setIn(this.#byKey, anchor.key)];
    let values = this.#byValue.get(anchor.key);
    if (values === undefined) this.#byValue.set(anchor.key, values = new Map());
    return anchor.values.map((value) => setIn(values, value));
  }
}

/** Keys that nearly every identity has: poor anchors when nothing is known yet. */
const COMMON_KEYS = [KEY_CLUSTER, KEY_NAMESPACE, KEY_SERVICE_ACCOUNT];

/** What identity 2 stands for. */
const WHOLE_WORLD: readonly IpPrefix[] = [{ address: new Uint8Array(4), length: 0 }, {
  address: new Uint8Array(16),
  length: 0,
}];

function setIn<T>(map: Map<string, Set<T>>, key: string): Set<T> {
  let set = map.get(key);
  if (set === undefined) map.set(key, set = new Set());
  return set;
}
