/** `edgemesh policy get`; -o wide lists the rules with their hits */
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
  context.terminal.out(`${first}\n${list}${config.output === "wide" ? ruleList(document) : ""}`);
  return EXIT_OK;
}

/** Rules in force, with how often each decided; "?" while the datapath is behind. */
function ruleList({ policies, undecidedHits }: PoliciesDocument): string {
  const count = (hits: number | null) => hits === null ? "?" : String(hits);
  const rows = policies.flatMap((policy) =>
    policy.rules.map(({ path, verdict, hits }) =>
      [
        `${policy.kind} ${policy.namespace === "" ? "" : `${policy.namespace}/`}${policy.name}`,
        path,
        verdict,
        count(hits),
      ]
        .map(clean)
    )
  );
  return `\n${table(["POLICY", "RULE", "ACTION", "HITS"], [...rows, ["no rule", "-", "-", count(undecidedHits)]])}`;
}
