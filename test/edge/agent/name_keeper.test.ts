import { describe, expect, it } from "vitest";
import { NameKeeper } from "../../../edge/agent/name_keeper.ts";

class Fake {
  nowMs = 0;
  saved: unknown = undefined;
  saves = 0;
  readonly published: string[] = [];
  readonly inUse = new Set<string>();
  readonly #tasks = new Set<() => void>();

  make(): NameKeeper {
    return new NameKeeper({
      load: () => this.saved,
      save: (snapshot) => {
        this.saved = structuredClone(snapshot);
        this.saves++;
      },
      publish: (names) => {
        for (const [name, addresses] of names) this.published.push(`${name} ${addresses.join(",")}`.trim());
      },
      addressesInUse: () => Promise.resolve(this.inUse),
      nowMs: () => this.nowMs,
      unixMs: () => 1_000_000 + this.nowMs,
      timers: {
        after: () => () => {},
        every: (_ms, task) => {
          this.#tasks.add(task);
          return () => this.#tasks.delete(task);
        },
      },
    });
  }

  async pass(ms: number): Promise<void> {
    this.nowMs += ms;
    for (const task of this.#tasks) task();
    for (let i = 0; i < 5; i++) await Promise.resolve();
  }
}

describe("NameKeeper", () => {
  it("learns only names that a policy means, and lets them go with their time", async () => {
    const fake = new Fake();
    const names = fake.make();
    names.learn("db.example.", ["192.0.2.1"], 10);
    expect(fake.published).toEqual([]);
    names.setPatterns(["*.example."]);
    names.learn("db.example.", ["192.0.2.1"], 10);
    names.learn("other.test.", ["192.0.2.9"], 10);
    expect(fake.published).toEqual(["db.example. 192.0.2.1"]);
    await fake.pass(11_000);
    await fake.pass(5_000);
    expect(fake.published).toEqual(["db.example. 192.0.2.1", "db.example."]);
  });

  it("keeps an address whose time is up while a connection uses it", async () => {
    const fake = new Fake();
    const names = fake.make();
    names.setPatterns(["db.example."]);
    names.learn("db.example.", ["192.0.2.1"], 1);
    fake.inUse.add("192.0.2.1");
    await fake.pass(60_000);
    await fake.pass(60_000);
    expect(names.size).toBe(1);
    fake.inUse.clear();
    await fake.pass(5_000);
    expect(names.size).toBe(0);
  });

  it("forgets names that no policy means any more", () => {
    const fake = new Fake();
    const names = fake.make();
    names.setPatterns(["a.example.", "b.example."]);
    names.learn("a.example.", ["192.0.2.1"], 100);
    names.learn("b.example.", ["192.0.2.2"], 100);
    names.setPatterns(["b.example."]);
    expect(fake.published.at(-1)).toBe("a.example.");
    names.setPatterns([]);
    expect(fake.published.at(-1)).toBe("b.example.");
    expect(names.size).toBe(0);
  });

  it("has what it learned after a restart, and writes at most once a minute", async () => {
    const fake = new Fake();
    const before = fake.make();
    before.setPatterns(["*.example."]);
    for (let i = 0; i < 20; i++) {
      before.learn(`n${i}.example.`, [`192.0.2.${i}`], 3600);
      await fake.pass(5_000);
    }
    expect(fake.saves).toBeLessThanOrEqual(3);
    before.stop();
    const after = fake.make();
    after.setPatterns(["*.example."]);
    expect(after.size).toBe(20);
    expect([...after.list()].map(([name]) => name)).toContain("n7.example.");
  });
});
