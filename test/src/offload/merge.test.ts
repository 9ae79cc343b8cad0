import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Merger, type MergerOptions } from "../../../src/offload/merge.ts";
import { Splitter } from "../../../src/offload/split.ts";
import { FORWARD } from "../../../src/verdict.ts";
import {
  A6,
  B6,
  icmpPacket,
  type PacketFields,
  pseudoSum,
  rawPacket,
  tcpPacket,
  udpPacket,
} from "../../support/inner_packets.ts";

const FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, ECE = 64, CWR = 128;
const BOTH: MergerOptions = { tcp: true, udp: true };
const V6 = { source: A6, destination: B6 };

/** Packets with 16 octets of noise between them, merged; each write as one array, virtio header first. */
function merge(packets: Uint8Array[], options = BOTH, isRefusing = false): Uint8Array[] {
  const total = packets.reduce((sum, packet) => sum + packet.length + 16, 0);
  const arena = new Uint8Array(Math.ceil((total + 64) / 4) * 4).fill(0xd7);
  const merger = new Merger(arena, options);
  const writes: Uint8Array[] = [];
  let at = 0;
  for (const packet of packets) {
    at += 16;
    arena.set(packet, at);
    merger.add(at, at + packet.length);
    at += packet.length;
  }
  merger.flush((pieces, count) => {
    expect(count).toBeGreaterThan(0);
    expect(count).toBeLessThanOrEqual(256);
    const parts: number[] = [];
    for (let i = 0; i < count; i++) parts.push(...arena.subarray(pieces[2 * i], pieces[2 * i + 1]));
    if (isRefusing && count > 1) return false;
    writes.push(Uint8Array.from(parts));
    return true;
  });
  merger.flush(() => expect.fail("nothing is held after a flush"));
  return writes;
}

/** What the kernel makes of our writes, in order. */
function splitAgain(writes: Uint8Array[]): Uint8Array[] {
  return writes.flatMap((write) => {
    expect(write.length - 10).toBeLessThanOrEqual(65535);
    const arena = new Uint8Array(Math.ceil(write.length / 4) * 4);
    arena.set(write);
    const splitter = new Splitter(arena, 65535);
    const segments: Uint8Array[] = [];
    if (write.length < 30) return [write.slice(10)];
    expect(splitter.begin(0, write.length)).toBe(FORWARD);
    while (splitter.next()) segments.push(arena.slice(splitter.segmentAt, splitter.segmentEnd));
    return segments;
  });
}

const payloadOf = (bytes: number, seed = 1) =>
  Uint8Array.from({ length: bytes }, (_, i) => (i * seed + 11 * seed) & 255);

/** Segments of one stream: sizes in octets, fields for all of them, and for the one at an index. */
function stream(sizes: number[], fields: PacketFields = {}, change: Record<number, PacketFields> = {}): Uint8Array[] {
  let sequence = fields.sequence ?? 1000;
  return sizes.map((size, i) => {
    const packet = tcpPacket({ id: 1 + i, ...fields, sequence, payload: payloadOf(size, i + 1), ...change[i] });
    sequence = (sequence + size) >>> 0;
    return packet;
  });
}

function datagrams(
  sizes: number[],
  fields: PacketFields = {},
  change: Record<number, PacketFields> = {},
): Uint8Array[] {
  return sizes.map((size, i) => udpPacket({ id: 1 + i, ...fields, payload: payloadOf(size, i + 1), ...change[i] }));
}

const damaged = (packet: Uint8Array, at: number) => {
  const result = Uint8Array.from(packet);
  result[at] = result[at]! ^ 0x10;
  return result;
};

