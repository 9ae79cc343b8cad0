import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { IndexTable, pickIndex } from "../../../src/tunnel/index_table.ts";

describe("IndexTable", () => {
  it("behaves as a Map, however indices collide", () => {
    const index = fc.oneof(
      fc.integer({ min: 0, max: 40 }).map((n) => n * 64),
      fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    );
    fc.assert(fc.property(fc.array(fc.tuple(index, fc.boolean()), { maxLength: 400 }), (steps) => {
      const table = new IndexTable<object>();
      const map = new Map<number, object>();
      for (const [key, isAdding] of steps) {
        if (isAdding && !map.has(key)) {
          const value = { key };
          table.add(key, value);
          map.set(key, value);
        } else if (!isAdding) {
          table.delete(key);
          map.delete(key);
        }
      }
      expect(table.size).toBe(map.size);
      for (const [key] of steps) expect(table.find(key)).toBe(map.get(key));
    }));
  });

  it("finds an index in its signed and its unsigned form", () => {
    const table = new IndexTable<object>();
    const value = {};
    table.add(0xffff_fff0, value);
    expect(table.find(0xffff_fff0)).toBe(value);
    expect(table.find(-16)).toBe(value);
  });
});

describe("pickIndex", () => {
  it("draws again while one of the tables has the index", () => {
    const a = new IndexTable<object>();
    const b = new IndexTable<object>();
    a.add(0x01010101, {});
    b.add(0x02020202, {});
    let draws = 0;
    expect(pickIndex((into) => into.fill(++draws), a, b)).toBe(0x03030303);
  });
});
