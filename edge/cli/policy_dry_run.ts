/** `edgemesh policy dry-run -f FILE`: asks the agent of this machine what a change would newly drop. */
import type { DryRunDocument } from "../agent/documents.ts";
import { EXIT_OK } from "../errors.ts";
import { AgentClient } from "./agent_client.ts";
import type { CommandContext } from "./context.ts";
import { dryRunText } from "./dry_run.ts";
import { readObjects } from "./object_files.ts";
import { printDocument } from "./output.ts";

/** A resolution of many policies may take this long, on top of the usual time. */
const PATIENCE_MS = 20_000;

/** Exit code 0 whatever would be dropped: it is an answer. */
export async function policyDryRun(context: CommandContext): Promise<number> {
  const { terminal, loaded: { config } } = context;
  const documents = (await readObjects(context, "try")).map(({ document }) => document);
  const client = new AgentClient(config.socket, config.timeoutMs);
  const result = await client.post<DryRunDocument>("/v1/policy/dry-run", { documents }, PATIENCE_MS);
  if (await printDocument(terminal, config.output, result)) return EXIT_OK;
  const reason = result.fault ?? null;
  terminal.out(dryRunText({ members: [{ name: "this member", state: "answered", reason, result }] }));
  return EXIT_OK;
}
