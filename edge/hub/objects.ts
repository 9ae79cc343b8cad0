/**
 * Kubernetes objects that the hub keeps and hands out: policies, the CIDR groups and services that they refer to, and namespaces.
 * All documents of one `apply` are read before anything is stored, and stored in one transaction.
 *
 * Labels of a namespace are part of the identity of its members: a change gives them other identities in the same transaction.
 */
import type { JsonObject } from "../../src/hub/json.ts";
import {
  CIDR_GROUPS_PREFIX,
  ENDPOINT_SLICES_PREFIX,
  NAMESPACES_PREFIX,
  POLICIES_PREFIX,
  SERVICES_PREFIX,
  writeRow,
} from "../../src/hub/records.ts";
import type { ServiceEntry } from "../../src/mesh/entries.ts";
import { isNamespaced } from "../kinds.ts";
import { featuresFor } from "../regex_features.ts";
import type { HubCore } from "./core.ts";
import type { FrameEntry } from "./frames.ts";
import {
  type Accepted,
  CIDR_GROUP,
  ENDPOINT_SLICE,
  itemsOf,
  keyOfObject,
  NAMESPACE,
  objectText,
  readObject,
  SERVICE,
} from "./read_objects.ts";
import { changedServices, serviceFault, servicesWithout } from "./service_changes.ts";
import type { AppliedObject, ApplyFault, ObjectName } from "../sync/admin_messages.ts";
import type { ApplyResult, DeletePreview } from "./state_types.ts";
import type { StoreOp } from "./store.ts";

/** Objects of one `apply`. */
const MAX_OBJECTS = 10_000;
/** Objects of a kind that all members are sent. */
const MOST: Readonly<Record<string, number>> = { [CIDR_GROUP]: 1000, [SERVICE]: 10_000, [ENDPOINT_SLICE]: 20_000 };

export class HubObjects {
  readonly #core: HubCore;

  constructor(core: HubCore) {
    this.#core = core;
  }

  /** See `HubState.apply`. */
  async apply(documents: readonly unknown[], isDryRun: boolean): Promise<ApplyResult> {
    const accepted: Accepted[] = [];
    const errors: ApplyFault[] = [];
    const keys = new Set<string>();
    if (documents.length > MAX_OBJECTS) {
      return { errors: [{ index: 0, object: "", message: `more than ${MAX_OBJECTS} documents at once` }] };
    }
    const rules = {
      features: await featuresFor(documents),
      hostFirewall: this.#core.settings.policy.hostFirewall === true,
    };
    documents.forEach((document, index) => {
      for (const item of itemsOf(document)) {
        const read = readObject(item, rules);
        if ("accepted" in read) {
          const { kind, namespace, name, key } = read.accepted;
          const object = objectText(kind, namespace, name);
          if (keys.has(key)) errors.push({ index, object, message: "it is there twice" });
          keys.add(key);
          accepted.push(read.accepted);
        } else for (const message of read.messages) errors.push({ index, object: read.object, message });
      }
    });
    if (errors.length > 0) return { errors };
    return await this.#core.exclusive(() => this.#store(accepted, isDryRun));
  }

  async #store(objects: readonly Accepted[], isDryRun: boolean): Promise<ApplyResult> {
    const applied: AppliedObject[] = [];
    const ops: StoreOp[] = [];
    const changed: Accepted[] = [];
    const namespaces = new Map<string, Readonly<Record<string, string>>>();
    for (const object of objects) {
      const { kind, namespace, name, key, document } = object;
      const old = this.#storedAt(key);
      const isSame = old !== undefined && JSON.stringify(old) === JSON.stringify(document);
      applied.push({ kind, namespace, name, action: isSame ? "unchanged" : old ? "configured" : "created" });
      if (isSame) continue;
      changed.push(object);
      ops.push({ op: "put", key, value: writeRow(document) });
      if (kind === NAMESPACE) namespaces.set(name, labelsIn(document));
    }
    const { options } = this.#core;
    const services = changedServices(this.#core.model, changed);
    const relabelled = this.#relabel(namespaces);
    const fault = relabelled === undefined
      ? "the cluster has no free identity"
      : this.#countFault(applied) ?? serviceFault(services);
    if (relabelled === undefined || fault !== undefined) {
      return { errors: [{ index: 0, object: "", message: fault ?? "" }] };
    }
    // identities first, members last: whoever follows the store sees a label before who has it
    if (!isDryRun && ops.length > 0) {
      await this.#core.commit([], [...relabelled.identities, ...ops, ...relabelled.members]);
    }
    const puts = isDryRun ? entriesOf(changed, services) : [];
    return { applied, revision: options.store.revision, ...(isDryRun && { puts }) };
  }

