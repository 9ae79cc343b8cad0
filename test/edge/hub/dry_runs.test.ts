import { describe, expect, it } from "vitest";
import { type Askable, DRY_RUN_TIMEOUT_MS, DryRuns } from "../../../edge/hub/dry_runs.ts";
import { type DryRunFlow, type DryRunResult, NO_FLOWS, readDryRunResult } from "../../../edge/sync/dry_run.ts";
import { FrameReader } from "../../../edge/sync/frames.ts";

const PUTS = [["policy/NetworkPolicy/shop/web", { kind: "NetworkPolicy" }]] as const;
const FLOW: DryRunFlow = {
  direction: "ingress",
  source: "10.219.0.3",
  destination: "10.219.0.2",
  peer: "lab/box-b",
  protocol: "TCP",
  port: 5432,
  count: 3,
  before: { verdict: "FORWARD", rule: null },
  after: { verdict: "POLICY_DENIED", rule: null },
  isAudited: false,
};
const RESULT: DryRunResult = { flows: [FLOW], total: 1, lookedAt: 7, toProxy: 0 };

/** A connection that keeps what it is asked. */
class Line implements Askable {
  readonly asked: { id: number; puts: unknown; deletes: unknown }[] = [];
  isUsable = true;

  ask(frame: Uint8Array): boolean {
    if (!this.isUsable) return false;
    const reader = new FrameReader(1_000_000, (message) => void this.asked.push(message as Line["asked"][0]));
    expect(reader.push(frame)).toBeUndefined();
    return true;
  }
}

function setUp(...names: string[]) {
  const lines = new Map(names.map((name) => [name, new Line()]));
  const clock = { nowMs: 0 };
  return { lines, clock, runs: new DryRuns(() => clock.nowMs, () => lines) };
}

describe("DryRuns", () => {
  it("asks every member that can be asked, and names the others", async () => {
    const { lines, runs } = setUp("a", "old");
    lines.get("old")!.isUsable = false;
    const report = runs.run(PUTS, ["policy/x"], ["gone", "old", "a"]);
    const [question] = lines.get("a")!.asked;
    expect(question).toMatchObject({ t: "dryRun", puts: PUTS, deletes: ["policy/x"] });
    runs.answer("a", question!.id, RESULT);
    expect(await report).toEqual({
      members: [
        { name: "a", state: "answered", reason: null, result: RESULT },
        { name: "gone", state: "not-asked", reason: "it is not connected", result: null },
        { name: "old", state: "not-asked", reason: "it is of an older release, or busy", result: null },
      ],
    });
  });

  it("does not wait longer than its time, nor for a connection that is gone", async () => {
    const { lines, clock, runs } = setUp("a", "b", "c");
    const report = runs.run(PUTS, [], ["a", "b", "c"]);
    const { id } = lines.get("a")!.asked[0]!;
    runs.answer("a", id, { ...NO_FLOWS, fault: "no engine" });
    runs.gone("b");
    clock.nowMs = DRY_RUN_TIMEOUT_MS;
    runs.tick(clock.nowMs - 1);
    runs.tick(clock.nowMs);
    expect((await report)?.members.map(({ name, state, reason }) => [name, state, reason])).toEqual([
      ["a", "answered", "no engine"],
      ["b", "no-answer", "its connection ended"],
      ["c", "no-answer", "it did not answer in time"],
    ]);
    runs.answer("c", id, RESULT); // too late: nobody waits
  });

  it("asks the hub's own member in the same process, and takes its failure for an answer", async () => {
    const { runs } = setUp();
    runs.addLocal("hub", (puts, deletes) => {
      expect([puts, deletes]).toEqual([PUTS, []]);
      return Promise.resolve(RESULT);
    });
    runs.addLocal("hub-2", () => Promise.reject(new Error("it has no state yet")));
    const report = await runs.run(PUTS, [], ["hub", "hub-2"]);
    expect(report?.members.map(({ reason, result }) => [reason, result?.lookedAt])).toEqual([
      [null, 7],
      ["it has no state yet", 0],
    ]);
  });

  it("keeps answers of different runs apart, and takes no more than four at once", async () => {
    const { lines, runs } = setUp("a");
    const reports = [1, 2, 3, 4].map(() => runs.run(PUTS, [], ["a"]));
    expect(await runs.run(PUTS, [], ["a"])).toBeUndefined();
    const ids = lines.get("a")!.asked.map(({ id }) => id);
    ids.forEach((id, i) => runs.answer("a", id, { ...RESULT, lookedAt: i }));
    runs.answer("stranger", ids[0]!, RESULT);
    const lookedAt = (await Promise.all(reports)).map((report) => report?.members[0]?.result?.lookedAt);
    expect(lookedAt).toEqual([0, 1, 2, 3]);
    expect(await runs.run(PUTS, [], [])).toEqual({ members: [] });
  });

  it("shows a bounded number of flows of all members together, and all totals", async () => {
    const names = Array.from({ length: 20 }, (_, i) => `m${10 + i}`);
    const { lines, runs } = setUp(...names);
    const report = runs.run(PUTS, [], names);
    const flows = Array<DryRunFlow>(200).fill(FLOW);
    for (const name of names) runs.answer(name, lines.get(name)!.asked[0]!.id, { ...RESULT, flows, total: 200 });
    const results = (await report)!.members.map(({ result }) => [result!.flows.length, result!.total]);
    expect(results.slice(8, 12)).toEqual([[200, 200], [200, 200], [0, 200], [0, 200]]);
  });
});

describe("readDryRunResult", () => {
  it("takes exactly what a member may say", () => {
    expect(readDryRunResult(JSON.parse(JSON.stringify(RESULT)))).toEqual(RESULT);
    const bad: unknown[] = [
      undefined,
      [],
      { ...RESULT, flows: [{ ...FLOW, direction: "up" }] },
      { ...RESULT, flows: [{ ...FLOW, port: -1 }] },
      { ...RESULT, flows: [{ ...FLOW, after: {} }] },
      { ...RESULT, flows: Array(201).fill(FLOW) },
      { ...RESULT, total: 1.5 },
      { ...RESULT, fault: 7 },
    ];
    for (const value of bad) expect(readDryRunResult(value)).toBeUndefined();
    expect(readDryRunResult({ ...RESULT, fault: "x".repeat(5000) })?.fault).toHaveLength(700);
  });
});
