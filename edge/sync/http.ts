/**
 * As much of an HTTP/1.1 client as a member needs of its hub: requests one after the other on one verified connection, and an
 * `Upgrade`. Our own because the runtimes' clients differ in how they check certificates, and because a connection is verified
 * here before the first octet of a request leaves.
 */
import type { TLSSocket } from "node:tls";
import { EdgeError, errnoOf, messageOf } from "../errors.ts";
import { HUB_SERVER_NAME } from "./pin.ts";

/** Head of an answer, at most. */
const MAX_HEAD_BYTES = 16_384;
/** Body of an answer, at most: a list of many members. */
const MAX_BODY_BYTES = 64 * 1024 * 1024;
const NEWLINE = 10;

export interface HttpRequest {
  readonly method: "GET" | "POST" | "DELETE";
  /** path and query, already encoded */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface HttpAnswer {
  readonly status: number;
  /** names in lower case */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Uint8Array;
}

/** One connection. Every failure is an EdgeError: EDGE_HUB_UNREACHABLE when it broke, EDGE_PROTOCOL for an answer that is no HTTP. */
export class HttpConnection {
  readonly #socket: TLSSocket;
  readonly #where: string;
  #arrived: Uint8Array = new Uint8Array(0);
  #failure: EdgeError | undefined;
  #isEnded = false;
  #wake: (() => void) | undefined;
  readonly #onData = (chunk: Uint8Array) => {
    this.#arrived = joined(this.#arrived, chunk);
    if (this.#arrived.length > MAX_BODY_BYTES) this.#fail("answer is too long");
    this.#wake?.();
  };
  readonly #onEnd = () => {
    this.#isEnded = true;
    this.#wake?.();
  };
  readonly #onError = (error: unknown) => this.#fail(errnoOf(error) || messageOf(error));

