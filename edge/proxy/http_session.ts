/**
 * One connection of a client: its requests one after the other, each judged alone, each forwarded on the connection's own upstream
 * or answered by the proxy. Pipelined requests wait for their turn.
 *
 *     waiting -> judged -> forwarded -> answer's head (recorded) -> answer's body -> next
 *                    \-> own answer (recorded) -> next
 */
import type { ClientRequest, IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import { isLastMessage, isStatusLine, readResponseHeaders, readTrailers } from "../../src/l7/http_headers.ts";
import { messageOf } from "../errors.ts";
import type { ProxyDoors } from "./doors.ts";
import { failedAnswer, headersOf, type OwnAnswer } from "./http_answers.ts";
import type { Exchange } from "./http_exchange.ts";
import type { AllowedRequest, HttpJudge } from "./http_judge.ts";
import { Upstream } from "./http_upstream.ts";
import { liveFlow } from "./live_flow.ts";

/** Most of a refused request's body that is read, so that its connection can go on. */
const MAX_DISCARDED_BYTES = 1024 * 1024;

/** Requests of one connection that wait while one is served: who pipelines more has no need for an answer. */
const MAX_WAITING_TURNS = 64;

/** A request that waits or is being served. */
interface Turn {
  readonly message: IncomingMessage;
  readonly response: ServerResponse;
  /** the client sends the body only after "100 Continue" */
  readonly isWaiting: boolean;
}

export class HttpSession {
  readonly socket: Socket;
  readonly upstream: Upstream;
  readonly judge: HttpJudge;
  readonly doors: ProxyDoors;
  readonly #handle: number;
  #flow: RedirectedFlow;
  readonly #turns: Turn[] = [];
  #turn: Turn | undefined;
  #exchange: Exchange | undefined;
  #isEnded = false;

  constructor(socket: Socket, flow: RedirectedFlow, handle: number, judge: HttpJudge, doors: ProxyDoors) {
    this.socket = socket;
    this.#flow = flow;
    this.#handle = handle;
    this.judge = judge;
    this.doors = doors;
    const server = doors.serverAddress(flow.to.address.includes(":") ? 6 : 4);
    this.upstream = new Upstream(server, handle, () => this.#upstreamClosed());
    socket.on("close", () => this.end());
    socket.on("error", () => this.end());
  }

  /** The connection's flow, as of now. */
  get flow(): RedirectedFlow {
    return this.#flow = liveFlow(this.doors, this.#handle, this.#flow);
  }

  /** A request is being served, or waits. */
  get isBusy(): boolean {
    return this.#turn !== undefined;
  }

  take(message: IncomingMessage, response: ServerResponse, isWaiting: boolean): void {
    if (this.#turns.length >= MAX_WAITING_TURNS) return this.end();
    this.#turns.push({ message, response, isWaiting });
    if (!this.isBusy) this.#serveNext();
  }

  /** Bytes that are no request: what is being served is broken off, since its body may be among them. */
  refuseCurrent(status: number, reason: string): void {
    this.#exchange?.refused(status, reason);
    this.end();
  }

  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#turns.length = 0;
    this.#exchange?.forwarded(0, "the connection ended before the answer");
    this.upstream.close();
    this.socket.destroy();
  }

  #serveNext(): void {
    const turn = this.#turns.shift();
    if (turn === undefined || this.#isEnded) return;
    const { message, response } = turn;
    response.once("finish", () => this.#finish(turn));
    // without its end, or after it: runtimes differ in which of response and socket closes first
    response.once("close", () => response.writableFinished ? this.#finish(turn) : this.end());
    this.#turn = turn;
    const { exchange, allowed, answer, isLast } = this.judge.judge(this.flow, message);
    this.#exchange = exchange;
    if (allowed !== undefined) this.#forward(turn, exchange, allowed);
    else this.#answer(turn, answer!, isLast);
  }

  #finish(turn: Turn): void {
    if (this.#turn !== turn || this.#isEnded) return;
    this.#turn = undefined;
    this.#exchange = undefined;
    if (this.upstream.isClosed) this.#endGently();
    else this.#serveNext();
  }

  /** Answers in the server's place, and throws the body away. */
  #answer({ message, response, isWaiting }: Turn, answer: OwnAnswer, mustEnd: boolean): void {
    const length = Number(message.headers["content-length"] ?? 0);
    // who waits for 100 may send the body all the same, or not: the two cannot be told apart
    const isLast = mustEnd || isWaiting || length > MAX_DISCARDED_BYTES || this.upstream.isClosed;
    this.#discard(message);
    response.on("error", () => this.end());
    response.sendDate = true;
    response.writeHead(answer.status, headersOf(answer, isLast));
    response.end(answer.text);
  }

  /** Reads what is left of a request that nobody wants. */
  #discard(message: IncomingMessage): void {
    let bytes = 0;
    message.on("error", () => {});
    message.on("data", (chunk: Uint8Array) => {
      bytes += chunk.length;
      if (bytes > MAX_DISCARDED_BYTES) this.end();
    });
    message.resume();
  }

  #forward(turn: Turn, exchange: Exchange, allowed: AllowedRequest): void {
    const { message, response, isWaiting } = turn;
    const { framing } = allowed.head;
    const sent = this.upstream.start(allowed, framing === "chunked" ? ["Transfer-Encoding", "chunked"] : []);
    let isAborted = false;
    const abort = () => {
      isAborted = true;
      sent.destroy();
    };
    const fail = (error: unknown) => {
      // nobody waits for an answer: the end of the connection, or what could not be read of it, is what is recorded
      if (this.#isEnded || isAborted) return;
      if (response.headersSent) return this.end();
      const reason = failureText(error);
      exchange.forwarded(503, reason);
      message.unpipe(sent);
      this.#answer({ ...turn, isWaiting: isWaiting || framing !== "none" }, failedAnswer(reason), false);
    };
    sent.on("error", fail);
    sent.on("continue", () => response.headersSent || response.writeContinue());
    sent.on("upgrade", (_answer: IncomingMessage, socket: Socket) => {
      socket.destroy();
      fail(new Error("the server changed the protocol without being asked"));
    });
    sent.on("response", (answer: IncomingMessage) => this.#relay(turn, exchange, sent, answer, fail));
    message.on("error", abort);
    message.on("aborted", abort);
    response.on("error", () => this.end());
    if (framing === "none") sent.end();
    else {
      // the head goes first: the server may answer, or say "100 Continue", before there is a body
      sent.flushHeaders();
      message.pipe(sent);
    }
  }

  /** Passes the server's answer on. @param fail answers in its place */
  #relay(
    turn: Turn,
    exchange: Exchange,
    sent: ClientRequest,
    answer: IncomingMessage,
    fail: (error: Error) => void,
  ): void {
    const { message, response } = turn;
    const headers = readResponseHeaders(answer.rawHeaders);
    const status = answer.statusCode ?? 502;
    if (headers === undefined || !isStatusLine(status, answer.statusMessage ?? "")) {
      this.upstream.close();
      return fail(new Error("the server's answer has no clear length, or cannot be passed on"));
    }
    const isLast = isLastMessage(answer.rawHeaders, answer.httpVersion);
    exchange.forwarded(status);
    response.sendDate = false;
    response.writeHead(status, answer.statusMessage, isLast ? [...headers, "Connection", "close"] : [...headers]);
    const breakOff = () => {
      if (!answer.complete) this.end();
    };
    answer.on("aborted", breakOff);
    answer.on("error", breakOff);
    answer.on("close", breakOff);
    answer.on("end", () => {
      if (!answer.complete) return this.end();
      const trailers = readTrailers(answer.rawTrailers);
      if (trailers.length > 0) response.addTrailers(trailers);
      // answered before all was asked: the rest has no reader, and the upstream is in the middle of it
      const isEarly = !sent.writableFinished && !message.complete;
      response.end();
      if (!isEarly) return;
      message.unpipe(sent);
      this.upstream.close();
      this.#discard(message);
    });
    answer.pipe(response, { end: false });
  }

  #upstreamClosed(): void {
    if (!this.isBusy) this.#endGently();
  }

  /** What was written still reaches the client. */
  #endGently(): void {
    this.#turns.length = 0;
    this.socket.end();
  }
}

function failureText(error: unknown): string {
  const code = (error as { code?: string }).code ?? "";
  if (code === "ECONNREFUSED") return "The server refused the connection";
  if (code === "ECONNRESET" || code === "EPIPE") return "The server closed the connection before it answered";
  if (code.startsWith("HPE_")) return "The server's answer is not HTTP/1.1";
  if (/^E[A-Z]+$/.test(code)) return `The server cannot be reached (${code})`;
  return `The request failed: ${messageOf(error).slice(0, 200)}`;
}
