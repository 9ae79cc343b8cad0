import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { EGRESS, INGRESS } from "../../../src/datapath/counters.ts";
import type { Ciphers } from "../../../src/ports.ts";
import {
  DROP_IDENTITY_MISMATCH,
  DROP_INVALID_SOURCE_IP,
  DROP_NO_SESSION,
  DROP_NO_UNDERLAY_ADDRESS,
  DROP_NOT_FOR_US,
  DROP_NOT_READY,
  DROP_POLICY_DENIED,
  DROP_POLICY_DENY,
  DROP_REPLAYED,
  DROP_UNKNOWN_SENDER,
  DROP_UNROUTABLE,
} from "../../../src/verdict.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { makePacket, type PacketFields } from "../../fakes/packets.ts";
import { parseAddress } from "../../../src/ip/address.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

const A = { name: "a", addresses: ["10.9.0.1", "fd09::1"], underlay: "192.0.2.1", identity: 65537 };
const B = { name: "b", addresses: ["10.9.0.2", "fd09::2"], underlay: "192.0.2.2", identity: 65538 };

function meet(
  options: { seed?: number; loss?: number; jitterMs?: number; offload?: boolean; underlays?: [string, string] } = {},
) {
  const network = new FakeNetwork({
    seed: options.seed ?? 1,
    loss: options.loss ?? 0,
    jitterMs: options.jitterMs ?? 0,
  });
  const offload = options.offload ?? false;
  const [underlayA, underlayB] = options.underlays ?? [A.underlay, B.underlay];
  const a = new MeshNode(network, ciphers, { ...A, offload, underlay: underlayA });
  const b = new MeshNode(network, ciphers, { ...B, offload, underlay: underlayB });
  a.learn(b);
  b.learn(a);
  for (const node of [a, b]) node.setPolicy(policyOf(1));
  return { network, a, b };
}

const tcp = (
  from: string,
  to: string,
  sourcePort: number,
  destinationPort: number,
  flags: number,
  payload?: Uint8Array,
) =>
  makePacket({
    source: from,
    destination: to,
    protocol: "tcp",
    sourcePort,
    destinationPort,
    flags,
    ...(payload && { payload }),
  });
const SYN = 2, SYN_ACK = 18, ACK = 16;

describe("two members", () => {
  it.each(
    [
      ["IPv4 in IPv4", "10.9.0.1", "10.9.0.2", undefined],
      ["IPv6 in IPv4", "fd09::1", "fd09::2", undefined],
      ["IPv4 in IPv6", "10.9.0.1", "10.9.0.2", ["2001:db8::1", "2001:db8::2"]],
      ["IPv6 in IPv6", "fd09::1", "fd09::2", ["2001:db8::1", "2001:db8::2"]],
    ] as const,
  )("carry a packet and its answer unchanged, %s", (_, from, to, underlays) => {
    const { a, b } = meet(underlays ? { underlays: [...underlays] } : {});
    const request = makePacket({
      source: from,
      destination: to,
      sourcePort: 4000,
      destinationPort: 53,
      payload: new Uint8Array(700).fill(1),
    });
    const answer = makePacket({
      source: to,
      destination: from,
      sourcePort: 53,
      destinationPort: 4000,
      payload: new Uint8Array(9),
    });
    a.send(request);
    runUntil([a, b], 100);
    expect(b.takeDelivered()).toEqual([request]);
    b.send(answer);
    runUntil([a, b], 200);
    expect(a.takeDelivered()).toEqual([answer]);
    for (const node of [a, b]) expect(node.counters.totalDrops(INGRESS) + node.counters.totalDrops(EGRESS)).toBe(0);
  });

  it("send nothing that an onlooker could read", () => {
    const { network, a, b } = meet();
    const secret = new TextEncoder().encode("the quick brown fox jumps over the lazy dog");
    const seen: Uint8Array[] = [];
    network.tap = (datagram) => (seen.push(datagram.bytes), true);
    a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2", payload: secret }));
    runUntil([a, b], 50);
    expect(b.takeDelivered().length).toBe(1);
    expect(seen.some((bytes) => Buffer.from(bytes).includes(Buffer.from(secret)))).toBe(false);
    expect(seen.map((bytes) => [bytes[0], bytes.length])).toEqual([[1, 148], [2, 92], [4, 160]]);
  });

  it("deliver every packet exactly once when the network reorders and loses, but for what was lost", () => {
    for (let seed = 1; seed <= 8; seed++) {
      const { network, a, b } = meet({ seed, loss: 0.05, jitterMs: 20 });
      const sent = 300;
      for (let i = 0; i < sent; i++) {
        a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2", payload: Uint8Array.of(i >> 8, i & 255) }));
        runUntil([a, b], (i + 1) * 100);
      }
      runUntil([a, b], sent * 100 + 10_000);
      const numbers = b.takeDelivered().map((bytes) => (bytes[28]! << 8) | bytes[29]!);
      expect(new Set(numbers).size).toBe(numbers.length);
      expect(numbers.length).toBeGreaterThan(sent * 0.85);
      expect(network.lost).toBeGreaterThan(0);
    }
  });

  it("keep one flow going over an hour of rekeys without losing a packet", () => {
    const { a, b } = meet({ jitterMs: 3 });
    let delivered = 0;
    for (let second = 1; second <= 3600; second++) {
      a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2", sourcePort: 7, destinationPort: 7 }));
      runUntil([a, b], second * 1000);
      delivered += b.takeDelivered().length;
    }
    expect(delivered).toBe(3600);
    expect(a.counters.read("handshakesSent") + b.counters.read("handshakesSent")).toBeGreaterThan(50);
  });
});

