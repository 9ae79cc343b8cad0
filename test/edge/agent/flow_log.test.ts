import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FlowLog, newerOf } from "../../../edge/agent/flow_log.ts";
import type { L7Record } from "../../../edge/proxy/doors.ts";
import type { DropRecord, FlowRecord } from "../../../src/datapath/control.ts";
import { DROP_POLICY_DENIED, DROP_PROXY_REFUSED, FORWARD, REDIRECT } from "../../../src/verdict.ts";

const REQUEST: L7Record = {
  unixMs: 1000,
  flow: {
    from: { address: "10.9.0.3", port: 4000 },
    to: { address: "10.9.0.2", port: 80 },
    protocol: 6,
    direction: 0,
    identity: 70_000,
  },
  kind: "http",
  verdict: FORWARD,
  rule: {
    index: 4,
    policy: "CiliumNetworkPolicy/a/web",
    path: "spec.ingress[0].toPorts[0]",
    verdict: "allow",
    tier: 200,
  },
  http: { method: "GET", path: "/", host: "h", status: 200 },
};

const DROP: DropRecord = {
  unixMs: 2000,
  direction: "egress",
  verdict: DROP_POLICY_DENIED,
  source: "10.9.0.2",
  destination: "10.9.0.4",
  protocol: 17,
  sourcePort: 5000,
  destinationPort: 53,
  identity: 7,
};

describe("FlowLog", () => {
  it("keeps what a proxy judged, with the rule that let it through", () => {
    const log = new FlowLog();
    expect(log.list()).toEqual({ newest: 0, lost: 0, entries: [] });
    log.addL7(REQUEST);
    log.addL7({ ...REQUEST, verdict: DROP_PROXY_REFUSED, reason: "why", flow: { ...REQUEST.flow, direction: 1 } });
    log.addL7({ ...REQUEST, verdict: REDIRECT });
    expect(log.list().entries).toEqual([
      {
        number: 1,
        unixMs: 1000,
        type: "L7",
        verdict: "FORWARDED",
        direction: "ingress",
        source: { address: "10.9.0.3", port: 4000 },
        destination: { address: "10.9.0.2", port: 80 },
        protocol: 6,
        identity: 70_000,
        rule: { policy: "CiliumNetworkPolicy/a/web", path: "spec.ingress[0].toPorts[0]" },
        http: { method: "GET", path: "/", host: "h", status: 200 },
      },
      expect.objectContaining({
        number: 2,
        verdict: "DROPPED",
        direction: "egress",
        drop: "PROXY_REFUSED",
        reason: "why",
      }),
      expect.objectContaining({ number: 3, verdict: "REDIRECTED" }),
    ]);
  });

  it("takes each drop of the datapath's ring once", () => {
    const log = new FlowLog();
    const later = { ...DROP, unixMs: 3000 };
    log.addDrops([DROP]);
    log.addDrops([DROP]);
    log.addDrops([DROP, later]);
    log.addDrops([later]);
    expect(log.list().entries).toMatchObject([
      { number: 1, unixMs: 2000, type: "L3_L4", verdict: "DROPPED", drop: "POLICY_DENIED", reason: expect.any(String) },
      { number: 2, unixMs: 3000 },
    ]);
  });

  it("takes each flow once while it lives, and lets none drive out a request", () => {
    const log = new FlowLog();
    const flow = (port: number, isRedirected = false): FlowRecord => ({
      direction: "egress",
      source: "10.9.0.2",
      destination: "10.9.0.3",
      protocol: 6,
      sourcePort: port,
      destinationPort: 80,
      identity: 7,
      state: "established",
      packets: 1,
      bytes: 40,
      replyPackets: 1,
      replyBytes: 40,
      lastSeenUnixMs: 5000,
      isRedirected,
    });
    log.addL7(REQUEST);
    log.addFlows([flow(1), flow(2, true)]);
    log.addFlows([flow(2, true), flow(3)]);
    log.addFlows([flow(1)]);
    const words = log.list(1).entries.map(({ verdict, type, source }) => `${verdict} ${type} ${source!.port}`);
    expect(words).toEqual(["FORWARDED L3_L4 1", "REDIRECTED L3_L4 2", "FORWARDED L3_L4 3", "FORWARDED L3_L4 1"]);
    log.addFlows(Array.from({ length: 2000 }, (_, port) => flow(port + 10)));
    expect(log.list().entries[0]).toMatchObject({ number: 1, type: "L7" });
    expect(log.list(1)).toMatchObject({ newest: 2005, lost: 2004 - 512 });
  });

  it("keeps a drop of a packet that could not be read", () => {
    const log = new FlowLog();
    const { source: _, destination: __, ...rest } = DROP;
    log.addDrops([{ ...rest, protocol: 0 }]);
    expect(log.list().entries[0]).toMatchObject({ source: undefined, destination: undefined, protocol: 0 });
  });

  it("cuts what the network made long", () => {
    const log = new FlowLog();
    const long = "x".repeat(20_000);
    log.addL7({
      ...REQUEST,
      reason: long,
      http: { method: long, path: long, host: long, status: 1 },
      dns: { name: long, type: long, rcode: long, addresses: new Array(500).fill("10.0.0.1") },
    });
    expect(JSON.stringify(log.list().entries).length).toBeLessThan(3000);
  });

  it("lists what came after a number, and says what is gone", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 3000 }), fc.integer({ min: 0, max: 4000 }), (count, since) => {
        const log = new FlowLog();
        for (let i = 1; i <= count; i++) log.addL7({ ...REQUEST, unixMs: i });
        const { newest, lost, entries } = log.list(since);
        expect(newest).toBe(count);
        const after = since > count ? 0 : since;
        const numbers = entries.map((entry) => entry.number);
        expect(entries.every((entry) => entry.unixMs === entry.number)).toBe(true);
        expect(numbers.length).toBe(Math.min(1024, count - after));
        if (numbers.length > 0) expect([numbers[0], numbers.at(-1)]).toEqual([count - numbers.length + 1, count]);
        expect(lost).toBe(after === 0 ? 0 : count - after - numbers.length);
      }),
      { numRuns: 30 },
    );
  });
});

