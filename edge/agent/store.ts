/**
 * What a member keeps on disk, in five small doubled files (`state_file.ts`), each MessagePack:
 *
 *     identity   keys, and what the join brought: who we are and which hub we believe. Written at join only.
 *     clock      newest handshake stamp that may have been sent, newest trusted time. Written about once an hour.
 *     state      the entries last applied, so that a boot without the hub has peers and policies. Written on change, coalesced.
 *     trial      policies of before a change that the hub was not heard after (`policy_trial.ts`); nothing else of the time.
 *     names      addresses that the DNS proxy learned for names of policies. At most once a minute, and only while there are any.
 *
 * A directory that cannot be written makes the agent degraded, not dead: `fault` says why.
 */
import type { EntryValue } from "../../src/mesh/entries.ts";
import { decodeMsgpack, encodeMsgpack } from "../sync/msgpack.ts";
import { EdgeError, messageOf } from "../errors.ts";
import type { DurableDir } from "./durable_dir.ts";
import { readSavedTrial, type SavedTrial } from "./policy_trial.ts";
import { StateFile } from "./state_file.ts";

/** Keys of this device. Made before the first join, and kept whatever becomes of the membership. */
export interface DeviceKeys {
  /** Ed25519 seed: authenticates us to the hub. 32 octets */
  readonly deviceSeed: Uint8Array;
  /** X25519 secret key of WireGuard. 32 octets */
  readonly wireguardKey: Uint8Array;
}

/** What a join brought. */
export interface Membership {
  readonly name: string;
  readonly cluster: string;
  /** `host:port`, best first */
  readonly hubEndpoints: readonly string[];
  readonly caPem: string;
  /** Ed25519 public key that signs member records, 32 octets */
  readonly recordKey: Uint8Array;
  /** an administrator has yet to approve */
  readonly isPending: boolean;
  /** Unix milliseconds, by the hub's clock */
  readonly joinedUnixMs: number;
}

/** Contents of `identity`. */
export interface Identity extends DeviceKeys {
  readonly membership: Membership | undefined;
}

/** Contents of `clock`. */
export interface SavedClock {
  /** no handshake stamp above this was ever sent; Unix milliseconds */
  readonly stampFloorUnixMs: number;
  readonly trustedUnixMs: number;
}

/** Contents of `state`. */
export interface SavedState {
  readonly epoch: string;
  readonly revision: number;
  readonly entries: readonly (readonly [string, EntryValue])[];
  /** when it was last known to be the hub's newest; Unix milliseconds */
  readonly syncedUnixMs: number;
}

/** A save waits this long after the first change; doubled for each save in the hour before, at most `MAX_SAVE_DELAY_MS`. */
const FIRST_SAVE_DELAY_MS = 1000;
const MAX_SAVE_DELAY_MS = 15 * 60_000;
const HOUR_MS = 3_600_000;

/** How long a change may wait before it is written: short when changes are rare, long when they never end (flash wears out). */
export function saveDelayMs(savesInLastHour: number): number {
  return Math.min(MAX_SAVE_DELAY_MS, FIRST_SAVE_DELAY_MS * 2 ** Math.min(20, savesInLastHour));
}

/** The files of one member. Notes of repairs are collected in `notes`, the last failure to write in `fault`. */
export class MemberStore {
  readonly #identity: StateFile;
  readonly #clock: StateFile;
  readonly #state: StateFile;
  readonly #names: StateFile;
  readonly #trial: StateFile;
  readonly #dir: DurableDir;
  readonly #saves: number[] = [];
  readonly #notes: string[] = [];
  #fault: string | undefined;

  constructor(dir: DurableDir) {
    this.#dir = dir;
    this.#identity = new StateFile(dir, "identity");
    this.#clock = new StateFile(dir, "clock");
    this.#state = new StateFile(dir, "state");
    this.#names = new StateFile(dir, "names");
    this.#trial = new StateFile(dir, "trial");
  }

  /** Where the files are. */
  get path(): string {
    return this.#dir.path;
  }

  /** Files written since start. */
  get writes(): number {
    return this.#identity.writes + this.#clock.writes + this.#state.writes + this.#names.writes + this.#trial.writes;
  }

  /** What was repaired while loading. */
  get notes(): readonly string[] {
    return this.#notes;
  }

  /** Why the last write failed; undefined while writing works. */
  get fault(): string | undefined {
    return this.#fault;
  }

  loadIdentity(): Identity | undefined {
    return this.#load(this.#identity, "identity", readIdentity);
  }

