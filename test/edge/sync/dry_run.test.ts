/** Questions of the hub to its members over a real connection, and of a member to its hub. */
import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HubClient } from "../../../edge/sync/client.ts";
import { TrustedClock } from "../../../edge/sync/clock.ts";
import {
  type DryRunFlow,
  type DryRunResult,
  type Evaluate,
  fitResult,
  MAX_DRY_RUN_FLOWS,
} from "../../../edge/sync/dry_run.ts";
import { encodeFrame, MAX_MEMBER_FRAME_BYTES } from "../../../edge/sync/frames.ts";
import { joinHub } from "../../../edge/sync/join_client.ts";
import type { SourceStatus, StateSink } from "../../../edge/sync/source.ts";
import { makeLog, startTestHub, type TestHub } from "../../support/hub.ts";

const POLICY = {
  apiVersion: "networking.k8s.io/v1",
  kind: "NetworkPolicy",
  metadata: { name: "closed", namespace: "default" },
  spec: { podSelector: {} },
};
const FLOW: DryRunFlow = {
  direction: "egress",
  source: "10.219.0.2",
  destination: "192.0.2.7",
  peer: null,
  protocol: "UDP",
  port: 53,
  count: 1,
  before: { verdict: "FORWARD", rule: "NetworkPolicy/default/dns spec.egress[0]" },
  after: { verdict: "POLICY_DENIED", rule: null },
  isAudited: false,
};
const RESULT: DryRunResult = { flows: [FLOW], total: 1, lookedAt: 12, toProxy: 2 };

let hub: TestHub;
const clients: HubClient[] = [];

beforeEach(async () => void (hub = await startTestHub()));
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.stop()));
  await hub.close();
});

class Sink implements StateSink {
  readonly evaluate?: Evaluate;
  heardCount = 0;
  last: SourceStatus | undefined;
  readonly synced: Promise<void>;
  #isSynced: () => void = () => {};

  constructor(evaluate?: Evaluate) {
    if (evaluate !== undefined) this.evaluate = evaluate;
    this.synced = new Promise((resolve) => this.#isSynced = resolve);
  }

  apply(): void {}
  heard(): void {
    this.heardCount++;
  }
  resume(): undefined {}
  status(status: SourceStatus): void {
    this.last = { ...status };
    if (status.state === "synced") this.#isSynced();
  }
}

async function connect(name: string, sink: Sink): Promise<HubClient> {
  const { token } = await hub.admin.createToken({});
  const deviceSecretKey = new Uint8Array(randomBytes(32));
  const { answer, caPem } = await joinHub(token, {
    deviceSecretKey,
    wireguardPublicKey: new Uint8Array(randomBytes(32)),
    wireguardPort: 51871,
    name,
  });
  const client = new HubClient({
    endpoints: [hub.endpoint],
    report: () => ({ endpoints: [], wireguardPort: 51871, version: "test" }),
    clock: new TrustedClock(),
    log: makeLog([]),
    deviceSecretKey,
    caPem,
    recordKey: answer.recordKey,
  });
  clients.push(client);
  client.start(sink);
  await sink.synced;
  return client;
}

describe("apply --dry-run at the hub", () => {
  it("brings what connected members would newly drop, and stores nothing", async () => {
    const asked: unknown[] = [];
    await connect(
      "able",
      new Sink((puts, deletes) => {
        asked.push([puts, deletes]);
        return Promise.resolve(RESULT);
      }),
    );
    await connect("failing", new Sink(() => Promise.reject(new Error("it has no policies yet"))));
    await connect("old", new Sink());
    const answer = await hub.admin.apply([POLICY], true);
    expect(answer.applied).toMatchObject([{ name: "closed", action: "created" }]);
    expect(answer.dryRun?.members).toEqual([
      { name: "able", state: "answered", reason: null, result: RESULT },
      expect.objectContaining({ name: "failing", state: "answered", reason: "it has no policies yet" }),
      { name: "old", state: "not-asked", reason: "it is of an older release, or busy", result: null },
    ]);
    expect(asked).toEqual([[[["policy/NetworkPolicy/default/closed", POLICY]], []]]);
    expect(await hub.admin.objects()).toEqual([]);
    await hub.admin.apply([POLICY]);
    expect((await hub.admin.apply([POLICY], true)).dryRun).toEqual({ members: [] }); // nothing changes
    expect(asked).toHaveLength(1);
  });

  it("is no question when a document is wrong", async () => {
    await connect("able", new Sink(() => Promise.reject(new Error("asked"))));
    const answer = await hub.admin.apply([{ ...POLICY, kind: "NetworkPolice" }], true);
    expect([answer.errors.length, answer.dryRun]).toEqual([1, undefined]);
  });
});

describe("HubClient", () => {
  it("asks the hub for a word, hears it, and knows the address of its own end", async () => {
    const sink = new Sink();
    const client = await connect("pi-1", sink);
    expect(sink.last).toMatchObject({ state: "synced", localAddress: "127.0.0.1" });
    const before = sink.heardCount;
    expect(client.probe()).toBe(true);
    await expect.poll(() => sink.heardCount).toBeGreaterThan(before);
    await client.stop();
    expect(client.probe()).toBe(false);
  });
});

describe("fitResult", () => {
  it("leaves out flows until a member's frame can carry the rest", () => {
    const rule = "CiliumNetworkPolicy/" + "x".repeat(600);
    const long = { ...FLOW, before: { verdict: "FORWARD", rule }, after: { verdict: "POLICY_DENY", rule } };
    const result = { ...RESULT, flows: Array<DryRunFlow>(500).fill(long), total: 500 };
    const fitting = fitResult(result, MAX_MEMBER_FRAME_BYTES - 1024);
    expect(fitting.flows.length).toBeGreaterThan(10);
    expect(fitting.total).toBe(500);
    const frame = encodeFrame({ t: "dryRunResult", id: 2 ** 40, result: fitting });
    expect(frame.length).toBeLessThan(MAX_MEMBER_FRAME_BYTES);
    expect(fitResult({ ...RESULT, flows: Array<DryRunFlow>(500).fill(FLOW) }, 1e6).flows).toHaveLength(
      MAX_DRY_RUN_FLOWS,
    );
  });
});
