/** What the mesh's settings change in the reading of policies. @see facts policy.md sections 5 (CIDR match mode), 9, 12 (audit) */
import { describe, expect, it } from "vitest";
import { parseAddress } from "../../../src/ip/address.ts";
import { auditedVerdict } from "../../../src/policy/decision.ts";
import { ask, cnp, DEFAULTS, knp, makeWorld, memberLabels, MEMBERS, update, type World } from "./world.ts";

const address = (text: string) => parseAddress(text)!;
const DB = MEMBERS["db"]!.identity;

/** Two members of one identity, and a node. */
function withAddresses(world: World): World {
  world.engine.putAddress(address("10.1.0.1"), DB);
  world.engine.putAddress(address("10.2.0.2"), DB);
  world.engine.putAddress(address("10.1.0.9"), 6);
  update(world);
  return world;
}

const SUBNET = { toCIDRSet: [{ cidr: "10.1.0.0/16" }] };

describe("policyCIDRMatchMode", () => {
  it("leaves pods and nodes out by default, denies included", () => {
    const world = withAddresses(makeWorld([cnp({ egress: [SUBNET] })]));
    expect(["10.1.0.1", "10.1.0.9", "10.1.0.77"].map((ip) => ask(world, `out ${ip} tcp 1`))).toEqual([133, 133, 0]);
    expect(world.engine.identityOfAddress(address("10.1.0.1"))).toBe(DB);
  });

  it("tells members of one identity apart by their addresses with pods", () => {
    const world = withAddresses(makeWorld([cnp({ egress: [SUBNET] })], { cidrMatchMode: ["pods"] }));
    expect(["10.1.0.1", "10.2.0.2", "10.1.0.9"].map((ip) => ask(world, `out ${ip} tcp 1`))).toEqual([0, 133, 133]);
    expect(world.engine.identityOfAddress(address("10.1.0.1")) >>> 24).toBe(1);
    expect(world.engine.allPrefixes()).toHaveLength(3);
  });

  it("means nodes, and only them, with nodes", () => {
    const world = withAddresses(makeWorld([cnp({ egress: [SUBNET] })], { cidrMatchMode: ["nodes"] }));
    expect(["10.1.0.1", "10.1.0.9"].map((ip) => ask(world, `out ${ip} tcp 1`))).toEqual([133, 0]);
  });

  it("keeps the labels and named ports of an address that has an identity of its own, and follows them", () => {
    const entry = { toEndpoints: [{ matchLabels: { app: "db" } }], toPorts: [{ ports: [{ port: "sql" }] }] };
    const world = withAddresses(makeWorld([cnp({ egress: [entry] })], { cidrMatchMode: ["pods"] }));
    expect(ask(world, "out 10.1.0.1 tcp 5432")).toBe(0);
    world.engine.putIdentity(DB, memberLabels("db", "shop"), [{ name: "sql", port: 7, protocol: "TCP" }]);
    update(world);
    expect([ask(world, "out 10.1.0.1 tcp 5432"), ask(world, "out 10.1.0.1 tcp 7")]).toEqual([133, 0]);
    world.engine.removeIdentity(DB);
    update(world);
    expect(ask(world, "out 10.1.0.1 tcp 7")).toBe(133);
    world.engine.putIdentity(DB, memberLabels("db", "shop"), [{ name: "sql", port: 7, protocol: "TCP" }]);
    world.engine.setSettings({ cluster: "c1", policy: DEFAULTS });
    update(world);
    expect(ask(world, "out 10.1.0.1 tcp 7")).toBe(0);
    expect(world.engine.allPrefixes()).toEqual([]);
  });

  it("follows an address that moves to another identity, or goes", () => {
    const world = withAddresses(makeWorld([cnp({ egress: [SUBNET] })], { cidrMatchMode: ["pods"] }));
    world.engine.putAddress(address("10.1.0.1"), 6);
    update(world);
    expect(ask(world, "out 10.1.0.1 tcp 1")).toBe(133);
    world.engine.removeAddress(address("10.1.0.1"));
    world.engine.removeAddress(address("10.1.0.1"));
    update(world);
    expect(ask(world, "out 10.1.0.1 tcp 1")).toBe(0); // outside now
  });
});

describe("flavor kubernetes", () => {
  const block = { ipBlock: { cidr: "10.1.0.0/16", except: ["10.1.0.9/32"] } };

  it("lets ipBlock match addresses inside the cluster, and CIDR rules of Cilium not", () => {
    const plain = withAddresses(makeWorld([knp({ egress: [{ to: [block] }] })], { flavor: "kubernetes" }));
    const asked = ["10.1.0.1", "10.2.0.2", "10.1.0.9", "10.1.3.3"];
    expect(asked.map((ip) => ask(plain, `out ${ip} tcp 1`))).toEqual([0, 133, 133, 0]);
    const cilium = withAddresses(makeWorld([knp({ egress: [{ to: [block] }] })]));
    expect(asked.map((ip) => ask(cilium, `out ${ip} tcp 1`))).toEqual([133, 133, 133, 0]);
    const own = withAddresses(makeWorld([cnp({ egress: [SUBNET] })], { flavor: "kubernetes" }));
    expect(asked.map((ip) => ask(own, `out ${ip} tcp 1`))).toEqual([133, 133, 133, 0]);
  });
});

describe("audit mode", () => {
  const documents = [
    cnp({ ingress: [{ toPorts: [{ ports: [{ port: "80" }] }] }], ingressDeny: [{ fromEntities: ["world"] }] }),
  ];

  it("forwards what would be dropped, and tells it from what is allowed", () => {
    const world = makeWorld(documents, { auditMode: true });
    const told = ["in client tcp 80", "in client tcp 81", "in 8.8.8.8 tcp 80"].map((flow) => [
      ask(world, flow),
      auditedVerdict(world.table.kind),
    ]);
    expect(told).toEqual([[0, 0], [0, 133], [0, 181]]);
    expect(world.table.isEnforced(0)).toBe(true);
    expect(world.engine.explain(0, DB, 6, 81)).toMatchObject({ verdict: 0, audited: 133 });
    expect(world.engine.explain(0, DB, 6, 80).audited).toBeUndefined();
  });

  it("ends at once", () => {
    const world = makeWorld(documents, { auditMode: true });
    world.engine.setSettings({ cluster: "c1", policy: DEFAULTS });
    update(world);
    expect([ask(world, "in client tcp 81"), ask(world, "in 8.8.8.8 tcp 80")]).toEqual([133, 181]);
  });
});
