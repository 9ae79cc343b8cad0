import { describe, expect, it } from "vitest";
import type { Agent } from "../../../edge/agent/agent.ts";
import { dryRunResult, entriesOfDocuments, type NamedFlow } from "../../../edge/agent/dry_run.ts";
import { type HttpActions, makeApp } from "../../../edge/agent/http.ts";
import { type Evaluate, MAX_DRY_RUN_FLOWS } from "../../../edge/sync/dry_run.ts";
import { parseAddress } from "../../../src/ip/address.ts";
import { EGRESS, INGRESS } from "../../../src/policy/model.ts";
import type { Judging } from "../../../src/policy/newly_dropped.ts";
import { DROP_POLICY_DENIED, FORWARD, REDIRECT } from "../../../src/verdict.ts";

/** Lets through what `verdictOf` says by port; one rule decides where it passes. */
const engine = (verdictOf: (port: number) => number, audited?: number): Judging => ({
  identityOfAddress: () => 2,
  explain: (_direction, _other, _protocol, port) => {
    const verdict = verdictOf(port);
    const rule = { index: 0, policy: "NetworkPolicy/shop/web", path: "spec.ingress[0]", verdict: "allow", tier: 200 };
    return {
      verdict: audited !== undefined && verdict !== FORWARD ? FORWARD : verdict,
      decidedBy: verdict === FORWARD ? rule as never : undefined,
      matched: [],
      isEnforced: true,
      l7: [],
      ...(audited !== undefined && verdict !== FORWARD && { audited: verdict }),
    };
  },
});
const open = engine(() => FORWARD);
const flow = (port: number, changes: Partial<NamedFlow> = {}): NamedFlow => ({
  direction: INGRESS,
  address: parseAddress("10.219.0.3")!,
  identity: 65_800,
  protocol: 6,
  port,
  source: "10.219.0.3",
  destination: "10.219.0.2",
  peer: "lab/box-b",
  ...changes,
});

describe("dryRunResult", () => {
  it("counts equal flows as one, the most frequent first, and says who they are", () => {
    const after = engine((port) => port === 80 ? FORWARD : port === 81 ? REDIRECT : DROP_POLICY_DENIED);
    const flows = [flow(80), flow(81), flow(90), flow(22), flow(22), flow(53, { direction: EGRESS, protocol: 17 })];
    const result = dryRunResult(flows, open, after);
    expect(result).toMatchObject({ total: 3, lookedAt: 6, toProxy: 1 });
    expect(result.flows.map(({ port, count }) => [port, count])).toEqual([[22, 2], [90, 1], [53, 1]]);
    expect(result.flows[0]).toEqual({
      direction: "ingress",
      source: "10.219.0.3",
      destination: "10.219.0.2",
      peer: "lab/box-b",
      protocol: "TCP",
      port: 22,
      count: 2,
      before: { verdict: "FORWARD", rule: "NetworkPolicy/shop/web spec.ingress[0]" },
      after: { verdict: "POLICY_DENIED", rule: null },
      isAudited: false,
    });
    expect(result.flows[2]).toMatchObject({ direction: "egress", protocol: "UDP" });
  });

  it("names a bounded number of flows and counts all", () => {
    const flows = Array.from({ length: 900 }, (_, port) => flow(port));
    const result = dryRunResult(flows, open, engine(() => DROP_POLICY_DENIED, 1));
    expect([result.flows.length, result.total, result.flows[0]?.isAudited]).toEqual([MAX_DRY_RUN_FLOWS, 900, true]);
  });
});

const POLICY = {
  apiVersion: "networking.k8s.io/v1",
  kind: "NetworkPolicy",
  metadata: { name: "closed", namespace: "shop" },
  spec: { podSelector: {} },
};
const GROUP = {
  apiVersion: "cilium.io/v2",
  kind: "CiliumCIDRGroup",
  metadata: { name: "office" },
  spec: { externalCIDRs: ["192.0.2.0/24"] },
};
const SERVICE = { apiVersion: "v1", kind: "Service", metadata: { name: "db", namespace: "shop" }, spec: {} };
const SLICE = {
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: { name: "db-1", namespace: "shop", labels: { "kubernetes.io/service-name": "db" } },
  addressType: "IPv4",
  endpoints: [{ addresses: ["198.51.100.7"] }],
};

describe("entriesOfDocuments", () => {
  it("makes the entries that a hub would send", () => {
    expect(entriesOfDocuments([SLICE, POLICY, GROUP, SERVICE])).toEqual({
      puts: [
        ["policy/NetworkPolicy/shop/closed", POLICY],
        ["cidrgroup/office", GROUP],
        ["service/shop/db", { labels: {}, addresses: ["198.51.100.7"] }],
      ],
    });
  });

  it("refuses all for one fault, and names it", () => {
    expect(entriesOfDocuments([POLICY, SLICE, { kind: "Pod", metadata: { name: "x" } }, 7])).toEqual({
      faults: [
        expect.stringMatching(/^Pod x: kind: /),
        expect.stringMatching(/^\? \?: /),
        "EndpointSlice db-1: its Service shop/db is not among the documents",
      ],
    });
  });
});

describe("POST /v1/policy/dry-run", () => {
  const post = (body: unknown, evaluate?: Evaluate, entrance: "socket" | "loopback" = "socket") => {
    const actions: HttpActions = { leave: () => Promise.resolve(undefined), ...(evaluate && { evaluate }) };
    // this path asks the agent nothing but what the action does
    return makeApp({} as Agent, entrance, actions).request("http://localhost/v1/policy/dry-run", {
      method: "POST",
      headers: { host: "127.0.0.1", "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  };
  const result = { flows: [], total: 0, lookedAt: 4, toProxy: 0 };

  it("asks with the entries of the documents, and answers with what would be dropped", async () => {
    const asked: unknown[] = [];
    const answer = await post({ documents: [POLICY] }, (puts, deletes) => {
      asked.push(puts, deletes);
      return Promise.resolve(result);
    });
    expect(await answer.json()).toEqual({ apiVersion: "edgemesh/v1", kind: "DryRun", ...result });
    expect(asked).toEqual([[["policy/NetworkPolicy/shop/closed", POLICY]], []]);
  });

  it("checks regular expressions, and asks nothing with a fault", async () => {
    const http = (path: string) => ({
      apiVersion: "cilium.io/v2",
      kind: "CiliumNetworkPolicy",
      metadata: { name: "web", namespace: "shop" },
      spec: {
        endpointSelector: {},
        ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules: { http: [{ path }] } }] }],
      },
    });
    const evaluate = () => Promise.resolve(result);
    expect((await post({ documents: [http("/a.*")] }, evaluate)).status).toBe(200);
    const bad = await post({ documents: [http("/a(")] }, () => Promise.reject(new Error("asked")));
    expect(bad.status).toBe(400);
    expect(await bad.json()).toMatchObject({ code: "EDGE_MANIFEST_INVALID", message: expect.stringContaining("web") });
  });

  it("is for the socket alone, and says what it needs", async () => {
    expect((await post({ documents: [] }, undefined, "loopback")).status).toBe(403);
    expect((await post({}, () => Promise.resolve(result))).status).toBe(400);
    expect((await post({ documents: [POLICY] })).status).toBe(503);
  });
});
