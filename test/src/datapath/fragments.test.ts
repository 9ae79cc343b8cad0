import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { EGRESS, INGRESS } from "../../../src/datapath/counters.ts";
import { FragmentTable } from "../../../src/datapath/fragment_table.ts";
import { InnerFragments } from "../../../src/datapath/inner_fragments.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { DROP_FRAGMENT, DROP_FRAGMENT_NOT_FOUND, DROP_POLICY_DENIED, FORWARD } from "../../../src/verdict.ts";
import { FragmentInfo, readFragment } from "../../../src/wire/fragment.ts";
import { PacketInfo } from "../../../src/wire/packet.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { makePacket, ones, type PacketFields } from "../../fakes/packets.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

/** Cuts a packet as a sender's kernel does, octet by octet. @param sizes octets of data of each but the last, multiples of 8 */
function cut(packet: Uint8Array, sizes: readonly number[], id = 99): Uint8Array[] {
  const isV4 = packet[0]! >> 4 === 4;
  const headerBytes = isV4 ? 20 : 40;
  const data = packet.slice(headerBytes);
  const fragments: Uint8Array[] = [];
  for (let at = 0, i = 0; at < data.length; i++) {
    const octets = Math.min(sizes[i] ?? data.length, data.length - at);
    fragments.push(fragmentOf(packet, data.slice(at, at + octets), at, at + octets < data.length, id));
    at += octets;
  }
  return fragments;
}

function fragmentOf(packet: Uint8Array, data: Uint8Array, offset: number, more: boolean, id: number): Uint8Array {
  if (packet[0]! >> 4 === 4) {
    const fragment = Uint8Array.from([...packet.slice(0, 20), ...data]);
    const field = (more ? 0x2000 : 0) | (offset / 8);
    fragment.set([fragment.length >> 8, fragment.length & 255, id >> 8, id & 255, field >> 8, field & 255], 2);
    fragment.set([0, 0], 10);
    const sum = ones(fragment.slice(0, 20));
    fragment.set([sum >> 8, sum & 255], 10);
    return fragment;
  }
  const field = offset | (more ? 1 : 0);
  const extension = [packet[6]!, 0, field >> 8, field & 255, 0, 0, id >> 8, id & 255];
  const fragment = Uint8Array.from([...packet.slice(0, 40), ...extension, ...data]);
  fragment[6] = 44;
  fragment.set([(fragment.length - 40) >> 8, (fragment.length - 40) & 255], 4);
  return fragment;
}

const ENDS = [
  [4, "10.9.0.1", "10.9.0.2"],
  [6, "fd09::1", "fd09::2"],
] as const;

function meet(offload = false) {
  const network = new FakeNetwork({ seed: 1 });
  const a = new MeshNode(network, ciphers, {
    name: "a",
    addresses: ["10.9.0.1", "fd09::1"],
    underlay: "192.0.2.1",
    identity: 65537,
    offload,
  });
  const b = new MeshNode(network, ciphers, {
    name: "b",
    addresses: ["10.9.0.2", "fd09::2"],
    underlay: "192.0.2.2",
    identity: 65538,
    offload,
  });
  a.learn(b);
  b.learn(a);
  for (const node of [a, b]) node.setPolicy(policyOf(1));
  let untilMs = 0;
  const settle = (forMs = 100) => runUntil([a, b], untilMs += forMs);
  return { a, b, settle };
}

const udp = (source: string, destination: string, fields: Partial<PacketFields> = {}) =>
  makePacket({
    source,
    destination,
    sourcePort: 5000,
    destinationPort: 53,
    payload: new Uint8Array(3000).fill(7),
    ...fields,
  });

