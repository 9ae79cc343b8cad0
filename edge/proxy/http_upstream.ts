/**
 * The one connection to the server that belongs to one connection of a client. The datapath gives both the same original addresses,
 * so there is never a second: when the server closes it, the client's is closed too, as if there were no proxy.
 */
import { Agent, type ClientRequest, request } from "node:http";
import type { Socket } from "node:net";
import type { AllowedRequest } from "./http_judge.ts";

/** Octets of a message's head. Envoy's limit. */
export const MAX_HEAD_BYTES = 60 * 1024;
const CONNECT_TIMEOUT_MS = 10_000;

export class Upstream {
  readonly #where: { readonly host: string; readonly port: number };
  readonly #onClose: () => void;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1, maxFreeSockets: 1 });
  #socket: Socket | undefined;
  #isClosed = false;

  /** @param onClose called once, when the connection has ended for whatever reason */
  constructor(host: string, port: number, onClose: () => void) {
    this.#where = { host, port };
    this.#onClose = onClose;
  }

  /** There was a connection, and it has ended. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /**
   * Starts a request; connects first, if it is the first. The caller sends the body, and listens to `error`.
   * @param extra headers of this hop
   */
  start(allowed: AllowedRequest, extra: readonly string[]): ClientRequest {
    const { method, path, headers } = allowed;
    const sent = request({
      ...this.#where,
      method,
      path,
      headers: [...headers, ...extra],
      setHost: false,
      agent: this.#agent,
      maxHeaderSize: MAX_HEAD_BYTES,
    });
    sent.on("socket", (socket: Socket) => this.#watch(socket, sent));
    return sent;
  }

  close(): void {
    this.#isClosed = true;
    this.#agent.destroy();
    this.#socket?.destroy();
  }

  #watch(socket: Socket, sent: ClientRequest): void {
    if (socket === this.#socket) return;
    this.#socket = socket;
    socket.setNoDelay?.(true);
    if (socket.connecting) {
      const timer = setTimeout(() => sent.destroy(new Error("the server does not answer")), CONNECT_TIMEOUT_MS);
      socket.once("connect", () => clearTimeout(timer));
      socket.once("close", () => clearTimeout(timer));
    }
    socket.once("close", () => {
      this.#isClosed = true;
      this.#onClose();
    });
  }
}
