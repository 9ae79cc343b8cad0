/**
 * Kubernetes objects that the hub keeps and hands out: policies and namespaces. All documents of one `apply` are read before
 * anything is stored, and stored in one transaction.
 *
 * Labels of a namespace are part of the identity of its members: a change gives them other identities in the same transaction.
 */
import { isDnsLabel, isLabel } from "../../src/hub/allocate.ts";
import { isObject, type JsonObject } from "../../src/hub/json.ts";
import { NAMESPACES_PREFIX, POLICIES_PREFIX, writeRow } from "../../src/hub/records.ts";
import { keyOfPolicy } from "../../src/policy/model.ts";
import { POLICY_KINDS, readPolicy } from "../../src/policy/read_policy.ts";
import type { HubCore } from "./core.ts";
import type { AppliedObject, ApplyFault, ApplyResult } from "./state_types.ts";
import type { StoreOp } from "./store.ts";

const NAMESPACE = "Namespace";
/** Objects of one `apply`, and octets of one object as JSON. */
const MAX_OBJECTS = 10_000;
const MAX_OBJECT_BYTES = 512 * 1024;
const NAMESPACE_FIELDS = ["apiVersion", "kind", "metadata", "spec", "status"];

/** An object that may be stored. */
interface Accepted {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly key: string;
  readonly document: JsonObject;
}

type Read = { readonly accepted: Accepted } | { readonly object: string; readonly messages: readonly string[] };

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
    documents.forEach((document, index) => {
      for (const item of itemsOf(document)) {
        const read = readObject(item);
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
    const namespaces = new Map<string, Readonly<Record<string, string>>>();
    for (const { kind, namespace, name, key, document } of objects) {
      const old = this.#storedAt(key);
      const isSame = old !== undefined && JSON.stringify(old) === JSON.stringify(document);
      applied.push({ kind, namespace, name, action: isSame ? "unchanged" : old ? "configured" : "created" });
      if (isSame) continue;
      ops.push({ op: "put", key, value: writeRow(document) });
      if (kind === NAMESPACE) namespaces.set(name, labelsIn(document));
    }
    const { options } = this.#core;
    const relabelled = this.#relabel(namespaces);
    if (relabelled === undefined) {
      return { errors: [{ index: 0, object: "", message: "the cluster has no free identity" }] };
    }
    // identities first, members last: whoever follows the store sees a label before who has it
    if (!isDryRun && ops.length > 0) {
      await this.#core.commit([], [...relabelled.identities, ...ops, ...relabelled.members]);
    }
    return { applied, revision: options.store.revision };
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
    return model.policies.get(key.slice(POLICIES_PREFIX.length))?.document;
  }

  /** The documents as they were applied, by kind, namespace and name. */
  get(kind: string | undefined, namespace: string | undefined): JsonObject[] {
    const { model } = this.#core;
    const found: [key: string, document: JsonObject][] = [];
    for (const [name, document] of model.namespaces) found.push([`${NAMESPACE}//${name}`, document]);
    for (const [key, { document }] of model.policies) found.push([key, document]);
    const wanted = found.filter(([key]) => {
      const [ofKind, ofNamespace] = key.split("/");
      return (kind === undefined || kind === ofKind) && (namespace === undefined || namespace === ofNamespace);
    });
    return wanted.sort(([a], [b]) => a < b ? -1 : 1).map(([, document]) => document);
  }

  /** @returns false when there is no such object */
  async delete(kind: string, namespace: string, name: string): Promise<boolean> {
    const key = kind === NAMESPACE ? NAMESPACES_PREFIX + name : `${POLICIES_PREFIX}${kind}/${namespace}/${name}`;
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

/** A document, or the items of a `List`. */
function itemsOf(document: unknown): unknown[] {
  const isList = isObject(document) && document["kind"] === "List" && Array.isArray(document["items"]);
  return isList ? document["items"] as unknown[] : [document];
}

function readObject(document: unknown): Read {
  if (!isObject(document)) return { object: "", messages: ["it is no object with apiVersion, kind and metadata"] };
  const size = new TextEncoder().encode(textOf(document)).length;
  const kind = typeof document["kind"] === "string" ? document["kind"] : "";
  const metadata = isObject(document["metadata"]) ? document["metadata"] : {};
  const given = (value: unknown) => typeof value === "string" ? value.slice(0, 253) : "";
  const object = objectText(kind, given(metadata["namespace"]), given(metadata["name"]));
  if (size === 0 || size > MAX_OBJECT_BYTES) {
    return { object, messages: [`it is larger than ${MAX_OBJECT_BYTES} octets`] };
  }
  if (kind === NAMESPACE) return readNamespace(document, object);
  const result = readPolicy(document);
  if ("errors" in result) {
    const kinds = [...POLICY_KINDS, NAMESPACE].join(", ");
    const messages = result.errors.map(({ path, message, code }) => {
      const text = code === "UNKNOWN_KIND" || kind === "" ? `${message} (the hub keeps ${kinds})` : message;
      return path === "" ? text : `${path}: ${text}`;
    });
    return { object, messages };
  }
  const { policy } = result;
  const key = POLICIES_PREFIX + keyOfPolicy(policy);
  return { accepted: { kind: policy.kind, namespace: policy.namespace, name: policy.name, key, document } };
}

/** JSON of data that may be anything: "" where there is none (a cycle, a bigint). */
function textOf(document: JsonObject): string {
  try {
    return JSON.stringify(document) ?? "";
  } catch {
    return "";
  }
}

function readNamespace(document: JsonObject, object: string): Read {
  const messages: string[] = [];
  const { apiVersion, metadata } = document;
  if (apiVersion !== "v1") messages.push("apiVersion: Namespace is of apiVersion v1");
  for (const field of Object.keys(document)) {
    if (!NAMESPACE_FIELDS.includes(field)) messages.push(`${field}: no such field in a Namespace`);
  }
  const name = isObject(metadata) ? metadata["name"] : undefined;
  if (typeof name !== "string" || !isDnsLabel(name)) messages.push("metadata.name: it is no DNS label");
  const labels = isObject(metadata) ? metadata["labels"] ?? {} : {};
  if (!isObject(labels)) messages.push("metadata.labels: it is no map");
  else {
    for (const [key, value] of Object.entries(labels)) {
      if (typeof value !== "string" || !isLabel(key, value)) messages.push(`metadata.labels.${key}: it is no label`);
    }
  }
  if (messages.length > 0) return { object, messages };
  const key = NAMESPACES_PREFIX + (name as string);
  return { accepted: { kind: NAMESPACE, namespace: "", name: name as string, key, document } };
}

function labelsIn(document: JsonObject): Readonly<Record<string, string>> {
  const metadata = document["metadata"] as { labels?: Record<string, string> } | undefined;
  return metadata?.labels ?? {};
}

/** `Kind namespace/name`, as in messages. */
function objectText(kind: string, namespace: string, name: string): string {
  return `${kind || "?"} ${namespace === "" ? name || "?" : `${namespace}/${name || "?"}`}`;
}