describe("policy in the datapath", () => {
  let pair: ReturnType<typeof meet>;
  beforeEach(() => pair = meet());

  it("is closed to new flows before the first update, and lets none through by mistake", () => {
    const network = new FakeNetwork({ seed: 3 });
    const a = new MeshNode(network, ciphers, A);
    const b = new MeshNode(network, ciphers, B);
    a.learn(b);
    b.learn(a);
    a.setPolicy(policyOf(1));
    a.send(tcp("10.9.0.1", "10.9.0.2", 4000, 80, SYN));
    runUntil([a, b], 50);
    expect(b.takeDelivered()).toEqual([]);
    expect(b.counters.drops(INGRESS, DROP_NOT_READY)).toBe(1);
  });

  it("admits what a rule allows and names the reason for what none does", () => {
    const { a, b } = pair;
    b.setPolicy(
      policyOf(2, [{ identity: A.identity, protocol: 6, port: 80, verdict: "allow" }, {
        identity: 0,
        protocol: 6,
        port: 23,
        verdict: "deny",
      }]),
    );
    for (const port of [80, 81, 23]) a.send(tcp("10.9.0.1", "10.9.0.2", 4000, port, SYN));
    runUntil([a, b], 50);
    expect(b.takeDelivered().map((bytes) => (bytes[22]! << 8) | bytes[23]!)).toEqual([80]);
    expect(b.counters.drops(INGRESS, DROP_POLICY_DENIED)).toBe(1);
    expect(b.counters.drops(INGRESS, DROP_POLICY_DENY)).toBe(1);
    expect(
      b.datapath.snapshot(50).drops.map((drop) => [drop.source, drop.destinationPort, drop.identity, drop.verdict]),
    ).toEqual([
      ["10.9.0.1", 81, A.identity, DROP_POLICY_DENIED],
      ["10.9.0.1", 23, A.identity, DROP_POLICY_DENY],
    ]);
  });

  it("lets replies pass without a rule, and no new flow the other way", () => {
    const { a, b } = pair;
    b.setPolicy(policyOf(2, [{ identity: A.identity, protocol: 6, port: 80, verdict: "allow" }], []));
    a.send(tcp("10.9.0.1", "10.9.0.2", 4000, 80, SYN));
    runUntil([a, b], 50);
    b.send(tcp("10.9.0.2", "10.9.0.1", 80, 4000, SYN_ACK));
    b.send(tcp("10.9.0.2", "10.9.0.1", 4000, 80, SYN));
    runUntil([a, b], 100);
    expect(a.takeDelivered().length).toBe(1);
    expect(b.counters.drops(EGRESS, DROP_POLICY_DENIED)).toBe(1);
  });

  it("changes live: an allowed flow never notices, one whose rule went away is cut in both directions", () => {
    const { a, b } = pair;
    const rule = (port: number) => ({ identity: A.identity, protocol: 6, port, verdict: "allow" as const });
    b.setPolicy(policyOf(2, [rule(80), rule(81)], []));
    for (const port of [80, 81]) a.send(tcp("10.9.0.1", "10.9.0.2", 4000, port, SYN));
    runUntil([a, b], 50);
    expect(b.takeDelivered().length).toBe(2);
    b.setPolicy(policyOf(3, [rule(80)], []));
    for (const port of [80, 81]) a.send(tcp("10.9.0.1", "10.9.0.2", 4000, port, ACK));
    for (const port of [80, 81]) b.send(tcp("10.9.0.2", "10.9.0.1", port, 4000, ACK));
    runUntil([a, b], 100);
    expect(b.takeDelivered().map((bytes) => bytes[23])).toEqual([80]);
    expect(a.takeDelivered().map((bytes) => bytes[21])).toEqual([80]);
  });

  it("judges a flow again when the other side became somebody else, though the policies are the same", () => {
    const { a, b } = pair;
    const rule = { identity: A.identity, port: 80, verdict: "allow" } as const;
    b.setPolicy(policyOf(2, [{ ...rule, protocol: 6 }, { ...rule, protocol: 17 }], []));
    const udp = { source: "10.9.0.1", destination: "10.9.0.2", sourcePort: 4000, destinationPort: 80 };
    a.send(tcp("10.9.0.1", "10.9.0.2", 4000, 80, SYN));
    a.send(makePacket(udp));
    runUntil([a, b], 50);
    expect(b.takeDelivered().length).toBe(2);
    a.setSelf({ identity: 65540 });
    b.datapath.apply({
      op: "ip",
      prefix: { address: parseAddress("10.9.0.1")!, length: 32 },
      identity: 65540,
      peer: a.wireguard.publicKey,
    }, 50);
    a.send(tcp("10.9.0.1", "10.9.0.2", 4000, 80, ACK));
    a.send(makePacket(udp));
    b.send(tcp("10.9.0.2", "10.9.0.1", 80, 4000, ACK));
    runUntil([a, b], 100);
    expect(b.takeDelivered()).toEqual([]);
    expect(a.takeDelivered()).toEqual([]);
    expect(b.counters.drops(INGRESS, DROP_POLICY_DENIED)).toBe(2);
    expect(b.counters.drops(EGRESS, DROP_POLICY_DENIED)).toBe(1);
  });

  it("passes an ICMP error that belongs to a flow, and judges one that belongs to none", () => {
    const { a, b } = pair;
    a.setPolicy(policyOf(2, []));
    const request = makePacket({ source: "10.9.0.1", destination: "10.9.0.2", sourcePort: 4000, destinationPort: 9 });
    a.send(request);
    runUntil([a, b], 50);
    const unreachable = (quoted: Uint8Array) =>
      makePacket({
        source: "10.9.0.2",
        destination: "10.9.0.1",
        protocol: "icmp",
        icmpType: 3,
        icmpCode: 3,
        id: 0,
        payload: quoted.slice(0, 28),
      });
    b.send(unreachable(request));
    b.send(
      unreachable(makePacket({ source: "10.9.0.1", destination: "10.9.0.2", sourcePort: 4001, destinationPort: 9 })),
    );
    runUntil([a, b], 100);
    expect(a.takeDelivered().length).toBe(1);
    expect(a.counters.drops(INGRESS, DROP_POLICY_DENIED)).toBe(1);
  });

  const UDP_9 = { source: "10.9.0.1", destination: "10.9.0.2", sourcePort: 4000, destinationPort: 9 };
  const TCP_80 = { ...UDP_9, protocol: "tcp", destinationPort: 80, flags: ACK } as const;
  const PING = { source: "10.9.0.1", destination: "10.9.0.2", protocol: "icmp", id: 77 } as const;
  const v6 = <T extends object>(fields: T) => ({ ...fields, source: "fd09::1", destination: "fd09::2" });
  const quotedFlows: [string, PacketFields, number, number][] = [
    ["UDP", UDP_9, 17, 9],
    ["TCP", TCP_80, 6, 80],
    ["a ping", PING, 1, 8],
    ["UDP over IPv6", v6(UDP_9), 17, 9],
    ["a ping over IPv6", v6(PING), 58, 128],
  ];

  /** What b's machine says about a packet of a, by ICMP. */
  function errorAbout(fields: PacketFields): Uint8Array {
    const { source, destination } = fields;
    const isV6 = source.includes(":");
    const payload = makePacket(fields).slice(0, isV6 ? 48 : 28);
    const kind = { protocol: "icmp", icmpType: isV6 ? 1 : 3, icmpCode: isV6 ? 4 : 3, id: 0 } as const;
    return makePacket({ source: destination, destination: source, payload, ...kind });
  }

  it.each(quotedFlows)("cuts the ICMP errors about %s with the flow, at both ends", (_, fields, protocol, port) => {
    const { a, b } = pair;
    const toB = (revision: number, isAllowed: boolean) => {
      const verdict = isAllowed ? "allow" : "deny";
      a.setPolicy(policyOf(revision, [], [{ identity: B.identity, protocol, port, verdict }]));
      b.setPolicy(policyOf(revision, [{ identity: A.identity, protocol, port, verdict }]));
    };
    toB(2, true);
    a.send(makePacket(fields));
    runUntil([a, b], 50);
    expect(b.takeDelivered().length).toBe(1);
    toB(3, true);
    b.send(errorAbout(fields));
    runUntil([a, b], 100);
    expect(a.takeDelivered().length).toBe(1);
    toB(4, false);
    b.send(errorAbout(fields));
    runUntil([a, b], 150);
    expect(b.counters.drops(EGRESS, DROP_POLICY_DENY)).toBe(1);
    expect(a.takeDelivered()).toEqual([]);
    b.setPolicy(policyOf(5));
    b.send(errorAbout(fields));
    runUntil([a, b], 200);
    expect(a.counters.drops(INGRESS, DROP_POLICY_DENY)).toBe(1);
    expect(a.takeDelivered()).toEqual([]);
    toB(6, true);
    b.send(errorAbout(fields));
    runUntil([a, b], 250);
    expect(a.takeDelivered().length).toBe(1);
  });

  it("judges the ICMP errors about a flow again when its other side became somebody else", () => {
    const { a, b } = pair;
    a.setPolicy(policyOf(2, [], [{ identity: B.identity, protocol: 17, port: 9, verdict: "allow" }]));
    a.send(makePacket(UDP_9));
    runUntil([a, b], 50);
    b.send(errorAbout(UDP_9));
    runUntil([a, b], 100);
    expect(a.takeDelivered().length).toBe(1);
    b.setSelf({ identity: 65_551 });
    const prefix = { address: parseAddress("10.9.0.2")!, length: 32 };
    a.datapath.apply({ op: "ip", prefix, identity: 65_551, peer: b.wireguard.publicKey }, 100);
    b.send(errorAbout(UDP_9));
    runUntil([a, b], 150);
    expect(a.takeDelivered()).toEqual([]);
    expect(a.counters.drops(INGRESS, DROP_POLICY_DENIED)).toBe(1);
  });
});

