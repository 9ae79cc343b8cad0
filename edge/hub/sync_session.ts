/**
 * One connection of the sync stream, the hub's end: waits for the member's proof, then carries its state. Frames and messages:
 * `edge/sync/`. What a member is sent is `HubState.subscribe`'s business; here it becomes octets, once for all.
 *
 * While the socket's buffer is full the subscription is paused, so that the state catches up with one frame afterwards instead of a
 * queue of old ones. Time comes in through `tick`.
 */
import type { Duplex } from "node:stream";
import type { Log, RandomBytes } from "../../src/ports.ts";
import { type Signer, verifyEd25519 } from "../sync/ed25519.ts";
import { formatEndpoint } from "../sync/endpoint.ts";
import { encodeFrame, FrameReader, MAX_MEMBER_FRAME_BYTES } from "../sync/frames.ts";
import {
  type AuthMessage,
  authMessageOf,
  DOES_DRY_RUN,
  HUB_TAKES,
  type HubMessage,
  type MemberReport,
  readMemberMessage,
  timeMessageOf,
} from "../sync/messages.ts";
import type { DryRuns } from "./dry_runs.ts";
import { framedState } from "./frames.ts";
import type { HubState, Subscription } from "./state.ts";

const AUTH_TIMEOUT_MS = 10_000;
const PING_EVERY_MS = 30_000;
/** Two pings and a half without an octet from the member: it is gone. */
const SILENCE_MS = 75_000;
/** A refusal is given this long to arrive. */
const CLOSING_MS = 2_000;
/** A member's reports are applied at most this often: each may change its record for everybody. */
const REPORT_EVERY_MS = 5_000;
const CHALLENGE_BYTES = 32;

const REFUSALS: Readonly<Record<"revoked" | "unknown" | "pending" | "removed", string>> = {
  revoked: "this device was revoked",
  unknown: "this device is no member of this mesh",
  pending: "an administrator must approve this device first",
  removed: "this device is no longer a member of this mesh",
};

export interface SessionOptions {
  readonly state: Pick<HubState, "authenticate" | "subscribe" | "noteConnection">;
  /** signs the hub's time */
  readonly signer: Signer;
  readonly caPin: Uint8Array;
  /** name of the hub's cluster */
  readonly cluster: string;
  readonly log: Log;
  readonly random: RandomBytes;
  readonly unixMs: () => number;
  /** monotonic */
  readonly nowMs: () => number;
}

/** Where a connection comes from; an IPv4 address is written as one. */
export interface Remote {
  readonly address: string;
  readonly port: number;
}

/** A member's connection, for administrators. */
export interface ConnectionInfo {
  /** Unix milliseconds */
  readonly since: number;
  readonly from: string;
  readonly version: string;
  readonly appliedRevision: number | null;
  readonly sentBytes: number;
}

/** Events since start; the keys are metric names. */
export interface SyncCounters {
  accepted: number;
  authenticated: number;
  refused: number;
  brokenFrames: number;
  timedOut: number;
  replaced: number;
  paused: number;
  sentFrames: number;
  sentBytes: number;
}

/** What all sessions share, and where one says that it speaks for a member, and that it is over. */
export interface SessionHost {
  readonly options: SessionOptions;
  readonly counters: SyncCounters;
  readonly dryRuns: Pick<DryRuns, "answer">;
  /** from now on it speaks for this member; an older one of the same member ends */
  enter(name: string, session: SyncSession): void;
  leave(name: string | undefined, session: SyncSession): void;
}

/** One connection: waits for the member's proof, then carries its state. */
export class SyncSession {
  readonly #server: SessionHost;
  readonly #socket: Duplex;
  readonly #remote: Remote;
  readonly #reader: FrameReader;
  readonly #challenge = new Uint8Array(CHALLENGE_BYTES);
  readonly #startedAtMs: number;
  #name: string | undefined;
  #sinceUnixMs = 0;
  #version = "";
  #does: readonly string[] = [];
  #subscription: Subscription | undefined;
  #isFull = false;
  #isOver = false;
  #heardAtMs: number;
  #pingedAtMs: number;
  #closeAtMs = Infinity;
  #appliedRevision: number | null = null;
  #sentBytes = 0;
  #lateReport: MemberReport | undefined;
  #reportedAtMs = -Infinity;

