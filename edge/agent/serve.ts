/**
 * Serves a fetch handler on a Unix socket or on loopback. On Bun by its own server, elsewhere by `node:http` with
 * `@hono/node-server`: on Bun the latter costs an idle member 1.8 MB more of anonymous memory and 3 MB more resident (measured in
 * the compiled program), and that decides whether it stays within D13.
 */
import { EdgeError, errnoOf, messageOf } from "../errors.ts";

/** Answers one request; never rejects. */
export type Fetch = (request: Request) => Response | Promise<Response>;

/** A path of a Unix socket, or an address of loopback; port 0 lets the system choose. */
export type ServeAt = { readonly path: string } | { readonly host: string; readonly port: number };

/** Something that listens. */
export interface Serving {
  /** 0 for a Unix socket */
  readonly port: number;
  /** Ends open connections too. */
  close(): Promise<void>;
}

/** A ping may take a minute, a leave half of one. */
const IDLE_SECONDS = 120;
const MAX_BODY_BYTES = 65_536;
/** On the socket come the policies of a dry run: 4 MB and what is around them. */
const MAX_SOCKET_BODY_BYTES = 4 * 1024 * 1024 + 65_536;

/** The part of Bun that is used here. */
interface BunServer {
  readonly port: number | undefined;
  stop(closeActiveConnections: boolean): void | Promise<void>;
}
interface BunRuntime {
  serve(options: Readonly<Record<string, unknown>>): BunServer;
}

/** @throws EdgeError EDGE_PORT_BUSY when somebody listens there, else EDGE_NETWORK_FAILED */
export async function serve(fetch: Fetch, at: ServeAt): Promise<Serving> {
  const bun = (globalThis as unknown as { Bun?: BunRuntime }).Bun;
  try {
    return bun === undefined ? await serveOnNode(fetch, at) : serveOnBun(bun, fetch, at);
  } catch (error) {
    const where = "path" in at ? at.path : `${at.host}:${at.port}`;
    const code = errnoOf(error) === "EADDRINUSE" ? "EDGE_PORT_BUSY" : "EDGE_NETWORK_FAILED";
    throw new EdgeError(code, `Cannot listen on "${where}": ${messageOf(error)}`, {
      fix: "path" in at ? "Name another place with --socket." : "Choose another port with --http-listen, or none.",
    });
  }
}

function serveOnBun(bun: BunRuntime, fetch: Fetch, at: ServeAt): Serving {
  const server = bun.serve({
    ...("path" in at ? { unix: at.path } : { hostname: at.host, port: at.port }),
    fetch: (request: Request) => fetch(request),
    idleTimeout: IDLE_SECONDS,
    maxRequestBodySize: "path" in at ? MAX_SOCKET_BODY_BYTES : MAX_BODY_BYTES,
    development: false,
  });
  return {
    port: server.port ?? 0,
    close: async () => {
      await server.stop(true);
    },
  };
}

/** Also what the tests of both ways use on Bun. */
export async function serveOnNode(fetch: Fetch, at: ServeAt): Promise<Serving> {
  const { createServer } = await import("node:http");
  const { getRequestListener } = await import("@hono/node-server");
  const server = createServer(getRequestListener(fetch, { overrideGlobalObjects: false }));
  server.requestTimeout = 30_000;
  server.headersTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(at, resolve);
  });
  server.on("error", () => {}); // of one connection that could not be accepted
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections?.();
      }),
  };
}
