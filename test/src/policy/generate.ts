/** Random policy worlds for the property tests: few names, so that things meet. */
import fc from "fast-check";
import type { EngineSettings, Subject } from "../../../src/policy/engine.ts";
import { KEY_CLUSTER } from "../../../src/identity/labels.ts";
import { labelsOfMember } from "../../../src/identity/member_labels.ts";
import { parseAddress, parsePrefix } from "../../../src/ip/address.ts";
import { PeerSources } from "../../../src/policy/peer_sources.ts";
import type { CidrMatch, NamedPort } from "../../../src/policy/model.ts";

export const NAMESPACES: Readonly<Record<string, Record<string, string>>> = {
  shop: { team: "core" },
  bank: { team: "edge" },
  lab: {},
};
const CLUSTERS = ["c1", "c2"];
const APPS = ["web", "db", "cache"];

export const settingsArb: fc.Arbitrary<EngineSettings> = fc.record({
  cluster: fc.constant("c1"),
  policy: fc.record({
    enforcementMode: fc.oneof(
      { weight: 8, arbitrary: fc.constant("default" as const) },
      { weight: 1, arbitrary: fc.constant("always" as const) },
      { weight: 1, arbitrary: fc.constant("never" as const) },
    ),
    defaultLocalCluster: fc.boolean(),
    allowLocalhost: fc.constantFrom("always" as const, "policy" as const),
    auditMode: fc.oneof({ weight: 8, arbitrary: fc.constant(false) }, fc.constant(true)),
    cidrMatchMode: fc.subarray<CidrMatch>(["nodes", "pods"]),
    flavor: fc.constantFrom("cilium" as const, "cilium" as const, "kubernetes" as const),
    hostFirewall: fc.boolean(),
  }),
});

const labelsArb = fc.record({ app: fc.constantFrom(...APPS), tier: fc.constantFrom("1", "2") }, { requiredKeys: [] });

const portsArb: fc.Arbitrary<NamedPort[]> = fc.subarray<NamedPort>([
  { name: "http", port: 80, protocol: "TCP" },
  { name: "http", port: 81, protocol: "TCP" },
  { name: "dns", port: 53, protocol: "UDP" },
]);

export interface Member {
  readonly cluster: string;
  readonly namespace: string;
  readonly labels: Record<string, string>;
  readonly namedPorts: NamedPort[];
}

export const memberArb: fc.Arbitrary<Member> = fc.record({
  cluster: fc.constantFrom(...CLUSTERS),
  namespace: fc.constantFrom(...Object.keys(NAMESPACES)),
  labels: labelsArb,
  namedPorts: portsArb,
});

/** Addresses of the members, by their place in the list; some lie in one prefix, some in another. */
export const INSIDE = ["10.1.2.1", "10.1.2.2", "10.1.3.3", "10.2.0.4", "fd00::5", "fd00:1::6", "192.0.2.7", "10.1.2.8"];
/** Addresses of nodes, and the reserved identities that they have. */
export const NODES: Readonly<Record<number, string>> = { 1: "10.1.2.99", 6: "10.9.9.9", 7: "fd00:1::99" };
export const NODE_LABELS: Readonly<Record<number, Record<string, string>>> = {
  1: { zone: "a", [KEY_CLUSTER]: "c1" },
  6: { zone: "b", [KEY_CLUSTER]: "c1" },
  7: { zone: "a", [KEY_CLUSTER]: "c2" },
};

/** Objects that policies name. */
export const GROUPS = [
  { name: "g1", labels: { kind: "k1" }, prefixes: ["10.0.0.0/8", "fd00:1::/32"] },
  { name: "g2", labels: { kind: "k1" }, prefixes: ["8.8.0.0/16", "10.1.2.3/32"] },
  { name: "g3", labels: { kind: "k2" }, prefixes: ["2001:db8::/32"] },
];
export const SERVICES = [
  { name: "s1", namespace: "shop", labels: { kind: "k1" }, selector: { app: "db" }, addresses: [] },
  { name: "s1", namespace: "bank", labels: { kind: "k2" }, selector: { app: "web", tier: "1" }, addresses: [] },
  { name: "s2", namespace: "bank", labels: { kind: "k1" }, addresses: ["8.8.8.8", "10.1.2.1", "fd00::1"] },
];
/** What was learned; some of it lies inside the mesh, some in prefixes that CIDR rules name. */
export const LEARNED: Readonly<Record<string, string[]>> = {
  "a.test.": ["8.8.8.8", "10.1.2.1"],
  "b.a.test.": ["10.1.2.9", "fd00:1::1"],
  "c.example.": ["8.8.8.8", "2001:db8::1", "10.9.9.9"],
};

