import { describe, expect, it } from "vitest";
import { formatPrefix } from "../../../src/ip/address.ts";
import { KEY_NAMESPACE, KEY_NAMESPACE_LABELS } from "../../../src/identity/labels.ts";
import type { PolicyFeatures } from "../../../src/policy/features.ts";
import { EGRESS, INGRESS, type Policy, TIER_ADMIN, TIER_BASELINE } from "../../../src/policy/model.ts";
import { readPolicy } from "../../../src/policy/read_policy.ts";

const EVERY_POD = { namespaces: {} };

function kcnp(spec: Record<string, unknown>) {
  return {
    apiVersion: "policy.networking.k8s.io/v1alpha2",
    kind: "ClusterNetworkPolicy",
    metadata: { name: "p" },
    spec: { tier: "Admin", priority: 10, subject: EVERY_POD, ...spec },
  };
}

function anp(spec: Record<string, unknown>) {
  return {
    apiVersion: "policy.networking.k8s.io/v1alpha1",
    kind: "AdminNetworkPolicy",
    metadata: { name: "p" },
    spec: { priority: 10, subject: EVERY_POD, ...spec },
  };
}

function banp(spec: Record<string, unknown>, name = "default") {
  return {
    apiVersion: "policy.networking.k8s.io/v1alpha1",
    kind: "BaselineAdminNetworkPolicy",
    metadata: { name },
    spec: { subject: EVERY_POD, ...spec },
  };
}

const egress = (rule: Record<string, unknown>) => kcnp({ egress: [{ action: "Accept", to: [EVERY_POD], ...rule }] });
const ingress = (rule: Record<string, unknown>) => kcnp({ ingress: [{ action: "Deny", from: [EVERY_POD], ...rule }] });
const protocol = (one: unknown) => ingress({ protocols: [one] });
const port = (one: unknown) => anp({ ingress: [{ action: "Deny", from: [EVERY_POD], ports: [one] }] });

function good(document: unknown, features?: PolicyFeatures): Policy {
  const result = readPolicy(document, features);
  if ("errors" in result) throw new Error(JSON.stringify(result.errors, undefined, 2));
  return result.policy;
}

