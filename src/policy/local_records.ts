/**
 * Records of identities that exist on this node only: one for each prefix that rules in force mention, and one for each address that
 * needs a record of its own because rules tell it from others of its identity.
 *
 * A record is made anew whenever something that it is made of changes; whoever holds the records (the engine) is told.
 */
import { formatPrefix, type IpAddress, type IpPrefix } from "../ip/address.ts";
import { CidrIdentities, labelsOfPrefix, type PrefixChanges } from "./cidr_identities.ts";
import { type IdentityRecord, identityRecord, type Place } from "./identity_index.ts";
import type { CidrMatch } from "./model.ts";

/** Where records go, and where those of the mesh come from. */
export interface RecordSink {
  put(record: IdentityRecord): void;
  remove(identity: number): void;
  get(identity: number): IdentityRecord | undefined;
}

/** An address of the mesh, or of a node. */
interface Inside {
  readonly prefix: IpPrefix;
  readonly identity: number;
  /** it has a record of its own */
  isUsed: boolean;
}

export class LocalRecords {
  readonly #sink: RecordSink;
  readonly #cidrs = new CidrIdentities();
  readonly #inside = new Map<string, Inside>();
  /** texts of the addresses of an identity */
  readonly #byIdentity = new Map<number, Set<string>>();
  #matching: readonly CidrMatch[] = [];

  constructor(sink: RecordSink) {
    this.#sink = sink;
  }

  // Prefixes of rules

  usePrefix(prefix: IpPrefix): void {
    if (this.#cidrs.use(prefix) !== undefined) this.#refresh(prefix);
  }

  releasePrefix(prefix: IpPrefix): void {
    const identity = this.#cidrs.release(prefix);
    if (identity !== undefined) this.#sink.remove(identity);
  }

  takeChanges(): PrefixChanges {
    return this.#cidrs.takeChanges();
  }

  all(): PrefixChanges["put"] {
    return this.#cidrs.all();
  }

  /** The identity that look-ups use for an address: its own, else the mesh's, else that of the longest prefix around it. */
  identityOf(address: IpAddress): number {
    const inside = this.#inside.get(formatPrefix(hostPrefix(address)));
    return inside !== undefined && !inside.isUsed ? inside.identity : this.#cidrs.identityOf(address);
  }

  // Addresses inside the mesh

  /** Which addresses inside the cluster CIDR rules mean. */
  setMatching(matching: readonly CidrMatch[]): void {
    if (matching.join() === this.#matching.join()) return;
    this.#matching = matching;
    for (const inside of this.#inside.values()) this.#refreshInside(inside);
  }

  putAddress(address: IpAddress, identity: number): void {
    const prefix = hostPrefix(address);
    const text = formatPrefix(prefix);
    const before = this.#inside.get(text);
    if (before?.identity === identity) return;
    if (before !== undefined) this.removeAddress(address);
    const inside: Inside = { prefix, identity, isUsed: false };
    this.#inside.set(text, inside);
    const texts = this.#byIdentity.get(identity);
    if (texts === undefined) this.#byIdentity.set(identity, new Set([text]));
    else texts.add(text);
    this.#refreshInside(inside);
  }

  removeAddress(address: IpAddress): void {
    const text = formatPrefix(hostPrefix(address));
    const inside = this.#inside.get(text);
    if (inside === undefined) return;
    this.#inside.delete(text);
    const texts = this.#byIdentity.get(inside.identity)!;
    texts.delete(text);
    if (texts.size === 0) this.#byIdentity.delete(inside.identity);
    this.#useInside(inside, false);
    this.#refresh(inside.prefix);
  }

  /** The identity's own record came, changed or went. */
  refreshIdentity(identity: number): void {
    if (this.#matching.length === 0) return;
    for (const text of this.#byIdentity.get(identity) ?? []) this.#refreshInside(this.#inside.get(text)!);
  }

  #refreshInside(inside: Inside): void {
    this.#useInside(inside, this.#recordInside(inside) !== undefined);
    this.#refresh(inside.prefix);
  }

  #useInside(inside: Inside, isWanted: boolean): void {
    if (inside.isUsed === isWanted) return;
    inside.isUsed = isWanted;
    if (isWanted) this.#cidrs.use(inside.prefix);
    else this.releasePrefix(inside.prefix);
  }

  /** The record that an address inside gets of its own; `undefined` where its identity's does. */
  #recordInside({ identity, prefix }: Inside): Omit<IdentityRecord, "identity"> | undefined {
    if (this.#matching.length === 0) return undefined;
    const base = this.#sink.get(identity);
    if (base === undefined) return undefined;
    const place: Place = NODE_LABELS.some((label) => label in base.set.labels) ? "node" : "pod";
    return this.#matching.includes(place === "node" ? "nodes" : "pods") ? { ...base, prefix, place } : undefined;
  }

  /** Makes the record of a prefix in use. */
  #refresh(prefix: IpPrefix): void {
    const identity = this.#cidrs.identityOfPrefix(prefix);
    if (identity === undefined) return;
    const inside = this.#inside.get(formatPrefix(prefix));
    const record = inside && this.#recordInside(inside);
    this.#sink.put(
      record === undefined ? identityRecord(identity, labelsOfPrefix(prefix), [], prefix) : { ...record, identity },
    );
  }
}

const NODE_LABELS = ["reserved:host", "reserved:remote-node", "reserved:kube-apiserver"];

function hostPrefix(address: IpAddress): IpPrefix {
  return { address: address.slice(), length: 8 * address.length };
}