export const groupOf = ({ prefixes, ...rest }: typeof GROUPS[number]) => ({
  ...rest,
  prefixes: prefixes.map((text) => parsePrefix(text)!),
});
export const serviceOf = ({ addresses, ...rest }: typeof SERVICES[number]) => ({
  ...rest,
  addresses: addresses.map((text: string) => parseAddress(text)!),
});

/** All groups and services. */
export function makeSources(): PeerSources {
  const sources = new PeerSources();
  for (const group of GROUPS) sources.putGroup(groupOf(group));
  for (const service of SERVICES) sources.putService(`${service.namespace}/${service.name}`, serviceOf(service));
  return sources;
}

const PATTERNS = ["*.test", "**.test", "*", "c.example", "b.*.test"];

export function labelsOf(member: Member) {
  return labelsOfMember({ ...member, namespaceLabels: NAMESPACES[member.namespace]! });
}

const nodeLabelsArb = fc.constantFrom({ zone: "a" }, { zone: "b", role: "edge" });

/** Mostly an endpoint; some are a host as well, some are a host alone. */
export const subjectArb: fc.Arbitrary<Subject> = fc.oneof(
  { weight: 6, arbitrary: memberArb.map(subjectOf) },
  {
    weight: 2,
    arbitrary: fc.tuple(memberArb, nodeLabelsArb).map(([m, nodeLabels]) => ({ ...subjectOf(m), nodeLabels })),
  },
  {
    weight: 1,
    arbitrary: nodeLabelsArb.map((nodeLabels) => ({
      labels: { "reserved:host": "" },
      identity: 1,
      namespace: "",
      namedPorts: [],
      nodeLabels,
    })),
  },
);

function subjectOf(m: Member): Subject {
  return {
    labels: labelsOf({ ...m, cluster: "c1" }),
    identity: 65536 + 1000,
    namespace: m.namespace,
    namedPorts: m.namedPorts,
  };
}

// Documents

const exprArb = (keys: string[], values: string[]) =>
  fc.oneof(
    fc.record({
      key: fc.constantFrom(...keys),
      operator: fc.constantFrom("In", "NotIn"),
      values: fc.subarray(values, { minLength: 1 }),
    }),
    fc.record({ key: fc.constantFrom(...keys), operator: fc.constantFrom("Exists", "DoesNotExist") }),
  );

const selectorArb = (keys: string[], values: string[]) =>
  fc.record({
    matchLabels: fc.dictionary(fc.constantFrom(...keys), fc.constantFrom(...values), { maxKeys: 1 }),
    matchExpressions: fc.array(exprArb(keys, values), { maxLength: 1 }),
  }, { requiredKeys: [] });

const podSelectorArb = selectorArb(["app", "tier"], [...APPS, "1", "2"]);
const namespaceSelectorArb = selectorArb(["team", "kubernetes.io/metadata.name"], ["core", "edge", "shop", "bank"]);
const ciliumSelectorArb = fc.oneof(
  { weight: 5, arbitrary: podSelectorArb },
  selectorArb(["k8s:app", "any:tier", "k8s:io.kubernetes.pod.namespace"], [...APPS, "shop", "bank", "1"]),
  selectorArb(["io.cilium.k8s.policy.cluster"], CLUSTERS),
  selectorArb(["k8s:io.cilium.k8s.namespace.labels.team"], ["core", "edge"]),
  fc.constantFrom({ matchLabels: { "reserved:host": "" } }, {
    matchExpressions: [{ key: "reserved:remote-node", operator: "Exists" }],
  }),
);

