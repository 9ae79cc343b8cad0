/**
 * Strict readers of the values of mesh entries: unknown data in, a typed value out, or a `RangeError` that says which field is
 * wrong and why. Used by `MeshState` on everything that comes from the hub, from disk or from a mesh file; these throw because
 * they are far from the packet path, and `MeshState` turns each throw into one counted refusal.
 */
import { formatAddress, formatPrefix, maskedPrefix, parseAddress, parsePrefix } from "../ip/address.ts";
import { parseUnderlayAddr } from "../ip/underlay_addr.ts";
import type {
  ClusterRef,
  FqdnSettings,
  IdentityEntry,
  IpEntry,
  MemberRecord,
  MeshSettings,
  NamedPort,
  NamespaceEntry,
  PolicyDocument,
  PolicySettings,
  RoutingSettings,
  ServiceEntry,
  SignedRecord,
} from "./entries.ts";

import { isNetworkName, routingFault } from "./routing.ts";

/** Identities are 24 bits: they travel in the VNI. */
const MAX_IDENTITY = 0xffffff;
const MAX_ADDRESSES = 8;
const MAX_ENDPOINTS = 16;
const MAX_LABELS = 256;
const MAX_LABEL_BYTES = 512;
const MAX_NAMED_PORTS = 64;
const MAX_CIDRS = 64;
const MAX_AEADS = 8;
/** More endpoints of one service are refused: a hub cuts none off. */
export const MAX_SERVICE_ADDRESSES = 4096;
const MAX_TTL_SECONDS = 0x7fffffff;
const MAX_IPS_PER_NAME = 1_000_000;

