/** Where an agent's mesh state comes from; declared beside the sync stream, so that the stream knows nothing of the agent. */
export type { SourceStatus, StateSink, StateSource } from "../sync/source.ts";
