/** Rules that a proxy completes. @see facts policy.md section 7 */
import { describe, expect, it } from "vitest";
import { KIND_DNS, KIND_HTTP } from "../../../src/policy/decision.ts";
import { REDIRECT } from "../../../src/verdict.ts";
import { ask, cnp, makeWorld, MEMBERS, read, update, type World } from "./world.ts";

const CLIENT = { fromEndpoints: [{ matchLabels: { app: "client" } }] };
const ports = (port: string, rules?: Record<string, unknown>, protocol = "TCP") => ({
  toPorts: [{ ports: [{ port, protocol }], ...(rules !== undefined && { rules }) }],
});
const http = (path: string) => ({ http: [{ path }] });
const l7Of = (world: World, name: string, port: number, direction: 0 | 1 = 0, protocol = 6) =>
  world.engine.l7RulesFor(direction, MEMBERS[name]!.identity, protocol, port);
/** paths of all HTTP rules, as the proxy would see them */
const paths = (world: World, name: string, port: number) =>
  l7Of(world, name, port).flatMap(({ l7 }) => l7.kind === "http" ? l7.rules.map(({ path }) => path) : []).sort();

describe("L7 rules", () => {
  it("hand a flow to the proxy, with every rule of every policy that it may pass by", () => {
    const world = makeWorld([
      cnp({ ingress: [{ ...CLIENT, ...ports("80", http("/a")) }] }),
      cnp({ ingress: [{ ...CLIENT, ...ports("80", http("/b")) }, { ...CLIENT, ...ports("81", http("/c")) }] }, "q"),
      cnp({ ingress: [ports("80", http("/all"))] }, "r"),
    ]);
    expect(ask(world, "in client tcp 80")).toBe(REDIRECT);
    expect(world.table.kind).toBe(KIND_HTTP);
    expect(paths(world, "client", 80)).toEqual(["/a", "/all", "/b"]);
    expect(l7Of(world, "client", 80)[0]!.rule).toEqual(world.engine.ruleOf(world.table.decidedBy));
    expect(paths(world, "db", 80)).toEqual(["/all"]);
    expect([ask(world, "in client tcp 82"), paths(world, "client", 82)]).toEqual([133, []]);
    expect([ask(world, "in client udp 80"), paths(world, "client", 53)]).toEqual([133, []]);
    expect(world.engine.l7RulesFor(0, 4_000_000, 6, 80).map(({ rule }) => rule.policy)).toEqual([
      "CiliumNetworkPolicy/shop/r",
    ]);
    expect(world.engine.proxiesNeeded).toEqual({ http: true, dns: false });
  });

  it("are lifted by an allow without conditions of the same peer and port, for that peer alone", () => {
    const world = makeWorld([
      cnp({ ingress: [ports("80", http("/a"))] }),
      cnp({ ingress: [{ ...CLIENT, ...ports("80") }] }, "q"),
    ]);
    expect([ask(world, "in client tcp 80"), ask(world, "in db tcp 80")]).toEqual([0, REDIRECT]);
    expect([paths(world, "client", 80), paths(world, "db", 80)]).toEqual([[], ["/a"]]);
    world.engine.removePolicy("CiliumNetworkPolicy/shop/q");
    update(world);
    expect([ask(world, "in client tcp 80"), paths(world, "client", 80)]).toEqual([REDIRECT, ["/a"]]);
  });

  it("come after denies", () => {
    const world = makeWorld([
      cnp({ ingress: [ports("80", http("/a"))], ingressDeny: [{ ...CLIENT, ...ports("80") }] }),
    ]);
    expect([ask(world, "in client tcp 80"), paths(world, "client", 80)]).toEqual([181, []]);
  });

  it("that differ are two rules, and keep their numbers when put again", () => {
    const world = makeWorld([cnp({ ingress: [{ ...CLIENT, ...ports("80", http("/a")) }] })]);
    const before = world.engine.rules().map(({ index }) => index);
    world.engine.putPolicy(
      "CiliumNetworkPolicy/shop/p",
      read(cnp({ ingress: [{ ...CLIENT, ...ports("80", http("/a")) }] })),
    );
    expect(world.engine.takeUpdate()).toBeUndefined();
    world.engine.putPolicy(
      "CiliumNetworkPolicy/shop/p",
      read(cnp({ ingress: [{ ...CLIENT, ...ports("80", http("/b")) }] })),
    );
    update(world);
    expect(paths(world, "client", 80)).toEqual(["/b"]);
    expect(world.engine.rules().filter(({ tier }) => tier === 200).map(({ index }) => index)).not.toEqual(before);
  });

  it("of DNS go to their own proxy, which is needed for names as well", () => {
    const dns = ports("53", { dns: [{ matchPattern: "*.test" }] }, "ANY");
    const world = makeWorld([cnp({ egress: [{ toEndpoints: [{}], ...dns }] })]);
    expect([ask(world, "out db udp 53"), ask(world, "out db tcp 53")]).toEqual([REDIRECT, REDIRECT]);
    expect(world.table.kind).toBe(KIND_DNS);
    expect(l7Of(world, "db", 53, 1, 17)).toMatchObject([{ l7: { kind: "dns", rules: [{ pattern: "*.test." }] } }]);
    expect(world.engine.proxiesNeeded).toEqual({ http: false, dns: true });
    const named = makeWorld([cnp({ egress: [{ toFQDNs: [{ matchName: "a.test" }] }] })]);
    expect(named.engine.proxiesNeeded).toEqual({ http: false, dns: true });
    named.engine.removePolicy("CiliumNetworkPolicy/shop/p");
    update(named);
    expect(named.engine.proxiesNeeded).toEqual({ http: false, dns: false });
  });

  it("of two kinds on one peer and port open what the first allows, and nothing of the other", () => {
    const to = { toEndpoints: [{}] };
    const world = makeWorld([
      cnp({ egress: [{ ...to, ...ports("80", http("/a")) }] }, "http"),
      cnp({ egress: [{ ...to, ...ports("80", { dns: [{ matchPattern: "*" }] }, "TCP") }] }, "dns"),
    ]);
    expect(ask(world, "out db tcp 80")).toBe(REDIRECT);
    const rules = l7Of(world, "db", 80, 1);
    expect(rules).toHaveLength(1);
    expect(rules[0]!.l7.kind).toBe(world.table.kind === KIND_DNS ? "dns" : "http");
    expect(world.engine.explain(1, MEMBERS["db"]!.identity, 6, 80).l7).toEqual(rules);
  });

  it("refuse under audit mode as ever: it lets through what no rule allows", () => {
    const world = makeWorld([cnp({ ingress: [{ ...CLIENT, ...ports("80", http("/a")) }] })], { auditMode: true });
    expect([ask(world, "in client tcp 80"), ask(world, "in client tcp 81")]).toEqual([REDIRECT, 0]);
    const why = world.engine.explain(0, MEMBERS["client"]!.identity, 6, 80);
    expect([why.verdict, why.audited, why.l7.length]).toEqual([REDIRECT, undefined, 1]);
  });

  it("answer nothing before the first update, and go with their policy", () => {
    const world = makeWorld([cnp({ ingress: [{ ...CLIENT, ...ports("80", http("/a")) }] })]);
    world.engine.removePolicy("CiliumNetworkPolicy/shop/p");
    update(world);
    expect(paths(world, "client", 80)).toEqual([]);
  });
});
