/**
 * Scenario -> world: identities for its endpoints, settings for the engine, its policies read. What this release cannot do comes
 * back as a reason, never as a guess.
 */
import { KEY_CLUSTER, type Labels, SOURCE_ANY, SOURCE_K8S, splitKey } from "../../src/identity/labels.ts";
import { labelsOfMember } from "../../src/identity/member_labels.ts";
import { FIRST_ALLOCATABLE } from "../../src/identity/ranges.ts";
import { RESERVED_LABELS, reservedOfName } from "../../src/identity/reserved.ts";
import type { PolicyError } from "../../src/policy/errors.ts";
import { keyOfPolicy, type Policy } from "../../src/policy/model.ts";
import { type PolicyFeatures, readPolicy } from "../../src/policy/read_policy.ts";
import { DEFAULT_FEATURES, featuresOf } from "./flags.ts";
import { withoutInertSections } from "./flavor.ts";
import { isReservedRef } from "./read_probe.ts";
import type { Scenario, ScenarioEndpoint } from "./scenario.ts";
import { PolicyWorld, type WorldEnd, type WorldEndpoint } from "./world.ts";

/** A policy that was not accepted. */
export interface RefusedPolicy {
  /** as far as it has a name */
  readonly name: string;
  readonly errors: readonly PolicyError[];
}

export interface ReadPolicies {
  readonly policies: ReadonlyMap<string, Policy>;
  readonly refused: readonly RefusedPolicy[];
}

/** Reads all documents of a scenario, with what its flavor and its flags make of them. */
export function readScenarioPolicies({ policies, flavor, config }: Scenario): ReadPolicies {
  const features = featuresOf(config);
  const read = readPolicies(policies, features);
  if (flavor === "cilium" || read.refused.length > 0) return read;
  return readPolicies(policies.map(withoutInertSections), features);
}

/** Reads all documents. Policies of one name are told apart by a number: order does not matter, and none replaces another. */
export function readPolicies(documents: readonly unknown[], features: PolicyFeatures = DEFAULT_FEATURES): ReadPolicies {
  const policies = new Map<string, Policy>();
  const refused: RefusedPolicy[] = [];
  for (const document of documents) {
    const result = readPolicy(document, features);
    if ("errors" in result) {
      refused.push({ name: nameOf(document), errors: result.errors });
      continue;
    }
    const key = keyOfPolicy(result.policy);
    let unique = key;
    for (let i = 2; policies.has(unique); i++) unique = `${key} (${i})`;
    policies.set(unique, result.policy);
  }
  return { policies, refused };
}

/** "CiliumNetworkPolicy shop/web", as far as it can be told. */
export function nameOf(document: unknown): string {
  const { kind, metadata } = (document ?? {}) as { kind?: unknown; metadata?: { name?: unknown; namespace?: unknown } };
  const text = (value: unknown) => typeof value === "string" ? value : "";
  const namespace = text(metadata?.namespace);
  return `${text(kind) || "object"} ${namespace === "" ? "" : `${namespace}/`}${
    text(metadata?.name) || "without a name"
  }`;
}

/** Valid, but not enforced by this release. */
export function isUnsupported({ code }: PolicyError): boolean {
  return code.startsWith("UNSUPPORTED");
}

export interface ScenarioWorld {
  readonly world: PolicyWorld;
  /** an endpoint of the scenario, or a reserved identity, by its ref */
  readonly find: (ref: string) => WorldEnd | undefined;
}

/** ClusterNetworkPolicy and its forerunners. */
const CLUSTER_KINDS = ["ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"];

/** @returns a reason when the scenario needs what this release does not have */
export function makeWorld(
  scenario: Scenario,
  policies: ReadonlyMap<string, Policy>,
): ScenarioWorld | { readonly unsupported: string } {
  const reason = unsupportedConfig(scenario);
  if (reason !== undefined) return { unsupported: reason };
  const { config } = scenario;
  const numbers = new Identities(config.localCluster);
  const byRef = new Map<string, WorldEnd>();
  const endpoints: WorldEndpoint[] = [];
  for (const one of scenario.endpoints) {
    const end = worldEnd(one, scenario, numbers);
    if (typeof end === "string") return { unsupported: end };
    byRef.set(one.ref, end);
    if ("identity" in end) endpoints.push(end);
  }
  const settings = {
    cluster: config.localCluster,
    policy: {
      enforcementMode: config.enforcementMode,
      defaultLocalCluster: config.policyDefaultLocalCluster,
      allowLocalhost: config.allowLocalhost,
      auditMode: config.auditMode,
      cidrMatchMode: config.policyCIDRMatchMode,
      flavor: scenario.flavor === "cilium" ? "cilium" : "kubernetes",
    },
  } as const;
  // Cilium does not look at them unless it is told to
  const areWatched = config.clusterNetworkPolicy || scenario.flavor === "kcnp";
  const inForce = new Map([...policies].filter(([, { kind }]) => areWatched || !CLUSTER_KINDS.includes(kind)));
  return {
    world: new PolicyWorld({ settings, endpoints, policies: inForce }),
    find: (ref) => byRef.get(ref) ?? reservedEnd(ref),
  };
}