const CIDRS = [
  "0.0.0.0/0",
  "10.0.0.0/8",
  "10.1.0.0/16",
  "10.1.2.0/24",
  "10.1.2.3/32",
  "::/0",
  "fd00::/8",
  "fd00:1::/32",
];
const cidrSetArb = fc.oneof(
  fc.record({ cidr: fc.constantFrom(...CIDRS) }),
  fc.constantFrom(
    { cidr: "10.0.0.0/8", except: ["10.1.0.0/16"] },
    { cidr: "0.0.0.0/0", except: ["10.1.2.0/24", "10.0.0.0/8"] },
    { cidr: "fd00::/8", except: ["fd00:1::/32"] },
  ),
);
const portNumberArb = fc.constantFrom(53, 79, 80, 81, 443, 65535);
const kubernetesPortArb = fc.oneof(
  fc.record({ protocol: fc.constantFrom("TCP", "UDP", "SCTP") }),
  fc.record({ protocol: fc.constantFrom("TCP", "UDP"), port: portNumberArb }, { requiredKeys: ["port"] }),
  fc.record({ port: fc.constantFrom(53, 79, 80), endPort: fc.constantFrom(80, 81, 443) }),
  fc.record({ protocol: fc.constantFrom("TCP", "UDP"), port: fc.constantFrom("http", "dns") }),
);
const peerArb = fc.oneof(
  fc.record({ podSelector: podSelectorArb }),
  fc.record({ namespaceSelector: namespaceSelectorArb }),
  fc.record({ podSelector: podSelectorArb, namespaceSelector: namespaceSelectorArb }),
  cidrSetArb.map((block) => ({ ipBlock: block })),
);

const kubernetesRuleArb = (side: string) =>
  fc.record({ [side]: fc.array(peerArb, { maxLength: 2 }), ports: fc.array(kubernetesPortArb, { maxLength: 2 }) }, {
    requiredKeys: [],
  });

const namesArb = fc.record({
  name: fc.constantFrom("p1", "p2", "p3"),
  namespace: fc.constantFrom(...Object.keys(NAMESPACES)),
});

const networkPolicyArb = fc.record({
  apiVersion: fc.constant("networking.k8s.io/v1"),
  kind: fc.constant("NetworkPolicy"),
  metadata: namesArb,
  spec: fc.record({
    podSelector: podSelectorArb,
    ingress: fc.array(kubernetesRuleArb("from"), { maxLength: 2 }),
    egress: fc.array(kubernetesRuleArb("to"), { maxLength: 2 }),
    policyTypes: fc.subarray(["Ingress", "Egress"]),
  }, { requiredKeys: ["podSelector"] }),
});

const ciliumPortArb = fc.oneof(
  fc.record({ port: portNumberArb.map(String), protocol: fc.constantFrom("TCP", "UDP", "ANY") }, {
    requiredKeys: ["port"],
  }),
  fc.record({ port: fc.constantFrom("http", "dns", "0"), protocol: fc.constantFrom("TCP", "UDP", "ANY") }),
  fc.record({ port: fc.constantFrom("79", "80"), endPort: fc.constantFrom(1, 81, 443), protocol: fc.constant("TCP") }),
);
const icmpArb = fc.record({
  fields: fc.array(fc.constantFrom({ type: 8 }, { type: "EchoReply" }, { family: "IPv6", type: "EchoRequest" }), {
    maxLength: 2,
  }),
});

const groupSetArb = fc.constantFrom(
  { cidrGroupRef: "g1", except: ["10.1.2.0/24"] },
  { cidrGroupRef: "g2" },
  { cidrGroupRef: "unknown" },
  { cidrGroupSelector: { matchLabels: { kind: "k1" } } },
  { cidrGroupSelector: { matchExpressions: [{ key: "kind", operator: "NotIn", values: ["k1"] }] } },
);
const serviceArb = fc.constantFrom(
  { k8sService: { serviceName: "s1", namespace: "shop" } },
  { k8sService: { serviceName: "s1" } },
  { k8sService: { serviceName: "s2", namespace: "bank" } },
  { k8sServiceSelector: { selector: { matchLabels: { kind: "k1" } } } },
  { k8sServiceSelector: { selector: { matchLabels: { kind: "k1" } }, namespace: "bank" } },
);
const nodesArb = fc.constantFrom<Record<string, unknown>>(
  { matchLabels: { zone: "a" } },
  { matchExpressions: [{ key: "zone", operator: "NotIn", values: ["a"] }] },
  { matchLabels: { [KEY_CLUSTER]: "c2" } },
  {},
);

