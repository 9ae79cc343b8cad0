/**
 * Reads the documents that a hub keeps: policies, what policies refer to (CIDR groups, services), and namespaces. Plain data in,
 * the object with its place in the store or every fault out.
 */
import { isObject, type JsonObject } from "../../src/hub/json.ts";
import {
  CIDR_GROUPS_PREFIX,
  ENDPOINT_SLICES_PREFIX,
  NAMESPACES_PREFIX,
  POLICIES_PREFIX,
  SERVICES_PREFIX,
} from "../../src/hub/records.ts";
import { readEndpointSlice, readService } from "../../src/hub/services.ts";
import type { PolicyError } from "../../src/policy/errors.ts";
import { CIDR_GROUP_KIND, readCidrGroup } from "../../src/policy/read_cidr_group.ts";
import { NAMESPACE_KIND, readNamespaceObject } from "../../src/policy/read_namespace.ts";
import { type PolicyFeatures, readPolicy } from "../../src/policy/read_policy.ts";
import { OBJECT_KINDS } from "../kinds.ts";

export const NAMESPACE = NAMESPACE_KIND;
export const CIDR_GROUP = CIDR_GROUP_KIND;
export const SERVICE = "Service";
export const ENDPOINT_SLICE = "EndpointSlice";
/** Octets of one object as JSON. */
const MAX_OBJECT_BYTES = 512 * 1024;

/** An object that may be stored. */
export interface Accepted {
  readonly kind: string;
  /** "" for a cluster-wide kind */
  readonly namespace: string;
  readonly name: string;
  /** in the store */
  readonly key: string;
  readonly document: JsonObject;
}

export type ReadResult =
  | { readonly accepted: Accepted }
  | { readonly object: string; readonly messages: readonly string[] };

/** What a policy may say here. */
export interface ObjectRules {
  readonly features: PolicyFeatures;
  /** members enforce policies for hosts */
  readonly hostFirewall: boolean;
}

/** The key of an object in the store. */
export function keyOfObject(kind: string, namespace: string, name: string): string {
  switch (kind) {
    case NAMESPACE:
      return NAMESPACES_PREFIX + name;
    case CIDR_GROUP:
      return CIDR_GROUPS_PREFIX + name;
    case SERVICE:
      return `${SERVICES_PREFIX}${namespace}/${name}`;
    case ENDPOINT_SLICE:
      return `${ENDPOINT_SLICES_PREFIX}${namespace}/${name}`;
    default:
      return `${POLICIES_PREFIX}${kind}/${namespace}/${name}`;
  }
}

/** `Kind namespace/name`, as in messages. */
export function objectText(kind: string, namespace: string, name: string): string {
  return `${kind || "?"} ${namespace === "" ? name || "?" : `${namespace}/${name || "?"}`}`;
}

/** A document, or the items of a `List`. */
export function itemsOf(document: unknown): unknown[] {
  const isList = isObject(document) && document["kind"] === "List" && Array.isArray(document["items"]);
  return isList ? document["items"] as unknown[] : [document];
}

/** Reads one document. Never throws, whatever the data. */
export function readObject(document: unknown, rules: ObjectRules): ReadResult {
  if (!isObject(document)) return { object: "", messages: ["it is no object with apiVersion, kind and metadata"] };
  const kind = typeof document["kind"] === "string" ? document["kind"] : "";
  const metadata = isObject(document["metadata"]) ? document["metadata"] : {};
  const given = (value: unknown) => typeof value === "string" ? value.slice(0, 253) : "";
  const object = objectText(kind, given(metadata["namespace"]), given(metadata["name"]));
  const size = new TextEncoder().encode(textOf(document)).length;
  if (size === 0 || size > MAX_OBJECT_BYTES) {
    return { object, messages: [`it is larger than ${MAX_OBJECT_BYTES} octets`] };
  }
  const named = readNamed(kind, document, rules);
  if ("errors" in named) return { object, messages: named.errors.map((error) => messageOf(error, kind)) };
  const key = keyOfObject(kind, named.namespace, named.name);
  return { accepted: { kind, namespace: named.namespace, name: named.name, key, document } };
}

type Named = { readonly namespace: string; readonly name: string } | { readonly errors: readonly PolicyError[] };

function readNamed(kind: string, document: JsonObject, rules: ObjectRules): Named {
  if (kind === NAMESPACE) {
    const result = readNamespaceObject(document);
    return "errors" in result ? result : { namespace: "", name: result.namespace.name };
  }
  if (kind === CIDR_GROUP) {
    const result = readCidrGroup(document);
    return "errors" in result ? result : { namespace: "", name: result.group.name };
  }
  if (kind === SERVICE) {
    const result = readService(document);
    return "errors" in result ? result : result.service;
  }
  if (kind === ENDPOINT_SLICE) {
    const result = readEndpointSlice(document);
    return "errors" in result ? result : result.slice;
  }
  const result = readPolicy(document, rules.features);
  if ("errors" in result) return result;
  const hostSpec = result.policy.specs.some((spec) => spec.isForNodes === true);
  return hostSpec && !rules.hostFirewall ? { errors: [NO_HOST_FIREWALL] } : result.policy;
}

const NO_HOST_FIREWALL: PolicyError = {
  path: "",
  code: "CONFLICT",
  message: "Policies for hosts (nodeSelector) are enforced only with the hub's --enable-host-firewall, which is off",
};

function messageOf({ path, message, code }: PolicyError, kind: string): string {
  const kinds = OBJECT_KINDS.map((known) => known.kind).join(", ");
  const text = code === "UNKNOWN_KIND" || kind === "" ? `${message} (the hub keeps ${kinds})` : message;
  return path === "" ? text : `${path}: ${text}`;
}

/** JSON of data that may be anything: "" where there is none (a cycle, a bigint). */
function textOf(document: unknown): string {
  try {
    return JSON.stringify(document) ?? "";
  } catch {
    return "";
  }
}
