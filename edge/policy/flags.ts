/**
 * What an agent's flags make invalid in a Cilium policy. Documents may be anything: what is not shaped like a policy has other errors.
 * @see facts policy.md section 13
 */
import type { PolicyError } from "../../src/policy/errors.ts";
import type { ScenarioConfig } from "./scenario.ts";

const SECTIONS = ["ingress", "ingressDeny", "egress", "egressDeny"];

/** Errors of a document under a configuration; none for a document of Kubernetes. */
export function refusedByFlags(document: unknown, config: ScenarioConfig): PolicyError[] {
  const { kind, spec, specs } = fieldsOf(document);
  if (typeof kind !== "string" || !kind.startsWith("Cilium")) return [];
  const errors: PolicyError[] = [];
  const rules: [string, unknown][] = [
    ["spec", spec],
    ...listOf(specs).map((one, i): [string, unknown] => [`specs[${i}]`, one]),
  ];
  for (const [at, rule] of rules) {
    for (const section of SECTIONS) {
      listOf(fieldsOf(rule)[section]).forEach((entry, i) => {
        for (const [path, flag] of flagsOf(fieldsOf(entry), config)) {
          const message = `It needs ${flag}, which is off`;
          errors.push({ path: `${at}.${section}[${i}].${path}`, code: "CONFLICT", message });
        }
      });
    }
  }
  return errors;
}

/** Fields of an entry that need a flag that is off. */
function flagsOf(entry: Readonly<Record<string, unknown>>, config: ScenarioConfig): [path: string, flag: string][] {
  const found: [string, string][] = [];
  if (!config.enableICMPRules && entry["icmps"] !== undefined) found.push(["icmps", "enableICMPRules"]);
  for (const nodes of ["fromNodes", "toNodes"]) {
    if (!config.enableNodeSelectorLabels && entry[nodes] !== undefined) found.push([nodes, "enableNodeSelectorLabels"]);
  }
  if (config.enableL7Proxy) return found;
  listOf(entry["toPorts"]).forEach((block, i) => {
    if (fieldsOf(block)["rules"] !== undefined) found.push([`toPorts[${i}].rules`, "enableL7Proxy"]);
  });
  return found;
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value as Record<string, unknown> : {};
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
