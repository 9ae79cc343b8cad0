/** Tiers and hosts. @see facts policy.md sections 9 (host firewall) and 14 (tiers) */
import { describe, expect, it } from "vitest";
import { parseAddress } from "../../../src/ip/address.ts";
import { ask, ccnp, knp, makeWorld, memberLabels, read, update, type World } from "./world.ts";

const cluster = (
  tier: string,
  priority: number,
  rules: Record<string, unknown>,
  name = `${tier.toLowerCase()}${priority}`,
) => ({
  apiVersion: "policy.networking.k8s.io/v1alpha2",
  kind: "ClusterNetworkPolicy",
  metadata: { name },
  spec: { tier, priority, subject: { namespaces: {} }, ...rules },
});
const everybody = [{ namespaces: {} }];
const BASELINE = cluster("Baseline", 5, { ingress: [{ action: "Accept", from: everybody }] });
const FROM_DB = knp({ ingress: [{ from: [{ podSelector: { matchLabels: { app: "db" } } }] }] });

describe("tiers", () => {
  it("ask the baseline for whom no NetworkPolicy isolates, by Kubernetes; by Cilium for all that none allows", () => {
    const asked = (world: World) => ["client", "db", "world"].map((name) => ask(world, `in ${name} tcp 80`));
    const deny = cluster("Baseline", 4, { ingress: [{ action: "Deny", from: everybody }] });
    for (const flavor of ["kubernetes", "cilium"] as const) {
      expect(asked(makeWorld([deny, BASELINE], { flavor }))).toEqual([181, 181, 0]);
    }
    expect(asked(makeWorld([BASELINE, FROM_DB], { flavor: "kubernetes" }))).toEqual([133, 0, 133]);
    expect(asked(makeWorld([BASELINE, FROM_DB]))).toEqual([0, 0, 133]);
  });

  it("write Cilium's default deny into the normal tier once some rule passes, and take it back", () => {
    const world = makeWorld([BASELINE, FROM_DB]);
    const pass = cluster("Admin", 1, { ingress: [{ action: "Pass", from: everybody }] });
    world.engine.putPolicy("pass", read(pass));
    update(world);
    expect(ask(world, "in client tcp 80")).toBe(133);
    expect(world.engine.explain(0, 65_802, 6, 80).verdict).toBe(133);
    world.engine.removePolicy("pass");
    update(world);
    expect(ask(world, "in client tcp 80")).toBe(0);
  });

  it("follow the flavor and what isolates, at once", () => {
    const world = makeWorld([BASELINE], { flavor: "kubernetes" });
    expect(ask(world, "in client tcp 80")).toBe(0);
    world.engine.putPolicy("k", read(FROM_DB));
    update(world);
    expect([ask(world, "in client tcp 80"), ask(world, "in db tcp 80")]).toEqual([133, 0]);
    world.engine.removePolicy("k");
    update(world);
    expect(ask(world, "in client tcp 80")).toBe(0);
  });

  it("let a pass skip later objects of its tier, and nothing else", () => {
    const world = makeWorld([
      cluster("Admin", 1, { ingress: [{ action: "Pass", from: [{ namespaces: { matchLabels: { team: "core" } } }] }] }),
      cluster("Admin", 2, { ingress: [{ action: "Deny", from: everybody }] }),
    ], { flavor: "kubernetes" });
    world.engine.setNamespaces(new Map([["shop", { team: "core" }], ["bank", { team: "edge" }]]));
    update(world);
    expect(["client", "bank"].map((name) => ask(world, `in ${name} tcp 80`))).toEqual([0, 181]);
  });
});

describe("hosts", () => {
  const host = { nodeSelector: { matchLabels: { role: "edge" } }, endpointSelector: undefined };
  const POLICY = ccnp({ ...host, ingress: [{ fromEntities: ["health"] }] }, "host");
  const { endpointSelector: _, ...spec } = POLICY.spec as Record<string, unknown>;
  const documents = [
    { ...POLICY, spec },
    ccnp({ endpointSelector: {}, ingress: [{ fromEntities: ["world"] }] }, "all"),
  ];
  const asked = (world: World) => ["health", "world", "client"].map((name) => ask(world, `in ${name} tcp 80`));
  const subject = { labels: { "reserved:host": "" }, identity: 1, namespace: "", namedPorts: [] };

  it("are selected by a nodeSelector and by nothing else, with the host firewall", () => {
    const world = makeWorld(documents, { hostFirewall: true });
    world.engine.setSubject({ ...subject, nodeLabels: { role: "edge" } });
    update(world);
    expect(asked(world)).toEqual([0, 133, 133]);
    world.engine.setSubject({ ...subject, nodeLabels: { role: "core" } });
    update(world);
    expect(asked(world)).toEqual([0, 0, 0]);
  });

  it("are open without it, in every mode", () => {
    for (const enforcementMode of ["default", "always", "never"] as const) {
      const world = makeWorld(documents, { enforcementMode });
      world.engine.setSubject({ ...subject, nodeLabels: { role: "edge" } });
      update(world);
      expect(asked(world)).toEqual([0, 0, 0]);
      expect(world.engine.isEnforced(0)).toBe(false);
    }
  });

  it("that are an endpoint as well have the policies of both", () => {
    const world = makeWorld(documents, { hostFirewall: true });
    const member = { labels: memberLabels("web", "shop"), identity: 65_800, namespace: "shop", namedPorts: [] };
    world.engine.setSubject({ ...member, nodeLabels: { "k8s:role": "edge" } });
    update(world);
    expect(asked(world)).toEqual([0, 0, 133]);
    world.engine.setSubject(member);
    update(world);
    expect(asked(world)).toEqual([133, 0, 133]);
    expect(world.engine.identityOfAddress(parseAddress("192.0.2.1")!)).toBe(9);
  });
});
