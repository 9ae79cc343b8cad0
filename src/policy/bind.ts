/** Rules + settings + subject -> rules without open ends: peers with their defaults, ports by number. */
import { formatPrefix, type IpPrefix } from "../ip/address.ts";
import { KEY_CLUSTER, SOURCE_FQDN, SOURCE_K8S, SOURCE_NODE, SOURCE_RESERVED } from "../identity/labels.ts";
import type { EngineSettings } from "./active.ts";
import { KEY_END, makeKey } from "./decision.ts";
import type { BoundPeer } from "./identity_index.ts";
import { hostPrefix } from "./local_records.ts";
import {
  type CidrMatch,
  EGRESS,
  type Entity,
  type NamedPort,
  type Peer,
  type PolicySettings,
  type PortName,
  type PortRange,
  PROTOCOL_SCTP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  type Requirement,
  type Rule,
  type Selector,
} from "./model.ts";
import { conditionsOf, type PeerSources, type PolicyService } from "./peer_sources.ts";
import { bindRequirements, bindSelector } from "./selector.ts";

/** What rules are bound with. */
export interface Binding {
  /** name of the local cluster */
  readonly cluster: string;
  readonly defaultLocalCluster: boolean;
  /** the subject's named ports, for ingress */
  readonly namedPorts: readonly NamedPort[];
  /** addresses inside the cluster that prefixes mean: in Cilium's own policies, and in those of Kubernetes */
  readonly matching: readonly CidrMatch[];
  readonly standardMatching: readonly CidrMatch[];
  /** what groups and services hold */
  readonly sources: PeerSources;
}

/** What rules are bound with, for one endpoint. */
export function makeBinding(
  settings: EngineSettings,
  namedPorts: readonly NamedPort[],
  sources: PeerSources,
): Binding {
  const { cluster, policy } = settings;
  return {
    cluster,
    defaultLocalCluster: policy.defaultLocalCluster,
    namedPorts,
    matching: policy.cidrMatchMode ?? [],
    standardMatching: standardMatching(policy),
    sources,
  };
}

/** Addresses inside the cluster that prefixes in policies of Kubernetes mean: all of them by Kubernetes' own reading. */
export function standardMatching(settings: PolicySettings): readonly CidrMatch[] {
  return settings.flavor === "kubernetes" ? ["nodes", "pods"] : settings.cidrMatchMode ?? [];
}

export interface BoundRule {
  readonly rule: Rule;
  /** `undefined`: everybody, unknown identities too */
  readonly peers: readonly BoundPeer[] | undefined;
  /** pairs (first key, one past the last); the part that is the same for every peer */
  readonly ranges: Uint32Array;
  /** names that each destination resolves for itself */
  readonly names: readonly PortName[];
  /** equal for rules that mean the same */
  readonly content: string;
}

export function bindRule(rule: Rule, binding: Binding): BoundRule {
  const peers = bindPeers(rule, binding);
  const names = rule.direction === EGRESS ? rule.names : [];
  const ranges = rule.ports === undefined
    ? EVERYTHING
    : keyRanges(rule.ports, rule.direction === EGRESS ? [] : named(rule, binding));
  const content = [
    rule.direction,
    rule.tier,
    rule.priority,
    rule.verdict,
    peers === undefined ? "*" : peers.map((peer) => peer.id).join(" | "),
    ranges.join(","),
    names.map((n) => `${n.name}/${n.protocols.join("+")}`).join(","),
    rule.l7 === undefined ? "" : JSON.stringify(rule.l7),
  ].join(" ");
  return { rule, peers, ranges, names, content };
}

const EVERYTHING = Uint32Array.of(0, KEY_END);

function named(rule: Rule, binding: Binding): PortRange[] {
  return resolveNames(rule.names, binding.namedPorts, rule.verdict === "deny");
}

const PROTOCOL_OF: Readonly<Record<NamedPort["protocol"], number>> = {
  TCP: PROTOCOL_TCP,
  UDP: PROTOCOL_UDP,
  SCTP: PROTOCOL_SCTP,
};

/**
 * Names to numbers. One that is missing, or has another protocol, names nothing. One that stands for several numbers (members of one
 * identity that differ) opens none of them, and a deny closes all.
 */
export function resolveNames(names: readonly PortName[], known: readonly NamedPort[], isDeny: boolean): PortRange[] {
  const ranges: PortRange[] = [];
  for (const { name, protocols } of names) {
    for (const protocol of protocols) {
      const ports = new Set(
        known.filter((p) => p.name === name && PROTOCOL_OF[p.protocol] === protocol).map((p) => p.port),
      );
      if (ports.size > 1 && !isDeny) continue;
      for (const port of ports) ranges.push({ protocol, first: port, last: port });
    }
  }
  return ranges;
}

