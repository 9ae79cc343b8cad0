import { describe, expect, it } from "vitest";
import { KEY_CLUSTER } from "../../../src/identity/labels.ts";
import { parsePrefix } from "../../../src/ip/address.ts";
import type { PolicyFeatures } from "../../../src/policy/features.ts";
import type { Peer, PolicySpec } from "../../../src/policy/model.ts";
import { readPolicy } from "../../../src/policy/read_policy.ts";

function specOf(spec: Record<string, unknown>, features?: PolicyFeatures): PolicySpec {
  const result = readPolicy({
    apiVersion: "cilium.io/v2",
    kind: "CiliumClusterwideNetworkPolicy",
    metadata: { name: "p" },
    spec: { ...(spec["nodeSelector"] === undefined && { endpointSelector: {} }), ...spec },
  }, features);
  if ("errors" in result) throw new Error(JSON.stringify(result.errors, undefined, 2));
  return result.policy.specs[0]!;
}

const peersOf = (entry: Record<string, unknown>, features?: PolicyFeatures): readonly Peer[] | undefined =>
  specOf({ egress: [entry] }, features).rules[0]!.peers;

const plain = (key: string, value: string) => ({
  requirements: [{ source: "k8s", key, operator: "In", values: [value] }],
  defaultsCluster: false,
});

describe("peers of Cilium policies", () => {
  it("are CIDR groups by name or by labels, with holes", () => {
    const toCIDRSet = [
      { cidrGroupRef: "office", except: ["192.0.2.0/28", "2001:db8::/64"] },
      { cidrGroupSelector: { matchLabels: { team: "core" } } },
    ];
    expect(peersOf({ toCIDRSet })).toEqual([
      { kind: "cidrGroup", group: "office", except: [parsePrefix("192.0.2.0/28"), parsePrefix("2001:db8::/64")] },
      { kind: "cidrGroup", group: plain("team", "core"), except: [] },
    ]);
  });

  it("are services by name or by labels, on some ports or on all", () => {
    const toServices = [
      { k8sService: { serviceName: "db", namespace: "shop" } },
      { k8sService: { serviceName: "db" } },
      { k8sServiceSelector: { selector: { matchLabels: { app: "db" } }, namespace: "bank" } },
    ];
    const wanted = [
      { kind: "service", service: "db", namespace: "shop" },
      { kind: "service", service: "db", namespace: "" },
      { kind: "service", service: plain("app", "db"), namespace: "bank" },
    ];
    expect(peersOf({ toServices })).toEqual(wanted);
    const [rule] = specOf({ egressDeny: [{ toServices, toPorts: [{ ports: [{ port: "5432" }] }] }] }).rules;
    expect([rule!.verdict, rule!.peers, rule!.ports!.length]).toEqual(["deny", wanted, 3]);
  });

  it("are names and patterns in one spelling", () => {
    const toFQDNs = [{ matchName: "WWW.Cilium.io" }, { matchPattern: "*.cilium.io." }, { matchPattern: "***.a_b.io" }];
    expect(peersOf({ toFQDNs })).toEqual([
      { kind: "fqdn", pattern: "www.cilium.io." },
      { kind: "fqdn", pattern: "*.cilium.io." },
      { kind: "fqdn", pattern: "**.a_b.io." },
    ]);
  });

  it("are nodes by their labels when those are on; the local cluster's unless one is named", () => {
    const features = { nodeSelectorLabels: true };
    const toNodes = [{ matchLabels: { "node:role": "edge" } }, {
      matchExpressions: [{ key: KEY_CLUSTER, operator: "Exists" }],
    }];
    expect(peersOf({ toNodes }, features)).toEqual([
      {
        kind: "node",
        selector: {
          requirements: [{ source: "any", key: "role", operator: "In", values: ["edge"] }],
          defaultsCluster: true,
        },
      },
      {
        kind: "node",
        selector: {
          requirements: [{ source: "any", key: KEY_CLUSTER, operator: "Exists", values: [] }],
          defaultsCluster: false,
        },
      },
    ]);
    const [rule] = specOf({ ingressDeny: [{ fromNodes: [] }] }, features).rules;
    expect(rule!.peers).toEqual([]);
  });

  it.each(["toCIDRSet", "toServices", "toFQDNs", "toEndpoints"])("are nobody when %s is an empty list", (name) => {
    expect(peersOf({ [name]: [], toPorts: [{ ports: [{ port: "80" }] }] })).toEqual([]);
  });
});

describe("nodeSelector", () => {
  it("makes a spec one for hosts", () => {
    const spec = specOf({ nodeSelector: { matchLabels: { role: "edge" } }, ingress: [{ fromEntities: ["health"] }] });
    expect(spec.isForNodes).toBe(true);
    expect(spec.subject).toEqual({
      requirements: [{ source: "any", key: "role", operator: "In", values: ["edge"] }],
      defaultsCluster: false,
    });
    expect(specOf({ ingress: [{}] }).isForNodes).toBeUndefined();
  });
});

describe("features", () => {
  const PROTOCOLS = { VRRP: 112, IGMP: 2, GRE: 47, IPIP: 4, IPV6: 41, ESP: 50, AH: 51 };

  it.each(Object.entries(PROTOCOLS))("extendedProtocols reads %s", (protocol, number) => {
    const entry = (port: unknown) => ({
      egress: [{ toPorts: [{ ports: [{ protocol, ...(port !== null && { port }) }] }] }],
    });
    for (const port of [null, "", "0"]) {
      expect(specOf(entry(port), { extendedProtocols: true }).rules[0]!.ports)
        .toEqual([{ protocol: number, first: 0, last: 65535 }]);
    }
    expect(() => specOf(entry("1"), { extendedProtocols: true })).toThrow(/has no ports/);
    expect(() => specOf(entry("web"), { extendedProtocols: true })).toThrow(/has no ports/);
    expect(() => specOf(entry("0"))).toThrow(/TURNED_OFF/);
  });

  it("icmpRules refuses icmps when it is off", () => {
    const spec = { ingress: [{ icmps: [{ fields: [{ type: 8 }] }] }] };
    expect(() => specOf(spec, { icmpRules: false })).toThrow(/TURNED_OFF/);
    expect(specOf(spec).rules[0]!.ports).toHaveLength(1);
  });
});
