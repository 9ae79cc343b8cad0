import { beforeAll, describe, expect, it } from "vitest";
import { EGRESS, INGRESS } from "../../../src/datapath/counters.ts";
import { TokenBucket } from "../../../src/datapath/error_answers.ts";
import type { Ciphers } from "../../../src/ports.ts";
import {
  DROP_NO_UNDERLAY_ADDRESS,
  DROP_PACKET_TOO_BIG,
  DROP_POLICY_DENIED,
  DROP_UNROUTABLE,
} from "../../../src/verdict.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { addressOctets, makePacket, ones } from "../../fakes/packets.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

const A = { name: "a", addresses: ["10.9.0.1", "fd09::1"], identity: 65537 };
const B = { name: "b", addresses: ["10.9.0.2", "fd09::2"], identity: 65538 };

/** Two members with a session between them; `a` knows that its way to `b` takes `pathBytes`. */
function meet(pathBytes: number, options: { offload?: boolean; isV6?: boolean } = {}) {
  const network = new FakeNetwork({ seed: 1 });
  const { offload = false, isV6 = false } = options;
  const a = new MeshNode(network, ciphers, { ...A, offload, underlay: isV6 ? "2001:db8::1" : "192.0.2.1" });
  const b = new MeshNode(network, ciphers, { ...B, offload, underlay: isV6 ? "2001:db8::2" : "192.0.2.2" });
  a.learn(b);
  b.learn(a);
  for (const node of [a, b]) node.setPolicy(policyOf(1));
  a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2" }));
  runUntil([a, b], 50);
  b.takeDelivered();
  const { node } = a.datapath;
  const peer = a.wireguard.findPeer(b.wireguard.publicKey)!;
  node.paths.setPath(peer, pathBytes, node.wrapBytesOf(peer.slot));
  const largest: number[] = [];
  network.tap = (datagram) => (largest.push(datagram.bytes.length + (isV6 ? 48 : 28)), true);
  return { network, a, b, peer, datagrams: largest };
}

const udp = (octets: number, fields: Partial<Parameters<typeof makePacket>[0]> = {}) =>
  makePacket({ source: "10.9.0.1", destination: "10.9.0.2", payload: new Uint8Array(octets - 28), ...fields });
const udp6 = (octets: number) =>
  makePacket({ source: "fd09::1", destination: "fd09::2", payload: new Uint8Array(octets - 48) });
const withoutDf = (packet: Uint8Array) => {
  packet.set([0, 0], 6);
  packet.set([0, 0], 10);
  const sum = ones(packet.slice(0, 20));
  packet.set([sum >> 8, sum & 255], 10);
  return packet;
};

/** An ICMPv6 checksum that is right sums to this. */
function icmp6Sum(packet: Uint8Array): number {
  const pseudo = [...packet.slice(8, 40), 0, 0, packet[4]!, packet[5]!, 0, 0, 0, 58];
  return ones(Uint8Array.from([...pseudo, ...packet.slice(40)]));
}

