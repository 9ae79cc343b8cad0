/**
 * Commit-confirm of policies: a change that cuts a member off from the hub that it came from is taken back by itself. Matters where
 * the connection to the hub runs through the mesh, and so through the policies.
 *
 *     confirmed --applied--> trial --heard, or it cannot be the policies' fault that not--> confirmed
 *                              | not heard in time
 *                              v
 *                          rolledBack --heard, and for a while--> trial, once more (the hub may simply have been down)
 *                              | not heard in time, the second time
 *                              v
 *                            held: until the policies change
 *
 * Silence alone takes nothing back: who can keep the hub from being heard, on the way or by flooding, could otherwise choose that an
 * old policy stays. The policies themselves must be what keeps this member from its hub.
 *
 * A pure state machine: time comes in as an argument, monotonic. It holds what stood before the changes that are not confirmed, so
 * that the last confirmed set can be put into force; the mesh state itself is left as the hub sent it. Wired by `agent.ts`.
 */
import type { PolicyDocument, ServiceEntry } from "../../src/mesh/entries.ts";
import type { MeshChange } from "../../src/mesh/state.ts";

/** What was read or sent before the datapath had the change says nothing: a word of the hub counts this long after it. */
export const SETTLE_MS = 1_000;
/** A hub that is heard again is heard for so long before the change is tried once more. */
export const RETRY_AFTER_MS = 10_000;

/** Values of entries, by entry key ("policy/...", "cidrgroup/...", "service/..."); undefined: no such entry. */
export type EntriesBefore = ReadonlyMap<string, PolicyDocument | ServiceEntry | undefined>;

/**
 * What must be done: `rollback`: put the values of `before` into force; `retry`: put those of the mesh state into force for the
 * keys of `before`. Both as `changeTo` says it. `confirm`: nothing, but the change is confirmed.
 */
export type TrialAction = "rollback" | "retry" | "confirm";

type Phase = "confirmed" | "trial" | "rolledBack" | "held";

/** What a restart needs to know; kept in the state directory for as long as something is not confirmed. Plain data. */
export interface SavedTrial {
  readonly phase: Exclude<Phase, "confirmed">;
  readonly isSecondTry: boolean;
  /** null: there was no such entry */
  readonly before: readonly (readonly [key: string, value: PolicyDocument | ServiceEntry | null])[];
}

/** The policies of one member, on trial or not. */
export class PolicyTrial {
  readonly #timeoutMs: number;
  readonly #before = new Map<string, PolicyDocument | ServiceEntry | undefined>();
  #phase: Phase = "confirmed";
  #isSecondTry = false;
  /** when the change, or its rollback, was given to the datapath */
  #sinceMs = 0;
  /** when the hub was first heard after a rollback, if the connection still stands */
  #heardAtMs: number | undefined;

  /**
   * @param timeoutMs how long the hub may be silent after a change; 0: nothing is ever rolled back
   * @param saved what `save` gave before a restart; a trial goes on, with its whole time anew
   */
  constructor(timeoutMs: number, nowMs: number, saved?: SavedTrial) {
    this.#timeoutMs = timeoutMs;
    if (saved === undefined || timeoutMs === 0) return;
    this.#phase = saved.phase;
    this.#isSecondTry = saved.isSecondTry;
    this.#sinceMs = nowMs;
    for (const [key, value] of saved.before) this.#before.set(key, value ?? undefined);
  }

  /** What stood before the changes that are not confirmed. */
  get before(): EntriesBefore {
    return this.#before;
  }

  /** The values of `before` are in force, not those of the mesh state. */
  get isRolledBack(): boolean {
    return this.#phase === "rolledBack" || this.#phase === "held";
  }

  /** A word of the hub would decide something: worth asking it for one. */
  get awaitsHub(): boolean {
    return this.#phase === "trial" || this.#phase === "rolledBack" && this.#heardAtMs === undefined;
  }

