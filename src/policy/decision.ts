/**
 * A decision in one 32-bit word, and what it is a decision about in another.
 *
 *     key       0 (8)     | protocol (8) | port or ICMP type (16)
 *     decision  rule + 1 (29)                        | kind (3)
 *
 * rule + 1 is 0 where no rule decided. Kind 7 is free for what is to come.
 */
import { DROP_POLICY_DENIED, DROP_POLICY_DENY, FORWARD, REDIRECT, type Verdict } from "../verdict.ts";

/** allowed, by a rule or because nothing closes the direction */
export const KIND_FORWARD = 0;
/** no rule allows it */
export const KIND_NO_RULE = 1;
/** a deny rule matches */
export const KIND_DENY = 2;

/** audit mode: forwarded, though no rule allows it */
export const KIND_AUDIT_NO_RULE = 3;
/** audit mode: forwarded, though a deny rule matches */
export const KIND_AUDIT_DENY = 4;

/** allowed as far as the HTTP proxy allows it; the rule is the first of those that the proxy judges by */
export const KIND_HTTP = 5;
/** the same for the DNS proxy */
export const KIND_DNS = 6;

export const KIND_BITS = 3;
export const KIND_MASK = 7;

/** One past the last key. */
export const KEY_END = 0x100_0000;

/** Verdict of each kind. Kinds that nobody makes are drops. */
export const VERDICT_OF_KIND: readonly Verdict[] = [
  FORWARD,
  DROP_POLICY_DENIED,
  DROP_POLICY_DENY,
  FORWARD,
  FORWARD,
  REDIRECT,
  REDIRECT,
  DROP_POLICY_DENIED,
];

/** What audit mode makes of a kind. */
export function auditKind(kind: number): number {
  return kind === KIND_NO_RULE ? KIND_AUDIT_NO_RULE : kind === KIND_DENY ? KIND_AUDIT_DENY : kind;
}

/** The drop that audit mode held back: a reason, or FORWARD for a kind that is not of audit mode. */
export function auditedVerdict(kind: number): Verdict {
  return kind === KIND_AUDIT_NO_RULE ? DROP_POLICY_DENIED : kind === KIND_AUDIT_DENY ? DROP_POLICY_DENY : FORWARD;
}

/** @param rule rule index, -1 for none */
export function makeDecision(kind: number, rule: number): number {
  return (((rule + 1) << KIND_BITS) | kind) >>> 0;
}

export function kindOf(decision: number): number {
  return decision & KIND_MASK;
}

/** Rule index, -1 for none. */
export function ruleOf(decision: number): number {
  return (decision >>> KIND_BITS) - 1;
}

/** @param protocol IP protocol, 0 to 255
 *  @param port     0 to 65535; for ICMP and ICMPv6 the type; 0 for a protocol without ports */
export function makeKey(protocol: number, port: number): number {
  return (protocol << 16) | port;
}
