/**
 * Keeps a datapath running: starts the Worker, and starts it again with growing pauses when it ends. The first start that fails
 * is the caller's to report (no TUN device, no privilege); later ones are tried for ever.
 */
import type { DatapathEvent, OffloadFacts } from "../../src/datapath/control.ts";
import type { Log } from "../../src/ports.ts";
import { messageOf } from "../errors.ts";
import { Backoff } from "../sync/backoff.ts";
import type { DatapathLink } from "./link.ts";
import type { Timers } from "./timers.ts";

/** What the keeper needs and whom it tells. */
export interface KeeperOptions {
  readonly start: () => DatapathLink;
  readonly timers: Timers;
  readonly log: Log;
  /** a datapath is there, empty: fill it */
  readonly onUp: (link: DatapathLink, facts: { tun: string; port: number; offload: OffloadFacts }) => void;
  readonly onDown: (reason: string) => void;
  /** an offload of the running datapath went on or off */
  readonly onOffload: (offload: OffloadFacts) => void;
}

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;
/** a datapath that ran this long was a good one: the next pause is short again */
const GOOD_RUN_MS = 60_000;

/** One datapath at a time. */
export class DatapathKeeper {
  readonly #options: KeeperOptions;
  readonly #backoff = new Backoff({ firstMs: FIRST_PAUSE_MS, capMs: LONGEST_PAUSE_MS });
  #link: DatapathLink | undefined;
  #cancelPause: () => void = () => {};
  #isStopping = false;
  #starts = 0;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** The running datapath; undefined while there is none. */
  get link(): DatapathLink | undefined {
    return this.#link;
  }

  /** How often one was started. */
  get starts(): number {
    return this.#starts;
  }

  /** The first start. @throws EdgeError when it fails; nothing runs then */
  async start(): Promise<void> {
    await this.#startOnce();
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#cancelPause();
    const link = this.#link;
    this.#link = undefined;
    await link?.stop();
  }

  async #startOnce(): Promise<void> {
    this.#starts++;
    const link = this.#options.start();
    link.onEvent = (event) => this.#onEvent(link, event);
    try {
      const { tun, port, offload } = await link.ready;
      if (this.#isStopping) return void await link.stop();
      this.#link = link;
      const cancel = this.#options.timers.after(GOOD_RUN_MS, () => this.#backoff.reset());
      this.#cancelPause = cancel;
      this.#options.onUp(link, { tun, port, offload });
    } catch (error) {
      await link.stop().catch(() => {}); // it never ran: nothing is left to close
      throw error;
    }
  }

  #onEvent(link: DatapathLink, event: DatapathEvent): void {
    if (event.op === "log") this.#options.log[event.level](event.event, event.fields);
    if (event.op === "offload" && link === this.#link) this.#options.onOffload(event.offload);
    if (event.op !== "fatal" || link !== this.#link || this.#isStopping) return;
    this.#link = undefined;
    this.#cancelPause();
    this.#options.onDown(`${event.message} (${event.code})`);
    void link.stop().catch(() => {}).then(() => this.#tryAgain());
  }

  #tryAgain(): void {
    if (this.#isStopping) return;
    const pauseMs = this.#backoff.next();
    this.#options.log.warn("datapath-restart", { inMs: Math.round(pauseMs) });
    this.#cancelPause = this.#options.timers.after(pauseMs, () => {
      this.#startOnce().catch((error) => {
        this.#options.onDown(messageOf(error));
        this.#tryAgain();
      });
    });
  }
}