  /** For the health code `policy-rolled-back`; undefined: nothing is rolled back. */
  get healthText(): string | undefined {
    if (!this.isRolledBack) return undefined;
    const keys = [...this.#before.keys()].map((key) => key.replace(/^policy\//, ""));
    const shown = keys.slice(0, 3).join(", ") + (keys.length > 3 ? ` and ${keys.length - 3} more` : "");
    const next = this.#phase === "held" ? "twice" : "and are tried once more when it is heard again";
    return `Changes were taken back, because the hub was not heard after them ${next}: ${shown}`;
  }

  /**
   * A change was given to the datapath.
   *
   * @param replaced `MeshChange.replaced`
   * @param isAtRisk the change came over a connection that the policies may cut; else it is confirmed at once
   * @returns keys that were rolled back so far: their values of the mesh state must be put into force too (`changeTo`)
   */
  applied(replaced: EntriesBefore, nowMs: number, isAtRisk: boolean): readonly string[] {
    if (replaced.size === 0) return [];
    const rolledBack = this.isRolledBack ? [...this.#before.keys()] : [];
    if (!isAtRisk || this.#timeoutMs === 0) {
      this.#confirm();
      return rolledBack;
    }
    // what was confirmed last stays what we go back to
    for (const [key, value] of replaced) if (!this.#before.has(key)) this.#before.set(key, value);
    this.#begin("trial", nowMs);
    this.#isSecondTry = false;
    return rolledBack;
  }

  /** Anything came from the hub. @returns whether that confirmed a change */
  hubHeard(nowMs: number): boolean {
    if (nowMs - this.#sinceMs < SETTLE_MS) return false;
    if (this.#phase === "rolledBack") this.#heardAtMs ??= nowMs;
    if (this.#phase !== "trial") return false;
    this.#confirm();
    return true;
  }

  /** The connection to the hub ended. */
  hubLost(): void {
    this.#heardAtMs = undefined;
  }

  /**
   * Call it about once a second.
   * @param mayBeCut whether the policies in force may be why the hub is not heard; asked when it was not
   * @returns what must be done now
   */
  tick(nowMs: number, mayBeCut: () => boolean = () => true): TrialAction | undefined {
    if (this.#phase === "trial" && nowMs - this.#sinceMs >= this.#timeoutMs) {
      if (!mayBeCut()) {
        this.#confirm();
        return "confirm";
      }
      this.#begin(this.#isSecondTry ? "held" : "rolledBack", nowMs);
      return "rollback";
    }
    const heardForMs = this.#heardAtMs === undefined ? 0 : nowMs - this.#heardAtMs;
    if (this.#phase !== "rolledBack" || heardForMs < RETRY_AFTER_MS) return undefined;
    this.#begin("trial", nowMs);
    this.#isSecondTry = true;
    return "retry";
  }

  /** For the disk; undefined: all is confirmed, and nothing must be kept. Changes only in `applied`, `hubHeard` and `tick`. */
  save(): SavedTrial | undefined {
    if (this.#phase === "confirmed") return undefined;
    const before = [...this.#before].map(([key, value]) => [key, value ?? null] as const);
    return { phase: this.#phase, isSecondTry: this.#isSecondTry, before };
  }

  #begin(phase: Phase, nowMs: number): void {
    this.#phase = phase;
    this.#sinceMs = nowMs;
    this.#heardAtMs = undefined;
  }

  #confirm(): void {
    this.#phase = "confirmed";
    this.#isSecondTry = false;
    this.#heardAtMs = undefined;
    this.#before.clear();
  }
}

/** The parts of a change that policies are made of. */
export type PolicyChange = Pick<MeshChange, "policies" | "cidrGroups" | "services">;

/** The change that gives entries these values. */
export function changeTo(values: EntriesBefore): PolicyChange {
  const lists = { policy: noChanges(), cidrgroup: noChanges(), service: noChanges() };
  for (const [key, value] of values) {
    const slash = key.indexOf("/");
    const kind = key.slice(0, slash);
    if (kind !== "policy" && kind !== "cidrgroup" && kind !== "service") continue;
    const name = key.slice(slash + 1);
    if (value === undefined) lists[kind].deletes.push(name);
    else lists[kind].puts.push([name, value]);
  }
  return {
    policies: lists.policy as PolicyChange["policies"],
    cidrGroups: lists.cidrgroup as PolicyChange["cidrGroups"],
    services: lists.service as PolicyChange["services"],
  };
}

function noChanges(): { readonly puts: [string, unknown][]; readonly deletes: string[] } {
  return { puts: [], deletes: [] };
}

/** Whether the connection that brings the mesh state runs through the mesh: its local address is one of this member's. */
export function runsThroughMesh(localAddress: string | undefined, meshAddresses: readonly string[]): boolean {
  return localAddress !== undefined && meshAddresses.includes(localAddress);
}

/** Reads what `save` gave, from disk; undefined for anything else. */
export function readSavedTrial(value: unknown): SavedTrial | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { phase, isSecondTry, before } = value as Partial<Record<keyof SavedTrial, unknown>>;
  if (phase !== "trial" && phase !== "rolledBack" && phase !== "held") return undefined;
  if (typeof isSecondTry !== "boolean" || !Array.isArray(before)) return undefined;
  const isEntry = (pair: unknown) =>
    Array.isArray(pair) && pair.length === 2 && typeof pair[0] === "string" && typeof pair[1] === "object";
  return before.every(isEntry) ? { phase, isSecondTry, before } : undefined;
}
