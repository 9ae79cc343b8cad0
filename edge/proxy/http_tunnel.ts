/**
 * Requests that want to change the protocol. WebSocket becomes a tunnel once the server has agreed: from then on nothing in it is
 * judged. Upgrades to HTTP/2 are taken out of the request, since requests inside would be judged by nobody; others are refused.
 *
 * `node:http` hands the bare socket over here, so the answer is written by hand, and is the connection's last.
 */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { isStatusLine, readResponseHeaders } from "../../src/l7/http_headers.ts";
import { answerText, failedAnswer, headText } from "./http_answers.ts";
import { type Judged, refuse } from "./http_judge.ts";
import type { HttpSession } from "./http_session.ts";

/** @param head what the client sent after the request's head */
export function serveUpgrade(session: HttpSession, message: IncomingMessage, head: Uint8Array): void {
  const { socket } = session;
  // pipelined behind a request that is still being answered: nobody does that, and the bare socket is not free
  if (session.isBusy) return session.end();
  const { exchange, allowed, answer } = checkUpgrade(session.judge.judge(session.flow, message));
  if (allowed === undefined) {
    socket.end(answerText(answer!));
    return;
  }
  const isTunnel = allowed.head.upgrade === "websocket";
  const sent = session.upstream.start(allowed, isTunnel ? ["Connection", "Upgrade", "Upgrade", "websocket"] : []);
  let isAnswered = false;
  sent.on("error", () => {
    if (isAnswered) return session.end();
    isAnswered = true;
    exchange.forwarded(503, "the server could not be reached");
    socket.end(answerText(failedAnswer("The server could not be reached, or closed the connection")));
  });
  sent.on("response", (answer: IncomingMessage) => {
    isAnswered = true;
    const status = answer.statusCode ?? 502;
    const headers = readResponseHeaders(answer.rawHeaders);
    if (headers === undefined || !isStatusLine(status, answer.statusMessage ?? "")) return session.end();
    exchange.forwarded(status);
    socket.write(headText(status, answer.statusMessage, [...headers, "Connection", "close"]), "latin1");
    answer.on("close", () => answer.complete || session.end());
    answer.on("error", () => session.end());
    answer.pipe(socket);
  });
  sent.on("upgrade", (answer: IncomingMessage, server: Socket, first: Uint8Array) => {
    isAnswered = true;
    const headers = readResponseHeaders(answer.rawHeaders);
    if (!isTunnel || headers === undefined || !isStatusLine(200, answer.statusMessage ?? "")) {
      exchange.forwarded(0, "the server changed the protocol without being asked");
      server.destroy();
      return session.end();
    }
    exchange.forwarded(101);
    const agreed = [...headers, "Connection", "Upgrade", "Upgrade", "websocket"];
    socket.write(headText(101, answer.statusMessage, agreed), "latin1");
    if (first.length > 0) socket.write(first);
    if (head.length > 0) server.write(head);
    join(socket, server, () => session.end());
  });
  sent.end();
}

/** What of an allowed upgrade the proxy does not do. */
function checkUpgrade(judged: Judged): Judged {
  const { exchange, allowed } = judged;
  if (allowed === undefined) return judged;
  const { upgrade, framing, lengthBytes } = allowed.head;
  // the parser stops at the head of such a request: where its body ends is not known
  if (framing === "chunked" || lengthBytes > 0) return refuse(exchange, 501, "an upgrade with a body", true);
  if (upgrade !== undefined && upgrade !== "websocket" && upgrade !== "h2c") {
    return refuse(exchange, 501, "an upgrade to anything but WebSocket", true);
  }
  return judged;
}

/** Each end's last bytes still reach the other: the end of one is passed on by the pipe, and by the session when the server is gone. */
function join(client: Socket, server: Socket, onBroken: () => void): void {
  server.on("error", onBroken);
  client.pipe(server);
  server.pipe(client);
}
