/**
 * The join token: one string that a person can paste, `em1_<base64url payload>_<check>`.
 *
 * It carries what a machine needs before it trusts anybody: where the hub is, which CA to expect there, and a secret that is
 * proved but never sent (join.ts). Damage is found offline: the check covers every character before it.
 *
 *     0   u8     version, 1
 *     1   u8     flags: 1 = an administrator must approve
 *     2   8      token id; not secret, may be logged as hexadecimal
 *     10  16     secret
 *     26  32     SHA-256 of the hub CA's SubjectPublicKeyInfo (DER)
 *     58  u32    issued at, Unix seconds
 *     62  u32    not after, Unix seconds; 0xffffffff = never
 *     66  u8     number of hub endpoints, 1 to 3, then for each:
 *         u8     0 = IPv4 (4 octets follow), 255 = IPv6 (16), else the length of a DNS name
 *         ...    address or name
 *         u16    port
 *
 * Used by the hub (which makes tokens), by `edgemesh join` and by `edgemesh hub token`.
 */
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { readU16, readU32, writeU16, writeU32 } from "../bytes/integers.ts";
import { fromBase64Url, toBase64Url } from "../bytes/text.ts";
import { formatAddress, parseAddress } from "../ip/address.ts";

export const TOKEN_ID_BYTES = 8;
export const TOKEN_SECRET_BYTES = 16;
const CA_PIN_BYTES = 32;
const MAX_TOKEN_ENDPOINTS = 3;
/** Longest text that is looked at; three names of the longest kind stay below. */
const MAX_TOKEN_CHARS = 1200;

const PREFIX = "em1_";
const CHECK_CHARS = 8;
const VERSION = 1;
const FLAG_MANUAL_APPROVAL = 1;
const NEVER_SECONDS = 0xffff_ffff;
const FIXED_BYTES = 67;
const ENDPOINT_IPV4 = 0;
const ENDPOINT_IPV6 = 255;

/** What a token says. */
export interface JoinToken {
  /** 8 octets */
  readonly id: Uint8Array;
  /** 16 octets; never logged, never sent */
  readonly secret: Uint8Array;
  /** SHA-256 of the DER SubjectPublicKeyInfo of the hub's CA, 32 octets */
  readonly caPin: Uint8Array;
  /** `host:port`, `a.b.c.d:port` or `[v6]:port`; 1 to 3, best first */
  readonly endpoints: readonly string[];
  /** Unix milliseconds, whole seconds */
  readonly issuedAt: number;
  /** Unix milliseconds, whole seconds; `Infinity` = never expires */
  readonly notAfter: number;
  /** the device will have to wait until an administrator approves it */
  readonly needsApproval: boolean;
}

/** Why a text is no usable token. `message` goes on after "Cannot read the token: " and holds nothing of the token. */
export interface TokenFault {
  readonly code: "not-a-token" | "damaged" | "unsupported-version";
  readonly message: string;
}

/**
 * Writes a token as text; the result of `readToken` on it equals `token`, with host names and addresses in canonical form.
 *
 * @throws RangeError when a field has a wrong size, or an endpoint cannot be written; our caller's mistake, or the operator's
 */
export function writeToken(token: JoinToken): string {
  checkSizes(token);
  const endpoints = token.endpoints.map(endpointBytes);
  const bytes = new Uint8Array(FIXED_BYTES + endpoints.reduce((sum, e) => sum + e.length, 0));
  bytes[0] = VERSION;
  bytes[1] = token.needsApproval ? FLAG_MANUAL_APPROVAL : 0;
  bytes.set(token.id, 2);
  bytes.set(token.secret, 10);
  bytes.set(token.caPin, 26);
  writeU32(bytes, 58, toSeconds(token.issuedAt));
  writeU32(bytes, 62, token.notAfter === Infinity ? NEVER_SECONDS : toSeconds(token.notAfter));
  bytes[66] = endpoints.length;
  let at = FIXED_BYTES;
  for (const endpoint of endpoints) {
    bytes.set(endpoint, at);
    at += endpoint.length;
  }
  const body = PREFIX + toBase64Url(bytes);
  return `${body}_${checkOf(body)}`;
}

/**
 * Reads a token. White space around it is ignored. Total: any text gives a token or a fault, none throws.
 * Says nothing about expiry: only the hub's clock decides that.
 */
export function readToken(text: string): { readonly token: JoinToken } | { readonly fault: TokenFault } {
  const trimmed = text.length <= MAX_TOKEN_CHARS + 64 ? text.trim() : text;
  if (!trimmed.startsWith(PREFIX)) return notAToken();
  if (trimmed.length > MAX_TOKEN_CHARS) return damaged("it is too long");
  if (/\s/.test(trimmed)) return damaged("there is white space inside it; it is one line without blanks");
  const bodyEnd = trimmed.length - CHECK_CHARS - 1;
  if (bodyEnd <= PREFIX.length || trimmed[bodyEnd] !== "_") return damaged("its end is missing");
  const body = trimmed.slice(0, bodyEnd);
  if (checkOf(body) !== trimmed.slice(bodyEnd + 1)) return damaged("its check does not match; copy it again, whole");
  const payload = fromBase64Url(body.slice(PREFIX.length));
  if (payload === undefined || payload.length === 0) return damaged("it is no base64url text");
  if (payload[0] !== VERSION) {
    const message = `it has format version ${payload[0]}, this edgemesh reads version ${VERSION}`;
    return { fault: { code: "unsupported-version", message } };
  }
  const token = readPayload(payload);
  return token === undefined ? damaged("its content is cut short or malformed") : { token };
}

