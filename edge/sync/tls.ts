/**
 * TLS connections to a hub. Trust is the pinned CA and nothing else: no system roots, no host names (a hub is verified as
 * `HUB_SERVER_NAME` wherever it was reached), and the end of validity is judged with trusted time (clock.ts).
 */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { connect, type TLSSocket } from "node:tls";
import { EdgeError, errnoOf, messageOf } from "../errors.ts";
import type { TrustedClock } from "./clock.ts";
import { type Endpoint, formatEndpoint } from "./endpoint.ts";
import { HUB_SERVER_NAME } from "./pin.ts";

/** Who is believed to be the hub. */
export interface HubTrust {
  /** the CA certificate whose pin was checked */
  readonly caPem: string;
  readonly clock: TrustedClock;
}

export interface ConnectOptions {
  /** `undefined`: whoever answers, for the one request that fetches the CA. Nothing but public text may be sent there. */
  readonly trust: HubTrust | undefined;
  /** for connecting and the handshake */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** The addresses of a hub's endpoint, in the resolver's order. Rejects with EDGE_HUB_UNREACHABLE. */
export async function resolveEndpoint(endpoint: Endpoint): Promise<readonly Endpoint[]> {
  if (isIP(endpoint.host) !== 0) return [endpoint];
  try {
    const found = await lookup(endpoint.host, { all: true, verbatim: true });
    return found.map(({ address }) => ({ host: address, port: endpoint.port }));
  } catch (error) {
    throw new EdgeError(
      "EDGE_HUB_UNREACHABLE",
      `Cannot find hub "${endpoint.host}": ${errnoOf(error) || messageOf(error)}`,
      { cause: error },
    );
  }
}

/**
 * Connects to one address and finishes the handshake. With `trust` the hub is verified before this returns, so nothing was sent
 * to anybody else.
 *
 * @throws EdgeError EDGE_HUB_UNREACHABLE, or EDGE_HUB_UNTRUSTED when somebody answered who is not the hub
 */
export function connectTls(address: Endpoint, options: ConnectOptions): Promise<TLSSocket> {
  const { trust, signal } = options;
  const where = formatEndpoint(address);
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(unreachable(where, "stopped"));
    const socket = connect({
      host: address.host,
      port: address.port,
      servername: HUB_SERVER_NAME,
      minVersion: "TLSv1.3",
      ...(trust === undefined ? { rejectUnauthorized: false } : { ca: trust.caPem }),
    });
    const fail = (error: EdgeError) => {
      done();
      socket.on("error", () => {}); // what comes after the first failure says nothing new
      socket.destroy();
      reject(error);
    };
    const onError = (error: unknown) => fail(failureOf(where, error));
    const onClose = () => fail(unreachable(where, "connection closed"));
    const onAbort = () => fail(unreachable(where, "stopped"));
    const timer = setTimeout(() => fail(unreachable(where, "no answer in time")), options.timeoutMs);
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      socket.off("error", onError);
      socket.off("close", onClose);
    };
    socket.once("error", onError);
    socket.once("close", onClose);
    signal?.addEventListener("abort", onAbort, { once: true });
    socket.once("secureConnect", () => {
      const doubt = trust === undefined ? undefined : doubtAbout(socket, trust);
      if (doubt !== undefined) return fail(untrusted(where, doubt));
      done();
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}

/** What the runtime's own verification leaves open. */
function doubtAbout(socket: TLSSocket, trust: HubTrust): string | undefined {
  if (!socket.authorized) return String(socket.authorizationError ?? "not verified");
  const until = Date.parse(socket.getPeerCertificate().valid_to);
  if (!Number.isFinite(until)) return "certificate without an end";
  return until < trust.clock.now() ? "its certificate has expired" : undefined;
}

// Codes of a chain, name or date that does not verify: OpenSSL's, BoringSSL's and those that Deno maps to them.
const CERTIFICATE_FAULT = /^(CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|ERR_TLS_CERT|INVALID_(CA|PURPOSE)|HOSTNAME_)/;

function failureOf(where: string, error: unknown): EdgeError {
  const code = errnoOf(error);
  if (CERTIFICATE_FAULT.test(code) || /certificate/i.test(messageOf(error))) {
    return untrusted(where, code || messageOf(error));
  }
  return unreachable(where, code || messageOf(error), error);
}

function untrusted(where: string, state: string): EdgeError {
  return new EdgeError("EDGE_HUB_UNTRUSTED", `Cannot trust hub "${where}": ${state}`);
}

/** EDGE_HUB_UNREACHABLE for an address. */
export function unreachable(where: string, state: string, cause?: unknown): EdgeError {
  return new EdgeError("EDGE_HUB_UNREACHABLE", `Cannot reach hub "${where}": ${state}`, { cause });
}