const peersArb = (side: string, isDeny: boolean): fc.Arbitrary<Record<string, unknown>> =>
  fc.oneof(
    fc.constant({}),
    fc.record({ [`${side}Endpoints`]: fc.array(ciliumSelectorArb, { maxLength: 2 }) }),
    fc.record({
      [`${side}Entities`]: fc.array(
        fc.constantFrom("all", "world", "cluster", "cluster-mesh", "host", "remote-node", "kube-apiserver", "none"),
        { maxLength: 2 },
      ),
    }),
    fc.record({ [`${side}CIDR`]: fc.array(fc.constantFrom(...CIDRS), { maxLength: 2 }) }),
    fc.record({ [`${side}CIDRSet`]: fc.array(fc.oneof(cidrSetArb, groupSetArb), { maxLength: 2 }) }),
    fc.record({ [`${side}Nodes`]: fc.array(nodesArb, { maxLength: 2 }) }),
    ...(side === "to" ? [fc.record({ toServices: fc.array(serviceArb, { minLength: 1, maxLength: 2 }) })] : []),
    ...(side === "to" && !isDeny
      ? [fc.record({
        toFQDNs: fc.array(fc.constantFrom(...PATTERNS), { minLength: 1, maxLength: 2 })
          .map((patterns) => patterns.map((matchPattern) => ({ matchPattern }))),
      })]
      : []),
  );

const httpArb = fc.record({
  ports: fc.subarray([{ port: "80", protocol: "TCP" }, { port: "79", endPort: 81, protocol: "TCP" }, {
    port: "http",
    protocol: "TCP",
  }], { minLength: 1 }),
  rules: fc.record({ http: fc.subarray([{ path: "/a" }, { path: "/b" }], { minLength: 1 }) }),
});
const dnsArb = fc.record({
  ports: fc.subarray([{ port: "53", protocol: "ANY" }, { port: "80", protocol: "TCP" }], { minLength: 1 }),
  rules: fc.record({ dns: fc.subarray([{ matchPattern: "*.a" }, { matchPattern: "*.b" }], { minLength: 1 }) }),
});

/** @param kinds L7 rules that may stand in it */
const portsPartArb = (kinds: readonly ("http" | "dns")[]): fc.Arbitrary<Record<string, unknown>> => {
  const plain = fc.record({ ports: fc.array(ciliumPortArb, { maxLength: 3 }) });
  const block = fc.oneof<fc.MaybeWeightedArbitrary<unknown>[]>(
    { weight: 2, arbitrary: plain },
    ...kinds.map((kind) => ({ weight: 1, arbitrary: kind === "http" ? httpArb : dnsArb })),
  );
  return fc.oneof(
    { weight: 1, arbitrary: fc.constant({}) },
    { weight: 2, arbitrary: fc.record({ toPorts: fc.array(block, { maxLength: 2 }) }) },
    { weight: 1, arbitrary: fc.record({ icmps: fc.array(icmpArb, { maxLength: 1 }) }) },
  );
};

/** One entry of a CiliumNetworkPolicy section: at most one kind of peer, ports or ICMP types or neither. */
const ciliumEntryArb = (side: string, isDeny: boolean, isForNodes: boolean) => {
  const kinds = isDeny
    ? []
    : side === "from"
    ? (isForNodes ? [] : ["http" as const])
    : isForNodes
    ? ["dns" as const]
    : ["http" as const, "dns" as const];
  return fc.tuple(peersArb(side, isDeny), portsPartArb(kinds)).map(([peers, ports]) => ({ ...peers, ...ports }));
};

const entriesArb = (side: string, isDeny: boolean, isForNodes: boolean) =>
  fc.array(ciliumEntryArb(side, isDeny, isForNodes), { maxLength: 2 });

const sectionsOf = (isForNodes: boolean) => ({
  ingress: entriesArb("from", false, isForNodes),
  ingressDeny: entriesArb("from", true, isForNodes),
  egress: entriesArb("to", false, isForNodes),
  egressDeny: entriesArb("to", true, isForNodes),
  enableDefaultDeny: fc.record({ ingress: fc.boolean(), egress: fc.boolean() }, { requiredKeys: [] }),
});

const ciliumSpecArb = fc.record({
  endpointSelector: fc.oneof(podSelectorArb, fc.constant({})),
  ...sectionsOf(false),
}, { requiredKeys: ["endpointSelector", "ingress"] });

const hostSpecArb = fc.record({
  nodeSelector: fc.constantFrom({ matchLabels: { zone: "a" } }, {}, {
    matchExpressions: [{ key: "role", operator: "DoesNotExist" }],
  }),
  ...sectionsOf(true),
}, { requiredKeys: ["nodeSelector", "ingress"] });

const ciliumPolicyArb = fc.oneof(
  fc.record({ kind: fc.constant("CiliumNetworkPolicy"), metadata: namesArb, spec: ciliumSpecArb }),
  fc.record({
    kind: fc.constant("CiliumClusterwideNetworkPolicy"),
    metadata: namesArb.map(({ name }) => ({ name })),
    specs: fc.array(fc.oneof({ weight: 3, arbitrary: ciliumSpecArb }, hostSpecArb), { minLength: 1, maxLength: 2 }),
  }),
).map((document) => ({ apiVersion: "cilium.io/v2", ...document }));

