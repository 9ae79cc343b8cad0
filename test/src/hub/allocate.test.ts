import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type AddressUse,
  allocateAddresses,
  allocateIdentity,
  chooseUnderlay,
  hubAddresses,
  isDnsLabel,
  isLabel,
  makeMemberName,
  memberCidrFaults,
  QUARANTINE_MS,
} from "../../../src/hub/allocate.ts";

const NOW = 1_800_000_000_000;
const useOf = (taken: Iterable<string>, freed: Record<string, number> = {}): AddressUse => {
  const set = new Set(taken);
  return { isTaken: (address) => set.has(address), freedAt: (address) => freed[address] };
};

describe("allocateAddresses", () => {
  it("gives the lowest free IPv4 host after the hub's, and the same host number in IPv6", () => {
    const cidrs = ["10.9.0.0/16", "fd09::/64"];
    expect(hubAddresses(cidrs)).toEqual(["10.9.0.1", "fd09::1"]);
    expect(allocateAddresses(cidrs, useOf([]), NOW)).toEqual(["10.9.0.2", "fd09::2"]);
    expect(allocateAddresses(cidrs, useOf(["10.9.0.2", "10.9.0.4"]), NOW)).toEqual(["10.9.0.3", "fd09::3"]);
  });

  it("crosses octets, and takes the lowest free IPv6 host when the mirrored one is taken", () => {
    const taken = Array.from({ length: 254 }, (_, i) => `10.9.0.${i + 2}`);
    const cidrs = ["10.9.0.0/16", "fd09::/64"];
    expect(allocateAddresses(cidrs, useOf([...taken, "fd09::100"]), NOW)).toEqual(["10.9.1.0", "fd09::2"]);
  });

  it("serves a mesh of one family only", () => {
    expect(allocateAddresses(["fd09::/64"], useOf(["fd09::2"]), NOW)).toEqual(["fd09::3"]);
    expect(hubAddresses(["fd09::/64"])).toEqual(["fd09::1"]);
  });

  it("never gives network, broadcast or the hub's address, and says when a prefix is full", () => {
    const given: string[] = [];
    for (;;) {
      const addresses = allocateAddresses(["192.0.2.0/29"], useOf(given), NOW);
      if (addresses === undefined) break;
      given.push(...addresses);
    }
    expect(given).toEqual(["192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"]);
  });

  it("goes on with the next prefix, whose first host is free for members", () => {
    const taken = ["192.0.2.2"];
    expect(allocateAddresses(["192.0.2.0/30", "198.51.100.0/30"], useOf(taken), NOW)).toEqual(["198.51.100.1"]);
  });

  it("leaves a freed address alone for a while, unless nothing else is free: then the one freed first", () => {
    const cidrs = ["192.0.2.0/29"];
    const freed = { "192.0.2.2": NOW - 1000, "192.0.2.3": NOW - 2000 };
    expect(allocateAddresses(cidrs, useOf([], freed), NOW)).toEqual(["192.0.2.4"]);
    const full = ["192.0.2.4", "192.0.2.5", "192.0.2.6"];
    expect(allocateAddresses(cidrs, useOf(full, freed), NOW)).toEqual(["192.0.2.3"]);
    expect(allocateAddresses(cidrs, useOf([], freed), NOW + QUARANTINE_MS)).toEqual(["192.0.2.2"]);
  });

  it("a clock that was set back does not lock addresses away", () => {
    expect(allocateAddresses(["192.0.2.0/29"], useOf([], { "192.0.2.2": NOW + 1e9 }), NOW)).toEqual(["192.0.2.2"]);
  });

  it("gives distinct addresses inside the prefix, whatever is taken", () => {
    fc.assert(fc.property(fc.integer({ min: 20, max: 30 }), fc.uniqueArray(fc.nat(200)), (length, hosts) => {
      const taken = hosts.map((host) => `10.1.0.${host}`);
      const addresses = allocateAddresses([`10.1.0.0/${length}`], useOf(taken), NOW);
      if (addresses === undefined) return;
      expect(taken).not.toContain(addresses[0]);
      const host = addresses[0]!.split(".").slice(2).reduce((sum, part) => sum * 256 + Number(part), 0);
      expect(host).toBeGreaterThan(1);
      expect(host).toBeLessThan(2 ** (32 - length) - 1);
    }));
  });
});

