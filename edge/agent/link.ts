/**
 * The control thread's end of the datapath Worker: commands go in, events come back, counters are read from shared memory.
 *
 * The Worker never returns to its event loop (it blocks in poll), so commands travel through a MessageChannel port that it drains
 * after an eventfd wakes it; what it posts arrives here as usual.
 */
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import type { DatapathCommand, DatapathEvent, DatapathSnapshot, FlowRecord } from "../../src/datapath/control.ts";
import { DatapathCounters } from "../../src/datapath/counters.ts";
import type { OffloadSwitches } from "../../src/ports.ts";
import { type RedirectedFlow, RedirectView } from "../../src/datapath/redirect_view.ts";
import type { IpAddress } from "../../src/ip/address.ts";
import type { Verdict } from "../../src/verdict.ts";
import type { MemberAeadSetting } from "../../ffi/member_aead.ts";
import { Waker } from "../../ffi/poll.ts";
import { pairMemory, WAKE_FD, WANTS_END } from "../../src/pair/memory.ts";
import { EdgeError } from "../errors.ts";
import type { CipherInit } from "./cipher_worker.ts";
import type { CipherStart, StartCipher } from "./pair.ts";

export interface DatapathOptions {
  /** name of the TUN device to create */
  readonly tun: string;
  /** inner MTU: largest IP packet that enters the TUN, octets */
  readonly mtu: number;
  /** UDP port, both families; 0 = any */
  readonly wireguardPort: number;
  /** X25519 secret key, 32 octets */
  readonly privateKey: Uint8Array;
  /** newest TAI64N stamp that may have been sent before, 12 octets */
  readonly stampFloor?: Uint8Array;
  /** `libsodium` forces the default; `auto` may choose another that gives the same answers and is measured faster */
  readonly aead: "auto" | "libsodium";
  /** what may be offered to other members; `off` wherever a key log is written, which knows ChaCha20-Poly1305 only */
  readonly memberAead: MemberAeadSetting;
  /** debugging: append tshark's WireGuard key log here. Reveals traffic to whoever reads the file. */
  readonly keyLogFile?: string;
  /** what is wanted, where the kernel has it */
  readonly offload: OffloadSwitches;
  /** look for what each peer's way takes; off when absent */
  readonly probesPaths?: boolean;
  /** outer packets get the DSCP of what is inside; off when absent */
  readonly copiesDscp?: boolean;
  /** 2: sockets and ciphers have a Worker of their own (`src/pair/`); 1 when absent */
  readonly workers?: 1 | 2;
  /** SO_MARK for outer packets, so that policy routing can keep them out of the tunnel */
  readonly underlayMark?: number;
}

/** What the Worker is started with. The reverse of `DatapathLink`; `datapath_worker.ts` reads it. */
export interface WorkerInit {
  readonly options: DatapathOptions;
  readonly commands: MessagePort;
  readonly counters: SharedArrayBuffer;
  /** from the cipher Worker; there with `workers` 2 */
  readonly offloads?: MessagePort;
}

/** One message on the command port. All its commands are applied before the next packet. */
export type WorkerRequest =
  | { readonly commands: readonly DatapathCommand[] }
  | { readonly query: number }
  /** the newest flows, at most so many; 0: only a word that all before was applied */
  | { readonly flows: number; readonly limit: number }
  | { readonly stop: true };

/** The Worker's first message: it can be woken through this eventfd. */
export interface WorkerAwake {
  readonly op: "awake";
  readonly wakeFd: number;
}

/** Outcome of one echo request. */
export type PingResult = { readonly roundTripMs: number } | { readonly verdict: Verdict };

export interface DatapathLink {
  /** Rejects with an EdgeError (EDGE_TUN_DENIED, ...) when the datapath cannot start. */
  readonly ready: Promise<Extract<DatapathEvent, { op: "ready" }>>;
  send(commands: readonly DatapathCommand[]): void;
  query(): Promise<DatapathSnapshot>;
  /** The flows alive, those with the newest packets first. @param limit most of them */
  flows(limit: number): Promise<readonly FlowRecord[]>;
  /** Resolves when all that was sent before is applied, or nothing answers. */
  settled(): Promise<void>;
  /** The flow that a proxy's client port stands for. */
  redirectedFlow(handle: number): RedirectedFlow | undefined;
  /** One echo request; `undefined` when no answer came in time. A verdict when our own datapath dropped the request. */
  ping(to: IpAddress, sequence: number, timeoutMs: number): Promise<PingResult | undefined>;
  readonly counters: DatapathCounters;
  /** Log lines, changes of offloads, and fatal events. Set before the first await. */
  onEvent: (event: DatapathEvent) => void;
  /** Ends the Worker: the TUN device and the sockets are gone when it resolves. */
  stop(): Promise<void>;
}

