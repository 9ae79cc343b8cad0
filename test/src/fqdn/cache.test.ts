/** Learned names: how long addresses live, what limits push out, what a restart keeps. Time is an argument. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { canonicalAddress, NameCache, RESTORE_GRACE_MS } from "../../../src/fqdn/cache.ts";

const A = "a.example.";
const B = "b.example.";
const nobody = () => false;
const everybody = () => true;

/** `count` distinct IPv4 addresses. */
function addresses(count: number, from = 0): string[] {
  return Array.from(
    { length: count },
    (_, i) => `10.${(from + i) >> 16}.${((from + i) >> 8) & 255}.${(from + i) & 255}`,
  );
}

describe("NameCache", () => {
  it("keeps an address for its time to live, and no longer", () => {
    const cache = new NameCache();
    expect(cache.learn(A, ["192.0.2.1"], 30, 1000)).toBe(true);
    cache.expire(30_999, nobody);
    expect(cache.alive(A)).toEqual(["192.0.2.1"]);
    cache.expire(31_000, nobody);
    expect(cache.alive(A)).toEqual([]);
    expect([...cache.names()]).toEqual([]);
    expect(cache.size).toBe(0);
  });

  it("lets the minimum TTL lengthen an answer, never shorten one", () => {
    const cache = new NameCache({ minTtlSeconds: 60 });
    cache.learn(A, ["192.0.2.1"], 0, 0);
    cache.learn(B, ["192.0.2.2"], 90, 0);
    cache.expire(59_999, nobody);
    expect(cache.alive(A)).toEqual(["192.0.2.1"]);
    cache.expire(60_000, nobody);
    expect(cache.alive(A)).toEqual([]);
    expect(cache.alive(B)).toEqual(["192.0.2.2"]);
  });

  it("takes the later end when an address is learned again", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1"], 100, 0);
    expect(cache.learn(A, ["192.0.2.1"], 10, 0)).toBe(false);
    cache.expire(50_000, nobody);
    expect(cache.alive(A)).toEqual(["192.0.2.1"]);
    cache.learn(A, ["192.0.2.1"], 100, 50_000);
    cache.expire(149_999, nobody);
    expect(cache.alive(A)).toEqual(["192.0.2.1"]);
  });

  it("lets one address belong to several names, each with its own time", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1"], 10, 0);
    cache.learn(B, ["192.0.2.1"], 20, 0);
    cache.expire(10_000, nobody);
    expect(cache.alive(A)).toEqual([]);
    expect(cache.alive(B)).toEqual(["192.0.2.1"]);
  });

  it("keeps an address whose time is up while a connection uses it, then lets it go", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1", "192.0.2.2"], 10, 0);
    cache.takeChanges();
    cache.expire(10_000, (address) => address === "192.0.2.1");
    expect(cache.alive(A)).toEqual(["192.0.2.1"]);
    expect(cache.dueCount).toBe(1);
    expect(cache.takeChanges()).toEqual(new Map([[A, ["192.0.2.1"]]]));
    cache.expire(20_000, everybody);
    expect(cache.takeChanges().size).toBe(0);
    cache.expire(30_000, nobody);
    expect(cache.takeChanges()).toEqual(new Map([[A, []]]));
    expect(cache.dueCount).toBe(0);
  });

  it("gives an address that is due a new life when it is learned again", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1"], 10, 0);
    cache.expire(10_000, everybody);
    cache.learn(A, ["192.0.2.1"], 10, 10_000);
    expect(cache.dueCount).toBe(0);
    cache.expire(19_999, nobody);
    expect(cache.alive(A)).toEqual(["192.0.2.1"]);
  });

  it("asks for due addresses only", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1"], 10, 0);
    cache.learn(B, ["192.0.2.2"], 20, 0);
    const asked: string[] = [];
    cache.expire(10_000, (address) => asked.push(address) > 0);
    expect(asked).toEqual(["192.0.2.1"]);
  });

  it("lets at most so many due addresses wait for their connections", () => {
    const cache = new NameCache({ maxDue: 3 });
    cache.learn(A, addresses(10), 10, 0);
    cache.expire(10_000, everybody);
    expect(cache.alive(A).length).toBe(3);
    expect(cache.dueCount).toBe(3);
  });

  it("pushes the addresses that end first out of a name that has too many, unless they are in use", () => {
    const cache = new NameCache({ maxAddressesPerName: 2 });
    cache.learn(A, ["192.0.2.1"], 10, 0);
    cache.learn(A, ["192.0.2.2"], 30, 0);
    cache.learn(A, ["192.0.2.3", "192.0.2.4"], 20, 0);
    cache.expire(1, (address) => address === "192.0.2.1");
    expect(cache.alive(A)).toEqual(["192.0.2.1", "192.0.2.2", "192.0.2.4"]);
    expect(cache.forgottenCount).toBe(2);
    cache.expire(2, nobody);
    expect(cache.alive(A)).toEqual(["192.0.2.2", "192.0.2.4"]);
  });

  it("takes an answer of thousands of addresses without holding more than its limits", () => {
    const cache = new NameCache();
    cache.learn(A, addresses(65_536), 10, 0);
    cache.expire(1, nobody);
    expect(cache.alive(A).length).toBe(1000);
  });

  it("forgets whole names, those learned longest ago first, when all together are too many", () => {
    const cache = new NameCache({ maxAddresses: 10 });
    cache.learn(A, addresses(4), 10, 0);
    cache.learn(B, addresses(4), 10, 0);
    cache.learn(A, addresses(1), 10, 0); // A is newer than B now
    cache.takeChanges();
    cache.learn("c.example.", addresses(4), 10, 0);
    expect([...cache.names()]).toEqual([A, "c.example."]);
    expect(cache.takeChanges()).toEqual(new Map([[B, []], ["c.example.", addresses(4)]]));
    expect(cache.size).toBe(8);
  });

  it("tells of each change once, with all addresses of the name", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1"], 10, 0);
    cache.learn(A, ["192.0.2.2"], 10, 0);
    cache.learn(B, ["2001:db8::1"], 10, 0);
    expect(cache.takeChanges()).toEqual(new Map([[A, ["192.0.2.1", "192.0.2.2"]], [B, ["2001:db8::1"]]]));
    expect(cache.takeChanges().size).toBe(0);
    cache.learn(A, ["192.0.2.1"], 20, 0);
    expect(cache.takeChanges().size).toBe(0);
  });

  it("keeps only the names that somebody still wants", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1"], 10, 0);
    cache.learn(B, ["192.0.2.2"], 10, 0);
    cache.takeChanges();
    cache.keepOnly((name) => name === B);
    expect(cache.takeChanges()).toEqual(new Map([[A, []]]));
    expect(cache.size).toBe(1);
  });

  it("ignores what is no name or no address, and reads a mapped address as IPv4", () => {
    const cache = new NameCache();
    expect(cache.learn("A.example", ["192.0.2.1"], 10, 0)).toBe(false);
    expect(cache.learn(A, ["192.0.2.256", "x", ""], 10, 0)).toBe(false);
    expect([...cache.names()]).toEqual([]);
    cache.learn(A, ["::ffff:192.0.2.1", "2001:DB8:0::1"], 10, 0);
    expect(cache.alive(A)).toEqual(["192.0.2.1", "2001:db8::1"]);
    expect(canonicalAddress("::192.0.2.1")).toBe("::c000:201");
  });

  it("cuts an endless TTL off at a week", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1"], 0xffffffff, 0);
    cache.expire(604_800_000, nobody);
    expect(cache.alive(A)).toEqual([]);
  });
});

