/** What is in the store: whose it is, how it is mended, renewed and forgotten. */
import { describe, expect, it } from "vitest";
import {
  admit,
  clock,
  Device,
  HOUR,
  hub,
  join,
  makeToken,
  openHub,
  recordOf,
  restart,
  store,
  text,
} from "./fixture.ts";

export function testKeeping(): void {
  describe("the store", () => {
    it("belongs to one cluster", async () => {
      await expect(openHub({ cluster: { name: "edge2", id: 1 } })).rejects.toThrow("belongs to");
      await admit(1);
      await expect(openHub({ memberCidrs: ["10.8.0.0/16"] })).rejects.toThrow("outside");
      await expect(openHub({ memberCidrs: ["10.8.0.1/16"] })).rejects.toThrow(RangeError);
    });

    it("is mended at start where Cilium's keys are not what the members say", async () => {
      await admit(1);
      const key = "cilium/state/ip/v1/default/10.9.0.2";
      const good = await text(key);
      await store.put(key, new TextEncoder().encode("{}"));
      await store.delete("cilium/state/nodes/v1/edge1/m1");
      await store.put("cilium/state/ip/v1/default/10.9.0.99", new TextEncoder().encode("{}"));
      await restart();
      expect(await text(key)).toBe(good);
      expect(await store.get("cilium/state/nodes/v1/edge1/m1")).toBeDefined();
      expect(await store.get("cilium/state/ip/v1/default/10.9.0.99")).toBeUndefined();
    });

    it("may hold values that do not read: they are reported and harm nobody else", async () => {
      await admit(1);
      await store.put("edgemesh/members/bad", new TextEncoder().encode("{}"));
      await store.put("edgemesh/tokens/bad", new TextEncoder().encode("x"));
      await store.put("edgemesh/policies/NetworkPolicy/default/bad", new TextEncoder().encode('{"kind":"x"}'));
      await restart();
      expect(hub.members().map((m) => m.name)).toEqual(["m1"]);
      expect(hub.get()).toEqual([]);
      await admit(2);
    });

    it("upkeep writes a heartbeat each minute, renews records, and forgets what is dead", async () => {
      const token = await makeToken({ ttlMs: HOUR });
      await join(new Device(1, { name: "m1", labels: { app: "old" } }), token);
      await hub.tick();
      const first = await text("cilium/.heartbeat");
      clock.now += 59_000;
      await hub.tick();
      expect(await text("cilium/.heartbeat")).toBe(first);
      clock.now += 1000;
      await hub.tick();
      expect(await text("cilium/.heartbeat")).toBe(new Date(clock.now).toISOString());
      const before = hub.members()[0]!.record;
      clock.now += 16 * 24 * HOUR;
      await hub.tick();
      const after = hub.members()[0]!.record;
      expect(recordOf(after).notAfter).toBe(clock.now + 30 * 24 * HOUR);
      expect(recordOf(before).notAfter).toBeLessThan(recordOf(after).notAfter);
      await hub.removeMember("m1");
      for (let i = 0; i < 3; i++) {
        clock.now += 16 * 24 * HOUR;
        await hub.tick();
      }
      expect(hub.listTokens()).toEqual([]);
      expect((await store.list("cilium/state/identities/")).entries).toEqual([]);
      expect((await store.list("edgemesh/released/")).entries).toEqual([]);
    });
  });
}
