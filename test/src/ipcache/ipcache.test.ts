import { describe, expect, it } from "vitest";
import { formatPrefix, parseAddress, parsePrefix } from "../../../src/ip/address.ts";
import { IpCache, NO_PEER } from "../../../src/ipcache/ipcache.ts";

const prefixOf = (text: string) => parsePrefix(text)!;

function lookUp(cache: IpCache, text: string): [identity: number, peer: number] | undefined {
  const address = parseAddress(text)!;
  const index = cache.find(address, 0, address.length === 4 ? 4 : 6);
  return index < 0 ? undefined : [cache.identityOf(index), cache.peerOf(index)];
}

describe("IpCache", () => {
  it("gives identity and peer of the longest prefix, and nothing where no prefix covers the address", () => {
    const cache = new IpCache();
    cache.put(prefixOf("10.8.0.0/16"), 65540, 3);
    cache.put(prefixOf("10.8.0.7/32"), 65541, NO_PEER);
    cache.put(prefixOf("fd00::/64"), 0xffffffff, 0);
    expect(lookUp(cache, "10.8.1.1")).toEqual([65540, 3]);
    expect(lookUp(cache, "10.8.0.7")).toEqual([65541, -1]);
    expect(lookUp(cache, "fd00::9")).toEqual([0xffffffff, 0]);
    expect(lookUp(cache, "10.9.0.1")).toBeUndefined();
  });

  it("replaces an entry in place", () => {
    const cache = new IpCache();
    cache.put(prefixOf("10.8.0.7/32"), 1, 1);
    cache.put(prefixOf("10.8.0.7/32"), 2, 2);
    expect(cache.size).toBe(1);
    expect(lookUp(cache, "10.8.0.7")).toEqual([2, 2]);
  });

  it("uncovers the shorter prefix when the longer is removed, and reuses its index", () => {
    const cache = new IpCache();
    cache.put(prefixOf("10.0.0.0/8"), 1, 1);
    cache.put(prefixOf("10.8.0.7/32"), 2, 2);
    expect(cache.remove(prefixOf("10.8.0.7/32"))).toBe(true);
    expect(cache.remove(prefixOf("10.8.0.7/32"))).toBe(false);
    expect(lookUp(cache, "10.8.0.7")).toEqual([1, 1]);
    cache.put(prefixOf("10.9.0.0/16"), 3, 3);
    expect(lookUp(cache, "10.9.0.1")).toEqual([3, 3]);
    expect(lookUp(cache, "10.8.0.7")).toEqual([1, 1]);
  });

  it("makes what was behind a forgotten peer unreachable, and keeps its identity", () => {
    const cache = new IpCache();
    cache.put(prefixOf("10.8.0.1/32"), 1, 5);
    cache.put(prefixOf("10.8.0.2/32"), 2, 6);
    cache.forgetPeer(5);
    expect(lookUp(cache, "10.8.0.1")).toEqual([1, -1]);
    expect(lookUp(cache, "10.8.0.2")).toEqual([2, 6]);
  });

  it("grows past its first size", () => {
    const cache = new IpCache();
    for (let i = 0; i < 1000; i++) cache.put({ address: Uint8Array.of(10, 0, i >> 8, i), length: 32 }, i, i % 7);
    for (let i = 0; i < 1000; i++) expect(lookUp(cache, `10.0.${i >> 8}.${i & 255}`)).toEqual([i, i % 7]);
    const listed = [...cache.entries()].map((e) => `${formatPrefix(e.prefix)} ${e.identity} ${e.peer}`);
    expect(listed).toHaveLength(1000);
    expect(listed).toContain("10.0.3.231/32 999 5");
  });
});
