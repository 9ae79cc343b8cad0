/**
 * Scenario -> world: identities for its endpoints, settings for the engine, its policies read. What this release cannot do comes
 * back as a reason, never as a guess.
 */
import { canonicalName } from "../../src/fqdn/pattern.ts";
import { formatAddress, type IpAddress } from "../../src/ip/address.ts";
import type { CidrGroup, PolicyService } from "../../src/policy/engine.ts";
import type { PolicyError } from "../../src/policy/errors.ts";
import { keyOfPolicy, type Policy } from "../../src/policy/model.ts";
import { readCidrGroup } from "../../src/policy/read_cidr_group.ts";
import { type PolicyFeatures, readPolicy } from "../../src/policy/read_policy.ts";
import { DEFAULT_FEATURES, featuresOf } from "./flags.ts";
import { withoutInertSections } from "./flavor.ts";
import type { DnsAnswer, Flavor, Scenario, ScenarioConfig, ScenarioService } from "./scenario.ts";
import { PolicyWorld, type WorldEnd, type WorldEndpoint } from "./world.ts";
import { Identities, reservedEnd, worldEnd } from "./world_ends.ts";

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

/** What a scenario applies. */
export interface ScenarioObjects extends ReadPolicies {
  readonly groups: readonly CidrGroup[];
}

/** Reads all documents of a scenario, with what its flavor and its flags make of them. */
export function readScenarioObjects({ policies, cidrGroups, flavor, config }: Scenario): ScenarioObjects {
  const features = featuresOf(withNodes(config, flavor));
  const read = readPolicies(policies, features);
  const { groups, refused } = readGroups(cidrGroups);
  const all = { ...read, groups, refused: [...read.refused, ...refused] };
  if (flavor === "cilium" || all.refused.length > 0) return all;
  return { ...all, policies: readPolicies(policies.map(withoutInertSections), features).policies };
}

/** Nodes are peers of network-policy-api; Cilium has a flag for it. */
function withNodes(config: ScenarioConfig, flavor: Flavor): ScenarioConfig {
  return flavor === "kcnp" ? { ...config, enableNodeSelectorLabels: true } : config;
}

function readGroups(documents: readonly unknown[]): { groups: CidrGroup[]; refused: RefusedPolicy[] } {
  const groups: CidrGroup[] = [];
  const refused: RefusedPolicy[] = [];
  for (const document of documents) {
    const result = readCidrGroup(document);
    if ("group" in result) groups.push(result.group);
    else refused.push({ name: nameOf(document), errors: result.errors });
  }
  return { groups, refused };
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
  { policies, groups }: ScenarioObjects,
): ScenarioWorld | { readonly unsupported: string } {
  const config = withNodes(scenario.config, scenario.flavor);
  const numbers = new Identities(config.localCluster);
  const byRef = new Map<string, WorldEnd>();
  const endpoints: WorldEndpoint[] = [];
  for (const one of scenario.endpoints) {
    const end = worldEnd(one, { ...scenario, config }, numbers);
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
      hostFirewall: config.hostFirewall,
    },
  } as const;
  // Cilium does not look at them unless it is told to
  const areWatched = config.clusterNetworkPolicy || scenario.flavor === "kcnp";
  const inForce = new Map([...policies].filter(([, { kind }]) => areWatched || !CLUSTER_KINDS.includes(kind)));
  return {
    world: new PolicyWorld({
      settings,
      endpoints,
      policies: inForce,
      groups,
      services: scenario.services.map(serviceOf),
      names: namesOf(scenario.dnsCache),
    }),
    find: (ref) => byRef.get(ref) ?? reservedEnd(ref),
  };
}

function serviceOf({ name, namespace, labels, selector, endpointAddresses }: ScenarioService): PolicyService {
  return { name, namespace, labels, addresses: endpointAddresses, ...(selector !== undefined && { selector }) };
}

/** What was learned for each name, from all its answers. What is no name was never learned. */
function namesOf(answers: readonly DnsAnswer[]): Map<string, IpAddress[]> {
  const names = new Map<string, Map<string, IpAddress>>();
  for (const answer of answers) {
    const name = canonicalName(answer.name);
    if (name === undefined) continue;
    const known = names.get(name) ?? new Map<string, IpAddress>();
    names.set(name, known);
    for (const address of answer.addresses) known.set(formatAddress(address), address);
  }
  return new Map([...names].map(([name, addresses]) => [name, [...addresses.values()]]));
}
