/**
 * Identities as the mesh gives them, with the labels that their namespaces have now. A record is made anew whenever its identity, a
 * namespace or the name of the local cluster changes.
 */
import type { Labels } from "../identity/labels.ts";
import { isWireIdentity } from "../identity/ranges.ts";
import { RESERVED_LABELS } from "../identity/reserved.ts";
import { type IdentityRecord, identityRecord } from "./identity_index.ts";
import type { NamedPort } from "./model.ts";
import { changedNamespaces, localNamespaceOf, type Namespaces, withNamespaceLabels } from "./namespaces.ts";

interface Given {
  readonly labels: Labels;
  readonly namedPorts: readonly NamedPort[];
}

export class GivenIdentities {
  readonly #sink: { put(record: IdentityRecord): void; remove(identity: number): void };
  readonly #given = new Map<number, Given>();
  #namespaces: Namespaces = new Map();
  #cluster = "";

  /** @param sink takes records that came or changed, and identities that are gone */
  constructor(sink: { put(record: IdentityRecord): void; remove(identity: number): void }) {
    this.#sink = sink;
  }

  /** @returns false for numbers that the mesh may not define: reserved ones, and those of a node's own scope */
  put(identity: number, labels: Labels, namedPorts: readonly NamedPort[]): boolean {
    if (!isWireIdentity(identity) || identity === 0 || RESERVED_LABELS.has(identity)) return false;
    this.#given.set(identity, { labels, namedPorts });
    this.#sink.put(this.recordOf(identity, labels, namedPorts));
    return true;
  }

  remove(identity: number): void {
    if (this.#given.delete(identity)) this.#sink.remove(identity);
  }

  /** The name of the local cluster: namespaces are its own. */
  setCluster(cluster: string): void {
    if (cluster === this.#cluster) return;
    this.#cluster = cluster;
    this.#renew(() => true);
  }

  /** @returns names of the namespaces whose labels changed */
  setNamespaces(namespaces: Namespaces): ReadonlySet<string> {
    const changed = changedNamespaces(this.#namespaces, namespaces);
    this.#namespaces = new Map(namespaces);
    if (changed.size > 0) this.#renew((labels) => changed.has(this.namespaceOf(labels) ?? ""));
    return changed;
  }

  /** Namespace of labels of the local cluster; `undefined` for all others. */
  namespaceOf(labels: Labels): string | undefined {
    return localNamespaceOf(labels, this.#cluster);
  }

  /** Labels with what their namespace has now. */
  currentLabels(labels: Labels): Labels {
    return withNamespaceLabels(labels, this.#namespaces, this.#cluster);
  }

  /** The record of an identity with these labels, known or not. */
  recordOf(identity: number, labels: Labels, namedPorts: readonly NamedPort[] = []): IdentityRecord {
    return identityRecord(identity, this.currentLabels(labels), namedPorts);
  }

  #renew(isMeant: (labels: Labels) => boolean): void {
    for (const [identity, { labels, namedPorts }] of this.#given) {
      if (isMeant(labels)) this.#sink.put(this.recordOf(identity, labels, namedPorts));
    }
  }
}
