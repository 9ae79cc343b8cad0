/**
 * `HubClient`: a member's stream of mesh state from its hub. Connects, proves who it is, applies what comes, and comes back for
 * ever: jittered pauses up to 30 s, resuming by revision. Only a final refusal (revoked) ends it.
 *
 * Messages and their order: messages.ts. What the state means is the sink's business.
 */
import type { TLSSocket } from "node:tls";
import type { Log } from "../../src/ports.ts";
import { EdgeError, errnoOf, messageOf } from "../errors.ts";
import { Backoff, pause } from "./backoff.ts";
import type { TrustedClock } from "./clock.ts";
import { makeSigner, type Signer, verifyEd25519 } from "./ed25519.ts";
import { type DryRunResult, fitResult, NO_FLOWS } from "./dry_run.ts";
import { type Endpoint, formatEndpoint, parseEndpoint } from "./endpoint.ts";
import { encodeFrame, FrameReader, MAX_HUB_FRAME_BYTES, MAX_MEMBER_FRAME_BYTES } from "./frames.ts";
import { HttpConnection } from "./http.ts";
import {
  authMessageOf,
  DOES_DRY_RUN,
  type DryRunMessage,
  type HubMessage,
  type MemberMessage,
  type MemberReport,
  readHubMessage,
  SYNC_PATH,
  SYNC_UPGRADE,
  timeMessageOf,
} from "./messages.ts";
import { pinOfCa } from "./pin.ts";
import type { SourceStatus, StateSink, StateSource } from "./source.ts";
import { connectTls, resolveEndpoint, unreachable } from "./tls.ts";

const CONNECT_TIMEOUT_MS = 10_000;
/** The hub pings every 30 s: after two and a half of them without a word, it or the way to it is gone. */
const SILENCE_MS = 75_000;
/** JSON is longer than the MessagePack that is sent. */
const MAX_RESULT_BYTES = MAX_MEMBER_FRAME_BYTES - 1024;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

export interface HubClientOptions {
  /** `host:port`, best first; at least one */
  readonly endpoints: readonly string[];
  readonly caPem: string;
  /** Ed25519 seed (32 octets) or secret key (64) of this device */
  readonly deviceSecretKey: Uint8Array;
  /** Ed25519 public key that the hub signs with, 32 octets */
  readonly recordKey: Uint8Array;
  /** what to say about this member; called at each connection and by `reportNow` */
  readonly report: () => Omit<MemberReport, "localAddress" | "aeads" | "does">;
  readonly clock: TrustedClock;
  readonly log: Log;
  /** pauses between tries; for tests */
  readonly firstPauseMs?: number;
  readonly longestPauseMs?: number;
}

/** How a connection ended. */
type Ending =
  | { readonly kind: "lost"; readonly reason: string; readonly wasSynced: boolean }
  | { readonly kind: "refused"; readonly code: string; readonly message: string; readonly isRetryable: boolean };

/** See the head of the file. */
export class HubClient implements StateSource {
  readonly #options: HubClientOptions;
  readonly #device: Signer;
  readonly #caPin: Uint8Array;
  readonly #stopping = new AbortController();
  #sink: StateSink | undefined;
  #loop: Promise<void> = Promise.resolve();
  #stream: Stream | undefined;
  #aeads: readonly string[] = [];
  #status: SourceStatus = { state: "connecting" };
  /** cuts a pause short */
  #hurry = new AbortController();

  /** @throws EdgeError EDGE_STATE_INVALID when the saved CA certificate is none */
  constructor(options: HubClientOptions) {
    this.#options = options;
    this.#device = makeSigner(options.deviceSecretKey);
    const pin = pinOfCa(options.caPem);
    if (pin === undefined) throw new EdgeError("EDGE_STATE_INVALID", "Cannot read the hub's CA certificate: damaged");
    this.#caPin = pin;
  }

  probe(): boolean {
    return this.#stream?.probe() ?? false;
  }

  announce(aeads: readonly string[]): void {
    this.#aeads = aeads;
    this.reportNow();
  }

