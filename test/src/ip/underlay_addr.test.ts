import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseAddress } from "../../../src/ip/address.ts";
import {
  copyUnderlayAddr,
  equalUnderlayAddr,
  FAMILY_IPV4,
  FAMILY_IPV6,
  FAMILY_NONE,
  familyOf,
  forgetOwnAddress,
  formatUnderlayAddr,
  hasOwnAddress,
  OWN_ADDRESS_AT,
  parseUnderlayAddr,
  readUnderlayAddr,
  UNDERLAY_ADDR_BYTES,
  type UnderlayAddr,
  writeUnderlayAddr,
} from "../../../src/ip/underlay_addr.ts";

const addr: fc.Arbitrary<UnderlayAddr> = fc.oneof(
  fc.record({
    address: fc.uint8Array({ minLength: 4, maxLength: 4 }),
    port: fc.integer({ min: 1, max: 65535 }),
    scope: fc.constant(0),
  }),
  fc.record({
    address: fc.uint8Array({ minLength: 16, maxLength: 16 }),
    port: fc.integer({ min: 1, max: 65535 }),
    scope: fc.nat(0xffffffff),
  }),
);

describe("underlay address records", () => {
  it("are laid out as sockaddr_in and sockaddr_in6", () => {
    const bytes = new Uint8Array(UNDERLAY_ADDR_BYTES).fill(0xee);
    writeUnderlayAddr(bytes, 0, { address: parseAddress("192.0.2.1")!, port: 51871, scope: 0 });
    expect([...bytes]).toEqual([2, 0, 0xca, 0x9f, 192, 0, 2, 1, ...new Array(40).fill(0)]);
    writeUnderlayAddr(bytes, 0, { address: parseAddress("fe80::1")!, port: 80, scope: 0x01020304 });
    expect([...bytes]).toEqual([
      10,
      0,
      0,
      80,
      0,
      0,
      0,
      0,
      0xfe,
      0x80,
      ...new Array(13).fill(0),
      1,
      4,
      3,
      2,
      1,
      ...new Array(20).fill(0),
    ]);
  });

  it("hold our own address behind it, until it is forgotten", () => {
    const bytes = new Uint8Array(UNDERLAY_ADDR_BYTES);
    writeUnderlayAddr(bytes, 0, { address: parseAddress("192.0.2.1")!, port: 51871, scope: 0 });
    const before = bytes.slice();
    expect(hasOwnAddress(bytes, 0)).toBe(false);
    for (let i = OWN_ADDRESS_AT; i < UNDERLAY_ADDR_BYTES; i++) {
      bytes[i] = 0x80;
      expect(hasOwnAddress(bytes, 0)).toBe(true);
      forgetOwnAddress(bytes, 0);
      expect(bytes).toEqual(before);
    }
  });

  it("are read as written, at any place, and touch nothing else", () => {
    fc.assert(fc.property(addr, fc.nat(9), (value, at) => {
      const bytes = new Uint8Array(64).fill(0xee);
      writeUnderlayAddr(bytes, at, value);
      expect(readUnderlayAddr(bytes, at)).toEqual(value);
      expect(familyOf(bytes, at)).toBe(value.address.length === 4 ? FAMILY_IPV4 : FAMILY_IPV6);
      expect([...bytes.subarray(0, at), ...bytes.subarray(at + UNDERLAY_ADDR_BYTES)].every((octet) => octet === 0xee))
        .toBe(true);
    }));
  });

  it("hold no address while they are zero, or of a family nobody knows", () => {
    const bytes = new Uint8Array(UNDERLAY_ADDR_BYTES);
    expect(familyOf(bytes, 0)).toBe(FAMILY_NONE);
    expect(readUnderlayAddr(bytes, 0)).toBeUndefined();
    bytes[0] = 1;
    expect(readUnderlayAddr(bytes, 0)).toBeUndefined();
  });

  it("are equal when family, address, port and scope are, and stay so when copied", () => {
    fc.assert(fc.property(addr, addr, (a, b) => {
      const bytes = new Uint8Array(3 * UNDERLAY_ADDR_BYTES);
      writeUnderlayAddr(bytes, 0, a);
      writeUnderlayAddr(bytes, UNDERLAY_ADDR_BYTES, b);
      copyUnderlayAddr(bytes, 0, bytes, 2 * UNDERLAY_ADDR_BYTES);
      expect(equalUnderlayAddr(bytes, 0, bytes, 2 * UNDERLAY_ADDR_BYTES)).toBe(true);
      expect(equalUnderlayAddr(bytes, 0, bytes, UNDERLAY_ADDR_BYTES)).toBe(
        formatUnderlayAddr(a) === formatUnderlayAddr(b),
      );
    }));
  });
});

describe("underlay addresses as text", () => {
  it("are read back as written, but for the scope", () => {
    fc.assert(fc.property(addr, (value) => {
      const plain = { ...value, scope: 0 };
      expect(parseUnderlayAddr(formatUnderlayAddr(plain))).toEqual(plain);
    }));
  });

  it("are written with brackets around IPv6, and with a scope where there is one", () => {
    const address = parseAddress("fe80::1")!;
    expect(formatUnderlayAddr({ address, port: 51871, scope: 0 })).toBe("[fe80::1]:51871");
    expect(formatUnderlayAddr({ address, port: 51871, scope: 3 })).toBe("[fe80::1%3]:51871");
    expect(formatUnderlayAddr({ address: parseAddress("192.0.2.1")!, port: 1, scope: 0 })).toBe("192.0.2.1:1");
  });

  it.each([
    ...[
      "",
      "192.0.2.1",
      "192.0.2.1:",
      "192.0.2.1:0",
      "192.0.2.1:65536",
      "192.0.2.1:080",
      "192.0.2.1:80 ",
      "192.0.2.1:80\n",
      "192.0.2:80",
    ],
    ...[
      "example.org:80",
      "fe80::1:80",
      "[fe80::1]",
      "[fe80::1]:",
      "[fe80::1%3]:80",
      "[192.0.2.1]:80",
      "[]:80",
      ":80",
      "[::1]80",
    ],
  ])("refuses %j", (text) => {
    expect(parseUnderlayAddr(text)).toBeUndefined();
  });
});