/** How long the Worker may take to close its devices before it is terminated. */
const STOP_GRACE_MS = 1000;
const QUERY_TIMEOUT_MS = 5000;

/** Starts the Worker. Returns at once; `ready` tells how it went. */
export function startDatapath(options: DatapathOptions): DatapathLink {
  return new WorkerLink(options);
}

class WorkerLink implements DatapathLink {
  readonly ready: Promise<Extract<DatapathEvent, { op: "ready" }>>;
  readonly counters: DatapathCounters;
  onEvent: (event: DatapathEvent) => void = () => {};

  readonly #worker: Worker;
  /** the second Worker of a pair, once it was started */
  #cipher: CipherLink | undefined;
  readonly #port: MessagePort;
  readonly #exited: Promise<void>;
  readonly #waiting = new Map<number, (snapshot: DatapathSnapshot | undefined) => void>();
  readonly #flows = new Map<number, (flows: readonly FlowRecord[] | undefined) => void>();
  readonly #pings = new Map<number, (result: PingResult | undefined) => void>();
  #settleReady:
    | { resolve(event: Extract<DatapathEvent, { op: "ready" }>): void; reject(error: Error): void }
    | undefined;
  #waker: Waker | undefined;
  #nextQuery = 1;
  #nextPing = 1;
  /** made when a proxy runs for the first time */
  #redirects: { readonly buffer: SharedArrayBuffer; readonly view: RedirectView } | undefined;
  #hasExited = false;
  /** it was told to stop, or has said why it ended: its exit is no news */
  #isEnding = false;

  constructor(options: DatapathOptions) {
    const memory = new SharedArrayBuffer(DatapathCounters.bytes);
    this.counters = new DatapathCounters(memory);
    const channel = new MessageChannel();
    this.#port = channel.port1;
    const offloads = options.workers === 2 ? new MessageChannel() : undefined;
    const init: WorkerInit = {
      options,
      commands: channel.port2,
      counters: memory,
      ...(offloads && { offloads: offloads.port2 }),
    };
    this.ready = new Promise((resolve, reject) => this.#settleReady = { resolve, reject });
    this.#worker = new Worker(new URL("./datapath_worker.ts", import.meta.url), {
      workerData: init,
      transferList: [channel.port2, ...(offloads ? [offloads.port2] : [])],
    });
    this.#worker.on("message", (event: DatapathEvent | WorkerAwake | StartCipher) => {
      if (event.op !== "startCipher") return this.#receive(event);
      if (this.#hasExited) return;
      this.#cipher = new CipherLink(event.start, offloads!.port1, (code, message) => this.#fail(code, message));
    });
    this.#worker.on("error", (error: Error) => this.#fail("EDGE_DATAPATH_CRASHED", error.message));
    this.#exited = new Promise((resolve) =>
      this.#worker.once("exit", () => {
        this.#hasExited = true;
        this.#waker = undefined;
        this.#fail("EDGE_DATAPATH_STOPPED", "The datapath ended");
        void this.#cipher?.stop();
        for (const settle of this.#waiting.values()) settle(undefined);
        for (const settle of this.#flows.values()) settle(undefined);
        for (const settle of this.#pings.values()) settle(undefined);
        resolve();
      })
    );
  }

  send(commands: readonly DatapathCommand[]): void {
    if (commands.length > 0) this.#request({ commands: commands.map((command) => this.#withView(command)) });
  }

  async query(): Promise<DatapathSnapshot> {
    const query = this.#nextQuery++;
    const snapshot = await settleOrTimeout(this.#waiting, query, QUERY_TIMEOUT_MS, () => this.#request({ query }));
    if (snapshot === undefined) {
      throw new EdgeError("EDGE_DATAPATH_STOPPED", "Cannot query the datapath: it does not answer");
    }
    return snapshot;
  }

  async flows(limit: number): Promise<readonly FlowRecord[]> {
    const flows = await this.#askFlows(limit);
    if (flows === undefined) {
      throw new EdgeError("EDGE_DATAPATH_STOPPED", "Cannot list flows: the datapath does not answer");
    }
    return flows;
  }

  async settled(): Promise<void> {
    await this.#askFlows(0);
  }

  redirectedFlow(handle: number): RedirectedFlow | undefined {
    return this.#redirects?.view.read(handle);
  }

  #askFlows(limit: number): Promise<readonly FlowRecord[] | undefined> {
    const flows = this.#nextQuery++;
    return settleOrTimeout(this.#flows, flows, QUERY_TIMEOUT_MS, () => this.#request({ flows, limit }));
  }

  /** Datapath and proxies meet in this memory. */
  #withView(command: DatapathCommand): DatapathCommand {
    if (command.op !== "proxy" || command.http + command.dns === 0) return command;
    if (this.#redirects === undefined) {
      const buffer = new SharedArrayBuffer(RedirectView.bytes);
      this.#redirects = { buffer, view: new RedirectView(buffer) };
    }
    return { ...command, view: this.#redirects.buffer };
  }

  ping(to: IpAddress, sequence: number, timeoutMs: number): Promise<PingResult | undefined> {
    const id = this.#nextPing;
    this.#nextPing = (this.#nextPing % 0xffff) + 1;
    return settleOrTimeout(this.#pings, id, timeoutMs, () => this.send([{ op: "ping", id, sequence, to }]));
  }

  async stop(): Promise<void> {
    this.#isEnding = true;
    if (!this.#hasExited) this.#request({ stop: true });
    const grace = setTimeout(() => void this.#worker.terminate(), STOP_GRACE_MS);
    await this.#exited;
    await this.#cipher?.stop();
    clearTimeout(grace);
    this.#port.close();
  }

  #request(request: WorkerRequest): void {
    if (this.#hasExited) return;
    this.#port.postMessage(request);
    this.#waker?.wake();
  }

  #receive(event: DatapathEvent | WorkerAwake): void {
    switch (event.op) {
      case "awake":
        this.#waker = new Waker(event.wakeFd);
        this.#waker.wake(); // for what was posted before
        break;
      case "ready":
        this.#settleReady?.resolve(event);
        this.#settleReady = undefined;
        break;
      case "snapshot":
        this.#waiting.get(event.query)?.(event.snapshot);
        break;
      case "flows":
        this.#flows.get(event.query)?.(event.flows);
        break;
      case "pong":
        this.#pings.get(event.id)?.(
          event.verdict === 0 ? { roundTripMs: event.roundTripMs } : { verdict: event.verdict },
        );
        break;
      case "fatal":
        this.#fail(event.code, event.message);
        break;
      default:
        this.onEvent(event);
    }
  }

  #fail(code: string, message: string): void {
    const isNews = !this.#isEnding;
    this.#isEnding = true;
    if (this.#settleReady) {
      this.#settleReady.reject(new EdgeError(code as ConstructorParameters<typeof EdgeError>[0], message));
      this.#settleReady = undefined;
    } else if (isNews) this.onEvent({ op: "fatal", code, message });
  }
}

