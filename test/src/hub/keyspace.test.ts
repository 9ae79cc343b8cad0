import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parsePrefix } from "../../../src/ip/address.ts";
import {
  clusterConfigKey,
  identityKey,
  type IpFacts,
  ipKey,
  nodeKey,
  syncedKeys,
  writeClusterConfig,
  writeIdentity,
  writeIp,
  writeNode,
  writeTime,
} from "../../../src/hub/keyspace.ts";
import { readIdentity, readIp, readNode } from "../../../src/hub/keyspace_read.ts";

const cluster = { name: "edge-a", id: 42 };
const key = Uint8Array.from({ length: 32 }, (_, i) => i);
const node = {
  name: "gw-01",
  cluster,
  internalIp: "192.0.2.10",
  publicKey: key,
  labels: { "kubernetes.io/arch": "arm64" },
};
const ip: IpFacts = {
  ip: "10.200.1.5",
  hostIp: "192.0.2.10",
  identity: 2752513,
  isEncrypted: true,
  namespace: "edge",
  podName: "sensor-gw",
  namedPorts: [{ name: "http", port: 8080, protocol: "TCP" }],
};

describe("keys are Cilium's", () => {
  it("for nodes, addresses, identities, cluster config and canaries", () => {
    expect(nodeKey("edge-a", "gw-01")).toBe("cilium/state/nodes/v1/edge-a/gw-01");
    expect(ipKey("10.200.1.5")).toBe("cilium/state/ip/v1/default/10.200.1.5");
    expect(identityKey(2752513)).toBe("cilium/state/identities/v1/id/2752513");
    expect(clusterConfigKey("edge-a")).toBe("cilium/cluster-config/edge-a");
    expect(syncedKeys("edge-a")).toEqual([
      "cilium/synced/edge-a/cilium/state/nodes/v1",
      "cilium/synced/edge-a/cilium/state/services/v1",
      "cilium/synced/edge-a/cilium/state/identities/v1",
      "cilium/synced/edge-a/cilium/state/ip/v1",
    ]);
  });
});

describe("values are written as Go writes them", () => {
  it("node", () => {
    const cidr = parsePrefix("10.200.1.0/24")!;
    expect(writeNode({ ...node, ipv4AllocCidr: cidr })).toBe(
      '{"Name":"gw-01","Cluster":"edge-a","IPAddresses":[{"Type":"InternalIP","IP":"192.0.2.10"}],' +
        '"IPv4AllocCIDR":{"IP":"10.200.1.0","Mask":"////AA=="},"IPv4SecondaryAllocCIDRs":null,' +
        '"IPv6AllocCIDR":null,"IPv6SecondaryAllocCIDRs":null,"IPv4HealthIP":"","IPv6HealthIP":"",' +
        '"IPv4IngressIP":"","IPv6IngressIP":"","ClusterID":42,"Source":"custom-resource","EncryptionKey":255,' +
        '"Labels":{"kubernetes.io/arch":"arm64"},"Annotations":null,"NodeIdentity":0,' +
        '"WireguardPubKey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","BootID":""}',
    );
  });

  it.each([["10.0.0.0/16", "//8AAA=="], ["10.0.0.0/26", "////wA=="], ["10.0.0.1/32", "/////w=="], [
    "fd00::/64",
    "//////////8AAAAAAAAAAA==",
  ]])(
    "mask of %s",
    (text, mask) => {
      const prefix = parsePrefix(text)!;
      const facts = prefix.address.length === 4 ? { ipv4AllocCidr: prefix } : { ipv6AllocCidr: prefix };
      expect(writeNode({ ...node, ...facts })).toContain(`"Mask":"${mask}"`);
    },
  );

  it("address, with and without the fields that Go leaves out when empty", () => {
    expect(writeIp(ip)).toBe(
      '{"IP":"10.200.1.5","Mask":null,"HostIP":"192.0.2.10","ID":2752513,"Key":255,"Metadata":"","K8sNamespace":"edge",' +
        '"K8sPodName":"sensor-gw","NamedPorts":[{"Name":"http","Port":8080,"Protocol":"TCP"}]}',
    );
    expect(writeIp({ ...ip, isEncrypted: false, namespace: "", podName: "", namedPorts: [] })).toBe(
      '{"IP":"10.200.1.5","Mask":null,"HostIP":"192.0.2.10","ID":2752513,"Key":0,"Metadata":""}',
    );
  });

  it("identity: sorted by key, each label closed", () => {
    const labels = {
      "k8s:io.kubernetes.pod.namespace": "edge",
      "k8s:io.cilium.k8s.policy.cluster": "edge-a",
      "k8s:app": "sensor",
    };
    expect(writeIdentity(labels)).toBe(
      "k8s:app=sensor;k8s:io.cilium.k8s.policy.cluster=edge-a;k8s:io.kubernetes.pod.namespace=edge;",
    );
  });

  it("cluster config and times", () => {
    expect(writeClusterConfig({ id: 42, maxConnectedClusters: 255 })).toBe(
      '{"id":42,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}',
    );
    expect(writeTime(0)).toBe("1970-01-01T00:00:00.000Z");
  });
});

