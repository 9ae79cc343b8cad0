/** Rules and verdicts as people read them. */
import type { JudgedBy, RuleRef } from "../../src/policy/engine.ts";
import type { HttpRule } from "../../src/policy/model.ts";
import { FORWARD, nameOfVerdict, REDIRECT, type Verdict } from "../../src/verdict.ts";

/**
 * "CiliumNetworkPolicy shop/web rule 0 (spec.ingress[0])". The number is the rule's place in its list; a rule that nobody wrote
 * has none.
 */
export function ruleText(rule: RuleRef): string {
  const [kind = "", namespace = "", ...name] = rule.policy.split("/");
  const policy = name.length === 0
    ? rule.policy
    : `${kind} ${namespace === "" ? "" : `${namespace}/`}${name.join("/")}`;
  const number = /gress(?:Deny)?\[([0-9]+)\]/.exec(rule.path)?.[1];
  return number === undefined ? policy : `${policy} rule ${number} (${rule.path})`;
}

/** "allow", also as far as a proxy allows it, or "deny (133 POLICY_DENIED)" */
export function verdictText(verdict: Verdict): string {
  if (verdict === REDIRECT) return "allow (redirected to a proxy)";
  return verdict === FORWARD ? "allow" : `deny (${verdict} ${nameOfVerdict(verdict)})`;
}

/** What a proxy lets through by one rule: "HTTP method GET, path /public/.*", "DNS *.example.com.", a text for each alternative. */
export function requestTexts({ l7 }: JudgedBy): string[] {
  return l7.kind === "dns" ? l7.rules.map(({ pattern }) => `DNS ${pattern}`) : l7.rules.map(httpText);
}

function httpText({ method, path, host, headers }: HttpRule): string {
  const parts = [
    ...(method === undefined ? [] : [`method ${method}`]),
    ...(path === undefined ? [] : [`path ${path}`]),
    ...(host === undefined ? [] : [`host ${host}`]),
    ...headers.map(({ name, value, mismatch }) =>
      `header ${name}${value === undefined ? "" : `: ${value}`}${mismatch === undefined ? "" : ` (else ${mismatch})`}`
    ),
  ];
  return `HTTP ${parts.length === 0 ? "any request" : parts.join(", ")}`;
}
