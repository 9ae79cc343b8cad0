/** `edgemesh policy get`; -o wide lists the rules with their hits, and what policies may refer to */
import type { PoliciesDocument } from "../agent/documents.ts";
import { EXIT_OK } from "../errors.ts";
import { AgentClient } from "./agent_client.ts";
import type { CommandContext } from "./context.ts";
import { clean, labelText, printDocument, table } from "./output.ts";

export async function policyGet(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const document = await new AgentClient(config.socket, config.timeoutMs).get<PoliciesDocument>("/v1/policies");
  if (await printDocument(context.terminal, config.output, document)) return EXIT_OK;
  const { isReady, revision, enforcement } = document;
  const isWide = config.output === "wide";
  const side = (isOn: boolean) => isOn ? "closed but for rules" : "open";
  const first = isReady
    ? `revision ${revision}: ingress ${side(enforcement.ingress)}, egress ${side(enforcement.egress)}${
      modeText(document)
    }`
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
  context.terminal.out(`${first}\n${list}${isWide ? ruleList(document) + referredList(document) : ""}`);
  return EXIT_OK;
}

/** What differs from Cilium's defaults in how policies are read, when it changes what is dropped. */
function modeText({ settings }: PoliciesDocument): string {
  const words = [
    ...(settings?.auditMode ? ["audit mode: nothing is dropped, only reported"] : []),
    ...(settings !== null && settings.enforcementMode !== "default" ? [`enforcement ${settings.enforcementMode}`] : []),
    ...(settings?.hostFirewall ? ["host firewall on"] : []),
  ];
  return words.map((word) => `; ${word}`).join("");
}

/** CIDR groups and services that policies may refer to. */
function referredList({ cidrGroups = [], services = [] }: PoliciesDocument): string {
  const rows = [
    ...cidrGroups.map(({ name, document }) => ["CiliumCIDRGroup", "-", name, prefixText(document)]),
    ...services.map(({ namespace, name, selector, addresses }) => [
      "Service",
      namespace,
      name,
      selector === null ? listText(addresses) : `members with ${labelText(selector)}`,
    ]),
  ];
  return rows.length === 0
    ? ""
    : `\n${table(["KIND", "NAMESPACE", "NAME", "MEANS"], rows.map((row) => row.map(clean)))}`;
}

function prefixText(document: Readonly<Record<string, unknown>>): string {
  const spec = document["spec"] as { externalCIDRs?: unknown } | undefined;
  const cidrs = spec?.externalCIDRs;
  return listText(Array.isArray(cidrs) ? cidrs.map(String) : []);
}

function listText(texts: readonly string[]): string {
  if (texts.length === 0) return "nobody";
  const shown = texts.slice(0, 5).join(", ");
  return texts.length > 5 ? `${shown} and ${texts.length - 5} more` : shown;
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