/** document, path of the error, its code, words of its message */
const REFUSED: readonly (readonly [string, unknown, string, string, string])[] = [
  ["no spec", { ...kcnp({}), spec: undefined }, "spec", "MISSING", "spec"],
  ["no tier", kcnp({ tier: null }), "spec.tier", "MISSING", "Baseline"],
  ["a tier in lower case", kcnp({ tier: "admin" }), "spec.tier", "BAD_VALUE", 'did you mean "Admin"?'],
  ["a tier in the older kind", anp({ tier: "Admin" }), "spec.tier", "UNKNOWN_FIELD", "priority"],
  ["no priority", kcnp({ priority: null }), "spec.priority", "MISSING", "1000"],
  ["a priority too high", anp({ priority: 1001 }), "spec.priority", "BAD_VALUE", "1000"],
  ["a priority that is no whole number", kcnp({ priority: 1.5 }), "spec.priority", "WRONG_TYPE", "whole"],
  ["a priority in the baseline", banp({ priority: 1 }), "spec.priority", "UNKNOWN_FIELD", "subject"],
  ["a second baseline", banp({}, "other"), "metadata.name", "BAD_VALUE", '"default"'],
  ["no subject", kcnp({ subject: null }), "spec.subject", "MISSING", "pods"],
  ["a subject of nothing", kcnp({ subject: {} }), "spec.subject", "MISSING", "namespaces"],
  [
    "a subject of both",
    kcnp({ subject: { ...EVERY_POD, pods: { podSelector: {} } } }),
    "spec.subject",
    "CONFLICT",
    "both",
  ],
  ["a subject of nodes", kcnp({ subject: { nodes: {} } }), "spec.subject.nodes", "UNKNOWN_FIELD", "namespaces"],
  ["pods without labels", kcnp({ subject: { pods: {} } }), "spec.subject.pods.podSelector", "MISSING", "{}"],
  [
    "pods without namespaces in the older kind",
    anp({ subject: { pods: { podSelector: {} } } }),
    "spec.subject.pods.namespaceSelector",
    "MISSING",
    "{}",
  ],
  ["26 rules", kcnp({ ingress: new Array(26).fill({}) }), "spec.ingress", "TOO_MANY", "25"],
  ["101 rules of the older kind", anp({ egress: new Array(101).fill({}) }), "spec.egress", "TOO_MANY", "100"],
  ["a rule without an action", ingress({ action: null }), "spec.ingress[0].action", "MISSING", "Pass"],
  ["the older kind's action", ingress({ action: "Allow" }), "spec.ingress[0].action", "BAD_VALUE", "Accept"],
  [
    "Pass in the baseline",
    banp({ ingress: [{ action: "Pass", from: [EVERY_POD] }] }),
    "spec.ingress[0].action",
    "BAD_VALUE",
    "Allow, Deny",
  ],
  ["a rule without peers", ingress({ from: null }), "spec.ingress[0].from", "MISSING", "{namespaces: {}}"],
  ["an empty list of peers", ingress({ from: [] }), "spec.ingress[0].from", "MISSING", "every pod"],
  ["26 peers", ingress({ from: new Array(26).fill(EVERY_POD) }), "spec.ingress[0].from", "TOO_MANY", "25"],
  ["a long name", ingress({ name: "n".repeat(101) }), "spec.ingress[0].name", "BAD_VALUE", "100"],
  ["a peer of nothing", ingress({ from: [{}] }), "spec.ingress[0].from[0]", "MISSING", "pods"],
  ["a peer to come", egress({ to: [{ services: {} }] }), "spec.egress[0].to[0].services", "UNKNOWN_FIELD", "known"],
  [
    "prefixes on ingress",
    ingress({ from: [{ networks: ["10.0.0.0/8"] }] }),
    "spec.ingress[0].from[0].networks",
    "UNKNOWN_FIELD",
    "pods",
  ],
  ["no prefixes", egress({ to: [{ networks: [] }] }), "spec.egress[0].to[0].networks", "MISSING", "prefixes"],
  [
    "a bare address",
    egress({ to: [{ networks: ["10.0.0.1"] }] }),
    "spec.egress[0].to[0].networks[0]",
    "BAD_VALUE",
    '"10.0.0.1/32"',
  ],
  [
    "names that are denied",
    egress({ action: "Deny", to: [{ domainNames: ["a.b"] }] }),
    "spec.egress[0].to[0].domainNames",
    "CONFLICT",
    "allow only",
  ],
  [
    "names in the baseline",
    banp({ egress: [{ action: "Allow", to: [{ domainNames: ["a.b"] }] }] }),
    "spec.egress[0].to[0].domainNames",
    "UNKNOWN_FIELD",
    "networks",
  ],
  [
    "a name with a star inside",
    egress({ to: [{ domainNames: ["a.*.b"] }] }),
    "spec.egress[0].to[0].domainNames[0]",
    "BAD_VALUE",
    "at its start",
  ],
  [
    "nodes while their labels are off",
    egress({ to: [{ nodes: {} }] }),
    "spec.egress[0].to[0].nodes",
    "TURNED_OFF",
    "networks",
  ],
  [
    "a port by name of a prefix",
    egress({ to: [EVERY_POD, { networks: ["10.0.0.0/8"] }], protocols: [{ destinationNamedPort: "web" }] }),
    "spec.egress[0].protocols",
    "CONFLICT",
    "pods",
  ],
  ["an empty list of protocols", ingress({ protocols: [] }), "spec.ingress[0].protocols", "MISSING", "leave"],
  ["a protocol to come", protocol({ icmp: {} }), "spec.ingress[0].protocols[0].icmp", "UNKNOWN_FIELD", "tcp"],
  ["two protocols in one", protocol({ tcp: {}, udp: {} }), "spec.ingress[0].protocols[0]", "CONFLICT", "exactly one"],
  [
    "a protocol without a port",
    protocol({ tcp: {} }),
    "spec.ingress[0].protocols[0].tcp.destinationPort",
    "MISSING",
    "range",
  ],
  [
    "a port of nothing",
    protocol({ tcp: { destinationPort: {} } }),
    "spec.ingress[0].protocols[0].tcp.destinationPort",
    "MISSING",
    "number",
  ],
  [
    "a number and a range",
    protocol({ tcp: { destinationPort: { number: 1, range: { start: 1, end: 2 } } } }),
    "spec.ingress[0].protocols[0].tcp.destinationPort",
    "CONFLICT",
    "exactly one",
  ],
  [
    "port 0",
    protocol({ tcp: { destinationPort: { number: 0 } } }),
    "spec.ingress[0].protocols[0].tcp.destinationPort.number",
    "BAD_VALUE",
    "1 to 65535",
  ],
  [
    "a range of one port",
    protocol({ udp: { destinationPort: { range: { start: 5, end: 5 } } } }),
    "spec.ingress[0].protocols[0].udp.destinationPort.range.end",
    "BAD_VALUE",
    "not above",
  ],
  [
    "a name that is none",
    protocol({ destinationNamedPort: "Web" }),
    "spec.ingress[0].protocols[0].destinationNamedPort",
    "BAD_VALUE",
    "port name",
  ],
  ["the older kind's ports", ingress({ ports: [] }), "spec.ingress[0].ports", "UNKNOWN_FIELD", "protocols"],
  ["a port of no kind", port({}), "spec.ingress[0].ports[0]", "MISSING", "portNumber"],
  ["no port", port({ portNumber: {} }), "spec.ingress[0].ports[0].portNumber.port", "MISSING", "port"],
  [
    "a protocol that is none",
    port({ portNumber: { port: 80, protocol: "tcp" } }),
    "spec.ingress[0].ports[0].portNumber.protocol",
    "BAD_VALUE",
    'did you mean "TCP"?',
  ],
  [
    "a range backwards",
    port({ portRange: { start: 9, end: 8 } }),
    "spec.ingress[0].ports[0].portRange.end",
    "BAD_VALUE",
    "not above",
  ],
];