describe("Merger: what it writes", () => {
  it("makes of TCP segments one superpacket with the headers that the kernel wants", () => {
    const [write, ...others] = merge(stream([100, 100, 40], {}, { 2: { flags: ACK | PSH } }));
    expect(others).toEqual([]);
    // flags, type, hdr_len, gso_size, csum_start, csum_offset
    expect([...write!.subarray(0, 10)]).toEqual([1, 1, 40, 0, 100, 0, 20, 0, 16, 0]);
    const expected = tcpPacket({
      id: 1,
      flags: ACK | PSH,
      payload: Uint8Array.from([...payloadOf(100, 1), ...payloadOf(100, 2), ...payloadOf(40, 3)]),
    });
    const seed = pseudoSum([10, 8, 0, 1], [10, 8, 0, 2], 6, 260);
    expected.set([seed >> 8, seed & 255], 36);
    expect(write!.subarray(10)).toEqual(expected);
  });

  it("makes of IPv6 datagrams one superpacket", () => {
    const [write, ...others] = merge(datagrams([64, 64, 1], V6));
    expect(others).toEqual([]);
    expect([...write!.subarray(0, 10)]).toEqual([1, 5, 48, 0, 64, 0, 40, 0, 6, 0]);
    const expected = udpPacket({
      ...V6,
      payload: Uint8Array.from([64, 64, 1].flatMap((n, i) => [...payloadOf(n, i + 1)])),
    });
    const seed = pseudoSum(A6, B6, 17, 137);
    expected.set([seed >> 8, seed & 255], 46);
    expect(write!.subarray(10)).toEqual(expected);
  });

  it("never writes a UDP pseudo-header sum of 0, which would say that there is no checksum", () => {
    // 0xffff in ones' complement is 0: choose ports' neighbour, the address, so that the sum folds to 0xffff.
    for (let last = 0; last < 65536; last++) {
      const destination = [10, 8, last >> 8, last & 255];
      if (pseudoSum([10, 8, 0, 1], destination, 17, 28) !== 0xffff) continue;
      const [write] = merge(datagrams([10, 10], { destination }));
      expect([...write!.subarray(10 + 26, 10 + 28)]).toEqual([255, 255]);
      return;
    }
    expect.fail("no such address");
  });

  it("writes a packet alone with ten zero octets before it, and otherwise untouched", () => {
    const packets = [tcpPacket({ flags: SYN }), udpPacket(), icmpPacket(8, 0, 1), Uint8Array.of(1, 2, 3)];
    expect(merge(packets)).toEqual(packets.map((packet) => Uint8Array.from([...new Array(10).fill(0), ...packet])));
  });

  it("gives the packets of a superpacket that is refused as they came, and none of them twice", () => {
    const alone = (packets: Uint8Array[]) =>
      packets.map((packet) => Uint8Array.from([...new Array(10).fill(0), ...packet]));
    const flows = [
      stream([100, 100, 40], {}, { 2: { flags: ACK | PSH } }),
      stream([90, 90], V6),
      datagrams([64, 64, 1], V6),
      datagrams([33, 33, 7]),
      [udpPacket({ sourcePort: 9 })],
    ];
    for (const packets of flows) expect(merge(packets, BOTH, true)).toEqual(alone(packets));
    expect(merge(flows.flat(), BOTH, true)).toEqual(alone(flows.flat()));
    const [first, second, third] = stream([50, 50, 50]);
    expect(merge([third!, second!, first!], BOTH, true)).toEqual(alone([first!, second!, third!]));
  });

  it("starts anew with each batch", () => {
    const arena = new Uint8Array(4096);
    const merger = new Merger(arena, BOTH);
    const [a, b] = stream([50, 50]);
    const counts: number[] = [];
    for (const packet of [a!, b!]) {
      arena.set(packet, 64);
      merger.add(64, 64 + packet.length);
      merger.flush((_, count) => (counts.push(count), true));
    }
    expect(counts).toEqual([1, 1]);
  });

  it("takes batches larger than it had room for", () => {
    const packets = datagrams(new Array<number>(5000).fill(1));
    expect(splitAgain(merge(packets))).toEqual(packets);
  });
});

