import { beforeAll, describe, expect, it } from "vitest";
import { EGRESS, INGRESS } from "../../../src/datapath/counters.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { makePacket } from "../../fakes/packets.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

interface World {
  readonly a: MeshNode;
  readonly b: MeshNode;
  /** what the network takes now, IP and UDP headers included */
  pathBytes: number;
  /** sizes that nobody was to fragment, by sender */
  readonly whole: { from: string; bytes: number }[];
  readonly settle: (forMs: number) => void;
}

/** Two members over a network that takes no datagram longer than `pathBytes`. */
function meet(
  pathBytes: number,
  options: { isV6?: boolean; mode?: "native" | "tunnel"; probes?: boolean; both?: boolean } = {},
): World {
  const network = new FakeNetwork({ seed: 1 });
  const { isV6 = false, mode = "tunnel", probes = true, both = false } = options;
  const make = (name: string, number: number) =>
    new MeshNode(network, ciphers, {
      name,
      addresses: [`10.9.0.${number}`, `fd09::${number}`],
      underlay: isV6 ? `2001:db8::${number}` : `192.0.2.${number}`,
      identity: 65536 + number,
      probesPaths: probes && (both || number === 1),
      acceptsNative: mode === "native",
    });
  const a = make("a", 1);
  const b = make("b", 2);
  a.learn(b, { mode });
  b.learn(a, { mode });
  for (const node of [a, b]) node.setPolicy(policyOf(1, [{ identity: 0, protocol: 17, port: 80, verdict: "allow" }]));
  let untilMs = 0;
  const world: World = {
    a,
    b,
    pathBytes,
    whole: [],
    settle: (forMs) => runUntil([a, b], untilMs += forMs),
  };
  network.tap = (datagram) => {
    const bytes = datagram.bytes.length + (isV6 ? 48 : 28);
    if (datagram.isWhole === true) world.whole.push({ from: datagram.from, bytes });
    return bytes <= world.pathBytes;
  };
  return world;
}

const ping = () => makePacket({ source: "10.9.0.1", destination: "10.9.0.2" });
const pathOf = ({ a }: World) => a.datapath.snapshot(a.network.nowMs).peers[0]!.pathMtuBytes;
const limitOf = ({ a, b }: World) => {
  const peer = a.wireguard.findPeer(b.wireguard.publicKey)!;
  return a.datapath.node.paths.limitOf(peer.slot, 4);
};

describe.each(
  [
    ["IPv4", false, "tunnel"],
    ["IPv6", true, "tunnel"],
    ["IPv4, native", false, "native"],
  ] as const,
)("the way to a peer over %s", (_, isV6, mode) => {
  it("that takes everything is known with two probes, and limits nothing", () => {
    const world = meet(1500, { isV6, mode });
    world.a.send(ping());
    world.settle(500);
    expect(pathOf(world)).toBe(1500);
    expect(limitOf(world)).toBeGreaterThanOrEqual(isV6 ? 1335 : 65535);
    expect(world.whole.map(({ bytes }) => bytes)).toEqual([160, 1500]);
  });

  it.each([1280, 1376, 1420, 1492])("that takes %i octets is found on first use", (path) => {
    const world = meet(path, { isV6, mode });
    world.a.send(ping());
    world.settle(20_000);
    expect(pathOf(world)).toBe(path);
    world.b.takeDelivered();
    const octets = Math.min(limitOf(world), isV6 ? 1335 : 1355); // as the device has it
    world.a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2", payload: new Uint8Array(octets - 28) }));
    world.settle(100);
    expect(world.b.takeDelivered().map((packet) => packet.length)).toEqual([octets]);
    const drops = world.a.counters.totalDrops(INGRESS) + world.b.counters.totalDrops(INGRESS);
    expect(drops + world.a.counters.totalDrops(EGRESS)).toBe(0);
  });
});

