/** Ed25519 and random bytes of the runtime, in the form that `HubState` takes: a hub needs no FFI to admit members. */
import { randomFillSync } from "node:crypto";
import type { Ciphers, RandomBytes } from "../../src/ports.ts";
import { makeSigner, type Signer, verifyEd25519 } from "../sync/ed25519.ts";

/** Signs with seed || public key (64 octets) or a seed (32), like the `Ciphers` of `src/ports.ts`. */
export function makeSignatures(): Pick<Ciphers, "sign" | "verify"> {
  // A hub signs with one key: it is unpacked once.
  let lastKey: Uint8Array | undefined;
  let lastSigner: Signer | undefined;
  return {
    sign(secretKey, message) {
      if (secretKey !== lastKey || lastSigner === undefined) {
        lastSigner = makeSigner(secretKey);
        lastKey = secretKey;
      }
      return lastSigner.sign(message);
    },
    verify: verifyEd25519,
  };
}

/** The key of a signer in the form of libsodium and NaCl: seed || public key, 64 octets. */
export function secretKeyOf(seed: Uint8Array, publicKey: Uint8Array): Uint8Array {
  const key = new Uint8Array(64);
  key.set(seed);
  key.set(publicKey, 32);
  return key;
}

export const randomBytes: RandomBytes = (into) => {
  randomFillSync(into);
};
