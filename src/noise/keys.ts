/**
 * The long-lived keys of a handshake with everything that can be derived from them once: our own (`LocalKeys`), and a peer's
 * as seen by us (`RemoteKeys`).
 */
import type { Ciphers } from "../ports.ts";
import { KEY_BYTES } from "../wire/wg_message.ts";
import { hash } from "./hashes.ts";

const LABEL_MAC1 = new TextEncoder().encode("mac1----");
const LABEL_COOKIE = new TextEncoder().encode("cookie--");

/** This device's static key. */
export interface LocalKeys {
  readonly secretKey: Uint8Array;
  readonly publicKey: Uint8Array;
  /** `H("mac1----" || publicKey)`: key of mac1 in what we receive */
  readonly mac1Key: Uint8Array;
  /** `H("cookie--" || publicKey)`: seals the cookie replies that we send */
  readonly cookieKey: Uint8Array;
}

/** A peer's static key, and what we share with it. */
export interface RemoteKeys {
  readonly publicKey: Uint8Array;
  /** 32 zero octets when there is none */
  readonly presharedKey: Uint8Array;
  /** `DH(S_i, S_r)`, the same from both sides; `undefined` for a low-order public key: no handshake will ever succeed */
  readonly staticShared: Uint8Array | undefined;
  /** key of mac1 in what we send to the peer */
  readonly mac1Key: Uint8Array;
  /** opens the cookie replies that the peer sends */
  readonly cookieKey: Uint8Array;
}

/** Derives our keys; copies `secretKey`. */
export function makeLocalKeys(ciphers: Ciphers, secretKey: Uint8Array): LocalKeys {
  const publicKey = ciphers.publicKeyOf(secretKey);
  return {
    secretKey: secretKey.slice(),
    publicKey,
    mac1Key: hash(LABEL_MAC1, publicKey),
    cookieKey: hash(LABEL_COOKIE, publicKey),
  };
}

/** Derives what we share with a peer; copies its arguments. */
export function makeRemoteKeys(
  ciphers: Ciphers,
  local: LocalKeys,
  publicKey: Uint8Array,
  presharedKey: Uint8Array | undefined,
): RemoteKeys {
  return {
    publicKey: publicKey.slice(),
    presharedKey: presharedKey?.slice() ?? new Uint8Array(KEY_BYTES),
    staticShared: ciphers.dh(local.secretKey, publicKey),
    mac1Key: hash(LABEL_MAC1, publicKey),
    cookieKey: hash(LABEL_COOKIE, publicKey),
  };
}

/** Overwrites the secrets of a peer that is being forgotten. */
export function wipeRemoteKeys(ciphers: Ciphers, remote: RemoteKeys): void {
  ciphers.wipe(remote.presharedKey);
  if (remote.staticShared !== undefined) ciphers.wipe(remote.staticShared);
}
