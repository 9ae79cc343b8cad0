/** Reads `config` of a scenario. */
import { field, joinPath, type Problems } from "../../src/policy/fields.ts";
import { itemsAt, textAt } from "./read_values.ts";
import { DEFAULT_CONFIG, type ScenarioConfig } from "./scenario.ts";

const MODES = ["default", "always", "never"] as const;
/** auto is always wherever there is a Kubernetes, and there is one in every scenario */
const LOCALHOST = ["always", "policy", "auto"] as const;
const SWITCHES = [
  "policyDefaultLocalCluster",
  "hostFirewall",
  "auditMode",
  "clusterNetworkPolicy",
  "enableL7Proxy",
  "enableICMPRules",
  "enableNodeSelectorLabels",
] as const;

/** The defaults where nothing is said. */
export function readConfig(value: unknown, path: string, problems: Problems): ScenarioConfig {
  const fields = value === undefined ? undefined : problems.object(value, path, Object.keys(DEFAULT_CONFIG));
  if (fields === undefined) return DEFAULT_CONFIG;
  const word = <T extends string>(name: string, words: readonly T[]): T | undefined => {
    const one = field(fields, name);
    return one === undefined ? undefined : problems.word(one, joinPath(path, name), words);
  };
  const switches: Partial<Record<typeof SWITCHES[number], boolean>> = {};
  for (const name of SWITCHES) {
    const one = field(fields, name);
    const isOn = one === undefined ? undefined : problems.boolean(one, joinPath(path, name));
    if (isOn !== undefined) switches[name] = isOn;
  }
  const localhost = word("allowLocalhost", LOCALHOST) ?? DEFAULT_CONFIG.allowLocalhost;
  return {
    ...DEFAULT_CONFIG,
    ...switches,
    localCluster: textAt(fields, path, "localCluster", problems) ?? DEFAULT_CONFIG.localCluster,
    enforcementMode: word("enforcementMode", MODES) ?? DEFAULT_CONFIG.enforcementMode,
    allowLocalhost: localhost === "policy" ? "policy" : "always",
    policyCIDRMatchMode: itemsAt(
      fields,
      path,
      "policyCIDRMatchMode",
      problems,
      (item, at) => problems.word(item, at, ["nodes", "pods"] as const),
    ),
  };
}
