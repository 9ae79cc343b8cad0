/** Whatever a client sends, the server sees requests that a rule allows, one after the other, and nothing between them. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { startHttpProxy } from "../../../edge/proxy/http_proxy.ts";
import { OK, rulesOf, startBackend, startHarness } from "./http_harness.ts";

const RULES = rulesOf({ method: "GET|POST", path: "/public/.*", headers: [] });

const line = fc.constantFrom(
  "GET /public/a HTTP/1.1\r\nHost: h\r\n",
  "POST /public/b HTTP/1.1\r\nHost: h\r\n",
  "GET http://h/public/c HTTP/1.1\r\nHost: h\r\n",
  "GET /public//x/../d HTTP/1.1\r\nHost: h\r\n",
  "GET /secret HTTP/1.1\r\nHost: h\r\n",
  "GET /public/../secret HTTP/1.1\r\nHost: h\r\n",
  "GET /public/d HTTP/1.0\r\n",
  "PRI * HTTP/2.0\r\n",
);
const header = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "X: y\r\n") },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      "Content-Length: 0\r\n",
      "content-length: 35\r\n",
      "Transfer-Encoding: chunked, identity\r\n",
      "Transfer-Encoding : chunked\r\n",
      "Connection: close\r\n",
      "Connection: keep-alive, Content-Length\r\n",
      "Connection: Upgrade\r\nUpgrade: websocket\r\n",
      "Connection: Upgrade\r\nUpgrade: h2c\r\n",
      "Expect: 100-continue\r\n",
      " folded\r\n",
      "\n",
      "\r",
      "\x00",
    ),
  },
);
const body = fc.constantFrom(
  "",
  "hello",
  "5\r\nhello\r\n0\r\n\r\n",
  "0\r\n\r\n",
  "0\r\nX: y\r\n\r\n",
  "5;x=\ny\r\nhello\r\n0\r\n\r\n",
  "-1\r\n",
  "0\r\n\r\nGET /secret HTTP/1.1\r\nHost: h\r\n\r\n",
  "GET /secret HTTP/1.1\r\nHost: h\r\n\r\n",
);
const wrong = fc.tuple(line, fc.array(header, { maxLength: 2 }), body).map(([start, headers, end]) =>
  `${start}${headers.join("")}\r\n${end}`
);
const right = fc.constantFrom(
  "GET /public/a HTTP/1.1\r\nHost: h\r\n\r\n",
  "POST /public/b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
  "POST /public/c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
  "GET /secret HTTP/1.1\r\nHost: h\r\n\r\n",
);
const request = fc.oneof(right, wrong);

/** Start lines of what a server reads, and what is left that is no whole request. Reads strictly what a proxy should have written. */
function requestsIn(text: string): { lines: string[]; rest: string } {
  const lines: string[] = [];
  let rest = text;
  for (;;) {
    const headEnd = rest.indexOf("\r\n\r\n");
    if (headEnd < 0) return { lines, rest };
    const [line, ...headers] = rest.slice(0, headEnd).split("\r\n");
    lines.push(line!);
    let body = rest.slice(headEnd + 4);
    const length = headers.find((header) => /^content-length:/i.test(header))?.split(": ")[1];
    if (headers.some((header) => /^transfer-encoding:/i.test(header))) {
      if (length !== undefined) throw new Error("both lengths reached the server");
      for (let size = -1; size !== 0;) {
        const at = body.indexOf("\r\n");
        if (at < 0) return { lines, rest: "" };
        size = parseInt(body.slice(0, at), 16);
        body = body.slice(at + 2 + size + 2);
      }
    } else body = body.slice(Number(length ?? 0));
    rest = body;
  }
}

describe("the proxy", () => {
  it("lets through nothing but whole requests that a rule allows", async () => {
    const harness = await startHarness(RULES);
    let allowed = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(request, { minLength: 1, maxLength: 5 }), async (requests) => {
        let answered = 0;
        const backend = await startBackend((socket, all) => {
          for (const { length } = requestsIn(all).lines; answered < length; answered++) socket.write(OK);
        });
        const client = await harness.open(backend);
        for (const each of requests) {
          client.send(each);
          const before = client.received.length;
          // an answer comes, or nothing does: then the next request is part of this one, if anything
          for (let turns = 0; turns < 200 && client.received.length === before; turns++) {
            await new Promise((resolve) => setImmediate(resolve));
          }
        }
        // ends whatever was begun: a body that is waited for, or a request that is none
        client.send("x".repeat(200));
        await client.ended();
        await backend.stop();
        const { lines, rest } = requestsIn(backend.received);
        allowed += lines.length;
        for (const line of lines) expect(line).toMatch(/^(GET|POST) \/public\/[abcd] HTTP\/1\.1$/);
        expect(rest === "" || /^(GET|POST) \/public\//.test(rest)).toBe(true);
      }),
      { numRuns: 200, endOnFailure: true },
    );
    await harness.proxy.stop();
    expect(allowed).toBeGreaterThan(100);
  }, 60_000);

  it("listens on the same port of both families", async () => {
    const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
    const doors = {
      flowOf: () => undefined,
      l7RulesFor: () => [],
      clientAddress: () => "",
      serverAddress: () => "",
      record: () => {},
      log,
    };
    const proxy = await startHttpProxy(["127.0.0.1", "127.0.0.4"], doors);
    expect(proxy.port).toBeGreaterThan(0);
    await proxy.stop();
    await expect(startHttpProxy(["192.0.2.1"], doors)).rejects.toThrow('Cannot start the HTTP proxy on "192.0.2.1": ');
  });
});
