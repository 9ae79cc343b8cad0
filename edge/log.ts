/**
 * Logging: `@logtape/logtape` behind the `Log` of `src/ports.ts`. Lines go to standard error only.
 *
 * A line is an event name and fields. Nothing is formatted before the level is known to be on. Octet strings are never printed
 * (they may be keys), nor is anything that looks like a token. One event may write `EVENT_BURST` lines a minute; what is held
 * back is said with the first line of the next minute.
 */
import { writeSync } from "node:fs";
import { configureSync, getLogger, type LogRecord } from "@logtape/logtape";
import type { Log } from "../src/ports.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: "text" | "json";
  /** standard error is the journal: lines start with `<priority>` and carry no time (sd-daemon(3)) */
  readonly isJournal: boolean;
  /** takes one whole line with its line feed; default: standard error */
  readonly write?: (line: string) => void;
  /** Unix milliseconds; default: the wall clock */
  readonly unixMs?: () => number;
}

/** A log whose level can change while it runs, and which remembers the newest lines for `bugreport`. */
export interface EdgeLog extends Log {
  setLevel(level: LogLevel): void;
  /** newest last */
  recent(): readonly string[];
}

const RANK: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };
const LOGTAPE_LEVEL = { debug: "debug", info: "info", warn: "warning", error: "error" } as const;
/** syslog(3) priorities by logtape's level */
const PRIORITY: Readonly<Record<string, number>> = { debug: 7, info: 6, warning: 4, error: 3 };
const SHOWN: Readonly<Record<string, string>> = { debug: "DEBUG", info: "INFO ", warning: "WARN ", error: "ERROR" };

/** lines of one event in one minute before the rest is only counted */
const EVENT_BURST = 20;
const EVENT_WINDOW_MS = 60_000;
const RECENT_LINES = 200;
const CATEGORY = "edgemesh";

/** Makes the program's log. Called once; a second call replaces the sink of the first. */
export function createLog(options: LogOptions): EdgeLog {
  const write = options.write ?? writeStandardError;
  const unixMs = options.unixMs ?? Date.now;
  const recent: string[] = [];
  configureSync({
    reset: true,
    sinks: {
      out: (record: LogRecord) => {
        const line = options.format === "json" ? jsonLine(record) : textLine(record, options.isJournal);
        recent.push(line);
        if (recent.length > RECENT_LINES) recent.shift();
        write(`${line}\n`);
      },
    },
    loggers: [
      { category: CATEGORY, lowestLevel: "debug", sinks: ["out"] },
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: ["out"] },
    ],
  });
  const logger = getLogger(CATEGORY);
  const limiter = new EventLimiter(unixMs);
  let lowest = RANK[options.level];
  const emit = (level: LogLevel, event: string, fields?: Readonly<Record<string, unknown>>) => {
    if (RANK[level] < lowest) return;
    const heldBack = limiter.admit(event);
    if (heldBack < 0) return;
    const all = heldBack > 0 ? { ...fields, heldBack } : { ...fields };
    logger.emit({
      level: LOGTAPE_LEVEL[level],
      message: [event],
      rawMessage: event,
      properties: all,
      timestamp: unixMs(),
    });
  };
  return {
    debug: (event, fields) => emit("debug", event, fields),
    info: (event, fields) => emit("info", event, fields),
    warn: (event, fields) => emit("warn", event, fields),
    error: (event, fields) => emit("error", event, fields),
    setLevel: (level) => {
      lowest = RANK[level];
    },
    recent: () => recent,
  };
}

/** Counts lines by event and minute. */
class EventLimiter {
  readonly #unixMs: () => number;
  readonly #events = new Map<string, { sinceMs: number; count: number }>();

  constructor(unixMs: () => number) {
    this.#unixMs = unixMs;
  }

  /** -1: hold this line back. Else how many were held back since the last one that passed. */
  admit(event: string): number {
    const nowMs = this.#unixMs();
    const seen = this.#events.get(event);
    // a wall clock that went back starts a new minute too
    if (seen === undefined || nowMs - seen.sinceMs >= EVENT_WINDOW_MS || nowMs < seen.sinceMs) {
      this.#events.set(event, { sinceMs: nowMs, count: 1 });
      return seen === undefined ? 0 : Math.max(0, seen.count - EVENT_BURST);
    }
    seen.count++;
    return seen.count <= EVENT_BURST ? 0 : -1;
  }
}

function textLine(record: LogRecord, isJournal: boolean): string {
  let line = isJournal
    ? `<${PRIORITY[record.level] ?? 5}>${eventOf(record)}`
    : `${new Date(record.timestamp).toISOString()} ${SHOWN[record.level] ?? record.level} ${eventOf(record)}`;
  for (const [name, value] of Object.entries(record.properties)) {
    if (value !== undefined) line += ` ${name}=${quoteWhereNeeded(printable(value))}`;
  }
  return line;
}

function jsonLine(record: LogRecord): string {
  const fields: Record<string, unknown> = {
    time: new Date(record.timestamp).toISOString(),
    level: record.level === "warning" ? "warn" : record.level,
    event: eventOf(record),
  };
  for (const [name, value] of Object.entries(record.properties)) {
    fields[name] = typeof value === "number" || typeof value === "boolean" ? value : printable(value);
  }
  return JSON.stringify(fields);
}

function eventOf(record: LogRecord): string {
  return record.message.map((part) => printable(part)).join("");
}

/** One line of text for any value, without octets, tokens or control characters. */
function printable(value: unknown): string {
  return redact(plain(value)).replace(/[\p{Cc}\u2028\u2029]/gu, " ");
}

function plain(value: unknown): string {
  if (typeof value === "string") return value;
  if (value instanceof Error) return value.message;
  if (ArrayBuffer.isView(value)) return `<${value.byteLength} octets>`;
  if (typeof value !== "object" || value === null) return String(value);
  try {
    return JSON.stringify(value, (_, inner) => ArrayBuffer.isView(inner) ? `<${inner.byteLength} octets>` : inner);
  } catch {
    return "<unprintable>";
  }
}

/** Replaces everything that looks like a token of ours or a private key in PEM. */
export function redact(text: string): string {
  return text
    .replace(/em1_[A-Za-z0-9_-]{8,}/g, "em1_<redacted>")
    .replace(
      /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g,
      "<private key redacted>",
    );
}

function quoteWhereNeeded(text: string): string {
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}

/** A full or closed pipe must not stop the agent: the line is lost. */
function writeStandardError(line: string): void {
  try {
    writeSync(2, line);
  } catch {
    // nobody reads
  }
}