  constructor(server: SessionHost, socket: Duplex, remote: Remote) {
    this.#server = server;
    this.#socket = socket;
    this.#remote = remote;
    this.#reader = new FrameReader(MAX_MEMBER_FRAME_BYTES, (message) => this.#onMessage(message));
    const nowMs = server.options.nowMs();
    this.#startedAtMs = nowMs;
    this.#heardAtMs = nowMs;
    this.#pingedAtMs = nowMs;
  }

  start(head: Uint8Array): void {
    const socket = this.#socket;
    socket.on("data", (chunk: Uint8Array) => this.#push(chunk));
    socket.on("drain", () => this.#onDrain());
    socket.on("end", () => this.destroy());
    socket.on("error", () => this.destroy());
    socket.on("close", () => this.destroy());
    const { random, unixMs, cluster } = this.#server.options;
    random(this.#challenge);
    const time = unixMs();
    this.#send({
      t: "hello",
      version: 1,
      challenge: this.#challenge,
      cluster,
      unixMs: time,
      signature: this.#signTime(time),
      takes: HUB_TAKES,
    });
    this.#push(head);
  }

  info(): ConnectionInfo {
    return {
      since: this.#sinceUnixMs,
      from: formatEndpoint({ host: this.#remote.address, port: this.#remote.port }),
      version: this.#version,
      appliedRevision: this.#appliedRevision,
      sentBytes: this.#sentBytes,
    };
  }

  /** Asks for a dry run. @param frame a `dryRun` message, encoded @returns false: it does not do any, or its line is full */
  ask(frame: Uint8Array): boolean {
    if (this.#isOver || this.#isFull || !this.#does.includes(DOES_DRY_RUN)) return false;
    this.#write(frame);
    return true;
  }

  tick(nowMs: number): void {
    if (nowMs >= this.#closeAtMs) return this.destroy();
    if (this.#isOver) return;
    const isLate = this.#name === undefined
      ? nowMs - this.#startedAtMs > AUTH_TIMEOUT_MS
      : nowMs - this.#heardAtMs > SILENCE_MS;
    if (isLate) {
      this.#server.counters.timedOut++;
      return this.destroy();
    }
    if (this.#name === undefined) return;
    if (nowMs - this.#pingedAtMs >= PING_EVERY_MS) {
      this.#pingedAtMs = nowMs;
      const unixMs = this.#server.options.unixMs();
      this.#send({ t: "ping", unixMs, signature: this.#signTime(unixMs) });
    }
    if (this.#lateReport !== undefined) this.#report(this.#lateReport, nowMs);
  }

  /** Says no and ends; the text is given a moment to arrive. */
  refuse(code: string, message: string, isRetryable: boolean): void {
    if (this.#isOver) return;
    this.#server.counters.refused++;
    this.#send({ t: "refused", code, message, isRetryable });
    this.#end();
    this.#closeAtMs = this.#server.options.nowMs() + CLOSING_MS;
    this.#socket.end();
  }

  destroy(): void {
    this.#end();
    this.#server.leave(this.#name, this);
    this.#socket.destroy();
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#reader.stop();
    this.#subscription?.();
    this.#subscription = undefined;
  }

  #push(chunk: Uint8Array): void {
    if (this.#isOver || chunk.length === 0) return;
    this.#heardAtMs = this.#server.options.nowMs();
    const fault = this.#reader.push(chunk);
    if (fault !== undefined) this.#onBroken(fault);
  }

  #onBroken(fault: string): void {
    this.#server.counters.brokenFrames++;
    this.#server.options.log.warn("sync-broken", { from: this.#remote.address, member: this.#name ?? "", fault });
    this.destroy();
  }

  #onMessage(value: unknown): void {
    const message = readMemberMessage(value);
    if (message === undefined || (message.t === "auth") !== (this.#name === undefined)) {
      return this.#onBroken("message-unknown");
    }
    switch (message.t) {
      case "auth":
        return this.#authenticate(message);
      case "ack":
        this.#appliedRevision = message.revision;
        return;
      case "report":
        this.#does = message.report.does ?? [];
        this.#lateReport = message.report;
        return;
      case "ping":
        // one that does not read is not answered: nothing piles up
        if (!this.#isFull) this.#send({ t: "pong" });
        return;
      case "dryRunResult":
        return this.#server.dryRuns.answer(this.#name!, message.id, message.result);
      case "pong":
        return;
    }
  }

  #authenticate(auth: AuthMessage): void {
    const { state, caPin, log, nowMs, unixMs } = this.#server.options;
    if (!verifyEd25519(auth.deviceKey, authMessageOf(this.#challenge, caPin), auth.signature)) {
      return this.refuse("bad-proof", "the device's signature is wrong", false);
    }
    const member = state.authenticate(auth.deviceKey);
    if ("refused" in member) {
      log.info("sync-refused", { from: this.#remote.address, reason: member.refused });
      return this.refuse(member.refused, REFUSALS[member.refused], member.refused === "pending");
    }
    this.#name = member.name;
    this.#sinceUnixMs = unixMs();
    this.#version = auth.report.version;
    this.#does = auth.report.does ?? [];
    this.#server.counters.authenticated++;
    this.#server.enter(member.name, this);
    log.debug("sync-connected", { member: member.name, from: this.#remote.address });
    this.#send({ t: "welcome", name: member.name });
    this.#report(auth.report, nowMs());
    this.#subscribe(member.name, auth);
  }

  #subscribe(name: string, auth: AuthMessage): void {
    const subscription = this.#server.options.state.subscribe(
      name,
      auth.resume ?? undefined,
      (frame) => this.#write(framedState(frame)),
      (reason) => this.refuse(reason, REFUSALS[reason], false),
    );
    if (this.#isOver) return subscription(); // gone while the first frame was written
    this.#subscription = subscription;
    if (this.#isFull) subscription.pause();
  }

  #report(report: MemberReport, nowMs: number): void {
    if (nowMs - this.#reportedAtMs < REPORT_EVERY_MS) {
      this.#lateReport = report;
      return;
    }
    this.#reportedAtMs = nowMs;
    this.#lateReport = undefined;
    const seen = formatEndpoint({ host: this.#remote.address, port: report.wireguardPort });
    const endpoints = [...new Set([seen, ...report.endpoints])];
    const { state, log } = this.#server.options;
    const { localAddress, aeads, network } = report;
    const facts = {
      endpoints,
      localAddress,
      ...(aeads && { aeads }),
      ...(network !== undefined && { network }),
    };
    state.noteConnection(this.#name!, facts).catch((error: unknown) => {
      log.error("sync-report-failed", { member: this.#name, reason: String(error) });
    });
  }

  #signTime(unixMs: number): Uint8Array {
    return this.#server.options.signer.sign(timeMessageOf(this.#challenge, unixMs));
  }

  #send(message: HubMessage): void {
    this.#write(encodeFrame(message));
  }

  #write(frame: Uint8Array): void {
    if (this.#isOver) return;
    const { counters } = this.#server;
    counters.sentFrames++;
    counters.sentBytes += frame.length;
    this.#sentBytes += frame.length;
    if (this.#socket.write(frame) || this.#isFull) return;
    this.#isFull = true;
    counters.paused++;
    this.#subscription?.pause();
  }

  #onDrain(): void {
    // Bun says "drain" while there is more to come
    if (this.#socket.writableNeedDrain || !this.#isFull) return;
    this.#isFull = false;
    this.#subscription?.resume();
  }
}
