/**
 * Where an agent's mesh state comes from: a hub's stream (`client.ts`), the hub in the same process (`edge/hub/local_source.ts`), or
 * a mesh file. The agent gives a sink; the source fills it for as long as it runs.
 */
import type { StateFrame } from "../../src/mesh/entries.ts";
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
};

/** What an agent offers to its source. All calls come from the control thread, one after the other. */
export interface StateSink {
  /** Applies one frame. What is broken in it is refused there; it must not throw. */
  apply(frame: StateFrame): void;
  /** Told at every change. */
  status(status: SourceStatus): void;
  /** What was applied last; `undefined`: nothing, a snapshot is needed. */
  resume(): ResumePoint | undefined;
}

/** A stream of mesh state. */
export interface StateSource {
  /** Starts it; once. */
  start(sink: StateSink): void;
  /** Ends it; nothing is told to the sink afterwards. */
  stop(): Promise<void>;
}
