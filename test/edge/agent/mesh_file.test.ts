import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { x25519PublicKey } from "../../../edge/agent/device_keys.ts";
import { type MeshFile, readMeshFile } from "../../../edge/agent/mesh_file.ts";
import { EdgeError } from "../../../edge/errors.ts";
import { toBase64 } from "../../../src/bytes/text.ts";
import { MeshState } from "../../../src/mesh/state.ts";

let dir: string;
beforeEach(() => dir = mkdtempSync(join(tmpdir(), "edgemesh-meshfile-")));
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const KEY = toBase64(new Uint8Array(32).fill(8));
const PEER_KEY = toBase64(new Uint8Array(32).fill(3));
const CONTEXT = { publicKeyOf: x25519PublicKey, revision: 1 };

function read(text: string): MeshFile {
  writeFileSync(join(dir, "mesh.yaml"), text);
  return readMeshFile(join(dir, "mesh.yaml"), CONTEXT);
}

/** The faults of a file, one a line. */
function faults(text: string): string[] {
  try {
    read(text);
  } catch (error) {
    if (error instanceof EdgeError && error.code === "EDGE_MESH_FILE_INVALID") {
      return error.message.split("\n").slice(1).map((line) => line.trim());
    }
    throw error;
  }
  return [];
}

function stateOf(file: MeshFile): MeshState {
  const state = new MeshState({
    selfName: file.selfName,
    publicKey: x25519PublicKey(file.privateKey),
    trust: { kind: "local" },
    peerOptions: (member) => file.peerOptions.get(`${member.cluster.name}/${member.name}`)!,
  });
  const change = state.apply(file.frame, Date.now());
  expect([change.frameRefused, change.refused]).toEqual([undefined, []]);
  return state;
}

const SMALLEST = `node: { name: box-a, addresses: [10.9.0.1], privateKey: ${KEY} }\n`;

/** The example of the design, whole. */
const WHOLE = `
node:
  name: box-a
  cluster: { name: edge1, id: 1 }
  privateKeyFile: box-a.key
  addresses: [10.9.0.1/32, fd09::1/128]
  underlay: 172.31.0.1
  listenPort: 51999
  namespace: default
  labels: { app: web }
  namedPorts: { http: 8080/TCP }
  identity: 65537
routing: { mode: tunnel, tunnelProtocol: geneve, encryption: wireguard }
peers:
  - name: box-b
    cluster: { name: edge1, id: 1 }
    underlay: 172.31.0.2
    publicKey: ${PEER_KEY}
    presharedKeyFile: ab.psk
    endpoint: 172.31.0.2:51871
    persistentKeepalive: 25
    addresses: [10.9.0.2/32, 10.7.0.0/16]
    namespace: default
    labels: { app: client }
    identity: 65538
identities: [{ id: 65540, labels: { "k8s:app": db, "k8s:io.kubernetes.pod.namespace": prod } }]
ips: [{ prefix: 10.8.0.0/16, peer: box-b, identity: 65540 }]
namespaces: { prod: { labels: { team: core } } }
services: []
policies:
  - policies/
  - { apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: { name: inline }, spec: { podSelector: {} } }
`;

function writeParts(): void {
  writeFileSync(join(dir, "box-a.key"), `${KEY}\n`);
  writeFileSync(join(dir, "ab.psk"), `${toBase64(new Uint8Array(32).fill(5))}\n`);
  mkdirSync(join(dir, "policies"));
  const policy = (name: string) =>
    `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: ${name}, namespace: prod }\nspec: { podSelector: {} }\n`;
  writeFileSync(join(dir, "policies", "a.yaml"), `${policy("one")}---\n${policy("two")}---\n`);
  writeFileSync(join(dir, "policies", "README.md"), "not a policy");
}

