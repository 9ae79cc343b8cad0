/**
 * The hub's TLS server: one Hono app on `node:https`, and the sync stream on the same port by `Upgrade`.
 *
 *     /v1/ca, /v1/join..., /v1/leave...   api_public.ts
 *     /v1/admin/...                       api_admin.ts
 *     /v1/sync                            sync_server.ts
 *
 * TLS 1.3 only, with a certificate of the hub's own CA that is renewed while the server runs: the listener is replaced, connections
 * stay. Requests that a browser could have been tricked into (an `Origin`, or a `Host` that is not this hub's) are refused.
 */
import type { IncomingMessage } from "node:http";
import { createServer, type Server } from "node:https";
import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import { serve } from "@hono/node-server";
import { getConnInfo } from "@hono/node-server/conninfo";
import { type Context, Hono } from "hono";
import { toHex } from "../../src/bytes/text.ts";
import type { Log, RandomBytes } from "../../src/ports.ts";
import { EdgeError, errnoOf, messageOf } from "../errors.ts";
import type { AdminStatus } from "../sync/admin_messages.ts";
import { type Endpoint, formatEndpoint, parseEndpoint } from "../sync/endpoint.ts";
import { SYNC_PATH, SYNC_UPGRADE } from "../sync/messages.ts";
import { HUB_SERVER_NAME } from "../sync/pin.ts";
import { makeAdminApi } from "./api_admin.ts";
import { addPublicApi } from "./api_public.ts";
import type { HubKeys, ServerCertificate } from "./ca.ts";
import type { HubState } from "./state.ts";
import { SyncServer } from "./sync_server.ts";
import type { Remote } from "./sync_session.ts";
import { fault } from "./wire_format.ts";

// Strangers get this long for each step.
const HANDSHAKE_TIMEOUT_MS = 10_000;
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
const KEEP_ALIVE_MS = 5_000;
const MAX_HEADER_BYTES = 16_384;
const MAX_CONNECTIONS = 20_000;
/** Requests that are being answered at the same time; the next ones are told to come back. */
const MAX_REQUESTS = 512;
const TICK_MS = 1_000;
const CHECK_CERTIFICATE_MS = 3_600_000;
/** What a kernel without IPv6 says to an address of it. */
const NO_IPV6: ReadonlySet<string> = new Set(["EAFNOSUPPORT", "EADDRNOTAVAIL"]);

export interface HubServerOptions {
  readonly state: HubState;
  readonly keys: HubKeys;
  /** `host:port`; port 0 chooses one */
  readonly listen: Endpoint;
  /** `host:port` where members reach the hub: in tokens and in the certificate. Empty: what `listen` says, if that is an address */
  readonly advertise: readonly string[];
  readonly log: Log;
  readonly random: RandomBytes;
  readonly version: string;
  /** Unix milliseconds; default: the wall clock */
  readonly unixMs?: () => number;
  /** monotonic; default: performance.now */
  readonly nowMs?: () => number;
  /** what the hub's own agent says; for status */
  readonly memberState?: () => string;
}

