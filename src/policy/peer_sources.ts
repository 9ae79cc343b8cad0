/**
 * What peers of rules mean that name other objects: CIDR groups and services. Rules are bound with what these objects hold at the
 * moment; who mentions an object that changes is bound again.
 */
import { KEY_NAMESPACE, type Labels, SOURCE_K8S } from "../identity/labels.ts";
import type { IpAddress, IpPrefix } from "../ip/address.ts";
import type { Peer, Requirement, Rule, Selector } from "./model.ts";
import type { CidrGroup } from "./read_cidr_group.ts";
import { bindSelector, labelSet, matchesSelector } from "./selector.ts";

/** A Kubernetes service, as far as `toServices` needs it. */
export interface PolicyService {
  readonly name: string;
  readonly namespace: string;
  /** of the object, plain keys */
  readonly labels: Labels;
  /** labels of the pods behind it, plain keys; absent or empty: the addresses are */
  readonly selector?: Labels;
  readonly addresses: readonly IpAddress[];
}

type GroupPeer = Extract<Peer, { kind: "cidrGroup" }>;
type ServicePeer = Extract<Peer, { kind: "service" }>;

/** An object that changed: as it was, and as it is. */
export type SourceChange =
  | { readonly kind: "cidrGroup"; readonly versions: readonly CidrGroup[] }
  | { readonly kind: "service"; readonly versions: readonly PolicyService[] };

export class PeerSources {
  readonly #groups = new Map<string, CidrGroup>();
  readonly #services = new Map<string, PolicyService>();

  /** @returns what changed; `undefined` when nothing did */
  putGroup(group: CidrGroup): SourceChange | undefined {
    const before = this.#groups.get(group.name);
    if (isSame(before, group)) return undefined;
    this.#groups.set(group.name, group);
    return { kind: "cidrGroup", versions: before === undefined ? [group] : [before, group] };
  }

  removeGroup(name: string): SourceChange | undefined {
    const before = this.#groups.get(name);
    return this.#groups.delete(name) ? { kind: "cidrGroup", versions: [before!] } : undefined;
  }

  /** @param key "<namespace>/<name>" */
  putService(key: string, service: PolicyService): SourceChange | undefined {
    const before = this.#services.get(key);
    if (isSame(before, service)) return undefined;
    this.#services.set(key, service);
    return { kind: "service", versions: before === undefined ? [service] : [before, service] };
  }

  removeService(key: string): SourceChange | undefined {
    const before = this.#services.get(key);
    return this.#services.delete(key) ? { kind: "service", versions: [before!] } : undefined;
  }

  /** Prefixes of the groups that a peer means. An unknown group has none. */
  prefixesOf(peer: GroupPeer): IpPrefix[] {
    return [...this.#groups.values()].filter((group) => meansGroup(peer, group)).flatMap(({ prefixes }) => prefixes);
  }

  /** Services that a peer means. */
  servicesOf(peer: ServicePeer): PolicyService[] {
    return [...this.#services.values()].filter((service) => meansService(peer, service));
  }
}

/** Whether a rule has to be bound again when an object changes. */
export function mentions(rule: Rule, { kind, versions }: SourceChange): boolean {
  return (rule.peers ?? []).some((peer) =>
    peer.kind === "cidrGroup"
      ? kind === "cidrGroup" && versions.some((group) => meansGroup(peer, group))
      : peer.kind === "service" && kind === "service" && versions.some((service) => meansService(peer, service))
  );
}

/** Whether any object may change what a rule means. */
export function hasSources({ peers }: Rule): boolean {
  return (peers ?? []).some(({ kind }) => kind === "cidrGroup" || kind === "service");
}

function meansGroup({ group }: GroupPeer, candidate: CidrGroup): boolean {
  return typeof group === "string" ? group === candidate.name : meansObject(group, candidate.labels);
}

function meansService({ service, namespace }: ServicePeer, candidate: PolicyService): boolean {
  if (namespace !== "" && namespace !== candidate.namespace) return false;
  return typeof service === "string" ? service === candidate.name : meansObject(service, candidate.labels);
}

/** Labels of objects have no source: a selector's `any` and `k8s` both mean them. */
function meansObject(selector: Selector, labels: Labels): boolean {
  const sourced: Record<string, string> = {};
  for (const key of Object.keys(labels)) sourced[`${SOURCE_K8S}:${key}`] = labels[key]!;
  return matchesSelector(bindSelector(selector, undefined), labelSet(sourced));
}

/** The conditions that a service's selector makes, in its namespace. `undefined`: it has none, its addresses count. */
export function conditionsOf({ selector, namespace }: PolicyService): Requirement[] | undefined {
  const keys = Object.keys(selector ?? {});
  if (keys.length === 0) return undefined;
  return [...keys.map((key) => isOne(key, selector![key]!)), isOne(KEY_NAMESPACE, namespace)];
}

function isOne(key: string, value: string): Requirement {
  return { source: SOURCE_K8S, key, operator: "In", values: [value] };
}

/** Objects are plain data; addresses are compared by their octets. */
function isSame(a: unknown, b: unknown): boolean {
  return a !== undefined && JSON.stringify(a) === JSON.stringify(b);
}