describe("readMeshFile", () => {
  it("reads the smallest file", () => {
    const file = read(SMALLEST);
    expect(file.selfName).toBe("default/box-a");
    const state = stateOf(file);
    expect(state.self).toMatchObject({ addresses: ["10.9.0.1"], underlay: "10.9.0.1", namespace: "default" });
    expect(state.identities.get(state.self!.identity)?.labels["k8s:io.kubernetes.pod.namespace"]).toBe("default");
  });

  it("reads the example of the design into what a hub would have sent", () => {
    writeParts();
    const file = read(WHOLE);
    expect([file.selfName, file.listenPort]).toEqual(["edge1/box-a", 51999]);
    const state = stateOf(file);
    expect(state.self).toMatchObject({ identity: 65537, namedPorts: [{ name: "http", port: 8080, protocol: "TCP" }] });
    expect(state.members.get("edge1/box-b")).toMatchObject({
      addresses: ["10.9.0.2"],
      endpoints: ["172.31.0.2:51871"],
    });
    const peer = state.allCommands().find((command) => command.op === "peer")!;
    expect([peer.keepaliveSeconds, peer.presharedKey?.[0], peer.endpoint?.port]).toEqual([25, 5, 51871]);
    expect(state.prefixesOf(state.members.get("edge1/box-b")!)).toEqual(["10.9.0.2/32", "10.7.0.0/16", "10.8.0.0/16"]);
    expect(state.routes()).toEqual(["10.7.0.0/16", "10.8.0.0/16", "10.9.0.2/32"]);
    expect([...state.identities.keys()].sort()).toEqual([65537, 65538, 65540]);
    expect([...state.policies.keys()].sort()).toEqual([
      "NetworkPolicy/default/inline",
      "NetworkPolicy/prod/one",
      "NetworkPolicy/prod/two",
    ]);
    expect([...state.namespaces.keys()].sort()).toEqual(["default", "prod"]);
  });

  it("reads how policies are read, CIDR groups, and services with their backends", () => {
    const state = stateOf(read(`${SMALLEST}
policy:
  enforcementMode: always
  auditMode: true
  cidrMatchMode: [nodes, pods]
  fqdn: { minTtlSeconds: 60, rejectCode: nameError }
services:
  - { apiVersion: v1, kind: Service, metadata: { name: db, namespace: shop }, backends: [192.0.2.7, "2001:DB8::7"] }
policies:
  - { apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: { name: office }, spec: { externalCIDRs: [192.0.2.0/24] } }
  - { apiVersion: v1, kind: Service, metadata: { name: web }, spec: { selector: { app: web } } }
  - { apiVersion: v1, kind: Service, metadata: { name: old, labels: { tier: x } }, spec: {} }
  - apiVersion: discovery.k8s.io/v1
    kind: EndpointSlice
    metadata: { name: old-1, labels: { kubernetes.io/service-name: old } }
    addressType: IPv4
    endpoints: [{ addresses: [198.51.100.1] }]
  - { apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: { name: a }, spec: {} }
`));
    expect([...state.refused]).toEqual([]);
    expect(state.settings?.policy).toEqual({
      enforcementMode: "always",
      defaultLocalCluster: true,
      allowLocalhost: "always",
      auditMode: true,
      cidrMatchMode: ["nodes", "pods"],
      fqdn: { minTtlSeconds: 60, rejectCode: "nameError" },
    });
    expect([...state.cidrGroups.keys()]).toEqual(["office"]);
    expect(Object.fromEntries(state.services)).toEqual({
      "shop/db": { labels: {}, addresses: ["192.0.2.7", "2001:db8::7"] },
      "default/web": { labels: {}, selector: { app: "web" }, addresses: [] },
      "default/old": { labels: { tier: "x" }, addresses: ["198.51.100.1"] },
    });
    expect([...state.policies.keys()]).toEqual(["AdminNetworkPolicy//a"]);
  });

  it("routes the network of a node whose address has a length", () => {
    expect(stateOf(read(SMALLEST.replace("10.9.0.1", "10.9.0.1/24"))).routes()).toEqual(["10.9.0.0/24"]);
  });

  it("computes the same identity for the same labels on every box", () => {
    const peer = (labels: string) =>
      `${SMALLEST}peers: [{ name: b, publicKey: ${PEER_KEY}, addresses: [10.9.0.2], labels: ${labels} }]\n`;
    const own = (labels: string) => SMALLEST.replace("name: box-a", `name: box-a, labels: ${labels}`);
    const seen = stateOf(read(peer("{ app: web }"))).members.get("default/b")!.identity;
    expect(stateOf(read(own("{ app: web }"))).self!.identity).toBe(seen);
    expect(stateOf(read(own("{ app: db }"))).self!.identity).not.toBe(seen);
  });

  it("reports all faults at once, each with its line", () => {
    const found = faults(`node:
  name: Box_A
  addresses: [10.009.0.1]
  privateKey: short
  listenPort: 0
  nmespace: x
peers:
  - name: b
    publicKey: ${PEER_KEY}
    addresses: [10.9.0.2]
    endpoint: 10.0.0.1
ips: [{ prefix: 10.8.0.0/16, peer: nobody, identity: 9 }]
polcies: []
`);
    expect(found).toEqual([
      "line 4: node.privateKey must be a WireGuard key: 44 characters of base64",
      "line 5: node.listenPort must be a whole number from 1 to 65535",
      "line 2: node.name must be a lower-case DNS name",
      "line 3: node.addresses[0] must be an address or a prefix",
      'line 6: node.nmespace is no field here; did you mean "namespace"?',
      "line 11: peers[0].endpoint must be ADDRESS:PORT ([ADDRESS]:PORT for IPv6)",
      'line 12: ips[0].peer is no peer of this file ("nobody")',
      'line 13: polcies is no field here; did you mean "policies"?',
    ]);
  });

  it.each<[string, string, RegExp]>([
    ["nothing at all", "", /mapping/],
    ["a list", "- a", /mapping/],
    ["no node", "peers: []", /node is missing/],
    ["no key", "node: { name: a, addresses: [10.0.0.1] }", /privateKeyFile is missing/],
    ["no addresses", `node: { name: a, privateKey: ${KEY} }`, /addresses is missing/],
    [
      "an empty list of addresses",
      `node: { name: a, addresses: [], privateKey: ${KEY} }`,
      /addresses must not be empty/,
    ],
    [
      "a key file that is not there",
      "node: { name: a, addresses: [10.0.0.1], privateKeyFile: none.key }",
      /cannot be read/,
    ],
    ["broken YAML", "node: { name: [", /./],
    ["the same field twice", `${SMALLEST}node: {}\n`, /unique/],
    ["a service without a name", `${SMALLEST}services: [{ apiVersion: v1, kind: Service }]\n`, /services\[0\].*name/],
    [
      "a backend that is no address",
      `${SMALLEST}services: [{ apiVersion: v1, kind: Service, metadata: { name: db }, backends: [db.example] }]\n`,
      /services\[0\] has a backend that is no IP address: "db.example"/,
    ],
    [
      "backends beside a selector",
      `${SMALLEST}services: [{ apiVersion: v1, kind: Service, metadata: { name: db }, spec: { selector: { a: b } }, backends: [10.0.0.1] }]\n`,
      /services\[0\] has a selector/,
    ],
    [
      "a slice of nobody",
      `${SMALLEST}policies: [{ apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: { name: x, labels: { kubernetes.io/service-name: db } }, addressType: IPv4 }]\n`,
      /belongs to Service "default\/db", which this file does not have/,
    ],
    [
      "a CIDR group with a bad prefix",
      `${SMALLEST}policies: [{ apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: { name: g }, spec: { externalCIDRs: [x] } }]\n`,
      /policies\[0\] is wrong: spec\.externalCIDRs/,
    ],
    [
      "an unknown word of policy",
      `${SMALLEST}policy: { auditmode: on }\n`,
      /policy\.auditmode.*did you mean "auditMode"/,
    ],
    ["a mode that is none", `${SMALLEST}policy: { enforcementMode: sometimes }\n`, /enforcementMode must be one of/],
    ["a routing mode that is none", `${SMALLEST}routing: { mode: direct }\n`, /routing.mode must be one of tunnel/],
    [
      "native routing without encryption",
      `${SMALLEST}routing: { mode: native, encryption: none }\n`,
      /routing.encryption cannot be so: mode native needs encryption wireguard/,
    ],
    ["a policy folder that is not there", `${SMALLEST}policies: [none/]\n`, /cannot be read/],
    ["a policy without a name", `${SMALLEST}policies: [{ kind: NetworkPolicy }]\n`, /needs metadata.name/],
    [
      "a peer with the node's name",
      `${SMALLEST}peers: [{ name: box-a, publicKey: ${PEER_KEY}, addresses: [10.9.0.2] }]\n`,
      /another node/,
    ],
    [
      "an identity twice",
      `${SMALLEST}identities: [{ id: 7, labels: {} }, { id: 7, labels: {} }]\n`,
      /another identity/,
    ],
    [
      "a port of no protocol",
      SMALLEST.replace("name: box-a", "name: box-a, namedPorts: { http: 80/ICMP }"),
      /namedPorts.http/,
    ],
  ])("refuses %s", (_, text, reason) => {
    expect(faults(text).join("\n")).toMatch(reason);
  });

  it("never shows a key in a fault", () => {
    const secret = toBase64(new Uint8Array(31).fill(9));
    writeFileSync(join(dir, "bad.key"), secret);
    const text = [
      ...faults(`node: { name: a, addresses: [10.0.0.1], privateKey: ${secret} }`),
      ...faults("node: { name: a, addresses: [10.0.0.1], privateKeyFile: bad.key }"),
    ].join("\n");
    expect(text).toContain("WireGuard key");
    expect(text).not.toContain(secret);
  });

  it("says which file it cannot read", () => {
    expect(() => readMeshFile(join(dir, "none.yaml"), CONTEXT)).toThrow(/Cannot read mesh file/);
  });
});
