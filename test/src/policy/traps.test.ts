/** One case for each trap and table of the policy facts (sections 1, 2, 3, 5, 6, 9, 15). Verdicts: 0, 133 no rule, 181 deny rule. */
import { describe, expect, it } from "vitest";
import type { PolicySettings } from "../../../src/policy/model.ts";
import { ask, ccnp, cnp, knp, makeWorld } from "./world.ts";

type Case = readonly [
  title: string,
  documents: readonly unknown[],
  flows: Readonly<Record<string, number>>,
  settings?: Partial<PolicySettings>,
];

const CLIENT = { matchLabels: { app: "client" } };
const ANY_CLUSTER = { matchExpressions: [{ key: "io.cilium.k8s.policy.cluster", operator: "Exists" }] };
const port = (port: string, more = {}) => [{ ports: [{ port, ...more }] }];

const CASES: readonly Case[] = [
  ["no policy leaves both directions open", [], { "in client tcp 80": 0, "out nobody gre": 0, "in 8.8.8.8 icmp 8": 0 }],
  ["a policy for others changes nothing here", [
    cnp({ endpointSelector: { matchLabels: { app: "x" } }, ingress: [{}] }),
  ], { "in client tcp 80": 0 }],
  ["a policy of another namespace does not select", [{
    ...cnp({ ingress: [{}] }),
    metadata: { name: "p", namespace: "bank" },
  }], { "in client tcp 80": 0 }],

  ["trap 1: an empty rule admits everything in a NetworkPolicy", [knp({ ingress: [{}] })], {
    "in client tcp 80": 0,
    "in 8.8.8.8 icmp 8": 0,
    "in nobody gre": 0,
  }],
  ["trap 1: and nothing in a CiliumNetworkPolicy", [cnp({ ingress: [{}] })], {
    "in client tcp 80": 133,
    "in 8.8.8.8 icmp 8": 133,
    "out client tcp 80": 0,
  }],
  ["trap 2: an empty list of peers selects nobody", [cnp({ ingress: [{ fromEndpoints: [], toPorts: port("80") }] })], {
    "in client tcp 80": 133,
  }],
  ["trap 2: an absent one everybody", [cnp({ ingress: [{ toPorts: port("80") }] })], {
    "in client tcp 80": 0,
    "in nobody tcp 80": 0,
    "in client tcp 81": 133,
  }],
  ["an empty list of ports in a block is no port", [
    cnp({ ingress: [{ fromEndpoints: [{}], toPorts: [{ ports: [] }] }] }),
  ], { "in client tcp 80": 133 }],
  ["an empty toPorts is no restriction", [cnp({ ingress: [{ fromEndpoints: [{}], toPorts: [] }] })], {
    "in client tcp 80": 0,
    "in bank tcp 80": 133,
  }],
  ["an empty section closes nothing", [cnp({ ingress: [], egress: [{}] })], {
    "in client tcp 80": 0,
    "out client tcp 80": 133,
  }],

  ["trap 3: an object with denies only closes the rest", [cnp({ egressDeny: [{ toEntities: ["world"] }] })], {
    "out client tcp 80": 133,
    "out 8.8.8.8 tcp 80": 181,
    "in client tcp 80": 0,
  }],
  ["trap 4: ingress rules count in spite of policyTypes [Egress]", [
    knp({ policyTypes: ["Egress"], ingress: [{ ports: [{ port: 80 }] }] }),
  ], { "in client tcp 80": 0, "in client tcp 81": 133, "out client tcp 80": 133 }],
  ["policyTypes [Egress] alone leaves ingress open", [knp({ policyTypes: ["Egress"] })], {
    "in client tcp 80": 0,
    "out client tcp 80": 133,
  }],
  ["without policyTypes ingress is closed, egress only with rules", [knp({})], {
    "in client tcp 80": 133,
    "out client tcp 80": 0,
  }],
  ["egress rules without policyTypes close ingress too", [knp({ egress: [{}] })], {
    "in client tcp 80": 133,
    "out client tcp 80": 0,
  }],

  ["trap 5: a prefix never means members or nodes", [cnp({ ingress: [{ fromCIDR: ["0.0.0.0/0"] }] })], {
    "in client tcp 80": 133,
    "in remote-node tcp 80": 133,
    "in 8.8.8.8 tcp 80": 0,
    "in fd00::1 tcp 80": 133,
    "in world tcp 80": 0,
  }],
  [
    "trap 5: nor in a deny",
    [cnp({ ingress: [{ fromEntities: ["all"] }], ingressDeny: [{ fromCIDR: ["0.0.0.0/0"] }] })],
    { "in client tcp 80": 0, "in 8.8.8.8 tcp 80": 181 },
  ],

  ["trap 6: peers are of the local cluster", [cnp({ ingress: [{ fromEndpoints: [CLIENT] }] })], {
    "in client tcp 80": 0,
    "in far tcp 80": 133,
    "in bank tcp 80": 133,
  }],
  ["trap 6: unless the setting is off", [cnp({ ingress: [{ fromEndpoints: [CLIENT] }] })], {
    "in far tcp 80": 0,
    "in bank tcp 80": 133,
  }, { defaultLocalCluster: false }],
  ["trap 6: or they name a cluster", [cnp({ ingress: [{ fromEndpoints: [ANY_CLUSTER] }] })], {
    "in far tcp 80": 0,
    "in client tcp 80": 0,
    "in bank tcp 80": 133,
  }],
  ["trap 6: a NetworkPolicy's podSelector names one too", [
    knp({ ingress: [{ from: [{ podSelector: ANY_CLUSTER }] }] }),
  ], { "in far tcp 80": 0, "in bank tcp 80": 133 }],
  ["trap 6: entity cluster is local members and all nodes", [cnp({ ingress: [{ fromEntities: ["cluster"] }] })], {
    "in client tcp 80": 0,
    "in bank tcp 80": 0,
    "in far tcp 80": 133,
    "in remote-node tcp 80": 0,
    "in kube-apiserver tcp 80": 0,
    "in 8.8.8.8 tcp 80": 133,
  }],
  ["entity cluster-mesh has remote members as well", [cnp({ ingress: [{ fromEntities: ["cluster-mesh"] }] })], {
    "in far tcp 80": 0,
    "in 8.8.8.8 tcp 80": 133,
  }],
  ["entity none is nobody", [cnp({ ingress: [{ fromEntities: ["none"] }] })], { "in client tcp 80": 133 }],
  ["entity all is everybody, unknown identities too", [cnp({ ingress: [{ fromEntities: ["all"] }] })], {
    "in nobody tcp 80": 0,
  }],
  ["entity world is every outside address", [
    cnp({ egress: [{ toEntities: ["world"] }, { toCIDR: ["10.0.0.0/8"], toPorts: port("1") }] }),
  ], { "out 8.8.8.8 tcp 80": 0, "out 10.1.1.1 tcp 80": 0, "out fd00::1 tcp 80": 0, "out client tcp 80": 133 }],

  ["trap 7: a namespace label lifts the namespace default", [
    cnp({ ingress: [{ fromEndpoints: [{ matchLabels: { "io.cilium.k8s.namespace.labels.team": "edge" } }] }] }),
  ], { "in bank tcp 80": 0, "in client tcp 80": 133 }],
  ["trap 7: a reserved label lifts every default", [
    cnp({
      ingress: [{ fromEndpoints: [{ matchExpressions: [{ key: "reserved:remote-node", operator: "Exists" }] }] }],
    }),
  ], { "in remote-node tcp 80": 0, "in kube-apiserver tcp 80": 0, "in client tcp 80": 133 }],
  ["fromEndpoints [{}] is the own namespace", [cnp({ ingress: [{ fromEndpoints: [{}] }] })], {
    "in client tcp 80": 0,
    "in bank tcp 80": 133,
    "in remote-node tcp 80": 133,
    "in health tcp 80": 133,
  }],
  ["and every namespace in a cluster-wide policy", [ccnp({ ingress: [{ fromEndpoints: [{}] }] })], {
    "in client tcp 80": 0,
    "in bank tcp 80": 0,
    "in far tcp 80": 133,
    "in remote-node tcp 80": 133,
    "in 8.8.8.8 tcp 80": 133,
  }],
  ["a subject's other namespace is overwritten", [
    cnp({
      endpointSelector: { matchLabels: { app: "web", "k8s:io.kubernetes.pod.namespace": "bank" } },
      ingress: [{}],
    }),
  ], { "in client tcp 80": 133 }],
  ["two conditions in one NetworkPolicy peer are both needed", [
    knp({ ingress: [{ from: [{ podSelector: CLIENT, namespaceSelector: { matchLabels: { team: "edge" } } }] }] }),
  ], { "in bank tcp 80": 0, "in client tcp 80": 133 }],
  ["in two peers either is enough", [
    knp({ ingress: [{ from: [{ podSelector: CLIENT }, { namespaceSelector: { matchLabels: { team: "edge" } } }] }] }),
  ], { "in bank tcp 80": 0, "in client tcp 80": 0, "in db tcp 80": 133 }],
  ["an empty namespaceSelector is every member, and no node", [
    knp({ ingress: [{ from: [{ namespaceSelector: {} }] }] }),
  ], { "in bank tcp 80": 0, "in remote-node tcp 80": 133, "in 8.8.8.8 tcp 80": 133 }],
  [
    "one of negative terms only does not match nodes",
    [knp({
      ingress: [{
        from: [{ namespaceSelector: { matchExpressions: [{ key: "team", operator: "NotIn", values: ["core"] }] } }],
      }],
    })],
    { "in bank tcp 80": 0, "in client tcp 80": 133, "in remote-node tcp 80": 133 },
    { defaultLocalCluster: false },
  ],

  ["trap 8: ANY is TCP, UDP and SCTP, not ping", [cnp({ ingress: [{ toPorts: port("53") }] })], {
    "in client tcp 53": 0,
    "in client udp 53": 0,
    "in client sctp 53": 0,
    "in client icmp 53": 133,
    "in client gre 53": 133,
  }],
  ["trap 8: port 0 is every port, and still not ping", [
    cnp({ ingress: [{ toPorts: port("0", { protocol: "TCP" }) }] }),
  ], { "in client tcp 1": 0, "in client tcp 65535": 0, "in client udp 1": 133, "in client icmp 8": 133 }],
  ["trap 8: a rule by peer only admits ping", [cnp({ ingress: [{ fromEndpoints: [{}] }] })], {
    "in client icmp 8": 0,
    "in client gre": 0,
  }],
  ["a NetworkPolicy's port without a number is TCP", [knp({ ingress: [{ ports: [{}] }] })], {
    "in client tcp 9": 0,
    "in client udp 9": 133,
  }],
  ["ranges hold their ends", [cnp({ ingress: [{ toPorts: port("8080", { endPort: 8090, protocol: "TCP" }) }] })], {
    "in client tcp 8079": 133,
    "in client tcp 8080": 0,
    "in client tcp 8090": 0,
    "in client tcp 8091": 133,
    "in client udp 8085": 133,
  }],
  ["an end below the port is no range", [cnp({ ingress: [{ toPorts: port("80", { endPort: 70 }) }] })], {
    "in client tcp 80": 0,
    "in client tcp 75": 133,
  }],
  ["ICMP types are of their family, and type 0 is itself only", [
    cnp({ ingress: [{ icmps: [{ fields: [{ type: "EchoReply" }, { family: "IPv6", type: 128 }] }] }] }),
  ], {
    "in client icmp 0": 0,
    "in client icmp 8": 133,
    "in client icmp6 128": 0,
    "in client icmp6 129": 133,
    "in client tcp 0": 133,
  }],

  ["trap 9: a hole in an allow is no deny", [
    cnp({ egress: [{ toCIDRSet: [{ cidr: "10.0.0.0/8", except: ["10.1.0.0/16"] }] }, { toCIDR: ["10.1.2.0/24"] }] }),
  ], { "out 10.2.0.1 tcp 1": 0, "out 10.1.9.9 tcp 1": 133, "out 10.1.2.3 tcp 1": 0, "out 11.0.0.1 tcp 1": 133 }],
  ["trap 9: nor in a deny", [
    cnp({
      egress: [{ toCIDR: ["0.0.0.0/0"] }],
      egressDeny: [{ toCIDRSet: [{ cidr: "1.0.0.0/8", except: ["1.1.1.1/32"] }] }],
    }),
  ], { "out 1.1.1.1 tcp 1": 0, "out 1.2.3.4 tcp 1": 181, "out 9.9.9.9 tcp 1": 0, "out fd00::1 tcp 1": 133 }],
  ["an ipBlock has holes too", [
    knp({ egress: [{ to: [{ ipBlock: { cidr: "fd00::/8", except: ["fd00:1::/32"] } }] }] }),
  ], { "out fd00::1 tcp 1": 0, "out fd00:1::1 tcp 1": 133, "out 10.0.0.1 tcp 1": 133 }],

  ["trap 10: the local host passes under default deny, not the way back", [cnp({ ingress: [{}], egress: [{}] })], {
    "in host tcp 80": 0,
    "out host tcp 80": 133,
  }],
  ["trap 10: a deny of the host wins", [cnp({ ingressDeny: [{ fromEntities: ["host"] }] })], { "in host tcp 80": 181 }],
  ["trap 10: not with the setting by policy", [cnp({ ingress: [{}] })], { "in host tcp 80": 133 }, {
    allowLocalhost: "policy",
  }],
  ["trap 12: in mode always, the host is out while no ingress rule selects", [], {
    "in host tcp 80": 133,
    "in client tcp 80": 133,
    "out client tcp 80": 133,
  }, { enforcementMode: "always" }],
  ["trap 12: and in when one does", [cnp({ ingress: [{}] })], { "in host tcp 80": 0, "in client tcp 80": 133 }, {
    enforcementMode: "always",
  }],
  ["mode never ignores denies too", [cnp({ ingressDeny: [{ fromEntities: ["all"] }] })], { "in client tcp 80": 0 }, {
    enforcementMode: "never",
  }],

  ["trap 13: a name on egress is each destination's own port", [
    cnp({ egress: [{ toEndpoints: [{}], toPorts: port("sql") }] }),
  ], {
    "out db tcp 5432": 0,
    "out client tcp 5432": 133,
    "out client tcp 3306": 0,
    "out db tcp 3306": 133,
    "out nobody tcp 5432": 133,
  }],
  ["a name on egress without peers is every known destination's", [
    cnp({ egress: [{ toPorts: [{ ports: [{ port: "SQL" }, { port: "53" }] }] }] }),
  ], { "out db tcp 5432": 0, "out bank tcp 5432": 133, "out nobody udp 53": 0 }],
  ["a name on ingress is the subject's, of its protocol", [cnp({ ingress: [{ toPorts: port("http") }] })], {
    "in client tcp 8080": 0,
    "in client udp 8080": 133,
    "in client tcp 80": 133,
  }],
  ["one that the subject does not have admits nothing", [knp({ ingress: [{ ports: [{ port: "ftp" }] }] })], {
    "in client tcp 21": 133,
  }],
  ["trap 14: remote-node is the API server as well", [cnp({ ingress: [{ fromEntities: ["remote-node"] }] })], {
    "in remote-node tcp 1": 0,
    "in kube-apiserver tcp 1": 0,
    "in ingress tcp 1": 133,
  }],

  ["a wide deny beats a narrow allow of another object", [
    cnp({ ingressDeny: [{ fromEntities: ["all"] }] }),
    knp({ ingress: [{ from: [{ podSelector: CLIENT }], ports: [{ port: 80 }] }] }),
  ], { "in client tcp 80": 181 }],
  ["a narrow deny cuts a hole into a wide allow", [
    cnp({ ingress: [{ fromEntities: ["all"] }], ingressDeny: [{ fromEndpoints: [CLIENT], toPorts: port("80") }] }),
  ], { "in client tcp 80": 181, "in client tcp 81": 0, "in db tcp 80": 0 }],
  ["an allow of one kind adds to a closing of another", [knp({}), cnp({ ingress: [{ fromEndpoints: [CLIENT] }] })], {
    "in client tcp 80": 0,
    "in db tcp 80": 133,
  }],
  ["enableDefaultDeny false leaves the rest open, denies bite", [
    cnp({ enableDefaultDeny: { ingress: false }, ingressDeny: [{ fromEndpoints: [CLIENT] }] }),
  ], { "in client tcp 80": 181, "in db tcp 80": 0, "in 8.8.8.8 tcp 80": 0 }],
  ["one ordinary policy turns it on again", [
    cnp({ enableDefaultDeny: { ingress: false }, ingress: [{ fromEndpoints: [CLIENT] }] }),
    cnp({ ingress: [{}] }, "q"),
  ], { "in client tcp 80": 0, "in db tcp 80": 133 }],
  [
    "enableDefaultDeny true without rules has no effect",
    [cnp({ enableDefaultDeny: { ingress: true }, egress: [{}] })],
    { "in client tcp 80": 0 },
  ],
];

