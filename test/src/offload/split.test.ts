import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Checksummer } from "../../../src/bytes/checksum.ts";
import { Splitter } from "../../../src/offload/split.ts";
import { DROP_BAD_OFFLOAD_HEADER, DROP_TOO_MANY_SEGMENTS, FORWARD } from "../../../src/verdict.ts";
import {
  A4,
  A6,
  B4,
  B6,
  type PacketFields,
  pseudoSum,
  tcpPacket,
  udpPacket,
  verifies,
} from "../../support/inner_packets.ts";

const HEADROOM = 128;
const FIN = 1, PSH = 8, ACK = 16, ECE = 64, CWR = 128;

interface Virtio {
  flags?: number;
  type?: number;
  headerBytes?: number;
  gsoSize?: number;
  start?: number;
  offset?: number;
}

const u16 = (value: number) => [value & 255, value >> 8];

function virtio(v: Virtio): number[] {
  return [
    v.flags ?? 1,
    v.type ?? 1,
    ...u16(v.headerBytes ?? 0),
    ...u16(v.gsoSize ?? 100),
    ...u16(v.start ?? 20),
    ...u16(v.offset ?? 16),
  ];
}

/** Splits as the datapath does: copies each segment out, then overwrites it and all before it, as sealing might. */
function split(header: Virtio, packet: Uint8Array, maxSegments?: number): { verdict: number; segments: Uint8Array[] } {
  const arena = new Uint8Array(HEADROOM + 10 + 65535 + 67).fill(0xee);
  arena.set([...virtio(header)], HEADROOM);
  arena.set(packet, HEADROOM + 10);
  const end = HEADROOM + 10 + packet.length;
  const splitter = new Splitter(arena, maxSegments);
  const verdict = splitter.begin(HEADROOM, end);
  const segments: Uint8Array[] = [];
  const expected = splitter.segments;
  while (splitter.next()) {
    segments.push(arena.slice(splitter.segmentAt, splitter.segmentEnd));
    expect(splitter.segmentAt).toBeGreaterThanOrEqual(HEADROOM + 10);
    expect(splitter.segmentEnd).toBeLessThanOrEqual(end);
    const isCut = (header.type ?? 1) !== 0;
    // 0 and 0xffff are the same sum
    const expectedSum = new Checksummer(arena).sum(splitter.segmentAt, splitter.segmentEnd) % 0xffff;
    if (isCut) expect(splitter.sumSegment() % 0xffff).toBe(expectedSum);
    else expect(splitter.sumSegment()).toBe(-1);
    arena.fill(0xee, 0, splitter.segmentEnd);
  }
  expect(segments).toHaveLength(expected);
  if (verdict === FORWARD) expect(Math.max(...segments.map((s) => s.length))).toBe(splitter.segmentBytes);
  return { verdict, segments };
}

/** What the kernel hands us: the checksum field holds the pseudo-header sum only. */
function unfinished(packet: Uint8Array, isUdp: boolean): Uint8Array {
  const isV6 = packet[0]! >> 4 === 6;
  const [from, middle, to] = isV6 ? [8, 24, 40] : [12, 16, 20];
  const sum = pseudoSum(
    [...packet.subarray(from, middle)],
    [...packet.subarray(middle, to)],
    isUdp ? 17 : 6,
    packet.length - to!,
  );
  const at = to! + (isUdp ? 6 : 16);
  const result = Uint8Array.from(packet);
  [result[at], result[at + 1]] = [sum >> 8, sum & 255];
  return result;
}

const payloadOf = (count: number, seed = 1) =>
  Uint8Array.from({ length: count }, (_, i) => (seed * i * i + 7 * i + seed) & 255);
const slice = (payload: Uint8Array, index: number, size: number) => payload.subarray(index * size, (index + 1) * size);

