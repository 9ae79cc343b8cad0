/**
 * Records of identities that exist on this node only: one for each prefix that rules in force mention, one for each address that was
 * learned for a name, and one for each prefix of the mesh that rules tell from others of its identity.
 *
 * A record is made anew whenever something that it is made of changes; whoever holds the records (the engine) is told. Each change
 * looks at the prefixes within the one that it is about, and at no others.
 */
import { formatPrefix, type IpAddress, type IpPrefix } from "../ip/address.ts";
import { type Labels, SOURCE_FQDN } from "../identity/labels.ts";
import { IDENTITY_WORLD, IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6 } from "../identity/reserved.ts";
import { PrefixTree } from "../ip/prefix_tree.ts";
import { CidrIdentities, type KnownPrefix, labelsOfPrefix, type PrefixChanges } from "./cidr_identities.ts";
import { type IdentityRecord, identityRecord, type Place } from "./identity_index.ts";
import type { CidrMatch } from "./model.ts";
import { labelSet } from "./selector.ts";

/** Where records go, and where those of the mesh come from. */
export interface RecordSink {
  put(record: IdentityRecord): void;
  remove(identity: number): void;
  get(identity: number): IdentityRecord | undefined;
}

/** A prefix that the mesh has an identity for: a member's or node's address, mostly. */
interface MeshPrefix {
  readonly prefix: IpPrefix;
  readonly identity: number;
  /** "node:<key>" -> value, of a node whose labels are known */
  readonly nodeLabels: Labels | undefined;
  /** it has a number of its own */
  isUsed: boolean;
}

export class LocalRecords {
  readonly #sink: RecordSink;
  readonly #cidrs = new CidrIdentities();
  readonly #mesh = new PrefixTree<MeshPrefix>();
  /** those with node labels */
  readonly #nodes = new Set<MeshPrefix>();
  /** prefixes of an identity; kept only while `#matching` names something */
  readonly #byIdentity = new Map<number, Set<MeshPrefix>>();
  /** patterns that name an address, by its text */
  readonly #learned = new Map<string, readonly string[]>();
  #matching: readonly CidrMatch[] = [];
  #areNodesMeant = false;

  constructor(sink: RecordSink) {
    this.#sink = sink;
  }

  // Prefixes of rules

