import { describe, expect, it } from "vitest";
import { formatPrefix, parseAddress } from "../../../src/ip/address.ts";
import { PolicyEngine } from "../../../src/policy/engine.ts";
import { PolicyTable, type PolicyUpdate } from "../../../src/policy/table.ts";
import { DROP_NOT_READY } from "../../../src/verdict.ts";
import { ask, cnp, DEFAULTS, knp, makeWorld, memberLabels, MEMBERS, read, update } from "./world.ts";

const CLIENT = { matchLabels: { app: "client" } };
const allow = (...ports: string[]) =>
  cnp({ ingress: ports.map((port) => ({ fromEndpoints: [CLIENT], toPorts: [{ ports: [{ port }] }] })) });

/** Classes and identities that an update touches, both directions. */
function touched(change: PolicyUpdate): { identities: number; classes: number } {
  const parts = [change.ingress, change.egress];
  return {
    identities: parts.reduce((sum, part) => sum + part.identities.length / 2, 0),
    classes: parts.reduce((sum, part) => sum + part.classes.length / 2, 0),
  };
}

describe("PolicyTable", () => {
  it("drops everything before its first update", () => {
    const table = new PolicyTable();
    expect(table.lookup(0, 1, 6, 80)).toBe(DROP_NOT_READY);
    expect(table.lookup(1, 0, 0, 0)).toBe(DROP_NOT_READY);
    expect(table.decidedBy).toBe(-1);
    expect(table.isEnforced(0)).toBe(true);
  });

  it("refuses an update that does not follow its revision, and takes a full one at any time", () => {
    const { engine, table } = makeWorld([allow("80")]);
    engine.putPolicy("q", read(allow("81")));
    const skipped = engine.takeUpdate()!;
    engine.removePolicy("q");
    expect(() => table.apply(engine.takeUpdate()!)).toThrow(RangeError);
    expect(skipped.revision).toBe(2);
    table.apply(engine.takeFullUpdate()!);
    expect(table.revision).toBe(4);
    engine.putPolicy("q", read(allow("82")));
    table.apply(engine.takeUpdate()!);
    expect(ask({ engine, table }, "in client tcp 82")).toBe(0);
    expect(ask({ engine, table }, "in client tcp 81")).toBe(133);
  });

  it("takes any identity, protocol and port without a fault", () => {
    const { table } = makeWorld([allow("80")]);
    for (const identity of [0, -1, 2 ** 24, 2 ** 31, 2 ** 32 - 1, 65_801]) {
      for (const protocol of [0, 255]) {
        for (const port of [0, 65_535]) expect(table.lookup(0, identity, protocol, port)).toBe(133);
      }
    }
  });

  it("keeps thousands of identities through growth and removal", () => {
    const { engine, table } = makeWorld([allow("80")]);
    const others = Array.from({ length: 5000 }, (_, i) => 70_000 + i);
    for (const id of others) engine.putIdentity(id, { ...memberLabels("client", "shop"), "k8s:pod": `p${id}` });
    update({ engine, table });
    for (const id of others) expect(table.lookup(0, id, 6, 80)).toBe(0);
    for (const id of others) if (id % 3 !== 0) engine.removeIdentity(id);
    update({ engine, table });
    for (const id of others) expect(table.lookup(0, id, 6, 80)).toBe(id % 3 === 0 ? 0 : 133);
    expect(table.sizes().ingress.identities).toBe(others.filter((id) => id % 3 === 0).length + 2); // client and host
    expect(table.sizes().ingress.classes).toBe(3);
  });

  it("gives room of replaced classes back", () => {
    const { engine, table } = makeWorld([]);
    for (let i = 0; i < 400; i++) {
      engine.putPolicy(
        "p",
        read(allow(...Array.from({ length: 1 + ((i * 7) % 40) }, (_, n) => String(100 + 2 * n + i)))),
      );
      update({ engine, table });
    }
    expect(table.sizes().bytes).toBeLessThan(64 * 1024);
  });

  it("counts hits by rule, from 0 for a rule that is new", () => {
    const world = makeWorld([allow("80", "81")]);
    const rule = (port: string) => (expect(ask(world, `in client tcp ${port}`)).toBe(0), world.table.decidedBy);
    const first = rule("80");
    const second = rule("81");
    rule("81");
    expect([world.table.hitsOf(first), world.table.hitsOf(second)]).toEqual([1, 2]);
    ask(world, "in client tcp 9");
    expect([world.table.decidedBy, world.table.hitsOf(-1)]).toEqual([-1, 1]);
    world.engine.putPolicy("CiliumNetworkPolicy/shop/p", read(allow("90", "81")));
    update(world);
    expect(rule("81")).toBe(second);
    expect(world.table.hitsOf(second)).toBe(3);
    expect(world.table.hitsOf(rule("90"))).toBe(1);
    expect(world.table.copyHits()[0]).toBe(1);
  });
});