describe("Splitter: TCP", () => {
  it.each([
    ["IPv4", {}, { type: 1, start: 20 }],
    ["IPv4 with options", { options: [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2] }, { type: 1, start: 20 }],
    ["IPv6", { source: A6, destination: B6, flowLabel: 0x12345, trafficClass: 3 }, { type: 4, start: 40 }],
  ] as [string, PacketFields, Virtio][])(
    "makes of %s exactly the packets that a sender would have made",
    (_, fields, header) => {
      const payload = payloadOf(1050);
      const common = { ...fields, window: 777, acknowledgement: 0xfffffff0, ttl: 61 };
      const whole = tcpPacket({
        ...common,
        id: 0xfffe,
        sequence: 0xffffff00,
        flags: ACK | PSH | FIN | ECE | CWR,
        payload,
      });
      const { verdict, segments } = split({ ...header, gsoSize: 200 }, unfinished(whole, false));
      expect(verdict).toBe(FORWARD);
      const expected = [0, 1, 2, 3, 4, 5].map((i) =>
        tcpPacket({
          ...common,
          id: (0xfffe + i) & 0xffff,
          sequence: (0xffffff00 + 200 * i) >>> 0,
          flags: ACK | ECE | (i === 0 ? CWR : 0) | (i === 5 ? PSH | FIN : 0),
          payload: slice(payload, i, 200),
        })
      );
      expect(segments).toEqual(expected);
    },
  );

  it("reads header lengths from the packet, whatever the hint says", () => {
    const payload = payloadOf(250);
    for (const headerBytes of [0, 20, 40, 9999, 65535]) {
      const { segments } = split({ headerBytes }, unfinished(tcpPacket({ payload }), false));
      expect(segments.map((s) => s.length)).toEqual([140, 140, 90]);
      expect(segments.every(verifies)).toBe(true);
    }
  });

  it("finishes a superpacket of one segment, and one that is marked for ECN", () => {
    const packet = tcpPacket({ payload: payloadOf(80), flags: ACK | PSH });
    expect(split({ type: 1 | 0x80 }, unfinished(packet, false)).segments).toEqual([packet]);
  });

  it("keeps headers right when segments are smaller than they are", () => {
    const payload = payloadOf(150, 3);
    const { segments } = split({ gsoSize: 1 }, unfinished(tcpPacket({ payload }), false));
    expect(segments).toEqual(
      Array.from(payload, (octet, i) => tcpPacket({ id: 1 + i, sequence: 1000 + i, payload: Uint8Array.of(octet) })),
    );
  });
});

describe("Splitter: UDP", () => {
  it.each([
    ["IPv4", {}, { start: 20 }],
    ["IPv6", { source: A6, destination: B6 }, { start: 40 }],
  ] as [string, PacketFields, Virtio][])(
    "makes of %s datagrams with their own lengths and checksums",
    (_, fields, header) => {
      const payload = payloadOf(301);
      const { verdict, segments } = split(
        { ...header, type: 5, offset: 6 },
        unfinished(udpPacket({ ...fields, id: 9, payload }), true),
      );
      expect(verdict).toBe(FORWARD);
      expect(segments).toEqual(
        [0, 1, 2, 3].map((i) => udpPacket({ ...fields, id: 9 + i, payload: slice(payload, i, 100) })),
      );
    },
  );

  it("writes a checksum that comes out as zero as 0xffff (RFC 768)", () => {
    // Find payloads whose complemented sum is 0: set the last word to what is missing.
    for (const fields of [{ source: A4, destination: B4 }, { source: A6, destination: B6 }]) {
      const probe = udpPacket({ ...fields, payload: Uint8Array.of(0, 0) });
      const at = probe.length - 4;
      const zero = Uint8Array.of(probe[at]!, probe[at + 1]!); // the checksum itself makes the sum 0xffff
      const twice = Uint8Array.of(...zero, ...zero);
      const { segments } = split(
        { type: 5, offset: 6, gsoSize: 2, start: fields.source.length === 16 ? 40 : 20 },
        unfinished(udpPacket({ ...fields, payload: twice }), true),
      );
      expect(segments).toHaveLength(2);
      for (const segment of segments) {
        expect([...segment.subarray(at, at + 2)]).toEqual([255, 255]);
        expect(verifies(segment)).toBe(true);
      }
    }
  });
});