describe("a packet that is too big for the way to the peer", () => {
  it.each([
    [1280, false],
    [1376, false],
    [1420, false],
    [1280, true],
    [1420, true],
  ])("passes up to the limit of a %i-octet way (IPv6 underlay: %s) in one datagram that fits", (path, isV6) => {
    const { a, b, peer, datagrams } = meet(path, { isV6 });
    const limit = a.datapath.node.paths.limitOf(peer.slot, 4);
    expect(limit).toBeLessThan(1355);
    a.send(udp(limit));
    runUntil([a, b], 60);
    expect(b.takeDelivered().map((packet) => packet.length)).toEqual([limit]);
    expect(datagrams.length).toBe(1);
    expect(datagrams[0]).toBeLessThanOrEqual(path);
    expect(datagrams[0]).toBeGreaterThan(path - 16);
    a.send(udp(limit + 1));
    runUntil([a, b], 70);
    expect(b.takeDelivered()).toEqual([]);
    expect(a.counters.drops(EGRESS, DROP_PACKET_TOO_BIG)).toBe(1);
  });

  it("is answered with the size that fits, quoting it, when it may not be fragmented", () => {
    const { a, b, peer } = meet(1280);
    const packet = udp(1300);
    a.send(packet);
    runUntil([a, b], 60);
    const [error] = a.takeDelivered() as [Uint8Array];
    expect([...error.slice(12, 20)]).toEqual([10, 9, 0, 2, 10, 9, 0, 1]);
    expect([error[9], error[20], error[21]]).toEqual([1, 3, 4]);
    expect((error[26]! << 8) | error[27]!).toBe(a.datapath.node.paths.limitOf(peer.slot, 4));
    expect(error.length).toBe(576);
    expect((error[2]! << 8) | error[3]!).toBe(576);
    expect([ones(error.slice(0, 20)), ones(error.slice(20))]).toEqual([0, 0]);
    expect(error.slice(28)).toEqual(packet.slice(0, 548));
  });

  it("of IPv6 is answered with at least 1280, and up to that it goes whatever the way takes", () => {
    const { a, b } = meet(1280, { isV6: true });
    const packet = udp6(1300);
    a.send(packet);
    runUntil([a, b], 60);
    const [error] = a.takeDelivered() as [Uint8Array];
    expect([error[6], error[40], error[41]]).toEqual([58, 2, 0]);
    expect([...error.slice(44, 48)]).toEqual([0, 0, 5, 0]);
    expect(error.length).toBe(1280);
    expect(icmp6Sum(error)).toBe(0);
    expect(error.slice(48)).toEqual(packet.slice(0, 1232));

    const smaller = udp6(1280);
    for (let i = 0; i < 3; i++) a.send(smaller);
    runUntil([a, b], 70);
    expect(b.takeDelivered()).toEqual([smaller, smaller, smaller]);
    // this machine is told, once, to fragment our datagrams: no router would
    const told = a.takeDelivered() as [Uint8Array];
    expect(told.length).toBe(1);
    expect(icmp6Sum(told[0])).toBe(0);
    expect(told[0].slice(8, 40)).toEqual(Uint8Array.from([...packet.slice(24, 40), ...packet.slice(8, 24)]));
    expect([...told[0].slice(40, 42), ...told[0].slice(44, 48)]).toEqual([2, 0, 0, 0, 5, 0]);
    expect([...told[0].slice(72, 92)]).toEqual([
      ...addressOctets("2001:db8::2"),
      51871 >> 8,
      51871 & 255,
      51871 >> 8,
      51871 & 255,
    ]);
    runUntil([a, b], 60_200);
    a.send(smaller);
    runUntil([a, b], 60_300);
    expect(a.takeDelivered().map((again) => again[40])).toEqual([2]);
  });

  it("is fragmented when it may be, each fragment fits, and the other end puts together what was sent", () => {
    const { a, b, datagrams } = meet(700);
    const packet = withoutDf(udp(1355, { payload: Uint8Array.from({ length: 1327 }, (_, i) => i) }));
    a.send(packet.slice());
    runUntil([a, b], 60);
    expect(a.takeDelivered()).toEqual([]);
    const fragments = b.takeDelivered();
    expect(fragments.length).toBe(3);
    for (const size of datagrams) expect(size).toBeLessThanOrEqual(700);
    const data: number[] = [];
    fragments.forEach((fragment, i) => {
      expect(ones(fragment.slice(0, 20))).toBe(0);
      expect(fragment.slice(12, 20)).toEqual(packet.slice(12, 20));
      const field = (fragment[6]! << 8) | fragment[7]!;
      expect((field & 0x1fff) * 8).toBe(data.length);
      expect((field & 0x2000) !== 0).toBe(i < fragments.length - 1);
      data.push(...fragment.slice(20));
    });
    expect(Uint8Array.from(data)).toEqual(packet.slice(20));
    for (const node of [a, b]) expect(node.counters.totalDrops(INGRESS) + node.counters.totalDrops(EGRESS)).toBe(0);
  });

  it("inside a superpacket tells its sender, and the rest of the queue is sent", () => {
    const { a, b, peer } = meet(1280, { offload: true });
    const limit = a.datapath.node.paths.limitOf(peer.slot, 4);
    const segment = 1300;
    const packet = makePacket({
      source: "10.9.0.1",
      destination: "10.9.0.2",
      protocol: "tcp",
      payload: new Uint8Array(3 * segment),
    });
    const read = new Uint8Array(10 + packet.length);
    read.set([1, 1, 40, 0, segment & 255, segment >> 8, 20, 0, 16, 0]);
    read.set(packet, 10);
    a.tun.toRead.push(read);
    a.send(udp(100));
    runUntil([a, b], 60);
    const [error] = a.takeDelivered() as [Uint8Array];
    expect([error[20], error[21], (error[26]! << 8) | error[27]!]).toEqual([3, 4, limit]);
    expect((error[30]! << 8) | error[31]!).toBe(40 + segment); // the quoted packet is the first segment
    expect(b.takeDelivered().map((delivered) => delivered.length)).toEqual([100]);
  });

  it("is never answered when it is an ICMP error or a later fragment", () => {
    const { a, b } = meet(1280);
    a.send(makePacket({
      source: "10.9.0.1",
      destination: "10.9.0.2",
      protocol: "icmp",
      icmpType: 3,
      icmpCode: 1,
      payload: new Uint8Array(1300),
    }));
    const first = udp(1100);
    first.set([0x60, 0], 6); // more fragments, and do not fragment
    a.send(first);
    const later = udp(1300);
    later.set([0x40, 1080 / 8], 6);
    a.send(later);
    runUntil([a, b], 60);
    expect(a.takeDelivered()).toEqual([]);
    expect(a.counters.drops(EGRESS, DROP_PACKET_TOO_BIG)).toBe(2);
  });
});

