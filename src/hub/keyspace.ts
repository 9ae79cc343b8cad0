/**
 * The hub's keys and values in Cilium's clustermesh layout: what a Cilium agent or KVStoreMesh reads from us. Writers here,
 * strict readers in keyspace_read.ts. Values are JSON as Go's encoding/json prints it, except identities, which are text.
 *
 * @see facts: Cilium `pkg/node/types/node.go`, `pkg/identity/identity.go`, `pkg/ipcache/kvstore.go`, `pkg/clustermesh/types`,
 *      `pkg/kvstore/store/syncstore.go`
 */
import { toBase64 } from "../bytes/text.ts";
import { formatLabelList, type Labels } from "../identity/labels.ts";
import { formatAddress, type IpPrefix } from "../ip/address.ts";
import type { ClusterRef, NamedPort } from "../mesh/entries.ts";

/** Rewritten at least once a minute; readers take its age as ours. */
export const HEARTBEAT_KEY = "cilium/.heartbeat";
export const HEARTBEAT_EVERY_MS = 60_000;
export const NODES_PREFIX = "cilium/state/nodes/v1/";
/** The address space is the literal "default". */
export const IPS_PREFIX = "cilium/state/ip/v1/default/";
export const IDENTITIES_PREFIX = "cilium/state/identities/v1/id/";

/** `EncryptionKey` and `Key` of what is sealed by WireGuard; 0 = not encrypted. */
export const WIREGUARD_KEY_INDEX = 255;

/** Canary names lack the `/id` and `/default` of the keys that they speak for. */
const SYNCED_KINDS = ["nodes", "services", "identities", "ip"] as const;

export function nodeKey(cluster: string, node: string): string {
  return `${NODES_PREFIX}${cluster}/${node}`;
}

/** @param ip canonical text of an address (`formatAddress`), or `address/length`: readers compare it with the value */
export function ipKey(ip: string): string {
  return IPS_PREFIX + ip;
}

export function identityKey(identity: number): string {
  return IDENTITIES_PREFIX + identity;
}

export function clusterConfigKey(cluster: string): string {
  return `cilium/cluster-config/${cluster}`;
}

/** "The first full writing of this kind is done", one key for each kind; without all four a reader waits for ever. */
export function syncedKeys(cluster: string): string[] {
  return SYNCED_KINDS.map((kind) => `cilium/synced/${cluster}/cilium/state/${kind}/v1`);
}

/** What a node entry says. */
export interface NodeFacts {
  readonly name: string;
  readonly cluster: ClusterRef;
  /** canonical text; WireGuard and tunnel endpoint for Cilium nodes */
  readonly internalIp: string;
  /** prefixes behind the node, none for a member that is only itself */
  readonly ipv4AllocCidr?: IpPrefix;
  readonly ipv6AllocCidr?: IpPrefix;
  /** WireGuard public key, 32 octets; none: traffic to it is not encrypted */
  readonly publicKey?: Uint8Array;
  readonly labels: Readonly<Record<string, string>>;
}

/** Value of a node key. Fields in Go's order; a CIDR is an object, because 1.20 and older read nothing else. */
export function writeNode(node: NodeFacts): string {
  return JSON.stringify({
    Name: node.name,
    Cluster: node.cluster.name,
    IPAddresses: [{ Type: "InternalIP", IP: node.internalIp }],
    IPv4AllocCIDR: cidrOf(node.ipv4AllocCidr),
    IPv4SecondaryAllocCIDRs: null,
    IPv6AllocCIDR: cidrOf(node.ipv6AllocCidr),
    IPv6SecondaryAllocCIDRs: null,
    IPv4HealthIP: "",
    IPv6HealthIP: "",
    IPv4IngressIP: "",
    IPv6IngressIP: "",
    ClusterID: node.cluster.id,
    Source: "custom-resource",
    EncryptionKey: node.publicKey === undefined ? 0 : WIREGUARD_KEY_INDEX,
    Labels: node.labels,
    Annotations: null,
    NodeIdentity: 0,
    WireguardPubKey: node.publicKey === undefined ? "" : toBase64(node.publicKey),
    BootID: "",
  });
}

/** What an address entry says. */
export interface IpFacts {
  /** canonical text; the key's last part */
  readonly ip: string;
  /** `InternalIP` of the node that it is behind, byte for byte */
  readonly hostIp: string;
  readonly identity: number;
  readonly isEncrypted: boolean;
  readonly namespace: string;
  readonly podName: string;
  readonly namedPorts: readonly NamedPort[];
}

/** Value of an address key. */
export function writeIp(facts: IpFacts): string {
  const ports = [...facts.namedPorts].sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  const value: Record<string, unknown> = {
    IP: facts.ip,
    Mask: null,
    HostIP: facts.hostIp,
    ID: facts.identity,
    Key: facts.isEncrypted ? WIREGUARD_KEY_INDEX : 0,
    Metadata: "",
  };
  if (facts.namespace !== "") value["K8sNamespace"] = facts.namespace;
  if (facts.podName !== "") value["K8sPodName"] = facts.podName;
  if (ports.length > 0) {
    value["NamedPorts"] = ports.map(({ name, port, protocol }) => ({ Name: name, Port: port, Protocol: protocol }));
  }
  return JSON.stringify(value);
}

/** Value of an identity key. Readers want `k8s:io.cilium.k8s.policy.cluster` in it, with the cluster's name. */
export function writeIdentity(labels: Labels): string {
  return formatLabelList(labels);
}

export interface ClusterConfig {
  readonly id: number;
  readonly maxConnectedClusters: 255 | 511;
}

/** Value of the cluster-config key. No service exports: the capability is left out, which readers take as "not supported". */
export function writeClusterConfig(config: ClusterConfig): string {
  return JSON.stringify({
    id: config.id,
    capabilities: { syncedCanaries: true, maxConnectedClusters: config.maxConnectedClusters },
  });
}

/** Value of canaries and heartbeat: RFC 3339. */
export function writeTime(unixMs: number): string {
  return new Date(unixMs).toISOString();
}

/** A prefix as Go prints `net.IPNet` inside a Node. */
function cidrOf(prefix: IpPrefix | undefined): { IP: string; Mask: string } | null {
  if (prefix === undefined) return null;
  const mask = new Uint8Array(prefix.address.length);
  for (let i = 0; i < mask.length; i++) mask[i] = 0xff << (8 - Math.min(8, Math.max(0, prefix.length - 8 * i)));
  return { IP: formatAddress(prefix.address), Mask: toBase64(mask) };
}