describe.each(ENDS)("fragments over IPv%i", (version, from, to) => {
  it.each([["udp"], ["icmp"], ["tcp"]] as const)(
    "of a %s packet pass in both directions, unchanged and in order",
    (protocol) => {
      for (const offload of [false, true]) {
        const { a, b, settle } = meet(offload);
        const there = cut(udp(from, to, { protocol }), [1304, 1304]);
        for (const fragment of there) a.send(fragment);
        settle();
        expect(b.takeDelivered()).toEqual(there);
        const back = protocol === "icmp"
          ? { icmpType: version === 4 ? 0 : 129 }
          : { sourcePort: 53, destinationPort: 5000 };
        const answers = cut(udp(to, from, { protocol, ...back }), [1304, 1304]);
        for (const fragment of answers) b.send(fragment);
        settle();
        expect(a.takeDelivered()).toEqual(answers);
        for (const node of [a, b]) expect(node.counters.totalDrops(INGRESS) + node.counters.totalDrops(EGRESS)).toBe(0);
      }
    },
  );

  it("follow their first: what policy drops it for drops them all", () => {
    const { a, b, settle } = meet();
    b.setPolicy(policyOf(2, [{ identity: 65537, protocol: 17, port: 53, verdict: "allow" }]));
    for (const fragment of cut(udp(from, to, { destinationPort: 54 }), [1304, 1304])) a.send(fragment);
    settle();
    expect(b.takeDelivered()).toEqual([]);
    expect(b.counters.drops(INGRESS, DROP_POLICY_DENIED)).toBe(1);
    expect(b.counters.drops(INGRESS, DROP_FRAGMENT_NOT_FOUND)).toBe(2);
    const allowed = cut(udp(from, to), [1304, 1304], 100);
    for (const fragment of allowed) a.send(fragment);
    settle();
    expect(b.takeDelivered()).toEqual(allowed);
  });

  it("that come before their first, or long after it, are dropped", () => {
    const { a, b, settle } = meet();
    const [first, second, third] = cut(udp(from, to), [1304, 1304]) as [Uint8Array, Uint8Array, Uint8Array];
    a.send(second);
    a.send(first);
    a.send(third);
    settle();
    expect(b.takeDelivered()).toEqual([first, third]);
    expect(a.counters.drops(EGRESS, DROP_FRAGMENT_NOT_FOUND)).toBe(1);
    settle(31_000);
    a.send(second);
    settle();
    expect(b.takeDelivered()).toEqual([]);
    expect(a.counters.drops(EGRESS, DROP_FRAGMENT_NOT_FOUND)).toBe(2);
  });

  it("cut a flow in the middle when policy changes", () => {
    const { a, b, settle } = meet();
    const [first, second] = cut(udp(from, to), [1304, 1304]) as [Uint8Array, Uint8Array];
    a.send(first);
    settle();
    b.setPolicy(policyOf(2, []));
    a.send(second);
    settle();
    expect(b.takeDelivered()).toEqual([first]);
    expect(b.counters.drops(INGRESS, DROP_POLICY_DENIED)).toBe(1);
  });

  it.each(
    [
      ["a first one without the whole TCP header", "tcp", 0, 16, true, 0],
      ["one that begins inside the TCP header (RFC 1858, RFC 3128)", "tcp", 8, 32, true, 0],
      ["one that lies over the first", "udp", 512, 512, true, 1],
      ["one that makes the packet longer than a packet may be", "udp", 65528, 64, false, 1],
      ["one in the middle of no multiple of 8 octets", "udp", 1304, 61, true, 1],
      ["one without data", "udp", 1304, 0, false, 1],
    ] as const,
  )("are refused: %s", (_, protocol, offset, octets, more, isFirstSent) => {
    const { a, b, settle } = meet();
    const packet = udp(from, to, { protocol });
    if (isFirstSent === 1) a.send(cut(packet, [1304])[0]!);
    settle();
    expect(b.takeDelivered().length).toBe(isFirstSent);
    a.send(fragmentOf(packet, new Uint8Array(octets), offset, more, 99));
    settle();
    expect(b.takeDelivered()).toEqual([]);
    expect(a.counters.drops(EGRESS, DROP_FRAGMENT)).toBe(1);
  });

  it("of an ICMP error are refused", () => {
    const { a, b, settle } = meet();
    const packet = udp(from, to, { protocol: "icmp", icmpType: version === 4 ? 3 : 1 });
    for (const fragment of cut(packet, [1304])) a.send(fragment);
    settle();
    expect(b.takeDelivered()).toEqual([]);
    expect(a.counters.drops(EGRESS, DROP_FRAGMENT)).toBe(1);
    expect(a.counters.drops(EGRESS, DROP_FRAGMENT_NOT_FOUND)).toBe(1);
  });

  it("read any octets without reading past them, and say nothing of what they drop", () => {
    fc.assert(fc.property(
      fc.uint8Array({ minLength: 0, maxLength: 120 }),
      fc.array(fc.tuple(fc.nat(63), fc.nat(255)), { maxLength: 6 }),
      (noise, changes) => {
        const bytes = Uint8Array.from([...cut(udp(from, to), [64])[0]!.slice(0, 80), ...noise]);
        for (const [at, value] of changes) bytes[at] = value;
        const info = new PacketInfo();
        const fragment = new FragmentInfo();
        const verdict = readFragment(bytes, 0, bytes.length, info, fragment);
        if (verdict !== FORWARD) {
          expect([info, fragment]).toEqual([new PacketInfo(), new FragmentInfo()]);
          return;
        }
        expect(info.end).toBeLessThanOrEqual(bytes.length);
        expect(info.payloadAt).toBeLessThanOrEqual(info.end);
        expect(fragment.endOffset).toBeLessThanOrEqual(65535);
        expect(fragment.endOffset - fragment.offset).toBe(info.end - info.transportAt);
      },
    ));
  });
});

