/** From the hub's flags, whose names are Cilium's, to the settings that members read policies by. */
import type { PolicySettings } from "../../src/mesh/entries.ts";
import type { Config } from "../config.ts";

/** As members take it when it is absent. */
const DEFAULT_MAX_IPS_PER_NAME = 1000;

type PolicyFlags = Pick<
  Config,
  | "enablePolicy"
  | "policyAuditMode"
  | "policyCidrMatchMode"
  | "policyDefaultLocalCluster"
  | "allowLocalhost"
  | "enableHostFirewall"
  | "fqdnMinTtlSeconds"
  | "fqdnMaxIpsPerName"
  | "fqdnRejectCode"
>;

/** What the flags say about policies. What is off or a default is left out: members of older releases know no words for it. */
export function policySettingsOf(config: PolicyFlags): PolicySettings {
  const { fqdnMinTtlSeconds, fqdnMaxIpsPerName, fqdnRejectCode } = config;
  const fqdn = {
    ...(fqdnMinTtlSeconds !== 0 && { minTtlSeconds: fqdnMinTtlSeconds }),
    ...(fqdnMaxIpsPerName !== DEFAULT_MAX_IPS_PER_NAME && { maxIpsPerName: fqdnMaxIpsPerName }),
    ...(fqdnRejectCode !== "refused" && { rejectCode: fqdnRejectCode }),
  };
  return {
    enforcementMode: config.enablePolicy,
    defaultLocalCluster: config.policyDefaultLocalCluster,
    allowLocalhost: config.allowLocalhost,
    ...(config.policyAuditMode && { auditMode: true }),
    ...(config.policyCidrMatchMode.length > 0 && { cidrMatchMode: config.policyCidrMatchMode }),
    ...(config.enableHostFirewall && { hostFirewall: true }),
    ...(Object.keys(fqdn).length > 0 && { fqdn }),
  };
}
