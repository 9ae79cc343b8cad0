/**
 * `joinHub`: from a token to membership. In this order, and nothing of the token leaves before the second step:
 *
 *     1. read the token; damage is found here, before any packet
 *     2. fetch the hub's CA from whoever answers, and compare its key with the token's pin
 *     3. connect again, verified by that CA; get a challenge
 *     4. prove the token's secret and sign with the device key; read the hub's answer
 *
 * A lost answer is asked for again: the hub repeats itself to the same device. Who unpacks the outcome saves the device key
 * before calling this.
 */
import {
  deviceMessageOf,
  type JoinAnswer,
  type JoinRequest,
  type JoinTranscript,
  proveJoin,
  recordMessageOf,
  transcriptOf,
} from "../../src/hub/join.ts";
import { type JoinToken, readToken, tokenIdText } from "../../src/hub/token.ts";
import { equalConstantTime } from "../../src/bytes/compare.ts";
import type { MeshSettings, NamedPort, SignedRecord } from "../../src/mesh/entries.ts";
import type { Log } from "../../src/ports.ts";
import { EdgeError, type EdgeErrorCode } from "../errors.ts";
import { Backoff, pause } from "./backoff.ts";
import { TrustedClock } from "./clock.ts";
import { makeSigner, type Signer, verifyEd25519 } from "./ed25519.ts";
import { type Endpoint, formatEndpoint, parseEndpoint } from "./endpoint.ts";
import { type HttpAnswer, HttpConnection } from "./http.ts";
import { decodeMsgpack, encodeMsgpack } from "./msgpack.ts";
import { MAX_PEM_CHARS, pinOfCa } from "./pin.ts";
import { connectTls, type HubTrust, resolveEndpoint } from "./tls.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const ANSWER_TIMEOUT_MS = 20_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
const MSGPACK = "application/msgpack";

export interface JoinOptions {
  /** Ed25519 seed (32 octets) or secret key (64) of this device; saved before this is called */
  readonly deviceSecretKey: Uint8Array;
  /** X25519 public key of this device's WireGuard, 32 octets */
  readonly wireguardPublicKey: Uint8Array;
  readonly wireguardPort: number;
  /** wanted member name; none: the hub or the token chooses */
  readonly name?: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly namedPorts?: readonly NamedPort[];
  /** give up after this long; none: try for ever */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly log?: Log;
  /** default: the system clock, not before the token was issued */
  readonly clock?: TrustedClock;
  /** first pause between tries, milliseconds; for tests */
  readonly firstPauseMs?: number;
}

/** What a device knows after it has joined, or while it waits for approval (`answer.status`). */
export interface JoinOutcome {
  readonly answer: JoinAnswer;
  /** trust in the hub from now on */
  readonly caPem: string;
  readonly caPin: Uint8Array;
  /** where the hub is, the one that answered first */
  readonly endpoints: readonly string[];
}

/**
 * Joins with a token.
 *
 * @throws EdgeError EDGE_TOKEN_* (final, exit code 5), EDGE_HUB_UNTRUSTED when whoever answers is not the token's hub,
 *         EDGE_HUB_UNREACHABLE after `timeoutMs`
 */
export async function joinHub(text: string, options: JoinOptions): Promise<JoinOutcome> {
  const read = readToken(text.trim());
  if ("fault" in read) throw new EdgeError("EDGE_TOKEN_DAMAGED", `Cannot read the token: ${read.fault.message}`);
  const { token } = read;
  const device = makeSigner(options.deviceSecretKey);
  const clock = options.clock ?? new TrustedClock([token.issuedAt]);
  const deadline = options.timeoutMs === undefined ? Infinity : performance.now() + options.timeoutMs;
  const backoff = new Backoff({ firstMs: options.firstPauseMs ?? FIRST_PAUSE_MS, capMs: LONGEST_PAUSE_MS });
  for (;;) {
    const outcome = await tryEndpoints(token, device, clock, options, deadline);
    if ("joined" in outcome) return outcome.joined;
    const pauseMs = Math.max(backoff.next(), outcome.retryAfterMs ?? 0);
    if (options.signal?.aborted || performance.now() + pauseMs >= deadline) throw outcome.failure;
    options.log?.warn("join-retry", { reason: outcome.failure.message, inMs: Math.round(pauseMs) });
    await pause(pauseMs, options.signal);
  }
}

type RoundOutcome =
  | { readonly joined: JoinOutcome }
  | { readonly failure: EdgeError; readonly retryAfterMs?: number };

