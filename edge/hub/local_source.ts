/**
 * The mesh state of the hub's own agent: a subscription in the same process instead of a connection. It gets exactly the frames that
 * any other member would.
 */
import type { StateSink, StateSource } from "../sync/source.ts";
import type { HubState, Subscription } from "./state.ts";

export interface LocalSourceOptions {
  readonly state: Pick<HubState, "subscribe">;
  /** the hub's member name */
  readonly name: string;
  /** Unix milliseconds */
  readonly unixMs: () => number;
}

export class LocalSource implements StateSource {
  readonly #options: LocalSourceOptions;
  #subscription: Subscription | undefined;

  constructor(options: LocalSourceOptions) {
    this.#options = options;
  }

  start(sink: StateSink): void {
    const { state, name, unixMs } = this.#options;
    let isSynced = false;
    this.#subscription = state.subscribe(
      name,
      sink.resume(),
      (frame) => {
        sink.apply(frame);
        if (isSynced) return;
        isSynced = true;
        sink.status({ state: "synced", hub: "local", hubUnixMs: unixMs() });
      },
      (reason) => sink.status({ state: "refused", detail: reason, hub: "local" }),
    );
  }

  stop(): Promise<void> {
    this.#subscription?.();
    this.#subscription = undefined;
    return Promise.resolve();
  }
}
