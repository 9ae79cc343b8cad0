import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Checksummer } from "../../../src/bytes/checksum.ts";
import {
  decapsulate,
  encapsulate,
  Envelope,
  envelopeBytes,
  type TunnelProtocol,
  writeTemplate,
} from "../../../src/datapath/encapsulation.ts";
import { parseAddress } from "../../../src/ip/address.ts";
import {
  DROP_CONTROL_MESSAGE,
  DROP_FRAGMENT,
  DROP_INVALID_PACKET,
  DROP_L3_CHECKSUM,
  DROP_UNKNOWN_L4,
  DROP_UNSUPPORTED_L2,
  DROP_UNSUPPORTED_L3,
  FORWARD,
  REASONS,
} from "../../../src/verdict.ts";
import { toHex } from "../../../src/bytes/text.ts";
import { makePacket, ones } from "../../fakes/packets.ts";

const TEMPLATE_AT = 0;
const INNER_AT = 256;

function wrap(inner: Uint8Array, from: string, to: string, protocol: TunnelProtocol = "geneve", identity = 0x010203) {
  const arena = new Uint8Array(4096);
  const sums = new Checksummer(arena);
  const envelope = envelopeBytes(parseAddress(from)!);
  writeTemplate(arena, TEMPLATE_AT, parseAddress(from)!, parseAddress(to)!, protocol, identity);
  arena.set(inner, INNER_AT);
  const end = INNER_AT + inner.length;
  const at = encapsulate(arena, TEMPLATE_AT, envelope, INNER_AT, end, 0x2345, sums, -1);
  const read = arena.slice(at, end);
  // the sum of the inner packet is another way to the same
  expect(encapsulate(arena, TEMPLATE_AT, envelope, INNER_AT, end, 0x2345, sums, sums.sum(INNER_AT, end))).toBe(at);
  expect(arena.slice(at, end)).toEqual(read);
  return { arena, at, end };
}

const INNER4 = makePacket({ source: "10.9.0.1", destination: "10.9.0.2", payload: new Uint8Array(5).fill(7) });
const INNER6 = makePacket({ source: "fd09::1", destination: "fd09::2", protocol: "tcp" });

describe("encapsulate", () => {
  it("builds Cilium's Geneve envelope over IPv4, octet by octet", () => {
    const { arena, at, end } = wrap(INNER4, "172.31.0.1", "172.31.0.2");
    expect(toHex(arena.slice(at, INNER_AT))).toBe(
      "45000053" + "00004000" + "4011" + toHex(arena.slice(at + 10, at + 12)) + "ac1f0001" + "ac1f0002" + // IPv4, DF, TTL 64
        "e345" + "17c1" + "003f" + "0000" + // UDP to 6081, checksum 0
        "00006558" + "01020300" + // Geneve, Ethernet, VNI
        "000200000001" + "000200010001" + "0800", // Ethernet
    );
    expect(ones(arena.slice(at, at + 20))).toBe(0);
    expect(end - at).toBe(0x53);
  });

  it("gives the outer UDP header over IPv6 a checksum that verifies", () => {
    const { arena, at, end } = wrap(INNER6, "2001:db8::1", "2001:db8::2");
    const length = end - at - 40;
    const pseudo = [...arena.slice(at + 8, at + 40), 0, 0, length >> 8, length & 255, 0, 0, 0, 17];
    expect(ones(Uint8Array.from([...pseudo, ...arena.slice(at + 40, end)]))).toBe(0);
    expect(toHex(arena.slice(INNER_AT - 2, INNER_AT))).toBe("86dd");
  });

  it("is undone by decapsulate, for both protocols and families", () => {
    for (const protocol of ["geneve", "vxlan"] as const) {
      for (const [from, to, version] of [["172.31.0.1", "172.31.0.2", 4], ["2001:db8::1", "2001:db8::2", 6]] as const) {
        for (const inner of [INNER4, INNER6]) {
          const { arena, at, end } = wrap(inner, from, to, protocol);
          const envelope = new Envelope();
          expect(decapsulate(arena, at, end + 15, protocol, envelope)).toBe(FORWARD); // padding behind is no part of it
          expect(arena.slice(envelope.innerAt, envelope.innerEnd)).toEqual(inner);
          expect([envelope.vni, envelope.outerVersion]).toEqual([0x010203, version]);
          expect(arena.slice(envelope.outerSourceAt, envelope.outerSourceAt + (version === 4 ? 4 : 16))).toEqual(
            parseAddress(from),
          );
          expect(arena.slice(envelope.outerDestinationAt, envelope.outerDestinationAt + (version === 4 ? 4 : 16)))
            .toEqual(parseAddress(to));
        }
      }
    }
  });
});

describe("decapsulate", () => {
  const cases: [string, number, number[], number, boolean?][] = [
    ["an outer fragment", 6, [0x20, 0], DROP_FRAGMENT, true],
    ["a broken outer header checksum", 8, [63], DROP_L3_CHECKSUM],
    ["another protocol than UDP", 9, [6], DROP_UNKNOWN_L4, true],
    ["another port than Geneve's", 22, [0, 53], DROP_UNKNOWN_L4],
    ["a UDP length past the packet", 24, [0xff, 0xff], DROP_INVALID_PACKET],
    ["a UDP length below its header", 24, [0, 7], DROP_INVALID_PACKET],
    ["a Geneve version other than 0", 28, [0x40], DROP_INVALID_PACKET],
    ["a Geneve control message", 29, [0x80], DROP_CONTROL_MESSAGE],
    ["an inner protocol that is not IP", 48, [0x08, 0x06], DROP_UNSUPPORTED_L2],
    ["an EtherType that the inner version denies", 48, [0x86, 0xdd], DROP_INVALID_PACKET],
    ["outer IP version 5", 0, [0x55], DROP_UNSUPPORTED_L3],
  ];
  it.each(cases)("drops %s and writes no field", (_, offset, octets, reason, mendChecksum) => {
    const { arena, at, end } = wrap(INNER4, "172.31.0.1", "172.31.0.2");
    arena.set(octets, at + offset);
    if (mendChecksum) {
      arena.set([0, 0], at + 10);
      const checksum = ones(arena.slice(at, at + 20));
      arena.set([checksum >> 8, checksum & 255], at + 10);
    }
    const envelope = new Envelope();
    const before = { ...envelope };
    expect(decapsulate(arena, at, end, "geneve", envelope)).toBe(reason);
    expect({ ...envelope }).toEqual(before);
  });

  it("answers mutated envelopes with a known verdict, and points nowhere outside them", () => {
    const mutations = fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { maxLength: 4 });
    fc.assert(
      fc.property(mutations, fc.nat(110), (changes, cut) => {
        const { arena, at, end } = wrap(INNER4, "172.31.0.1", "172.31.0.2");
        for (const [offset, octet] of changes) arena[at + offset] = octet;
        const last = Math.max(at, end - cut + 20);
        const envelope = new Envelope();
        const verdict = decapsulate(arena, at, last, "geneve", envelope);
        if (verdict !== FORWARD) return void expect(REASONS.has(verdict)).toBe(true);
        expect(envelope.innerEnd).toBeLessThanOrEqual(last);
        expect(envelope.innerAt).toBeLessThan(envelope.innerEnd);
      }),
      { numRuns: 5000 },
    );
  });
});
