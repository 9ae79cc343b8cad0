/**
 * What the hub stores beside Cilium's keys: JSON under `edgemesh/`. Writers and strict readers; a value that does not read is
 * reported and left alone, it does not stop the hub.
 *
 *     edgemesh/settings                        SettingsRow
 *     edgemesh/members/<name>                  MemberRow
 *     edgemesh/devices/<device key, hex>       name of the member; keeps two hubs from admitting one device twice
 *     edgemesh/revoked/<device key, hex>       MemberRow of a member that was revoked, for ever
 *     edgemesh/released/<address>              ReleasedRow
 *     edgemesh/tokens/<id>                     TokenRow
 *     edgemesh/policies/<kind>/<ns>/<name>     the object as applied; <ns> is empty for a cluster-wide kind
 *     edgemesh/namespaces/<name>               the Namespace object as applied
 *     edgemesh/cidrgroups/<name>               the CiliumCIDRGroup object as applied
 *     edgemesh/services/<ns>/<name>            the Service object as applied
 *     edgemesh/endpointslices/<ns>/<name>      the EndpointSlice object as applied
 *     edgemesh/audit/<slot>                    AuditRow, a ring
 */
import { fromBase64, toBase64 } from "../bytes/text.ts";
import { parseAddress } from "../ip/address.ts";
import type { NamedPort } from "../mesh/entries.ts";
import { isCount, isObject, type JsonObject, readJsonObject, readList, readTextMap } from "./json.ts";

export const SETTINGS_KEY = "edgemesh/settings";
export const MEMBERS_PREFIX = "edgemesh/members/";
export const DEVICES_PREFIX = "edgemesh/devices/";
export const REVOKED_PREFIX = "edgemesh/revoked/";
export const RELEASED_PREFIX = "edgemesh/released/";
export const TOKENS_PREFIX = "edgemesh/tokens/";
export const POLICIES_PREFIX = "edgemesh/policies/";
export const NAMESPACES_PREFIX = "edgemesh/namespaces/";
export const CIDR_GROUPS_PREFIX = "edgemesh/cidrgroups/";
export const SERVICES_PREFIX = "edgemesh/services/";
export const ENDPOINT_SLICES_PREFIX = "edgemesh/endpointslices/";
export const AUDIT_PREFIX = "edgemesh/audit/";

/** Which mesh the store belongs to. */
export interface SettingsRow {
  readonly cluster: string;
  readonly clusterId: number;
  /** public half of the key that the stored records are signed with, base64 */
  readonly recordKey: string;
  /** JSON of what every member is told; a change is a new revision, so that members that resume hear of it */
  readonly mesh: string;
  /** which rules choose what a member is sent; counts up when they change */
  readonly viewRules: number;
}

/** A member as stored. Times are Unix milliseconds. */
export interface MemberRow {
  readonly name: string;
  readonly state: "active" | "pending" | "revoked";
  readonly isHub: boolean;
  readonly deviceKey: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly addresses: readonly string[];
  readonly underlay: string;
  /** as reported, or "" */
  readonly localAddress: string;
  readonly endpoints: readonly string[];
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly namedPorts: readonly NamedPort[];
  /** what the member said that it seals with, beside WireGuard's own */
  readonly aeads: readonly string[];
  /** "" = none */
  readonly network: string;
  readonly identity: number;
  readonly joinedAt: number;
  /** "" for the hub */
  readonly tokenId: string;
  /** the signed record: msgpack of a MemberRecord, its signature, and when it must be signed anew at the latest */
  readonly record: Uint8Array;
  readonly signature: Uint8Array;
  readonly notAfter: number;
}

export interface TokenRow {
  /** 16 hexadecimal digits */
  readonly id: string;
  readonly verifier: Uint8Array;
  readonly caPin: Uint8Array;
  readonly createdAt: number;
  /** `null` = never */
  readonly notAfter: number | null;
  /** `null` = unlimited */
  readonly uses: number | null;
  readonly used: number;
  readonly revokedAt: number | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly namespace: string;
  readonly name: string;
  readonly approve: "auto" | "manual";
  readonly lastUsedBy: string;
  readonly lastUsedAt: number | null;
}

/** When an address was freed. */
export interface ReleasedRow {
  readonly at: number;
}

/** A row as its stored value. Octet strings become base64. */
export function writeRow(row: object): Uint8Array {
  // not the value given: of Node's Buffer that is already something else
  const text = JSON.stringify(row, function (this: Record<string, unknown>, key, value) {
    const own = this[key];
    return own instanceof Uint8Array ? toBase64(own) : value;
  });
  return new TextEncoder().encode(text);
}

