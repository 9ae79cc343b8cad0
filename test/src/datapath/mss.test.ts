import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { clampMss, isChecksumUnfinished } from "../../../src/datapath/mss.ts";
import { FORWARD } from "../../../src/verdict.ts";
import { PacketInfo, readPacket } from "../../../src/wire/packet.ts";
import { addressOctets, makePacket, ones } from "../../fakes/packets.ts";

const ENDS = {
  4: { source: "10.9.0.1", destination: "10.9.0.2" },
  6: { source: "fd09::1", destination: "fd09::2" },
} as const;

/** A SYN whose options are these octets, padded to whole words with 0. */
function syn(version: 4 | 6, options: readonly number[], flags = 2): Uint8Array {
  const padded = [...options, ...new Array<number>(-options.length & 3).fill(0)];
  const packet = makePacket({ ...ENDS[version], protocol: "tcp", flags, payload: Uint8Array.from(padded) });
  const tcpAt = version === 4 ? 20 : 40;
  packet[tcpAt + 12] = ((20 + padded.length) / 4) << 4;
  packet.set([0, 0], tcpAt + 16);
  packet.set(checksum(packet, version), tcpAt + 16);
  return packet;
}

/** The TCP checksum over the packet as it is; 0, 0 when the one inside is right. */
function checksum(packet: Uint8Array, version: 4 | 6): number[] {
  const tcpAt = version === 4 ? 20 : 40;
  const tcp = packet.slice(tcpAt);
  const { source, destination } = ENDS[version];
  const pseudo = [...addressOctets(source), ...addressOctets(destination), 0, 6, tcp.length >> 8, tcp.length & 255];
  const sum = ones(Uint8Array.from([...pseudo, ...tcp]));
  return [sum >> 8, sum & 255];
}

function clamp(packet: Uint8Array, largest: number, isPartial = false): void {
  const info = new PacketInfo();
  expect(readPacket(packet, 0, packet.length, info)).toBe(FORWARD);
  clampMss(packet, info, largest, isPartial);
}

const mss = (value: number) => [2, 4, value >> 8, value & 255];
const optionsOf = (packet: Uint8Array, version: 4 | 6) => [...packet.slice(version === 4 ? 40 : 60)];

describe.each([4, 6] as const)("clamping the segment size over IPv%i", (version) => {
  const headers = version === 4 ? 40 : 60;

  it.each([[2, "SYN"], [18, "SYN-ACK"], [0xc2, "SYN with ECN"]])("lowers it, flags %i (%s)", (flags) => {
    const packet = syn(version, mss(1460), flags);
    clamp(packet, 1280);
    expect(optionsOf(packet, version)).toEqual(mss(1280 - headers));
    expect(checksum(packet, version)).toEqual([0, 0]);
  });

  it("never raises it", () => {
    const packet = syn(version, mss(536));
    const before = packet.slice();
    clamp(packet, 1280);
    expect(packet).toEqual(before);
  });

  it("finds it at every offset among other options, odd ones too, and keeps the checksum right", () => {
    for (let before = 0; before <= 7; before++) {
      const packet = syn(version, [...new Array<number>(before).fill(1), ...mss(8960), 4, 2, 3, 3, 7]);
      clamp(packet, 1400);
      const at = headers + before;
      expect((packet[at + 2]! << 8) | packet[at + 3]!).toBe(1400 - headers);
      expect(checksum(packet, version)).toEqual([0, 0]);
    }
  });

  it("leaves an unfinished checksum alone, which does not count options", () => {
    const packet = syn(version, mss(1460));
    const field = packet.slice(headers - 4, headers - 2);
    clamp(packet, 1280, true);
    expect(optionsOf(packet, version)).toEqual(mss(1280 - headers));
    expect(packet.slice(headers - 4, headers - 2)).toEqual(field);
  });

  it.each([
    ["an end before it", [0, ...mss(1460)]],
    ["a length of 0", [8, 0, ...mss(1460)]],
    ["a length of 1", [8, 1, ...mss(1460)]],
    ["a length past the header", [8, 40, ...mss(1460)]],
    ["an option without a length", [...new Array<number>(3).fill(1), 2]],
    ["a segment size of the wrong length", [2, 3, 5, 1, 1, 1, 1, 1]],
    ["no option", []],
  ])("changes nothing behind %s", (_, options) => {
    const packet = syn(version, options);
    const before = packet.slice();
    clamp(packet, 1280);
    expect(packet).toEqual(before);
  });

  it("touches nothing but the option and the checksum, whatever the options are", () => {
    fc.assert(fc.property(
      fc.array(fc.oneof(fc.integer({ min: 0, max: 8 }), fc.integer({ min: 0, max: 255 })), { maxLength: 40 }),
      fc.integer({ min: 0, max: 65535 }),
      (options, largest) => {
        const packet = syn(version, options);
        const before = packet.slice();
        clamp(packet, largest);
        expect(checksum(packet, version)).toEqual([0, 0]);
        const changed = [...packet.keys()].filter((i) => packet[i] !== before[i]);
        for (const at of changed) {
          if (at === headers - 4 || at === headers - 3) continue;
          expect(at).toBeGreaterThanOrEqual(headers + 2);
          expect([packet[at - 2], packet[at - 3]]).toContain(2);
        }
      },
    ));
  });
});

it("reads from the virtio header whether a checksum is unfinished", () => {
  const bytes = new Uint8Array(64);
  expect(isChecksumUnfinished(bytes, 10, 10)).toBe(false);
  bytes[0] = 1;
  expect(isChecksumUnfinished(bytes, 10, 10)).toBe(true);
  expect(isChecksumUnfinished(bytes, 10, 0)).toBe(false);
});
