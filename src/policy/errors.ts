/** What is wrong with a policy document: stable codes, field paths, and what was meant. */

export interface PolicyError {
  /** e.g. "spec.ingress[0].ports[1].port"; empty for the document as a whole */
  readonly path: string;
  /** a sentence without a final period: what is wrong, and what is accepted or was probably meant */
  readonly message: string;
  readonly code: PolicyErrorCode;
}

/**
 * The codes. Those that start with UNSUPPORTED name something valid that this engine does not enforce: the document is refused
 * whole, because a rule that is silently skipped opens or closes what its author did not ask for. TURNED_OFF is valid and enforced,
 * but not with the settings at hand; REMOVED was valid in older releases of Cilium.
 */
export const POLICY_ERROR_CODES = [
  "NOT_AN_OBJECT",
  "UNKNOWN_KIND",
  "UNKNOWN_FIELD",
  "WRONG_TYPE",
  "BAD_VALUE",
  "MISSING",
  "CONFLICT",
  "TOO_MANY",
  "REMOVED",
  "TURNED_OFF",
  "UNSUPPORTED_KIND",
  "UNSUPPORTED_GROUPS",
  "UNSUPPORTED_TLS",
  "UNSUPPORTED_LISTENER",
  "UNSUPPORTED_AUTHENTICATION",
  "UNSUPPORTED_SECRET",
  "UNSUPPORTED_LABEL_SOURCE",
] as const;
export type PolicyErrorCode = typeof POLICY_ERROR_CODES[number];

/** More are not reported: a hostile document cannot make a report larger than itself. */
export const MAX_ERRORS = 64;