describe("memberCidrFaults", () => {
  it("accepts usable prefixes of both families", () => {
    expect(memberCidrFaults(["10.9.0.0/16", "fd09::/64", "10.10.0.0/30"])).toEqual([]);
  });

  it.each([
    [["10.9.0.0"], "is no prefix"],
    [["10.9.0.1/16"], "host bits"],
    [["10.9.0.0/31"], "no room"],
    [["10.9.0.0/16", "10.9.1.0/24"], "overlaps"],
    [[], "no member prefix"],
  ])("refuses %j", (cidrs, why) => {
    expect(memberCidrFaults(cidrs).join()).toContain(why);
  });
});

describe("names", () => {
  it("a generated name is edge- and four characters, and not one that is taken", () => {
    let next = 0;
    const random = (into: Uint8Array) => void into.fill(next++);
    expect(makeMemberName((name) => name === "edge-aaaa", random)).toBe("edge-bbbb");
    expect(makeMemberName(() => true, random)).toBeUndefined();
  });

  it("DNS labels and Kubernetes labels are told from other text", () => {
    for (const good of ["a", "edge-1", "0", "a".repeat(63)]) expect(isDnsLabel(good)).toBe(true);
    for (const bad of ["", "-a", "a-", "A", "a.b", "a_b", "a".repeat(64), "a\n"]) expect(isDnsLabel(bad)).toBe(false);
    for (const [key, value] of [["app", "web"], ["a.b/c", ""], ["x_y", "V-1.2"]]) {
      expect(isLabel(key!, value!)).toBe(true);
    }
    for (
      const [key, value] of [["", "x"], ["__proto__", ""], ["a/b/c", ""], ["/a", ""], ["a", "b;c"], ["a", "x="], [
        "a ",
        "",
      ]]
    ) {
      expect(isLabel(key!, value!)).toBe(false);
    }
  });
});

describe("allocateIdentity", () => {
  it("gives the lowest free number of the cluster, from 256 on", () => {
    expect(allocateIdentity(42, () => false)).toBe(42 * 65536 + 256);
    expect(allocateIdentity(1, (n) => n < 65536 + 300)).toBe(65536 + 300);
    expect(allocateIdentity(1, () => true)).toBeUndefined();
  });
});

describe("chooseUnderlay", () => {
  const choose = (local: string, used: string[] = [], isPlain = false) =>
    chooseUnderlay(local, {
      addresses: ["10.9.0.7", "fd09::7"],
      memberCidrs: ["10.9.0.0/16", "fd09::/64"],
      isUsed: (address) => used.includes(address),
      isPlain,
    });

  it("takes the local address while it is the only one of its kind", () => {
    expect(choose("192.168.1.20")).toBe("192.168.1.20");
    expect(choose("192.168.1.20", ["192.168.1.20"])).toBe("10.9.0.7");
    expect(choose("2001:DB8:0::1", [], true)).toBe("2001:db8::1");
    expect(choose("2001:db8::1", ["2001:db8::1"], true)).toBe("10.9.0.7");
  });

  it("takes one of the other family only where packets really go to it: an envelope has one family", () => {
    expect(choose("2001:db8::1")).toBe("10.9.0.7");
  });

  it.each([
    "",
    "nonsense",
    "127.0.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "169.254.1.1",
    "::1",
    "::",
    "fe80::1",
    "ff02::1",
    "::ffff:1.2.3.4",
    "10.9.3.3",
    "fd09::99",
  ])(
    "takes the mesh address instead of %j",
    (local) => expect(choose(local)).toBe("10.9.0.7"),
  );
});