describe("readNode", () => {
  it("reads what writeNode writes", () => {
    expect(readNode(writeNode(node), cluster, "gw-01")).toEqual({ ...node, isEncrypted: true });
    const cidrs = { ipv4AllocCidr: parsePrefix("10.200.1.0/24")!, ipv6AllocCidr: parsePrefix("fd00::/64")! };
    expect(readNode(writeNode({ ...node, ...cidrs }), cluster, "gw-01")).toEqual({
      ...node,
      ...cidrs,
      isEncrypted: true,
    });
  });

  it("takes a CIDR as text too, an unmasked one, and the node address that Cilium would take", () => {
    const value = { ...JSON.parse(writeNode(node)), IPv4AllocCIDR: "10.200.1.9/24" };
    value.IPAddresses = [{ Type: "CiliumInternalIP", IP: "10.0.0.1" }, { Type: "ExternalIP", IP: "198.51.100.1" }];
    const read = readNode(JSON.stringify(value), cluster, "gw-01");
    expect(read?.internalIp).toBe("198.51.100.1");
    expect(read?.ipv4AllocCidr).toEqual(parsePrefix("10.200.1.9/24"));
  });

  it.each([
    ["another name than its key", { Name: "gw-02" }],
    ["another cluster", { Cluster: "edge-b" }],
    ["another cluster ID", { ClusterID: 41 }],
    ["no address", { IPAddresses: [] }],
    ["only a CiliumInternalIP", { IPAddresses: [{ Type: "CiliumInternalIP", IP: "10.0.0.1" }] }],
    ["an address that is none", { IPAddresses: [{ Type: "InternalIP", IP: "10.0.0" }] }],
    ["a key of the wrong size", { WireguardPubKey: "AAAA" }],
    ["a mask with holes", { IPv4AllocCIDR: { IP: "10.0.0.0", Mask: "/wD/AA==" } }],
    ["a CIDR of the other family", { IPv4AllocCIDR: { IP: "fd00::", Mask: "//////////8AAAAAAAAAAA==" } }],
  ])("refuses a node with %s", (_what, change) => {
    expect(readNode(JSON.stringify({ ...JSON.parse(writeNode(node)), ...change }), cluster, "gw-01")).toBeUndefined();
  });
});

describe("readIp", () => {
  it("reads what writeIp writes, and prefixes", () => {
    expect(readIp(writeIp(ip), ip.ip, cluster)).toEqual(ip);
    const value = { ...JSON.parse(writeIp(ip)), IP: "10.200.2.0", Mask: "////AA==" };
    expect(readIp(JSON.stringify(value), "10.200.2.0/24", cluster)?.ip).toBe("10.200.2.0/24");
  });

  it("calls another cluster's host a remote node", () => {
    expect(readIp(writeIp({ ...ip, identity: 1 }), ip.ip, cluster)?.identity).toBe(6);
  });

  it("refuses what an agent refuses", () => {
    expect(readIp(writeIp(ip), "10.200.1.6", cluster)).toBeUndefined();
    expect(readIp(writeIp({ ...ip, ip: "FD00::1" }), "FD00::1", cluster)).toBeUndefined();
    expect(readIp(writeIp({ ...ip, identity: 65536 * 41 + 256 }), ip.ip, cluster)).toBeUndefined();
    expect(readIp(writeIp({ ...ip, hostIp: "x" }), ip.ip, cluster)).toBeUndefined();
  });
});

describe("readIdentity", () => {
  const labels = { "k8s:app": "web", "k8s:io.cilium.k8s.policy.cluster": "edge-a" };
  it("reads what writeIdentity writes", () => {
    expect(readIdentity(writeIdentity(labels), "2752513", cluster)).toEqual({ identity: 2752513, labels });
  });

  it("refuses numbers of other clusters, missing or wrong cluster labels, and keys that are no number", () => {
    const text = writeIdentity(labels);
    expect(readIdentity(text, "65536", cluster)).toBeUndefined();
    expect(readIdentity("k8s:app=web;", "2752513", cluster)).toBeUndefined();
    expect(readIdentity(text, "2752513", { name: "edge-b", id: 42 })).toBeUndefined();
    expect(readIdentity(text, "02752513", cluster)).toBeUndefined();
    expect(readIdentity("", "2752513", cluster)).toBeUndefined();
  });
});

it("no text makes a reader throw", () => {
  const readers = [
    (text: string) => readNode(text, cluster, "gw-01"),
    (text: string) => readIp(text, "10.200.1.5", cluster),
    (text: string) => readIdentity(text, "2752513", cluster),
  ];
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => readers.forEach((read) => void read(text))));
  const valid = [writeNode(node), writeIp(ip)].map((text) => Object.keys(JSON.parse(text)));
  fc.assert(fc.property(fc.constantFrom(0, 1), fc.nat(20), fc.jsonValue(), (which, at, value) => {
    const text = which === 0 ? writeNode(node) : writeIp(ip);
    const field = valid[which]![at % valid[which]!.length]!;
    readers.forEach((read) => void read(JSON.stringify({ ...JSON.parse(text), [field]: value })));
  }));
});
