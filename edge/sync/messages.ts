/**
 * Messages of the sync stream, and readers that take nothing else.
 *
 *     hub                                         member
 *       hello  challenge, signed time       ->
 *                                           <-    auth  device key, signature, where to resume, where it listens
 *       welcome | refused                   ->
 *       snapshot | delta ...                ->
 *                                           <-    ack  revision applied
 *       ping  signed time                   ->
 *                                           <-    pong
 *                                           <-    report  where it listens now
 *       dryRun  entries  (*)                ->
 *                                           <-    dryRunResult  flows that they would newly drop
 *                                           <-    ping  (*)
 *       pong                                ->
 *       refused  ("revoked", ...)           ->
 *
 * (*) only where the other side says that it takes it: a hub in its hello, a member in its report.
 *
 * `snapshot` and `delta` are the frames of `src/mesh/entries.ts`. The hub speaks first, so that a member signs nothing that it was
 * not asked for. An octet that does not belong ends the connection.
 */
import type { EntryValue, StateFrame } from "../../src/mesh/entries.ts";
import { parseAddress } from "../../src/ip/address.ts";
import { isNetworkName } from "../../src/mesh/routing.ts";
import { type DryRunResult, readDryRunResult } from "./dry_run.ts";
import { parseEndpoint } from "./endpoint.ts";

/** The `Upgrade` that turns `GET /v1/sync` into this stream. */
export const SYNC_UPGRADE = "edgemesh-sync";
export const SYNC_PATH = "/v1/sync";
const VERSION = 1;
const MAX_ENDPOINTS = 8;
const MAX_TAKES = 32;
/** as records have them (`src/mesh/records.ts`) */
const AEAD_NAME = /^[a-z0-9-]{1,32}$/;
const MAX_AEADS = 8;
const MAX_TEXT_CHARS = 255;

/** What a report may hold beyond what every hub has taken from the first: a hub names them in its hello. */
const REPORT_FIELDS: readonly string[] = ["aeads", "does", "network"];
/** All that a hub of this release takes beyond what every hub has taken: fields of a report, and messages. */
export const HUB_TAKES: readonly string[] = [...REPORT_FIELDS, "ping"];
/** What a member may be asked for, as `does` of its report says. */
export const DOES_DRY_RUN = "dry-run";

/** What a member says about itself; the hub judges it. */
export interface MemberReport {
  /** `address:port` where its WireGuard may be reached, best first, at most 8 */
  readonly endpoints: readonly string[];
  /** its own address on the way to the hub, "" if unknown; filled in by the client */
  readonly localAddress: string;
  /** 1 to 65535 */
  readonly wireguardPort: number;
  readonly version: string;
  /** AEADs for transport data beside WireGuard's own; only to a hub that takes it, absent: none */
  readonly aeads?: readonly string[];
  /** what it answers beside state, `DOES_...`; only to a hub that takes it, absent: nothing */
  readonly does?: readonly string[];
  /** the network that it is in, for hybrid routing; "" = none; only to a hub that takes it, absent: as before */
  readonly network?: string;
}

/** Where a member stands in the hub's history. */
export interface ResumePoint {
  readonly epoch: string;
  readonly revision: number;
}

export interface HelloMessage {
  readonly t: "hello";
  readonly version: 1;
  /** 32 octets, fresh for this connection */
  readonly challenge: Uint8Array;
  /** name of the hub's cluster */
  readonly cluster: string;
  /** the hub's clock, Unix milliseconds */
  readonly unixMs: number;
  /** by the hub's record key over `timeMessageOf` */
  readonly signature: Uint8Array;
  /** fields of a report and messages that this hub takes beyond the first ones; a first hub names none */
  readonly takes: readonly string[];
}

export interface AuthMessage {
  readonly t: "auth";
  /** Ed25519 public key of the device, 32 octets */
  readonly deviceKey: Uint8Array;
  /** over `authMessageOf` */
  readonly signature: Uint8Array;
  readonly resume: ResumePoint | null;
  readonly report: MemberReport;
}

export interface WelcomeMessage {
  readonly t: "welcome";
  /** name of the member in its cluster */
  readonly name: string;
}

export interface RefusedMessage {
  readonly t: "refused";
  readonly code: string;
  readonly message: string;
  /** the same may work later */
  readonly isRetryable: boolean;
}