/** What of the configuration changes the answer in a way that the engine does not know. */
function unsupportedConfig({ config, cidrGroups, services, dnsCache }: Scenario): string | undefined {
  if (config.hostFirewall) return "hostFirewall is not supported yet";
  if (cidrGroups.length > 0) return "cidrGroups are not supported yet";
  if (services.length > 0) return "services are not supported yet";
  return dnsCache.length > 0 ? "dnsCache is not supported yet" : undefined;
}

/** Numbers for label sets: those of pods whose named ports differ are different ones, as in Cilium 1.20. */
class Identities {
  readonly #clusters = new Map<string, number>();
  readonly #known = new Map<string, number>();

  constructor(localCluster: string) {
    this.#clusters.set(localCluster, 1);
  }

  numberOf(cluster: string, labels: Labels, namedPorts: unknown): number {
    const text = JSON.stringify([Object.entries(labels).sort(), namedPorts]);
    let number = this.#known.get(text);
    if (number === undefined) {
      let id = this.#clusters.get(cluster);
      if (id === undefined) this.#clusters.set(cluster, id = this.#clusters.size + 1);
      this.#known.set(text, number = (id << 16) + FIRST_ALLOCATABLE + this.#known.size);
    }
    return number;
  }
}

/** An endpoint as the world knows it, or why it cannot be. */
function worldEnd(one: ScenarioEndpoint, scenario: Scenario, numbers: Identities): WorldEnd | string {
  const isLocal = one.cluster === scenario.config.localCluster;
  const common = { ref: one.ref, namespace: one.namespace, namedPorts: one.namedPorts, addresses: one.addresses };
  if (one.reserved.length === 0) {
    const labels = podLabels(one, scenario);
    return {
      ...common,
      labels,
      identity: numbers.numberOf(one.cluster, labels, one.namedPorts),
      isSubject: isLocal,
    };
  }
  const isWorld = one.reserved.every((name) => name.startsWith("world"));
  if (isWorld && one.addresses[0] !== undefined) return { address: one.addresses[0] };
  const identity = reservedNumber(one.reserved);
  if (identity === undefined) return `an endpoint with the labels ${one.reserved.join(" and ")} is not supported yet`;
  const labels = { ...RESERVED_LABELS.get(identity)!, ...(SUBJECTS.includes(one.reserved[0]!) ? ownLabels(one) : {}) };
  return { ...common, labels, identity, isSubject: isLocal && SUBJECTS.includes(one.reserved[0]!) };
}

/** Endpoints without a pod that policies can select all the same. */
const SUBJECTS = ["health", "init", "ingress"];

function reservedNumber(names: readonly string[]): number | undefined {
  if (names.length === 1) return reservedOfName(names[0]!);
  const wanted = names.map((name) => `reserved:${name}`).sort().join();
  for (const [identity, labels] of RESERVED_LABELS) {
    if (Object.keys(labels).sort().join() === wanted) return identity;
  }
  return undefined;
}

function reservedEnd(ref: string): WorldEnd | undefined {
  if (!isReservedRef(ref)) return undefined;
  const identity = reservedOfName(ref.slice("reserved:".length))!;
  const labels = RESERVED_LABELS.get(identity)!;
  return { ref, labels, identity, namespace: "", namedPorts: [], addresses: [], isSubject: false };
}

function podLabels(one: ScenarioEndpoint, { namespaces }: Scenario): Labels {
  const bare: Record<string, string> = {};
  const sourced: Record<string, string> = {};
  for (const [name, value] of Object.entries(one.labels)) {
    const { source, key } = splitKey(name);
    if (source === SOURCE_K8S || key === name) bare[key] = value;
    else sourced[name] = value;
  }
  const derived = labelsOfMember({
    cluster: one.cluster,
    namespace: one.namespace,
    namespaceLabels: namespaces.get(one.namespace) ?? {},
    labels: bare,
    ...(one.serviceAccount !== undefined && { serviceAccount: one.serviceAccount }),
  });
  return { ...sourced, ...derived };
}

function ownLabels(one: ScenarioEndpoint): Labels {
  const labels: Record<string, string> = {};
  for (const [name, value] of Object.entries(one.labels)) {
    const { source, key } = splitKey(name);
    labels[source === SOURCE_ANY ? `${SOURCE_K8S}:${key}` : `${source}:${key}`] = value;
  }
  labels[`${SOURCE_K8S}:${KEY_CLUSTER}`] = one.cluster;
  return labels;
}
