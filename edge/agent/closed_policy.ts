/**
 * What stands in place of a policy or group that this member cannot read: a newer hub's, say. A gate that nobody understands stays
 * shut; status names the object and why.
 *
 * It allows nothing and closes both directions for all whom the object may select. What other policies allow would still pass, so
 * where the object may deny something, everything is denied, in the tier in which its own rules would have stood.
 */
import { EGRESS, INGRESS, type Policy, type Rule, TIER_ADMIN, TIER_NORMAL } from "../../src/policy/model.ts";
import { CIDR_GROUP_KIND } from "../../src/policy/read_cidr_group.ts";
import { readPolicy } from "../../src/policy/read_policy.ts";

/**
 * @param key      "<kind>/<ns>/<name>"
 * @param document as it came; plain data of any shape
 */
export function closedPolicy(key: string, document: unknown): Policy {
  const [kind = "", namespace = ""] = key.split("/");
  const name = "unreadable";
  const closed = readPolicy({
    apiVersion: "cilium.io/v2",
    kind: namespace === "" ? "CiliumClusterwideNetworkPolicy" : "CiliumNetworkPolicy",
    metadata: namespace === "" ? { name } : { name, namespace },
    spec: { endpointSelector: {}, ingress: [{}], egress: [{}] },
  });
  if (!("policy" in closed)) throw new Error(`Cannot close for policy "${key}": ${closed.errors[0]?.message}`);
  const tier = tierOfDenial(kind, document);
  if (tier === undefined) return closed.policy;
  const { specs, ...rest } = closed.policy;
  const denials = [INGRESS, EGRESS].map((direction): Rule => ({
    direction: direction as Rule["direction"],
    tier,
    priority: 0,
    verdict: "deny",
    peers: undefined,
    ports: undefined,
    names: [],
    path: "spec",
  }));
  return { ...rest, specs: specs.map((spec) => ({ ...spec, rules: [...spec.rules, ...denials] })) };
}

/** Where the object may deny what others allow; undefined: nowhere. A baseline denies only what no other policy allows. */
function tierOfDenial(kind: string, document: unknown): number | undefined {
  switch (kind) {
    case "NetworkPolicy":
    case "BaselineAdminNetworkPolicy":
      return undefined;
    case CIDR_GROUP_KIND: // whoever names it may do so in a rule that denies
      return TIER_NORMAL;
    case "CiliumNetworkPolicy":
    case "CiliumClusterwideNetworkPolicy":
      return mentionsDenial(document) ? TIER_NORMAL : undefined;
    default:
      return TIER_ADMIN;
  }
}

function mentionsDenial(document: unknown): boolean {
  return /"(ingress|egress)Deny"/.test(JSON.stringify(document) ?? "");
}
