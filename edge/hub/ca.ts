/**
 * The hub's own certificate authority and the keys that stand beside it in the hub's state directory:
 *
 *     ca.key, ca.pem           P-256; its SPKI is what tokens pin, so it is made once and never replaced silently
 *     server.key, server.pem   what the TLS server shows; renewed by itself
 *     sign.key                 Ed25519 seed (base64) that signs member records and the hub's time
 *     admin.token              bearer credential of the admin API
 *
 * All are 0600. Certificates are valid from 1970 on: boards without a clock boot there, and the start of validity protects
 * nothing here. Their end is judged with the best time that the member knows (`edge/sync/clock.ts`).
 *
 * `@peculiar/x509` is imported only when a certificate must be made, which a hub's ordinary start does not.
 */
import { createPrivateKey, randomBytes, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { join } from "node:path";
import { fromBase64, toBase64, toBase64Url } from "../../src/bytes/text.ts";
import { EdgeError } from "../errors.ts";
import { makeSigner, type Signer } from "../sync/ed25519.ts";
import { HUB_SERVER_NAME, pinOfCa } from "../sync/pin.ts";
import { makePrivateDir, readFileIfThere, writeFileDurably } from "./files.ts";

const DAY_MS = 86_400_000;
/** A server certificate lives this long: short enough that a stolen one ends, long enough for a hub that is rarely started. */
const SERVER_LIFETIME_MS = 398 * DAY_MS;
/** and is replaced when less than this is left. */
const SERVER_RENEW_BEFORE_MS = 130 * DAY_MS;
/** The last moment that X.509's UTCTime can say; members pin the key, so the CA's end is no protection to them. */
const CA_NOT_AFTER_MS = Date.UTC(2049, 11, 31, 23, 59, 59);
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const ADMIN_TOKEN_BYTES = 32;

/** What the TLS server shows. */
export interface ServerCertificate {
  readonly certPem: string;
  /** PKCS #8; secret */
  readonly keyPem: string;
  /** Unix milliseconds */
  readonly notAfterMs: number;
}

/** The hub's keys, loaded. */
export interface HubKeys {
  readonly caPem: string;
  /** SHA-256 of the CA's SPKI, 32 octets */
  readonly caPin: Uint8Array;
  /** signs member records and the hub's time */
  readonly signer: Signer;
  /** Ed25519 seed of `signer`, 32 octets; secret */
  readonly signSeed: Uint8Array;
  /** bearer credential of the admin API; secret */
  readonly adminToken: string;
  /**
   * The server certificate: the one on disk when it covers the names and has time left, else a new one, then on disk.
   * @param names host names and IP addresses beside loopback and `HUB_SERVER_NAME`
   * @param unixMs the wall clock
   */
  serverCertificate(names: readonly string[], unixMs: number): Promise<ServerCertificate>;
}

/**
 * Opens the keys in `dir`, and makes those that are not there yet.
 *
 * @throws EdgeError EDGE_STATE_INVALID when the CA's or the signing key is there but unreadable: a new one would lock every
 *         member out, so that is for a person to decide
 */
export async function openHubKeys(dir: string): Promise<HubKeys> {
  makePrivateDir(dir);
  const { caPem, caKeyPem } = await openCa(dir);
  const caPin = pinOfCa(caPem);
  if (caPin === undefined) throw invalid(join(dir, "ca.pem"), "not a CA certificate");
  const signSeed = openSignSeed(dir);
  return {
    caPem,
    caPin,
    signer: makeSigner(signSeed),
    signSeed,
    adminToken: openAdminToken(dir),
    serverCertificate: (names, unixMs) => openServerCertificate(dir, { caPem, caKeyPem }, names, unixMs),
  };
}

/** Where the admin credential of a hub with this key directory stands, for commands that run beside it. */
export function adminTokenPath(dir: string): string {
  return join(dir, "admin.token");
}

/** Where the CA certificate stands. */
export function caPath(dir: string): string {
  return join(dir, "ca.pem");
}

interface Ca {
  readonly caPem: string;
  readonly caKeyPem: string;
}

async function openCa(dir: string): Promise<Ca> {
  const keyPath = join(dir, "ca.key");
  let caKeyPem = readFileIfThere(keyPath);
  const stored = readFileIfThere(caPath(dir));
  if (caKeyPem === undefined) {
    if (stored !== undefined) throw invalid(keyPath, "missing beside its certificate");
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    caKeyPem = pemOf("PRIVATE KEY", new Uint8Array(await crypto.subtle.exportKey("pkcs8", keys.privateKey)));
    writeFileDurably(keyPath, caKeyPem);
  }
  if (stored !== undefined && isCertificateOf(stored, caKeyPem, keyPath)) return { caPem: stored, caKeyPem };
  // The key is what is pinned: a lost or damaged certificate is made again from it.
  const caPem = await makeCaCertificate(caKeyPem, keyPath);
  writeFileDurably(caPath(dir), caPem);
  return { caPem, caKeyPem };
}

function isCertificateOf(certPem: string, keyPem: string, keyPath: string): boolean {
  let key;
  try {
    key = createPrivateKey(keyPem);
  } catch {
    throw invalid(keyPath, "not a private key");
  }
  try {
    return new X509Certificate(certPem).checkPrivateKey(key);
  } catch {
    return false;
  }
}

async function makeCaCertificate(caKeyPem: string, keyPath: string): Promise<string> {
  const x509 = await loadX509();
  const keys = await importKeys(caKeyPem, keyPath);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: `CN=edgemesh hub CA`,
    keys,
    notBefore: new Date(0),
    notAfter: new Date(CA_NOT_AFTER_MS),
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return `${certificate.toString("pem")}\n`;
}

async function openServerCertificate(
  dir: string,
  ca: Ca,
  names: readonly string[],
  unixMs: number,
): Promise<ServerCertificate> {
  const wanted = [...new Set([HUB_SERVER_NAME, "localhost", "127.0.0.1", "::1", ...names])];
  const keyPath = join(dir, "server.key");
  const certPath = join(dir, "server.pem");
  const certPem = readFileIfThere(certPath);
  const keyPem = readFileIfThere(keyPath);
  if (certPem !== undefined && keyPem !== undefined) {
    const notAfterMs = usableUntil(certPem, keyPem, ca.caPem, wanted);
    if (notAfterMs - unixMs > SERVER_RENEW_BEFORE_MS) return { certPem, keyPem, notAfterMs };
  }
  const made = await makeServerCertificate(ca, wanted, unixMs, join(dir, "ca.key"));
  // A cut between the two leaves a pair that does not match: found above, and made again.
  writeFileDurably(keyPath, made.keyPem);
  writeFileDurably(certPath, made.certPem);
  return made;
}

/** End of validity of a pair that the CA signed and that covers all names; 0 when anything is amiss. */
function usableUntil(certPem: string, keyPem: string, caPem: string, names: readonly string[]): number {
  try {
    const certificate = new X509Certificate(certPem);
    const isOurs = certificate.verify(new X509Certificate(caPem).publicKey) &&
      certificate.checkPrivateKey(createPrivateKey(keyPem));
    const isCovered = names.every((name) =>
      (isIP(name) === 0 ? certificate.checkHost(name) : certificate.checkIP(name)) !== undefined
    );
    return isOurs && isCovered ? Date.parse(certificate.validTo) : 0;
  } catch {
    return 0;
  }
}

async function makeServerCertificate(
  ca: Ca,
  names: readonly string[],
  unixMs: number,
  caKeyPath: string,
): Promise<ServerCertificate> {
  const x509 = await loadX509();
  const caKeys = await importKeys(ca.caKeyPem, caKeyPath);
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const notAfterMs = Math.floor(Math.min(unixMs + SERVER_LIFETIME_MS, CA_NOT_AFTER_MS) / 1000) * 1000;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${HUB_SERVER_NAME}`,
    issuer: new x509.X509Certificate(ca.caPem).subject,
    publicKey: keys.publicKey,
    signingKey: caKeys.privateKey,
    notBefore: new Date(0),
    notAfter: new Date(notAfterMs),
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isIP(value) === 0 ? "dns" as const : "ip" as const, value })),
      ),
      await x509.AuthorityKeyIdentifierExtension.create(caKeys.publicKey),
    ],
  });
  const pkcs8 = new Uint8Array(await crypto.subtle.exportKey("pkcs8", keys.privateKey));
  return { certPem: `${certificate.toString("pem")}\n`, keyPem: pemOf("PRIVATE KEY", pkcs8), notAfterMs };
}

async function loadX509(): Promise<typeof import("@peculiar/x509")> {
  await import("reflect-metadata");
  const x509 = await import("@peculiar/x509");
  x509.cryptoProvider.set(crypto);
  return x509;
}

async function importKeys(keyPem: string, path: string): Promise<CryptoKeyPair> {
  try {
    const { subtle } = crypto;
    const der = fromBase64(keyPem.replace(/-----[A-Z ]+-----/g, "").replace(/\s/g, "")) as Uint8Array<ArrayBuffer>;
    const privateKey = await subtle.importKey("pkcs8", der, ALGORITHM, true, ["sign"]);
    const { kty, crv, x, y } = await subtle.exportKey("jwk", privateKey);
    const publicKey = await subtle.importKey("jwk", { kty: kty!, crv: crv!, x: x!, y: y! }, ALGORITHM, true, [
      "verify",
    ]);
    return { privateKey, publicKey };
  } catch {
    throw invalid(path, "not a P-256 private key");
  }
}

function openSignSeed(dir: string): Uint8Array {
  const path = join(dir, "sign.key");
  const text = readFileIfThere(path);
  if (text !== undefined) {
    const seed = fromBase64(text.trim());
    if (seed?.length !== 32) throw invalid(path, "not a key of 32 octets");
    return seed;
  }
  const seed = new Uint8Array(randomBytes(32));
  writeFileDurably(path, `${toBase64(seed)}\n`);
  return seed;
}

function openAdminToken(dir: string): string {
  const path = adminTokenPath(dir);
  const stored = readFileIfThere(path)?.trim();
  if (stored !== undefined && /^[A-Za-z0-9_-]{43,}$/.test(stored)) return stored;
  // Nothing depends on its old value but commands that read the file again: a damaged one is replaced.
  const made = toBase64Url(new Uint8Array(randomBytes(ADMIN_TOKEN_BYTES)));
  writeFileDurably(path, `${made}\n`);
  return made;
}

/** Positive, 16 octets, as hexadecimal. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return bytes.toString("hex");
}

function pemOf(label: string, der: Uint8Array): string {
  const lines = toBase64(der).match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

function invalid(path: string, state: string): EdgeError {
  return new EdgeError("EDGE_STATE_INVALID", `Cannot read the hub's key "${path}": ${state}`, {
    fix: "Restore the file from a backup. A new key would make every token and every member's trust in this hub void.",
  });
}
