/**
 * All sync connections of a hub: takes them, counts them, and knows which of them speaks for which member. None waits for another:
 * each has its own socket buffer (`sync_session.ts`).
 */
import type { Duplex } from "node:stream";
import { DryRuns } from "./dry_runs.ts";
import {
  type ConnectionInfo,
  type Remote,
  type SessionHost,
  type SessionOptions,
  type SyncCounters,
  SyncSession,
} from "./sync_session.ts";

const MAX_UNAUTHENTICATED = 512;
const MAX_SESSIONS = 20_000;

export class SyncServer implements SessionHost {
  readonly counters: SyncCounters = {
    accepted: 0,
    authenticated: 0,
    refused: 0,
    brokenFrames: 0,
    timedOut: 0,
    replaced: 0,
    paused: 0,
    sentFrames: 0,
    sentBytes: 0,
  };
  readonly options: SessionOptions;
  readonly dryRuns: DryRuns;
  readonly #sessions = new Set<SyncSession>();
  readonly #members = new Map<string, SyncSession>();
  #unauthenticated = 0;

  constructor(options: SessionOptions) {
    this.options = options;
    this.dryRuns = new DryRuns(options.nowMs, () => this.#members);
  }

  /** Whether another connection may be taken. */
  hasRoom(): boolean {
    return this.#unauthenticated < MAX_UNAUTHENTICATED && this.#sessions.size < MAX_SESSIONS;
  }

  /** Takes a socket whose upgrade was just agreed to. @param head octets that came with the request */
  accept(socket: Duplex, head: Uint8Array, remote: Remote): void {
    this.counters.accepted++;
    this.#unauthenticated++;
    const session = new SyncSession(this, socket, remote);
    this.#sessions.add(session);
    session.start(head);
  }

  /** Number of members that are connected. */
  get connected(): number {
    return this.#members.size;
  }

  connectionOf(memberName: string): ConnectionInfo | undefined {
    return this.#members.get(memberName)?.info();
  }

  /** Pings, time-outs, late reports. Call it about once a second. @param nowMs monotonic */
  tick(nowMs: number): void {
    for (const session of this.#sessions) session.tick(nowMs);
    this.dryRuns.tick(nowMs);
  }

  /** Ends all connections; their members come back to whatever listens next. */
  close(): void {
    for (const session of this.#sessions) session.destroy();
    this.dryRuns.close();
  }

  enter(name: string, session: SyncSession): void {
    this.#unauthenticated--;
    const older = this.#members.get(name);
    this.#members.set(name, session);
    if (older === undefined) return;
    this.counters.replaced++;
    older.refuse("replaced", "the same device has connected anew", true);
  }

  leave(name: string | undefined, session: SyncSession): void {
    if (!this.#sessions.delete(session)) return;
    if (name === undefined) this.#unauthenticated--;
    else if (this.#members.get(name) === session) {
      this.#members.delete(name);
      this.dryRuns.gone(name);
    }
  }
}
