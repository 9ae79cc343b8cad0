/**
 * The hash functions of WireGuard on top of BLAKE2s (RFC 7693): `H`, `MAC`, `HMAC` and the key derivation `KDFn`.
 * libsodium has no BLAKE2s, so it is noble's. @see WireGuard paper §5.4 for the notation
 */
import { blake2s } from "@noble/hashes/blake2.js";
import { hmac as hmacOf } from "@noble/hashes/hmac.js";

const HASH_BYTES = 32;

const ONE = Uint8Array.of(1);

/** `H(a || b)`, 32 octets. */
export function hash(a: Uint8Array, b?: Uint8Array): Uint8Array {
  if (b === undefined) return blake2s(a);
  return blake2s.create({}).update(a).update(b).digest();
}

/** Keyed BLAKE2s with 16 octets of output, `MAC(key, message)`. @param key 1 to 32 octets */
export function mac(key: Uint8Array, message: Uint8Array): Uint8Array {
  return blake2s(message, { key, dkLen: 16 });
}

/** HMAC (RFC 2104) over BLAKE2s-256, block of 64 octets. */
export function hmac(key: Uint8Array, message: Uint8Array): Uint8Array {
  return hmacOf(blake2s, key, message);
}

/**
 * `KDFn(key, input)`: n values of 32 octets. `t0 = HMAC(key, input)`, `T1 = HMAC(t0, 1)`, `Ti = HMAC(t0, T(i-1) || i)`.
 * The caller owns the values, and wipes them.
 *
 * @param count 1 to 3
 */
export function kdf(count: 1 | 2 | 3, key: Uint8Array, input: Uint8Array): Uint8Array[] {
  const root = hmac(key, input);
  const outputs = [hmac(root, ONE)];
  for (let i = 2; i <= count; i++) {
    const message = new Uint8Array(HASH_BYTES + 1);
    message.set(outputs[i - 2]!);
    message[HASH_BYTES] = i;
    outputs.push(hmac(root, message));
    message.fill(0);
  }
  root.fill(0);
  return outputs;
}
