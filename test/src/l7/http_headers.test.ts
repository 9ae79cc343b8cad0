import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  isLastMessage,
  isStatusLine,
  isWritable,
  MAX_HEADERS,
  readRequestHead,
  readResponseHeaders,
  readTrailers,
} from "../../../src/l7/http_headers.ts";

const HOST = ["Host", "h"];

const refusalOf = (raw: string[], version = "1.1"): string => {
  const head = readRequestHead(raw.includes("Host") ? raw : [...HOST, ...raw], version);
  return "refusal" in head ? `${head.status} ${head.refusal}` : "";
};

describe("readRequestHead", () => {
  it("takes out host and what ends at this hop, and keeps the rest as it was written", () => {
    const raw = [
      "Host",
      "h:80",
      "X-CaSe",
      "v",
      "Connection",
      "keep-alive, X-Hop",
      "x-hop",
      "1",
      "Keep-Alive",
      "5",
      "x",
      "",
    ];
    expect(readRequestHead(raw, "1.1")).toEqual({
      headers: ["X-CaSe", "v", "x", ""],
      host: "h:80",
      framing: "none",
      lengthBytes: 0,
      upgrade: undefined,
    });
  });

  it("knows how the body is delimited", () => {
    const long = readRequestHead(["Content-Length", "12"], "1.0");
    expect(long).toMatchObject({
      framing: "length",
      lengthBytes: 12,
      headers: ["Content-Length", "12"],
      host: undefined,
    });
    const chunked = readRequestHead([...HOST, "Transfer-Encoding", " Chunked", "Trailer", "x"], "1.1");
    expect(chunked).toMatchObject({ framing: "chunked", lengthBytes: 0, headers: [] });
  });

  it.each([
    [["Content-Length", "1", "Transfer-Encoding", "chunked"], "400 there are both"],
    [["Content-Length", "1", "Content-Length", "1"], "400 there are two Content-Length"],
    [["Content-Length", "1, 1"], "400 the Content-Length"],
    [["Content-Length", "+1"], "400 the Content-Length"],
    [["Content-Length", "0x1"], "400 the Content-Length"],
    [["Content-Length", "9".repeat(16)], "400 the Content-Length"],
    [["Content-Length", ""], "400 the Content-Length"],
    [["Transfer-Encoding", "chunked", "Transfer-Encoding", "chunked"], "501"],
    [["Transfer-Encoding", "chunked, identity"], "501"],
    [["Transfer-Encoding", "xchunked"], "501"],
    [["Transfer-Encoding", "gzip, chunked"], "501"],
    [["Host", "a", "Host", "a"], "400 there are two Host"],
    [["Host", "a, b"], "400 the Host"],
    [["Host", "user@h"], "400 the Host"],
  ])("refuses %j", (raw, refusal) => expect(refusalOf(raw)).toContain(refusal));

  it("refuses HTTP/1.1 without a Host, chunks in HTTP/1.0, and too many headers", () => {
    expect(readRequestHead([], "1.1")).toMatchObject({ status: 400, refusal: "there is no Host header" });
    expect(readRequestHead([], "1.0")).toMatchObject({ host: undefined });
    expect(refusalOf(["Transfer-Encoding", "chunked"], "1.0")).toContain("HTTP/1.0");
    expect(refusalOf(Array.from({ length: MAX_HEADERS * 2 + 2 }, () => "x"))).toContain("431");
  });

  it("lets Connection take away nothing that says how the message is read", () => {
    const head = readRequestHead(["Host", "h", "Connection", "content-length, host", "Content-Length", "3"], "1.1");
    expect(head).toMatchObject({ host: "h", headers: ["Content-Length", "3"], framing: "length" });
  });

  it("sees an upgrade only where Connection names it", () => {
    expect(readRequestHead([...HOST, "Connection", "x, Upgrade", "Upgrade", "WebSocket"], "1.1")).toMatchObject({
      upgrade: "websocket",
    });
    expect(readRequestHead([...HOST, "Upgrade", "websocket"], "1.1")).toMatchObject({
      upgrade: undefined,
      headers: [],
    });
  });

  it("keeps that the client takes trailers", () => {
    expect(readRequestHead([...HOST, "TE", "gzip, trailers"], "1.1")).toMatchObject({ headers: ["TE", "trailers"] });
  });

  it("never throws, and forwards nothing that ends at this hop", () => {
    const name = fc.oneof(
      fc.constantFrom("Host", "Connection", "Content-Length", "transfer-encoding", "Upgrade"),
      fc.string(),
    );
    fc.assert(fc.property(fc.array(fc.tuple(name, fc.string()), { maxLength: 8 }), (pairs) => {
      const head = readRequestHead(pairs.flat(), "1.1");
      if ("refusal" in head) return;
      const names = head.headers.filter((_, i) => i % 2 === 0).map((text) => text.toLowerCase());
      expect(names.filter((text) => ["host", "connection", "transfer-encoding", "upgrade"].includes(text))).toEqual([]);
    }));
  });
});