/** One round over all endpoints and their addresses. Throws what another try cannot mend. */
async function tryEndpoints(
  token: JoinToken,
  device: Signer,
  clock: TrustedClock,
  options: JoinOptions,
  deadline: number,
): Promise<RoundOutcome> {
  let failure: EdgeError | undefined;
  let isAnyUntrusted: EdgeError | undefined;
  for (const endpointText of token.endpoints) {
    const endpoint = parseEndpoint(endpointText);
    if (endpoint === undefined) continue;
    let addresses: readonly Endpoint[] = [];
    try {
      addresses = await resolveEndpoint(endpoint);
    } catch (error) {
      failure = edgeErrorOf(error);
    }
    for (const address of addresses) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0 || options.signal?.aborted) break;
      try {
        const result = await joinAt(address, token, device, clock, options, leftMs);
        if ("failure" in result) return result;
        const others = token.endpoints.filter((other) => other !== endpointText);
        return { joined: { ...result.joined, endpoints: [endpointText, ...others] } };
      } catch (error) {
        failure = edgeErrorOf(error);
        if (failure.code === "EDGE_HUB_UNTRUSTED") isAnyUntrusted = failure;
        else if (failure.code !== "EDGE_HUB_UNREACHABLE") throw failure;
      }
    }
  }
  if (isAnyUntrusted !== undefined) throw isAnyUntrusted;
  return { failure: failure ?? new EdgeError("EDGE_HUB_UNREACHABLE", "Cannot reach the hub: no time left") };
}

async function joinAt(
  address: Endpoint,
  token: JoinToken,
  device: Signer,
  clock: TrustedClock,
  options: JoinOptions,
  leftMs: number,
): Promise<RoundOutcome> {
  const where = formatEndpoint(address);
  const connectMs = Math.min(CONNECT_TIMEOUT_MS, leftMs);
  const answerMs = Math.min(ANSWER_TIMEOUT_MS, leftMs);
  const limits = { timeoutMs: connectMs, ...(options.signal && { signal: options.signal }) };
  const caPem = await fetchCa(address, limits, answerMs);
  if (!equalConstantTime(pinOfCa(caPem) ?? new Uint8Array(0), token.caPin)) {
    throw new EdgeError(
      "EDGE_HUB_UNTRUSTED",
      `Cannot trust hub "${where}": its CA is not the one that the token names`,
    );
  }
  const trust: HubTrust = { caPem, clock };
  const connection = new HttpConnection(await connectTls(address, { ...limits, trust }), where);
  const abort = () => connection.close();
  options.signal?.addEventListener("abort", abort, { once: true });
  try {
    const challenge = readChallenge(await post(connection, "/v1/join/challenge", {}, answerMs), where);
    const request = makeRequest(challenge, token, device, options, connection.localAddress);
    const answer = await post(connection, "/v1/join", request, answerMs);
    if (answer.status !== 200) return refusalOf(answer, tokenIdText(token.id), where);
    return { joined: { answer: readAnswer(answer, device, options, where), caPem, caPin: token.caPin, endpoints: [] } };
  } finally {
    options.signal?.removeEventListener("abort", abort);
    connection.close();
  }
}

/** The one request to somebody unknown: public text, judged by its pin. */
async function fetchCa(
  address: Endpoint,
  limits: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  answerMs: number,
): Promise<string> {
  const where = formatEndpoint(address);
  const connection = new HttpConnection(await connectTls(address, { ...limits, trust: undefined }), where);
  try {
    const { status, body } = await connection.request(
      { method: "GET", path: "/v1/ca", headers: { connection: "close" } },
      answerMs,
    );
    if (status !== 200 || body.length > MAX_PEM_CHARS) {
      throw new EdgeError("EDGE_HUB_UNTRUSTED", `Cannot trust hub "${where}": it shows no CA (HTTP ${status})`);
    }
    return new TextDecoder().decode(body);
  } finally {
    connection.close();
  }
}

function post(connection: HttpConnection, path: string, value: unknown, timeoutMs: number): Promise<HttpAnswer> {
  const headers = { "content-type": MSGPACK, accept: MSGPACK };
  return connection.request({ method: "POST", path, headers, body: encodeMsgpack(value) }, timeoutMs);
}

function makeRequest(
  challenge: Uint8Array,
  token: JoinToken,
  device: Signer,
  options: JoinOptions,
  localAddress: string,
): JoinRequest {
  const transcript: JoinTranscript = {
    challenge,
    tokenId: token.id,
    deviceKey: device.publicKey,
    publicKey: options.wireguardPublicKey,
    caPin: token.caPin,
    name: options.name ?? "",
    namespace: options.namespace ?? "",
    labels: options.labels ?? {},
    namedPorts: options.namedPorts ?? [],
    localAddress: localAddress.replace(/^::ffff:(?=[0-9.]+$)/, ""),
    listenPort: options.wireguardPort,
  };
  const octets = transcriptOf(transcript);
  return {
    ...transcript,
    proof: proveJoin(token.secret, octets),
    signature: device.sign(deviceMessageOf(octets)),
  };
}

