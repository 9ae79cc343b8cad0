/**
 * The local HTTP interface: health, metrics, and the documents that the command line shows. Served on loopback for reading, and on
 * the Unix socket (mode 0600) for everything; what changes state, or shows what others asked for, is on the socket alone.
 *
 * A browser must not be used against it: a request with a foreign `Host` (DNS rebinding) or any foreign `Origin` is refused.
 */
import { mkdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { type Context, Hono } from "hono";
import { EdgeError, messageOf } from "../errors.ts";
import type { Agent } from "./agent.ts";
import { type Check, LIVE_CHECKS, liveChecks, READY_CHECKS, readyChecks } from "./checks.ts";
import type { Evaluate } from "../sync/dry_run.ts";
import { API_VERSION, type DryRunDocument, type ErrorDocument } from "./documents.ts";
import { serve, type Serving } from "./serve.ts";
import { dropsOf, identitiesOf, peersOf, pingFrom, policiesOf, statusOf } from "./views.ts";

/** What the interface does to the process beyond reading. */
export interface HttpActions {
  /** forgets the membership and ends the agent; answers why the hub could not be told, if it could not */
  readonly leave: () => Promise<string | undefined>;
  /** says which recent flows a change would newly drop; absent: there is nothing to ask */
  readonly evaluate?: Evaluate;
}

/** Where a request came in. */
export type Entrance = "socket" | "loopback";

const MAX_PING_TIMEOUT_MS = 60_000;
const MAX_BODY_BYTES = 4096;
/** Policies of a whole repository at once. */
const MAX_DRY_RUN_BYTES = 4 * 1024 * 1024;

/** The application; one per entrance. */
export function makeApp(agent: Agent, entrance: Entrance, actions: HttpActions): Hono {
  const app = new Hono();
  app.use(async (c, next) => {
    const refusal = entrance === "loopback" ? strangerIn(c) : undefined;
    if (refusal !== undefined) return fail(c, 403, "EDGE_AGENT_DENIED", refusal);
    c.header("cache-control", "no-store");
    c.header("x-content-type-options", "nosniff");
    await next();
  });
  addHealth(app, agent);
  app.get("/metrics", async (c) => {
    const { scrape } = await import("./metrics.ts");
    const { contentType, body } = await scrape(agent);
    return c.body(body, 200, { "content-type": contentType });
  });
  app.get("/v1/status", async (c) => c.json(await statusOf(agent)));
  app.get("/v1/peers", async (c) => c.json(await peersOf(agent)));
  app.get("/v1/drops", async (c) => c.json(await dropsOf(agent)));
  app.get("/v1/identities", (c) => c.json(identitiesOf(agent)));
  app.get("/v1/policies", async (c) => c.json(await policiesOf(agent)));
  if (entrance === "socket") {
    addFlows(app, agent);
    addActions(app, agent, actions);
    addDryRun(app, actions);
  } else {
    for (const path of ["/v1/flows", "/v1/ping", "/v1/leave", "/v1/policy/dry-run"]) {
      app.all(
        path,
        (c) => fail(c, 403, "EDGE_AGENT_DENIED", `Cannot use "${path}" here: only on the agent's Unix socket`),
      );
    }
  }
  app.notFound((c) => fail(c, 404, "EDGE_NOT_FOUND", `Cannot find "${c.req.path}": no such path`));
  app.onError((error, c) => fail(c, 500, "EDGE_PROTOCOL", messageOf(error)));
  return app;
}

function addHealth(app: Hono, agent: Agent): void {
  const live = () => Promise.resolve(liveChecks(agent));
  const ready = () => readyChecks(agent);
  for (const [path, names, run] of [["/livez", LIVE_CHECKS, live], ["/readyz", READY_CHECKS, ready]] as const) {
    app.get(path, async (c) => answerChecks(c, path.slice(1), await run()));
    app.get(`${path}/:check`, async (c) => {
      const name = c.req.param("check");
      if (!(names as readonly string[]).includes(name)) {
        return fail(c, 404, "EDGE_NOT_FOUND", `Cannot find check "${name}"`);
      }
      return answerChecks(c, name, (await run()).filter((check) => check.name === name));
    });
  }
  app.get("/healthz", async (c) => answerChecks(c, "healthz", [...liveChecks(agent), ...await readyChecks(agent)]));
}

/** Kubernetes' form: "ok" or a list, 200 or 503; `?verbose` lists in any case, `?exclude=` leaves checks out. */
function answerChecks(c: Context, name: string, all: readonly Check[]): Response {
  const excluded = c.req.queries("exclude") ?? [];
  const checks = all.filter((check) => !excluded.includes(check.name));
  const isOk = checks.every((check) => check.failure === undefined);
  const isVerbose = c.req.query("verbose") !== undefined;
  if (isOk && !isVerbose) return c.text("ok");
  const lines = checks.map(({ name, failure }) =>
    failure === undefined ? `[+]${name} ok` : `[-]${name} failed: ${failure}`
  );
  for (const name of excluded) lines.push(`[+]${name} excluded: ok`);
  lines.push(`${name} check ${isOk ? "passed" : "failed"}`);
  return c.text(`${lines.join("\n")}\n`, isOk ? 200 : 503);
}

/** Requests of others are in it, with their paths: not for every user of the machine. */
function addFlows(app: Hono, agent: Agent): void {
  app.get("/v1/flows", async (c) => {
    const { flowsOf } = await import("./flow_view.ts");
    try {
      return c.json(await flowsOf(agent, new Map(Object.entries(c.req.queries()))));
    } catch (error) {
      if (error instanceof RangeError) return fail(c, 400, "EDGE_USAGE", error.message);
      throw error;
    }
  });
}

function addActions(app: Hono, agent: Agent, actions: HttpActions): void {
  app.post("/v1/ping", async (c) => {
    const body = await readBody(c);
    const { to, sequence = 1, timeoutMs = 1000 } = body ?? {};
    if (typeof to !== "string" || !isCount(sequence, 1, 65535) || !isCount(timeoutMs, 1, MAX_PING_TIMEOUT_MS)) {
      return fail(c, 400, "EDGE_USAGE", "Cannot ping: the request needs to, and may have sequence and timeoutMs");
    }
    if (agent.link === undefined) {
      return fail(c, 503, "EDGE_DATAPATH_STOPPED", "Cannot ping: the datapath is not running");
    }
    const answer = await pingFrom(agent, to, sequence, timeoutMs);
    if (answer !== undefined) return c.json(answer);
    return fail(c, 404, "EDGE_NOT_FOUND", `Cannot ping "${to}": neither an address nor a member`);
  });
  app.post("/v1/leave", async (c) => {
    if (agent.options.isFromFile) {
      return fail(c, 409, "EDGE_NOT_JOINED", "Cannot leave: this member runs from a mesh file");
    }
    try {
      return c.json({ apiVersion: API_VERSION, kind: "Left", hubNotTold: await actions.leave() ?? null });
    } catch (error) {
      return fail(c, 409, error instanceof EdgeError ? error.code : "EDGE_PROTOCOL", messageOf(error));
    }
  });
}

function addDryRun(app: Hono, { evaluate }: HttpActions): void {
  app.post("/v1/policy/dry-run", async (c) => {
    const documents = (await readBody(c, MAX_DRY_RUN_BYTES))?.["documents"];
    if (!Array.isArray(documents)) {
      return fail(c, 400, "EDGE_USAGE", "Cannot try the policies: the request needs documents, a list of at most 4 MB");
    }
    if (evaluate === undefined) {
      return fail(c, 503, "EDGE_DATAPATH_STOPPED", "Cannot try the policies: not running yet");
    }
    const { entriesOfDocuments } = await import("./dry_run.ts");
    const { featuresFor } = await import("../regex_features.ts");
    const entries = entriesOfDocuments(documents, await featuresFor(documents));
    if ("faults" in entries) {
      const shown = entries.faults.slice(0, 64).join("\n  ");
      return fail(c, 400, "EDGE_MANIFEST_INVALID", `Cannot try the policies:\n  ${shown}`);
    }
    const result = await evaluate(entries.puts, []);
    return c.json({ apiVersion: API_VERSION, kind: "DryRun", ...result } satisfies DryRunDocument);
  });
}

async function readBody(c: Context, maxBytes = MAX_BODY_BYTES): Promise<Record<string, unknown> | undefined> {
  const length = Number(c.req.header("content-length") ?? "0");
  if (!(length <= maxBytes)) return undefined;
  try {
    const body: unknown = await c.req.json();
    return typeof body === "object" && body !== null ? body as Record<string, unknown> : undefined;
  } catch {
    return undefined;
  }
}

function isCount(value: unknown, min: number, max: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= min && value <= max;
}

/** Why a request on loopback comes from a browser or for another host; undefined: it does not. */
function strangerIn(c: Context): string | undefined {
  const host = c.req.header("host") ?? "";
  if (!isLoopbackHost(host)) return `Cannot answer for host "${host.slice(0, 100)}": only for loopback`;
  const origin = c.req.header("origin");
  if (origin === undefined) return undefined;
  const isOurs = origin.startsWith("http://") && isLoopbackHost(origin.slice("http://".length));
  return isOurs ? undefined : `Cannot answer origin "${origin.slice(0, 100)}": only this machine's own pages`;
}

function isLoopbackHost(host: string): boolean {
  return /^(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]{1,5})?$/.test(host);
}

