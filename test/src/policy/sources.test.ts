/** Peers that stand for other objects: CIDR groups, services, names, nodes. @see facts policy.md sections 5 and 8 */
import { describe, expect, it } from "vitest";
import { formatPrefix, parseAddress, parsePrefix } from "../../../src/ip/address.ts";
import { ask, ccnp, cnp, DEFAULTS, makeWorld, MEMBERS, read, update, type World } from "./world.ts";

const address = (text: string) => parseAddress(text)!;
const group = (name: string, prefixes: string[], labels: Record<string, string> = {}) => ({
  name,
  labels,
  prefixes: prefixes.map((text) => parsePrefix(text)!),
});
const asked = (world: World, ...ips: string[]) => ips.map((ip) => ask(world, `out ${ip} tcp 443`));
const set = (...entries: Record<string, unknown>[]) => cnp({ egress: [{ toCIDRSet: entries }] });

describe("CIDR groups", () => {
  it("stand for their prefixes without the holes, by name or by labels; an unknown one for none", () => {
    const world = makeWorld([
      set({ cidrGroupRef: "a", except: ["10.1.0.0/16"] }, { cidrGroupSelector: { matchLabels: { kind: "b" } } }),
    ]);
    const ips = ["10.0.0.1", "10.1.0.1", "192.0.2.1"];
    expect(asked(world, ...ips)).toEqual([133, 133, 133]);
    world.engine.putCidrGroup(group("a", ["10.0.0.0/8"]));
    world.engine.putCidrGroup(group("c", ["192.0.2.0/24"], { kind: "b" }));
    update(world);
    expect(asked(world, ...ips)).toEqual([0, 133, 0]);
    world.engine.putCidrGroup(group("c", ["192.0.2.0/24"], { kind: "other" }));
    world.engine.removeCidrGroup("a");
    update(world);
    expect(asked(world, ...ips)).toEqual([133, 133, 133]);
    expect(world.engine.allPrefixes()).toEqual([]);
  });

  it("deny as well", () => {
    const world = makeWorld([
      cnp({ egress: [{ toEntities: ["world"] }], egressDeny: [{ toCIDRSet: [{ cidrGroupRef: "a" }] }] }),
    ]);
    world.engine.putCidrGroup(group("a", ["10.0.0.0/8"]));
    update(world);
    expect(asked(world, "10.0.0.1", "11.0.0.1")).toEqual([181, 0]);
  });

  it("change nothing where no rule means them, or where they are put again as they were", () => {
    const { engine, table } = makeWorld([
      set({ cidrGroupRef: "a" }),
      cnp({ egress: [{ toCIDR: ["9.0.0.0/8"] }] }, "q"),
    ]);
    engine.putCidrGroup(group("a", ["10.0.0.0/8"]));
    update({ engine, table });
    const rules = engine.rules().map(({ index, policy }) => [index, policy]);
    engine.putCidrGroup(group("a", ["10.0.0.0/8"]));
    engine.putCidrGroup(group("b", ["10.0.0.0/8"]));
    engine.removeCidrGroup("nobody");
    expect(engine.takeUpdate()).toBeUndefined();
    engine.putCidrGroup(group("a", ["11.0.0.0/8"]));
    update({ engine, table });
    const after = engine.rules().map(({ index, policy }) => [index, policy]);
    expect(after.filter((rule) => rules.some((other) => other.join() === rule.join()))).toEqual([
      expect.arrayContaining(["CiliumNetworkPolicy/shop/q"]),
    ]);
  });

  it("of thousands of prefixes are resolved, and let go", () => {
    const world = makeWorld([set({ cidrGroupRef: "big" })]);
    const prefixes = Array.from({ length: 8000 }, (_, i) => `20.${i >> 8}.${i & 255}.0/24`);
    world.engine.putCidrGroup(group("big", prefixes));
    update(world);
    expect(asked(world, "20.0.0.1", "20.31.63.9", "20.31.64.9")).toEqual([0, 0, 133]);
    world.engine.putCidrGroup(group("big", prefixes.slice(1)));
    update(world);
    expect(asked(world, "20.0.0.1", "20.0.1.1")).toEqual([133, 0]);
    expect(world.engine.takePrefixes().put).toHaveLength(7999);
  });
});

