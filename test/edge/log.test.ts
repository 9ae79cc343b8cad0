import { beforeEach, describe, expect, it } from "vitest";
import { createLog, type EdgeLog, type LogOptions, redact } from "../../edge/log.ts";

let lines: string[];
let nowMs: number;

function make(options: Partial<LogOptions> = {}): EdgeLog {
  return createLog({
    level: "info",
    format: "text",
    isJournal: false,
    write: (line) => lines.push(line),
    unixMs: () => nowMs,
    ...options,
  });
}

beforeEach(() => {
  lines = [];
  nowMs = Date.UTC(2026, 0, 2, 3, 4, 5);
});

describe("createLog", () => {
  it("writes an event with its fields on one line", () => {
    make().info("peer-added", { peer: "edge1/b", count: 2, text: "a b" });
    expect(lines).toEqual(['2026-01-02T03:04:05.000Z INFO  peer-added peer=edge1/b count=2 text="a b"\n']);
  });

  it("starts a line with its priority in the journal, without a time", () => {
    make({ isJournal: true }).warn("hub-offline", { reason: "gone" });
    expect(lines).toEqual(["<4>hub-offline reason=gone\n"]);
  });

  it("writes JSON with numbers as numbers", () => {
    make({ format: "json" }).error("x", { count: 2, ok: true });
    expect(JSON.parse(lines[0]!)).toEqual({
      time: "2026-01-02T03:04:05.000Z",
      level: "error",
      event: "x",
      count: 2,
      ok: true,
    });
  });

  it("formats nothing below its level, and follows a change of level", () => {
    const log = make();
    let isRead = false;
    const fields = {
      get costly() {
        isRead = true;
        return "x";
      },
    };
    log.debug("quiet", fields);
    expect([lines.length, isRead]).toEqual([0, false]);
    log.setLevel("debug");
    log.debug("loud", fields);
    expect(lines).toHaveLength(1);
  });

  it("prints no octets, no token, no key and no control character", () => {
    make().info("x", {
      key: new Uint8Array([1, 2, 3]),
      inner: { secret: new Uint8Array(32) },
      text: "token em1_abcdefghijkl_12345678 \u001b[31m\nnext",
      pem: "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----",
    });
    expect(lines[0]).toContain("<3 octets>");
    expect(lines[0]).toContain("<32 octets>");
    expect(lines[0]).not.toMatch(/abcdefghijkl|1,2,3/);
    expect(lines[0]!.trimEnd()).not.toMatch(/\p{Cc}/u);
    expect(redact("-----BEGIN EC PRIVATE KEY-----\nMHc")).toBe("<private key redacted>");
  });

  it("holds back an event that comes too often, and says how often", () => {
    const log = make();
    for (let i = 0; i < 100; i++) log.info("flood", { i });
    log.info("other");
    expect(lines).toHaveLength(21);
    nowMs += 60_000;
    log.info("flood");
    expect(lines.at(-1)).toContain("heldBack=80");
  });

  it("remembers the newest lines", () => {
    const log = make();
    for (let i = 0; i < 300; i++) {
      nowMs += 60_000;
      log.info("x", { i });
    }
    expect(log.recent()).toHaveLength(200);
    expect(log.recent().at(-1)).toContain("i=299");
  });
});