  /** @param where `host:port` for messages */
  constructor(socket: TLSSocket, where: string) {
    this.#socket = socket;
    this.#where = where;
    socket.on("data", this.#onData);
    socket.on("end", this.#onEnd);
    socket.on("close", this.#onEnd);
    socket.on("error", this.#onError);
  }

  /** Address of this machine on the connection, "" if unknown. */
  get localAddress(): string {
    return this.#socket.localAddress ?? "";
  }

  /** Sends one request and reads its answer. The caller waits for it before the next. */
  async request(request: HttpRequest, timeoutMs: number): Promise<HttpAnswer> {
    const timer = setTimeout(() => this.#fail("no answer in time"), timeoutMs);
    try {
      this.#send(request);
      const { status, headers } = await this.#readHead();
      const body = status === 204 || status === 304 ? new Uint8Array(0) : await this.#readBody(headers);
      return { status, headers, body };
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Asks for another protocol. When the hub agrees the socket is the caller's, with no listener of this class left.
   * @returns the octets of the new protocol that came already; or the hub's answer when it did not agree
   */
  async upgrade(path: string, protocol: string, timeoutMs: number): Promise<{ head: Uint8Array } | HttpAnswer> {
    const timer = setTimeout(() => this.#fail("no answer in time"), timeoutMs);
    try {
      this.#send({ method: "GET", path, headers: { connection: "Upgrade", upgrade: protocol } });
      const { status, headers } = await this.#readHead();
      if (status !== 101) return { status, headers, body: await this.#readBody(headers) };
      if (headers.get("upgrade")?.toLowerCase() !== protocol) throw this.#protocolError("upgrade to something else");
      this.#detach();
      return { head: this.#arrived };
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#detach();
    this.#socket.on("error", () => {});
    this.#socket.destroy();
  }

  #send({ method, path, headers = {}, body }: HttpRequest): void {
    const lines = [`${method} ${path} HTTP/1.1`, `host: ${HUB_SERVER_NAME}`];
    for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
    const hasLength = headers["transfer-encoding"] === undefined;
    if (hasLength && (method === "POST" || body !== undefined)) lines.push(`content-length: ${body?.length ?? 0}`);
    const text = `${lines.join("\r\n")}\r\n\r\n`;
    if (/[^\x20-\x7e\r\n]/.test(text)) throw new TypeError("Request head has characters that HTTP does not allow");
    const head = new TextEncoder().encode(text);
    this.#socket.write(body === undefined ? head : joined(head, body));
  }

  async #readHead(): Promise<{ status: number; headers: Map<string, string> }> {
    const lines: string[] = [];
    let bytes = 0;
    for (;;) {
      const line = await this.#readLine();
      bytes += line.length + 2;
      if (bytes > MAX_HEAD_BYTES) throw this.#protocolError("head is too long");
      if (line === "" && lines.length > 0) break;
      lines.push(line);
    }
    const status = /^HTTP\/1\.[01] ([1-5][0-9]{2})(?: |$)/.exec(lines[0]!)?.[1];
    if (status === undefined) throw this.#protocolError("not an HTTP answer");
    const headers = new Map<string, string>();
    for (const line of lines.slice(1)) {
      const colon = line.indexOf(":");
      if (colon > 0) headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
    }
    return { status: Number(status), headers };
  }

  async #readBody(headers: ReadonlyMap<string, string>): Promise<Uint8Array> {
    if (headers.get("transfer-encoding")?.toLowerCase() === "chunked") return await this.#readChunks();
    const length = headers.get("content-length");
    if (length === undefined) {
      while (await this.#more());
      return this.#take(this.#arrived.length);
    }
    if (!/^[0-9]{1,9}$/.test(length) || Number(length) > MAX_BODY_BYTES) {
      throw this.#protocolError("odd content-length");
    }
    return await this.#readExactly(Number(length));
  }

  async #readChunks(): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let bytes = 0;
    for (;;) {
      const size = /^([0-9a-fA-F]{1,7})(?:;.*)?$/.exec(await this.#readLine())?.[1];
      if (size === undefined) throw this.#protocolError("odd chunk");
      const count = parseInt(size, 16);
      bytes += count;
      if (bytes > MAX_BODY_BYTES) throw this.#protocolError("answer is too long");
      if (count > 0) parts.push(await this.#readExactly(count));
      const rest = await this.#readLine();
      if (count > 0 && rest !== "") throw this.#protocolError("odd chunk");
      if (count > 0) continue;
      // What follows the last chunk are trailers, then an empty line.
      for (let trailer = rest; trailer !== ""; trailer = await this.#readLine());
      return joined(...parts);
    }
  }

  async #readLine(): Promise<string> {
    for (;;) {
      const end = this.#arrived.indexOf(NEWLINE);
      if (end >= 0) return new TextDecoder("latin1").decode(this.#take(end + 1)).replace(/\r?\n$/, "");
      if (this.#arrived.length > MAX_HEAD_BYTES) throw this.#protocolError("line is too long");
      if (!await this.#more()) throw this.#broken("connection closed");
    }
  }

  async #readExactly(count: number): Promise<Uint8Array> {
    while (this.#arrived.length < count) if (!await this.#more()) throw this.#broken("connection closed");
    return this.#take(count);
  }

  #take(count: number): Uint8Array {
    const taken = this.#arrived.slice(0, count);
    this.#arrived = this.#arrived.slice(count);
    return taken;
  }

  /** Waits for more octets. @returns false when none will come; throws what broke the connection */
  async #more(): Promise<boolean> {
    const before = this.#arrived.length;
    while (this.#failure === undefined && !this.#isEnded && this.#arrived.length === before) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    if (this.#failure !== undefined) throw this.#failure;
    return this.#arrived.length > before;
  }

  #fail(state: string): void {
    this.#failure ??= this.#broken(state);
    this.#socket.destroy();
    this.#wake?.();
  }

  #detach(): void {
    this.#socket.off("data", this.#onData);
    this.#socket.off("end", this.#onEnd);
    this.#socket.off("close", this.#onEnd);
    this.#socket.off("error", this.#onError);
  }

  #broken(state: string): EdgeError {
    return new EdgeError("EDGE_HUB_UNREACHABLE", `Cannot talk to hub "${this.#where}": ${state}`);
  }

  #protocolError(state: string): EdgeError {
    return new EdgeError("EDGE_PROTOCOL", `Cannot read the answer of hub "${this.#where}": ${state}`);
  }
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 2 && parts[0]!.length === 0) return new Uint8Array(parts[1]!);
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
