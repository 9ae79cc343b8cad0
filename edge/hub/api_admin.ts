/**
 * The hub's admin API, under `/v1/admin`, with the bearer credential of the hub's `admin.token`. JSON in and out; the shapes are in
 * `edge/sync/admin_client.ts`, which is its client.
 *
 *     GET    /status
 *     POST   /tokens                      GET /tokens           DELETE /tokens/:id
 *     GET    /members                     DELETE /members/:name
 *     POST   /members/:name/approve       POST /members/:name/revoke
 *     POST   /apply                       GET /objects?kind=&namespace=
 *     DELETE /objects?kind=&namespace=&name=
 *     POST   /delete-dry-run
 *     GET    /audit?limit=
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Context, Next } from "hono";
import { Hono } from "hono";
import * as v from "valibot";
import type { Log } from "../../src/ports.ts";
import type {
  AdminConnection,
  AdminMember,
  AdminStatus,
  ApplyAnswer,
  DeleteDryRunAnswer,
} from "../sync/admin_messages.ts";
import type { DryRunReport } from "../sync/dry_run.ts";
import { parseEndpoint } from "../sync/endpoint.ts";
import type { DryRunPuts, DryRuns } from "./dry_runs.ts";
import { FailureLimiter } from "./limits.ts";
import type { CreateTokenOptions, HubState, Member } from "./state.ts";
import type { ConnectionInfo, Remote } from "./sync_session.ts";
import { fault, readBody, reply } from "./wire_format.ts";

/** Policies of a whole repository at once. */
const MAX_APPLY_BYTES = 16 * 1024 * 1024;
const MAX_BODY_BYTES = 64 * 1024;
const MAX_AUDIT = 1_000;
/** Wrong credentials from one address: this many at once, then one a second. */
const FAILURES_AT_ONCE = 10;
const FAILURE_REFILL_MS = 1_000;
/** Token lifetimes are written as u32 seconds. */
const MAX_TTL_MS = 100 * 365 * 86_400_000;

export interface AdminApiOptions {
  readonly state: Pick<
    HubState,
    | "createToken"
    | "listTokens"
    | "revokeToken"
    | "members"
    | "approveMember"
    | "revokeMember"
    | "removeMember"
    | "apply"
    | "get"
    | "delete"
    | "previewDelete"
    | "audit"
  >;
  /** secret */
  readonly credential: string;
  readonly caPin: Uint8Array;
  /** `host:port` that tokens carry unless they are told otherwise */
  readonly advertise: () => readonly string[];
  readonly status: () => AdminStatus;
  /** asks the members what a change would newly drop */
  readonly dryRun: DryRuns["run"];
  readonly connectionOf: (memberName: string) => ConnectionInfo | undefined;
  readonly log: Log;
  /** monotonic */
  readonly nowMs: () => number;
  readonly remoteOf: (c: Context) => Remote;
}

const endpointText = v.pipe(v.string(), v.check((given) => parseEndpoint(given) !== undefined, "must be HOST:PORT"));
const labels = v.pipe(
  v.record(v.pipe(v.string(), v.maxLength(317)), v.pipe(v.string(), v.maxLength(63))),
  v.check((given) => Object.keys(given).length <= 64, "must be at most 64 labels"),
);

const TOKEN_REQUEST = v.strictObject({
  endpoints: v.optional(v.pipe(v.array(endpointText), v.minLength(1), v.maxLength(3))),
  uses: v.optional(v.nullable(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1_000_000)))),
  ttlMs: v.optional(v.nullable(v.pipe(v.number(), v.integer(), v.minValue(1_000), v.maxValue(MAX_TTL_MS)))),
  labels: v.optional(labels),
  namespace: v.optional(v.pipe(v.string(), v.maxLength(63))),
  name: v.optional(v.pipe(v.string(), v.maxLength(253))),
  approve: v.optional(v.picklist(["auto", "manual"])),
});

const APPLY_REQUEST = v.strictObject({
  documents: v.pipe(v.array(v.unknown()), v.maxLength(10_000)),
  dryRun: v.optional(v.boolean()),
});

