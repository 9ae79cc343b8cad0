import { isIPv4, isIPv6, SocketAddress } from "node:net";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  formatAddress,
  formatPrefix,
  maskedPrefix,
  parseAddress,
  parsePrefix,
  parsePrefixOrAddress,
  prefixContains,
} from "../../../src/ip/address.ts";

const bits = (address: Uint8Array) => [...address].map((octet) => octet.toString(2).padStart(8, "0")).join("");
const address = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
  // many zeros, so that "::" gets work
  fc.array(fc.constantFrom(0, 0, 0, 1, 255), { minLength: 16, maxLength: 16 }).map((octets) => Uint8Array.from(octets)),
);
const prefix = address.chain((a) => fc.nat(a.length * 8).map((length) => ({ address: a, length })));

describe("parseAddress", () => {
  it.each([
    ["0.0.0.0", [0, 0, 0, 0]],
    ["255.255.255.255", [255, 255, 255, 255]],
    ["::", new Array(16).fill(0)],
    ["::1", [...new Array(15).fill(0), 1]],
    ["1::", [0, 1, ...new Array(14).fill(0)]],
    ["fd00::10.8.0.1", [0xfd, 0, ...new Array(10).fill(0), 10, 8, 0, 1]],
    ["::ffff:1.2.3.4", [...new Array(10).fill(0), 255, 255, 1, 2, 3, 4]],
    ["1:2:3:4:5:6:7:8", [0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8]],
    ["1:2:3:4:5:6:7::", [0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 0]],
    ["FD00::aBcD", [0xfd, 0, ...new Array(12).fill(0), 0xab, 0xcd]],
  ])("reads %s", (text, octets) => {
    expect([...parseAddress(text)!]).toEqual(octets);
  });

  it.each([
    ...[
      "",
      "1",
      "1.2.3",
      "1.2.3.4.5",
      "1...",
      "1.2.3.256",
      "01.2.3.4",
      "1.2.3.04",
      "0x10.1.1.1",
      " 1.2.3.4",
      "1.2.3.4 ",
      "1.2.3.4\n",
    ],
    ...["+1.2.3.4", "-1.2.3.4", "1.2.3.4/32", "1e1.2.3.4", "\u0661.2.3.4", "1,2,3,4"],
    ...[
      ":",
      ":::",
      "1:::2",
      "::1::",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "::1g",
      "12345::",
      "fe80::1%eth0",
      "[::1]",
      ":1:2:3:4:5:6:7",
    ],
    ...[
      "1:2:3:4:5:6:7:",
      "1:2:3:4:5:6:7:8::",
      "1.2.3.4::",
      "::1.2.3",
      "::1.2.3.4:5",
      "1:2:3:4:5:6:7:1.2.3.4",
      "::01.2.3.4",
      " ::1",
      "::1\n",
    ],
  ])("refuses %j", (text) => {
    expect(parseAddress(text)).toBeUndefined();
  });

  it("accepts, of near-addresses, only what Node takes for one", () => {
    const near = fc.array(
      fc.constantFrom("0", "1", "f", "25", "255", "256", ":", "::", ".", "%", "x", " ", "1.2.3.4"),
      { maxLength: 10 },
    );
    fc.assert(
      fc.property(near, (parts) => {
        const text = parts.join("");
        const isAddress = isIPv4(text) || (isIPv6(text) && !text.includes("%"));
        expect(parseAddress(text) !== undefined).toBe(isAddress);
      }),
      { numRuns: 5000 },
    );
  });
});

describe("formatAddress", () => {
  it("writes what parseAddress reads back, and the form that Node writes", () => {
    fc.assert(
      fc.property(address, (a) => {
        const text = formatAddress(a);
        expect(parseAddress(text)).toEqual(a);
        // Node abbreviates as RFC 5952 says, but writes dots in more places: compare groups only where there are none.
        const node = new SocketAddress({ address: text, family: a.length === 4 ? "ipv4" : "ipv6" }).address;
        if (a.length === 4 || !node.includes(".")) expect(text).toBe(node);
      }),
      { numRuns: 1000 },
    );
  });

  it.each([
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"], // RFC 5952 §4.2.3: the first of equal runs
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"], // §4.2.2: one group is no run
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
    ["2001:DB8::0A", "2001:db8::a"],
    ["::ffff:a00:1", "::ffff:10.0.0.1"],
    ["0:0:0:0:0:0:0:0", "::"],
  ])("writes %s as %s", (text, canonical) => {
    expect(formatAddress(parseAddress(text)!)).toBe(canonical);
  });
});

describe("prefixes", () => {
  it("are read back as written", () => {
    fc.assert(fc.property(prefix, (p) => {
      expect(parsePrefix(formatPrefix(p))).toEqual(p);
      expect(parsePrefixOrAddress(formatPrefix(p))).toEqual(p);
      expect(parsePrefixOrAddress(formatAddress(p.address))).toEqual({
        address: p.address,
        length: p.address.length * 8,
      });
    }));
  });

  it.each([
    "10.0.0.0",
    "10.0.0.0/",
    "10.0.0.0/33",
    "10.0.0.0/08",
    "10.0.0.0/-1",
    "10.0.0.0/8/8",
    "::/129",
    "/8",
    "10.0.0.0/ 8",
    "10.0.0/8",
    "::/1e1",
  ])(
    "refuse %j",
    (text) => {
      expect(parsePrefix(text)).toBeUndefined();
    },
  );

  it("cover exactly the addresses of their family that share their first bits", () => {
    fc.assert(fc.property(prefix, address, fc.nat(127), (p, other, flip) => {
      const near = Uint8Array.from(p.address);
      near[(flip >> 3) % near.length] = near[(flip >> 3) % near.length]! ^ (0x80 >> (flip & 7));
      for (const candidate of [p.address, near, other]) {
        const shares = candidate.length === p.address.length &&
          bits(candidate).slice(0, p.length) === bits(p.address).slice(0, p.length);
        expect(prefixContains(p, candidate)).toBe(shares);
      }
    }));
  });

  it("lose their host bits, and nothing else, when masked", () => {
    fc.assert(fc.property(prefix, (p) => {
      const before = Uint8Array.from(p.address);
      const masked = maskedPrefix(p);
      expect(bits(masked.address)).toBe(bits(before).slice(0, p.length).padEnd(before.length * 8, "0"));
      expect(masked.length).toBe(p.length);
      expect(p.address).toEqual(before);
    }));
  });
});
