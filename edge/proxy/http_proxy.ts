/**
 * The HTTP proxy of L7 policy: takes the connections that the datapath steers to it, reads HTTP/1 from them, lets each request pass
 * or answers 403. The servers and clients of `node:http` do the parsing and the writing; what could be read in two ways is refused
 * before anything is forwarded (src/l7/http_headers.ts).
 *
 * No header is added to a request: no X-Forwarded-For, no Via. HTTP/2 and TLS are refused, and recorded as such.
 * Read `http_judge.ts` for what decides, `http_session.ts` for the way of a request.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { formatAddress, parseAddress } from "../../src/ip/address.ts";
import { EdgeError, errnoOf, messageOf } from "../errors.ts";
import type { ProxyDoors } from "./doors.ts";
import { answerText, http2Goodbye, refusedAnswer } from "./http_answers.ts";
import { Exchange } from "./http_exchange.ts";
import { HttpJudge } from "./http_judge.ts";
import { HttpSession } from "./http_session.ts";
import { serveUpgrade } from "./http_tunnel.ts";
import { MAX_HEAD_BYTES } from "./http_upstream.ts";

/** A proxy that listens. */
export interface RunningProxy {
  /** the same on every address */
  readonly port: number;
  /** Ends every connection. */
  stop(): Promise<void>;
}

/** As many as flows can be redirected. */
const MAX_CONNECTIONS = 4096;
/** How long a connection may be without a request. Envoy's. */
const IDLE_MS = 3_600_000;
/** How long the head of a request may take. */
const HEAD_MS = 60_000;
/** Ports tried until one is free on all addresses. */
const MAX_TRIES = 16;

/**
 * @param addresses own mesh addresses, one of each family; they are on the device already
 * @throws EdgeError EDGE_NETWORK_FAILED when it cannot listen there
 */
export async function startHttpProxy(addresses: readonly string[], doors: ProxyDoors): Promise<RunningProxy> {
  const proxy = new HttpProxy(doors);
  for (let tries = 1;; tries++) {
    try {
      const port = await proxy.listen(addresses);
      doors.log.info("http-proxy-up", { port, addresses: addresses.join(",") });
      return { port, stop: () => proxy.stop() };
    } catch (error) {
      await proxy.stop();
      if (errnoOf(error) === "EADDRINUSE" && tries < MAX_TRIES) continue;
      throw new EdgeError(
        "EDGE_NETWORK_FAILED",
        `Cannot start the HTTP proxy on "${addresses.join(", ")}": ${messageOf(error)}`,
      );
    }
  }
}

class HttpProxy {
  readonly #doors: ProxyDoors;
  readonly #judge: HttpJudge;
  readonly #sessions = new Map<Socket, HttpSession>();
  #servers: Server[] = [];

  constructor(doors: ProxyDoors) {
    this.#doors = doors;
    this.#judge = new HttpJudge(doors);
  }

