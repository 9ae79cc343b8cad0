/**
 * The mesh state of the hub's own agent: a subscription in the same process instead of a connection. It gets exactly the frames that
 * any other member would.
 */
import type { Log } from "../../src/ports.ts";
import type { StateSink, StateSource } from "../sync/source.ts";
import type { DryRuns } from "./dry_runs.ts";
import type { HubState, Subscription } from "./state.ts";

export interface LocalSourceOptions {
  readonly state: Pick<HubState, "subscribe" | "noteAeads">;
  /** the hub's member name */
  readonly name: string;
  /** Unix milliseconds */
  readonly unixMs: () => number;
  readonly log: Log;
  /** where this member's answers to dry runs are asked for; absent: nowhere */
  readonly dryRuns?: Pick<DryRuns, "addLocal">;
}

export class LocalSource implements StateSource {
  readonly #options: LocalSourceOptions;
  #subscription: Subscription | undefined;

  constructor(options: LocalSourceOptions) {
    this.#options = options;
  }

  start(sink: StateSink): void {
    const { state, name, unixMs, dryRuns } = this.#options;
    if (sink.evaluate !== undefined) dryRuns?.addLocal(name, sink.evaluate);
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

  announce(aeads: readonly string[]): void {
    const { state, name, log } = this.#options;
    state.noteAeads(name, aeads).catch((error: unknown) => {
      log.error("hub-announce-failed", { reason: error instanceof Error ? error.message : String(error) });
    });
  }

  stop(): Promise<void> {
    this.#subscription?.();
    this.#subscription = undefined;
    return Promise.resolve();
  }
}