describe("readResponseHeaders", () => {
  it("drops what ends at this hop and keeps duplicates", () => {
    const raw = ["Set-Cookie", "a", "Connection", "close", "Set-Cookie", "b", "Transfer-Encoding", "chunked"];
    expect(readResponseHeaders(raw)).toEqual(["Set-Cookie", "a", "Set-Cookie", "b"]);
  });

  it("makes one of two equal lengths, and answers undefined where the length is ambiguous", () => {
    expect(readResponseHeaders(["Content-Length", "3", "content-length", "3"])).toEqual(["Content-Length", "3"]);
    expect(readResponseHeaders(["Content-Length", "3", "content-length", "4"])).toBeUndefined();
    expect(readResponseHeaders(["Content-Length", "3", "Transfer-Encoding", "chunked"])).toBeUndefined();
    expect(readResponseHeaders(["Transfer-Encoding", "gzip"])).toBeUndefined();
  });
});

describe("isLastMessage", () => {
  it.each(
    [
      [[], "1.1", false],
      [["Connection", "x, Close"], "1.1", true],
      [[], "1.0", true],
      [["Connection", "Keep-Alive"], "1.0", false],
    ] as const,
  )("says of %j in HTTP/%s: %s", (raw, version, expected) => expect(isLastMessage(raw, version)).toBe(expected));
});

describe("readTrailers", () => {
  it("passes on none that says how a message is read", () => {
    expect(readTrailers(["X-Sum", "1", "Content-Length", "3", "Host", "h", "Connection", "x"])).toEqual([[
      "X-Sum",
      "1",
    ]]);
  });
});

describe("isWritable", () => {
  it("wants a token, and a value without control characters", () => {
    expect(isWritable("X-A", "b\tc")).toBe(true);
    expect(isWritable("X A", "b")).toBe(false);
    expect(isWritable("", "b")).toBe(false);
    expect(isWritable("X", "b\r\nY: 1")).toBe(false);
    expect(isWritable("X", "\u0100")).toBe(false);
  });
});

describe("an answer that a parser takes and a writer refuses", () => {
  it("has a number that is no final status, or control characters in its reason or a header", () => {
    expect([200, 404, 599, 999].map((status) => isStatusLine(status, "Fine \xff"))).toEqual([true, true, true, true]);
    expect([0, 99, 100, 101, 199, 1000].map((status) => isStatusLine(status, ""))).not.toContain(true);
    for (const reason of ["a\x00", "a\x01b", "a\rb", "a\x7f", "a\u0100"]) {
      expect(isStatusLine(200, reason)).toBe(false);
      expect(readResponseHeaders(["X", reason])).toBeUndefined();
      expect(readTrailers(["X", reason, "Y", "z"])).toEqual([["Y", "z"]]);
    }
  });
});