describe("what a peer may not do", () => {
  it("claim an identity that its address does not have", () => {
    const { a, b } = meet();
    a.datapath.apply({
      op: "self",
      addresses: [parseAddress("10.9.0.1")!],
      underlay: parseAddress(A.underlay)!,
      identity: 65999,
      tunnelProtocol: "geneve",
    }, 0);
    a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2" }));
    runUntil([a, b], 50);
    expect([b.takeDelivered().length, b.counters.drops(INGRESS, DROP_IDENTITY_MISMATCH)]).toEqual([0, 1]);
  });

  it("send from an address that is another member's, or nobody's", () => {
    const { network, a, b } = meet();
    const c = new MeshNode(network, ciphers, {
      name: "c",
      addresses: ["10.9.0.3"],
      underlay: "192.0.2.3",
      identity: 65540,
    });
    b.learn(c);
    a.datapath.apply({
      op: "self",
      addresses: ["10.9.0.3", "10.9.0.9"].map((text) => parseAddress(text)!),
      underlay: parseAddress(A.underlay)!,
      identity: 65540,
      tunnelProtocol: "geneve",
    }, 0);
    a.send(makePacket({ source: "10.9.0.3", destination: "10.9.0.2" }));
    a.send(makePacket({ source: "10.9.0.9", destination: "10.9.0.2" }));
    runUntil([a, b], 50);
    expect([b.takeDelivered().length, b.counters.drops(INGRESS, DROP_UNKNOWN_SENDER)]).toEqual([0, 2]);
  });

  it("have us deliver to an address that is not ours", () => {
    const { a, b } = meet();
    a.datapath.apply({
      op: "ip",
      prefix: { address: parseAddress("10.9.0.77")!, length: 32 },
      identity: 65538,
      peer: b.wireguard.publicKey,
    }, 0);
    a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.77" }));
    runUntil([a, b], 50);
    expect([b.takeDelivered().length, b.counters.drops(INGRESS, DROP_NOT_FOR_US)]).toEqual([0, 1]);
  });

  it("replay a message", () => {
    const { network, a, b } = meet();
    const seen: Uint8Array[] = [];
    network.tap = (
      datagram,
    ) => (datagram.bytes[0] === 4 && datagram.to === b.underlay.address && seen.push(datagram.bytes), true);
    a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2" }));
    runUntil([a, b], 50);
    b.underlay.inject(a.underlay.address, seen[0]!);
    runUntil([a, b], 60);
    expect([b.takeDelivered().length, b.counters.drops(INGRESS, DROP_REPLAYED)]).toEqual([1, 1]);
  });
});