describe("a snapshot", () => {
  it("carries names over a restart, with the time that passed", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1"], 3600, 5000);
    cache.learn(B, ["192.0.2.2"], 1000, 5000);
    const saved = JSON.parse(JSON.stringify(cache.snapshot(5000, 1_000_000)));
    const next = new NameCache();
    expect(next.restore(saved, 77, 1_000_000 + 600_000)).toBe(2);
    expect(next.takeChanges()).toEqual(new Map([[A, ["192.0.2.1"]], [B, ["192.0.2.2"]]]));
    next.expire(77 + 400_000, nobody);
    expect([...next.names()]).toEqual([A]);
    next.expire(77 + 3_000_000, nobody);
    expect([...next.names()]).toEqual([]);
  });

  it("keeps what ended while the program was away until its connections had time to be seen", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1", "192.0.2.2"], 10, 0);
    const next = new NameCache();
    next.restore(cache.snapshot(0, 0), 0, 86_400_000);
    next.expire(RESTORE_GRACE_MS - 1, nobody);
    expect(next.alive(A).length).toBe(2);
    next.expire(RESTORE_GRACE_MS, (address) => address === "192.0.2.2");
    expect(next.alive(A)).toEqual(["192.0.2.2"]);
  });

  it("counts a wall clock that was set back as no time", () => {
    const cache = new NameCache();
    cache.learn(A, ["192.0.2.1"], 3600, 0);
    const next = new NameCache();
    next.restore(cache.snapshot(0, 1_000_000_000), 0, 5);
    next.expire(3_599_999, nobody);
    expect(next.alive(A)).toEqual(["192.0.2.1"]);
    next.expire(3_600_000, nobody);
    expect(next.alive(A)).toEqual([]);
  });

  it.each([
    undefined,
    null,
    7,
    "x",
    [],
    {},
    { version: 2, names: [[A, [["192.0.2.1", 5]]]] },
    { version: 1, names: "x" },
    { version: 1, names: [null, 7, [], [A], [A, 7], [7, []], ["not canonical", [["192.0.2.1", 5]]]] },
    { version: 1, names: [[A, [["192.0.2.1"], ["x", 5], [7, 5], ["192.0.2.1", -1], ["192.0.2.1", NaN], null]]] },
  ])("that is broken is left out: %j", (data) => {
    const cache = new NameCache();
    expect(cache.restore(data, 0, 0)).toBe(0);
    expect(cache.size).toBe(0);
  });

  it("keeps the sound parts of one that is broken in places", () => {
    const cache = new NameCache();
    const data = { version: 1, unixMs: "?", names: [[B, 5], [A, [["192.0.2.1", 5], ["junk", 5]]]] };
    expect(cache.restore(data, 0, 0)).toBe(1);
    expect(cache.alive(A)).toEqual(["192.0.2.1"]);
  });

  it("never throws on any data, and holds no more than the limits", () => {
    const cache = new NameCache({ maxAddresses: 5, maxAddressesPerName: 2, maxDue: 2 });
    fc.assert(fc.property(fc.anything(), fc.array(fc.anything()), (whole, names) => {
      cache.restore(whole, 0, 0);
      cache.restore({ version: 1, unixMs: 0, names }, 0, 0);
      expect(cache.size).toBeLessThanOrEqual(5);
    }));
    const many = Array.from({ length: 100 }, (_, i) => [`n${i}.example.`, addresses(50).map((a) => [a, 9])]);
    cache.restore({ version: 1, unixMs: 0, names: many }, 0, 0);
    expect(cache.size).toBeLessThanOrEqual(5);
  });
});

