import { describe, expect, it } from "vitest";
import { readI32 } from "../../../src/bytes/integers.ts";
import { formatPrefix, parseAddress, parsePrefix } from "../../../src/ip/address.ts";
import { AllowedIps } from "../../../src/tunnel/allowed_ips.ts";

const prefixes = (...texts: string[]) => texts.map((text) => parsePrefix(text)!);

function find(table: AllowedIps, text: string): number {
  const address = parseAddress(text)!;
  return address.length === 4 ? table.find4(readI32(address, 0)) : table.find6(address, 0);
}

describe("AllowedIps", () => {
  it("gives the peer with the longest prefix, in both families", () => {
    const table = new AllowedIps();
    table.replace(1, prefixes("10.0.0.0/8", "fd00::/8"));
    table.replace(2, prefixes("10.1.0.0/16", "fd00:1::/32"));
    table.replace(3, prefixes("10.1.2.3/32", "fd00:1::3/128"));
    expect(["10.2.0.1", "10.1.9.9", "10.1.2.3", "11.0.0.1"].map((a) => find(table, a))).toEqual([1, 2, 3, -1]);
    expect(["fd01::1", "fd00:1::9", "fd00:1::3", "fe80::1"].map((a) => find(table, a))).toEqual([1, 2, 3, -1]);
  });

  it("moves a prefix to the peer that is given it last, and the old one cannot take it away", () => {
    const table = new AllowedIps();
    table.replace(1, prefixes("10.1.0.0/16"));
    table.replace(2, prefixes("10.1.0.0/16"));
    expect(find(table, "10.1.0.1")).toBe(2);
    expect(table.prefixesOf(1)).toEqual([]);
    table.replace(1, []);
    expect(find(table, "10.1.0.1")).toBe(2);
  });

  it("forgets what is no longer named, and keeps what is", () => {
    const table = new AllowedIps();
    table.replace(0, prefixes("10.1.0.0/16", "10.2.0.0/16"));
    table.replace(0, prefixes("10.2.0.0/16", "fd00::/64"));
    expect(find(table, "10.1.0.1")).toBe(-1);
    expect(table.prefixesOf(0).map(formatPrefix).sort()).toEqual(["10.2.0.0/16", "fd00::/64"]);
    table.replace(0, []);
    expect(find(table, "10.2.0.1")).toBe(-1);
  });

  it("treats prefixes that differ in host bits only as one", () => {
    const table = new AllowedIps();
    table.replace(4, prefixes("10.1.2.3/16"));
    table.replace(5, prefixes("10.1.9.9/16"));
    expect(find(table, "10.1.2.3")).toBe(5);
  });
});
