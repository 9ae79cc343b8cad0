/** `edgemesh identity list` */
import type { IdentitiesDocument } from "../agent/documents.ts";
import { EXIT_OK } from "../errors.ts";
import { AgentClient } from "./agent_client.ts";
import type { CommandContext } from "./context.ts";
import { clean, printDocument, table } from "./output.ts";

export async function identityList(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const document = await new AgentClient(config.socket, config.timeoutMs).get<IdentitiesDocument>("/v1/identities");
  if (await printDocument(context.terminal, config.output, document)) return EXIT_OK;
  const rows = document.identities.flatMap(({ id, labels }) => {
    const texts = Object.entries(labels).map(([key, value]) => clean(`${key}=${value}`)).sort();
    // one label a line, as Cilium's command prints them
    return (texts.length === 0 ? ["-"] : texts).map((text, i) => [i === 0 ? String(id) : "", text]);
  });
  context.terminal.out(table(["ID", "LABELS"], rows));
  return EXIT_OK;
}
