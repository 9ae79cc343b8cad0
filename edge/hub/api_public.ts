/**
 * What anybody may ask the hub for: its CA, a challenge, to join, to leave.
 *
 *     GET  /v1/ca                the CA certificate (PEM); fetched unverified, judged by the pin of the token
 *     POST /v1/join/challenge    {challenge}
 *     POST /v1/join              JoinRequest -> JoinAnswer, or a refusal {code, message, isRetryable, retryAfterMs?}
 *     POST /v1/leave/challenge   {challenge}
 *     POST /v1/leave             {challenge, deviceKey, signature} -> {left: true}
 *
 * `src/hub/join.ts` has the exchange, `HubState` the decisions.
 */
import type { Context, Hono } from "hono";
import * as v from "valibot";
import type { JoinAnswer } from "../../src/hub/join.ts";
import type { JoinRefusal, RefusalCode } from "../../src/hub/refusal.ts";
import type { Log } from "../../src/ports.ts";
import { verifyEd25519 } from "../sync/ed25519.ts";
import { leaveMessageOf } from "../sync/messages.ts";
import { ChallengeBook } from "./limits.ts";
import type { HubState } from "./state.ts";
import type { Remote } from "./sync_session.ts";
import { type ApiStatus, fault, octets, readBody, reply } from "./wire_format.ts";

const MAX_BODY_BYTES = 64 * 1024;
const LEAVE_CHALLENGE_MS = 120_000;
const MAX_LEAVE_CHALLENGES = 1_000;

export interface PublicApiOptions {
  readonly state: Pick<HubState, "challenge" | "join" | "authenticate" | "removeMember">;
  readonly caPem: string;
  readonly caPin: Uint8Array;
  readonly log: Log;
  /** monotonic */
  readonly nowMs: () => number;
  readonly remoteOf: (c: Context) => Remote;
}

const text = (most: number) => v.pipe(v.string(), v.maxLength(most));

const JOIN_REQUEST = v.strictObject({
  challenge: octets(32),
  tokenId: octets(8),
  deviceKey: octets(32),
  publicKey: octets(32),
  caPin: octets(32),
  name: text(253),
  namespace: text(63),
  labels: v.pipe(
    v.record(text(317), text(63)),
    v.check((labels) => Object.keys(labels).length <= 64, "must be at most 64 labels"),
  ),
  namedPorts: v.pipe(
    v.array(v.strictObject({
      name: text(63),
      port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535)),
      protocol: v.picklist(["TCP", "UDP", "SCTP"]),
    })),
    v.maxLength(64),
  ),
  localAddress: text(45),
  listenPort: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535)),
  proof: octets(32),
  signature: octets(64),
});

const LEAVE_REQUEST = v.strictObject({ challenge: octets(32), deviceKey: octets(32), signature: octets(64) });

/** Adds the routes. */
export function addPublicApi(app: Hono, options: PublicApiOptions): void {
  const { state, caPem, caPin, log, nowMs, remoteOf } = options;
  const leaving = new ChallengeBook(LEAVE_CHALLENGE_MS, MAX_LEAVE_CHALLENGES);

  app.get("/v1/ca", (c) => c.body(caPem, 200, { "content-type": "application/x-pem-file" }));

  app.post("/v1/join/challenge", (c) => reply(c, { challenge: state.challenge() }));

  app.post("/v1/join", async (c) => {
    const body = await readBody(c, JOIN_REQUEST, MAX_BODY_BYTES);
    if ("answer" in body) return body.answer;
    const remote = remoteOf(c);
    const outcome = await state.join(body.value, { remoteAddress: remote.address, remotePort: remote.port });
    return isRefusal(outcome) ? reply(c, outcome, STATUS[outcome.code] ?? 403) : reply(c, outcome);
  });

  app.post("/v1/leave/challenge", (c) => reply(c, { challenge: leaving.give(nowMs()) }));

  app.post("/v1/leave", async (c) => {
    const body = await readBody(c, LEAVE_REQUEST, MAX_BODY_BYTES);
    if ("answer" in body) return body.answer;
    const { challenge, deviceKey, signature } = body.value;
    if (!leaving.take(challenge, nowMs())) return fault(c, 409, "stale-challenge", "ask for another challenge");
    if (!verifyEd25519(deviceKey, leaveMessageOf(challenge, caPin), signature)) {
      return fault(c, 403, "bad-proof", "the device's signature is wrong");
    }
    const member = state.authenticate(deviceKey);
    // Who is no member any more has left already: a repeated request gets the same answer.
    if ("refused" in member) return reply(c, { left: true });
    await state.removeMember(member.name);
    log.info("member-left", { member: member.name, from: remoteOf(c).address });
    return reply(c, { left: true });
  });
}

const STATUS: Partial<Record<RefusalCode, ApiStatus>> = {
  "rate-limited": 429,
  "exhausted": 503,
  "stale-challenge": 409,
  "bad-request": 400,
};

function isRefusal(outcome: JoinAnswer | JoinRefusal): outcome is JoinRefusal {
  return "isRetryable" in outcome;
}