describe("Splitter: packets that are no superpacket", () => {
  it("passes a finished packet through, octet by octet", () => {
    const packet = tcpPacket({ payload: payloadOf(33) });
    packet[36] = packet[36]! ^ 1; // even with a checksum that does not verify
    expect(split({ flags: 0, type: 0 }, packet)).toEqual({ verdict: FORWARD, segments: [packet] });
  });

  it("finishes the checksum of TCP and UDP, odd and even lengths", () => {
    for (const length of [0, 1, 2, 33, 1301]) {
      for (const fields of [{}, { source: A6, destination: B6 }] as PacketFields[]) {
        const start = fields.source ? 40 : 20;
        const tcp = tcpPacket({ ...fields, payload: payloadOf(length) });
        const udp = udpPacket({ ...fields, payload: payloadOf(length) });
        expect(split({ type: 0, start, offset: 16 }, unfinished(tcp, false)).segments).toEqual([tcp]);
        expect(split({ type: 0, start, offset: 6 }, unfinished(udp, true)).segments).toEqual([udp]);
      }
    }
  });

  it("passes what a TUN without offload gave", () => {
    const arena = new Uint8Array(64);
    const splitter = new Splitter(arena);
    expect(splitter.beginPlain(5, 45)).toBe(FORWARD);
    expect([splitter.next(), splitter.segmentAt, splitter.segmentEnd, splitter.next()]).toEqual([true, 5, 45, false]);
  });
});

