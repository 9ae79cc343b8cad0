import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type DurableDir, nodeDurableDir } from "../../../edge/agent/durable_dir.ts";
import { EdgeError } from "../../../edge/errors.ts";
import type { EntryValue } from "../../../src/mesh/entries.ts";
import { ALL_OFFLOADS } from "../../../src/offload/switches.ts";
import { entriesOf, entryOf, memberOf, NOW_MS, SETTINGS } from "../../src/mesh/fixtures.ts";
import { type FakeAgent, makeAgent } from "./fakes.ts";

const settle = async () => {
  for (let i = 0; i < 20; i++) await Promise.resolve();
};

const snapshotOf = (revision: number, ...numbers: number[]) => ({
  t: "snapshot" as const,
  epoch: "e",
  revision,
  entries: entriesOf(...numbers),
});

function codes(fake: FakeAgent): string[] {
  return fake.agent.health.items().map((item) => item.code);
}

async function synced(fake: FakeAgent): Promise<void> {
  await fake.agent.start();
  fake.source.sink!.apply(snapshotOf(1, 1, 2, 3));
  fake.source.sink!.status({ state: "synced", hub: "hub:7443" });
}

describe("Agent", () => {
  it("puts a snapshot into the datapath in one message, then sets up the machine and says that it is ready", async () => {
    const fake = makeAgent();
    await fake.agent.start();
    expect(fake.notified).toEqual(["EXTEND_TIMEOUT_USEC=30000000"]);
    expect(fake.link.told).toEqual([]);
    fake.source.sink!.apply(snapshotOf(1, 1, 2, 3));
    expect(fake.link.told).toHaveLength(1);
    expect(fake.link.ops).toEqual(["self", "peer", "peer", "ip", "ip", "ip", "ip", "policy"]);
    expect(fake.network.on(fake.network.localAddresses)).toEqual(["10.9.0.2/32", "fd09::2/128"]);
    expect(fake.network.on(fake.network.localRoutes)).toEqual(["10.9.0.0/16", "fd09::1/128", "fd09::3/128"]);
    expect(fake.network.mtuBytes).toBe(1355);
    expect(fake.notified.at(-1)).toBe("READY=1");
  });

  it("tells its source what the datapath can seal with, and leaves AEGIS-128L's longer tag room when its record says so", async () => {
    const fake = makeAgent();
    await fake.agent.start();
    expect(fake.source.announced).toEqual(["aegis128l", "aes256gcm"]);
    const putSelf = (revision: number, aeads: readonly string[]) =>
      fake.source.sink!.apply({ t: "delta", revision, puts: [entryOf(memberOf(2, { aeads }))], deletes: [] });
    fake.source.sink!.apply(snapshotOf(1, 1, 2, 3));
    expect(fake.network.mtuBytes).toBe(1355);
    putSelf(2, ["aegis128l", "aes256gcm"]);
    expect([fake.network.mtuBytes, fake.agent.mtuBytes]).toEqual([1354, 1354]);
    putSelf(3, ["aes256gcm"]); // a tag like WireGuard's own
    expect(fake.network.mtuBytes).toBe(1355);
  });

  it.each([[1280, ["aes256gcm"]], [1300, ["aes256gcm"]], [1281, ["aegis128l", "aes256gcm"]]])(
    "does not give the last octet that IPv6 needs for AEGIS-128L: with an MTU of %d it announces %j",
    async (mtu, aeads) => {
      const fake = makeAgent();
      (fake.agent.options.datapath as { mtu: number }).mtu = mtu;
      await fake.agent.start();
      expect(fake.source.announced).toEqual(aeads);
    },
  );

  it("runs from disk, marked stale, when the hub is away at start", async () => {
    const path = mkdtempSync(join(tmpdir(), "edgemesh-agent-"));
    const first = makeAgent({ dir: nodeDurableDir(path) });
    await synced(first);
    first.time.pass(2000);
    await first.agent.stop();
    const second = makeAgent({ dir: nodeDurableDir(path) });
    await second.agent.start();
    expect(second.link.ops).toContain("policy");
    expect(second.network.on(second.network.localAddresses)).toEqual(["10.9.0.2/32", "fd09::2/128"]);
    expect(second.source.sink!.resume()).toEqual({ epoch: "e", revision: 1 });
    second.source.sink!.status({ state: "offline", detail: "ECONNREFUSED" });
    second.time.pass(10_000);
    expect(codes(second)).toEqual(["hub-unreachable", "state-stale"]);
    second.source.sink!.status({ state: "synced" });
    expect(codes(second)).toEqual([]);
  });

  it("stays closed after a join until the first real state: what the join left opens to nobody", async () => {
    const path = mkdtempSync(join(tmpdir(), "edgemesh-agent-"));
    const before = makeAgent({ dir: nodeDurableDir(path) });
    const entries: (readonly [string, EntryValue])[] = [["settings", SETTINGS], ...entriesOf(2).slice(1)];
    before.store.saveState({ epoch: "e", revision: 0, entries, syncedUnixMs: NOW_MS }, 0);
    const fake = makeAgent({ dir: nodeDurableDir(path) });
    await fake.agent.start();
    expect(fake.link.ops).toEqual(["self"]);
    expect(fake.source.sink!.resume()).toBeUndefined();
    fake.time.pass(6000);
    expect(codes(fake)).toContain("policy-not-ready");
    fake.source.sink!.apply(snapshotOf(1, 1, 2));
    expect(fake.link.ops).toContain("policy");
    expect(codes(fake)).not.toContain("policy-not-ready");
  });

  it("fills the datapath anew when it was started again, and says so in health meanwhile", async () => {
    const fake = makeAgent();
    await synced(fake);
    fake.link.onEvent({ op: "fatal", code: "EDGE_TUN_FAILED", message: "TUN is gone" });
    expect(fake.agent.link).toBeUndefined();
    expect(codes(fake)).toContain("datapath-down");
    await settle();
    fake.failures.push(new EdgeError("EDGE_TUN_BUSY", "Cannot open TUN: busy"));
    fake.network.localAddresses = [];
    fake.network.localRoutes = [];
    fake.time.pass(1000);
    await settle();
    expect(codes(fake)).toContain("datapath-down");
    fake.time.pass(30_000);
    await settle();
    expect(fake.links).toHaveLength(3);
    expect(fake.link.ops).toEqual(["self", "peer", "peer", "ip", "ip", "ip", "ip", "policy"]);
    expect(fake.network.on(fake.network.localAddresses)).toEqual(["10.9.0.2/32", "fd09::2/128"]);
    expect(codes(fake)).toEqual([]);
  });

  it("switches offloads of the datapath that runs and of the next one, and shows what came of it", async () => {
    const fake = makeAgent();
    await synced(fake);
    const switches = { ...ALL_OFFLOADS, udpGso: false };
    fake.agent.switchOffload(switches);
    expect(fake.link.told.flat().at(-1)).toEqual({ op: "offload", switches });
    const { offload } = fake.agent.datapathFacts!;
    fake.link.onEvent({ op: "offload", offload: { ...offload, udpSegment: "off, by configuration" } });
    expect(fake.agent.datapathFacts!.offload).toEqual({ ...offload, udpSegment: "off, by configuration" });
    fake.link.onEvent({ op: "fatal", code: "EDGE_TUN_FAILED", message: "TUN is gone" });
    await settle();
    fake.time.pass(1000);
    await settle();
    expect(fake.links).toHaveLength(2);
    expect(fake.link.options.offload).toEqual(switches);
  });

  it("does not start when the datapath cannot", async () => {
    const fake = makeAgent();
    fake.failures.push(new EdgeError("EDGE_TUN_DENIED", "Cannot open TUN: EPERM"));
    await expect(fake.agent.start()).rejects.toMatchObject({ code: "EDGE_TUN_DENIED" });
    expect(fake.link.isStopped).toBe(true);
    expect(fake.source.sink).toBeUndefined();
  });

  it("names a conflict with the local network and touches nothing", async () => {
    const fake = makeAgent();
    fake.network.localAddresses.push({ interfaceIndex: 3, interfaceName: "br0", prefix: "10.9.7.1/24" });
    await synced(fake);
    expect(fake.network.touches).toBe(0);
    const [item] = fake.agent.health.items();
    expect(item).toMatchObject({ code: "cidr-conflict", impactsConnectivity: true });
    expect(item!.text).toContain('"br0" has the address 10.9.7.1/24');
    fake.network.localAddresses.pop();
    fake.link.counters.heartbeatMs = fake.time.nowMs + 60_000;
    fake.time.pass(60_000);
    expect(codes(fake)).toEqual([]);
    expect(fake.network.touches).toBeGreaterThan(0);
  });

  it("puts back a route that somebody else removed", async () => {
    const fake = makeAgent();
    await synced(fake);
    fake.network.localRoutes = fake.network.localRoutes.filter(({ prefix }) => prefix !== "10.9.0.0/16");
    fake.time.pass(60_000);
    expect(fake.network.on(fake.network.localRoutes)).toContain("10.9.0.0/16");
  });

  it("works degraded, and says so, when its directory cannot be written", async () => {
    const refuse = () => {
      throw new Error("EROFS: read-only file system");
    };
    const dir: DurableDir = {
      path: "/ro",
      prepare: refuse,
      list: () => [],
      read: refuse,
      writeDurably: refuse,
      rename: refuse,
      remove: refuse,
      syncDir: refuse,
    };
    const fake = makeAgent({ dir });
    await synced(fake);
    fake.link.counters.heartbeatMs = fake.time.nowMs + 2000;
    fake.time.pass(2000);
    expect(codes(fake)).toEqual(["state-readonly"]);
    expect(fake.link.ops).toContain("policy");
    await fake.agent.stop();
  });

  it("writes seldom while the mesh changes all the time", async () => {
    const fake = makeAgent();
    await synced(fake);
    for (let revision = 2; revision < 3600; revision++) {
      fake.link.counters.heartbeatMs = fake.time.nowMs;
      fake.source.sink!.apply(snapshotOf(revision, 1, 2, revision % 2 === 0 ? 3 : 4));
      fake.time.pass(1000);
    }
    // state with growing pauses, and the reservation of stamps
    expect(fake.store.writes).toBeLessThan(18);
    expect(fake.store.loadState()!.revision).toBeGreaterThan(2000);
  });

  it("kicks the watchdog while the datapath turns, and not when it hangs", async () => {
    const fake = makeAgent({ watchdogMs: 30_000 });
    await synced(fake);
    for (let i = 0; i < 30; i++) {
      fake.link.counters.heartbeatMs = fake.time.nowMs;
      fake.time.pass(1000);
    }
    expect(fake.notified.filter((line) => line === "WATCHDOG=1").length).toBeGreaterThanOrEqual(2);
    fake.notified.length = 0;
    fake.time.pass(60_000);
    expect(fake.notified.filter((line) => line === "WATCHDOG=1").length).toBeLessThanOrEqual(2);
    expect(codes(fake)).toContain("datapath-stuck");
  });

  it("tells what is wrong with clock, record and entries", async () => {
    const fake = makeAgent();
    await synced(fake);
    fake.clockBehindMs = 3_600_000;
    fake.unixMs += 25 * 86_400_000;
    fake.source.sink!.apply({ t: "delta", revision: 2, puts: [["identity/0", { labels: {} }]], deletes: [] });
    expect(codes(fake)).toEqual(["clock-behind", "entries-refused", "key-expiring"]);
    fake.source.sink!.status({ state: "refused", detail: "revoked: by the operator" });
    expect(codes(fake)[0]).toBe("hub-refused");
  });

  it("begins each life above all stamps that an earlier one may have sent, whatever the clock says", async () => {
    const path = mkdtempSync(join(tmpdir(), "edgemesh-agent-"));
    const first = makeAgent({ dir: nodeDurableDir(path) });
    await synced(first);
    // killed: no stop
    const second = makeAgent({ dir: nodeDurableDir(path) });
    second.unixMs = 1000; // 1970
    await second.agent.start();
    const [before, after] = [first.link.options.stampFloor!, second.link.options.stampFloor!];
    expect(Buffer.compare(after, before)).toBe(1);
  });

  it("stops everything and saves what is unsaved", async () => {
    const fake = makeAgent();
    await synced(fake);
    await fake.agent.stop();
    expect([fake.link.isStopped, fake.source.isStopped]).toEqual([true, true]);
    expect(fake.store.loadState()).toMatchObject({ epoch: "e", revision: 1 });
    expect(fake.notified.at(-1)).toBe("STOPPING=1");
  });

  it("saves nothing of a mesh file", async () => {
    const fake = makeAgent({ isFromFile: true });
    await synced(fake);
    fake.time.pass(10_000);
    await fake.agent.stop();
    expect(fake.store.loadState()).toBeUndefined();
  });
});