it("an IPv6 packet in one fragment is a whole packet", () => {
  const { a, b, settle } = meet();
  const packet = udp("fd09::1", "fd09::2", { payload: new Uint8Array(100) });
  const atomic = fragmentOf(packet, packet.slice(40), 0, false, 7);
  a.send(atomic);
  settle();
  expect(b.takeDelivered()).toEqual([atomic]);
});

it("the table is bounded: a flood pushes out old packets of its own, and no more are kept than there is room for", () => {
  const table = new FragmentTable(1234);
  const bytes = makePacket({ source: "10.9.0.1", destination: "10.9.0.2" });
  const info = new PacketInfo();
  Object.assign(info, { version: 4, sourceAt: 12, destinationAt: 16, protocol: 17, sourcePort: 1, destinationPort: 2 });
  const fragment = new FragmentInfo();
  fragment.endOffset = 64;
  fragment.hasMore = true;
  for (let id = 0; id < 20_000; id++) {
    fragment.id = id;
    table.add(bytes, info, fragment, id / 1000);
  }
  fragment.offset = 64;
  let found = 0;
  for (let id = 0; id < 20_000; id++) {
    fragment.id = id;
    if (table.fill(bytes, info, fragment, 21) === FORWARD) found++;
  }
  expect(found).toBeGreaterThan(900);
  expect(found).toBeLessThanOrEqual(1024);
  fragment.id = 19_999;
  expect(table.fill(bytes, info, fragment, 21)).toBe(FORWARD);
});

it("a flood of one sender makes the table forget none of the others' packets, whatever its size", () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.integer({ min: 1, max: 5000 }),
      fc.integer({ min: 1, max: 3 }),
      (seed, flood, others) => {
        const table = new FragmentTable(seed);
        const info = new PacketInfo();
        Object.assign(info, { version: 4, sourceAt: 12, destinationAt: 16, protocol: 17, sourcePort: 7 });
        const fragment = new FragmentInfo();
        Object.assign(fragment, { endOffset: 64, hasMore: true });
        const from = (sender: number) => makePacket({ source: `10.9.0.${sender}`, destination: "10.8.0.1" });
        const greedy = from(200);
        const add = (bytes: Uint8Array, id: number, atMs: number) => {
          Object.assign(fragment, { id, offset: 0 });
          table.add(bytes, info, fragment, atMs);
        };
        for (let id = 0; id < 4096; id++) add(greedy, id, id / 1000); // has all of it
        for (let sender = 1; sender <= others; sender++) add(from(sender), sender, 5);
        for (let id = 0; id < flood; id++) add(greedy, 10_000 + id, 6 + id / 1000);
        for (let sender = 1; sender <= others; sender++) {
          Object.assign(fragment, { id: sender, offset: 64 });
          expect(table.fill(from(sender), info, fragment, 20)).toBe(FORWARD);
        }
      },
    ),
    { numRuns: 30 },
  );
});

it("cutting in place gives back the packet, whatever its size, its options and the room", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 4000 }),
    fc.integer({ min: 68, max: 2000 }),
    fc.integer({ min: 0, max: 10 }),
    fc.nat(1000),
    fc.boolean(),
    (dataBytes, largest, optionWords, offset, hasMore) => {
      const options = new Array<number>(optionWords * 4).fill(1);
      if (optionWords > 1) options.splice(0, 8, 0x82, 4, 9, 9, 7, 4, 8, 8); // copied, and not
      const header = [0x45 + optionWords, 0, 0, 0, 1, 2, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, ...options];
      const packet = Uint8Array.from([...header, ...Array.from({ length: dataBytes }, (_, i) => i * 7)]);
      const own = (hasMore ? 0x2000 : 0) | offset;
      packet.set([packet.length >> 8, packet.length & 255, 1, 2, own >> 8, own & 255], 2);
      const bytes = packet.slice();
      const fragments = new InnerFragments(bytes);
      const can = fragments.begin(0, bytes.length, largest);
      expect(can).toBe(largest - header.length >= 8);
      if (!can) return;
      const data: number[] = [];
      for (let i = 0; fragments.next(); i++) {
        const fragment = bytes.slice(fragments.fragmentAt, fragments.fragmentEnd);
        expect(fragment.length).toBeLessThanOrEqual(largest);
        expect((fragment[2]! << 8) | fragment[3]!).toBe(fragment.length);
        expect(ones(fragment.slice(0, header.length))).toBe(0);
        const field = (fragment[6]! << 8) | fragment[7]!;
        expect((field & 0x1fff) - offset).toBe(data.length / 8);
        data.push(...fragment.slice(header.length));
        expect((field & 0x2000) !== 0).toBe(data.length < dataBytes || hasMore);
        if (optionWords > 1) {
          expect([...fragment.slice(20, 28)]).toEqual([0x82, 4, 9, 9, ...(i === 0 ? [7, 4, 8, 8] : [1, 1, 1, 1])]);
        }
      }
      expect(Uint8Array.from(data)).toEqual(packet.slice(header.length));
    },
  ));
});
