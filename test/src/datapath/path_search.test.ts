import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PathSearch } from "../../../src/datapath/path_search.ts";
import { seeded } from "../../fakes/network.ts";

/** Runs a search over a way that takes `pathBytes`, losing some; what it finds, and how many probes and steps that took. */
function search(largest: number, pathBytes: number, options: { loss?: number; seed?: number; device?: number } = {}) {
  const random = seeded(options.seed ?? 1);
  const search = new PathSearch(largest);
  let probes = 0;
  for (let steps = 1; steps < 100; steps++) {
    for (let index = 0; index < search.sizes.length; index++) {
      if (!search.isWanted(index)) continue;
      if (search.sizes[index]! > (options.device ?? 65535)) {
        search.refuse(index);
        continue;
      }
      probes++;
      if (search.sizes[index]! <= pathBytes && random() >= (options.loss ?? 0) && search.note(index)) break;
    }
    const step = search.step();
    if (step === "found" || step === "no-answer") return { step, found: search.answered, probes, steps };
  }
  throw new Error("the search does not end");
}

describe("looking for what a way takes", () => {
  it("needs two probes when it takes everything", () => {
    expect(search(1500, 1500)).toEqual({ step: "found", found: 1500, probes: 2, steps: 1 });
    expect(search(9000, 9216)).toEqual({ step: "found", found: 9000, probes: 2, steps: 1 });
  });

  it.each([576, 1280, 1376, 1420, 1492, 1500])("finds a way of %i octets to the octet", (path) => {
    for (const largest of [1500, 9000]) {
      if (path <= largest) expect(search(largest, path)).toMatchObject({ step: "found", found: path });
    }
  });

  it("finds any way to 16 octets, in few steps, never more than it takes", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1280, max: 9216 }), fc.integer({ min: 200, max: 9216 }), (largest, path) => {
        const { found, steps, probes } = search(largest, path);
        const most = Math.min(largest, path);
        expect(found).toBeLessThanOrEqual(most);
        expect(found).toBeGreaterThan(most - 17);
        expect(steps).toBeLessThanOrEqual(14);
        expect(probes).toBeLessThanOrEqual(110);
      }),
    );
  });

  it("does not take a lost probe for one that is too big, mostly, and ends whatever is lost", () => {
    fc.assert(fc.property(fc.nat(1e6), fc.double({ min: 0, max: 1, noNaN: true }), (seed, loss) => {
      const { step, found } = search(1500, 1420, { seed, loss });
      expect(step === "no-answer" ? found : 1).toBe(step === "no-answer" ? 0 : 1);
      expect(found).toBeLessThanOrEqual(1420);
    }));
    const right = Array.from({ length: 200 }, (_, seed) => search(1500, 1420, { seed, loss: 0.1 }).found)
      .filter((found) => found === 1420).length;
    expect(right).toBeGreaterThan(190);
  });

  it("says that nobody answers, after three tries with the smallest and the largest alone", () => {
    expect(search(1500, 0)).toEqual({ step: "no-answer", found: 0, probes: 6, steps: 3 });
  });

  it("does not wait for what this machine cannot even send", () => {
    expect(search(9000, 9000, { device: 1500 })).toMatchObject({ step: "found", found: 1500 });
    expect(search(1500, 1500, { device: 100 })).toMatchObject({ step: "no-answer" });
  });

  it("ignores answers to sizes that it has not asked for", () => {
    const search = new PathSearch(1500);
    expect(search.note(77)).toBe(false);
    expect(search.answered).toBe(0);
  });
});