describe("policies of the cluster", () => {
  it.each(REFUSED)("refuse %s", (_, document, path, code, words) => {
    const result = readPolicy(document);
    const errors = "errors" in result ? result.errors : [];
    expect(errors.map((e) => `${e.path} ${e.code}`)).toContain(`${path} ${code}`);
    expect(errors.find((e) => e.path === path && e.code === code)!.message).toContain(words);
  });

  it("give each rule its place, and close nothing", () => {
    const rule = (action: string) => ({ name: action, action, from: [EVERY_POD] });
    const [spec] = good(kcnp({ tier: "Baseline", priority: 7, ingress: ["Pass", "Deny", "Accept"].map(rule) })).specs;
    expect(spec!.rules.map(({ verdict, tier, direction, path }) => [verdict, tier, direction, path])).toEqual([
      ["pass", TIER_BASELINE, INGRESS, "spec.ingress[0]"],
      ["deny", TIER_BASELINE, INGRESS, "spec.ingress[1]"],
      ["allow", TIER_BASELINE, INGRESS, "spec.ingress[2]"],
    ]);
    expect(spec!.rules.map(({ priority }) => priority)).toEqual([7, 7.01, 7.02]);
    const { hasIngress, hasEgress, closesIngress, closesEgress } = spec!;
    expect([hasIngress, hasEgress, closesIngress, closesEgress]).toEqual([true, false, false, false]);
  });

  it("keep a hundred rules before those of the next priority", () => {
    const rules = new Array(100).fill({ action: "Allow", from: [EVERY_POD] });
    const { rules: read } = good(anp({ priority: 3, ingress: rules })).specs[0]!;
    expect(read.every(({ priority }, i) => i === 0 || priority > read[i - 1]!.priority)).toBe(true);
    expect(read.at(-1)!.priority).toBeLessThan(4);
    expect(read[0]!.tier).toBe(TIER_ADMIN);
  });

  it("put the one baseline last, with no priority", () => {
    const { rules } = good(banp({ egress: [{ action: "Deny", to: [EVERY_POD] }] })).specs[0]!;
    expect([rules[0]!.tier, rules[0]!.priority, rules[0]!.direction]).toEqual([TIER_BASELINE, 0, EGRESS]);
  });

  it("select pods only, by the labels of namespaces and their own", () => {
    const terms = { matchLabels: { side: "north" } };
    const pods = { pods: { namespaceSelector: terms, podSelector: { matchLabels: { app: "a" } } } };
    const { subject, rules } = good(kcnp({ subject: pods, ingress: [{ action: "Deny", from: [pods] }] })).specs[0]!;
    const wanted = [
      { source: "k8s", key: "app", operator: "In", values: ["a"] },
      { source: "k8s", key: KEY_NAMESPACE, operator: "Exists", values: [] },
      { source: "k8s", key: `${KEY_NAMESPACE_LABELS}side`, operator: "In", values: ["north"] },
    ];
    expect(subject).toEqual({ requirements: wanted, defaultsCluster: false });
    expect(rules[0]!.peers).toEqual([{ kind: "selector", selector: { requirements: wanted, defaultsCluster: true } }]);
    expect(good(kcnp({ subject: { pods: { podSelector: {} } } })).specs[0]!.subject.requirements).toHaveLength(1);
  });

  it("read networks, names and nodes", () => {
    const to = [{ networks: ["10.1.2.3/8", "::/0"] }, { domainNames: ["*.Example.com", "a.b."] }, { nodes: {} }];
    const { peers } = good(egress({ to }), { nodeSelectorLabels: true }).specs[0]!.rules[0]!;
    expect(
      peers!.map((peer) =>
        peer.kind === "cidr"
          ? [formatPrefix(peer.prefix), peer.isStandard]
          : peer.kind === "fqdn"
          ? peer.pattern
          : peer.kind
      ),
    ).toEqual([["10.0.0.0/8", true], ["::/0", true], "**.example.com.", "a.b.", "node"]);
  });

  it("read ports of both kinds alike", () => {
    const newer = good(ingress({
      protocols: [
        { tcp: { destinationPort: { number: 80 } } },
        { sctp: { destinationPort: { range: { start: 5, end: 9 } } } },
        { destinationNamedPort: "web" },
      ],
    }));
    const older = good(anp({
      ingress: [{
        action: "Deny",
        from: [EVERY_POD],
        ports: [
          { portNumber: { port: 80 } },
          { portRange: { protocol: "SCTP", start: 5, end: 9 } },
          { namedPort: "web" },
        ],
      }],
    }));
    const wanted = [{ protocol: 6, first: 80, last: 80 }, { protocol: 132, first: 5, last: 9 }];
    for (const { specs } of [newer, older]) {
      expect(specs[0]!.rules[0]!.ports).toEqual(wanted);
      expect(specs[0]!.rules[0]!.names).toEqual([{ name: "web", protocols: [6, 17, 132] }]);
    }
    expect(good(ingress({})).specs[0]!.rules[0]!.ports).toBeUndefined();
  });
});