export interface PingMessage {
  readonly t: "ping";
  readonly unixMs: number;
  readonly signature: Uint8Array;
}

/** Asks which recent flows a change of entries would newly drop. Only of a member that does it. */
export interface DryRunMessage {
  readonly t: "dryRun";
  readonly id: number;
  readonly puts: readonly (readonly [key: string, value: EntryValue])[];
  readonly deletes: readonly string[];
}

/** What a hub sends besides state. `pong` answers a member's ping. */
export type HubMessage =
  | HelloMessage
  | WelcomeMessage
  | RefusedMessage
  | PingMessage
  | { readonly t: "pong" }
  | DryRunMessage
  | StateFrame;

/** What a member sends. */
export type MemberMessage =
  | AuthMessage
  | { readonly t: "ack"; readonly revision: number }
  | { readonly t: "pong" }
  /** only to a hub that takes it */
  | { readonly t: "ping" }
  | { readonly t: "report"; readonly report: MemberReport }
  | { readonly t: "dryRunResult"; readonly id: number; readonly result: DryRunResult };

/** What the device signs: heading, the hub's challenge, the pin of the hub's CA. Worth nothing at another hub. */
export function authMessageOf(challenge: Uint8Array, caPin: Uint8Array): Uint8Array {
  return withHeading("edgemesh sync v1", challenge, caPin);
}

/** What a device signs to leave: like `authMessageOf`, for `POST /v1/leave`. */
export function leaveMessageOf(challenge: Uint8Array, caPin: Uint8Array): Uint8Array {
  return withHeading("edgemesh leave v1", challenge, caPin);
}

/** What the hub signs with its time: heading, the connection's challenge, Unix milliseconds as u64 in network order. */
export function timeMessageOf(challenge: Uint8Array, unixMs: number): Uint8Array {
  const time = new Uint8Array(8);
  new DataView(time.buffer).setBigUint64(0, BigInt(Math.floor(unixMs)));
  return withHeading("edgemesh hub time v1", challenge, time);
}

function withHeading(heading: string, ...parts: readonly Uint8Array[]): Uint8Array {
  const head = new TextEncoder().encode(`${heading}\0`);
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, head.length));
  whole.set(head);
  let at = head.length;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Reads a message of a member; `undefined` for anything that is not exactly one. */
export function readMemberMessage(value: unknown): MemberMessage | undefined {
  if (!isMap(value)) return undefined;
  switch (value["t"]) {
    case "auth": {
      if (!hasKeys(value, ["t", "deviceKey", "signature", "resume", "report"])) return undefined;
      const deviceKey = octets(value["deviceKey"], 32);
      const signature = octets(value["signature"], 64);
      const report = readReport(value["report"]);
      const resume = value["resume"] === null ? null : readResume(value["resume"]);
      if (!deviceKey || !signature || !report || resume === undefined) return undefined;
      return { t: "auth", deviceKey, signature, resume, report };
    }
    case "ack":
      if (!hasKeys(value, ["t", "revision"]) || !isCount(value["revision"])) return undefined;
      return { t: "ack", revision: value["revision"] };
    case "pong":
    case "ping":
      return hasKeys(value, ["t"]) ? { t: value["t"] } : undefined;
    case "dryRunResult": {
      const { id } = value;
      const result = hasKeys(value, ["t", "id", "result"]) ? readDryRunResult(value["result"]) : undefined;
      return result && isCount(id) ? { t: "dryRunResult", id, result } : undefined;
    }
    case "report": {
      const report = hasKeys(value, ["t", "report"]) ? readReport(value["report"]) : undefined;
      return report && { t: "report", report };
    }
    default:
      return undefined;
  }
}

/**
 * Reads a message of the hub; `undefined` for anything that is not one. Entries of state are checked in shape only: what stands
 * under a key is judged where it is applied.
 */
