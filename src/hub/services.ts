/**
 * Kubernetes Services and EndpointSlices, as far as policies need them (`toServices`): who stands behind a service. Readers take
 * plain data and give an object or every error; unknown fields are errors, as everywhere.
 *
 * A service with a selector means the members that it selects in its namespace; its slices are not looked at. One without means
 * the addresses that its slices list and that are ready, or that still serve while they end.
 */
import { formatAddress, parseAddress } from "../ip/address.ts";
import type { ServiceEntry } from "../mesh/entries.ts";
import type { PolicyError } from "../policy/errors.ts";
import { field, type Fields, Problems, quote } from "../policy/fields.ts";
import { readMetadata } from "../policy/parse_metadata.ts";
import { isDnsLabel, isLabel } from "./allocate.ts";

/** Addresses of one service; the same bound as the mesh state's. */
export { MAX_SERVICE_ADDRESSES } from "../mesh/records.ts";

/** Endpoints of one slice, as Kubernetes bounds them. */
const MAX_ENDPOINTS = 1000;
const MAX_ADDRESSES_PER_ENDPOINT = 100;
const MAX_LABELS = 64;
const SERVICE_NAME_LABEL = "kubernetes.io/service-name";
const TYPES = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] as const;
const SERVICE_FIELDS = ["apiVersion", "kind", "metadata", "spec", "status"];
const SERVICE_SPEC_FIELDS = [
  "allocateLoadBalancerNodePorts",
  "clusterIP",
  "clusterIPs",
  "externalIPs",
  "externalName",
  "externalTrafficPolicy",
  "healthCheckNodePort",
  "internalTrafficPolicy",
  "ipFamilies",
  "ipFamilyPolicy",
  "loadBalancerClass",
  "loadBalancerIP",
  "loadBalancerSourceRanges",
  "ports",
  "publishNotReadyAddresses",
  "selector",
  "sessionAffinity",
  "sessionAffinityConfig",
  "trafficDistribution",
  "type",
];
const SLICE_FIELDS = ["apiVersion", "kind", "metadata", "addressType", "endpoints", "ports"];
const ENDPOINT_FIELDS = [
  "addresses",
  "conditions",
  "deprecatedTopology",
  "hints",
  "hostname",
  "nodeName",
  "targetRef",
  "zone",
];

/** A Service, read. */
export interface Service {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** absent: its slices say who is behind it */
  readonly selector?: Readonly<Record<string, string>>;
}

/** An EndpointSlice, read. */
export interface EndpointSlice {
  readonly namespace: string;
  readonly name: string;
  /** name of the service that it belongs to, in its own namespace */
  readonly service: string;
  /** of endpoints that take traffic; canonical text, without doubles */
  readonly addresses: readonly string[];
}

export type ServiceResult = { readonly service: Service } | { readonly errors: readonly PolicyError[] };
export type SliceResult = { readonly slice: EndpointSlice } | { readonly errors: readonly PolicyError[] };

/** Reads a Service (`v1`). Never throws, whatever the data. */
export function readService(document: unknown): ServiceResult {
  const problems = new Problems();
  const object = problems.object(document, "", SERVICE_FIELDS);
  if (object === undefined) return { errors: problems.errors };
  checkVersion(object, "Service", "v1", problems);
  const { namespace, name } = readNames(object, problems);
  const labels = readLabels(field(fieldsOf(object, "metadata"), "labels"), "metadata.labels", problems);
  const spec = problems.object(field(object, "spec") ?? {}, "spec", SERVICE_SPEC_FIELDS) ?? {};
  const type = field(spec, "type");
  if (type !== undefined && problems.word(type, "spec.type", TYPES) === "ExternalName") {
    problems.add("spec.type", "BAD_VALUE", "A service of type ExternalName has no endpoints; name it with toFQDNs");
  }
  const selector = readLabels(field(spec, "selector"), "spec.selector", problems);
  if (problems.any) return { errors: problems.errors };
  const isSelecting = Object.keys(selector).length > 0;
  return { service: { namespace, name, labels, ...(isSelecting && { selector }) } };
}

/** Reads an EndpointSlice (`discovery.k8s.io/v1`). Never throws, whatever the data. */
export function readEndpointSlice(document: unknown): SliceResult {
  const problems = new Problems();
  const object = problems.object(document, "", SLICE_FIELDS);
  if (object === undefined) return { errors: problems.errors };
  checkVersion(object, "EndpointSlice", "discovery.k8s.io/v1", problems);
  const { namespace, name } = readNames(object, problems);
  const labels = readLabels(field(fieldsOf(object, "metadata"), "labels"), "metadata.labels", problems);
  const service = labels[SERVICE_NAME_LABEL];
  if (service === undefined || !isDnsLabel(service)) {
    const message = `EndpointSlice without the label ${SERVICE_NAME_LABEL}: the name of its service`;
    problems.add("metadata.labels", service === undefined ? "MISSING" : "BAD_VALUE", message);
  }
  const type = field(object, "addressType");
  if (type === undefined) problems.add("addressType", "MISSING", "EndpointSlice without addressType: IPv4 or IPv6");
  const family = type === undefined ? undefined : problems.word(type, "addressType", ["IPv4", "IPv6"]);
  const addresses = new Set<string>();
  const endpoints = problems.items(field(object, "endpoints") ?? [], "endpoints") ?? [];
  if (endpoints.length > MAX_ENDPOINTS) {
    problems.add("endpoints", "TOO_MANY", `More than ${MAX_ENDPOINTS} endpoints in one slice`);
  } else {
    endpoints.forEach((endpoint, i) => {
      for (const address of readEndpoint(endpoint, `endpoints[${i}]`, family, problems)) addresses.add(address);
    });
  }
  if (problems.any || service === undefined) return { errors: problems.errors };
  return { slice: { namespace, name, service, addresses: [...addresses] } };
}