describe("a way", () => {
  it("is answered for by a node that does not probe, and whose policy denies pings", () => {
    const world = meet(1420);
    world.a.send(ping());
    world.settle(20_000);
    expect(pathOf(world)).toBe(1420);
    expect(world.whole.some(({ from }) => from.startsWith("192.0.2.2"))).toBe(false);
    expect(world.a.takeDelivered().length + world.b.takeDelivered().length).toBe(1);
  });

  it("is not probed when that is off", () => {
    const world = meet(1420, { probes: false });
    world.a.send(ping());
    world.settle(20_000);
    expect([pathOf(world), world.whole.length, limitOf(world)]).toEqual([0, 0, 65535]);
  });

  it("that becomes narrow is noticed when data goes and nothing comes back", () => {
    const world = meet(1500);
    world.a.send(ping());
    world.settle(60_000);
    expect(pathOf(world)).toBe(1500);
    world.pathBytes = 1300;
    const big = () => makePacket({ source: "10.9.0.1", destination: "10.9.0.2", payload: new Uint8Array(1300) });
    world.a.takeDelivered();
    for (let i = 0; i < 15; i++) {
      world.a.send(big());
      world.settle(1000);
    }
    expect(pathOf(world)).toBeGreaterThan(1280);
    expect(pathOf(world)).toBeLessThanOrEqual(1300);
    const errors = world.a.takeDelivered();
    expect(errors.length).toBeGreaterThan(0);
    expect(errors.map((packet) => [packet[20], packet[21]])).toContainEqual([3, 4]);
  });

  it("that one end finds narrow is looked at by the other, too, which may not notice by itself", () => {
    const world = meet(1500, { both: true });
    const { a, b } = world;
    const pathOfB = () => b.datapath.snapshot(b.network.nowMs).peers[0]!.pathMtuBytes;
    a.send(ping());
    world.settle(60_000);
    expect([pathOf(world), pathOfB()]).toEqual([1500, 1500]);
    world.pathBytes = 1376;
    a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2", payload: new Uint8Array(1327) }));
    for (let second = 0; second < 20; second++) world.settle(1000);
    expect([pathOf(world), pathOfB()]).toEqual([1376, 1376]);
  });

  it("is looked at again after ten minutes of use, and at once after the peer has moved", () => {
    const world = meet(1420);
    for (let i = 0; i < 12; i++) {
      world.a.send(ping());
      world.settle(60_000);
      if (i === 0) expect(pathOf(world)).toBe(1420);
      world.pathBytes = 1500;
    }
    expect(pathOf(world)).toBe(1500);
    world.pathBytes = 1376;
    world.b.underlay.address = "192.0.2.9:51871";
    world.b.send(makePacket({ source: "10.9.0.2", destination: "10.9.0.1", sourcePort: 80, destinationPort: 40000 }));
    world.settle(20_000);
    expect(pathOf(world)).toBe(1376);
  });

  it("is looked at when the machine says that a datagram was too big for it", () => {
    const world = meet(1500);
    world.a.send(ping());
    world.settle(40_000);
    world.pathBytes = 1400;
    const peer = world.a.wireguard.findPeer(world.b.wireguard.publicKey)!;
    world.a.underlay.tooBig.push(peer.endpointAt);
    world.a.send(ping());
    world.settle(20_000);
    expect(pathOf(world)).toBeGreaterThan(1384);
    expect(pathOf(world)).toBeLessThanOrEqual(1400);
  });

  it("is no longer than what the machine's own device takes", () => {
    const world = meet(1500);
    world.a.underlay.deviceBytes = 1420;
    world.a.send(ping());
    world.settle(20_000);
    expect(pathOf(world)).toBe(1420);
  });

  it("to a peer that says nothing stays as it was, and is not asked without end", () => {
    const world = meet(1420);
    world.a.send(ping());
    world.settle(20_000);
    world.pathBytes = 0;
    world.whole.length = 0;
    for (let i = 0; i < 170; i++) {
      world.a.send(ping());
      world.settle(1000);
    }
    expect(pathOf(world)).toBe(1420);
    expect(world.whole.length).toBeGreaterThan(0);
    expect(world.whole.length).toBeLessThan(100);
  });

  it("is forgotten with its peer", () => {
    const world = meet(1280);
    world.a.send(ping());
    world.settle(20_000);
    const { publicKey } = world.b.wireguard;
    world.a.datapath.apply({ op: "removePeer", publicKey }, world.a.network.nowMs);
    world.a.learn(world.b);
    expect([pathOf(world), limitOf(world)]).toEqual([0, 65535]);
  });

  it("of an idle peer is left alone", () => {
    const world = meet(1500);
    world.a.send(ping());
    world.settle(10_000);
    world.whole.length = 0;
    world.settle(3_600_000);
    expect(world.whole).toEqual([]);
  });
});
