/** Comparisons of byte ranges: one for secrets, one for everything else. */

/**
 * Compares two byte arrays in time that depends on their lengths only. For secrets: tags, keys, proofs.
 * Different lengths are unequal, and that is found at once.
 */
export function equalConstantTime(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}

/** Compares `count` octets of two ranges, stopping at the first difference. Not for secrets. */
export function equalRange(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number, count: number): boolean {
  for (let i = 0; i < count; i++) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}
