import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  formatPrefix,
  type IpPrefix,
  maskedPrefix,
  parseAddress,
  parsePrefix,
  prefixContains,
} from "../../../src/ip/address.ts";
import { NO_VALUE, PrefixTable } from "../../../src/ip/prefix_table.ts";

const prefixOf = (text: string): IpPrefix => parsePrefix(text)!;

function find(table: PrefixTable, text: string): number {
  const address = parseAddress(text)!;
  return table.find(address, 0, address.length === 4 ? 4 : 6);
}

/** The ten-line model: a list, searched whole. */
class NaiveTable {
  readonly list = new Map<string, { prefix: IpPrefix; value: number }>();
  set(prefix: IpPrefix, value: number) {
    this.list.set(formatPrefix(maskedPrefix(prefix)), { prefix: maskedPrefix(prefix), value });
  }
  delete(prefix: IpPrefix) {
    return this.list.delete(formatPrefix(maskedPrefix(prefix)));
  }
  find(address: Uint8Array) {
    let best: { prefix: IpPrefix; value: number } | undefined;
    for (const one of this.list.values()) {
      if (prefixContains(one.prefix, address) && one.prefix.length >= (best?.prefix.length ?? 0)) best = one;
    }
    return best?.value ?? NO_VALUE;
  }
}

// Few distinct octets, so that prefixes nest, meet and are deleted again.
const octet = fc.constantFrom(0, 1, 127, 128, 255);
const address4 = fc.uint8Array({ minLength: 4, maxLength: 4 }).chain((any) =>
  fc.oneof(fc.constant(any), fc.array(octet, { minLength: 4, maxLength: 4 }).map((a) => Uint8Array.from(a)))
);
const address6 = fc.array(octet, { minLength: 16, maxLength: 16 }).map((a) => Uint8Array.from(a));
const prefix: fc.Arbitrary<IpPrefix> = fc.oneof(
  fc.record({ address: address4, length: fc.integer({ min: 0, max: 32 }) }),
  fc.record({ address: address6, length: fc.integer({ min: 0, max: 128 }) }),
);
const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ op: fc.constant("set" as const), prefix, value: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant("delete" as const), prefix, value: fc.nat() }) },
);

describe("PrefixTable", () => {
  it("answers -1 when it is empty", () => {
    const table = new PrefixTable();
    expect(find(table, "10.0.0.1")).toBe(-1);
    expect(find(table, "fd00::1")).toBe(-1);
  });

  it("lets the longest prefix win, and the next longest after it is deleted", () => {
    const table = new PrefixTable();
    table.set(prefixOf("0.0.0.0/0"), 0);
    table.set(prefixOf("10.0.0.0/8"), 8);
    table.set(prefixOf("10.8.0.0/16"), 16);
    table.set(prefixOf("10.8.0.7/32"), 32);
    expect(["10.8.0.7", "10.8.0.8", "10.9.0.7", "11.8.0.7"].map((a) => find(table, a))).toEqual([32, 16, 8, 0]);
    expect(table.delete(prefixOf("10.8.0.7/32"))).toBe(true);
    expect(table.delete(prefixOf("10.8.0.7/32"))).toBe(false);
    expect(table.delete(prefixOf("10.8.0.0/16"))).toBe(true);
    expect(find(table, "10.8.0.7")).toBe(8);
  });

  it("keeps the families apart: ::/0 covers no IPv4 address, and ::ffff:10.0.0.1 is not 10.0.0.1", () => {
    const table = new PrefixTable();
    table.set(prefixOf("::/0"), 6);
    expect(find(table, "10.0.0.1")).toBe(-1);
    expect(find(table, "::ffff:10.0.0.1")).toBe(6);
  });

  it("matches IPv6 prefixes whose length is inside, at, and beyond each word", () => {
    const all = parseAddress("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")!;
    for (let length = 0; length <= 128; length++) {
      const table = new PrefixTable();
      table.set({ address: all, length }, length);
      expect(table.find6(all, 0)).toBe(length);
      if (length === 0) continue;
      const other = Uint8Array.from(all);
      other[(length - 1) >> 3] = 0xff ^ (0x80 >> ((length - 1) & 7)); // differs in the last bit that counts
      expect(table.find6(other, 0)).toBe(-1);
    }
  });

  it("ignores host bits: 10.8.0.7/16 is 10.8.0.0/16", () => {
    const table = new PrefixTable();
    table.set(prefixOf("10.8.0.7/16"), 1);
    table.set(prefixOf("10.8.9.9/16"), 2);
    expect(table.size).toBe(1);
    expect(table.get(prefixOf("10.8.0.0/16"))).toBe(2);
    expect([...table.entries()].map(([p, v]) => [formatPrefix(p), v])).toEqual([["10.8.0.0/16", 2]]);
  });

  it("refuses values and prefixes that are out of range", () => {
    const table = new PrefixTable();
    for (const value of [-1, 0.5, NaN, 2 ** 31]) {
      expect(() => table.set(prefixOf("10.0.0.0/8"), value)).toThrow(RangeError);
    }
    const address = parseAddress("10.0.0.0")!;
    for (const length of [-1, 33, 1.5]) expect(() => table.set({ address, length }, 1)).toThrow(RangeError);
    expect(() => table.set({ address: new Uint8Array(5), length: 8 }, 1)).toThrow(RangeError);
    expect(table.size).toBe(0);
  });

  it("holds twenty thousand host prefixes, and is empty after they are deleted", () => {
    const table = new PrefixTable();
    const at = (i: number) => ({ address: Uint8Array.of(10, i >> 16, i >> 8, i), length: 32 });
    for (let i = 0; i < 20_000; i++) table.set(at(i), i);
    for (let i = 0; i < 20_000; i++) expect(table.find(at(i).address, 0, 4)).toBe(i);
    for (let i = 0; i < 20_000; i += 2) table.delete(at(i));
    for (let i = 0; i < 20_000; i++) expect(table.find(at(i).address, 0, 4)).toBe(i % 2 === 0 ? -1 : i);
    for (let i = 1; i < 20_000; i += 2) table.delete(at(i));
    expect([...table.entries()]).toEqual([]);
  });

  it("answers as a searched list does, whatever was set and deleted", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), fc.array(fc.oneof(address4, address6)), (steps, probes) => {
        const table = new PrefixTable();
        const model = new NaiveTable();
        for (const { op, prefix, value } of steps) {
          if (op === "set") {
            table.set(prefix, value);
            model.set(prefix, value);
          } else expect(table.delete(prefix)).toBe(model.delete(prefix));
        }
        expect(table.size).toBe(model.list.size);
        for (const address of [...probes, ...steps.map((s) => s.prefix.address)]) {
          expect(table.find(address, 0, address.length === 4 ? 4 : 6)).toBe(model.find(address));
        }
        const listed = [...table.entries()].map(([p, value]) => `${formatPrefix(p)} ${value}`).sort();
        expect(listed).toEqual([...model.list].map(([text, { value }]) => `${text} ${value}`).sort());
      }),
      { numRuns: 300 },
    );
  });
});