const DELETE_REQUEST = v.strictObject({
  objects: v.pipe(
    v.array(v.strictObject({
      kind: v.pipe(v.string(), v.maxLength(63)),
      namespace: v.pipe(v.string(), v.maxLength(63)),
      name: v.pipe(v.string(), v.maxLength(253)),
    })),
    v.maxLength(10_000),
  ),
});

const EMPTY_REQUEST = v.strictObject({});

/** The routes, to be mounted at `/v1/admin`. */
export function makeAdminApi(options: AdminApiOptions): Hono {
  const app = new Hono();
  app.use(authenticate(options));
  app.get("/status", (c) => reply(c, options.status()));
  addTokens(app, options);
  addMembers(app, options);
  addObjects(app, options);
  app.get("/audit", async (c) => {
    const limit = Number(c.req.query("limit") ?? "100");
    if (!Number.isInteger(limit) || limit < 1 || limit > MAX_AUDIT) {
      return fault(c, 400, "bad-request", `limit: must be 1 to ${MAX_AUDIT}`);
    }
    return reply(c, { audit: await options.state.audit(limit) });
  });
  return app;
}

function authenticate({ credential, log, nowMs, remoteOf }: AdminApiOptions) {
  const limiter = new FailureLimiter(FAILURES_AT_ONCE, FAILURE_REFILL_MS);
  const expected = digest(credential);
  return async (c: Context, next: Next): Promise<Response | void> => {
    const given = /^Bearer ([A-Za-z0-9_-]{1,256})$/.exec(c.req.header("authorization") ?? "")?.[1];
    // Digests have one length, so the comparison's time says nothing about the credential.
    if (given !== undefined && timingSafeEqual(digest(given), expected)) return await next();
    const { address } = remoteOf(c);
    if (!limiter.fail(address, nowMs())) return fault(c, 429, "rate-limited", "too many wrong credentials");
    log.warn("admin-denied", { from: address, path: c.req.path.slice(0, 100) });
    return fault(c, 401, "unauthorized", "the admin credential is missing or wrong");
  };
}

function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}

function addTokens(app: Hono, { state, caPin, advertise, log }: AdminApiOptions): void {
  app.post("/tokens", async (c) => {
    const body = await readBody(c, TOKEN_REQUEST, MAX_BODY_BYTES);
    if ("answer" in body) return body.answer;
    const { uses, ttlMs, endpoints = advertise().slice(0, 3), ...rest } = body.value;
    if (endpoints.length === 0) {
      return fault(c, 400, "bad-request", "endpoints: the hub advertises none; start it with --advertise HOST:PORT");
    }
    const request: CreateTokenOptions = {
      ...withoutUndefined(rest),
      endpoints,
      caPin,
      ...(uses !== undefined && { uses: uses ?? Infinity }),
      ...(ttlMs !== undefined && { ttlMs: ttlMs ?? Infinity }),
    };
    try {
      const made = await state.createToken(request);
      log.info("token-created", { id: made.id });
      return reply(c, made);
    } catch (error) {
      if (!(error instanceof RangeError || error instanceof TypeError)) throw error;
      return fault(c, 400, "bad-request", error.message);
    }
  });
  app.get("/tokens", (c) => reply(c, { tokens: state.listTokens() }));
  app.delete("/tokens/:id", async (c) => {
    if (!await state.revokeToken(c.req.param("id"))) return fault(c, 404, "not-found", "there is no such token");
    log.info("token-revoked", { id: c.req.param("id") });
    return reply(c, {});
  });
}

