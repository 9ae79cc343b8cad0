import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatPrefix, type IpPrefix, maskedPrefix, parsePrefix, prefixContains } from "../../../src/ip/address.ts";
import { PrefixTree } from "../../../src/ip/prefix_tree.ts";

/** Few different bits, so that prefixes meet. */
const octetArb = fc.constantFrom(0, 1, 128, 255);
const prefixArb: fc.Arbitrary<IpPrefix> = fc.constantFrom(4, 16).chain((octets) =>
  fc.record({
    address: fc.array(octetArb, { minLength: octets, maxLength: octets }).map((bytes) => Uint8Array.from(bytes)),
    length: fc.nat(8 * octets),
  })
);
const textOf = (prefix: IpPrefix) => formatPrefix(maskedPrefix(prefix));
const isWithin = (inner: IpPrefix, outer: IpPrefix) =>
  inner.address.length === outer.address.length && inner.length >= outer.length &&
  prefixContains(outer, inner.address);

describe("PrefixTree", () => {
  it("agrees with a list that is searched through, after any puts and removals", () => {
    const stepArb = fc.record({ prefix: prefixArb, isRemoval: fc.boolean() });
    fc.assert(
      fc.property(fc.array(stepArb, { maxLength: 60 }), fc.array(prefixArb, { maxLength: 20 }), (steps, asked) => {
        const tree = new PrefixTree<{ prefix: IpPrefix; step: number }>();
        const list = new Map<string, { prefix: IpPrefix; step: number }>();
        steps.forEach(({ prefix, isRemoval }, step) => {
          if (isRemoval) expect(tree.delete(prefix)).toBe(list.delete(textOf(prefix)));
          else {
            tree.set(prefix, { prefix, step });
            list.set(textOf(prefix), { prefix, step });
          }
        });
        expect(tree.size).toBe(list.size);
        expect(new Set(tree.values())).toEqual(new Set(list.values()));
        for (const one of [...asked, ...steps.map(({ prefix }) => prefix)]) {
          const around = [...list.values()].filter(({ prefix }) => isWithin(one, prefix))
            .sort((a, b) => b.prefix.length - a.prefix.length);
          expect(tree.around(one)).toEqual(around);
          expect(tree.longest(one)).toEqual(around[0]);
          expect(tree.get(one)).toEqual(list.get(textOf(one)));
          expect(new Set(tree.within(one))).toEqual(
            new Set([...list.values()].filter(({ prefix }) => isWithin(prefix, one))),
          );
        }
      }),
      { numRuns: 300 },
    );
  });

  it("keeps the families apart", () => {
    const tree = new PrefixTree<string>();
    tree.set(parsePrefix("0.0.0.0/0")!, "four");
    tree.set(parsePrefix("::/0")!, "six");
    expect(tree.around(parsePrefix("::1/128")!)).toEqual(["six"]);
    expect(tree.longest(parsePrefix("1.2.3.4/32")!)).toBe("four");
    expect(tree.delete(parsePrefix("0.0.0.0/0")!)).toBe(true);
    expect(tree.longest(parsePrefix("1.2.3.4/32")!)).toBeUndefined();
    expect(tree.values()).toEqual(["six"]);
  });

  it("refuses what is no prefix", () => {
    const tree = new PrefixTree<string>();
    for (const [octets, length] of [[4, 33], [16, 129], [5, 8], [4, -1], [4, 0.5]] as const) {
      expect(() => tree.set({ address: new Uint8Array(octets), length }, "x")).toThrow(RangeError);
    }
  });
});