function readChallenge(answer: HttpAnswer, where: string): Uint8Array {
  const challenge = answer.status === 200 ? (decodeMsgpack(answer.body) as Loose)?.["challenge"] : undefined;
  if (challenge instanceof Uint8Array && challenge.length === 32) return challenge;
  if (answer.status >= 500 || answer.status === 429) throw busy(answer, where);
  throw notUnderstood(where, "challenge");
}

// What the hub says, and what the command line ends with. Codes that are not here may be tried again.
const FINAL: Readonly<Record<string, EdgeErrorCode>> = {
  "expired": "EDGE_TOKEN_EXPIRED",
  "used-up": "EDGE_TOKEN_USED",
  "revoked": "EDGE_TOKEN_REVOKED",
  "unknown": "EDGE_TOKEN_UNKNOWN",
  "replayed": "EDGE_TOKEN_REPLAYED",
};

function refusalOf(answer: HttpAnswer, tokenId: string, where: string): RoundOutcome {
  const said = decodeMsgpack(answer.body) as Loose;
  const code = said?.["code"];
  const message = said?.["message"];
  if (typeof code !== "string" || typeof message !== "string") {
    if (answer.status >= 500 || answer.status === 429) return { failure: busy(answer, where) };
    throw notUnderstood(where, "refusal");
  }
  const text = `Cannot join with token "${tokenId}": ${printable(message)} (${printable(code)})`;
  const retryAfterMs = said?.["retryAfterMs"];
  if (said?.["isRetryable"] === true) {
    const failure = new EdgeError("EDGE_HUB_UNREACHABLE", text, { fix: "Try again in a while." });
    return typeof retryAfterMs === "number" && retryAfterMs >= 0
      ? { failure, retryAfterMs: Math.min(retryAfterMs, 600_000) }
      : { failure };
  }
  throw new EdgeError(FINAL[code] ?? "EDGE_TOKEN_REFUSED", text);
}

/** The hub is trusted by now; what it says is still checked, so that a fault shows here and not in the datapath. */
function readAnswer(answer: HttpAnswer, device: Signer, options: JoinOptions, where: string): JoinAnswer {
  const said = decodeMsgpack(answer.body) as Loose;
  const { status, epoch, unixMs, name, addresses, record, recordKey, settings } = said ?? {};
  const isWhole = (status === "joined" || status === "pending") && typeof epoch === "string" &&
    Number.isSafeInteger(unixMs) && typeof name === "string" && isTexts(addresses) && isOctets(recordKey, 32) &&
    isMap(record) && isMap(settings);
  if (!isWhole) throw notUnderstood(where, "answer");
  const signed = record as unknown as SignedRecord;
  if (!(signed.record instanceof Uint8Array) || !isOctets(signed.signature, 64)) throw notUnderstood(where, "record");
  const isSigned = verifyEd25519(recordKey as Uint8Array, recordMessageOf(signed.record), signed.signature);
  const own = decodeMsgpack(signed.record) as Loose;
  const isOurs = isOctets(own?.["deviceKey"], 32) && isOctets(own?.["publicKey"], 32) &&
    equalConstantTime(own!["deviceKey"] as Uint8Array, device.publicKey) &&
    equalConstantTime(own!["publicKey"] as Uint8Array, options.wireguardPublicKey);
  if (!isSigned || !isOurs) throw notUnderstood(where, "record");
  return {
    status: status as JoinAnswer["status"],
    epoch: epoch as string,
    unixMs: unixMs as number,
    name: name as string,
    addresses: addresses as readonly string[],
    record: signed,
    recordKey: recordKey as Uint8Array,
    settings: settings as unknown as MeshSettings,
  };
}

type Loose = Record<string, unknown> | undefined;

function isMap(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isOctets(value: unknown, count: number): boolean {
  return value instanceof Uint8Array && value.length === count;
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

function printable(text: string): string {
  // deno-lint-ignore no-control-regex -- a hub's text must not steer the terminal
  return text.slice(0, 300).replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}

function busy(answer: HttpAnswer, where: string): EdgeError {
  return new EdgeError("EDGE_HUB_UNREACHABLE", `Cannot join at hub "${where}": it is busy (HTTP ${answer.status})`);
}

function notUnderstood(where: string, what: string): EdgeError {
  return new EdgeError("EDGE_PROTOCOL", `Cannot read the ${what} of hub "${where}": not what this release expects`);
}

function edgeErrorOf(error: unknown): EdgeError {
  if (error instanceof EdgeError) return error;
  throw error; // our bug
}