const DNS_LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const CLUSTER_NAME = /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/;
const AEAD_NAME = /^[a-z0-9-]{1,32}$/;
/** IANA service names (RFC 6335 §5.1), as Kubernetes takes them for ports */
const PORT_NAME = /^(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/;

function refuse(field: string, must: string): never {
  throw new RangeError(`${field} must ${must}`);
}

/** A plain object (not an array, not octets). */
export function readObject(value: unknown, field: string): Readonly<Record<string, unknown>> {
  const isPlain = typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
  return isPlain ? value as Record<string, unknown> : refuse(field, "be a mapping");
}

function readList(value: unknown, field: string, max: number): readonly unknown[] {
  if (!Array.isArray(value)) return refuse(field, "be a list");
  return value.length <= max ? value : refuse(field, `have at most ${max} elements`);
}

function readText(value: unknown, field: string, pattern: RegExp, what: string): string {
  return typeof value === "string" && pattern.test(value) ? value : refuse(field, `be ${what}`);
}

function readWord<const T extends string>(value: unknown, field: string, words: readonly T[]): T {
  return words.find((word) => word === value) ?? refuse(field, `be one of ${words.join(", ")}`);
}

function readInteger(value: unknown, field: string, min: number, max: number): number {
  const ok = typeof value === "number" && Number.isInteger(value) && value >= min && value <= max;
  return ok ? value : refuse(field, `be a whole number from ${min} to ${max}`);
}

function readBoolean(value: unknown, field: string): boolean {
  return typeof value === "boolean" ? value : refuse(field, "be true or false");
}

function readNetwork(value: unknown): string {
  return typeof value === "string" && isNetworkName(value) ? value : refuse("network", "be the name of a network");
}

function readRouting(value: unknown): RoutingSettings {
  const object = readObject(value, "routing");
  const routing: RoutingSettings = {
    mode: readWord(object["mode"], "routing.mode", ["tunnel", "native", "hybrid"]),
    tunnelProtocol: readWord(object["tunnelProtocol"], "routing.tunnelProtocol", ["geneve", "vxlan"]),
    encryption: readWord(object["encryption"], "routing.encryption", ["wireguard", "none"]),
  };
  const fault = routingFault(routing);
  return fault === undefined ? routing : refuse("routing", `not be so: ${fault}`);
}

/** Exactly `count` octets: a copy, so that no key holds on to the frame that it came in, nor drags it to another thread. */
export function readOctets(value: unknown, field: string, count: number): Uint8Array {
  return value instanceof Uint8Array && value.length === count
    ? new Uint8Array(value)
    : refuse(field, `be ${count} octets`);
}

/** A node's name: a DNS subdomain (RFC 1123). */
function readNodeName(value: unknown, field: string): string {
  const ok = typeof value === "string" && value.length <= 253 && value.split(".").every((part) => DNS_LABEL.test(part));
  return ok ? value : refuse(field, "be a lower-case DNS name");
}

function readAddressText(value: unknown, field: string): string {
  const address = typeof value === "string" ? parseAddress(value) : undefined;
  return address !== undefined && formatAddress(address) === value
    ? value
    : refuse(field, "be an IP address in canonical text");
}

/** A prefix in canonical text with its host bits cleared. */
export function readPrefixText(value: unknown, field: string): string {
  const prefix = typeof value === "string" ? parsePrefix(value) : undefined;
  const ok = prefix !== undefined && formatPrefix(maskedPrefix(prefix)) === value;
  return ok ? value as string : refuse(field, "be a prefix in canonical text");
}

function readEndpoint(value: unknown, field: string): string {
  return typeof value === "string" && parseUnderlayAddr(value) !== undefined ? value : refuse(field, "be ADDRESS:PORT");
}

function readCluster(value: unknown, field: string): ClusterRef {
  const object = readObject(value, field);
  return {
    name: readText(object["name"], `${field}.name`, CLUSTER_NAME, "a cluster name"),
    id: readInteger(object["id"], `${field}.id`, 1, 511),
  };
}

function readLabels(value: unknown, field: string): Readonly<Record<string, string>> {
  const labels: [string, string][] = [];
  for (const [key, text] of Object.entries(readObject(value, field))) {
    if (typeof text !== "string" || text.length > MAX_LABEL_BYTES) return refuse(`${field}.${key}`, "be a short text");
    if (key === "" || key.length > MAX_LABEL_BYTES) return refuse(field, "have keys of 1 to 512 characters");
    labels.push([key, text]);
  }
  return labels.length <= MAX_LABELS ? Object.fromEntries(labels) : refuse(field, `have at most ${MAX_LABELS} labels`);
}

function readNamedPort(value: unknown, field: string): NamedPort {
  const object = readObject(value, field);
  return {
    name: readText(object["name"], `${field}.name`, PORT_NAME, "a port name"),
    port: readInteger(object["port"], `${field}.port`, 1, 65535),
    protocol: readWord(object["protocol"], `${field}.protocol`, ["TCP", "UDP", "SCTP"]),
  };
}

/** `settings`. What the datapath of this release cannot do is refused here by name. */
export function readSettings(value: unknown): MeshSettings {
  const object = readObject(value, "settings");
  const policy = readObject(object["policy"], "policy");
  return {
    cluster: readCluster(object["cluster"], "cluster"),
    routing: readRouting(object["routing"]),
    policy: readPolicySettings(policy),
    memberCidrs: readList(object["memberCidrs"], "memberCidrs", MAX_CIDRS)
      .map((cidr, i) => readPrefixText(cidr, `memberCidrs[${i}]`)),
  };
}

/** What is absent stays absent: a state of an older hub says less. */
function readPolicySettings(policy: Readonly<Record<string, unknown>>): PolicySettings {
  const given = <T>(name: string, read: (value: unknown, field: string) => T): T | undefined => {
    const value = policy[name] ?? undefined;
    return value === undefined ? undefined : read(value, `policy.${name}`);
  };
  const auditMode = given("auditMode", readBoolean);
  const cidrMatchMode = given(
    "cidrMatchMode",
    (value, field) => readList(value, field, 2).map((mode, i) => readWord(mode, `${field}[${i}]`, ["nodes", "pods"])),
  );
  const hostFirewall = given("hostFirewall", readBoolean);
  const fqdn = given("fqdn", readFqdnSettings);
  return {
    enforcementMode: readWord(policy["enforcementMode"], "policy.enforcementMode", ["default", "always", "never"]),
    defaultLocalCluster: readBoolean(policy["defaultLocalCluster"], "policy.defaultLocalCluster"),
    allowLocalhost: readWord(policy["allowLocalhost"], "policy.allowLocalhost", ["always", "policy"]),
    ...(auditMode !== undefined && { auditMode }),
    ...(cidrMatchMode !== undefined && { cidrMatchMode }),
    ...(hostFirewall !== undefined && { hostFirewall }),
    ...(fqdn !== undefined && { fqdn }),
  };
}

function readFqdnSettings(value: unknown, field: string): FqdnSettings {
  const { minTtlSeconds, maxIpsPerName, rejectCode } = readObject(value, field);
  return {
    ...(minTtlSeconds !== undefined &&
      { minTtlSeconds: readInteger(minTtlSeconds, `${field}.minTtlSeconds`, 0, MAX_TTL_SECONDS) }),
    ...(maxIpsPerName !== undefined &&
      { maxIpsPerName: readInteger(maxIpsPerName, `${field}.maxIpsPerName`, 1, MAX_IPS_PER_NAME) }),
    ...(rejectCode !== undefined &&
      { rejectCode: readWord(rejectCode, `${field}.rejectCode`, ["refused", "nameError"]) }),
  };
}

/** The outer shape of `member/...`; says nothing about who signed it. */
export function readSignedRecord(value: unknown): SignedRecord {
  const object = readObject(value, "entry");
  const record = object["record"];
  if (!(record instanceof Uint8Array)) return refuse("record", "be octets");
  return { record, signature: readOctets(object["signature"], "signature", 64) };
}

/** A member, every field checked. */
export function readMemberRecord(value: unknown): MemberRecord {
  const object = readObject(value, "record");
  const addresses = readList(object["addresses"], "addresses", MAX_ADDRESSES)
    .map((address, i) => readAddressText(address, `addresses[${i}]`));
  if (new Set(addresses).size !== addresses.length) refuse("addresses", "be different");
  const publicKey = readOctets(object["publicKey"], "publicKey", 32);
  if (publicKey.every((octet) => octet === 0)) refuse("publicKey", "not be zero");
  return {
    name: readNodeName(object["name"], "name"),
    cluster: readCluster(object["cluster"], "cluster"),
    publicKey,
    deviceKey: readOctets(object["deviceKey"], "deviceKey", 32),
    addresses,
    underlay: readAddressText(object["underlay"], "underlay"),
    endpoints: readList(object["endpoints"], "endpoints", MAX_ENDPOINTS)
      .map((endpoint, i) => readEndpoint(endpoint, `endpoints[${i}]`)),
    // absent: as with `aeads`
    network: readNetwork(object["network"] ?? ""),
    namespace: readText(object["namespace"], "namespace", DNS_LABEL, "a namespace name"),
    labels: readLabels(object["labels"], "labels"),
    namedPorts: readList(object["namedPorts"], "namedPorts", MAX_NAMED_PORTS)
      .map((port, i) => readNamedPort(port, `namedPorts[${i}]`)),
    // absent: signed by a hub, or written to disk by a member, that knew nothing of them; a name of a later release is no fault
    aeads: readList(object["aeads"] ?? [], "aeads", MAX_AEADS)
      .map((name, i) => readText(name, `aeads[${i}]`, AEAD_NAME, "the name of an AEAD")),
    identity: readInteger(object["identity"], "identity", 1, MAX_IDENTITY),
    notBefore: readInteger(object["notBefore"], "notBefore", 0, Number.MAX_SAFE_INTEGER),
    notAfter: readInteger(object["notAfter"], "notAfter", 0, Number.MAX_SAFE_INTEGER),
    isHub: readBoolean(object["isHub"], "isHub"),
  };
}

/** The number of `identity/<id>`: decimal without leading zeros, 1 to 2^24 - 1. */
export function readIdentityNumber(text: string): number {
  const id = /^[1-9][0-9]{0,7}$/.test(text) ? Number(text) : 0;
  return readInteger(id, "identity", 1, MAX_IDENTITY);
}

export function readIdentityEntry(value: unknown): IdentityEntry {
  return { labels: readLabels(readObject(value, "entry")["labels"], "labels") };
}

export function readNamespaceName(text: string): string {
  return readText(text, "namespace", DNS_LABEL, "a namespace name");
}

export function readNamespaceEntry(value: unknown): NamespaceEntry {
  return { labels: readLabels(readObject(value, "entry")["labels"], "labels") };
}

export function readIpEntry(value: unknown): IpEntry {
  const object = readObject(value, "entry");
  const identity = readInteger(object["identity"], "identity", 1, MAX_IDENTITY);
  const member = object["member"];
  if (member === undefined || member === null) return { identity };
  const [cluster, name, rest] = typeof member === "string" ? member.split("/") : [];
  if (rest !== undefined || cluster === undefined) return refuse("member", "be CLUSTER/NAME");
  readText(cluster, "member", CLUSTER_NAME, "CLUSTER/NAME");
  readNodeName(name, "member");
  return { identity, member: member as string };
}

/** A policy document that is what its key `policy/<kind>/<ns>/<name>` says. Its rules are the policy engine's to judge. */
export function readPolicyDocument(rest: string, value: unknown): PolicyDocument {
  const [kind, namespace, name, more] = rest.split("/");
  if (more !== undefined || !kind || namespace === undefined || !name) {
    return refuse("key", "be policy/KIND/NAMESPACE/NAME");
  }
  const document = readObject(value, "document");
  const metadata = readObject(document["metadata"], "metadata");
  if (document["kind"] !== kind) refuse("kind", `be "${kind}" as in the key`);
  if (metadata["name"] !== name) refuse("metadata.name", `be "${name}" as in the key`);
  if (namespace !== "" && (metadata["namespace"] ?? "default") !== namespace) {
    refuse("metadata.namespace", `be "${namespace}" as in the key`);
  }
  return document;
}

/** A CIDR group that is what its key `cidrgroup/<name>` says. Its prefixes are the policy engine's to judge. */
export function readCidrGroupDocument(name: string, value: unknown): PolicyDocument {
  const document = readObject(value, "document");
  const metadata = readObject(document["metadata"], "metadata");
  if (document["kind"] !== "CiliumCIDRGroup") refuse("kind", 'be "CiliumCIDRGroup" as in the key');
  if (metadata["name"] !== readNodeName(name, "key")) refuse("metadata.name", `be "${name}" as in the key`);
  return document;
}

/** `<ns>/<name>` of `service/<ns>/<name>`. */
export function readServiceName(rest: string): string {
  const [namespace, name, more] = rest.split("/");
  if (more !== undefined) refuse("key", "be service/NAMESPACE/NAME");
  readText(namespace, "key", DNS_LABEL, "service/NAMESPACE/NAME");
  readText(name, "key", DNS_LABEL, "service/NAMESPACE/NAME");
  return rest;
}

export function readServiceEntry(value: unknown): ServiceEntry {
  const object = readObject(value, "entry");
  const selector = object["selector"] ?? undefined;
  return {
    labels: readLabels(object["labels"], "labels"),
    ...(selector !== undefined && { selector: readLabels(selector, "selector") }),
    addresses: readList(object["addresses"], "addresses", MAX_SERVICE_ADDRESSES)
      .map((address, i) => readAddressText(address, `addresses[${i}]`)),
  };
}
