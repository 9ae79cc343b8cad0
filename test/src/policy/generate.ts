/** Random policy worlds for the property tests: few names, so that things meet. */
import fc from "fast-check";
import type { EngineSettings, Subject } from "../../../src/policy/engine.ts";
import { labelsOfMember } from "../../../src/identity/member_labels.ts";
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

export function labelsOf(member: Member) {
  return labelsOfMember({ ...member, namespaceLabels: NAMESPACES[member.namespace]! });
}

export const subjectArb: fc.Arbitrary<Subject> = memberArb.map((m) => ({
  labels: labelsOf({ ...m, cluster: "c1" }),
  identity: 65536 + 1000,
  namespace: m.namespace,
  namedPorts: m.namedPorts,
}));

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

/** One entry of a CiliumNetworkPolicy section: at most one kind of peer, ports or ICMP types or neither. */
const ciliumEntryArb = (side: string) =>
  fc.tuple(
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
      fc.record({ [`${side}CIDRSet`]: fc.array(cidrSetArb, { maxLength: 2 }) }),
    ),
    fc.oneof(
      fc.constant({}),
      fc.record({
        toPorts: fc.array(fc.record({ ports: fc.array(ciliumPortArb, { maxLength: 3 }) }), { maxLength: 2 }),
      }),
      fc.record({ icmps: fc.array(icmpArb, { maxLength: 1 }) }),
    ),
  ).map(([peers, ports]) => ({ ...peers, ...ports }));

const entriesArb = (side: string) => fc.array(ciliumEntryArb(side), { maxLength: 2 });

const ciliumSpecArb = fc.record({
  endpointSelector: fc.oneof(podSelectorArb, fc.constant({})),
  ingress: entriesArb("from"),
  ingressDeny: entriesArb("from"),
  egress: entriesArb("to"),
  egressDeny: entriesArb("to"),
  enableDefaultDeny: fc.record({ ingress: fc.boolean(), egress: fc.boolean() }, { requiredKeys: [] }),
}, { requiredKeys: ["endpointSelector", "ingress"] });

const ciliumPolicyArb = fc.oneof(
  fc.record({ kind: fc.constant("CiliumNetworkPolicy"), metadata: namesArb, spec: ciliumSpecArb }),
  fc.record({
    kind: fc.constant("CiliumClusterwideNetworkPolicy"),
    metadata: namesArb.map(({ name }) => ({ name })),
    specs: fc.array(ciliumSpecArb, { minLength: 1, maxLength: 2 }),
  }),
).map((document) => ({ apiVersion: "cilium.io/v2", ...document }));

/** A valid policy document. */
export const documentArb: fc.Arbitrary<Record<string, unknown>> = fc.oneof(networkPolicyArb, ciliumPolicyArb);

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
  protocol: fc.constantFrom(6, 6, 6, 17, 132, 1, 58, 47),
  port: fc.constantFrom(0, 8, 53, 78, 79, 80, 81, 82, 128, 443, 65535),
});