describe("a packet to nobody", () => {
  it("is answered as unreachable, in both families", () => {
    const { a, b } = meet(0);
    a.send(makePacket({ source: "10.9.0.1", destination: "10.9.7.7" }));
    a.send(makePacket({ source: "fd09::1", destination: "fd09::77" }));
    runUntil([a, b], 60);
    const [v4, v6] = a.takeDelivered() as [Uint8Array, Uint8Array];
    expect([...v4.slice(12, 22)]).toEqual([10, 9, 7, 7, 10, 9, 0, 1, 3, 1]);
    expect([ones(v4.slice(0, 20)), ones(v4.slice(20)), ones(v4.slice(28, 48))]).toEqual([0, 0, 0]);
    expect([v6[40], v6[41], icmp6Sum(v6)]).toEqual([1, 0, 0]);
    expect(a.counters.drops(EGRESS, DROP_UNROUTABLE)).toBe(2);
  });

  it("is answered when the peer is known but not where it is", () => {
    const network = new FakeNetwork({ seed: 1 });
    const a = new MeshNode(network, ciphers, { ...A, underlay: "192.0.2.1" });
    const b = new MeshNode(network, ciphers, { ...B, underlay: "192.0.2.2" });
    a.learn(b, { endpoint: false });
    a.setPolicy(policyOf(1));
    a.send(makePacket({ source: "fd09::1", destination: "fd09::2" }));
    runUntil([a, b], 10);
    expect(a.takeDelivered().map((packet) => [packet[40], packet[41]])).toEqual([[1, 3]]);
    expect(a.counters.drops(EGRESS, DROP_NO_UNDERLAY_ADDRESS)).toBe(1);
  });

  it("is not answered for multicast, nor when policy is what stands in the way", () => {
    const { a, b } = meet(0);
    a.send(makePacket({ source: "10.9.0.1", destination: "224.0.0.251" }));
    a.send(makePacket({ source: "fd09::1", destination: "ff02::fb" }));
    a.setPolicy(policyOf(2, undefined, []));
    a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2", destinationPort: 81 }));
    runUntil([a, b], 60);
    expect(a.takeDelivered()).toEqual([]);
    expect(a.counters.drops(EGRESS, DROP_UNROUTABLE)).toBe(2);
    expect(a.counters.drops(EGRESS, DROP_POLICY_DENIED)).toBe(1);
  });

  it("is answered no more often than the bucket allows", () => {
    const { a, b } = meet(0);
    for (let i = 0; i < 500; i++) a.send(makePacket({ source: "10.9.0.1", destination: "10.9.7.7", sourcePort: i }));
    runUntil([a, b], 60);
    expect(a.takeDelivered().length).toBe(50);
    runUntil([a, b], 1_060);
    for (let i = 0; i < 500; i++) a.send(makePacket({ source: "10.9.0.1", destination: "10.9.7.7", sourcePort: i }));
    runUntil([a, b], 1_070);
    expect(a.takeDelivered().length).toBe(50);
    expect(a.counters.drops(EGRESS, DROP_UNROUTABLE)).toBe(1000);
  });
});

it("a token bucket gives its burst, then its rate, and never more than the burst", () => {
  const bucket = new TokenBucket(3, 10);
  const take = (count: number, nowMs: number) =>
    Array.from({ length: count }, () => bucket.take(nowMs)).filter(Boolean).length;
  expect(take(5, 1000)).toBe(3);
  expect(take(5, 1100)).toBe(1);
  expect(take(5, 1150)).toBe(0);
  expect(take(50, 60_000)).toBe(3);
});

describe("a connection that opens", () => {
  it.each([
    [1280, "10.9.0.1", "10.9.0.2", 40],
    [1420, "fd09::1", "fd09::2", 60],
  ])("over a %i-octet way is told of segments that fit it, both ways", (path, from, to, headers) => {
    const { a, b, peer } = meet(path);
    const syn = (source: string, destination: string, flags: number) => {
      const ports = flags === 2 ? [4000, 80] as const : [80, 4000] as const;
      const payload = Uint8Array.of(2, 4, 1460 >> 8, 1460 & 255);
      const packet = makePacket({
        source,
        destination,
        protocol: "tcp",
        flags,
        sourcePort: ports[0],
        destinationPort: ports[1],
        payload,
      });
      packet[headers - 20 + 12] = 0x60;
      return packet;
    };
    const mssOf = (packet: Uint8Array) => (packet[headers + 2]! << 8) | packet[headers + 3]!;
    const limit = a.datapath.node.paths.largestTcpOf(peer.slot);
    expect(limit).toBeLessThan(1355);
    a.send(syn(from, to, 2));
    runUntil([a, b], 60);
    expect(b.takeDelivered().map(mssOf)).toEqual([limit - headers]);
    b.send(syn(to, from, 18));
    runUntil([a, b], 70);
    expect(a.takeDelivered().map(mssOf)).toEqual([limit - headers]);
  });
});