describe("Merger: what it merges", () => {
  it.each([
    ["segments in order", stream([100, 100, 100])],
    ["a short last segment", stream([100, 100, 7])],
    ["a last segment with PSH", stream([100, 100], {}, { 1: { flags: ACK | PSH } })],
    ["segments with ECE throughout (uniform)", stream([100, 100], { flags: ACK | ECE })],
    ["equal options", stream([100, 100], { options: [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2] })],
    ["a sequence number that wraps", stream([100, 100, 100], { sequence: 0xffffff80 })],
    ["IPv6 segments", stream([100, 100], { ...V6, flowLabel: 0x12345, trafficClass: 2 })],
    ["any IPv4 ids under DF", stream([100, 100], {}, { 1: { id: 9999 } })],
    [
      "IPv4 ids that count up without DF, past their end",
      stream([9, 9], { fragment: 0 }, { 0: { id: 65535 }, 1: { id: 0 } }),
    ],
    ["a segment that precedes the first", stream([100, 100]).reverse()],
    ["a larger segment that precedes the only one", stream([100, 60]).reverse()],
    ["three segments, last first", stream([100, 100, 50]).reverse()],
    ["equal datagrams", datagrams([80, 80, 80])],
    ["a short last datagram", datagrams([80, 80, 1])],
  ])("merges %s", (_, packets) => {
    expect(merge(packets)).toHaveLength(1);
  });

  it("merges several flows of both protocols that arrive interleaved, each in its own order", () => {
    const flows = [
      stream([100, 100, 100]),
      stream([100, 100, 100], { sourcePort: 40001 }),
      stream([100, 100, 100], V6),
      datagrams([80, 80, 80]),
      datagrams([80, 80, 80], V6),
    ];
    const packets = [0, 1, 2].flatMap((i) => flows.map((flow) => flow[i]!));
    const writes = merge(packets);
    expect(writes).toHaveLength(5);
    expect(writes.map((write) => splitAgain([write]).length)).toEqual([3, 3, 3, 3, 3]);
  });

  it("merges up to 65535 octets, and goes on in the next superpacket", () => {
    const writes = merge(stream(new Array<number>(48).fill(1400)));
    expect(writes.map((write) => splitAgain([write]).length)).toEqual([46, 2]);
  });

  it("merges at most 64 datagrams, and at most 256 segments", () => {
    const sizes = new Array<number>(300).fill(10);
    expect(merge(datagrams(sizes)).map((write) => (write.length - 38) / 10)).toEqual([64, 64, 64, 64, 44]);
    expect(merge(stream(sizes)).map((write) => (write.length - 50) / 10)).toEqual([256, 44]);
  });

  it("lets other protocols pass without ending a flow", () => {
    const [a, b] = stream([100, 100]);
    expect(merge([a!, icmpPacket(8, 0, 1), b!])).toHaveLength(2);
  });
});

