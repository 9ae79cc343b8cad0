/** What an agent's flags, as a scenario's config gives them, let policies say. @see facts policy.md section 13 */
import { checkRegex } from "../../src/l7/regex.ts";
import type { PolicyFeatures } from "../../src/policy/features.ts";
import type { ScenarioConfig } from "./scenario.ts";

/** What is accepted where nothing is known of the mesh: what it enforces by default. */
export const DEFAULT_FEATURES: PolicyFeatures = { checkRegex };

export function featuresOf(config: ScenarioConfig): PolicyFeatures {
  return {
    checkRegex,
    l7Proxy: config.enableL7Proxy,
    icmpRules: config.enableICMPRules,
    nodeSelectorLabels: config.enableNodeSelectorLabels,
  };
}
