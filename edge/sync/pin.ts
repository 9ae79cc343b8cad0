/**
 * What a token pins: SHA-256 over the hub CA's SubjectPublicKeyInfo in DER. The same for every kind of CA key and whatever else
 * the certificate says. Used on both sides; loads nothing but `node:crypto`.
 */
import { createHash, X509Certificate } from "node:crypto";

/** DNS name that every hub certificate has, so that a member can verify it at whatever address it was reached. */
export const HUB_SERVER_NAME = "edgemesh-hub";

/** The pin of a CA certificate in PEM, 32 octets; `undefined` when it is not exactly one CA certificate. */
export function pinOfCa(pem: string): Uint8Array | undefined {
  if (pem.length > MAX_PEM_CHARS || pem.split("-----BEGIN ").length !== 2) return undefined;
  try {
    const certificate = new X509Certificate(pem);
    if (!certificate.ca) return undefined;
    const spki = certificate.publicKey.export({ format: "der", type: "spki" });
    return new Uint8Array(createHash("sha256").update(spki).digest());
  } catch {
    return undefined;
  }
}

/** Most characters that a CA's PEM may have: ours has about 700. */
export const MAX_PEM_CHARS = 16_384;