describe("Merger: what it never merges", () => {
  it.each([
    ["a gap in sequence numbers", stream([100, 100], {}, { 1: { sequence: 1101 } })],
    ["the same segment twice", stream([100, 100], {}, { 1: { sequence: 1000 } })],
    ["overlapping segments", stream([100, 100], {}, { 1: { sequence: 1099 } })],
    ["another acknowledgement number", stream([100, 100], {}, { 1: { acknowledgement: 5001 } })],
    ["another window", stream([100, 100], {}, { 1: { window: 501 } })],
    ["a larger segment behind a smaller one", stream([99, 100])],
    ["a segment behind one with PSH", stream([100, 100], { flags: ACK | PSH })],
    ["a segment with PSH before another", stream([100, 100], {}, { 0: { flags: ACK | PSH } }).reverse()],
    ["SYN", stream([100, 100], { flags: ACK | SYN })],
    ["FIN", stream([100, 100], {}, { 1: { flags: ACK | FIN } })],
    ["RST", stream([100, 100], {}, { 1: { flags: ACK | RST } })],
    ["URG", stream([100, 100], {}, { 1: { flags: ACK | URG } })],
    ["CWR", stream([100, 100], { flags: ACK | CWR })],
    ["ECE on one of two", stream([100, 100], {}, { 1: { flags: ACK | ECE } })],
    ["segments without ACK", stream([100, 100], { flags: 0 })],
    ["pure ACKs", stream([0, 0])],
    ["other options", stream([9, 9], { options: [1, 1, 1, 0] }, { 1: { options: [1, 1, 0, 0] } })],
    ["another length of options", stream([9, 9], {}, { 1: { options: [1, 1, 1, 0] } })],
    ["another TTL", stream([100, 100], {}, { 1: { ttl: 63 } })],
    ["another TOS", stream([100, 100], {}, { 1: { trafficClass: 4 } })],
    ["other ECN bits", stream([100, 100], { trafficClass: 2 }, { 1: { trafficClass: 3 } })],
    ["another DF bit", stream([100, 100], {}, { 1: { fragment: 0 } })],
    ["the reserved bit", stream([100, 100], {}, { 1: { fragment: 0xc000 } })],
    ["IPv4 ids that do not count up, without DF", stream([100, 100], { fragment: 0, id: 5 })],
    ["first fragments", stream([100, 100], { fragment: 0x2000 })],
    ["later fragments", stream([100, 100], { fragment: 10 })],
    ["another hop limit", stream([100, 100], V6, { 1: { ttl: 63 } })],
    ["another traffic class", stream([100, 100], V6, { 1: { trafficClass: 1 } })],
    ["another flow label", stream([100, 100], V6, { 1: { flowLabel: 1 } })],
    ["another source port", stream([100, 100], {}, { 1: { sourcePort: 1 } })],
    ["another source", stream([100, 100], {}, { 1: { source: [10, 8, 0, 9] } })],
    ["another destination", stream([100, 100], {}, { 1: { destination: [10, 8, 0, 9] } })],
    ["another IPv6 source", stream([100, 100], V6, { 1: { source: [...A6.slice(0, 8), 1, ...A6.slice(9)] } })],
    ["a larger datagram behind a smaller one", datagrams([80, 81])],
    ["empty datagrams", datagrams([0, 0])],
    ["datagrams to Geneve", datagrams([80, 80], { destinationPort: 6081 })],
    ["datagrams to VXLAN (Linux, Cilium)", datagrams([80, 80], { destinationPort: 8472 })],
    ["datagrams to VXLAN (IANA)", datagrams([80, 80], { destinationPort: 4789 })],
    ["a datagram whose checksum is wrong", [datagrams([80])[0]!, damaged(datagrams([80])[0]!, 60)]],
    ["a datagram behind one whose checksum is wrong", [damaged(datagrams([80])[0]!, 60), datagrams([80])[0]!]],
    ["a segment whose checksum is wrong", stream([100, 100]).map((p, i) => i === 1 ? damaged(p, 90) : p)],
    ["a segment behind one whose checksum is wrong", stream([100, 100]).map((p, i) => i === 0 ? damaged(p, 90) : p)],
    ["a segment whose IPv4 header checksum is wrong", stream([100, 100]).map((p, i) => i === 1 ? damaged(p, 10) : p)],
    [
      "a segment behind one whose IPv4 header is damaged",
      stream([100, 100]).map((p, i) => i === 0 ? damaged(p, 10) : p),
    ],
    ["datagrams without a checksum", datagrams([80, 80]).map((p) => p.fill(0, 26, 28))],
    ["another protocol with the same ports", [
      rawPacket(132, { payload: payloadOf(90) }),
      rawPacket(132, { payload: payloadOf(90) }),
    ]],
    ["IPv6 behind extension headers", stream([100, 100], V6).map((p) => (p[6] = 60, p))],
    ["a packet longer than its length field", stream([100, 100]).map((p) => Uint8Array.from([...p, 0]))],
  ])("keeps apart: %s", (_, packets) => {
    const untouched = packets.map((packet) => Uint8Array.from([...new Array(10).fill(0), ...packet]));
    expect(merge(packets)).toEqual(untouched);
  });

  it("appends nothing to a short segment or datagram, prepends nothing of another size", () => {
    expect(merge(stream([100, 50, 50]))).toHaveLength(2);
    expect(merge(datagrams([80, 50, 50]))).toHaveLength(2);
    const [a, b, c] = stream([50, 100, 100]);
    expect(merge([b!, c!, a!])).toHaveLength(2);
  });

  it.each([
    ["pure ACK", tcpPacket({ flags: ACK })],
    ["FIN", tcpPacket({ flags: ACK | FIN })],
    ["a segment with a wrong checksum", damaged(tcpPacket({ sequence: 1100, payload: payloadOf(100) }), 90)],
    ["a fragment of anything", udpPacket({ sourcePort: 7, fragment: 0x2000 })],
    ["an IPv4 packet with options", damaged(udpPacket({ sourcePort: 7, payload: payloadOf(20) }), 0)],
  ])("lets no segment pass %s of its flow", (_, between) => {
    if (between[0] === 0x55) between[0] = 0x46;
    const [a, b] = stream([100, 100]);
    const writes = merge([a!, between, b!]);
    expect(writes.map((write) => write.subarray(10))).toEqual([a, between, b]);
  });

  it("merges only the protocols that it was told to", () => {
    const packets = [...stream([100, 100]), ...datagrams([80, 80])];
    expect(merge(packets, { tcp: true, udp: false })).toHaveLength(3);
    expect(merge(packets, { tcp: false, udp: true })).toHaveLength(3);
    expect(merge(packets, { tcp: false, udp: false })).toHaveLength(4);
  });
});