  /** Why there would be too many objects of a kind. */
  #countFault(applied: readonly AppliedObject[]): string | undefined {
    const { cidrGroups, services, endpointSlices } = this.#core.model;
    const sizes: Readonly<Record<string, number>> = {
      [CIDR_GROUP]: cidrGroups.size,
      [SERVICE]: services.size,
      [ENDPOINT_SLICE]: endpointSlices.size,
    };
    for (const [kind, most] of Object.entries(MOST)) {
      const created = applied.filter((object) => object.kind === kind && object.action === "created").length;
      if (created > 0 && sizes[kind]! + created > most) {
        return `there would be more than ${most} objects of kind ${kind}`;
      }
    }
    return undefined;
  }

  /** Members of namespaces whose labels change, with the identities that they get. */
  #relabel(
    namespaces: ReadonlyMap<string, Readonly<Record<string, string>>>,
  ): { readonly identities: StoreOp[]; readonly members: StoreOp[] } | undefined {
    const identities = new Map<string, StoreOp>();
    const given = new Map<string, number>();
    const members: StoreOp[] = [];
    for (const row of this.#core.model.members.values()) {
      const labels = namespaces.get(row.namespace);
      if (labels === undefined) continue;
      const wanted = this.#core.labelsOf(row, labels);
      const text = JSON.stringify(Object.entries(wanted).sort());
      let identity = given.get(text);
      if (identity === undefined) {
        const taken = new Set(given.values());
        const found = this.#core.identityFor(wanted, (n) => taken.has(n));
        if (found === undefined) return undefined;
        for (const op of found.ops) identities.set(op.key, op);
        identity = found.identity;
        given.set(text, identity);
      }
      if (identity !== row.identity) members.push(...this.#core.storeMember(this.#core.sign({ ...row, identity })));
    }
    return { identities: [...identities.values()], members };
  }

  #storedAt(key: string): JsonObject | undefined {
    const { model } = this.#core;
    if (key.startsWith(NAMESPACES_PREFIX)) return model.namespaces.get(key.slice(NAMESPACES_PREFIX.length));
    if (key.startsWith(CIDR_GROUPS_PREFIX)) return model.cidrGroups.get(key.slice(CIDR_GROUPS_PREFIX.length));
    if (key.startsWith(SERVICES_PREFIX)) return model.services.get(key.slice(SERVICES_PREFIX.length))?.document;
    if (key.startsWith(ENDPOINT_SLICES_PREFIX)) {
      return model.endpointSlices.get(key.slice(ENDPOINT_SLICES_PREFIX.length))?.document;
    }
    return model.policies.get(key.slice(POLICIES_PREFIX.length))?.document;
  }

  /** The documents as they were applied, by kind, namespace and name. */
  get(kind: string | undefined, namespace: string | undefined): JsonObject[] {
    const { model } = this.#core;
    const found: [key: string, document: JsonObject][] = [];
    for (const [name, document] of model.namespaces) found.push([`${NAMESPACE}//${name}`, document]);
    for (const [name, document] of model.cidrGroups) found.push([`${CIDR_GROUP}//${name}`, document]);
    for (const [key, { document }] of model.services) found.push([`${SERVICE}/${key}`, document]);
    for (const [key, { document }] of model.endpointSlices) found.push([`${ENDPOINT_SLICE}/${key}`, document]);
    for (const [key, { document }] of model.policies) found.push([key, document]);
    const wanted = found.filter(([key]) => {
      const [ofKind, ofNamespace] = key.split("/");
      return (kind === undefined || kind === ofKind) && (namespace === undefined || namespace === ofNamespace);
    });
    return wanted.sort(([a], [b]) => a < b ? -1 : 1).map(([, document]) => document);
  }

  /** What members would be sent, were these deleted; not that a namespace gives its members other identities. */
  previewDelete(objects: readonly ObjectName[]): DeletePreview {
    const { model } = this.#core;
    const keyOf = ({ kind, namespace, name }: ObjectName) =>
      keyOfObject(kind, isNamespaced(kind) ? namespace : "", name);
    const missing = objects.filter((object) => model.revisionOf(keyOf(object)) === 0);
    const found = objects.filter((object) => !missing.includes(object));
    const deletes = found.filter(({ kind }) => kind !== NAMESPACE && kind !== ENDPOINT_SLICE).map(entryKeyOf);
    const services = servicesWithout(model, found.filter(({ kind }) => kind === ENDPOINT_SLICE));
    const puts = [...services].map(([name, entry]) => [`service/${name}`, entry] as const);
    return { missing, puts: puts.filter(([key]) => !deletes.includes(key)), deletes };
  }

  /** @returns false when there is no such object */
  async delete(kind: string, namespace: string, name: string): Promise<boolean> {
    const key = keyOfObject(kind, isNamespaced(kind) ? namespace : "", name);
    return await this.#core.exclusive(async () => {
      if (this.#core.model.revisionOf(key) === 0) return false;
      const relabelled = kind === NAMESPACE ? this.#relabel(new Map([[name, {}]])) : { identities: [], members: [] };
      if (relabelled === undefined) {
        throw new RangeError("Cannot delete the namespace: the cluster has no free identity");
      }
      return await this.#core.commit([], [...relabelled.identities, { op: "delete", key }, ...relabelled.members]);
    });
  }
}

function labelsIn(document: JsonObject): Readonly<Record<string, string>> {
  const metadata = document["metadata"] as { labels?: Record<string, string> } | undefined;
  return metadata?.labels ?? {};
}

function entryKeyOf({ kind, namespace, name }: ObjectName): string {
  if (kind === CIDR_GROUP) return `cidrgroup/${name}`;
  if (kind === SERVICE) return `service/${namespace}/${name}`;
  return `policy/${kind}/${isNamespaced(kind) ? namespace : ""}/${name}`;
}

/** What members would be sent: not that namespaces give their members other identities. */
function entriesOf(objects: readonly Accepted[], services: ReadonlyMap<string, ServiceEntry>): FrameEntry[] {
  const entries: FrameEntry[] = [];
  for (const { kind, namespace, name, document } of objects) {
    if (kind === CIDR_GROUP) entries.push([`cidrgroup/${name}`, document]);
    else if (![NAMESPACE, SERVICE, ENDPOINT_SLICE].includes(kind)) {
      entries.push([`policy/${kind}/${namespace}/${name}`, document]);
    }
  }
  for (const [name, entry] of services) entries.push([`service/${name}`, entry]);
  return entries;
}