function addMembers(app: Hono, { state, connectionOf, log }: AdminApiOptions): void {
  const shown = (member: Member) => memberOf(member, connectionOf(member.name));
  app.get("/members", (c) => reply(c, { members: state.members().map(shown) }));
  app.post("/members/:name/approve", async (c) => {
    const body = await readBody(c, EMPTY_REQUEST, MAX_BODY_BYTES);
    if ("answer" in body) return body.answer;
    const member = await state.approveMember(c.req.param("name"));
    if (member === undefined) return fault(c, 404, "not-found", "there is no such member that waits for approval");
    log.info("member-approved", { member: member.name });
    return reply(c, shown(member));
  });
  app.post("/members/:name/revoke", async (c) => {
    const body = await readBody(c, EMPTY_REQUEST, MAX_BODY_BYTES);
    if ("answer" in body) return body.answer;
    const name = c.req.param("name");
    if (isHub(state, name)) return fault(c, 409, "conflict", "the hub cannot revoke itself");
    if (!await state.revokeMember(name)) return fault(c, 404, "not-found", "there is no such member");
    log.info("member-revoked", { member: name });
    return reply(c, {});
  });
  app.delete("/members/:name", async (c) => {
    const name = c.req.param("name");
    if (isHub(state, name)) return fault(c, 409, "conflict", "the hub cannot remove itself");
    if (!await state.removeMember(name)) return fault(c, 404, "not-found", "there is no such member");
    log.info("member-removed", { member: name });
    return reply(c, {});
  });
}

function isHub(state: Pick<HubState, "members">, name: string): boolean {
  return state.members().some((member) => member.isHub && member.name === name);
}

function addObjects(app: Hono, options: AdminApiOptions): void {
  const { state, log } = options;
  app.post("/apply", async (c) => {
    const body = await readBody(c, APPLY_REQUEST, MAX_APPLY_BYTES);
    if ("answer" in body) return body.answer;
    const { documents, dryRun = false } = body.value;
    const outcome = await state.apply(documents, dryRun);
    if ("errors" in outcome) {
      return reply(c, { applied: [], revision: null, errors: outcome.errors } satisfies ApplyAnswer);
    }
    const { puts = [], ...result } = outcome;
    if (!dryRun) log.info("applied", { objects: result.applied.length, revision: result.revision });
    const report = dryRun ? await askMembers(options, puts, []) : undefined;
    return reply(c, { ...result, errors: [], ...(report && { dryRun: report }) } satisfies ApplyAnswer);
  });
  app.get("/objects", (c) => reply(c, { objects: state.get(c.req.query("kind"), c.req.query("namespace")) }));
  app.post("/delete-dry-run", async (c) => {
    const body = await readBody(c, DELETE_REQUEST, MAX_APPLY_BYTES);
    if ("answer" in body) return body.answer;
    const { missing, puts, deletes } = state.previewDelete(body.value.objects);
    const report = await askMembers(options, puts, deletes);
    return reply(c, { missing, ...(report && { dryRun: report }) } satisfies DeleteDryRunAnswer);
  });
  app.delete("/objects", async (c) => {
    const { kind, namespace = "", name } = c.req.query();
    if (!kind || !name) return fault(c, 400, "bad-request", "kind and name: must be given");
    if (!await state.delete(kind, namespace, name)) return fault(c, 404, "not-found", "there is no such object");
    log.info("deleted", { kind, namespace, name });
    return reply(c, {});
  });
}

/** Nobody is asked about nothing. */
async function askMembers(
  { state, dryRun }: AdminApiOptions,
  puts: DryRunPuts,
  deletes: readonly string[],
): Promise<DryRunReport | undefined> {
  if (puts.length === 0 && deletes.length === 0) return { members: [] };
  return await dryRun(
    puts,
    deletes,
    state.members().filter((member) => member.state === "active").map(({ name }) => name),
  );
}

function memberOf(member: Member, connection: ConnectionInfo | undefined): Record<keyof AdminMember, unknown> {
  return {
    name: member.name,
    state: member.state,
    isHub: member.isHub,
    deviceKey: member.deviceKey,
    publicKey: member.publicKey,
    addresses: member.addresses,
    underlay: member.underlay,
    endpoints: member.endpoints,
    namespace: member.namespace,
    labels: member.labels,
    namedPorts: member.namedPorts,
    identity: member.identity,
    joinedAt: member.joinedAt,
    tokenId: member.tokenId,
    connection: connection === undefined ? null : connection satisfies AdminConnection,
  };
}

/** The same without the keys whose value is undefined. */
function withoutUndefined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}