export function readHubMessage(value: unknown): HubMessage | undefined {
  if (!isMap(value)) return undefined;
  switch (value["t"]) {
    case "hello": {
      const challenge = octets(value["challenge"], 32);
      const signature = octets(value["signature"], 64);
      const { version, cluster, unixMs } = value;
      if (version !== VERSION || !challenge || !signature || !isText(cluster) || !isCount(unixMs)) return undefined;
      const takes = value["takes"] ?? [];
      if (!isTexts(takes, MAX_TAKES)) return undefined;
      return { t: "hello", version, challenge, cluster, unixMs, signature, takes };
    }
    case "welcome":
      return isText(value["name"]) ? { t: "welcome", name: value["name"] } : undefined;
    case "refused": {
      const { code, message, isRetryable } = value;
      if (!isText(code) || typeof message !== "string" || typeof isRetryable !== "boolean") return undefined;
      return { t: "refused", code, message: message.slice(0, 1000), isRetryable };
    }
    case "ping": {
      const signature = octets(value["signature"], 64);
      const { unixMs } = value;
      return signature && isCount(unixMs) ? { t: "ping", unixMs, signature } : undefined;
    }
    case "pong":
      return { t: "pong" };
    case "dryRun": {
      const { id, puts, deletes } = value;
      if (!isCount(id) || !isPairs(puts) || !Array.isArray(deletes)) return undefined;
      return deletes.every((key) => typeof key === "string") ? { t: "dryRun", id, puts, deletes } : undefined;
    }
    case "snapshot": {
      const { epoch, revision, entries } = value;
      if (!isText(epoch) || !isCount(revision) || !isPairs(entries)) return undefined;
      return { t: "snapshot", epoch, revision, entries };
    }
    case "delta": {
      const { revision, puts, deletes } = value;
      if (!isCount(revision) || !isPairs(puts) || !Array.isArray(deletes)) return undefined;
      if (!deletes.every((key) => typeof key === "string")) return undefined;
      return { t: "delta", revision, puts, deletes };
    }
    default:
      return undefined;
  }
}

function readReport(value: unknown): MemberReport | undefined {
  const keys = ["endpoints", "localAddress", "wireguardPort", "version", ...REPORT_FIELDS];
  if (!isMap(value) || !hasKeys(value, keys)) return undefined;
  const { endpoints, localAddress, wireguardPort, version, aeads, does, network } = value;
  if (!Array.isArray(endpoints) || endpoints.length > MAX_ENDPOINTS) return undefined;
  if (!endpoints.every((text) => isText(text) && isAddressAndPort(text))) return undefined;
  if (typeof localAddress !== "string" || (localAddress !== "" && !parseAddress(localAddress))) return undefined;
  if (!isCount(wireguardPort) || wireguardPort < 1 || wireguardPort > 65535 || !isText(version)) return undefined;
  if (aeads !== undefined && !isTexts(aeads, MAX_AEADS, AEAD_NAME)) return undefined;
  if (does !== undefined && !isTexts(does, MAX_TAKES)) return undefined;
  if (network !== undefined && !(typeof network === "string" && isNetworkName(network))) return undefined;
  const more = { ...(aeads && { aeads }), ...(does && { does }), ...(network !== undefined && { network }) };
  return { endpoints: endpoints as string[], localAddress, wireguardPort, version, ...more };
}

function isAddressAndPort(text: string): boolean {
  const endpoint = parseEndpoint(text);
  return endpoint !== undefined && parseAddress(endpoint.host) !== undefined;
}

function readResume(value: unknown): ResumePoint | undefined {
  if (!isMap(value) || !hasKeys(value, ["epoch", "revision"])) return undefined;
  const { epoch, revision } = value;
  return isText(epoch) && isCount(revision) ? { epoch, revision } : undefined;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

/** No key beyond these; a missing one fails where it is read. */
function hasKeys(value: Record<string, unknown>, keys: readonly string[]): boolean {
  return Object.keys(value).every((key) => keys.includes(key));
}

function octets(value: unknown, count: number): Uint8Array | undefined {
  return value instanceof Uint8Array && value.length === count ? value : undefined;
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= MAX_TEXT_CHARS;
}

function isTexts(value: unknown, max: number, pattern = /./): value is string[] {
  return Array.isArray(value) && value.length <= max && value.every((text) => isText(text) && pattern.test(text));
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

// deno-lint-ignore no-explicit-any -- entries are judged where they are applied
function isPairs(value: unknown): value is (readonly [string, any])[] {
  return Array.isArray(value) &&
    value.every((pair) => Array.isArray(pair) && pair.length === 2 && typeof pair[0] === "string" && pair[1] != null);
}
