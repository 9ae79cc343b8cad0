/**
 * Where an agent's mesh state comes from: a hub's stream (`client.ts`), the hub in the same process (`edge/hub/local_source.ts`), or
 * a mesh file. The agent gives a sink; the source fills it for as long as it runs.
 */
import type { StateFrame } from "../../src/mesh/entries.ts";
import type { Evaluate } from "./dry_run.ts";
import type { ResumePoint } from "./messages.ts";

/** How a source stands with its hub. */
export type SourceStatus = {
  /**
   * connecting: on the way to a first or a new connection; synced: the newest state was applied and the stream is open;
   * offline: no hub can be reached, tried again for ever; refused: the hub said no, and the source has stopped for good
   */
  state: "connecting" | "synced" | "offline" | "refused";
  /** why, for a person; of a refusal "code: message" */
  detail?: string;
  /** `host:port` of the hub connected to, or tried last */
  hub?: string;
  /** the newest time that a hub signed, Unix milliseconds */
  hubUnixMs?: number;
  /** address of this end of the connection, while there is one; before its first frame, too */
  localAddress?: string;
  /** the hub's end of that connection */
  remote?: { readonly address: string; readonly port: number };
};

/** What an agent offers to its source. All calls come from the control thread, one after the other. */
export interface StateSink {
  /** Applies one frame. What is broken in it is refused there; it must not throw. */
  apply(frame: StateFrame): void;
  /** Told at every change. */
  status(status: SourceStatus): void;
  /** Something came from the hub, whatever it was; told before it is looked at. */
  heard?(): void;
  /** Says which recent flows a change would newly drop; without it this member is not asked. */
  readonly evaluate?: Evaluate;
  /** What was applied last; `undefined`: nothing, a snapshot is needed. */
  resume(): ResumePoint | undefined;
}

/** A stream of mesh state. */
export interface StateSource {
  /**
   * Says which AEADs this member seals transport data with beside WireGuard's own, now and at each new connection. Before `start`,
   * and again when it changes.
   */
  announce(aeads: readonly string[]): void;
  /** Starts it; once. */
  start(sink: StateSink): void;
  /**
   * Asks the hub for a word, which the sink hears of.
   * @returns false: there is no connection, or the hub cannot be asked; it speaks by itself every 30 s then
   */
  probe?(): boolean;
  /** Ends it; nothing is told to the sink afterwards. */
  stop(): Promise<void>;
}