/** Server with allows: L3 client, L4 80, L4 81. Documented table of section 9. */
const ALLOWS = cnp(
  { ingress: [{ fromEndpoints: [CLIENT] }, { toPorts: port("80") }, { toPorts: port("81") }] },
  "allows",
);
const DENY_80 = cnp({ ingressDeny: [{ toPorts: port("80") }] }, "deny80");
const DENY_CLIENT = cnp({ ingressDeny: [{ fromEndpoints: [CLIENT] }] }, "denyclient");
const DENY_TABLE: readonly Case[] = [
  ["deny table: none", [ALLOWS], { "in client tcp 81": 0, "in client tcp 80": 0, "in client icmp 8": 0 }],
  ["deny table: L4 80", [ALLOWS, DENY_80], { "in client tcp 81": 0, "in client tcp 80": 181, "in client icmp 8": 0 }],
  ["deny table: L3 client", [ALLOWS, DENY_CLIENT], {
    "in client tcp 81": 181,
    "in client tcp 80": 181,
    "in client icmp 8": 181,
  }],
  ["deny table: both", [ALLOWS, DENY_80, DENY_CLIENT], {
    "in client tcp 81": 181,
    "in client tcp 80": 181,
    "in client icmp 8": 181,
  }],
  ["deny table: without the allows", [DENY_80, DENY_CLIENT], {
    "in client tcp 81": 181,
    "in client tcp 80": 181,
    "in db tcp 81": 133,
    "in db tcp 80": 181,
  }],
];

describe("policy", () => {
  const cases = [...CASES, ...DENY_TABLE].map(([title, documents, flows, settings = {}]) => ({
    title,
    documents,
    flows,
    settings,
  }));
  it.each(cases)("$title", ({ documents, flows, settings }) => {
    const world = makeWorld(documents, settings);
    const got = Object.fromEntries(Object.keys(flows).map((flow) => [flow, ask(world, flow)]));
    expect(got).toEqual(flows);
    const reversed = makeWorld([...documents].reverse(), settings);
    expect(Object.fromEntries(Object.keys(flows).map((flow) => [flow, ask(reversed, flow)]))).toEqual(flows);
  });
});
