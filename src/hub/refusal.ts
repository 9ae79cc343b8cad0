/**
 * Why a hub says no, as stable codes and as text for the person at the machine. The command line exits with 5 for a final
 * refusal, and tries again (exit 75 at its time-out) for the others.
 */

export type RefusalCode =
  /** the token's time is over */
  | "expired"
  /** the token has no use left */
  | "used-up"
  /** the token, or this device, was revoked */
  | "revoked"
  /** the hub knows no such token */
  | "unknown"
  /** this very join was seen before, or this device has already joined with this token, too long ago to repeat */
  | "replayed"
  /** too many failed tries */
  | "rate-limited"
  /** the proof of the token's secret, or the device's signature, is wrong */
  | "bad-proof"
  /** hub or token maker has a wrong clock: the token was issued in the hub's future */
  | "clock"
  /** the challenge ran out, or the hub started anew since: ask for another and try again */
  | "stale-challenge"
  /** the request is malformed, or asks for something that the token does not grant */
  | "bad-request"
  /** the name belongs to another member */
  | "name-taken"
  /** the WireGuard key belongs to another member: a copied disk image */
  | "duplicate-key"
  /** no address, identity or member number is left */
  | "exhausted";

/** A hub's no. */
export interface JoinRefusal {
  readonly code: RefusalCode;
  /** for a person; reveals nothing beyond what the device may know */
  readonly message: string;
  /** trying the same thing again later may work */
  readonly isRetryable: boolean;
  /** with "rate-limited": when */
  readonly retryAfterMs?: number;
}

const RETRYABLE: ReadonlySet<RefusalCode> = new Set(["rate-limited", "stale-challenge", "clock", "exhausted"]);

/** Makes a refusal; whether it may be retried follows from the code. */
export function refuse(code: RefusalCode, message: string, retryAfterMs?: number): JoinRefusal {
  const refusal = { code, message, isRetryable: RETRYABLE.has(code) };
  return retryAfterMs === undefined ? refusal : { ...refusal, retryAfterMs };
}