describe("services", () => {
  const to = (peer: Record<string, unknown>) => cnp({ egress: [{ toServices: [peer] }] });
  const service = { name: "db", namespace: "shop", labels: { tier: "data" }, addresses: [] };

  it("with a selector stand for the pods of any cluster that it picks in its namespace", () => {
    const world = makeWorld([to({ k8sService: { serviceName: "db", namespace: "shop" } })]);
    expect(ask(world, "out db tcp 1")).toBe(133);
    world.engine.putService("shop/db", { ...service, selector: { app: "client" } });
    update(world);
    expect(["client", "far", "bank", "db"].map((name) => ask(world, `out ${name} tcp 1`))).toEqual([0, 0, 133, 133]);
    world.engine.removeService("shop/db");
    update(world);
    expect(ask(world, "out client tcp 1")).toBe(133);
  });

  it("without one stand for their addresses, which are never those of pods", () => {
    const world = makeWorld([to({ k8sServiceSelector: { selector: { matchLabels: { tier: "data" } } } })]);
    world.engine.putAddress(address("10.0.0.2"), MEMBERS["db"]!.identity);
    world.engine.putService("shop/db", { ...service, selector: {}, addresses: ["192.0.2.9", "10.0.0.2"].map(address) });
    update(world);
    expect(asked(world, "192.0.2.9", "192.0.2.8", "10.0.0.2")).toEqual([0, 133, 133]);
    expect(ask(world, "out db tcp 443")).toBe(133);
  });

  it("of another namespace are others", () => {
    const world = makeWorld([to({ k8sService: { serviceName: "db", namespace: "bank" } })]);
    world.engine.putService("shop/db", { ...service, selector: { app: "client" } });
    expect(world.engine.takeUpdate()).toBeUndefined();
    world.engine.putService("bank/db", { ...service, namespace: "bank", selector: { app: "client" } });
    update(world);
    expect(["client", "bank"].map((name) => ask(world, `out ${name} tcp 1`))).toEqual([133, 0]);
  });
});