describe("what the machine may not do", () => {
  it.each([
    ["send from a foreign address", { source: "10.9.0.9", destination: "10.9.0.2" }, DROP_INVALID_SOURCE_IP],
    ["send to an address that nobody has", { source: "10.9.0.1", destination: "10.9.9.9" }, DROP_UNROUTABLE],
  ])("%s", (_, fields, reason) => {
    const { a, b } = meet();
    a.send(makePacket(fields));
    runUntil([a, b], 50);
    expect(a.counters.drops(EGRESS, reason)).toBe(1);
    expect(b.takeDelivered()).toEqual([]);
  });
});

describe("a peer that cannot be reached", () => {
  it("costs its packets, with a reason, after twenty tries", () => {
    const { network, a, b } = meet();
    network.tap = () => false;
    for (let i = 0; i < 3; i++) a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2" }));
    runUntil([a, b], 120_000);
    expect(a.counters.read("handshakesSent")).toBe(20);
    expect(a.counters.drops(EGRESS, DROP_NO_SESSION)).toBe(3);
  });

  it("is not waited for when nobody knows where it is", () => {
    const network = new FakeNetwork({ seed: 5 });
    const a = new MeshNode(network, ciphers, A);
    const b = new MeshNode(network, ciphers, B);
    a.learn(b, { endpoint: false });
    a.setPolicy(policyOf(1));
    a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2" }));
    runUntil([a, b], 50);
    expect(a.counters.drops(EGRESS, DROP_NO_UNDERLAY_ADDRESS)).toBe(1);
  });
});