/** What members are told of a service. The addresses are sorted, so that the order of slices does not matter. */
export function serviceEntryOf(service: Service, slices: readonly EndpointSlice[]): ServiceEntry {
  const { labels, selector } = service;
  if (selector !== undefined) return { labels, selector, addresses: [] };
  return { labels, addresses: [...new Set(slices.flatMap((slice) => slice.addresses))].sort() };
}

/** Addresses of an endpoint that takes traffic; none for another. */
function readEndpoint(value: unknown, path: string, family: string | undefined, problems: Problems): string[] {
  const endpoint = problems.object(value, path, ENDPOINT_FIELDS);
  if (endpoint === undefined) return [];
  const texts = problems.items(field(endpoint, "addresses") ?? [], `${path}.addresses`) ?? [];
  if (texts.length === 0 || texts.length > MAX_ADDRESSES_PER_ENDPOINT) {
    problems.add(`${path}.addresses`, "BAD_VALUE", `Expected 1 to ${MAX_ADDRESSES_PER_ENDPOINT} addresses`);
    return [];
  }
  const addresses = texts.flatMap((text, i) => readAddress(text, `${path}.addresses[${i}]`, family, problems));
  return takesTraffic(endpoint, path, problems) ? addresses : [];
}

function readAddress(value: unknown, path: string, family: string | undefined, problems: Problems): string[] {
  const text = problems.text(value, path);
  if (text === undefined) return [];
  const address = parseAddress(text);
  if (address === undefined) {
    problems.add(path, "BAD_VALUE", `${quote(text)} is no IP address`);
    return [];
  }
  if (family !== undefined && family !== (address.length === 4 ? "IPv4" : "IPv6")) {
    problems.add(path, "CONFLICT", `${quote(text)} is no ${family} address, as addressType says`);
    return [];
  }
  return [formatAddress(address)];
}

/** Unknown readiness counts as ready; an endpoint that ends takes traffic while it serves. */
function takesTraffic(endpoint: Fields, path: string, problems: Problems): boolean {
  const given = field(endpoint, "conditions");
  if (given === undefined) return true;
  const conditions = problems.object(given, `${path}.conditions`, ["ready", "serving", "terminating"]);
  if (conditions === undefined) return false;
  const read = (name: string) => {
    const value = field(conditions, name);
    return value === undefined ? undefined : problems.boolean(value, `${path}.conditions.${name}`);
  };
  const [ready, serving, terminating] = [read("ready"), read("serving"), read("terminating")];
  return ready !== false || (terminating === true && serving === true);
}

function checkVersion(object: Fields, kind: string, apiVersion: string, problems: Problems): void {
  if (field(object, "kind") !== kind) problems.add("kind", "BAD_VALUE", `Expected the kind ${kind}`);
  const version = field(object, "apiVersion");
  if (version === apiVersion) return;
  const found = typeof version === "string" ? quote(version) : "none";
  problems.add(
    "apiVersion",
    version === undefined ? "MISSING" : "BAD_VALUE",
    `${kind} is of apiVersion ${apiVersion}, got ${found}`,
  );
}

/** Services are DNS labels; slices may have dots, as any object. */
function readNames(object: Fields, problems: Problems): { namespace: string; name: string } {
  const names = readMetadata(object, true, problems);
  if (field(object, "kind") === "Service" && names.name !== "" && !isDnsLabel(names.name)) {
    problems.add(
      "metadata.name",
      "BAD_VALUE",
      `${quote(names.name)} is no service name: lower-case letters, digits, "-"`,
    );
  }
  return names;
}

function readLabels(value: unknown, path: string, problems: Problems): Record<string, string> {
  if (value === undefined) return {};
  const fields = problems.anyObject(value, path);
  if (fields === undefined) return {};
  const entries = Object.entries(fields);
  if (entries.length > MAX_LABELS) {
    problems.add(path, "TOO_MANY", `More than ${MAX_LABELS} labels`);
    return {};
  }
  const labels: [string, string][] = [];
  for (const [key, text] of entries) {
    if (typeof text === "string" && isLabel(key, text)) labels.push([key, text]);
    else problems.add(path, "BAD_VALUE", `${quote(key)} and its value are no label`);
  }
  return Object.fromEntries(labels);
}

function fieldsOf(object: Fields, name: string): Fields {
  const value = field(object, name);
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value as Fields : {};
}
