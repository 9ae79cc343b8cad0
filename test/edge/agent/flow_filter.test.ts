import { describe, expect, it } from "vitest";
import type { FlowDocument } from "../../../edge/agent/documents.ts";
import { FLOW_FILTERS, makeFlowFilter } from "../../../edge/agent/flow_filter.ts";
import { compileRegex } from "../../../src/l7/regex.ts";

const HTTP: FlowDocument = {
  number: 1,
  at: "2026-01-02T03:04:05.000Z",
  type: "L7",
  verdict: "FORWARDED",
  direction: "ingress",
  source: { address: "10.9.0.3", port: 4000, name: "edge1/m3", identity: 70_000 },
  destination: { address: "10.9.0.2", port: 80, name: "edge1/m2", identity: 65_794 },
  protocol: "TCP",
  drop: null,
  reason: null,
  rule: null,
  http: { method: "GET", path: "/api/v1?x", host: "h", status: 404 },
  dns: null,
};
const DNS: FlowDocument = {
  ...HTTP,
  direction: "egress",
  source: HTTP.destination,
  destination: { address: "fd00::53", port: 53, name: null, identity: 2 },
  protocol: "UDP",
  http: null,
  dns: { name: "a.example.", type: "A", rcode: "NOERROR", addresses: [] },
};
const DROP: FlowDocument = { ...HTTP, type: "L3_L4", verdict: "DROPPED", drop: "POLICY_DENIED", http: null };
const ICMP: FlowDocument = { ...DROP, protocol: "ICMPv6" };
const UNREAD: FlowDocument = { ...DROP, source: null, destination: null, protocol: "0" };
const ALL = { HTTP, DNS, DROP, ICMP, UNREAD };

function wanted(given: Record<string, string | string[]>): string[] {
  const filter = makeFlowFilter(
    new Map(Object.entries(given).map(([key, value]) => [key, [value].flat()])),
    compileRegex,
  );
  return Object.entries(ALL).filter(([, flow]) => filter(flow)).map(([name]) => name);
}

describe("makeFlowFilter", () => {
  it.each(
    [
      [{}, ["HTTP", "DNS", "DROP", "ICMP", "UNREAD"]],
      [{ verdict: "forwarded" }, ["HTTP", "DNS"]],
      [{ verdict: ["DROPPED", "AUDIT"] }, ["DROP", "ICMP", "UNREAD"]],
      [{ verdict: "REDIRECTED" }, []],
      [{ type: "l7" }, ["HTTP", "DNS"]],
      [{ type: "L3_L4" }, ["DROP", "ICMP", "UNREAD"]],
      [{ type: "drop" }, ["DROP", "ICMP", "UNREAD"]],
      [{ protocol: "tcp" }, ["HTTP", "DROP"]],
      [{ protocol: "http" }, ["HTTP"]],
      [{ protocol: ["dns", "icmp"] }, ["DNS", "ICMP"]],
      [{ protocol: "icmpv4" }, []],
      [{ ip: "10.9.0.3" }, ["HTTP", "DROP", "ICMP"]],
      [{ ip: "10.9.0.0/16" }, ["HTTP", "DNS", "DROP", "ICMP"]],
      [{ "from-ip": "10.9.0.2" }, ["DNS"]],
      [{ "to-ip": "fd00::/8" }, ["DNS"]],
      [{ port: "80" }, ["HTTP", "DNS", "DROP", "ICMP"]],
      [{ "to-port": "80" }, ["HTTP", "DROP", "ICMP"]],
      [{ "from-port": ["80", "4000"] }, ["HTTP", "DNS", "DROP", "ICMP"]],
      [{ identity: "2" }, ["DNS"]],
      [{ "traffic-direction": "EGRESS" }, ["DNS"]],
      [{ "http-status": "404" }, ["HTTP"]],
      [{ "http-status": "4+" }, ["HTTP"]],
      [{ "http-status": ["5+", "40+"] }, ["HTTP"]],
      [{ "http-status": "500" }, []],
      [{ "http-method": "get" }, ["HTTP"]],
      [{ "http-path": "v[0-9]" }, ["HTTP"]],
      [{ "http-path": "^/v1" }, []],
      [{ "http-path": "^/api|x$" }, ["HTTP"]],
      [{ verdict: "DROPPED", protocol: "icmp" }, ["ICMP"]],
    ] as const,
  )("with %j wants %j", (given, expected) => expect(wanted(given as never)).toEqual(expected));

  it.each([
    [{ verdict: "LOST" }, 'Cannot filter by verdict "LOST": it must be one of FORWARDED, DROPPED, REDIRECTED, AUDIT'],
    [{ protocol: "ftp" }, "must be one of"],
    [{ ip: "10.9" }, "must be an address or a prefix"],
    [{ port: "http" }, "must be a whole number"],
    [{ "http-status": "4" }, "must be a status code"],
    [{ "http-path": "(" }, "must be a regular expression"],
    [{ "http-pat": "x" }, 'Cannot filter by "http-pat": no such filter; did you mean "http-path"?'],
    [{ constructor: "x" }, "no such filter"],
  ])("refuses %j", (given, message) => expect(() => wanted(given as never)).toThrow(message));

  it("has a help text and a value for each flag", () => {
    for (const { value, help } of Object.values(FLOW_FILTERS)) {
      expect(value).toMatch(/^[A-Z]+$/);
      expect(help).not.toMatch(/\.$/);
    }
  });
});