/** The token id as it may be shown and logged: 16 hexadecimal digits. */
export function tokenIdText(id: Uint8Array): string {
  return Array.from(id, (octet) => octet.toString(16).padStart(2, "0")).join("");
}

/**
 * What the hub keeps of a token's secret: enough to check a proof, not enough to write the token again.
 * HMAC-SHA256(secret, "edgemesh join v1"), 32 octets.
 */
export function verifierOf(secret: Uint8Array): Uint8Array {
  return hmac(sha256, secret, new TextEncoder().encode("edgemesh join v1"));
}

function readPayload(bytes: Uint8Array): JoinToken | undefined {
  if (bytes.length < FIXED_BYTES || (bytes[1]! & ~FLAG_MANUAL_APPROVAL) !== 0) return undefined;
  const count = bytes[66]!;
  if (count < 1 || count > MAX_TOKEN_ENDPOINTS) return undefined;
  const endpoints: string[] = [];
  let at = FIXED_BYTES;
  for (let i = 0; i < count; i++) {
    const size = bytes[at] === undefined ? 0 : hostBytes(bytes[at]!);
    if (size === 0 || at + 1 + size + 2 > bytes.length) return undefined;
    const endpoint = readEndpoint(bytes, at, size);
    if (endpoint === undefined) return undefined;
    endpoints.push(endpoint);
    at += 1 + size + 2;
  }
  if (at !== bytes.length) return undefined;
  const notAfter = readU32(bytes, 62);
  return {
    id: bytes.slice(2, 10),
    secret: bytes.slice(10, 26),
    caPin: bytes.slice(26, 58),
    endpoints,
    issuedAt: readU32(bytes, 58) * 1000,
    notAfter: notAfter === NEVER_SECONDS ? Infinity : notAfter * 1000,
    needsApproval: (bytes[1]! & FLAG_MANUAL_APPROVAL) !== 0,
  };
}

/** Octets of the host that a tag announces; 0 for a tag that is not used. */
function hostBytes(tag: number): number {
  if (tag === ENDPOINT_IPV4) return 4;
  if (tag === ENDPOINT_IPV6) return 16;
  return tag <= 253 ? tag : 0;
}

function readEndpoint(bytes: Uint8Array, at: number, size: number): string | undefined {
  const tag = bytes[at]!;
  const host = bytes.slice(at + 1, at + 1 + size);
  const port = readU16(bytes, at + 1 + size);
  if (port === 0) return undefined;
  if (tag === ENDPOINT_IPV4) return `${formatAddress(host)}:${port}`;
  if (tag === ENDPOINT_IPV6) return `[${formatAddress(host)}]:${port}`;
  const name = String.fromCharCode(...host);
  return isHostName(name) ? `${name}:${port}` : undefined;
}

function endpointBytes(text: string): Uint8Array {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):([1-9][0-9]{0,4})$/.exec(text);
  const port = Number(match?.[3] ?? 0);
  if (!match || port > 65535) throw new RangeError(`Cannot put endpoint "${text}" into a token: it is not host:port`);
  const hostText = match[1] ?? match[2]!;
  const address = parseAddress(hostText);
  const host = address ?? new TextEncoder().encode(hostText.toLowerCase());
  if (address === undefined && (match[1] !== undefined || !isHostName(hostText.toLowerCase()))) {
    throw new RangeError(`Cannot put endpoint "${text}" into a token: it is not host:port`);
  }
  const bytes = new Uint8Array(1 + host.length + 2);
  bytes[0] = address === undefined ? host.length : address.length === 4 ? ENDPOINT_IPV4 : ENDPOINT_IPV6;
  bytes.set(host, 1);
  writeU16(bytes, 1 + host.length, port);
  return bytes;
}

/** A DNS name in lower case that is not mistaken for an IPv4 address (its last label is not all digits). */
function isHostName(text: string): boolean {
  if (text.length > 253 || /(^|\.)[0-9]+$/.test(text)) return false;
  return /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/.test(text);
}

function checkSizes(token: JoinToken): void {
  const count = token.endpoints.length;
  if (
    token.id.length !== TOKEN_ID_BYTES || token.secret.length !== TOKEN_SECRET_BYTES ||
    token.caPin.length !== CA_PIN_BYTES || count < 1 || count > MAX_TOKEN_ENDPOINTS
  ) throw new RangeError("Cannot write token: a field has the wrong size");
}

function toSeconds(unixMs: number): number {
  const seconds = Math.floor(unixMs / 1000);
  if (!(seconds >= 0 && seconds < NEVER_SECONDS)) throw new RangeError("Cannot write token: time out of range");
  return seconds;
}

const CHECK_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";

/** 40 bits of SHA-256 over the text, five bits a character: damage of any kind passes with a chance of 2^-40. */
function checkOf(body: string): string {
  const digest = sha256(new TextEncoder().encode(body));
  let text = "";
  for (let i = 0; i < CHECK_CHARS; i++) {
    const bit = i * 5;
    const window = ((digest[bit >> 3]! << 8) | digest[(bit >> 3) + 1]!) >> (11 - (bit & 7));
    text += CHECK_ALPHABET[window & 31]!;
  }
  return text;
}

function notAToken(): { readonly fault: TokenFault } {
  const message = `it is no edgemesh token: those start with "${PREFIX}"`;
  return { fault: { code: "not-a-token", message } };
}

function damaged(why: string): { readonly fault: TokenFault } {
  return { fault: { code: "damaged", message: `it is damaged: ${why}` } };
}