  async listen(addresses: readonly string[]): Promise<number> {
    let port = 0;
    for (const host of addresses) {
      const server = this.#makeServer();
      this.#servers.push(server);
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen({ host, port }, resolve);
      });
      server.on("error", () => {}); // of one connection that could not be accepted
      port = (server.address() as AddressInfo).port;
    }
    return port;
  }

  async stop(): Promise<void> {
    const closed = this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const session of [...this.#sessions.values()]) session.end();
    for (const server of this.#servers) server.closeAllConnections?.();
    this.#servers = [];
    await Promise.all(closed);
  }

  #makeServer(): Server {
    // a missing Host is refused, and recorded, in src/l7/http_headers.ts
    const server = createServer({ maxHeaderSize: MAX_HEAD_BYTES, noDelay: true, requireHostHeader: false });
    server.keepAliveTimeout = IDLE_MS;
    server.headersTimeout = HEAD_MS;
    // a body may take as long as it likes
    server.requestTimeout = 0;
    server.timeout = 0;
    // counted in src/l7/http_headers.ts: here the rest would be left out without a word
    server.maxHeadersCount = 0;
    server.maxConnections = MAX_CONNECTIONS;
    server.on("connection", (socket: Socket) => this.#admit(socket));
    server.on("request", (message, response) => this.#take(message, response, false));
    server.on("checkContinue", (message, response) => this.#take(message, response, true));
    server.on("upgrade", (message, socket, head) => {
      const session = this.#sessions.get(socket as Socket);
      if (session === undefined) socket.destroy();
      else serveUpgrade(session, message, head);
    });
    server.on("connect", (message, socket) => this.#refuse(socket as Socket, message, 405, "CONNECT is not supported"));
    server.on("clientError", (error, socket) => this.#noteUnreadable(error, socket as Socket));
    return server;
  }

  /** Only what comes from the datapath stands for a flow. */
  #admit(socket: Socket): void {
    const handle = socket.remotePort ?? 0;
    const address = canonical(socket.remoteAddress ?? "");
    const client = canonical(this.#doors.clientAddress(address.includes(":") ? 6 : 4));
    const flow = address === client ? this.#doors.flowOf(handle) : undefined;
    if (flow === undefined) {
      this.#doors.log.debug("http-proxy-stranger", { address, port: handle });
      socket.on("error", () => {});
      socket.destroy();
      return;
    }
    this.#sessions.set(socket, new HttpSession(socket, flow, handle, this.#judge, this.#doors));
    socket.on("close", () => this.#sessions.delete(socket));
  }

  #take(message: IncomingMessage, response: ServerResponse, isWaiting: boolean): void {
    const session = this.#sessions.get(message.socket);
    if (session === undefined) message.socket.destroy();
    else session.take(message, response, isWaiting);
  }

  /** What the parser could not read. */
  #noteUnreadable(error: Error, socket: Socket): void {
    const code = (error as { code?: string }).code ?? "";
    const session = this.#sessions.get(socket);
    if (session === undefined || code === "ECONNRESET" || code === "EPIPE") {
      socket.destroy();
      return;
    }
    // its last request is still being answered
    if (code === "HPE_CLOSED_CONNECTION" && session.isBusy) return;
    const { status, reason } = faultOf(code, error);
    if (session.isBusy) session.refuseCurrent(status, reason);
    else this.#refuse(socket, undefined, status, reason, code === "HPE_PAUSED_H2_UPGRADE");
  }

  #refuse(socket: Socket, message: IncomingMessage | undefined, status: number, reason: string, isHttp2 = false): void {
    const session = this.#sessions.get(socket);
    if (session === undefined) {
      socket.destroy();
      return;
    }
    const { method = "", url: path = "", headers: { host = "" } = {} } = message ?? {};
    new Exchange(session.flow, this.#doors, { method, path, host }).refused(status, reason);
    socket.end(isHttp2 ? http2Goodbye() : answerText(refusedAnswer(status, reason)));
  }
}

function faultOf(code: string, error: Error): { readonly status: number; readonly reason: string } {
  if (code === "HPE_PAUSED_H2_UPGRADE") return { status: 505, reason: "HTTP/2 is not supported" };
  if (code === "HPE_HEADER_OVERFLOW") {
    return { status: 431, reason: `the head is longer than ${MAX_HEAD_BYTES} octets` };
  }
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") return { status: 408, reason: "the head did not come in time" };
  const packet = (error as { rawPacket?: Uint8Array }).rawPacket;
  if (packet?.[0] === 0x16 && packet[1] === 3) return { status: 400, reason: "TLS is not supported" };
  return { status: 400, reason: `it is not HTTP/1.1 (${error.message.replace(/^Parse Error: /, "")})` };
}

/** One text for each address, whoever wrote it. */
function canonical(text: string): string {
  const address = parseAddress(text);
  return address === undefined ? text : formatAddress(address);
}
