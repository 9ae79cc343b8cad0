import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DROP_INVALID_GENEVE_OPTION, DROP_INVALID_PACKET, FORWARD } from "../../../src/verdict.ts";
import { GENEVE_BASE_BYTES, GeneveHeader, readGeneve, writeGeneve } from "../../../src/wire/geneve.ts";

const hex = (text: string) => Uint8Array.from(text.replaceAll(" ", "").match(/../g)!.map((pair) => parseInt(pair, 16)));

function read(bytes: Uint8Array) {
  const header = new GeneveHeader();
  return { verdict: readGeneve(bytes, 0, bytes.length, header), header };
}

describe("readGeneve", () => {
  it("reads a header without options (RFC 8926 §3.4)", () => {
    const { verdict, header } = read(hex("00 00 65 58 01 23 45 00"));
    expect(verdict).toBe(FORWARD);
    expect({ ...header }).toEqual({ isControl: false, protocol: 0x6558, vni: 0x012345, payloadAt: 8 });
  });

  it("skips options that are not critical, and reads the control bit", () => {
    const { verdict, header } = read(hex("02 80 0800 000001 00  0101 01 01 deadbeef"));
    expect(verdict).toBe(FORWARD);
    expect({ ...header }).toEqual({ isControl: true, protocol: 0x0800, vni: 1, payloadAt: 16 });
  });

  it.each([
    ["seven octets", "00 00 65 58 01 23 45", DROP_INVALID_PACKET],
    ["a version other than 0", "40 00 65 58 01 23 45 00", DROP_INVALID_PACKET],
    ["options that run past the datagram", "02 00 65 58 01 23 45 00 0101 01 01", DROP_INVALID_GENEVE_OPTION],
    [
      "an option that runs past the options' length",
      "01 00 65 58 01 23 45 00 0101 01 01 deadbeef",
      DROP_INVALID_GENEVE_OPTION,
    ],
    [
      "a critical option, such as Cilium's DSR",
      "03 40 65 58 01 23 45 00 014b 81 02 0a000001 1f900000",
      DROP_INVALID_GENEVE_OPTION,
    ],
  ])("drops %s and writes no field", (_, text, reason) => {
    const header = new GeneveHeader();
    const before = { ...header };
    const bytes = hex(text);
    expect(readGeneve(bytes, 0, bytes.length, header)).toBe(reason);
    expect({ ...header }).toEqual(before);
  });

  it("reads back what writeGeneve wrote", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xffffff }), fc.integer({ min: 0, max: 0xffff }), (vni, protocol) => {
        const bytes = new Uint8Array(GENEVE_BASE_BYTES).fill(0xff);
        writeGeneve(bytes, 0, vni, protocol);
        const { verdict, header } = read(bytes);
        expect([verdict, header.vni, header.protocol, header.isControl]).toEqual([FORWARD, vni, protocol, false]);
      }),
    );
  });

  it("answers any octets with a verdict, and never points past their end", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      const { verdict, header } = read(bytes);
      if (verdict === FORWARD) expect(header.payloadAt).toBeLessThanOrEqual(bytes.length);
      else expect([DROP_INVALID_PACKET, DROP_INVALID_GENEVE_OPTION]).toContain(verdict);
    }));
  });
});
