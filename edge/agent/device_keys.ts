/** Keys of a device, by the runtime's own `node:crypto`: enrolment loads no library through FFI. */
import { createPrivateKey, createPublicKey, randomBytes } from "node:crypto";
import { fromHex } from "../../src/bytes/text.ts";
import type { DeviceKeys } from "./store.ts";

const KEY_BYTES = 32;
// RFC 8410 §7: what stands before the 32 octets of a raw X25519 key in DER
const PKCS8_PREFIX = fromHex("302e020100300506032b656e04220420")!;

/** Fresh keys. */
export function makeDeviceKeys(): DeviceKeys {
  const wireguardKey = new Uint8Array(randomBytes(KEY_BYTES));
  // RFC 7748 §5: as `wg genkey` writes a key
  wireguardKey[0] = wireguardKey[0]! & 0xf8;
  wireguardKey[31] = (wireguardKey[31]! & 0x7f) | 0x40;
  return { deviceSeed: new Uint8Array(randomBytes(KEY_BYTES)), wireguardKey };
}

/** The X25519 public key of a secret key of 32 octets. */
export function x25519PublicKey(secretKey: Uint8Array): Uint8Array {
  const der = new Uint8Array(PKCS8_PREFIX.length + KEY_BYTES);
  der.set(PKCS8_PREFIX);
  der.set(secretKey, PKCS8_PREFIX.length);
  const key = createPrivateKey({ key: Buffer.from(der), format: "der", type: "pkcs8" });
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  return new Uint8Array(spki.subarray(spki.length - KEY_BYTES));
}