describe("Splitter: headers that do not fit", () => {
  const tcp = unfinished(tcpPacket({ payload: payloadOf(300) }), false);
  const udp = unfinished(udpPacket({ payload: payloadOf(300) }), true);
  const tcp6 = unfinished(tcpPacket({ source: A6, destination: B6, payload: payloadOf(300) }), false);
  const changed = (packet: Uint8Array, at: number, value: number) => {
    const result = Uint8Array.from(packet);
    result[at] = value;
    return result;
  };

  it.each([
    ["checksum start beyond the packet", { type: 0, start: 400 }, tcp],
    ["checksum field beyond the packet", { type: 0, start: 330, offset: 9 }, tcp],
    ["checksum start inside the IP header", { type: 0, start: 19 }, tcp],
    ["segment size 0", { gsoSize: 0 }, tcp],
    ["segmentation without NEEDS_CSUM", { flags: 0 }, tcp],
    ["IPv6 type on IPv4", { type: 4 }, tcp],
    ["IPv4 type on IPv6", { type: 1, start: 40 }, tcp6],
    ["a type nobody defined", { type: 2 }, tcp],
    ["old UDP fragmentation (UFO)", { type: 3, offset: 6 }, udp],
    ["TCP type on UDP", {}, udp],
    ["UDP type on TCP", { type: 5, offset: 6 }, tcp],
    ["checksum start that is not the transport header", { start: 24 }, tcp],
    ["checksum offset of the other protocol", { offset: 6 }, tcp],
    ["total length that is not the packet's", {}, changed(tcp, 3, 1)],
    ["payload length that is not the packet's", { type: 4, start: 40 }, changed(tcp6, 5, 1)],
    ["a fragment", {}, changed(tcp, 6, 0x20)],
    ["IPv4 header shorter than it can be", {}, changed(tcp, 0, 0x44)],
    ["version 5", {}, changed(tcp, 0, 0x55)],
    ["TCP header shorter than it can be", {}, changed(tcp, 32, 0x40)],
    [
      "TCP header longer than the packet",
      { gsoSize: 10 },
      unfinished(changed(tcpPacket({ payload: payloadOf(5) }), 32, 0xf0), false),
    ],
    ["no payload", {}, unfinished(tcpPacket(), false)],
    ["an IPv6 fragment header", { type: 4, start: 48 }, changed(tcp6, 6, 44)],
    ["an IPv6 routing header", { type: 4, start: 48 }, changed(tcp6, 6, 43)],
    ["an IPv6 extension header that runs past the end", { type: 4, start: 48 }, changed(changed(tcp6, 6, 60), 41, 255)],
    ["nothing behind the virtio header", {}, new Uint8Array(0)],
    ["less than an IP header", {}, tcp.subarray(0, 19)],
  ] as [string, Virtio, Uint8Array][])("drops %s", (_, header, packet) => {
    expect(split(header, packet)).toEqual({ verdict: DROP_BAD_OFFLOAD_HEADER, segments: [] });
  });

  it("drops a superpacket of more segments than it was told to make, and no segment less", () => {
    expect(split({ gsoSize: 100 }, tcp, 2)).toEqual({ verdict: DROP_TOO_MANY_SEGMENTS, segments: [] });
    expect(split({ gsoSize: 100 }, tcp, 3).segments).toHaveLength(3);
  });

  it("splits IPv6 behind a destination option header", () => {
    const option = [6, 0, 1, 4, 0, 0, 0, 0]; // PadN
    const inner = tcpPacket({ source: A6, destination: B6, payload: payloadOf(150) });
    const packet = Uint8Array.from([...unfinished(inner, false).subarray(0, 40), ...option, ...inner.subarray(40)]);
    packet[6] = 60;
    packet[5] = packet.length - 40;
    const { verdict, segments } = split({ type: 4, start: 48 }, packet);
    expect(verdict).toBe(FORWARD);
    const without = segments.map((s) => {
      const plain = Uint8Array.from([...s.subarray(0, 40), ...s.subarray(48)]);
      plain[6] = 6;
      plain[5] = plain.length - 40;
      return plain;
    });
    expect(without.every(verifies)).toBe(true);
    expect(segments.every((s) => s[6] === 60 && s[40] === 6)).toBe(true);
  });

  it("survives any header and packet, and never gives octets outside of the packet", () => {
    const header = fc.record({
      flags: fc.constantFrom(0, 1, 255),
      type: fc.constantFrom(0, 1, 3, 4, 5, 0x81, 0x84, 77),
      gsoSize: fc.oneof(fc.nat(65535), fc.nat(100)),
      start: fc.oneof(fc.constantFrom(20, 40, 48), fc.nat(65535)),
      offset: fc.constantFrom(6, 16, 0, 65535),
    });
    const mutated = fc.tuple(fc.constantFrom(tcp, udp, tcp6), fc.nat(80), fc.nat(255)).map(([p, at, v]) =>
      changed(p, at, v)
    );
    fc.assert(
      fc.property(header, fc.oneof(mutated, fc.uint8Array({ maxLength: 120 })), (h, packet) => {
        split(h, packet, 400); // its own expectations hold
      }),
      { numRuns: 2000 },
    );
  });
});

describe("Splitter: any superpacket", () => {
  it("gives packets that verify, and that together carry the payload", () => {
    const fields = fc.record({
      isV6: fc.boolean(),
      isUdp: fc.boolean(),
      bytes: fc.integer({ min: 1, max: 3000 }),
      gsoSize: fc.integer({ min: 20, max: 1500 }),
      sequence: fc.nat(0xffffffff),
    });
    fc.assert(
      fc.property(fields, ({ isV6, isUdp, bytes, gsoSize, sequence }) => {
        const payload = payloadOf(bytes, sequence);
        const addresses = isV6 ? { source: A6, destination: B6 } : {};
        const packet = isUdp ? udpPacket({ ...addresses, payload }) : tcpPacket({ ...addresses, payload, sequence });
        const header = { type: isUdp ? 5 : isV6 ? 4 : 1, offset: isUdp ? 6 : 16, start: isV6 ? 40 : 20, gsoSize };
        const { verdict, segments } = split(header, unfinished(packet, isUdp));
        expect(verdict).toBe(FORWARD);
        expect(segments.every(verifies)).toBe(true);
        const headerBytes = packet.length - bytes;
        expect(segments.flatMap((s) => [...s.subarray(headerBytes)])).toEqual([...payload]);
      }),
      { numRuns: 200 },
    );
  });
});
