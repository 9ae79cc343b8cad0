import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  changeTo,
  type EntriesBefore,
  PolicyTrial,
  readSavedTrial,
  RETRY_AFTER_MS,
  runsThroughMesh,
  SETTLE_MS,
} from "../../../edge/agent/policy_trial.ts";

const OLD = { kind: "NetworkPolicy", spec: "old" };
const CHANGE: EntriesBefore = new Map<string, object | undefined>([
  ["policy/NetworkPolicy/shop/web", OLD],
  ["policy/NetworkPolicy/shop/new", undefined],
]) as EntriesBefore;
const TIMEOUT_MS = 30_000;

const started = (nowMs = 0) => {
  const trial = new PolicyTrial(TIMEOUT_MS, 0);
  trial.applied(CHANGE, nowMs, true);
  return trial;
};

/** Rolled back at 30 s. */
const rolledBack = () => {
  const trial = started();
  expect(trial.tick(TIMEOUT_MS)).toBe("rollback");
  return trial;
};

describe("PolicyTrial", () => {
  it("confirms a change when the hub is heard after it, and not by what was on its way", () => {
    const trial = started();
    expect(trial.awaitsHub).toBe(true);
    expect(trial.hubHeard(SETTLE_MS - 1)).toBe(false);
    expect(trial.hubHeard(SETTLE_MS)).toBe(true);
    expect(trial.save()).toBeUndefined();
    expect([trial.awaitsHub, trial.tick(10 * TIMEOUT_MS)]).toEqual([false, undefined]);
  });

  it("rolls back what was not confirmed in time, to what was confirmed last", () => {
    const trial = started();
    expect(trial.tick(TIMEOUT_MS - 1)).toBeUndefined();
    expect(trial.isRolledBack).toBe(false);
    expect(trial.tick(TIMEOUT_MS)).toBe("rollback");
    expect(trial.isRolledBack).toBe(true);
    expect(changeTo(trial.before).policies).toEqual({
      puts: [["NetworkPolicy/shop/web", OLD]],
      deletes: ["NetworkPolicy/shop/new"],
    });
    expect(trial.healthText).toMatch(/tried once more.*: NetworkPolicy\/shop\/web, NetworkPolicy\/shop\/new$/);
    expect(trial.tick(10 * TIMEOUT_MS)).toBeUndefined(); // the hub stays away: so does the change
  });

  it("tries once more when the hub is heard again, and keeps the change if it is heard then too", () => {
    const trial = rolledBack();
    trial.hubHeard(40_000);
    expect(trial.tick(40_000 + RETRY_AFTER_MS - 1)).toBeUndefined();
    expect(trial.tick(40_000 + RETRY_AFTER_MS)).toBe("retry");
    expect(trial.isRolledBack).toBe(false);
    expect(trial.hubHeard(52_000)).toBe(true);
    expect(trial.save()).toBeUndefined();
  });

  it("waits until the hub stays: a connection that ends at once is none", () => {
    const trial = rolledBack();
    trial.hubHeard(40_000);
    trial.hubLost();
    expect(trial.tick(60_000)).toBeUndefined();
    trial.hubHeard(70_000);
    expect(trial.tick(80_000)).toBe("retry");
  });

  it("holds a change that cut the member off twice, until the policies change", () => {
    const trial = rolledBack();
    trial.hubHeard(40_000);
    expect(trial.tick(50_000)).toBe("retry");
    expect(trial.tick(80_000)).toBe("rollback");
    trial.hubHeard(90_000);
    expect([trial.tick(200_000), trial.isRolledBack, trial.awaitsHub]).toEqual([undefined, true, false]);
    expect(trial.healthText).toMatch(/twice: /);
    const more = new Map([["policy/NetworkPolicy/shop/third", undefined]]);
    expect(trial.applied(more, 300_000, true)).toEqual([...CHANGE.keys()]);
    expect([trial.isRolledBack, trial.healthText]).toEqual([false, undefined]);
    expect([...trial.before]).toEqual([...CHANGE, ...more]);
    expect(trial.tick(330_000)).toBe("rollback");
    trial.hubHeard(340_000);
    expect(trial.tick(350_000)).toBe("retry"); // a new change has its two tries
  });

  it("goes back behind both of two changes that were not confirmed", () => {
    const trial = started();
    const unconfirmed = { kind: "NetworkPolicy", spec: "never confirmed" };
    trial.applied(new Map([["policy/NetworkPolicy/shop/web", unconfirmed]]), 500, true);
    expect(trial.hubHeard(500 + SETTLE_MS - 1)).toBe(false); // heard after the first only
    expect(trial.tick(TIMEOUT_MS)).toBeUndefined(); // the second has its time
    expect(trial.tick(500 + TIMEOUT_MS)).toBe("rollback");
    expect(trial.before.get("policy/NetworkPolicy/shop/web")).toBe(OLD);
  });

  it("confirms at once where policies cannot cut the connection, and when it is switched off", () => {
    const trial = new PolicyTrial(TIMEOUT_MS, 0);
    trial.applied(CHANGE, 0, false);
    expect([trial.save(), trial.tick(TIMEOUT_MS)]).toEqual([undefined, undefined]);
    const off = new PolicyTrial(0, 0, { phase: "held", isSecondTry: true, before: [] });
    off.applied(CHANGE, 0, true);
    expect([off.save(), off.tick(TIMEOUT_MS), off.isRolledBack]).toEqual([undefined, undefined, false]);
  });

  it("lets go of a rollback when the hub is reached outside the mesh and sends a change", () => {
    const trial = rolledBack();
    expect(trial.applied(new Map([["cidrgroup/x", undefined]]), 50_000, false)).toEqual([...CHANGE.keys()]);
    expect(trial.isRolledBack).toBe(false);
  });

  it("is not started by a frame that changes no policy", () => {
    const trial = new PolicyTrial(TIMEOUT_MS, 0);
    trial.applied(new Map(), 0, true);
    expect(trial.tick(TIMEOUT_MS)).toBeUndefined();
  });

  it("survives a restart in every phase", () => {
    const held = rolledBack();
    held.hubHeard(40_000);
    held.tick(50_000);
    held.tick(80_000);
    for (const trial of [started(), rolledBack(), held]) {
      const saved = readSavedTrial(JSON.parse(JSON.stringify(trial.save())));
      const restored = new PolicyTrial(TIMEOUT_MS, 0, saved);
      expect(restored.save()).toEqual(trial.save());
      expect([...restored.before]).toEqual([...trial.before]);
      expect(restored.isRolledBack).toBe(trial.isRolledBack);
    }
    const trial = new PolicyTrial(TIMEOUT_MS, 5_000, started().save());
    expect(trial.tick(5_000 + TIMEOUT_MS - 1)).toBeUndefined();
    expect(trial.tick(5_000 + TIMEOUT_MS)).toBe("rollback");
  });

  it("whatever happens, the values to go back to are those that were in force when the hub was heard last", () => {
    const key = "policy/NetworkPolicy/shop/web";
    const step = fc.record({
      do: fc.constantFrom("apply", "hear", "lose", "tick"),
      afterMs: fc.integer({ min: 0, max: 40_000 }),
      isAtRisk: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const trial = new PolicyTrial(TIMEOUT_MS, 0);
        let nowMs = 0;
        // a document is its number: what the mesh has, what is in force, what was confirmed
        let [mesh, inForce, confirmed] = [0, 0, 0];
        const valueOf = (n: number) => ({ n });
        for (const { do: what, afterMs, isAtRisk } of steps) {
          nowMs += afterMs;
          if (what === "lose") trial.hubLost();
          else if (what === "hear") {
            if (trial.hubHeard(nowMs)) confirmed = inForce;
          } else if (what === "apply") {
            trial.applied(new Map([[key, valueOf(mesh)]]), nowMs, isAtRisk);
            inForce = ++mesh;
            if (!isAtRisk) confirmed = inForce;
          } else {
            const action = trial.tick(nowMs);
            if (action === "rollback") inForce = (trial.before.get(key) as unknown as { n: number }).n;
            if (action === "retry") inForce = mesh;
          }
          expect(inForce).toBe(trial.isRolledBack ? confirmed : mesh);
          if (trial.save() === undefined) expect(confirmed).toBe(mesh);
          else expect(trial.before.get(key)).toEqual(valueOf(confirmed));
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("runsThroughMesh", () => {
  it("is true for a socket of one of our mesh addresses", () => {
    expect(runsThroughMesh("10.219.0.2", ["10.219.0.2", "fd00::2"])).toBe(true);
    expect(runsThroughMesh("192.0.2.1", ["10.219.0.2"])).toBe(false);
    expect(runsThroughMesh(undefined, ["10.219.0.2"])).toBe(false);
  });
});

describe("readSavedTrial", () => {
  it("takes nothing else", () => {
    for (const value of [undefined, null, 7, {}, { phase: "confirmed", isSecondTry: false, before: [] }]) {
      expect(readSavedTrial(value)).toBeUndefined();
    }
    expect(readSavedTrial({ phase: "held", isSecondTry: false, before: [["x"]] })).toBeUndefined();
  });
});
