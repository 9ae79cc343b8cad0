/**
 * Dry runs over all members: what a change would newly drop, each member says from its own recent flows. The question is encoded
 * once; members that do not answer within five seconds, or that are of a release that cannot, are named. Time comes in through `tick`.
 */
import type { EntryValue } from "../../src/mesh/entries.ts";
import { messageOf } from "../errors.ts";
import {
  type DryRunMember,
  type DryRunReport,
  type DryRunResult,
  type Evaluate,
  fitResult,
  NO_FLOWS,
} from "../sync/dry_run.ts";
import { encodeFrame } from "../sync/frames.ts";

/** How long members have. */
export const DRY_RUN_TIMEOUT_MS = 5_000;
/** Runs at the same time. */
const MAX_RUNS = 4;
/** Flows of all members together that an administrator is shown. */
const MAX_REPORTED_FLOWS = 2_000;
const MAX_LOCAL_BYTES = 64 * 1024;

export type DryRunPuts = readonly (readonly [key: string, value: EntryValue])[];

/** A member's connection, as far as it can be asked. */
export interface Askable {
  /** @returns false when it cannot be asked */
  ask(frame: Uint8Array): boolean;
}

interface Run {
  readonly endsAtMs: number;
  readonly waiting: Set<string>;
  readonly members: Map<string, DryRunMember>;
  readonly finish: (report: DryRunReport) => void;
}

/** All dry runs of a hub. */
export class DryRuns {
  readonly #nowMs: () => number;
  readonly #connections: () => ReadonlyMap<string, Askable>;
  readonly #local = new Map<string, Evaluate>();
  readonly #runs = new Map<number, Run>();
  #nextId = 1;

  /** @param nowMs monotonic @param connections members that are connected, by name */
  constructor(nowMs: () => number, connections: () => ReadonlyMap<string, Askable>) {
    this.#nowMs = nowMs;
    this.#connections = connections;
  }

  /** A member in the same process: the hub's own. */
  addLocal(name: string, evaluate: Evaluate): void {
    this.#local.set(name, evaluate);
  }

  /**
   * Asks members.
   * @param names all that should be asked; those that are not connected are reported as not asked
   * @returns undefined while too many others are going on
   */
  run(puts: DryRunPuts, deletes: readonly string[], names: readonly string[]): Promise<DryRunReport | undefined> {
    if (this.#runs.size >= MAX_RUNS) return Promise.resolve(undefined);
    const id = this.#nextId++;
    return new Promise((finish) => {
      const endsAtMs = this.#nowMs() + DRY_RUN_TIMEOUT_MS;
      const run: Run = { endsAtMs, waiting: new Set(names), members: new Map(), finish };
      this.#runs.set(id, run);
      const frame = encodeFrame({ t: "dryRun", id, puts, deletes });
      for (const name of names) {
        const local = this.#local.get(name);
        const connection = this.#connections().get(name);
        if (local !== undefined) void this.#askLocal(id, name, () => local(puts, deletes));
        else if (connection === undefined) this.#settle(id, notAsked(name, "it is not connected"));
        else if (!connection.ask(frame)) this.#settle(id, notAsked(name, "it is of an older release, or busy"));
      }
      this.#finishIfDone(id, run);
    });
  }

  async #askLocal(id: number, name: string, evaluate: () => Promise<DryRunResult>): Promise<void> {
    try {
      this.answer(name, id, fitResult(await evaluate(), MAX_LOCAL_BYTES));
    } catch (error) {
      this.answer(name, id, { ...NO_FLOWS, fault: messageOf(error) });
    }
  }

  /** A member's answer; one that nobody waits for any more is left alone. */
  answer(name: string, id: number, result: DryRunResult): void {
    this.#settle(id, { name, state: "answered", reason: result.fault ?? null, result });
  }

  /** A member's connection is gone: it will not answer. */
  gone(name: string): void {
    for (const id of [...this.#runs.keys()]) this.#settle(id, noAnswer(name, "its connection ended"));
  }

  /** Ends the runs whose time is over. */
  tick(nowMs: number): void {
    for (const [id, run] of [...this.#runs]) if (nowMs >= run.endsAtMs) this.#end(id, run, "it did not answer in time");
  }

  close(): void {
    for (const [id, run] of [...this.#runs]) this.#end(id, run, "the hub stops");
  }

  #end(id: number, run: Run, reason: string): void {
    for (const name of [...run.waiting]) this.#settle(id, noAnswer(name, reason));
  }

  #settle(id: number, member: DryRunMember): void {
    const run = this.#runs.get(id);
    if (run === undefined || !run.waiting.delete(member.name)) return;
    run.members.set(member.name, member);
    this.#finishIfDone(id, run);
  }

  #finishIfDone(id: number, run: Run): void {
    if (run.waiting.size > 0 || !this.#runs.delete(id)) return;
    run.finish({ members: withinBounds([...run.members.values()].sort((a, b) => a.name < b.name ? -1 : 1)) });
  }
}

function notAsked(name: string, reason: string): DryRunMember {
  return { name, state: "not-asked", reason, result: null };
}

function noAnswer(name: string, reason: string): DryRunMember {
  return { name, state: "no-answer", reason, result: null };
}

/** Each member's totals stay; flows beyond the bound are left out. */
function withinBounds(members: readonly DryRunMember[]): DryRunMember[] {
  let room = MAX_REPORTED_FLOWS;
  return members.map((member) => {
    if (member.result === null) return member;
    const flows = member.result.flows.slice(0, room);
    room -= flows.length;
    return { ...member, result: { ...member.result, flows } };
  });
}
