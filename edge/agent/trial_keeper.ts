/**
 * Wires commit-confirm (`policy_trial.ts`) to mesh state, policies, datapath and disk: a change of policies that cuts this member off
 * from its hub is taken back by itself, and says so.
 */
import type { MeshChange, MeshState } from "../../src/mesh/state.ts";
import type { Log } from "../../src/ports.ts";
import { changeTo, type EntriesBefore, type PolicyChange, PolicyTrial, type SavedTrial } from "./policy_trial.ts";

export interface TrialKeeperDoors {
  readonly mesh: MeshState;
  readonly store: { loadTrial(): SavedTrial | undefined; saveTrial(trial: SavedTrial | undefined): void };
  /** Puts other values into force than those of the mesh state, or those again. */
  readonly override: (change: PolicyChange) => void;
  /** Whether the policies in force may be why the hub is not heard. */
  readonly mayBeCut: () => boolean;
  /** Asks the hub for a word. */
  readonly probe: () => void;
  readonly nowMs: () => number;
  readonly log: Log;
}

/** One per agent. */
export class TrialKeeper {
  readonly #doors: TrialKeeperDoors;
  readonly #trial: PolicyTrial;

  /** @param timeoutMs see `PolicyTrial` */
  constructor(timeoutMs: number, doors: TrialKeeperDoors) {
    this.#doors = doors;
    this.#trial = new PolicyTrial(timeoutMs, doors.nowMs(), doors.store.loadTrial());
  }

  /** For the health page; undefined: nothing is rolled back. */
  get healthText(): string | undefined {
    return this.#trial.healthText;
  }

  /** After a start from disk: what was rolled back stays so. */
  restore(): void {
    if (this.#trial.isRolledBack) this.#override(this.#trial.before);
  }

  /**
   * A change is in force.
   * @param isAtRisk it came over a connection that the policies may cut
   */
  applied({ replaced }: MeshChange, isAtRisk: boolean): void {
    if (replaced.size === 0) return;
    const rolledBack = this.#trial.applied(replaced, this.#doors.nowMs(), isAtRisk);
    // the change may lift what was wrong with others: all of them get another try
    if (rolledBack.length > 0) this.#override(this.#meshValues(rolledBack));
    this.#save();
  }

  /** Something came from the hub. */
  heard(): void {
    if (!this.#trial.hubHeard(this.#doors.nowMs())) return;
    this.#save();
    this.#doors.log.info("policies-confirmed", {});
  }

  /** The connection to the hub ended. */
  lost(): void {
    this.#trial.hubLost();
  }

  /** Once a second. */
  tick(): void {
    const trial = this.#trial;
    const action = trial.tick(this.#doors.nowMs(), this.#doors.mayBeCut);
    if (action === "confirm") {
      this.#save();
      this.#doors.log.warn("policies-confirmed", { reason: "the hub is not heard, but they let its connection pass" });
    } else if (action !== undefined) {
      const policies = [...trial.before.keys()].join(",");
      if (action === "rollback") this.#doors.log.error("policy-rolled-back", { policies });
      else this.#doors.log.warn("policy-retried", { policies });
      this.#override(action === "rollback" ? trial.before : this.#meshValues([...trial.before.keys()]));
      this.#save();
    }
    if (trial.awaitsHub) this.#doors.probe();
  }

  #override(values: EntriesBefore): void {
    this.#doors.override(changeTo(values));
  }

  #save(): void {
    this.#doors.store.saveTrial(this.#trial.save());
  }

  /** Values of the mesh state. @param keys of policies, CIDR groups and services */
  #meshValues(keys: readonly string[]): EntriesBefore {
    const { policies, cidrGroups, services } = this.#doors.mesh;
    return new Map(keys.map((key) => {
      const slash = key.indexOf("/");
      const kind = key.slice(0, slash);
      const values = kind === "policy" ? policies : kind === "cidrgroup" ? cidrGroups : services;
      return [key, values.get(key.slice(slash + 1))];
    }));
  }
}