describe("ping", () => {
  it.each([["10.9.0.2"], ["fd09::2"]])("measures a round trip to %s and keeps the reply from the machine", (to) => {
    const { a, b } = meet();
    a.datapath.apply({ op: "ping", id: 5, sequence: 1, to: parseAddress(to)! }, 0);
    runUntil([a, b], 10);
    const [request] = b.takeDelivered();
    const isV4 = !to.includes(":");
    const reply = makePacket({
      source: to,
      destination: isV4 ? "10.9.0.1" : "fd09::1",
      protocol: "icmp",
      icmpType: isV4 ? 0 : 129,
      id: 5,
      payload: request!.slice(isV4 ? 28 : 48),
    });
    b.send(reply);
    runUntil([a, b], 30);
    expect(a.events).toEqual([{ op: "pong", id: 5, sequence: 1, roundTripMs: expect.any(Number), verdict: 0 }]);
    expect(a.takeDelivered()).toEqual([]);
  });

  it("says why when our own datapath drops the request", () => {
    const { a } = meet();
    a.datapath.apply({ op: "ping", id: 5, sequence: 1, to: parseAddress("10.9.9.9")! }, 0);
    expect(a.events).toMatchObject([{ op: "pong", verdict: DROP_UNROUTABLE }]);
  });
});
