import { describe, expect, it } from "vitest";
import { SealedRuns } from "../../../src/datapath/sealed_run.ts";
import type { Underlay } from "../../../src/ports.ts";

function makeRuns(maxSegments = 64, parts = 1) {
  const sent: number[][] = [];
  let flushes = 0;
  const underlay = {
    maxSegments,
    queue: (...run: number[]) => sent.push(run),
    flush: () => flushes++,
  } as unknown as Underlay;
  const runs = new SealedRuns(underlay, 1000, 9000, parts);
  const add = (bytes: number, to = 1, ecn = 0) => runs.add(runs.at + bytes, to, ecn);
  return { runs, sent, add, flushes: () => flushes };
}

describe("SealedRuns", () => {
  it("sends messages of one size to one peer as one run, the last may be shorter", () => {
    const { runs, sent, add } = makeRuns();
    [100, 100, 100, 40].forEach((bytes) => add(bytes));
    runs.flush();
    expect(sent).toEqual([[1000, 1340, 100, 1, 0]]);
    expect(runs.at).toBe(1000);
    expect(runs.sentBytes).toBe(340);
  });

  it.each<[string, [number, number, number][], number]>([
    ["another peer", [[100, 1, 0], [100, 2, 0]], 2],
    ["another ECN mark", [[100, 1, 0], [100, 1, 2]], 2],
    ["a larger message", [[100, 1, 0], [101, 1, 0]], 2],
    ["anything behind a shorter one", [[100, 1, 0], [40, 1, 0], [40, 1, 0]], 2],
  ])("closes a run at %s", (_, messages, runsExpected) => {
    const { runs, sent, add } = makeRuns();
    for (const [bytes, to, ecn] of messages) add(bytes, to, ecn);
    runs.flush();
    expect(sent.length).toBe(runsExpected);
    expect(sent.at(-1)![1]).toBe(1000 + messages.reduce((sum, [bytes]) => sum + bytes, 0));
  });

  it("never puts more datagrams into a run than the socket takes", () => {
    const { runs, sent, add } = makeRuns(3);
    for (let i = 0; i < 7; i++) add(10);
    runs.flush();
    expect(sent.map(([at, end]) => (end! - at!) / 10)).toEqual([3, 3, 1]);
  });

  it("flushes first when the region has no room", () => {
    const { runs, add, flushes } = makeRuns();
    add(7000);
    runs.reserve(900);
    expect(flushes()).toBe(0);
    runs.reserve(1001);
    expect([flushes(), runs.at]).toEqual([1, 1000]);
  });

  it("fills the parts of its region in turn, and leaves one only when there is something in it", () => {
    const { runs, sent, add, flushes } = makeRuns(64, 4);
    runs.flush();
    expect([flushes(), runs.at]).toEqual([1, 1000]);
    for (const next of [3000, 5000, 7000, 1000, 3000]) {
      add(100);
      runs.flush();
      expect(runs.at).toBe(next);
    }
    expect(sent.map(([at]) => at)).toEqual([1000, 3000, 5000, 7000, 1000]);
    add(1500);
    runs.reserve(500);
    expect(runs.at).toBe(4500);
    runs.reserve(501);
    expect(runs.at).toBe(5000);
  });
});