// ClusterNetworkPolicy

const podsPeerArb = fc.oneof(
  fc.record({ namespaces: namespaceSelectorArb }),
  fc.record({ pods: fc.record({ namespaceSelector: namespaceSelectorArb, podSelector: podSelectorArb }) }),
);
const outsidePeerArb = fc.oneof(
  fc.record({ networks: fc.uniqueArray(fc.constantFrom(...CIDRS), { minLength: 1, maxLength: 2 }) }),
  fc.record({ nodes: nodesArb }),
);
const protocolsArb = fc.array(
  fc.constantFrom(
    { tcp: { destinationPort: { number: 80 } } },
    { tcp: { destinationPort: { range: { start: 79, end: 81 } } } },
    { udp: { destinationPort: { number: 53 } } },
  ),
  { minLength: 1, maxLength: 2 },
);
const clusterRuleArb = (side: "from" | "to") => {
  const peer = side === "from" ? podsPeerArb : fc.oneof(podsPeerArb, outsidePeerArb);
  const plain = fc.record({
    action: fc.constantFrom("Accept", "Deny", "Pass"),
    [side]: fc.array(peer, { minLength: 1, maxLength: 2 }),
    protocols: protocolsArb,
  }, { requiredKeys: ["action", side] });
  const named = fc.record({
    action: fc.constant("Accept"),
    to: fc.constantFrom([{ domainNames: ["*.a.test"] }], [{ domainNames: ["c.example"] }]),
  });
  return side === "from" ? plain : fc.oneof({ weight: 5, arbitrary: plain }, named);
};
/** Priorities are told apart by name: what equal ones do is not defined. */
const clusterPolicyArb = fc.record({
  name: fc.constantFrom("p1", "p2", "p3"),
  spec: fc.record({
    tier: fc.constantFrom("Admin", "Baseline"),
    subject: podsPeerArb,
    ingress: fc.array(clusterRuleArb("from"), { maxLength: 3 }),
    egress: fc.array(clusterRuleArb("to"), { maxLength: 3 }),
  }),
}).map(({ name, spec }) => ({
  apiVersion: "policy.networking.k8s.io/v1alpha2",
  kind: "ClusterNetworkPolicy",
  metadata: { name },
  spec: { priority: name.charCodeAt(1) - 48, ...spec },
}));

/** A valid policy document. */
export const documentArb: fc.Arbitrary<Record<string, unknown>> = fc.oneof(
  { weight: 2, arbitrary: networkPolicyArb },
  { weight: 3, arbitrary: ciliumPolicyArb },
  { weight: 1, arbitrary: clusterPolicyArb },
);

/** Somebody on the other side: a member by its place in the list, a reserved identity, or an outside address. */
export const OUTSIDE = [
  "10.2.2.2",
  "10.1.9.9",
  "10.1.2.9",
  "10.1.2.3",
  "8.8.8.8",
  "fd00::1",
  "fd00:1::1",
  "2001:db8::1",
];
export const RESERVED = [1, 2, 3, 4, 6, 7, 8];

export interface Flow {
  readonly direction: 0 | 1;
  readonly other: { readonly member: number } | { readonly reserved: number } | { readonly address: string } | {
    readonly unknown: number;
  };
  readonly protocol: number;
  readonly port: number;
}

export const flowArb: fc.Arbitrary<Flow> = fc.record({
  direction: fc.constantFrom(0 as const, 1 as const),
  other: fc.oneof(
    { weight: 6, arbitrary: fc.nat(7).map((member) => ({ member })) },
    { weight: 1, arbitrary: fc.constantFrom(...RESERVED).map((reserved) => ({ reserved })) },
    { weight: 3, arbitrary: fc.constantFrom(...OUTSIDE).map((address) => ({ address })) },
    { weight: 1, arbitrary: fc.constant({ unknown: 77_777 }) },
  ),
  key: fc.oneof(
    fc.record({
      protocol: fc.constantFrom(6, 6, 6, 17, 132, 1, 58, 47),
      port: fc.constantFrom(0, 8, 53, 78, 79, 80, 81, 82, 128, 443, 65535),
    }),
    // where most rules meet
    fc.constantFrom({ protocol: 6, port: 80 }, { protocol: 17, port: 53 }),
  ),
}).map(({ key, ...flow }) => ({ ...flow, ...key }));