  start(sink: StateSink): void {
    this.#sink = sink;
    this.#loop = this.#run();
  }

  async stop(): Promise<void> {
    this.#sink = undefined;
    this.#stopping.abort();
    this.#hurry.abort();
    this.#stream?.close("stopped");
    await this.#loop;
  }

  /** Tells the hub where this member listens now, if it is connected; else the next connection does. */
  reportNow(): void {
    this.#stream?.report();
  }

  /** The network came back: does not wait for the rest of a pause. */
  retryNow(): void {
    this.#hurry.abort();
  }

  async #run(): Promise<void> {
    const backoff = new Backoff({
      firstMs: this.#options.firstPauseMs ?? FIRST_PAUSE_MS,
      capMs: this.#options.longestPauseMs ?? LONGEST_PAUSE_MS,
    });
    while (!this.#stopping.signal.aborted) {
      const ending = await this.#connectOnce();
      if (this.#stopping.signal.aborted) return;
      if (ending.kind === "refused" && !ending.isRetryable) {
        this.#options.log.error("hub-refused", { code: ending.code, reason: ending.message });
        this.#tell({ state: "refused", detail: `${ending.code}: ${ending.message}` });
        return;
      }
      if (ending.kind === "lost" && ending.wasSynced) backoff.reset();
      const pauseMs = backoff.next();
      const detail = ending.kind === "refused" ? `${ending.code}: ${ending.message}` : ending.reason;
      this.#options.log.warn("hub-offline", { reason: detail, inMs: Math.round(pauseMs) });
      this.#tell({ state: "offline", detail });
      this.#hurry = new AbortController();
      await pause(pauseMs, AbortSignal.any([this.#hurry.signal, this.#stopping.signal]));
    }
  }

  /** Tries every endpoint and address once, and stays with the first that lets us in until it is lost. */
  async #connectOnce(): Promise<Ending> {
    let reason = "no hub endpoint is known";
    for (const text of this.#options.endpoints) {
      const endpoint = parseEndpoint(text);
      if (endpoint === undefined) continue;
      this.#tell({ state: "connecting", hub: text });
      try {
        for (const address of await resolveEndpoint(endpoint)) {
          if (this.#stopping.signal.aborted) break;
          const ending = await this.#connectAt(address, text);
          // A hub that spoke to us has the last word for this round; one that did not may have a better address.
          if (ending.kind === "refused" || ending.wasSynced) return ending;
          reason = ending.reason;
        }
      } catch (error) {
        reason = messageOf(error);
      }
    }
    return { kind: "lost", reason, wasSynced: false };
  }

  async #connectAt(address: Endpoint, hub: string): Promise<Ending> {
    const where = formatEndpoint(address);
    let socket: TLSSocket | undefined;
    try {
      const trust = { caPem: this.#options.caPem, clock: this.#options.clock };
      const signal = this.#stopping.signal;
      socket = await connectTls(address, { trust, timeoutMs: CONNECT_TIMEOUT_MS, signal });
      const connection = new HttpConnection(socket, where);
      const answer = await connection.upgrade(SYNC_PATH, SYNC_UPGRADE, CONNECT_TIMEOUT_MS);
      if (!("head" in answer)) throw unreachable(where, `HTTP ${answer.status}`);
      return await this.#stay(socket, answer.head, hub);
    } catch (error) {
      socket?.on("error", () => {});
      socket?.destroy();
      return { kind: "lost", reason: messageOf(error), wasSynced: false };
    }
  }

  async #stay(socket: TLSSocket, head: Uint8Array, hub: string): Promise<Ending> {
    const ends = endsOf(socket);
    const stream = new Stream(socket, {
      device: this.#device,
      caPin: this.#caPin,
      options: this.#options,
      sink: () => this.#sink,
      aeads: () => this.#aeads,
      synced: () => {
        this.#options.log.info("hub-synced", { hub });
        this.#tell({ state: "synced", hub, ...ends });
      },
      time: (unixMs) => {
        if (this.#status.state === "synced") this.#tell({ ...this.#status, hubUnixMs: unixMs });
      },
    });
    this.#stream = stream;
    if (ends.localAddress !== undefined) this.#tell({ state: "connecting", hub, ...ends });
    if (this.#stopping.signal.aborted) stream.close("stopped");
    try {
      return await stream.run(head);
    } finally {
      this.#stream = undefined;
    }
  }

  #tell(status: SourceStatus): void {
    const hub = status.hub ?? this.#status.hub;
    const hubUnixMs = status.hubUnixMs ?? this.#status.hubUnixMs;
    this.#status = { ...status, ...(hub !== undefined && { hub }), ...(hubUnixMs !== undefined && { hubUnixMs }) };
    this.#sink?.status(this.#status);
  }
}

/** This end's address, as text; empty while the runtime does not tell. */
function localAddressOf(socket: TLSSocket): string {
  return unmapped(socket.localAddress);
}

/** Both ends, as far as the runtime tells. */
function endsOf(socket: TLSSocket): Pick<SourceStatus, "localAddress" | "remote"> {
  const localAddress = localAddressOf(socket);
  const address = unmapped(socket.remoteAddress);
  const port = socket.remotePort;
  return {
    ...(localAddress !== "" && { localAddress }),
    ...(address !== "" && port !== undefined && { remote: { address, port } }),
  };
}

function unmapped(address: string | undefined): string {
  return (address ?? "").replace(/^::ffff:(?=[0-9.]+$)/, "");
}

interface StreamContext {
  readonly device: Signer;
  readonly caPin: Uint8Array;
  readonly options: HubClientOptions;
  readonly sink: () => StateSink | undefined;
  readonly aeads: () => readonly string[];
  /** the first state of this connection was applied */
  readonly synced: () => void;
  readonly time: (unixMs: number) => void;
}

/** One upgraded connection, from the hub's hello to its end. */
class Stream {
  readonly #socket: TLSSocket;
  readonly #context: StreamContext;
  readonly #reader: FrameReader;
  #phase: "hello" | "welcome" | "open" | "ended" = "hello";
  #challenge: Uint8Array = new Uint8Array(0);
  /** fields of a report and messages that the hub takes beyond the first ones */
  #takes: readonly string[] = [];
  #isSynced = false;
  #isEvaluating = false;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #end: (ending: Ending) => void = () => {};

  constructor(socket: TLSSocket, context: StreamContext) {
    this.#socket = socket;
    this.#context = context;
    this.#reader = new FrameReader(MAX_HUB_FRAME_BYTES, (message) => this.#onMessage(message));
  }

  /** @param head octets that came with the upgrade */
  run(head: Uint8Array): Promise<Ending> {
    return new Promise((resolve) => {
      if (this.#phase === "ended") return resolve({ kind: "lost", reason: "stopped", wasSynced: false });
      this.#end = resolve;
      this.#socket.on("data", (chunk: Uint8Array) => this.#push(chunk));
      this.#socket.on("error", (error) => this.close(errnoOf(error) || messageOf(error)));
      this.#socket.on("end", () => this.close("the hub closed the connection"));
      this.#socket.on("close", () => this.close("the connection is gone"));
      this.#heard();
      this.#push(head);
    });
  }

  close(reason: string): void {
    this.#finish({ kind: "lost", reason, wasSynced: this.#isSynced });
  }

  /** Of this end; "" when the runtime does not say. */
  get localAddress(): string {
    return localAddressOf(this.#socket);
  }

  probe(): boolean {
    if (this.#phase !== "open" || !this.#takes.includes("ping")) return false;
    this.#send({ t: "ping" });
    return true;
  }

  report(): void {
    if (this.#phase === "open") this.#send({ t: "report", report: this.#makeReport() });
  }

  #finish(ending: Ending): void {
    if (this.#phase === "ended") return;
    this.#phase = "ended";
    clearTimeout(this.#silence);
    this.#reader.stop();
    this.#socket.destroy();
    this.#end(ending);
  }

  #push(chunk: Uint8Array): void {
    if (this.#phase === "ended" || chunk.length === 0) return;
    this.#heard();
    const fault = this.#reader.push(chunk);
    if (fault !== undefined) this.close(`the hub's stream is broken: ${fault}`);
  }

  #heard(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.close("the hub is silent"), SILENCE_MS);
  }

  #onMessage(value: unknown): void {
    const message = readHubMessage(value);
    if (this.#phase === "open") this.#context.sink()?.heard?.();
    if (message === undefined || !this.#isExpected(message)) {
      return this.close("the hub sent what this release does not understand");
    }
    switch (message.t) {
      case "hello":
        this.#takes = message.takes;
        return this.#answerHello(message.challenge, message.unixMs, message.signature);
      case "welcome":
        this.#phase = "open";
        return;
      case "refused":
        return this.#finish({ ...message, kind: "refused" });
      case "ping":
        if (this.#learnTime(message.unixMs, message.signature)) this.#send({ t: "pong" });
        return;
      case "pong":
        return;
      case "dryRun":
        return void this.#answerDryRun(message);
      default:
        this.#context.sink()?.apply(message);
        this.#send({ t: "ack", revision: message.revision });
        if (this.#isSynced) return;
        this.#isSynced = true;
        this.#context.synced();
    }
  }

  /** One at a time: a dry run costs a whole resolution. */
  async #answerDryRun({ id, puts, deletes }: DryRunMessage): Promise<void> {
    let result: DryRunResult;
    if (this.#isEvaluating) result = { ...NO_FLOWS, fault: "another dry run is still going on" };
    else {
      this.#isEvaluating = true;
      try {
        const evaluate = this.#context.sink()?.evaluate;
        result = await evaluate?.(puts, deletes) ?? { ...NO_FLOWS, fault: "this member does not do dry runs" };
      } catch (error) {
        result = { ...NO_FLOWS, fault: messageOf(error) };
      } finally {
        this.#isEvaluating = false;
      }
    }
    this.#send({ t: "dryRunResult", id, result: fitResult(result, MAX_RESULT_BYTES) });
  }

  #isExpected(message: HubMessage): boolean {
    if (message.t === "refused") return true;
    if (this.#phase === "open") return message.t !== "hello" && message.t !== "welcome";
    return message.t === this.#phase;
  }

  #answerHello(challenge: Uint8Array, unixMs: number, signature: Uint8Array): void {
    this.#challenge = challenge;
    if (!this.#learnTime(unixMs, signature)) return;
    const { device, caPin, sink } = this.#context;
    this.#phase = "welcome";
    this.#send({
      t: "auth",
      deviceKey: device.publicKey,
      signature: device.sign(authMessageOf(challenge, caPin)),
      resume: sink()?.resume() ?? null,
      report: this.#makeReport(),
    });
  }

  /** @returns false when the time is not the hub's; the connection is closed then */
  #learnTime(unixMs: number, signature: Uint8Array): boolean {
    const { recordKey, clock } = this.#context.options;
    if (!verifyEd25519(recordKey, timeMessageOf(this.#challenge, unixMs), signature)) {
      this.close("the hub's time is not signed by its key");
      return false;
    }
    clock.learn(unixMs);
    this.#context.time(unixMs);
    return true;
  }

  #makeReport(): MemberReport {
    const { options, sink } = this.#context;
    const aeads = this.#takes.includes("aeads") ? { aeads: this.#context.aeads() } : {};
    const does = this.#takes.includes("does") ? { does: sink()?.evaluate === undefined ? [] : [DOES_DRY_RUN] } : {};
    const { network, ...said } = options.report();
    const where = this.#takes.includes("network") && network !== undefined ? { network } : {};
    return { ...said, localAddress: this.localAddress, ...aeads, ...does, ...where };
  }

  #send(message: MemberMessage): void {
    if (this.#phase !== "ended") this.#socket.write(encodeFrame(message));
  }
}