/** Pairs (first key, one past the last), sorted and joined where they touch. */
export function keyRanges(...lists: (readonly PortRange[])[]): Uint32Array {
  const pairs = lists.flat().map((
    r,
  ): [number, number] => [makeKey(r.protocol, r.first), makeKey(r.protocol, r.last) + 1]);
  pairs.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const joined: number[] = [];
  for (const [first, end] of pairs) {
    const last = joined.length - 1;
    if (last > 0 && first <= joined[last]!) joined[last] = Math.max(joined[last]!, end);
    else joined.push(first, end);
  }
  return Uint32Array.from(joined);
}

/** `undefined` for everybody. Doubles are dropped; the order is that of the text, so that the same peers are the same rule. */
function bindPeers(rule: Rule, binding: Binding): BoundPeer[] | undefined {
  if (rule.peers === undefined) return undefined;
  const peers = new Map<string, BoundPeer>();
  for (const peer of rule.peers) {
    if (peer.kind === "entity" && peer.entity === "all") return undefined;
    for (const bound of bindPeer(peer, binding)) peers.set(bound.id, bound);
  }
  return [...peers.keys()].sort().map((id) => peers.get(id)!);
}

function bindPeer(peer: Peer, binding: Binding): BoundPeer[] {
  const { matching, standardMatching, sources } = binding;
  switch (peer.kind) {
    case "entity":
      return entityTerms(peer.entity, binding).map((terms) => asPeer(bindRequirements(terms)));
    case "selector":
      return [asPeer(bindSelector(peer.selector, defaultCluster(binding)))];
    case "cidr":
      return [asCidr(peer.prefix, peer.except, peer.isStandard ? standardMatching : matching)];
    case "cidrGroup":
      return sources.prefixesOf(peer).map((prefix) => asCidr(prefix, peer.except, matching));
    case "service":
      return sources.servicesOf(peer).flatMap((service) => servicePeers(service, matching));
    case "fqdn":
      return [asPeer(bindRequirements([{ source: SOURCE_FQDN, key: peer.pattern, operator: "Exists", values: [] }]))];
    case "node":
      return [asPeer(bindRequirements(nodeTerms(peer.selector, defaultCluster(binding))))];
  }
}

function defaultCluster({ defaultLocalCluster, cluster }: Binding): string | undefined {
  return defaultLocalCluster ? cluster : undefined;
}

/** The pods of any cluster that a service's selector picks in its namespace, else its addresses, which are those of no pod. */
function servicePeers(service: PolicyService, matching: readonly CidrMatch[]): BoundPeer[] {
  const conditions = conditionsOf(service);
  if (conditions !== undefined) return [asPeer(bindRequirements(conditions))];
  return service.addresses.map((address) => asCidr(hostPrefix(address), [], matching));
}

/**
 * Node labels stand beside the labels of a node's identity, and have a source of their own, the name of its cluster too: with that of
 * endpoints, a selector of endpoints could pick nodes because some other rule is about nodes.
 */
function nodeTerms({ requirements, defaultsCluster }: Selector, cluster: string | undefined): Requirement[] {
  const terms = requirements.map((one) => ({ ...one, source: SOURCE_NODE }));
  if (defaultsCluster && cluster !== undefined) {
    terms.push({ source: SOURCE_NODE, key: KEY_CLUSTER, operator: "In", values: [cluster] });
  }
  return [...terms, ...reserved("remote-node")];
}

function asCidr(prefix: IpPrefix, except: readonly IpPrefix[], matching: readonly CidrMatch[]): BoundPeer {
  const id = `cidr ${formatPrefix(prefix)} except ${except.map(formatPrefix).sort().join(",")} ${matching.join("+")}`;
  return { kind: "cidr", id, prefix, except, matching };
}

function asPeer(selector: ReturnType<typeof bindRequirements>): BoundPeer {
  return { kind: "selector", id: selector.id, selector };
}

/** Everyone who is in the index: for what each identity resolves for itself. */
export const EVERYONE: BoundPeer = asPeer(bindRequirements([]));

const CLUSTER_RESERVED = ["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"];

/** Alternatives, each a list of conditions. Entities get no namespace and no cluster default. */
function entityTerms(entity: Entity, binding: Binding): Requirement[][] {
  switch (entity) {
    case "none":
    case "all": // everybody; not by labels
      return [];
    case "world":
      return ["world", "world-ipv4", "world-ipv6"].map(reserved);
    case "cluster":
      return [
        ...CLUSTER_RESERVED.map(reserved),
        [{ source: SOURCE_K8S, key: KEY_CLUSTER, operator: "In", values: [binding.cluster] }],
      ];
    case "cluster-mesh":
      return [...CLUSTER_RESERVED.map(reserved), [{
        source: SOURCE_K8S,
        key: KEY_CLUSTER,
        operator: "Exists",
        values: [],
      }]];
    default:
      return [reserved(entity)];
  }
}

function reserved(name: string): Requirement[] {
  return [{ source: SOURCE_RESERVED, key: name, operator: "Exists", values: [] }];
}