  usePrefix(prefix: IpPrefix): void {
    const first = this.#cidrs.use(prefix);
    if (first !== undefined) this.#refresh(first);
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

  /** The identity that look-ups use for an address: that of the longest prefix around it, ours or the mesh's. */
  identityOf(address: IpAddress): number {
    const host = hostPrefix(address);
    const mesh = this.#mesh.longest(host);
    const isInside = mesh !== undefined && !isOutside(mesh);
    for (const { shown, prefix } of this.#cidrs.around(host)) {
      if (shown === undefined) continue;
      if (isInside && prefix.length < mesh.prefix.length) break;
      return shown.identity;
    }
    return isInside ? mesh.identity : address.length === 4 ? IDENTITY_WORLD_IPV4 : IDENTITY_WORLD_IPV6;
  }

  // Addresses that were learned for names

  /** @param patterns those in force that one of the address's names matches; none: it is forgotten */
  setLearned(address: IpAddress, patterns: readonly string[]): void {
    const prefix = hostPrefix(address);
    const text = formatPrefix(prefix);
    const isNew = !this.#learned.has(text);
    if (patterns.length === 0) {
      if (isNew) return;
      this.#learned.delete(text);
      this.releasePrefix(prefix);
    } else {
      this.#learned.set(text, patterns);
      if (isNew) this.#cidrs.use(prefix);
    }
    const known = this.#cidrs.get(prefix);
    if (known !== undefined) this.#refresh(known);
  }

  // The mesh's own prefixes

  /** Which addresses inside the cluster CIDR rules mean. */
  setMatching(matching: readonly CidrMatch[]): void {
    if (matching.join() === this.#matching.join()) return;
    this.#matching = matching;
    this.#byIdentity.clear();
    for (const mesh of this.#mesh.values()) {
      this.#remember(mesh);
      this.#refreshMesh(mesh);
    }
  }

  /** Whether rules in force look at node labels. */
  setNodesMeant(areMeant: boolean): void {
    if (areMeant === this.#areNodesMeant) return;
    this.#areNodesMeant = areMeant;
    for (const node of this.#nodes) this.#refreshMesh(node);
  }

  /** @param identity a world one: the prefix is of the mesh, and who is behind it is outside */
  putMesh(prefix: IpPrefix, identity: number, nodeLabels?: Labels): void {
    const before = this.#mesh.get(prefix);
    if (before !== undefined) {
      if (before.identity === identity && JSON.stringify(before.nodeLabels) === JSON.stringify(nodeLabels)) return;
      this.#forget(before);
    }
    const mesh: MeshPrefix = { prefix, identity, nodeLabels, isUsed: before?.isUsed ?? false };
    this.#mesh.set(prefix, mesh);
    if (nodeLabels !== undefined) this.#nodes.add(mesh);
    this.#remember(mesh);
    this.#refreshMesh(mesh);
  }

  /** @param place what it is: one that was put again as the other stays */
  removeMesh(prefix: IpPrefix, place: "inside" | "outside"): void {
    const mesh = this.#mesh.get(prefix);
    if (mesh === undefined || isOutside(mesh) !== (place === "outside")) return;
    this.#mesh.delete(prefix);
    this.#forget(mesh);
    if (mesh.isUsed) this.releasePrefix(prefix);
    this.#refreshWithin(prefix);
  }

  /** The identity's own record came, changed or went. */
  refreshIdentity(identity: number): void {
    for (const mesh of this.#byIdentity.get(identity) ?? []) this.#refreshMesh(mesh);
    if (!this.#areNodesMeant) return;
    for (const node of this.#nodes) if (node.identity === identity) this.#refreshMesh(node);
  }

  #remember(mesh: MeshPrefix): void {
    if (this.#matching.length === 0) return;
    const others = this.#byIdentity.get(mesh.identity);
    if (others === undefined) this.#byIdentity.set(mesh.identity, new Set([mesh]));
    else others.add(mesh);
  }

  #forget(mesh: MeshPrefix): void {
    this.#nodes.delete(mesh);
    const others = this.#byIdentity.get(mesh.identity);
    if (others?.delete(mesh) && others.size === 0) this.#byIdentity.delete(mesh.identity);
  }

  /** Gives it a number of its own, or takes it, and looks at every prefix in use within it again. */
  #refreshMesh(mesh: MeshPrefix): void {
    const isWanted = isOutside(mesh) || this.#recordWithin(mesh, mesh.prefix) !== undefined;
    if (isWanted && !mesh.isUsed) this.#cidrs.use(mesh.prefix);
    if (!isWanted && mesh.isUsed) this.releasePrefix(mesh.prefix);
    mesh.isUsed = isWanted;
    this.#refreshWithin(mesh.prefix);
  }

  #refreshWithin(prefix: IpPrefix): void {
    for (const known of this.#cidrs.within(prefix)) this.#refresh(known);
  }

  /** The record of its own that a prefix within one of the mesh gets; `undefined` where its identity's does. */
  #recordWithin(mesh: MeshPrefix, prefix: IpPrefix): Omit<IdentityRecord, "identity"> | undefined {
    if (isOutside(mesh)) return undefined;
    const isNodeMeant = this.#areNodesMeant && mesh.nodeLabels !== undefined;
    if (this.#matching.length === 0 && !isNodeMeant) return undefined;
    const base = this.#sink.get(mesh.identity);
    if (base === undefined) return undefined;
    const place: Place = NODE_LABELS.some((label) => label in base.set.labels) ? "node" : "pod";
    if (!isNodeMeant && !this.#matching.includes(place === "node" ? "nodes" : "pods")) return undefined;
    const set = isNodeMeant ? labelSet({ ...mesh.nodeLabels, ...base.set.labels }) : base.set;
    return { set, namedPorts: base.namedPorts, prefix, place };
  }

  /** Makes the record of a prefix in use, and says whether the ipcache should hold it. */
  #refresh(known: KnownPrefix): void {
    const { prefix, identity } = known;
    const mesh = this.#mesh.longest(prefix);
    if (mesh === undefined || isOutside(mesh)) {
      this.#sink.put(identityRecord(identity, this.#labelsOutside(prefix), [], prefix));
      this.#cidrs.show(known, undefined);
      return;
    }
    const record = this.#recordWithin(mesh, prefix);
    if (record === undefined) { // the mesh's entry counts
      this.#sink.remove(identity);
      this.#cidrs.hide(known);
      return;
    }
    this.#sink.put({ ...record, identity });
    this.#cidrs.show(known, mesh.identity);
  }

  #labelsOutside(prefix: IpPrefix): Labels {
    const labels: Record<string, string> = { ...labelsOfPrefix(prefix) };
    for (const pattern of this.#learned.get(formatPrefix(prefix)) ?? []) labels[`${SOURCE_FQDN}:${pattern}`] = "";
    return labels;
  }
}

const NODE_LABELS = ["reserved:host", "reserved:remote-node", "reserved:kube-apiserver"];
const WORLDS = [IDENTITY_WORLD, IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6];

function isOutside({ identity }: MeshPrefix): boolean {
  return WORLDS.includes(identity);
}

/** The prefix of one address. */
export function hostPrefix(address: IpAddress): IpPrefix {
  return { address: address.slice(), length: 8 * address.length };
}
