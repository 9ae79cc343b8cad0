import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  DROP_FRAGMENT,
  DROP_INVALID_EXTENSION_HEADER,
  DROP_INVALID_PACKET,
  DROP_UNKNOWN_L4,
  DROP_UNSUPPORTED_L3,
  FORWARD,
  REASONS,
} from "../../../src/verdict.ts";
import { PacketInfo, readPacket } from "../../../src/wire/packet.ts";
import { makePacket } from "../../fakes/packets.ts";

function read(bytes: Uint8Array) {
  const packet = new PacketInfo();
  return { verdict: readPacket(bytes, 0, bytes.length, packet), packet };
}

const V4 = { source: "10.9.0.1", destination: "10.9.0.2" };
const V6 = { source: "fd09::1", destination: "fd09::2" };
const patched = (bytes: Uint8Array, at: number, ...octets: number[]) => {
  bytes.set(octets, at);
  return bytes;
};
/** an IPv6 packet with these octets of extension headers between its header and a UDP header */
const withExtensions = (first: number, extensions: number[]) => {
  const plain = makePacket({ ...V6, payload: new Uint8Array(4) });
  const bytes = Uint8Array.from([...plain.slice(0, 40), ...extensions, ...plain.slice(40)]);
  bytes[6] = first;
  bytes[5] = bytes.length - 40;
  return bytes;
};

describe("readPacket", () => {
  it("reads TCP over IPv4 down to its ports and flags", () => {
    const { verdict, packet } = read(
      makePacket({ ...V4, protocol: "tcp", sourcePort: 40001, destinationPort: 443, flags: 0x02, trafficClass: 3 }),
    );
    expect(verdict).toBe(FORWARD);
    expect({ ...packet }).toEqual({
      version: 4,
      at: 0,
      end: 40,
      sourceAt: 12,
      destinationAt: 16,
      trafficClass: 3,
      transportAt: 20,
      protocol: 6,
      sourcePort: 40001,
      destinationPort: 443,
      tcpFlags: 2,
      icmpType: 0,
      icmpCode: 0,
      payloadAt: 40,
    });
  });

  it("reads UDP over IPv6, and an echo's identifier as its ports", () => {
    const udp =
      read(makePacket({ ...V6, sourcePort: 1, destinationPort: 53, payload: new Uint8Array(3), trafficClass: 0xb9 }))
        .packet;
    expect([udp.version, udp.protocol, udp.sourcePort, udp.destinationPort, udp.payloadAt, udp.end, udp.trafficClass])
      .toEqual([6, 17, 1, 53, 48, 51, 0xb9]);
    const echo = read(makePacket({ ...V6, protocol: "icmp", id: 0x1234 })).packet;
    expect([echo.protocol, echo.icmpType, echo.sourcePort, echo.destinationPort]).toEqual([58, 128, 0x1234, 0x1234]);
  });

  it("ends the packet where its own length says, not where padding ends", () => {
    const bytes = Uint8Array.from([...makePacket(V4), 0, 0, 0, 0]);
    expect(read(bytes).packet.end).toBe(28);
  });

  it("walks extension headers to the transport header", () => {
    const { verdict, packet } = read(withExtensions(0, [60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]));
    expect([verdict, packet.protocol, packet.transportAt]).toEqual([FORWARD, 17, 56]);
  });

  it.each<[string, Uint8Array, number]>([
    ["nineteen octets", makePacket(V4).slice(0, 19), DROP_INVALID_PACKET],
    ["a length beyond the octets there are", makePacket(V4).slice(0, 27), DROP_INVALID_PACKET],
    ["an IPv4 header length below five words", patched(makePacket(V4), 0, 0x44), DROP_INVALID_PACKET],
    ["an IPv4 header longer than the packet", patched(makePacket(V4), 0, 0x4f), DROP_INVALID_PACKET],
    ["a first fragment", patched(makePacket(V4), 6, 0x20, 0), DROP_FRAGMENT],
    ["a later fragment", patched(makePacket(V4), 6, 0, 1), DROP_FRAGMENT],
    ["an IPv6 fragment", withExtensions(44, [17, 0, 0, 0, 0, 0, 0, 0]), DROP_FRAGMENT],
    ["an extension header past the end", withExtensions(0, [17, 9, 0, 0, 0, 0, 0, 0]), DROP_INVALID_EXTENSION_HEADER],
    [
      "seven extension headers",
      withExtensions(60, [60, 60, 60, 60, 60, 60, 17].flatMap((n) => [n, 0, 1, 4, 0, 0, 0, 0])),
      DROP_INVALID_EXTENSION_HEADER,
    ],
    [
      "a TCP data offset below five words",
      patched(makePacket({ ...V4, protocol: "tcp" }), 32, 0x40),
      DROP_INVALID_PACKET,
    ],
    ["a TCP data offset past the end", patched(makePacket({ ...V4, protocol: "tcp" }), 32, 0xf0), DROP_INVALID_PACKET],
    ["a UDP length past the end", patched(makePacket(V4), 24, 0, 9), DROP_INVALID_PACKET],
    ["a UDP length below its header", patched(makePacket(V4), 24, 0, 7), DROP_INVALID_PACKET],
    ["a protocol that nobody tracks", patched(makePacket(V4), 9, 47), DROP_UNKNOWN_L4],
    ["ICMPv6 over IPv4", patched(makePacket(V4), 9, 58), DROP_UNKNOWN_L4],
    ["ICMP over IPv6", patched(makePacket(V6), 6, 1), DROP_UNKNOWN_L4],
    ["IP version 5", patched(makePacket(V4), 0, 0x55), DROP_UNSUPPORTED_L3],
  ])("drops %s and writes no field", (_, bytes, reason) => {
    const packet = new PacketInfo();
    const before = { ...packet };
    expect(readPacket(bytes, 0, bytes.length, packet)).toBe(reason);
    expect({ ...packet }).toEqual(before);
  });

  it("answers any octets with a known verdict, and points nowhere outside them", () => {
    const head = fc.constantFrom(0x45, 0x46, 0x60, 0x4f, 0x00);
    fc.assert(
      fc.property(head, fc.uint8Array({ minLength: 0, maxLength: 120 }), (first, rest) => {
        const bytes = Uint8Array.from([first, ...rest]);
        const { verdict, packet } = read(bytes);
        if (verdict !== FORWARD) return void expect(REASONS.has(verdict)).toBe(true);
        expect(packet.end).toBeLessThanOrEqual(bytes.length);
        expect(packet.payloadAt).toBeLessThanOrEqual(packet.end);
        expect(packet.transportAt).toBeLessThan(packet.payloadAt);
      }),
      { numRuns: 5000 },
    );
  });
});
