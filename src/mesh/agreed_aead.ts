/**
 * Which AEAD two members seal transport data for each other with: a function of both signed records, never asked for on the wire,
 * so that nobody on the way can change it. Both ends come to the same answer as soon as both have both records; until then each
 * end opens what the other chose (`src/tunnel/receive_keys.ts`).
 */
import type { AeadName } from "../ports.ts";

/** Beside WireGuard's own, best first: the fastest that both know is taken. */
const PREFERENCE: readonly AeadName[] = ["aegis128l", "aes256gcm"];

/** The best AEAD that both announce; undefined: WireGuard's own. Names that this release does not know count for nothing. */
export function agreedAead(own: readonly string[], theirs: readonly string[]): AeadName | undefined {
  return PREFERENCE.find((name) => own.includes(name) && theirs.includes(name));
}