/** The cipher Worker of a pair: its end is the datapath's. */
class CipherLink {
  readonly #worker: Worker;
  readonly #words: Int32Array;
  readonly #exited: Promise<void>;
  #hasExited = false;
  #isStopping = false;

  /** @param onFail called at most once with a reason, unless it was stopped */
  constructor(start: CipherStart, offloads: MessagePort, onFail: (code: string, message: string) => void) {
    const init: CipherInit = { start, offloads };
    this.#words = pairMemory(start.memory).words;
    this.#worker = new Worker(new URL("./cipher_worker.ts", import.meta.url), {
      workerData: init,
      transferList: [offloads],
    });
    this.#worker.on("message", (event: DatapathEvent) => {
      if (event.op === "fatal") onFail(event.code, event.message);
    });
    this.#worker.on("error", (error: Error) => onFail("EDGE_DATAPATH_CRASHED", error.message));
    this.#exited = new Promise((resolve) =>
      this.#worker.once("exit", () => {
        this.#hasExited = true;
        if (!this.#isStopping && Atomics.load(this.#words, WANTS_END) === 0) {
          onFail("EDGE_DATAPATH_STOPPED", "The datapath's cipher Worker ended");
        }
        resolve();
      })
    );
  }

  /** Resolves when it is gone. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    if (this.#hasExited) return;
    Atomics.store(this.#words, WANTS_END, 1);
    const wakeFd = Atomics.load(this.#words, WAKE_FD);
    if (wakeFd > 0) new Waker(wakeFd).wake();
    const grace = setTimeout(() => void this.#worker.terminate(), STOP_GRACE_MS);
    await this.#exited;
    clearTimeout(grace);
  }
}

/** Waits for the entry `key` of `waiting` to be settled by somebody else, at most `timeoutMs`. */
function settleOrTimeout<T>(
  waiting: Map<number, (value: T | undefined) => void>,
  key: number,
  timeoutMs: number,
  begin: () => void,
): Promise<T | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => settle(undefined), timeoutMs);
    const settle = (value: T | undefined) => {
      clearTimeout(timer);
      waiting.delete(key);
      resolve(value);
    };
    waiting.set(key, settle);
    begin();
  });
}
