/** Rules and verdicts as people read them. */
import type { RuleRef } from "../../src/policy/engine.ts";
import { FORWARD, nameOfVerdict, type Verdict } from "../../src/verdict.ts";

/**
 * "CiliumNetworkPolicy shop/web rule 0 (spec.ingress[0])". The number is the rule's place in its list; a rule that nobody wrote
 * has none.
 */
export function ruleText(rule: RuleRef): string {
  const [kind = "", namespace = "", ...name] = rule.policy.split("/");
  const policy = name.length === 0
    ? rule.policy
    : `${kind} ${namespace === "" ? "" : `${namespace}/`}${name.join("/")}`;
  const number = /\[([0-9]+)\]$/.exec(rule.path)?.[1];
  return number === undefined ? policy : `${policy} rule ${number} (${rule.path})`;
}

/** "allow", or "deny (133 POLICY_DENIED)" */
export function verdictText(verdict: Verdict): string {
  return verdict === FORWARD ? "allow" : `deny (${verdict} ${nameOfVerdict(verdict)})`;
}
