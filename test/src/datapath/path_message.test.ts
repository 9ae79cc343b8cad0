import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Checksummer } from "../../../src/bytes/checksum.ts";
import {
  kindOfMessage,
  NO_PATH_MESSAGE,
  PATH_REPLY,
  PATH_REQUEST,
  PATH_REST,
  sequenceAt,
  smallestMessageBytes,
  writePathMessage,
} from "../../../src/datapath/path_message.ts";
import { addressOctets, makePacket, ones } from "../../fakes/packets.ts";

const ENDS = { 4: ["192.0.2.1", "192.0.2.2"], 6: ["2001:db8::1", "2001:db8::2"] } as const;

function message(version: 4 | 6, kind: number, octets: number, sequence = 7): Uint8Array {
  const bytes = new Uint8Array(9216).fill(0xee);
  const at = version === 4 ? 12 : 8;
  bytes.set([...addressOctets(ENDS[version][0]), ...addressOctets(ENDS[version][1])], at);
  writePathMessage(bytes, 0, octets, version, kind, sequence, new Checksummer(bytes));
  return bytes.slice(0, octets);
}

describe.each([4, 6] as const)("a probe over IPv%i", (version) => {
  const least = smallestMessageBytes(version);

  it("is an echo that any machine would answer, of any size, and is known again", () => {
    fc.assert(
      fc.property(fc.integer({ min: least, max: 9000 }), fc.nat(65535), fc.boolean(), (octets, sequence, isRequest) => {
        const kind = isRequest ? PATH_REQUEST : PATH_REPLY;
        const bytes = message(version, kind, octets, sequence);
        expect(kindOfMessage(bytes, 0, bytes.length)).toBe(kind);
        const at = sequenceAt(bytes, 0);
        expect((bytes[at]! << 8) | bytes[at + 1]!).toBe(sequence);
        const icmp = bytes.slice(version === 4 ? 20 : 40);
        if (version === 4) {
          expect([ones(bytes.slice(0, 20)), ones(icmp)]).toEqual([0, 0]);
          expect((bytes[2]! << 8) | bytes[3]!).toBe(octets);
          expect([bytes[6]! >> 5, icmp[0], icmp[1]]).toEqual([2, isRequest ? 8 : 0, 0]);
        } else {
          const pseudo = [...bytes.slice(8, 40), 0, 0, icmp.length >> 8, icmp.length & 255, 0, 0, 0, 58];
          expect(ones(Uint8Array.from([...pseudo, ...icmp]))).toBe(0);
          expect([icmp[0], icmp[1]]).toEqual([isRequest ? 128 : 129, 0]);
        }
      }),
    );
  });

  it("is none when any of its marks is missing, or some of it", () => {
    const bytes = message(version, PATH_REQUEST, least);
    for (let end = 0; end < bytes.length; end++) expect(kindOfMessage(bytes, 0, end)).toBe(NO_PATH_MESSAGE);
    const icmpAt = version === 4 ? 20 : 40;
    for (const at of [0, version === 4 ? 9 : 6, icmpAt, icmpAt + 4, icmpAt + 5, ...[8, 9, 15].map((i) => icmpAt + i)]) {
      const other = bytes.slice();
      other[at]! ^= 0x40;
      expect(kindOfMessage(other, 0, other.length), `octet ${at}`).toBe(NO_PATH_MESSAGE);
    }
  });

  it("is none of the packets of programs", () => {
    const [source, destination] = ENDS[version];
    for (const protocol of ["udp", "tcp", "icmp"] as const) {
      const packet = makePacket({ source, destination, protocol, payload: new Uint8Array(64) });
      expect(kindOfMessage(packet, 0, packet.length)).toBe(NO_PATH_MESSAGE);
    }
  });
});

it("any octets are looked at without a fault", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(100), (bytes, at) => {
    const kind = kindOfMessage(bytes, at, bytes.length);
    expect([NO_PATH_MESSAGE, PATH_REQUEST, PATH_REPLY]).toContain(kind);
  }));
});

describe("an answer that comes in pieces", () => {
  const piece = (kind: number, offset: number, hasMore: boolean, octets = 1400) => {
    const bytes = message(4, kind, 1400).slice(0, octets);
    bytes.set([octets >> 8, octets & 255], 2);
    const word = (hasMore ? 0x2000 : 0) | (offset >> 3);
    bytes[6] = word >> 8;
    bytes[7] = word & 255;
    return kindOfMessage(bytes, 0, bytes.length);
  };

  it("tells all with its first piece, and the others are known for what they are", () => {
    expect(piece(PATH_REPLY, 0, true)).toBe(PATH_REPLY);
    expect(piece(PATH_REPLY, 1376, true)).toBe(PATH_REST);
    expect(piece(PATH_REPLY, 2752, false)).toBe(PATH_REST);
    expect(piece(PATH_REPLY, 2752, false, 24)).toBe(PATH_REST);
  });

  it("is no probe: that one did not come through the way whole", () => {
    expect(piece(PATH_REQUEST, 0, true)).toBe(NO_PATH_MESSAGE);
  });
});
