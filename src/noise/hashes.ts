/**
 * The hash functions of WireGuard on top of BLAKE2s: `H`, `MAC`, `HMAC` and the key derivation `KDFn`.
 * @see WireGuard paper §5.4 for the notation
 */
import { blake2s } from "../bytes/blake2s.ts";

const HASH_BYTES = 32;
const MAC_BYTES = 16;
const BLOCK_BYTES = 64;
const INNER_PAD = 0x36;
const OUTER_PAD = 0x5c;

const ONE = Uint8Array.of(1);

/** `H(a || b)`, 32 octets. */
export function hash(a: Uint8Array, b?: Uint8Array): Uint8Array {
  return blake2s(HASH_BYTES, undefined, a, b);
}

/** Keyed BLAKE2s with 16 octets of output, `MAC(key, message)`. @param key 1 to 32 octets */
export function mac(key: Uint8Array, message: Uint8Array): Uint8Array {
  return blake2s(MAC_BYTES, key, message);
}

/** HMAC (RFC 2104) over BLAKE2s-256, block of 64 octets. */
export function hmac(key: Uint8Array, message: Uint8Array): Uint8Array {
  const pad = new Uint8Array(BLOCK_BYTES);
  if (key.length > BLOCK_BYTES) {
    const short = hash(key);
    pad.set(short);
    short.fill(0);
  } else pad.set(key);
  for (let i = 0; i < BLOCK_BYTES; i++) pad[i]! ^= INNER_PAD;
  const inner = hash(pad, message);
  for (let i = 0; i < BLOCK_BYTES; i++) pad[i]! ^= INNER_PAD ^ OUTER_PAD;
  const outer = hash(pad, inner);
  pad.fill(0);
  inner.fill(0);
  return outer;
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
