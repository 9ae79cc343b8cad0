/** Client of a running agent: HTTP over its Unix socket. */
import { request } from "node:http";
import type { ErrorDocument } from "../agent/documents.ts";
import { EdgeError, type EdgeErrorCode, errnoOf, ERROR_CODES, messageOf } from "../errors.ts";

const DEFAULT_TIMEOUT_MS = 10_000;
/** Longest answer that is read; a status with thousands of peers has a few MB. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** Asks one agent. */
export class AgentClient {
  readonly #socket: string;
  readonly #timeoutMs: number;

  /** @param socket path of the Unix socket */
  constructor(socket: string, timeoutMs = DEFAULT_TIMEOUT_MS) {
    this.#socket = socket;
    this.#timeoutMs = timeoutMs;
  }

  /** @throws EdgeError EDGE_AGENT_NOT_RUNNING, EDGE_AGENT_DENIED, EDGE_TIMEOUT, or what the agent answered */
  get<T>(path: string): Promise<T> {
    return this.#call<T>("GET", path, undefined, this.#timeoutMs);
  }

  /** @param patienceMs how long the agent itself may take, on top of the usual time */
  post<T>(path: string, body: unknown, patienceMs = 0): Promise<T> {
    return this.#call<T>("POST", path, JSON.stringify(body), this.#timeoutMs + patienceMs);
  }

  async #call<T>(method: string, path: string, body: string | undefined, timeoutMs: number): Promise<T> {
    const { status, text } = await this.#send(method, path, body, timeoutMs);
    let document: unknown;
    try {
      document = JSON.parse(text);
    } catch {
      throw new EdgeError(
        "EDGE_PROTOCOL",
        `Cannot read the answer of the agent on "${this.#socket}": not JSON (HTTP ${status})`,
      );
    }
    if (status < 300) return document as T;
    const { code, message, fix } = document as Partial<ErrorDocument>;
    const known = typeof code === "string" && Object.hasOwn(ERROR_CODES, code)
      ? code as EdgeErrorCode
      : "EDGE_PROTOCOL";
    throw new EdgeError(known, message ?? `Cannot ask the agent: HTTP ${status}`, fix === undefined ? {} : { fix });
  }

  #send(
    method: string,
    path: string,
    body: string | undefined,
    timeoutMs: number,
  ): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const headers = body === undefined
        ? { host: "localhost" }
        : { host: "localhost", "content-type": "application/json", "content-length": String(Buffer.byteLength(body)) };
      const sent = request({ socketPath: this.#socket, method, path, headers }, (response) => {
        const chunks: Uint8Array[] = [];
        let bytes = 0;
        response.on("data", (chunk: Uint8Array) => {
          chunks.push(chunk);
          bytes += chunk.length;
          if (bytes > MAX_ANSWER_BYTES) sent.destroy(new Error("the answer is too long"));
        });
        response.on("end", () => {
          clearTimeout(timer);
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") });
        });
        response.on("error", (error) => fail(error));
      });
      const fail = (error: unknown) => {
        clearTimeout(timer);
        reject(this.#failureOf(error));
      };
      const timer = setTimeout(() => {
        reject(
          new EdgeError("EDGE_TIMEOUT", `Cannot reach the agent on "${this.#socket}": no answer in ${timeoutMs} ms`),
        );
        sent.destroy();
      }, timeoutMs);
      sent.on("error", fail);
      // an agent may answer before it has read all: what the socket then says of the rest is no news, and has nobody to take it
      sent.on("socket", (socket) => socket.on("error", () => {}));
      sent.end(body);
    });
  }

  #failureOf(error: unknown): EdgeError {
    const code = errnoOf(error);
    const where = `Cannot reach the agent on "${this.#socket}"`;
    if (code === "EACCES" || code === "EPERM") {
      return new EdgeError("EDGE_AGENT_DENIED", `${where}: permission denied (${code})`);
    }
    if (["ENOENT", "ECONNREFUSED", "FailedToOpenSocket", "ENOTSOCK"].includes(code)) {
      return new EdgeError("EDGE_AGENT_NOT_RUNNING", `${where}: it is not running (${code})`);
    }
    return new EdgeError("EDGE_AGENT_NOT_RUNNING", `${where}: ${messageOf(error)}`);
  }
}
