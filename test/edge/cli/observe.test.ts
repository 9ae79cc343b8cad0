import { mkdtempSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { FlowDocument, FlowsDocument } from "../../../edge/agent/documents.ts";
import type { CommandContext } from "../../../edge/cli/context.ts";
import { flowLine, jsonLine, observe } from "../../../edge/cli/observe.ts";

const FLOW: FlowDocument = {
  number: 7,
  at: "2026-01-02T03:04:05.000Z",
  type: "L7",
  verdict: "FORWARDED",
  direction: "ingress",
  source: { address: "10.9.0.3", port: 4000, name: "edge1/m3", identity: 70_000 },
  destination: { address: "fd09::2", port: 80, name: null, identity: 2 },
  protocol: "TCP",
  drop: null,
  reason: null,
  rule: { policy: "CiliumNetworkPolicy/shop/web", path: "spec.ingress[0].toPorts[0]" },
  http: { method: "GET", path: "/a?b", host: "shop", status: 200 },
  dns: null,
};
const REFUSED: FlowDocument = {
  ...FLOW,
  verdict: "DROPPED",
  drop: "PROXY_REFUSED",
  reason: "No HTTP rule allows it",
  rule: null,
  http: { ...FLOW.http!, status: 403 },
};
const DROPPED: FlowDocument = {
  ...FLOW,
  type: "L3_L4",
  verdict: "DROPPED",
  drop: "POLICY_DENIED",
  reason: "Policy denied",
  rule: null,
  http: null,
};
const ASKED: FlowDocument = {
  ...FLOW,
  direction: "egress",
  protocol: "UDP",
  rule: null,
  http: null,
  dns: { name: "a.example.", type: "A", rcode: "NOERROR", addresses: ["192.0.2.1"] },
};

describe("flowLine", () => {
  it("writes a flow as hubble does", () => {
    const start = "2026-01-02T03:04:05.000Z: edge1/m3:4000 (ID:70000) -> [fd09::2]:80 (world)";
    expect(flowLine(FLOW, false)).toBe(`${start} http-response FORWARDED (HTTP/1.1 200 (GET http://shop/a?b))`);
    expect(flowLine(FLOW, true)).toBe(
      `${start} http-response FORWARDED (HTTP/1.1 200 (GET http://shop/a?b)) by CiliumNetworkPolicy/shop/web spec.ingress[0].toPorts[0]`,
    );
    expect(flowLine(REFUSED, true)).toBe(
      `${start} http-request DROPPED (HTTP/1.1 403 (GET http://shop/a?b); No HTTP rule allows it)`,
    );
    expect(flowLine(DROPPED, false)).toBe(`${start} Policy denied DROPPED (TCP)`);
    const through = { ...DROPPED, verdict: "FORWARDED", drop: null, reason: null } as const;
    expect(flowLine(through, false)).toBe(`${start} to-endpoint FORWARDED (TCP)`);
    expect(flowLine({ ...through, direction: "egress" }, false)).toBe(`${start} to-network FORWARDED (TCP)`);
    expect(flowLine({ ...through, verdict: "REDIRECTED" }, false)).toBe(`${start} to-proxy REDIRECTED (TCP)`);
    expect(flowLine(ASKED, false)).toBe(
      `${start} dns-response proxy FORWARDED (DNS Answer "192.0.2.1" (Query a.example. A))`,
    );
    expect(flowLine({ ...ASKED, verdict: "DROPPED", reason: "no rule" }, false)).toBe(
      `${start} dns-request proxy DROPPED (DNS Query a.example. A; no rule)`,
    );
  });

  it("shows what could not be read, and lets nothing steer the terminal", () => {
    const unread = {
      ...REFUSED,
      http: { method: "", path: "", host: "", status: 505 },
      reason: "HTTP/2 is not supported",
    };
    expect(flowLine(unread, false)).toMatch(/http-request DROPPED \(HTTP 505; HTTP\/2 is not supported\)$/);
    expect(flowLine({ ...DROPPED, source: null, destination: null }, false)).toContain(": ? -> ? ");
    expect(flowLine({ ...FLOW, http: { ...FLOW.http!, host: "\u001b[31m" } }, false)).toContain("http://?[31m/a?b");
  });
});

describe("jsonLine", () => {
  it("has the names of hubble's JSON", () => {
    expect(JSON.parse(jsonLine(FLOW, "edge1/m2"))).toEqual({
      flow: {
        time: FLOW.at,
        verdict: "FORWARDED",
        IP: { source: "10.9.0.3", destination: "fd09::2", ipVersion: "IPv4" },
        l4: { TCP: { source_port: 4000, destination_port: 80 } },
        source: { identity: 70_000, pod_name: "edge1/m3" },
        destination: { identity: 2 },
        Type: "L7",
        node_name: "edge1/m2",
        traffic_direction: "INGRESS",
        l7: {
          type: "RESPONSE",
          http: { code: 200, method: "GET", url: "http://shop/a?b", protocol: "HTTP/1.1" },
        },
        ingress_allowed_by: [{ kind: "CiliumNetworkPolicy", namespace: "shop", name: "web" }],
        Summary: "HTTP/1.1 200 (GET http://shop/a?b)",
      },
      node_name: "edge1/m2",
      time: FLOW.at,
    });
    expect(JSON.parse(jsonLine(DROPPED, "m")).flow).toMatchObject({ drop_reason_desc: "POLICY_DENIED", Type: "L3_L4" });
    const ping = { ...DROPPED, protocol: "ICMP", destination: { ...FLOW.destination!, port: 8 } };
    expect(JSON.parse(jsonLine(ping, "m")).flow.l4).toEqual({ ICMPv4: { type: 8 } });
    expect(JSON.parse(jsonLine(ASKED, "m")).flow.l7.dns).toEqual({
      query: "a.example.",
      qtypes: ["A"],
      ips: ["192.0.2.1"],
    });
    expect(JSON.parse(jsonLine({ ...DROPPED, source: null, protocol: "0" }, "m")).flow.l4).toBeUndefined();
  });
});

describe("observe", () => {
  const asked: string[] = [];
  let answers: Partial<FlowsDocument>[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url!);
    const document = { apiVersion: "edgemesh/v1", kind: "Flows", member: "edge1/m2", newest: 0, lost: 0, flows: [] };
    // a kept connection would be a dead one in the next test
    response.setHeader("connection", "close");
    response.end(JSON.stringify({ ...document, ...answers.shift() }));
  });
  const socket = join(mkdtempSync(join(tmpdir(), "edgemesh-observe-")), "agent.sock");
  beforeEach(() => new Promise<void>((resolve) => void server.listen(socket, resolve)));
  afterEach(() => new Promise<void>((resolve) => void server.close(() => resolve())));

  async function run(
    options: Record<string, string[]>,
    output = "text",
  ): Promise<{ out: string; err: string; asked: string[] }> {
    asked.length = 0;
    const text = { out: "", err: "" };
    const end = new AbortController();
    const terminal = {
      out: (more: string) => {
        text.out += more;
        if (answers.length === 0) end.abort();
      },
      err: (more: string) => void (text.err += more),
      interrupted: end.signal,
    };
    const config = { socket, timeoutMs: 5000, output };
    const context = { loaded: { config }, terminal, options: new Map(Object.entries(options)) };
    await observe(context as unknown as CommandContext);
    return { ...text, asked: [...asked] };
  }

  it("asks for the newest 20, or as many as are wanted, with the filters", async () => {
    answers = [{ flows: [FLOW] }];
    expect(await run({})).toEqual({ out: `${flowLine(FLOW, false)}\n`, err: "", asked: ["/v1/flows?last=20"] });
    answers = [{ flows: [FLOW, DROPPED] }];
    const some = await run({ last: ["5"], verdict: ["DROPPED", "AUDIT"], "http-path": ["^/a b"] }, "json");
    expect(some.out).toBe(`${jsonLine(FLOW, "edge1/m2")}\n${jsonLine(DROPPED, "edge1/m2")}\n`);
    expect(some.asked).toEqual(["/v1/flows?verdict=DROPPED&verdict=AUDIT&http-path=%5E%2Fa+b&last=5"]);
    expect((await run({ all: ["on"] })).asked).toEqual(["/v1/flows?"]);
  });

  it("follows from the newest on, and says what came too fast", async () => {
    answers = [{ newest: 41 }, { newest: 43, flows: [FLOW] }, { newest: 2000, lost: 900, flows: [DROPPED] }];
    const { out, err, asked } = await run({ follow: ["on"], port: ["80"] });
    expect(out).toBe(`${flowLine(FLOW, false)}\n${flowLine(DROPPED, false)}\n`);
    expect(err).toBe("900 flows came too fast to be shown\n");
    expect(asked).toEqual([
      "/v1/flows?port=80&last=0",
      "/v1/flows?port=80&since=41",
      "/v1/flows?port=80&since=43",
    ]);
  });

  it("refuses a number that is none", async () => {
    await expect(run({ last: ["many"] })).rejects.toThrow('Cannot read "--last many": must be a whole number');
  });
});
