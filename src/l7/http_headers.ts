/**
 * Reads the headers of an HTTP/1 message that is to be forwarded: what says how long its body is, what ends at this hop, what goes
 * on. A message whose length can be read in two ways is refused (RFC 9112 §6.3: request smuggling), even where the parser before us
 * has let it through. Headers are flat lists: name, value, name, value, ...
 */
import { isAuthority } from "./http_target.ts";

/** Envoy's limit. */
export const MAX_HEADERS = 100;

/** A header that can be written as it is: a token, and no control characters (RFC 9110 §5.5, §5.6.2). */
export function isWritable(name: string, value: string): boolean {
  return /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) && VALUE.test(value);
}

const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** It says how a message is read, or belongs to this hop: nobody but this file may touch it. Lower case. */
export function isFramingHeader(name: string): boolean {
  return HOP_BY_HOP.has(name) || name === "content-length" || name === "expect";
}

/** How a body is delimited. */
export type Framing = "none" | "length" | "chunked";

export interface RequestHead {
  /** what goes on, as it was written; Content-Length is among it, Host is not */
  readonly headers: readonly string[];
  readonly host: string | undefined;
  readonly framing: Framing;
  /** octets; 0 unless `framing` is "length" */
  readonly lengthBytes: number;
  /** the protocol that the client wants to change to, lower case */
  readonly upgrade: string | undefined;
}

/** Why a message is not forwarded, and what its sender is told. */
export interface BadHead {
  readonly refusal: string;
  readonly status: 400 | 431 | 501;
}

/** Headers that end at this hop (RFC 9110 §7.6.1), beside those that Connection names. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
/** What Connection must not take away: it says how the message is read. */
const NEVER_DROPPED: ReadonlySet<string> = new Set(["content-length", "host", "expect"]);

/** @param version "1.0" or "1.1" */
export function readRequestHead(raw: readonly string[], version: string): RequestHead | BadHead {
  if (raw.length > MAX_HEADERS * 2) return { refusal: `there are more than ${MAX_HEADERS} headers`, status: 431 };
  const hosts = valuesOf(raw, "host");
  if (hosts.length === 0 && version !== "1.0") return { refusal: "there is no Host header", status: 400 };
  if (hosts.length > 1) return { refusal: "there are two Host headers", status: 400 };
  if (hosts[0] !== undefined && !isAuthority(hosts[0])) {
    return { refusal: "the Host header cannot be read", status: 400 };
  }
  const body = readFraming(raw, version);
  if ("refusal" in body) return body;
  const connection = tokensOf(raw, "connection");
  const upgrade = connection.includes("upgrade") ? valuesOf(raw, "upgrade").join(",").trim().toLowerCase() : "";
  const headers = endToEnd(raw, connection);
  if (tokensOf(raw, "te").includes("trailers")) headers.push("TE", "trailers");
  return {
    headers: headersWithout(headers, "host"),
    host: hosts[0],
    ...body,
    upgrade: upgrade === "" ? undefined : upgrade,
  };
}

/** A final answer's status line that can be written as it is: parsers take numbers and control characters that writers refuse. */
export function isStatusLine(status: number, reason: string): boolean {
  return status >= 200 && status <= 999 && VALUE.test(reason);
}

/** What of a response goes on to the client. @returns undefined when its length cannot be told, or a header cannot be written */
export function readResponseHeaders(raw: readonly string[]): readonly string[] | undefined {
  for (let i = 0; i + 1 < raw.length; i += 2) if (!isWritable(raw[i]!, raw[i + 1]!)) return undefined;
  const lengths = new Set(valuesOf(raw, "content-length"));
  const codings = valuesOf(raw, "transfer-encoding");
  if (lengths.size > 1 || (lengths.size > 0 && codings.length > 0)) return undefined;
  if (codings.length > 1 || (codings[0] !== undefined && codings[0].trim().toLowerCase() !== "chunked")) {
    return undefined;
  }
  const headers = endToEnd(raw, tokensOf(raw, "connection"));
  if (lengths.size === 0) return headers;
  return [...headersWithout(headers, "content-length"), "Content-Length", [...lengths][0]!];
}

/** The sender closes its connection after this message. */
export function isLastMessage(raw: readonly string[], version: string): boolean {
  const connection = tokensOf(raw, "connection");
  return connection.includes("close") || (version === "1.0" && !connection.includes("keep-alive"));
}

/** Trailers that may follow a body: none that says how a message is read or routed (RFC 9110 §6.5.1). */
export function readTrailers(raw: readonly string[]): [string, string][] {
  const trailers: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    const isMeant = !HOP_BY_HOP.has(name) && !NEVER_DROPPED.has(name) && isWritable(name, raw[i + 1]!);
    if (isMeant) trailers.push([raw[i]!, raw[i + 1]!]);
  }
  return trailers;
}

function readFraming(raw: readonly string[], version: string): BadHead | Pick<RequestHead, "framing" | "lengthBytes"> {
  const lengths = valuesOf(raw, "content-length");
  const codings = valuesOf(raw, "transfer-encoding");
  if (lengths.length > 0 && codings.length > 0) {
    return { refusal: "there are both Content-Length and Transfer-Encoding", status: 400 };
  }
  if (codings.length > 0) {
    if (version === "1.0") return { refusal: "HTTP/1.0 has no Transfer-Encoding", status: 400 };
    if (codings.length > 1 || codings[0]!.trim().toLowerCase() !== "chunked") {
      return { refusal: "the Transfer-Encoding is not chunked", status: 501 };
    }
    return { framing: "chunked", lengthBytes: 0 };
  }
  if (lengths.length === 0) return { framing: "none", lengthBytes: 0 };
  if (lengths.length > 1) return { refusal: "there are two Content-Length headers", status: 400 };
  if (!/^[0-9]{1,15}$/.test(lengths[0]!)) return { refusal: "the Content-Length is not a number", status: 400 };
  return { framing: "length", lengthBytes: Number(lengths[0]) };
}

function endToEnd(raw: readonly string[], connection: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    const isDropped = HOP_BY_HOP.has(name) || (connection.includes(name) && !NEVER_DROPPED.has(name));
    if (!isDropped) kept.push(raw[i]!, raw[i + 1]!);
  }
  return kept;
}

/** The list without one header, whose name is given in lower case. */
export function headersWithout(headers: readonly string[], name: string): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i]!.toLowerCase() !== name) kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}

function valuesOf(raw: readonly string[], name: string): string[] {
  const values: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) if (raw[i]!.toLowerCase() === name) values.push(raw[i + 1]!);
  return values;
}

function tokensOf(raw: readonly string[], name: string): string[] {
  return valuesOf(raw, name).flatMap((value) => value.split(",")).map((token) => token.trim().toLowerCase());
}
