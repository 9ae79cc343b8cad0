/** What each end of a flow decides, as a document and as text for people. */
import { nameOfProtocol } from "../../src/wire/numbers.ts";
import type { Labels } from "../../src/identity/labels.ts";
import { formatAddress } from "../../src/ip/address.ts";
import type { JudgedBy, RuleRef } from "../../src/policy/engine.ts";
import { FORWARD, nameOfVerdict, REDIRECT } from "../../src/verdict.ts";
import { requestTexts, ruleText } from "./rule_text.ts";
import type { Flow, PolicyWorld, Step, WorldEnd } from "./world.ts";

/** `policy trace -o json` */
export interface TraceDocument {
  readonly from: TraceEnd;
  readonly to: TraceEnd;
  readonly protocol: number;
  readonly port: number;
  readonly verdict: TraceVerdict;
  /** why it is dropped: a drop reason's number and name; `null` when it passes */
  readonly reason: { readonly code: number; readonly name: string } | null;
  readonly isLoopback: boolean;
  readonly steps: readonly TraceStep[];
}

/** redirect: allowed as far as a proxy allows what is asked in it */
export type TraceVerdict = "allow" | "deny" | "redirect";

export interface TraceEnd {
  readonly name: string;
  /** `null` for an address that belongs to nobody: each end sees it as its own policies tell addresses apart */
  readonly identity: number | null;
  readonly labels: Labels;
}

export interface TraceStep {
  readonly side: "egress" | "ingress";
  /** whose policies decide */
  readonly endpoint: string;
  /** what no rule allows is dropped */
  readonly isEnforced: boolean;
  /** the other end's, as this one sees it */
  readonly identity: number;
  readonly verdict: TraceVerdict;
  /** rules that match, strongest first */
  readonly matched: readonly TraceRule[];
  /** `null`: no rule decides, the direction's default holds */
  readonly decidedBy: TraceRule | null;
  /** what the proxy judges by, one that matches is enough; empty unless the verdict is redirect */
  readonly l7: readonly TraceRequests[];
}

/** What one rule lets through a proxy. */
export interface TraceRequests {
  readonly rule: TraceRule;
  readonly kind: "http" | "dns";
  readonly requests: readonly string[];
}

export interface TraceRule {
  readonly policy: string;
  readonly path: string;
  readonly action: string;
  readonly text: string;
}

/** Judges a flow and says why. */
export function traceFlow(world: PolicyWorld, flow: Flow): TraceDocument {
  const { verdict, steps, isLoopback } = world.judge(flow);
  return {
    from: traceEnd(flow.from),
    to: traceEnd(flow.to),
    protocol: flow.protocol,
    port: flow.port,
    verdict: wordOf(verdict),
    reason: wordOf(verdict) !== "deny" ? null : { code: verdict, name: nameOfVerdict(verdict) },
    isLoopback,
    steps: steps.map(traceStep),
  };
}

function wordOf(verdict: number): TraceVerdict {
  return verdict === FORWARD ? "allow" : verdict === REDIRECT ? "redirect" : "deny";
}

function traceEnd(end: WorldEnd): TraceEnd {
  return "identity" in end
    ? { name: end.ref, identity: end.identity, labels: end.labels }
    : { name: formatAddress(end.address), identity: null, labels: {} };
}

function traceStep(step: Step): TraceStep {
  return {
    side: step.side,
    endpoint: step.subject.ref,
    isEnforced: step.isEnforced,
    identity: step.identity,
    verdict: wordOf(step.verdict),
    matched: step.explain().matched.map(traceRule),
    decidedBy: step.decidedBy === undefined ? null : traceRule(step.decidedBy),
    l7: step.l7.map(traceRequests),
  };
}

function traceRequests(judged: JudgedBy): TraceRequests {
  return { rule: traceRule(judged.rule), kind: judged.l7.kind, requests: requestTexts(judged) };
}

function traceRule(rule: RuleRef): TraceRule {
  return { policy: rule.policy, path: rule.path, action: rule.verdict, text: ruleText(rule) };
}

/** A line for the flow, then each end with every rule that matches and what decides, then the answer. */
export function traceLines(trace: TraceDocument): string[] {
  const { from, to, protocol, port, steps, reason } = trace;
  const isIcmp = protocol === 1 || protocol === 58;
  const flow = `${nameOfProtocol(protocol)} ${isIcmp ? "type " : "port "}${port}`;
  const lines = [`${from.name} -> ${to.name} ${flow}`, `  from ${endText(from)}`, `  to   ${endText(to)}`];
  for (const [i, step] of steps.entries()) lines.push("", ...stepLines(i + 1, step));
  if (steps.length === 0) {
    lines.push(
      "",
      trace.isLoopback ? "An endpoint always reaches itself" : "No policy of this mesh can select either end",
    );
  }
  lines.push("", `Verdict: ${trace.verdict}${reason === null ? "" : ` (${reason.code} ${reason.name})`}`);
  return lines;
}

function endText({ name, identity, labels }: TraceEnd): string {
  if (identity === null) return `${name}: an address outside the mesh`;
  const texts = Object.entries(labels).map(([key, value]) => value === "" ? key : `${key}=${value}`).sort();
  return `${name}: identity ${identity}, ${texts.join(" ")}`;
}

function stepLines(number: number, step: TraceStep): string[] {
  const other = step.side === "egress" ? "to" : "from";
  const state = step.isEnforced ? "closed but for rules" : "open";
  const lines = [`${number}. ${step.side} of ${step.endpoint} (${state}), ${other} identity ${step.identity}`];
  for (const rule of step.matched) lines.push(`   ${rule.action}  ${rule.text}`);
  if (step.matched.length === 0) lines.push("   no rule matches");
  lines.push(`   ${step.verdict}: ${decisionText(step)}`);
  for (const { rule, requests } of step.l7) {
    for (const request of requests) lines.push(`      ${request}  by ${rule.text}`);
  }
  return lines;
}

function decisionText({ decidedBy, isEnforced }: TraceStep): string {
  if (decidedBy !== null) return `decided by ${decidedBy.text}`;
  return isEnforced ? "no rule allows it" : "nothing closes this direction";
}
