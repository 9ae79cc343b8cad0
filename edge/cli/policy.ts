/** `edgemesh policy get` */
import type { PoliciesDocument } from "../agent/documents.ts";
import { EXIT_OK } from "../errors.ts";
import { AgentClient } from "./agent_client.ts";
import type { CommandContext } from "./context.ts";
import { clean, printDocument, table } from "./output.ts";

export async function policyGet(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const document = await new AgentClient(config.socket, config.timeoutMs).get<PoliciesDocument>("/v1/policies");
  if (await printDocument(context.terminal, config.output, document)) return EXIT_OK;
  const { isReady, revision, enforcement } = document;
  const side = (isOn: boolean) => isOn ? "closed but for rules" : "open";
  const first = isReady
    ? `revision ${revision}: ingress ${side(enforcement.ingress)}, egress ${side(enforcement.egress)}`
    : "not ready: new inbound connections are refused";
  const rows = document.policies.map((policy) =>
    [
      policy.kind,
      policy.namespace === "" ? "-" : policy.namespace,
      policy.name,
      policy.state,
      policy.selectsSelf ? "yes" : "no",
      policy.reason ?? "",
    ].map(clean)
  );
  const list = rows.length === 0
    ? "no policies\n"
    : table(["KIND", "NAMESPACE", "NAME", "STATE", "SELECTS US", "REASON"], rows);
  context.terminal.out(`${first}\n${list}`);
  return EXIT_OK;
}