describe("PolicyEngine", () => {
  it("says nothing while subject or settings are unknown, nor when nothing changed", () => {
    const engine = new PolicyEngine();
    engine.putPolicy("p", read(allow("80")));
    expect(engine.takeUpdate()).toBeUndefined();
    engine.setSettings({ cluster: "c1", policy: DEFAULTS });
    expect(engine.takeUpdate()).toBeUndefined();
    engine.setSubject({ labels: memberLabels("web", "shop"), identity: 1000, namespace: "shop", namedPorts: [] });
    expect(engine.takeUpdate()).toMatchObject({ revision: 1, isFull: true });
    expect(engine.takeUpdate()).toBeUndefined();
    engine.putPolicy("p", read(allow("80")));
    engine.removePolicy("unknown");
    engine.removeIdentity(4242);
    expect(engine.takeUpdate()).toBeUndefined();
  });

  it("shares one class among identities that match the same, and touches only what a change is about", () => {
    const world = makeWorld([allow("80")]);
    for (let i = 0; i < 100; i++) {
      world.engine.putIdentity(80_000 + i, { ...memberLabels("client", "shop"), "k8s:pod": `p${i}` });
    }
    for (let i = 0; i < 100; i++) {
      world.engine.putIdentity(81_000 + i, { ...memberLabels("db", "shop"), "k8s:pod": `p${i}` });
    }
    update(world);
    expect(world.table.sizes().ingress.classes).toBe(3); // everybody, client, host
    world.engine.putPolicy("q", read(cnp({ ingress: [{ fromEndpoints: [{ matchLabels: { pod: "p7" } }] }] }, "q")));
    expect(touched(world.engine.takeUpdate()!)).toEqual({ identities: 2, classes: 2 });
  });

  it("keeps the table as it is when an identity comes that no rule is about", () => {
    const world = makeWorld([allow("80")]);
    world.engine.putIdentity(90_000, memberLabels("other", "bank"));
    expect(world.engine.takeUpdate()).toBeUndefined();
  });

  it("takes no identity from the mesh that is reserved or of a node's own scope", () => {
    const { engine } = makeWorld([]);
    for (const identity of [0, 1, 2, 9, 10, 0x0100_0001, -5, 1.5, NaN]) {
      expect(engine.putIdentity(identity, {})).toBe(false);
    }
    expect(engine.putIdentity(128, {})).toBe(true);
  });

  it("gives each prefix in use, holes too, an identity, and takes it back with the last rule", () => {
    const set = (name: string, except: string[]) =>
      cnp({ egress: [{ toCIDRSet: [{ cidr: "10.1.2.3/8", except }] }] }, name);
    const { engine, table } = makeWorld([set("p", ["10.1.0.0/16"]), set("q", [])]);
    const { put, remove } = engine.takePrefixes();
    expect(put.map((p) => formatPrefix(p.prefix)).sort()).toEqual(["10.0.0.0/8", "10.1.0.0/16"]);
    expect(put.every(({ identity }) => identity >>> 24 === 1)).toBe(true);
    expect(remove).toEqual([]);
    expect(engine.identityOfAddress(parseAddress("10.1.1.1")!)).toBe(put.find((p) => p.prefix.length === 16)!.identity);
    engine.removePolicy("CiliumNetworkPolicy/shop/p");
    update({ engine, table });
    expect(engine.takePrefixes().remove.map(formatPrefix)).toEqual(["10.1.0.0/16"]);
    expect(engine.allPrefixes().map((p) => formatPrefix(p.prefix))).toEqual(["10.0.0.0/8"]);
    expect(engine.identityOfAddress(parseAddress("10.1.1.1")!)).toBe(engine.allPrefixes()[0]!.identity);
    expect(engine.identityOfAddress(parseAddress("fd00::1")!)).toBe(10);
  });

  it("keeps a prefix's identity when the policy that mentions it is replaced", () => {
    const { engine, table } = makeWorld([cnp({ egress: [{ toCIDR: ["10.0.0.0/8"] }] })]);
    engine.takePrefixes();
    engine.putPolicy(
      "CiliumNetworkPolicy/shop/p",
      read(cnp({ egress: [{ toCIDR: ["10.0.0.0/8"], icmps: [{ fields: [{ type: 8 }] }] }] })),
    );
    update({ engine, table });
    expect(engine.takePrefixes()).toEqual({ put: [], remove: [] });
  });

  it("follows a namespace's labels at once, its own namespace's too", () => {
    const world = makeWorld([knp({ ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: "core" } } }] }] })]);
    expect(ask(world, "in bank tcp 1")).toBe(133);
    world.engine.setNamespaces(new Map([["bank", { team: "core" }], ["shop", { team: "core" }]]));
    update(world);
    expect(ask(world, "in bank tcp 1")).toBe(0);
    world.engine.setNamespaces(new Map([["bank", { team: "edge" }], ["shop", {}]]));
    update(world);
    expect(ask(world, "in bank tcp 1")).toBe(133);
    expect(ask(world, "in client tcp 1")).toBe(133);
    expect(ask(world, "in far tcp 1")).toBe(133);
  });

  it("lets a namespace label select the subject", () => {
    const subject = { matchLabels: { "k8s:io.cilium.k8s.namespace.labels.tier": "gold" } };
    const world = makeWorld([cnp({ endpointSelector: subject, ingress: [{}] })]);
    expect(world.engine.isSelecting("CiliumNetworkPolicy/shop/p")).toBe(false);
    world.engine.setNamespaces(new Map([["shop", { tier: "gold" }]]));
    update(world);
    expect(ask(world, "in client tcp 1")).toBe(133);
    expect(world.engine.isSelecting("CiliumNetworkPolicy/shop/p")).toBe(true);
  });

  it("closes an endpoint whose labels are not known yet", () => {
    const world = makeWorld([]);
    world.engine.setSubject({ labels: { "reserved:init": "" }, identity: 5, namespace: "", namedPorts: [] });
    update(world);
    expect(ask(world, "in client tcp 1")).toBe(133);
    expect(ask(world, "out client tcp 1")).toBe(133);
  });

  it("opens no port for a name that one identity's members disagree on, and denies all of them", () => {
    const both = [{ name: "sql", port: 1, protocol: "TCP" }, { name: "sql", port: 2, protocol: "TCP" }] as const;
    const entry = [{ toEndpoints: [{}], toPorts: [{ ports: [{ port: "sql" }] }] }];
    for (const [section, verdict] of [["egress", 133], ["egressDeny", 181]] as const) {
      const world = makeWorld([cnp({ [section]: entry })]);
      world.engine.putIdentity(MEMBERS["db"]!.identity, memberLabels("db", "shop"), both);
      update(world);
      expect([ask(world, "out db tcp 1"), ask(world, "out db tcp 2")]).toEqual([verdict, verdict]);
    }
  });

  it("explains: every rule that matches, the one that decides, and where it stands", () => {
    const deny = cnp({ ingressDeny: [{ fromEndpoints: [CLIENT] }] }, "deny");
    const { engine, table } = makeWorld([allow("79", "80"), deny]);
    const why = engine.explain(0, MEMBERS["client"]!.identity, 6, 80);
    expect(why.verdict).toBe(181);
    expect(why.decidedBy).toMatchObject({
      policy: "CiliumNetworkPolicy/shop/deny",
      path: "spec.ingressDeny[0]",
      verdict: "deny",
    });
    expect(why.matched.map((rule) => rule.path)).toEqual(["spec.ingressDeny[0]", "spec.ingress[1]"]);
    table.lookup(0, MEMBERS["client"]!.identity, 6, 80);
    expect(engine.ruleOf(table.decidedBy)).toEqual(why.decidedBy);
    const stranger = engine.explain(0, memberLabels("client", "shop"), 6, 80);
    expect(stranger).toEqual(why);
    const nobody = engine.explain(0, 999_999, 6, 80);
    expect(nobody).toEqual({ verdict: 133, decidedBy: undefined, matched: [], isEnforced: true, l7: [] });
  });

  it("names the rule that nobody wrote", () => {
    const { engine } = makeWorld([allow("80")]);
    expect(engine.explain(0, 1, 6, 1).decidedBy).toMatchObject({
      policy: "reserved:allow-localhost-ingress",
      tier: 255,
    });
  });

  it("resolves a thousand rules that all match everybody", () => {
    const world = makeWorld([]);
    for (let i = 0; i < 2000; i++) {
      world.engine.putIdentity(100_000 + i, { ...memberLabels("client", "shop"), "k8s:pod": `p${i}` });
    }
    for (let i = 0; i < 1000; i++) {
      world.engine.putPolicy(
        `p${i}`,
        read(cnp({ ingress: [{ fromEndpoints: [{}], toPorts: [{ ports: [{ port: String(1000 + 2 * i) }] }] }] })),
      );
    }
    update(world);
    expect(world.table.sizes().ingress.classes).toBe(3);
    expect(ask(world, "in client tcp 1998")).toBe(0);
    expect(ask(world, "in client tcp 1999")).toBe(133);
  });
});
