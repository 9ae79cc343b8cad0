/**
 * Readers of Cilium's clustermesh values, as strict as Cilium's own: what an agent would refuse with a warning is `undefined`
 * here, one by one, and harms nothing beside it. Field names are matched exactly; unknown fields are ignored, as in Go.
 */
import { fromBase64 } from "../bytes/text.ts";
import { KEY_CLUSTER, type Labels, parseLabelList } from "../identity/labels.ts";
import { isInCluster, type MaxClusters } from "../identity/ranges.ts";
import { formatAddress, type IpPrefix, parseAddress, parsePrefix } from "../ip/address.ts";
import type { ClusterRef, NamedPort } from "../mesh/entries.ts";
import { isCount, isObject, type JsonObject, readJsonObject, readList, readTextMap } from "./json.ts";
import { type IpFacts, type NodeFacts, WIREGUARD_KEY_INDEX } from "./keyspace.ts";

/** A node as read; addresses beyond the node address are not needed yet. */
export type ReadNode = NodeFacts & { readonly isEncrypted: boolean };

/**
 * Reads a node value.
 *
 * @param cluster whose key space it stands in, as configured: name and number must agree
 * @param key     last part of its key: must be its name
 */
export function readNode(text: string, cluster: ClusterRef, key: string): ReadNode | undefined {
  const value = readJsonObject(text);
  if (value === undefined || value["Name"] !== key || key === "" || value["Cluster"] !== cluster.name) return undefined;
  if (value["ClusterID"] !== cluster.id) return undefined;
  const internalIp = nodeAddressOf(value["IPAddresses"]);
  const v4 = readCidr(value["IPv4AllocCIDR"], 4);
  const v6 = readCidr(value["IPv6AllocCIDR"], 16);
  const keyText = value["WireguardPubKey"] ?? "";
  const publicKey = typeof keyText === "string" && keyText !== "" ? fromBase64(keyText) : undefined;
  if (internalIp === undefined || v4 === undefined || v6 === undefined) return undefined;
  if (keyText !== "" && publicKey?.length !== 32) return undefined;
  const labels = value["Labels"] == null ? {} : readTextMap(value["Labels"]);
  if (labels === undefined) return undefined;
  return {
    name: key,
    cluster,
    internalIp,
    labels,
    isEncrypted: value["EncryptionKey"] === WIREGUARD_KEY_INDEX,
    ...(v4 && { ipv4AllocCidr: v4 }),
    ...(v6 && { ipv6AllocCidr: v6 }),
    ...(publicKey && { publicKey }),
  };
}

/** "Node IP": the first InternalIP, else the first ExternalIP, else any other but CiliumInternalIP. Canonical text. */
function nodeAddressOf(value: unknown): string | undefined {
  const addresses = readList(value, (item) => {
    if (!isObject(item) || typeof item["IP"] !== "string" || typeof item["Type"] !== "string") return undefined;
    const address = parseAddress(item["IP"]);
    return address && { type: item["Type"], ip: formatAddress(address) };
  });
  const ofType = (type: string) => addresses?.find((address) => address.type === type)?.ip;
  return ofType("InternalIP") ?? ofType("ExternalIP") ?? addresses?.find((a) => a.type !== "CiliumInternalIP")?.ip;
}

/** `null` for an absent one, `undefined` for a bad one. Both the object and the text that newer versions are to write. */
function readCidr(value: unknown, octets: 4 | 16): IpPrefix | null | undefined {
  if (value == null) return null;
  const prefix = typeof value === "string" ? parsePrefix(value) : readIpNet(value);
  return prefix?.address.length === octets ? prefix : undefined;
}

function readIpNet(value: unknown): IpPrefix | undefined {
  if (!isObject(value) || typeof value["IP"] !== "string" || typeof value["Mask"] !== "string") return undefined;
  const address = parseAddress(value["IP"]);
  const mask = fromBase64(value["Mask"]);
  if (address === undefined || mask?.length !== address.length) return undefined;
  const bits = Array.from(mask, (octet) => octet.toString(2).padStart(8, "0")).join("");
  return /^1*0*$/.test(bits) ? { address, length: bits.lastIndexOf("1") + 1 } : undefined;
}

/**
 * Reads an address value.
 *
 * @param key  last part of its key: must be the text that the value gives
 * @param cluster whose identities it may name
 */
export function readIp(text: string, key: string, cluster: ClusterRef, max: MaxClusters = 255): IpFacts | undefined {
  const value = readJsonObject(text);
  const ip = value && readIpText(value);
  if (value === undefined || ip === undefined || ip !== key) return undefined;
  const hostIp = typeof value["HostIP"] === "string" ? value["HostIP"] : undefined;
  const host = hostIp === "" ? "" : hostIp && parseAddress(hostIp) && formatAddress(parseAddress(hostIp)!);
  const identity = value["ID"];
  if (host === undefined || !isCount(identity)) return undefined;
  if (identity >= 256 && !isInCluster(identity, cluster.id, max)) return undefined;
  const namedPorts = value["NamedPorts"] == null ? [] : readList(value["NamedPorts"], readNamedPort);
  const namespace = value["K8sNamespace"] ?? "";
  const podName = value["K8sPodName"] ?? "";
  if (namedPorts === undefined || typeof namespace !== "string" || typeof podName !== "string") return undefined;
  const isEncrypted = value["Key"] === WIREGUARD_KEY_INDEX;
  // host is what it calls itself; to everybody else it is a remote node
  return { ip, hostIp: host, identity: identity === 1 ? 6 : identity, isEncrypted, namespace, podName, namedPorts };
}

/** The text that Go builds from IP and Mask: the address, and `/length` when there is a mask. */
function readIpText(value: JsonObject): string | undefined {
  if (typeof value["IP"] !== "string") return undefined;
  const address = parseAddress(value["IP"]);
  if (address === undefined) return undefined;
  if (value["Mask"] == null) return formatAddress(address);
  const prefix = readIpNet(value);
  return prefix && `${formatAddress(address)}/${prefix.length}`;
}

function readNamedPort(item: unknown): NamedPort | undefined {
  if (!isObject(item)) return undefined;
  const { Name: name, Port: port, Protocol: protocol } = item;
  if (typeof name !== "string" || !isCount(port) || port < 1 || port > 65535) return undefined;
  return protocol === "TCP" || protocol === "UDP" || protocol === "SCTP" ? { name, port, protocol } : undefined;
}

/**
 * Reads an identity.
 *
 * @param key last part of its key, decimal
 * @returns undefined when the number is outside the cluster's range, or the labels do not name the cluster
 */
export function readIdentity(
  text: string,
  key: string,
  cluster: ClusterRef,
  max: MaxClusters = 255,
): { readonly identity: number; readonly labels: Labels } | undefined {
  if (!/^[1-9][0-9]{0,9}$/.test(key) || !isInCluster(Number(key), cluster.id, max)) return undefined;
  const labels = parseLabelList(text);
  return labels?.[`k8s:${KEY_CLUSTER}`] === cluster.name ? { identity: Number(key), labels } : undefined;
}