describe("newerOf", () => {
  it("finds what is new in a ring that moves on", () => {
    expect(newerOf([], ["a", "b"])).toEqual(["a", "b"]);
    expect(newerOf(["a", "b"], ["a", "b"])).toEqual([]);
    expect(newerOf(["a", "b"], ["a", "b", "c"])).toEqual(["c"]);
    expect(newerOf(["a", "b", "c"], ["c", "d"])).toEqual(["d"]);
    expect(newerOf(["a", "b"], ["c", "d"])).toEqual(["c", "d"]);
    expect(newerOf(["a", "a"], ["a", "a", "a"])).toEqual(["a"]);
  });
});

/** Collects garbage; undefined where the runtime cannot be told to. */
function collector(): (() => void) | undefined {
  const bun = (globalThis as { Bun?: { gc(isSync: boolean): void } }).Bun;
  if (bun !== undefined) return () => bun.gc(true);
  if ("Deno" in globalThis) return undefined;
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc") as () => void;
}

const collect = collector();

it.skipIf(collect === undefined)("keeps no more of what others send than it shows", () => {
  const log = new FlowLog();
  const held = () => {
    collect!();
    return process.memoryUsage().heapUsed;
  };
  const before = held();
  for (let i = 0; i < 1024; i++) {
    const path = new TextDecoder("latin1").decode(new Uint8Array(60_000).fill(97 + i % 26));
    log.addL7({ ...REQUEST, http: { method: "GET", path, host: "h", status: 414 } });
  }
  expect(held() - before).toBeLessThan(8_000_000);
  expect(log.list().entries.length).toBe(1024);
});