function fail(
  c: Context,
  status: 400 | 403 | 404 | 409 | 500 | 503,
  code: ErrorDocument["code"],
  message: string,
): Response {
  const { fix } = new EdgeError(code as ConstructorParameters<typeof EdgeError>[0], message);
  return c.json({ apiVersion: API_VERSION, kind: "Error", code, message, fix } satisfies ErrorDocument, status);
}

/** Open entrances of one agent. */
export interface HttpServers {
  /** where loopback listens, with the port that the system chose; undefined: switched off */
  readonly loopback: { readonly host: string; readonly port: number } | undefined;
  close(): Promise<void>;
}

/** Where to listen. */
export interface HttpListen {
  readonly socket: string;
  readonly loopback: { readonly host: string; readonly port: number } | undefined;
}

/**
 * Opens both entrances.
 * @throws EdgeError EDGE_AGENT_BUSY when another agent answers on the socket, EDGE_PORT_BUSY for a taken port
 */
export async function serveHttp(agent: Agent, listen: HttpListen, actions: HttpActions): Promise<HttpServers> {
  const servings: Serving[] = [];
  const close = async () => {
    await Promise.all(servings.map((serving) => serving.close()));
    rmSync(listen.socket, { force: true });
  };
  await makeWay(listen.socket);
  servings.push(await openSocket(makeApp(agent, "socket", actions), listen.socket));
  if (listen.loopback === undefined) return { loopback: undefined, close };
  try {
    const app = makeApp(agent, "loopback", actions);
    const serving = await serve((request) => app.fetch(request), listen.loopback);
    servings.push(serving);
    return { loopback: { host: listen.loopback.host, port: serving.port }, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Removes a socket that a killed agent left behind; one that answers belongs to somebody. */
async function makeWay(path: string): Promise<void> {
  const answers = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    const end = (isThere: boolean) => {
      probe.destroy();
      resolve(isThere);
    };
    probe.once("connect", () => end(true));
    probe.once("error", () => end(false));
  });
  if (answers) throw new EdgeError("EDGE_AGENT_BUSY", `Cannot listen on "${path}": another agent answers there`);
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    rmSync(path, { force: true });
  } catch (error) {
    throw new EdgeError("EDGE_STATE_UNWRITABLE", `Cannot prepare the socket "${path}": ${messageOf(error)}`, {
      fix: "Name another place with --socket, or create its directory.",
    });
  }
}

/** The mode is set before anybody can connect: the umask of the bind decides, not a later chmod. */
async function openSocket(app: Hono, path: string): Promise<Serving> {
  const before = process.umask(0o177);
  try {
    return await serve((request) => app.fetch(request), { path });
  } finally {
    process.umask(before);
  }
}
