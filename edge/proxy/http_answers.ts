/** What the HTTP proxy says itself, in place of a server: refusals and failures, with a text for whoever reads the answer. */
import { STATUS_CODES } from "node:http";

/** An answer of the proxy's own. */
export interface OwnAnswer {
  readonly status: number;
  readonly text: string;
  readonly location?: string;
}

/** Policies that a refusal names. */
const MAX_NAMED = 3;

/** Envoy's words first, then whose rules did not let it through. */
export function deniedAnswer(policies: readonly string[]): OwnAnswer {
  return { status: 403, text: `Access denied\r\n${denialReason(policies)}\r\n` };
}

/** @param policies those that have HTTP rules for the flow */
export function denialReason(policies: readonly string[]): string {
  if (policies.length === 0) return "No policy allows this connection any more";
  const named = policies.slice(0, MAX_NAMED).join(", ");
  const more = policies.length > MAX_NAMED ? ` and ${policies.length - MAX_NAMED} more` : "";
  return `No HTTP rule of ${named}${more} allows this request`;
}

/** A request that is not forwarded because it cannot be read in one way only, or asks for what the proxy does not do. */
export function refusedAnswer(status: number, reason: string): OwnAnswer {
  return {
    status,
    text: `${STATUS_CODES[status] ?? "Refused"}\r\nThe request is refused by the HTTP proxy: ${reason}\r\n`,
  };
}

export function redirectAnswer(location: string): OwnAnswer {
  return { status: 307, text: "", location };
}

/** The server could not be reached, or broke off before it answered. */
export function failedAnswer(reason: string): OwnAnswer {
  return { status: 503, text: `Service unavailable\r\n${reason}\r\n` };
}

/** Headers of an own answer. @param isLast the connection ends with it */
export function headersOf(answer: OwnAnswer, isLast: boolean): string[] {
  const headers = ["Content-Type", "text/plain", "Content-Length", String(answer.text.length)];
  if (answer.location !== undefined) headers.push("Location", answer.location);
  if (isLast) headers.push("Connection", "close");
  return headers;
}

/** A message head for a socket that no HTTP server writes to. The headers are checked: none can break the line. */
export function headText(status: number, message: string | undefined, headers: readonly string[]): string {
  const lines = [`HTTP/1.1 ${status} ${message || STATUS_CODES[status] || ""}`];
  for (let i = 0; i + 1 < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

/** All of an own answer as bytes for a socket, the connection ends with it. */
export function answerText(answer: OwnAnswer): string {
  return headText(answer.status, undefined, headersOf(answer, true)) + answer.text;
}

/**
 * What an HTTP/2 client is told: an empty SETTINGS frame, then GOAWAY with HTTP_1_1_REQUIRED (RFC 9113 §6.5, §6.8, §7).
 */
export function http2Goodbye(): Uint8Array {
  const settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
  const goAway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0d];
  return Uint8Array.from([...settings, ...goAway]);
}
