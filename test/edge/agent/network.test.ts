import { describe, expect, it } from "vitest";
import { conflictOf, Network, type NetworkPlan } from "../../../edge/agent/network.ts";
import { PROXY_ROUTES } from "../../../src/datapath/proxy_addresses.ts";
import { FakeNetwork } from "./fakes.ts";

const PLAN: NetworkPlan = {
  tun: "edgemesh0",
  mtuBytes: 1355,
  addresses: ["10.9.0.2/32", "fd09::2/128"],
  routes: ["10.9.0.0/16", "fd09::/64"],
};

describe("Network", () => {
  it("makes what is missing, and nothing the second time", () => {
    const door = new FakeNetwork();
    const network = new Network(door);
    expect(network.apply(PLAN)).toBe(4);
    expect(network.apply(PLAN)).toBe(0);
    expect([door.on(door.localAddresses), door.on(door.localRoutes)]).toEqual([[...PLAN.addresses], [...PLAN.routes]]);
  });

  it("removes only what it made itself", () => {
    const door = new FakeNetwork();
    door.localRoutes.push({ interfaceIndex: 7, interfaceName: "edgemesh0", prefix: "10.200.0.0/16" });
    const network = new Network(door);
    network.apply(PLAN);
    network.apply({ ...PLAN, routes: ["fd09::/64"], addresses: ["10.9.0.2/32"] });
    expect(door.on(door.localRoutes)).toEqual(["10.200.0.0/16", "fd09::/64"]);
    expect(door.on(door.localAddresses)).toEqual(["10.9.0.2/32"]);
  });

  it("gives no IPv6 to a device whose MTU is too small for it", () => {
    const door = new FakeNetwork();
    new Network(door).apply({ ...PLAN, mtuBytes: 1279 });
    expect(door.on([...door.localAddresses, ...door.localRoutes])).toEqual(["10.9.0.0/16", "10.9.0.2/32"]);
  });

  it("lets only itself send to the proxies' addresses, as long as they are routed", () => {
    const door = new FakeNetwork();
    const network = new Network(door);
    network.apply(PLAN);
    expect(door.guarded).toEqual(new Set());
    network.apply({ ...PLAN, routes: [...PLAN.routes, ...PROXY_ROUTES] });
    expect(door.guarded).toEqual(new Set(PROXY_ROUTES));
    door.guarded.clear(); // somebody flushed the rules
    network.apply({ ...PLAN, routes: [...PLAN.routes, ...PROXY_ROUTES.filter((route) => !route.includes(":"))] });
    expect(door.guarded).toEqual(new Set(["169.254.101.1/32", "169.254.101.2/32"]));
    network.release();
    expect(door.guarded).toEqual(new Set());
  });

  it("says when the kernel has no such guard, and sets up the rest", () => {
    const door = new FakeNetwork();
    door.guardRefusal = new Error("not supported");
    const network = new Network(door);
    network.apply({ ...PLAN, routes: [...PLAN.routes, ...PROXY_ROUTES] });
    expect(network.guardFault).toBe("not supported");
    expect(door.on(door.localRoutes)).toEqual([...PLAN.routes, ...PROXY_ROUTES].sort());
    network.apply(PLAN);
    expect(network.guardFault).toBeUndefined();
  });

  it("says when there is no device", () => {
    const door = new FakeNetwork();
    door.hasTun = false;
    expect(() => new Network(door).apply(PLAN)).toThrow(/no such device/);
  });
});

describe("conflictOf", () => {
  const eth = { interfaceIndex: 2, interfaceName: "eth0" };
  const of = (addresses: string[], routes: string[]) =>
    conflictOf(PLAN, 7, addresses.map((prefix) => ({ ...eth, prefix })), routes.map((prefix) => ({ ...eth, prefix })));

  it("finds local addresses and equal or narrower routes inside a wanted prefix", () => {
    expect(of(["10.9.1.1/24"], [])).toMatch(/"eth0" has the address 10.9.1.1\/24/);
    expect(of([], ["10.9.0.0/16"])).toMatch(/10.9.0.0\/16 is routed to "eth0"/);
    expect(of([], ["10.9.3.0/24"])).toMatch(/10.9.3.0\/24 is routed/);
    expect(of(["fd09::77/64"], [])).toMatch(/fd09::/);
  });

  it("lets wider routes, default routes and our own device be", () => {
    expect(of(["192.168.1.5/24"], ["0.0.0.0/0", "::/0", "10.0.0.0/8"])).toBeUndefined();
    const own = [{ interfaceIndex: 7, interfaceName: "edgemesh0", prefix: "10.9.0.2/32" }];
    expect(conflictOf(PLAN, 7, own, [])).toBeUndefined();
  });
});