export function readSettingsRow(bytes: Uint8Array): SettingsRow | undefined {
  const row = objectOf(bytes);
  if (row === undefined) return undefined;
  const { cluster, clusterId, recordKey, mesh, viewRules } = row;
  if (typeof cluster !== "string" || !isCount(clusterId) || typeof recordKey !== "string") return undefined;
  if (typeof mesh !== "string" || !isCount(viewRules)) return undefined;
  return { cluster, clusterId, recordKey, mesh, viewRules };
}

export function readMemberRow(bytes: Uint8Array): MemberRow | undefined {
  const row = objectOf(bytes);
  if (row === undefined) return undefined;
  const { name, state, isHub, underlay, localAddress, namespace, identity, joinedAt, tokenId, notAfter } = row;
  const deviceKey = octetsOf(row["deviceKey"], 32);
  const publicKey = octetsOf(row["publicKey"], 32);
  const record = octetsOf(row["record"]);
  const signature = octetsOf(row["signature"], 64);
  const addresses = readList(
    row["addresses"],
    (item) => typeof item === "string" && parseAddress(item) ? item : undefined,
  );
  const endpoints = readList(row["endpoints"], (item) => typeof item === "string" ? item : undefined);
  const namedPorts = readList(row["namedPorts"], readNamedPort);
  const aeads = readList(row["aeads"] ?? [], (item) => isText(item) ? item : undefined); // none: written by an older hub
  const labels = readTextMap(row["labels"]);
  if (state !== "active" && state !== "pending" && state !== "revoked") return undefined;
  if (!deviceKey || !publicKey || !record || !signature || !addresses?.length || !endpoints || !namedPorts || !labels) {
    return undefined;
  }
  const network = row["network"] ?? ""; // the same
  if (!aeads || typeof network !== "string") return undefined;
  if (!isText(name) || !isText(underlay) || !isText(namespace) || typeof isHub !== "boolean") return undefined;
  if (typeof localAddress !== "string" || typeof tokenId !== "string") return undefined;
  if (!isCount(identity) || !isCount(joinedAt) || !isCount(notAfter)) return undefined;
  return {
    name,
    state,
    isHub,
    deviceKey,
    publicKey,
    addresses,
    underlay,
    localAddress,
    endpoints,
    namespace,
    labels,
    namedPorts,
    aeads,
    network,
    identity,
    joinedAt,
    tokenId,
    record,
    signature,
    notAfter,
  };
}

export function readTokenRow(bytes: Uint8Array): TokenRow | undefined {
  const row = objectOf(bytes);
  if (row === undefined) return undefined;
  const { id, createdAt, notAfter, uses, used, revokedAt, namespace, name, approve, lastUsedBy, lastUsedAt } = row;
  const verifier = octetsOf(row["verifier"], 32);
  const caPin = octetsOf(row["caPin"], 32);
  const labels = readTextMap(row["labels"]);
  if (!isText(id) || !verifier || !caPin || !labels || !isCount(createdAt) || !isCount(used)) return undefined;
  if (!isCountOrNull(notAfter) || !isCountOrNull(uses) || !isCountOrNull(revokedAt) || !isCountOrNull(lastUsedAt)) {
    return undefined;
  }
  if (typeof namespace !== "string" || typeof name !== "string" || typeof lastUsedBy !== "string") return undefined;
  if (approve !== "auto" && approve !== "manual") return undefined;
  return {
    id,
    verifier,
    caPin,
    createdAt,
    notAfter,
    uses,
    used,
    revokedAt,
    labels,
    namespace,
    name,
    approve,
    lastUsedBy,
    lastUsedAt,
  };
}

export function readReleasedRow(bytes: Uint8Array): ReleasedRow | undefined {
  const at = objectOf(bytes)?.["at"];
  return isCount(at) ? { at } : undefined;
}

/** A stored object (policy, namespace, audit record) as plain data. */
export function objectOf(bytes: Uint8Array): JsonObject | undefined {
  return readJsonObject(new TextDecoder().decode(bytes));
}

export function readNamedPort(item: unknown): NamedPort | undefined {
  if (!isObject(item)) return undefined;
  const { name, port, protocol } = item;
  if (!isText(name) || !isCount(port) || port < 1 || port > 65535) return undefined;
  return protocol === "TCP" || protocol === "UDP" || protocol === "SCTP" ? { name, port, protocol } : undefined;
}

function octetsOf(value: unknown, count?: number): Uint8Array | undefined {
  const bytes = typeof value === "string" ? fromBase64(value) : undefined;
  return count === undefined || bytes?.length === count ? bytes : undefined;
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length > 0;
}

function isCountOrNull(value: unknown): value is number | null {
  return value === null || isCount(value);
}