describe("Merger: any batch", () => {
  interface Sent {
    packet: Uint8Array;
    flow: string;
    isMovable: boolean;
    sequence: number;
  }
  const one = fc.record({
    isUdp: fc.boolean(),
    isV6: fc.boolean(),
    port: fc.constantFrom(1, 2),
    segment: fc.nat(6),
    size: fc.constantFrom(30, 30, 30, 30, 10, 31, 0),
    flags: fc.constantFrom(ACK, ACK, ACK, ACK, ACK, ACK | PSH, ACK | FIN, ACK | CWR, SYN, ACK | ECE),
    ttl: fc.constantFrom(64, 64, 64, 64, 63),
    fragment: fc.constantFrom(0x4000, 0x4000, 0x4000, 0),
    isInOrder: fc.boolean(),
    isDamaged: fc.constantFrom(false, false, false, false, false, false, true),
  });

  it("comes out of the kernel as it came in: every packet once, every flow in order", () => {
    fc.assert(
      fc.property(fc.array(one, { maxLength: 40 }), (list) => {
        const next = new Map<string, number>();
        const sent: Sent[] = list.map((s, i) => {
          const flow = `${s.isUdp} ${s.isV6} ${s.port}`;
          const sequence = s.isInOrder ? next.get(flow) ?? 1000 : 1000 + 30 * s.segment;
          next.set(flow, sequence + s.size);
          // the payload makes each packet unique; ids count up so that the kernel's are the same
          const payload = payloadOf(s.size, i + 1);
          const fields = {
            ...(s.isV6 ? V6 : {}),
            sourcePort: s.port,
            ttl: s.ttl,
            fragment: s.fragment,
            flags: s.flags,
            sequence,
            payload,
          };
          const packet = s.isUdp ? udpPacket({ id: i, ...fields }) : tcpPacket({ id: i, ...fields });
          const broken = s.isDamaged && s.size > 0 ? damaged(packet, packet.length - 1) : packet;
          return { packet: broken, flow, isMovable: !s.isUdp && (s.flags & ~(PSH | ECE)) === ACK, sequence };
        });
        // Ids under DF may change: compare without id and header checksum.
        const textOf = (packet: Uint8Array) => {
          const copy = Uint8Array.from(packet);
          if (copy[0] === 0x45 && (copy[6]! & 0x40) !== 0) copy.fill(0, 4, 6).fill(0, 10, 12);
          return copy.join();
        };
        const received = splitAgain(merge(sent.map((s) => s.packet))).map(textOf);
        expect([...received].sort()).toEqual(sent.map((s) => textOf(s.packet)).sort());
        const taken = new Set<number>();
        const order = sent.map((s) => {
          const at = received.findIndex((text, i) => !taken.has(i) && text === textOf(s.packet));
          taken.add(at);
          return at;
        });
        for (let i = 0; i < sent.length; i++) {
          for (let j = i + 1; j < sent.length; j++) {
            const a = sent[i]!, b = sent[j]!;
            if (a.flow !== b.flow || order[i]! < order[j]!) continue;
            // only data that belongs in front may overtake
            expect(a.isMovable && b.isMovable && b.sequence < a.sequence).toBe(true);
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it("survives any octets, and writes them as they were unless they are packets", () => {
    const mutated = fc.tuple(fc.constantFrom(...stream([40, 40]), ...datagrams([40, 40], V6)), fc.nat(70), fc.nat(255))
      .map(
        ([packet, at, value]) => {
          const result = Uint8Array.from(packet);
          if (at < result.length) result[at] = value;
          return result;
        },
      );
    fc.assert(
      fc.property(fc.array(fc.oneof(mutated, fc.uint8Array({ maxLength: 90 })), { maxLength: 20 }), (packets) => {
        const writes = merge(packets);
        expect(writes.length).toBeLessThanOrEqual(packets.length);
        const octets = writes.reduce((sum, write) => sum + write.length - 10, 0);
        expect(octets).toBeLessThanOrEqual(packets.reduce((sum, packet) => sum + packet.length, 0));
        for (const write of writes) {
          if (write.subarray(0, 10).some((octet) => octet !== 0)) splitAgain([write]); // what is merged is well formed
        }
      }),
      { numRuns: 500 },
    );
  });
});