describe("names", () => {
  const to = (...patterns: string[]) => ({ toFQDNs: patterns.map((matchPattern) => ({ matchPattern })) });
  const names = (world: World, learned: Record<string, string[]>) => {
    for (const [name, ips] of Object.entries(learned)) world.engine.putNames(name, ips.map(address));
    update(world);
  };

  it("stand for the addresses that were learned for them, while they were", () => {
    const world = makeWorld([cnp({ egress: [to("*.example.com")] })]);
    expect(world.engine.fqdnPatterns()).toEqual(["*.example.com."]);
    names(world, { "api.example.com.": ["192.0.2.1", "2001:db8::1"], "example.com.": ["192.0.2.2"] });
    const ips = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"];
    expect(asked(world, ...ips)).toEqual([0, 0, 133, 133]);
    expect(world.engine.takePrefixes().put.map(({ prefix }) => formatPrefix(prefix))).toEqual([
      "192.0.2.1/32",
      "2001:db8::1/128",
    ]);
    names(world, { "api.example.com.": ["192.0.2.3"], "b.example.com.": ["192.0.2.3"] });
    expect(asked(world, ...ips)).toEqual([133, 133, 133, 0]);
    names(world, { "api.example.com.": [] });
    expect(asked(world, "192.0.2.3")).toEqual([0]);
    names(world, { "b.example.com.": [], "never.example.com.": [] });
    expect(asked(world, "192.0.2.3")).toEqual([133]);
    expect(world.engine.allPrefixes()).toEqual([]);
  });

  it("that were learned before the rule came count from then on, until the last rule for them goes", () => {
    const world = makeWorld([cnp({ egress: [{ toPorts: [{ ports: [{ port: "1" }] }] }] })]);
    names(world, { "a.test.": ["192.0.2.1"], "b.test.": ["192.0.2.2"] });
    expect(world.engine.takePrefixes().put).toEqual([]);
    world.engine.putPolicy("q", read(cnp({ egress: [{ toFQDNs: [{ matchName: "A.test" }] }] }, "q")));
    world.engine.putPolicy("r", read(cnp({ egress: [to("*")] }, "r")));
    update(world);
    expect(asked(world, "192.0.2.1", "192.0.2.2")).toEqual([0, 0]);
    expect(world.engine.fqdnPatterns()).toEqual(["*", "a.test."]);
    world.engine.removePolicy("r");
    update(world);
    expect(asked(world, "192.0.2.1", "192.0.2.2")).toEqual([0, 133]);
    world.engine.removePolicy("q");
    update(world);
    expect(asked(world, "192.0.2.1")).toEqual([133]);
    expect([world.engine.fqdnPatterns(), world.engine.allPrefixes()]).toEqual([[], []]);
  });

  it("leave the prefixes around an address in force: CIDR rules, holes and denies", () => {
    const world = makeWorld([cnp({
      egress: [
        { ...to("*.example.com"), toPorts: [{ ports: [{ port: "443" }] }] },
        { toCIDRSet: [{ cidr: "192.0.0.0/16", except: ["192.0.3.0/24"] }], toPorts: [{ ports: [{ port: "80" }] }] },
      ],
      egressDeny: [{ toCIDR: ["192.0.4.0/24"] }],
    })]);
    names(world, { "api.example.com.": ["192.0.2.1", "192.0.3.1", "192.0.4.1"] });
    const ports = (port: number) =>
      ["192.0.2.1", "192.0.3.1", "192.0.4.1"].map((ip) => ask(world, `out ${ip} tcp ${port}`));
    expect(ports(443)).toEqual([0, 0, 181]);
    expect(ports(80)).toEqual([0, 133, 181]);
    expect(["in", "out"].map((way) => ask(world, `${way} 192.0.2.1 tcp 81`))).toEqual([0, 133]);
  });

  it("are of the world", () => {
    const world = makeWorld([cnp({ egress: [to("*")], egressDeny: [{ toEntities: ["world"] }] })]);
    names(world, { "a.test.": ["192.0.2.1"] });
    expect(asked(world, "192.0.2.1")).toEqual([181]);
  });

  it("never mean an address inside the mesh, whichever came first", () => {
    const world = makeWorld([cnp({ egress: [to("*")] })]);
    names(world, { "a.test.": ["10.0.0.2", "10.9.0.1", "10.9.1.1"] });
    world.engine.putAddress(address("10.0.0.2"), MEMBERS["db"]!.identity);
    world.engine.putPrefix(parsePrefix("10.9.0.0/16")!, MEMBERS["db"]!.identity);
    world.engine.putOutside(parsePrefix("10.9.1.0/24")!);
    update(world);
    expect(asked(world, "10.0.0.2", "10.9.0.1", "10.9.1.1")).toEqual([133, 133, 0]);
    expect(world.engine.identityOfAddress(address("10.9.0.1"))).toBe(MEMBERS["db"]!.identity);
    expect(world.engine.allPrefixes().map(({ prefix }) => formatPrefix(prefix)).sort()).toEqual([
      "10.9.1.0/24",
      "10.9.1.1/32",
    ]);
    world.engine.removeAddress(address("10.0.0.2"));
    world.engine.removePrefix(parsePrefix("10.9.0.0/16")!);
    update(world);
    expect(asked(world, "10.0.0.2", "10.9.0.1")).toEqual([0, 0]);
  });

  it("cost what they touch: one more address is one identity, whatever the policies", () => {
    const world = makeWorld(Array.from({ length: 50 }, (_, i) => cnp({ egress: [to(`*.n${i}.test`)] }, `p${i}`)));
    names(world, { "a.n7.test.": ["192.0.2.1"] });
    world.engine.putNames("a.n7.test.", ["192.0.2.1", "192.0.2.2"].map(address));
    const change = world.engine.takeUpdate()!;
    expect([change.egress.identities.length / 2, change.egress.classes.length]).toEqual([1, 0]);
    world.table.apply(change);
    expect(asked(world, "192.0.2.2")).toEqual([0]);
  });
});

