/** `edgemesh leave`: through the running agent, which then ends; else on the state directory itself. */
import { nodeDurableDir } from "../agent/durable_dir.ts";
import { leaveMesh } from "../agent/leave.ts";
import { MemberStore } from "../agent/store.ts";
import { EdgeError, EXIT_OK } from "../errors.ts";
import { AgentClient } from "./agent_client.ts";
import type { CommandContext } from "./context.ts";

/** The hub may take its time; the agent gives up by itself. */
const PATIENCE_MS = 30_000;

export async function leave(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const untold = await leaveThroughAgent(context) ?? await leaveAlone(config.stateDir);
  context.terminal.err("left the mesh: the membership is forgotten, the device keys are kept\n");
  if (untold !== "") {
    context.terminal.err(`the hub could not be told (${untold}): remove the member there\n`);
  }
  return EXIT_OK;
}

/** @returns undefined when no agent runs; else why the hub was not told, or "" */
async function leaveThroughAgent(context: CommandContext): Promise<string | undefined> {
  const { socket } = context.loaded.config;
  try {
    const { hubNotTold } = await new AgentClient(socket).post<{ hubNotTold: string | null }>(
      "/v1/leave",
      {},
      PATIENCE_MS,
    );
    return hubNotTold ?? "";
  } catch (error) {
    if (error instanceof EdgeError && error.code === "EDGE_AGENT_NOT_RUNNING") return undefined;
    throw error;
  }
}

async function leaveAlone(stateDir: string): Promise<string> {
  const store = new MemberStore(nodeDurableDir(stateDir));
  if (store.loadIdentity()?.membership === undefined) {
    throw new EdgeError("EDGE_NOT_JOINED", `Cannot leave: no membership in "${stateDir}"`);
  }
  return await leaveMesh(store) ?? "";
}