  /** @throws EdgeError EDGE_STATE_UNWRITABLE: an identity that is not on disk is none */
  saveIdentity(identity: Identity): void {
    if (this.#save(this.#identity, { ...identity, membership: identity.membership ?? null })) return;
    throw new EdgeError("EDGE_STATE_UNWRITABLE", `Cannot write the identity to "${this.#dir.path}": ${this.#fault}`);
  }

  loadClock(): SavedClock | undefined {
    return this.#load(this.#clock, "clock", readClock);
  }

  saveClock(clock: SavedClock): void {
    this.#save(this.#clock, clock);
  }

  loadState(): SavedState | undefined {
    return this.#load(this.#state, "state", readState);
  }

  /** @param nowMs monotonic, for `nextSaveDelayMs` */
  saveState(state: SavedState, nowMs: number): void {
    if (this.#save(this.#state, state)) this.#saves.push(nowMs);
  }

  /** What `saveNames` wrote, unchecked: the cache reads its own snapshots. */
  loadNames(): unknown {
    return this.#load(this.#names, "names", (value) => value ?? undefined);
  }

  saveNames(snapshot: unknown): void {
    this.#save(this.#names, snapshot);
  }

  loadTrial(): SavedTrial | undefined {
    return this.#load(this.#trial, "trial", readSavedTrial);
  }

  /** @param trial undefined: every policy is confirmed */
  saveTrial(trial: SavedTrial | undefined): void {
    if (trial !== undefined) this.#save(this.#trial, trial);
    else if (this.#trial.load().payload !== undefined) this.#trial.erase();
  }

  /** How long the next save of the state should wait. */
  nextSaveDelayMs(nowMs: number): number {
    while (this.#saves.length > 0 && this.#saves[0]! < nowMs - HOUR_MS) this.#saves.shift();
    return saveDelayMs(this.#saves.length);
  }

  /** Forgets the membership and the state; the device keys stay. @throws EdgeError EDGE_STATE_UNWRITABLE */
  leave(): void {
    const identity = this.loadIdentity();
    if (identity !== undefined) this.saveIdentity({ ...identity, membership: undefined });
    try {
      this.#state.erase();
      this.#names.erase();
      this.#trial.erase();
    } catch (error) {
      throw new EdgeError(
        "EDGE_STATE_UNWRITABLE",
        `Cannot remove the state in "${this.#dir.path}": ${messageOf(error)}`,
      );
    }
  }

  #load<T>(file: StateFile, name: string, read: (value: unknown) => T | undefined): T | undefined {
    const { payload, notes } = file.load();
    this.#notes.push(...notes);
    if (payload === undefined) return undefined;
    const value = read(decodeMsgpack(payload));
    if (value === undefined) this.#notes.push(`"${name}" was written by another release and is not used`);
    return value;
  }

  #save(file: StateFile, value: unknown): boolean {
    try {
      file.save(encodeMsgpack(value));
      this.#fault = undefined;
      return true;
    } catch (error) {
      this.#fault = messageOf(error);
      return false;
    }
  }
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

function isOctets(value: unknown, count: number): value is Uint8Array {
  return value instanceof Uint8Array && value.length === count;
}

function isTime(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function readIdentity(value: unknown): Identity | undefined {
  if (!isMap(value)) return undefined;
  const { deviceSeed, wireguardKey, membership } = value;
  if (!isOctets(deviceSeed, 32) || !isOctets(wireguardKey, 32)) return undefined;
  const joined = membership === null ? undefined : readMembership(membership);
  if (membership !== null && joined === undefined) return undefined;
  // copies: a part of the file's bytes would take all of them along to another thread
  return { deviceSeed: new Uint8Array(deviceSeed), wireguardKey: new Uint8Array(wireguardKey), membership: joined };
}

function readMembership(value: unknown): Membership | undefined {
  if (!isMap(value)) return undefined;
  const { name, cluster, hubEndpoints, caPem, recordKey, isPending, joinedUnixMs } = value;
  if (typeof name !== "string" || typeof cluster !== "string" || typeof caPem !== "string") return undefined;
  if (!Array.isArray(hubEndpoints) || !hubEndpoints.every((text) => typeof text === "string")) return undefined;
  if (!isOctets(recordKey, 32) || typeof isPending !== "boolean" || !isTime(joinedUnixMs)) return undefined;
  return { name, cluster, hubEndpoints, caPem, recordKey: new Uint8Array(recordKey), isPending, joinedUnixMs };
}

function readClock(value: unknown): SavedClock | undefined {
  if (!isMap(value)) return undefined;
  const { stampFloorUnixMs, trustedUnixMs } = value;
  return isTime(stampFloorUnixMs) && isTime(trustedUnixMs) ? { stampFloorUnixMs, trustedUnixMs } : undefined;
}

function readState(value: unknown): SavedState | undefined {
  if (!isMap(value)) return undefined;
  const { epoch, revision, entries, syncedUnixMs } = value;
  if (typeof epoch !== "string" || !isTime(revision) || !isTime(syncedUnixMs) || !Array.isArray(entries)) {
    return undefined;
  }
  if (!entries.every((pair) => Array.isArray(pair) && pair.length === 2 && typeof pair[0] === "string")) {
    return undefined;
  }
  return { epoch, revision, syncedUnixMs, entries: entries as SavedState["entries"] };
}