describe("prefixes of the mesh that are outside", () => {
  it("have an identity that CIDR rules see, and others have not", () => {
    const world = makeWorld([cnp({ egress: [{ toCIDR: ["172.16.0.0/12"] }] })]);
    world.engine.putPrefix(parsePrefix("172.17.0.0/16")!, MEMBERS["db"]!.identity);
    world.engine.putOutside(parsePrefix("172.18.0.0/16")!);
    update(world);
    expect(asked(world, "172.16.0.1", "172.17.0.1", "172.18.0.1")).toEqual([0, 133, 0]);
    world.engine.removeOutside(parsePrefix("172.18.0.0/16")!);
    update(world);
    expect(world.engine.allPrefixes().map(({ prefix }) => formatPrefix(prefix))).toEqual(["172.16.0.0/12"]);
  });

  it("change sides when they are put again, whichever is taken back then", () => {
    const world = makeWorld([cnp({ egress: [{ toCIDR: ["172.16.0.0/12"] }] })]);
    const prefix = parsePrefix("172.17.0.0/16")!;
    world.engine.putOutside(prefix);
    world.engine.putPrefix(prefix, MEMBERS["db"]!.identity);
    world.engine.removeOutside(prefix);
    update(world);
    expect([asked(world, "172.17.0.1"), world.engine.identityOfAddress(address("172.17.0.1"))]).toEqual([
      [133],
      MEMBERS["db"]!.identity,
    ]);
    world.engine.putOutside(prefix);
    world.engine.removePrefix(prefix);
    update(world);
    expect(asked(world, "172.17.0.1")).toEqual([0]);
    expect(world.engine.allPrefixes()).toHaveLength(2);
  });

  it("say which number goes on the wire for one that is inside and has a number of its own", () => {
    const world = makeWorld([cnp({ egress: [{ toCIDR: ["172.16.0.0/12"] }] })], { cidrMatchMode: ["pods"] });
    world.engine.putAddress(address("172.16.0.1"), MEMBERS["db"]!.identity);
    world.engine.putPrefix(parsePrefix("172.17.0.0/16")!, MEMBERS["db"]!.identity);
    update(world);
    const wire = () => world.engine.allPrefixes().map((one) => [formatPrefix(one.prefix), one.wireIdentity]).sort();
    expect(wire()).toEqual([
      ["172.16.0.0/12", undefined],
      ["172.16.0.1/32", MEMBERS["db"]!.identity],
      ["172.17.0.0/16", MEMBERS["db"]!.identity],
    ]);
    world.engine.takePrefixes();
    world.engine.setSettings({ cluster: "c1", policy: DEFAULTS });
    update(world);
    expect(world.engine.takePrefixes().remove.map(formatPrefix).sort()).toEqual(["172.16.0.1/32", "172.17.0.0/16"]);
  });
});

describe("nodes", () => {
  const CLUSTER = "io.cilium.k8s.policy.cluster";
  const from = (matchLabels: Record<string, string>) => cnp({ ingress: [{ fromNodes: [{ matchLabels }] }] });
  const nodes = (world: World) => {
    world.engine.putNode(address("10.0.1.1"), 6, { zone: "a", [CLUSTER]: "c1" });
    world.engine.putNode(address("10.0.1.2"), 6, { zone: "b", [CLUSTER]: "c1" });
    world.engine.putNode(address("10.0.1.3"), 7, { zone: "a", [CLUSTER]: "c2" });
    world.engine.putAddress(address("10.0.1.4"), 6);
    update(world);
    return ["10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.9.9"].map((ip) => ask(world, `in ${ip} tcp 1`));
  };

  it("are told apart by their labels, in the local cluster by default", () => {
    expect(nodes(makeWorld([from({ zone: "a" })]))).toEqual([0, 133, 133, 133, 133]);
    expect(nodes(makeWorld([from({ zone: "a" })], { defaultLocalCluster: false }))).toEqual([0, 133, 0, 133, 133]);
    expect(nodes(makeWorld([from({ zone: "a", [CLUSTER]: "c2" })]))).toEqual([133, 133, 0, 133, 133]);
  });

  it("are not meant by selectors of endpoints, whatever other rules are about nodes", () => {
    const notSystem = { key: "k8s:io.kubernetes.pod.namespace", operator: "NotIn", values: ["kube-system"] };
    const endpoints = ccnp({ ingress: [{ fromEndpoints: [{ matchExpressions: [notSystem] }] }] });
    const before = nodes(makeWorld([endpoints]));
    const aboutNodes = ccnp({ egress: [{ toNodes: [{ matchLabels: { zone: "a" } }] }] }, "q");
    expect(nodes(makeWorld([endpoints, aboutNodes]))).toEqual(before);
  });

  it("stay nodes for all other rules, and need no numbers of their own while no rule tells them apart", () => {
    const open = makeWorld([ccnp({ ingress: [{ fromEntities: ["remote-node"] }] })]);
    expect(nodes(open)).toEqual([0, 0, 0, 0, 133]);
    expect(open.engine.allPrefixes()).toEqual([]);
    open.engine.putPolicy("q", read(from({ zone: "a" })));
    update(open);
    expect(open.engine.allPrefixes().map(({ wireIdentity }) => wireIdentity).sort()).toEqual([6, 6, 7]);
    expect(ask(open, "in 10.0.1.2 tcp 1")).toBe(0);
    open.engine.removePolicy("q");
    update(open);
    expect(open.engine.allPrefixes()).toEqual([]);
  });
});