describe("a cache under any sequence of answers and ticks", () => {
  const step = fc.oneof(
    fc.record({
      name: fc.constantFrom(A, B, "c.example."),
      first: fc.integer({ min: 0, max: 5 }),
      count: fc.integer({ min: 0, max: 4 }),
      ttl: fc.integer({ min: 0, max: 5 }),
    }),
    fc.record({ passMs: fc.integer({ min: 0, max: 4000 }), used: fc.integer({ min: 0, max: 9 }) }),
  );

  it("agrees with a plain list, where no limit is reached", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const cache = new NameCache({ minTtlSeconds: 1 });
      const plain = new Map<string, number>(); // "name address" -> end
      let nowMs = 0;
      for (const s of steps) {
        if ("name" in s) {
          cache.learn(s.name, addresses(s.count, s.first), s.ttl, nowMs);
          for (const address of addresses(s.count, s.first)) {
            const key = `${s.name} ${address}`;
            plain.set(key, Math.max(plain.get(key) ?? 0, nowMs + Math.max(s.ttl, 1) * 1000));
          }
        } else {
          nowMs += s.passMs;
          const isInUse = (address: string) => address === addresses(1, s.used)[0];
          cache.expire(nowMs, isInUse);
          for (const [key, end] of plain) if (end <= nowMs && !isInUse(key.split(" ")[1]!)) plain.delete(key);
        }
        const found = [...cache.names()].flatMap((name) => cache.alive(name).map((address) => `${name} ${address}`));
        expect(found.sort()).toEqual([...plain.keys()].sort());
        expect(cache.size).toBe(plain.size);
      }
    }));
  });

  it("tells changes from which the whole can be rebuilt, and keeps its bounds", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const cache = new NameCache({ maxAddresses: 6, maxAddressesPerName: 2, maxDue: 2 });
      const seen = new Map<string, readonly string[]>();
      let nowMs = 0;
      for (const s of steps) {
        if ("name" in s) cache.learn(s.name, addresses(s.count, s.first), s.ttl, nowMs);
        else cache.expire(nowMs += s.passMs, (address) => address === addresses(1, s.used)[0]);
        for (const [name, now] of cache.takeChanges()) {
          if (now.length === 0) seen.delete(name);
          else seen.set(name, now);
        }
        const all = new Map([...cache.names()].map((name) => [name, new Set(cache.alive(name))]));
        expect(new Map([...seen].map(([name, list]) => [name, new Set(list)]))).toEqual(all);
        expect(cache.size).toBeLessThanOrEqual(6);
        expect(cache.dueCount).toBeLessThanOrEqual(2);
      }
    }));
  });
});
