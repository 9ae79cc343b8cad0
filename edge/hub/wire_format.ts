/**
 * Bodies of the hub's HTTP API: JSON for people and scripts, MessagePack for members. In JSON, octet strings are base64.
 */
import type { Context } from "hono";
import * as v from "valibot";
import { fromBase64, toBase64 } from "../../src/bytes/text.ts";
import { decodeMsgpack, encodeMsgpack } from "../sync/msgpack.ts";

const MSGPACK = "application/msgpack";

/** The status codes that this API answers with. */
export type ApiStatus = 200 | 400 | 401 | 403 | 404 | 409 | 413 | 415 | 429 | 500 | 503;

/** A failure as the API says it. */
export interface ApiFault {
  readonly code: string;
  readonly message: string;
}

/** An octet string of a known length: MessagePack's own, or base64 in JSON. */
export function octets(count: number) {
  return v.pipe(
    v.union([v.instance(Uint8Array), v.pipe(v.string(), v.maxLength(2 * count + 8))]),
    v.transform((given) => typeof given === "string" ? fromBase64(given) : given),
    v.instance(Uint8Array, "must be octets, base64 in JSON"),
    v.check((bytes) => bytes.length === count, `must be ${count} octets`),
  );
}

/**
 * Reads and checks the body of a request.
 * @param maxBytes longest body that is read
 * @returns what it says, or the answer to give
 */
export async function readBody<S extends v.GenericSchema>(
  c: Context,
  schema: S,
  maxBytes: number,
): Promise<{ readonly value: v.InferOutput<S> } | { readonly answer: Response }> {
  const type = (c.req.header("content-type") ?? "").split(";")[0]!.trim().toLowerCase();
  if (type !== MSGPACK && type !== "application/json") {
    return { answer: fault(c, 415, "unsupported-media-type", `body must be application/json or ${MSGPACK}`) };
  }
  const bytes = await readOctets(c, maxBytes);
  if (bytes === undefined) return { answer: fault(c, 413, "too-large", `body must be at most ${maxBytes} octets`) };
  const given = type === MSGPACK ? decodeMsgpack(bytes) : parseJson(bytes);
  if (given === undefined) return { answer: fault(c, 400, "bad-request", "body cannot be read") };
  const result = v.safeParse(schema, given);
  if (result.success) return { value: result.output };
  const issue = result.issues[0];
  const path = v.getDotPath(issue) ?? "body";
  // The library's text may repeat what was given, which may be a secret: say where, and what was expected.
  const expected = issue.kind === "schema" && issue.expected !== null ? `must be ${issue.expected}` : issue.message;
  return { answer: fault(c, 400, "bad-request", `${path}: ${expected.slice(0, 200)}`) };
}

/** Answers in the format that the request accepts, JSON unless it asks for MessagePack. */
export function reply(c: Context, value: unknown, status: ApiStatus = 200): Response {
  if (!(c.req.header("accept") ?? "").includes(MSGPACK)) return c.json(jsonOf(value), status);
  return c.body(encodeMsgpack(value) as Uint8Array<ArrayBuffer>, status, { "content-type": MSGPACK });
}

/** Answers with a failure. */
export function fault(c: Context, status: ApiStatus, code: string, message: string): Response {
  return reply(c, { code, message } satisfies ApiFault, status);
}

/** `undefined` for a body that is longer. (Hono's own limit makes a new Request, which this server's kind cannot be given to.) */
async function readOctets(c: Context, maxBytes: number): Promise<Uint8Array | undefined> {
  if (Number(c.req.header("content-length") ?? "0") > maxBytes) return undefined;
  const parts: Uint8Array[] = [];
  let size = 0;
  const reader = c.req.raw.body?.getReader();
  for (;;) {
    const { done, value } = await reader?.read() ?? { done: true };
    if (done || value === undefined) break;
    size += value.length;
    if (size > maxBytes) {
      await reader?.cancel();
      return undefined;
    }
    parts.push(value);
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

/** Plain data with octet strings as base64. */
function jsonOf(value: unknown): unknown {
  if (value instanceof Uint8Array) return toBase64(value);
  if (Array.isArray(value)) return value.map(jsonOf);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, jsonOf(inner)]));
}
