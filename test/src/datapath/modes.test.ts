/** Native, hybrid and unencrypted members: what goes over the wire, what is believed, and how it switches. */
import { beforeAll, describe, expect, it } from "vitest";
import { EGRESS, INGRESS } from "../../../src/datapath/counters.ts";
import { parseAddress, parsePrefixOrAddress } from "../../../src/ip/address.ts";
import type { Ciphers } from "../../../src/ports.ts";
import {
  DROP_FRAGMENT,
  DROP_IDENTITY_MISMATCH,
  DROP_INVALID_IDENTITY,
  DROP_INVALID_PACKET,
  DROP_NO_UNDERLAY_ADDRESS,
  DROP_NOT_ALLOWED_IP,
  DROP_NOT_FOR_US,
  DROP_UNENCRYPTED,
  DROP_UNKNOWN_L4,
  DROP_UNKNOWN_SENDER,
  type Verdict,
} from "../../../src/verdict.ts";
import { loadTestCiphers, MeshNode, type MeshNodeOptions, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { type Datagram, FakeNetwork } from "../../fakes/network.ts";
import { makePacket } from "../../fakes/packets.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

const A: MeshNodeOptions = { name: "a", addresses: ["10.9.0.1", "fd09::1"], underlay: "192.0.2.1", identity: 65537 };
const B: MeshNodeOptions = { name: "b", addresses: ["10.9.0.2", "fd09::2"], underlay: "192.0.2.2", identity: 65538 };
const A6 = { ...A, underlay: "2001:db8::1" };
const B6 = { ...B, underlay: "2001:db8::2" };

type Meeting = { network: FakeNetwork; a: MeshNode; b: MeshNode; seen: Datagram[] };

function meet(options: {
  a?: Partial<MeshNodeOptions>;
  b?: Partial<MeshNodeOptions>;
  mode?: "tunnel" | "native";
  isPlain?: boolean;
}): Meeting {
  const network = new FakeNetwork({ seed: 1 });
  const seen: Datagram[] = [];
  network.tap = (datagram) => (seen.push({ ...datagram, bytes: datagram.bytes.slice() }), true);
  const a = new MeshNode(network, ciphers, { ...A, ...options.a });
  const b = new MeshNode(network, ciphers, { ...B, ...options.b });
  const learn = (one: MeshNode, other: MeshNode) =>
    one.learn(other, {
      mode: options.mode ?? "tunnel",
      ...(options.isPlain && { plain: other.options.underlay, endpoint: false }),
    });
  learn(a, b);
  learn(b, a);
  for (const node of [a, b]) node.setPolicy(policyOf(1));
  return { network, a, b, seen };
}

const NATIVE = { a: { acceptsNative: true }, b: { acceptsNative: true }, mode: "native" } as const;
const PLAIN = { a: { encryption: "none" }, b: { encryption: "none" }, isPlain: true } as const;

const udp = (source: string, destination: string, destinationPort = 53, payload = new Uint8Array(700).fill(1)) =>
  makePacket({ source, destination, sourcePort: 4000, destinationPort, payload });

/** Sends one packet from a to b and back; both must arrive as they were. */
function exchange({ network, a, b }: Meeting, from: string, to: string): void {
  const request = udp(from, to);
  const answer = makePacket({ source: to, destination: from, sourcePort: 53, destinationPort: 4000 });
  a.send(request);
  runUntil([a, b], network.nowMs + 100);
  expect(b.takeDelivered()).toEqual([request]);
  b.send(answer);
  runUntil([a, b], network.nowMs + 100);
  expect(a.takeDelivered()).toEqual([answer]);
}

const drops = (node: MeshNode, reason: Verdict) => node.counters.drops(INGRESS, reason);
const noDrops = (...nodes: MeshNode[]) =>
  nodes.forEach((node) => expect(node.counters.totalDrops(INGRESS) + node.counters.totalDrops(EGRESS)).toBe(0));

describe("native", () => {
  it.each([["10.9.0.1", "10.9.0.2", A, B], ["fd09::1", "fd09::2", A, B], ["10.9.0.1", "10.9.0.2", A6, B6]])(
    "carries a packet of %s bare inside WireGuard, over whatever underlay",
    (from, to, a, b) => {
      const meeting = meet({ ...NATIVE, a: { ...a, acceptsNative: true }, b: { ...b, acceptsNative: true } });
      exchange(meeting, from, to);
      noDrops(meeting.a, meeting.b);
      const request = meeting.seen.find(({ bytes }) => bytes[0] === 4)!;
      const packetBytes = udp(from, to).length;
      expect(request.bytes.length).toBe(16 + Math.ceil(packetBytes / 16) * 16 + 16);
    },
  );

  it("needs no underlay addresses of one family: there is no envelope", () => {
    const meeting = meet({ ...NATIVE, b: { ...B6, acceptsNative: true } });
    meeting.a.learn(meeting.b, { mode: "native" });
    exchange(meeting, "10.9.0.1", "10.9.0.2");
    noDrops(meeting.a, meeting.b);
  });

  it("judges by the identity that the ipcache gives to the source", () => {
    const { a, b } = meet(NATIVE);
    b.setPolicy(policyOf(2, [{ identity: A.identity, protocol: 17, port: 53, verdict: "allow" }]));
    a.setSelf({ identity: 65999 }); // what it says of itself does not matter: it has no place in the packet
    a.send(udp("10.9.0.1", "10.9.0.2"));
    runUntil([a, b], 50);
    expect(b.takeDelivered().length).toBe(1);
  });

  it("believes no peer an address that is another's, or nobody's, or one of ours as destination that is not", () => {
    const { network, a, b } = meet(NATIVE);
    const c = new MeshNode(network, ciphers, {
      name: "c",
      addresses: ["10.9.0.3"],
      underlay: "192.0.2.3",
      identity: 65540,
    });
    b.learn(c);
    a.setSelf({ addresses: ["10.9.0.3", "10.9.0.9", "10.9.0.1"].map((text) => parseAddress(text)!) });
    a.datapath.apply(
      { op: "ip", prefix: parsePrefixOrAddress("10.9.0.77")!, identity: 1, peer: b.wireguard.publicKey },
      0,
    );
    a.send(udp("10.9.0.3", "10.9.0.2"));
    a.send(udp("10.9.0.9", "10.9.0.2"));
    a.send(udp("10.9.0.1", "10.9.0.77"));
    runUntil([a, b], 50);
    expect(b.takeDelivered()).toEqual([]);
    expect([drops(b, DROP_UNKNOWN_SENDER), drops(b, DROP_NOT_FOR_US)]).toEqual([2, 1]);
  });

  it("is not taken in a mesh that is tunnel only", () => {
    const { a, b } = meet({ a: { acceptsNative: true }, mode: "native" });
    a.send(udp("10.9.0.1", "10.9.0.2"));
    a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2", protocol: "tcp", flags: 2 }));
    runUntil([a, b], 50);
    expect(b.takeDelivered()).toEqual([]);
    expect(drops(b, DROP_UNKNOWN_L4)).toBe(2); // neither is UDP to the tunnel's port
  });

  it("splits superpackets like the tunnel does", () => {
    const { a, b } = meet({ ...NATIVE, a: { acceptsNative: true, offload: true } });
    const packet = makePacket({
      source: "10.9.0.1",
      destination: "10.9.0.2",
      protocol: "tcp",
      sourcePort: 4000,
      destinationPort: 80,
      flags: 16,
      payload: Uint8Array.from({ length: 3000 }, (_, i) => i & 255),
    });
    const header = [1, 1, 40, 0, 0xe8, 3, 20, 0, 16, 0]; // TSO, segments of 1000
    a.tun.toRead.push(Uint8Array.from([...header, ...packet]));
    runUntil([a, b], 50);
    const delivered = b.takeDelivered();
    expect(delivered.map((bytes) => bytes.length)).toEqual([1040, 1040, 1040]);
    expect(delivered.flatMap((bytes) => [...bytes.slice(40)])).toEqual([...packet.slice(40)]);
    noDrops(a, b);
  });
});

describe("a packet that looks like an envelope", () => {
  // where both have a mesh address in outer headers, a program on a could write one itself
  const SAME = {
    a: { underlay: "10.9.0.1", acceptsNative: true },
    b: { underlay: "10.9.0.2", acceptsNative: true },
    mode: "native",
  } as const;

  it("reaches its port unchanged, and what is inside is not believed", () => {
    const { a, b } = meet(SAME);
    const behind = parsePrefixOrAddress("10.8.0.0/16")!;
    b.datapath.apply({ op: "ip", prefix: behind, identity: 70000, peer: a.wireguard.publicKey }, 0);
    const geneve = [0, 0, 0x65, 0x58, 1, 0x11, 0x70, 0]; // VNI 70000
    const ethernet = [0, 2, 0, 0, 0, 1, 0, 2, 0, 1, 0, 1, 8, 0];
    const forged = udp(
      "10.9.0.1",
      "10.9.0.2",
      6081,
      Uint8Array.from([...geneve, ...ethernet, ...udp("10.8.0.1", "10.9.0.2")]),
    );
    a.send(forged);
    runUntil([a, b], 50);
    expect(b.takeDelivered()).toEqual([forged]);
    noDrops(a, b);
  });

  it("goes bare to another port, and between other addresses", () => {
    const { a, b, seen } = meet(SAME);
    a.send(udp("10.9.0.1", "10.9.0.2", 6082));
    a.send(udp("fd09::1", "fd09::2", 6081));
    a.send(udp("10.9.0.1", "10.9.0.2", 6081));
    runUntil([a, b], 50);
    expect(b.takeDelivered().length).toBe(3);
    const sizes = seen.filter(({ bytes }) => bytes[0] === 4 && bytes.length > 32).map(({ bytes }) => bytes.length);
    expect(sizes).toEqual([16 + 736 + 16, 16 + 752 + 16, 16 + 784 + 16]);
  });
});

describe("a peer that moves between native and tunnel", () => {
  it.each([["tunnel", "native"], ["native", "tunnel"]] as const)("loses nothing on the way, %s to %s", (from, to) => {
    const { network, a, b } = meet({ ...NATIVE, mode: from });
    let delivered = 0;
    for (let i = 0; i < 60; i++) {
      if (i === 20) a.learn(b, { mode: to });
      if (i === 40) b.learn(a, { mode: to }); // heard of it later
      a.send(udp("10.9.0.1", "10.9.0.2"));
      b.send(makePacket({ source: "10.9.0.2", destination: "10.9.0.1", sourcePort: 53, destinationPort: 4000 }));
      runUntil([a, b], network.nowMs + 10);
      delivered += a.takeDelivered().length + b.takeDelivered().length;
    }
    expect(delivered).toBe(120);
    noDrops(a, b);
    expect(a.counters.read("handshakesSent") + b.counters.read("handshakesSent")).toBeLessThanOrEqual(4);
  });

  it("is understood while a mesh turns to tunnel, as long as sessions of before live, and no longer", () => {
    const { network, a, b } = meet(NATIVE);
    exchange({ network, a, b, seen: [] }, "10.9.0.1", "10.9.0.2");
    b.setSelf({ acceptsNative: false });
    for (const [afterMs, count] of [[170_000, 1], [20_000, 0]] as const) {
      runUntil([a, b], network.nowMs + afterMs);
      a.send(udp("10.9.0.1", "10.9.0.2"));
      runUntil([a, b], network.nowMs + 100);
      expect(b.takeDelivered().length).toBe(count);
    }
    expect(drops(b, DROP_UNKNOWN_L4)).toBe(1);
  });

  it("must say the right identity while it is in an envelope", () => {
    const { a, b } = meet({ ...NATIVE, mode: "tunnel" });
    a.setSelf({ identity: 65999 });
    a.send(udp("10.9.0.1", "10.9.0.2"));
    runUntil([a, b], 50);
    expect([b.takeDelivered().length, drops(b, DROP_IDENTITY_MISMATCH)]).toEqual([0, 1]);
  });
});

describe("without encryption", () => {
  it.each(
    [
      ["10.9.0.1", "10.9.0.2", "geneve", A, B],
      ["fd09::1", "fd09::2", "geneve", A6, B6],
      ["10.9.0.1", "10.9.0.2", "vxlan", A6, B6],
      ["fd09::1", "fd09::2", "vxlan", A, B],
    ] as const,
  )("a packet of %s goes in a plain datagram, without any handshake", (from, to, tunnelProtocol, a, b) => {
    const more = { encryption: "none", tunnelProtocol } as const;
    const meeting = meet({ a: { ...a, ...more }, b: { ...b, ...more }, isPlain: true });
    exchange(meeting, from, to);
    noDrops(meeting.a, meeting.b);
    const port = tunnelProtocol === "geneve" ? 6081 : 8472;
    const [first] = meeting.seen;
    expect([first!.from, first!.to].every((text) => text.endsWith(`:${port}`))).toBe(true);
    const inner = udp(from, to);
    expect(first!.bytes.slice(22)).toEqual(inner);
    expect(first!.bytes.slice(20, 22)).toEqual(from.includes(":") ? Uint8Array.of(0x86, 0xdd) : Uint8Array.of(8, 0));
    expect((first!.bytes[4]! << 16) | (first!.bytes[5]! << 8) | first!.bytes[6]!).toBe(A.identity);
    expect(meeting.a.counters.read("handshakesSent") + meeting.b.counters.read("handshakesSent")).toBe(0);
    expect(meeting.a.datapath.snapshot(0).peers[0]).toMatchObject({ txBytes: 22 + inner.length, hasSession: false });
  });

  it("nothing is sent to a peer without an address of its own", () => {
    const { a, b, seen } = meet(PLAIN);
    a.learn(b, { endpoint: false });
    a.send(udp("10.9.0.1", "10.9.0.2"));
    runUntil([a, b], 50);
    expect([seen.length, a.counters.drops(EGRESS, DROP_NO_UNDERLAY_ADDRESS)]).toEqual([0, 1]);
  });

  it.each<[string, (genuine: Uint8Array) => { bytes?: Uint8Array; from?: string }, Verdict]>([
    ["from an address that is no peer's", () => ({ from: "192.0.2.9:6081" }), DROP_NOT_ALLOWED_IP],
    ["from another peer's address", () => ({ from: "192.0.2.3:6081" }), DROP_UNKNOWN_SENDER],
    ["with another identity", (bytes) => ({ bytes: bytes.with(6, bytes[6]! ^ 1) }), DROP_IDENTITY_MISMATCH],
    [
      "with the identity of a host",
      (bytes) => ({ bytes: bytes.with(4, 0).with(5, 0).with(6, 1) }),
      DROP_INVALID_IDENTITY,
    ],
    ["with an inner address that is nobody's", (bytes) => ({ bytes: bytes.with(22 + 15, 9) }), DROP_UNKNOWN_SENDER],
    ["to an inner address that is not ours", (bytes) => ({ bytes: bytes.with(22 + 19, 9) }), DROP_NOT_FOR_US],
    ["that is cut off", (bytes) => ({ bytes: bytes.slice(0, 30) }), DROP_INVALID_PACKET],
    ["that holds a fragment", (bytes) => ({ bytes: bytes.with(22 + 6, 0x20) }), DROP_FRAGMENT],
  ])("a datagram is dropped %s", (_, change, reason) => {
    const { network, a, b, seen } = meet(PLAIN);
    const c = new MeshNode(network, ciphers, {
      name: "c",
      addresses: ["10.9.0.3"],
      underlay: "192.0.2.3",
      identity: 65540,
    });
    b.learn(c, { plain: "192.0.2.3" });
    a.send(udp("10.9.0.1", "10.9.0.2"));
    runUntil([a, b], 50);
    expect(b.takeDelivered().length).toBe(1);
    const genuine = seen[0]!;
    const { bytes = genuine.bytes, from = genuine.from } = change(genuine.bytes);
    b.plain!.inject(from, bytes);
    runUntil([b], 60);
    expect([b.takeDelivered().length, drops(b, reason), b.counters.totalDrops(INGRESS)]).toEqual([0, 1, 1]);
  });

  it("takes a port of any number as source, as Linux' devices choose one per flow", () => {
    const { network, a, b, seen } = meet(PLAIN);
    a.send(udp("10.9.0.1", "10.9.0.2"));
    runUntil([a, b], 50);
    b.takeDelivered();
    b.plain!.inject("192.0.2.1:54321", seen[0]!.bytes);
    runUntil([b], network.nowMs + 10);
    expect(b.takeDelivered().length).toBe(1);
  });

  it("splits superpackets into one run of datagrams", () => {
    const { a, b } = meet({ ...PLAIN, a: { encryption: "none", offload: true } });
    const payload = Uint8Array.from({ length: 2500 }, (_, i) => i & 255);
    const packet = makePacket({ source: "10.9.0.1", destination: "10.9.0.2", protocol: "tcp", flags: 16, payload });
    a.tun.toRead.push(Uint8Array.from([1, 1, 40, 0, 0xe8, 3, 20, 0, 16, 0, ...packet]));
    runUntil([a, b], 50);
    const delivered = b.takeDelivered();
    expect(delivered.map((bytes) => bytes.length)).toEqual([1040, 1040, 540]);
    expect(delivered.flatMap((bytes) => [...bytes.slice(40)])).toEqual([...payload]);
    noDrops(a, b);
  });

  it("has no socket before it is asked for, and drops by name what still comes after encryption is back", () => {
    const { network, a, b, seen } = meet({});
    expect(b.plain).toBeUndefined();
    b.setSelf({ encryption: "none", plain: parseAddress(B.underlay)! });
    a.setSelf({ encryption: "none", plain: parseAddress(A.underlay)! });
    a.learn(b, { plain: B.underlay });
    b.learn(a, { plain: A.underlay });
    a.send(udp("10.9.0.1", "10.9.0.2"));
    runUntil([a, b], 50);
    expect([b.takeDelivered().length, seen.length]).toEqual([1, 1]);
    b.setSelf({ encryption: "wireguard" });
    b.learn(a);
    a.send(udp("10.9.0.1", "10.9.0.2"));
    runUntil([a, b], network.nowMs + 50);
    expect([b.takeDelivered().length, drops(b, DROP_UNENCRYPTED)]).toEqual([0, 1]);
    a.setSelf({ encryption: "wireguard" });
    a.send(udp("10.9.0.1", "10.9.0.2"));
    runUntil([a, b], network.nowMs + 50);
    expect(b.takeDelivered().length).toBe(1);
    expect(seen.at(-1)!.bytes[0]).toBe(4);
  });

  it("moves to the other port when the mesh changes its tunnel protocol", () => {
    const { network, a, b, seen } = meet(PLAIN);
    for (const node of [a, b]) node.setSelf({ tunnelProtocol: "vxlan" });
    a.send(udp("10.9.0.1", "10.9.0.2"));
    runUntil([a, b], network.nowMs + 50);
    expect([b.takeDelivered().length, seen[0]!.to]).toEqual([1, "192.0.2.2:8472"]);
  });
});

describe("outer headers", () => {
  it("mark handshakes with AF41, and copy no more than the ECN bits of the inner packet", () => {
    const { a, b } = meet({});
    const classes: number[] = [];
    const queue = a.underlay.queue.bind(a.underlay);
    a.underlay.queue = (at, end, segmentBytes, toAt, trafficClass) => {
      classes.push(trafficClass);
      queue(at, end, segmentBytes, toAt, trafficClass);
    };
    const packet = makePacket({ source: "fd09::1", destination: "fd09::2" });
    packet[0] = 0x6b; // traffic class 0xba: DSCP EF, ECN 2
    packet[1] = 0xa0 | (packet[1]! & 0x0f);
    a.send(packet);
    runUntil([a, b], 50);
    expect(b.takeDelivered()).toEqual([packet]);
    expect(classes).toEqual([0x88, 2]);
  });
});

describe("a peer's endpoint", () => {
  it("is where its own messages came from, when several batches arrive at once from several peers", () => {
    const network = new FakeNetwork({ seed: 1 });
    const [a, b, c] = [A, B, { name: "c", addresses: ["10.9.0.3"], underlay: "192.0.2.3", identity: 65540 }].map((
      options,
    ) => new MeshNode(network, ciphers, options)) as [MeshNode, MeshNode, MeshNode];
    for (const node of [a, c]) {
      b.learn(node);
      node.learn(b);
    }
    for (const node of [a, b, c]) node.setPolicy(policyOf(1));
    a.send(udp("10.9.0.1", "10.9.0.2"));
    c.send(udp("10.9.0.3", "10.9.0.2"));
    runUntil([a, b, c], 100);
    // more than one batch, each of another size so that nothing is merged: first all of a, then all of c
    for (const [node, from] of [[a, "10.9.0.1"], [c, "10.9.0.3"]] as const) {
      for (let i = 0; i < 4; i++) node.send(udp(from, "10.9.0.2", 53, new Uint8Array(100 + 100 * i)));
      node.step();
    }
    runUntil([a, b, c], 200);
    const endpoints = b.datapath.snapshot(200).peers.map(({ endpoint }) => [...endpoint!.address].join("."));
    expect(endpoints).toEqual(["192.0.2.1", "192.0.2.3"]);
  });
});