/** A hub that answers. */
export class HubServer {
  readonly sync: SyncServer;
  readonly #options: HubServerOptions;
  readonly #unixMs: () => number;
  readonly #nowMs: () => number;
  readonly #app: Hono;
  #listener: Server | undefined;
  #host: string;
  #port = 0;
  #certificate: ServerCertificate;
  #certificateCheckedAtMs: number;
  #timer: ReturnType<typeof setInterval> | undefined;
  #requests = 0;
  #isTicking = false;
  readonly #counters = {
    requests: 0,
    tlsFailures: 0,
    refusedHosts: 0,
    refusedUpgrades: 0,
    busy: 0,
    renewedCertificates: 0,
  };

  private constructor(options: HubServerOptions, certificate: ServerCertificate) {
    this.#options = options;
    this.#host = options.listen.host;
    this.#unixMs = options.unixMs ?? Date.now;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#certificate = certificate;
    this.#certificateCheckedAtMs = this.#nowMs();
    const { state, keys, log, random } = options;
    this.sync = new SyncServer({
      state,
      signer: keys.signer,
      caPin: keys.caPin,
      cluster: state.settings.cluster.name,
      log,
      random,
      unixMs: this.#unixMs,
      nowMs: this.#nowMs,
    });
    this.#app = this.#makeApp();
  }

  /**
   * Starts to listen.
   * @throws EdgeError EDGE_PORT_BUSY or EDGE_NETWORK_FAILED
   */
  static async start(options: HubServerOptions): Promise<HubServer> {
    const unixMs = (options.unixMs ?? Date.now)();
    const server = new HubServer(options, await options.keys.serverCertificate(namesOf(options), unixMs));
    server.#port = options.listen.port;
    try {
      await server.#listen();
    } catch (error) {
      if (server.#host !== "::" || !NO_IPV6.has(errnoOf((error as EdgeError).cause))) throw error;
      server.#host = "0.0.0.0";
      await server.#listen();
    }
    server.#timer = setInterval(() => void server.#tick(), TICK_MS);
    return server;
  }

  /** The port that it listens on. */
  get port(): number {
    return this.#port;
  }

  /** `host:port` for tokens. */
  advertised(): readonly string[] {
    if (this.#options.advertise.length > 0) return this.#options.advertise;
    const { host } = this.#options.listen;
    return host === "::" || host === "0.0.0.0" ? [] : [formatEndpoint({ host, port: this.#port })];
  }

  status(): AdminStatus {
    const { state, keys, version, memberState } = this.#options;
    const members = { total: 0, active: 0, pending: 0, revoked: 0, connected: this.sync.connected };
    for (const member of state.members()) {
      members.total++;
      members[member.state]++;
    }
    return {
      version,
      cluster: state.settings.cluster,
      epoch: state.epoch,
      revision: state.revision,
      unixMs: this.#unixMs(),
      listen: formatEndpoint({ host: this.#host, port: this.#port }),
      advertise: this.advertised(),
      caPin: toHex(keys.caPin),
      certificateNotAfter: this.#certificate.notAfterMs,
      members,
      member: memberState?.() ?? "none",
      counters: { ...this.#counters, ...this.sync.counters },
    };
  }

  /** Stops listening and ends all connections. Members come back by themselves. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.sync.close();
    await this.#unlisten(true);
  }

  async #listen(): Promise<void> {
    const host = this.#host;
    const { certPem, keyPem } = this.#certificate;
    await new Promise<void>((resolve, reject) => {
      const listener = serve({
        fetch: this.#app.fetch,
        // The agent in the same process serves through Bun, which takes its own Response only.
        overrideGlobalObjects: false,
        hostname: host,
        port: this.#port,
        createServer,
        serverOptions: {
          key: keyPem,
          cert: certPem,
          minVersion: "TLSv1.3",
          handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
          headersTimeout: HEADERS_TIMEOUT_MS,
          requestTimeout: REQUEST_TIMEOUT_MS,
          keepAliveTimeout: KEEP_ALIVE_MS,
          connectionsCheckingInterval: TICK_MS,
          maxHeaderSize: MAX_HEADER_BYTES,
        },
      }, (info) => {
        this.#port = info.port;
        resolve();
      }) as Server;
      listener.maxConnections = MAX_CONNECTIONS;
      listener.once("error", (error) => reject(listenFailure(host, this.#port, error)));
      listener.on("error", (error) => this.#options.log.error("hub-listener", { reason: messageOf(error) }));
      listener.on("tlsClientError", () => this.#counters.tlsFailures++);
      listener.on("clientError", (_error, socket) => socket.destroy());
      listener.on("upgrade", (request, socket, head) => this.#onUpgrade(request, socket, head));
      this.#listener = listener;
    });
  }

  #unlisten(isForced: boolean): Promise<void> {
    const listener = this.#listener;
    this.#listener = undefined;
    if (listener === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      // Without force this does not wait: upgraded connections would hold it up for as long as they live.
      listener.close(() => resolve());
      if (isForced) listener.closeAllConnections();
      else setTimeout(resolve, 0);
    });
  }

  #makeApp(): Hono {
    const { state, keys, log } = this.#options;
    const app = new Hono();
    app.use(async (c, next) => {
      this.#counters.requests++;
      const doubt = this.#doubtAbout(c.req.header("host"), c.req.header("origin"));
      if (doubt !== undefined) {
        this.#counters.refusedHosts++;
        return fault(c, 403, "foreign-request", doubt);
      }
      if (this.#requests >= MAX_REQUESTS) {
        this.#counters.busy++;
        c.header("retry-after", "5");
        return fault(c, 503, "busy", "too many requests at once");
      }
      this.#requests++;
      try {
        await next();
      } finally {
        this.#requests--;
      }
      c.header("cache-control", "no-store");
    });
    addPublicApi(app, { state, caPem: keys.caPem, caPin: keys.caPin, log, nowMs: this.#nowMs, remoteOf });
    app.route(
      "/v1/admin",
      makeAdminApi({
        state,
        credential: keys.adminToken,
        caPin: keys.caPin,
        advertise: () => this.advertised(),
        status: () => this.status(),
        dryRun: (puts, deletes, members) => this.sync.dryRuns.run(puts, deletes, members),
        connectionOf: (name) => this.sync.connectionOf(name),
        log,
        nowMs: this.#nowMs,
        remoteOf,
      }),
    );
    app.notFound((c) => fault(c, 404, "not-found", "there is nothing here"));
    app.onError((error, c) => {
      log.error("hub-request-failed", { path: c.req.path.slice(0, 100), reason: messageOf(error) });
      return fault(c, 500, "internal", "the hub failed to answer; its log says why");
    });
    return app;
  }

  #onUpgrade(request: IncomingMessage, socket: Duplex, head: Uint8Array): void {
    socket.on("error", () => socket.destroy());
    const doubt = this.#doubtAbout(request.headers.host, request.headers.origin);
    const isSync = request.method === "GET" && request.url === SYNC_PATH &&
      request.headers.upgrade?.toLowerCase() === SYNC_UPGRADE;
    if (doubt !== undefined || !isSync || !this.sync.hasRoom()) {
      this.#counters.refusedUpgrades++;
      const status = doubt !== undefined ? "403 Forbidden" : isSync ? "503 Service Unavailable" : "404 Not Found";
      socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${SYNC_UPGRADE}\r\n\r\n`);
    const { remoteAddress = "", remotePort = 0 } = request.socket;
    this.sync.accept(socket, head, { address: plainAddress(remoteAddress), port: remotePort });
  }

  /** Why a request should not be listened to: a browser sent it, or for another server. */
  #doubtAbout(host: string | undefined, origin: string | undefined): string | undefined {
    if (origin !== undefined) return "requests of web pages are not answered";
    const name = /^(?:\[([0-9a-fA-F:.]+)\]|([^:\s]+))(?::[0-9]+)?$/.exec(host ?? "");
    const wanted = (name?.[1] ?? name?.[2] ?? "").toLowerCase();
    if (isIP(wanted) !== 0 || wanted === HUB_SERVER_NAME || wanted === "localhost") return undefined;
    return namesOf(this.#options).some((own) => own.toLowerCase() === wanted) ? undefined : "this is another server";
  }

  async #tick(): Promise<void> {
    const nowMs = this.#nowMs();
    this.sync.tick(nowMs);
    if (this.#isTicking) return;
    this.#isTicking = true;
    try {
      await this.#options.state.tick();
      if (nowMs - this.#certificateCheckedAtMs >= CHECK_CERTIFICATE_MS) await this.renewCertificate();
    } catch (error) {
      this.#options.log.error("hub-upkeep", { reason: messageOf(error) });
    } finally {
      this.#isTicking = false;
    }
  }

  /** Looks whether the certificate must be renewed, and does it. Called hourly by itself. @returns whether it was renewed */
  async renewCertificate(): Promise<boolean> {
    this.#certificateCheckedAtMs = this.#nowMs();
    const { keys, log } = this.#options;
    const certificate = await keys.serverCertificate(namesOf(this.#options), this.#unixMs());
    if (certificate.certPem === this.#certificate.certPem) return false;
    this.#certificate = certificate;
    this.#counters.renewedCertificates++;
    await this.#unlisten(false);
    await this.#listen();
    log.info("hub-certificate-renewed", { notAfter: new Date(certificate.notAfterMs).toISOString() });
    return true;
  }
}

/** Names and addresses that the certificate covers and that requests may be addressed to. */
function namesOf({ advertise, listen }: HubServerOptions): readonly string[] {
  const hosts = advertise.map((text) => parseEndpoint(text)?.host).filter((host) => host !== undefined);
  return listen.host === "::" || listen.host === "0.0.0.0" ? hosts : [...hosts, listen.host];
}

function remoteOf(c: Context): Remote {
  const { remote } = getConnInfo(c);
  return { address: plainAddress(remote.address ?? ""), port: remote.port ?? 0 };
}

/** An IPv4 address that arrived at a socket for both families is written as one. */
function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=[0-9.]+$)/i, "");
}

function listenFailure(host: string, port: number, error: unknown): EdgeError {
  const where = formatEndpoint({ host, port });
  const code = errnoOf(error);
  if (code === "EADDRINUSE") {
    return new EdgeError("EDGE_PORT_BUSY", `Cannot listen on "${where}": another program does (EADDRINUSE)`, {
      cause: error,
    });
  }
  return new EdgeError("EDGE_NETWORK_FAILED", `Cannot listen on "${where}": ${code || messageOf(error)}`, {
    cause: error,
    fix: "Name an address of this machine and a port that this user may use with --listen.",
  });
}
