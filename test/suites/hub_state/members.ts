/** What becomes of members, and the record of who did what. */
import { describe, expect, it } from "vitest";
import {
  admit,
  clock,
  codeOf,
  Device,
  HOUR,
  hub,
  hubFacts,
  join,
  makeToken,
  recordOf,
  restart,
  store,
  text,
  tryJoin,
} from "./fixture.ts";

export function testMembers(): void {
  describe("membership", () => {
    it("waits for approval where the token asks for it", async () => {
      const device = new Device(1, { name: "pi-1" });
      const token = await makeToken({ approve: "manual" });
      expect(token.needsApproval).toBe(true);
      const answer = await join(device, token);
      expect(answer.status).toBe("pending");
      expect(hub.authenticate(device.signer.publicKey)).toEqual({ refused: "pending" });
      expect(await store.get("cilium/state/nodes/v1/edge1/pi-1")).toBeUndefined();
      expect(() => hub.subscribe("pi-1", undefined, () => {})).toThrow(RangeError);
      await restart();
      expect(await hub.approveMember("nobody")).toBeUndefined();
      expect(await hub.approveMember("pi-1")).toMatchObject({ state: "active", addresses: answer.addresses });
      expect(await hub.approveMember("pi-1")).toBeUndefined();
      expect(hub.authenticate(device.signer.publicKey)).toMatchObject({ name: "pi-1", state: "active" });
      expect(await store.get("cilium/state/nodes/v1/edge1/pi-1")).toBeDefined();
      expect((await join(device, token)).status).toBe("joined");
    });

    it("is the same after a kill: names, addresses, identities, keys", async () => {
      await hub.putHubMember(hubFacts());
      for (let i = 1; i <= 5; i++) await admit(i, { app: `a${i}` });
      await hub.revokeMember("m5");
      const before = hub.members();
      await restart();
      expect(hub.members()).toEqual(before);
      expect(await admit(9)).toMatchObject({ addresses: ["10.9.0.7", "fd09::7"] });
    });

    it("refuses a revoked device for ever, also with a new token, and frees its name", async () => {
      const device = new Device(1, { name: "pi-1" });
      await join(device, await makeToken());
      expect(await hub.revokeMember("pi-1")).toBe(true);
      expect(await hub.revokeMember("pi-1")).toBe(false);
      await restart();
      expect(hub.authenticate(device.signer.publicKey)).toEqual({ refused: "revoked" });
      expect(codeOf(await tryJoin(device, await makeToken()))).toBe("revoked");
      expect((await store.list("cilium/state/nodes/")).entries).toEqual([]);
      expect((await store.list("cilium/state/ip/")).entries).toEqual([]);
      clock.now += 1;
      expect(await join(new Device(2, { name: "pi-1" }), await makeToken())).toMatchObject({ name: "pi-1" });
      expect(hub.members().map((m) => m.state)).toEqual(["revoked", "active"]);
    });

    it("lets one that left come back with a new token, not with its old one", async () => {
      const device = new Device(1);
      const token = await makeToken();
      const { name } = await join(device, token);
      expect(await hub.removeMember(name)).toBe(true);
      expect(hub.authenticate(device.signer.publicKey)).toEqual({ refused: "unknown" });
      expect(codeOf(await tryJoin(device, token))).toBe("used-up");
      expect(codeOf(await tryJoin(device, await makeToken()))).toBe("joined");
    });

    it("does not give a freed address to another for an hour", async () => {
      await admit(1);
      await hub.removeMember("m1");
      expect((await admit(2)).addresses).toEqual(["10.9.0.3", "fd09::3"]);
      clock.now += HOUR;
      await hub.tick();
      expect((await admit(3)).addresses).toEqual(["10.9.0.2", "fd09::2"]);
    });

    it("the hub is a member too, with the first addresses", async () => {
      const member = await hub.putHubMember(hubFacts());
      expect(member).toMatchObject({ isHub: true, addresses: ["10.9.0.1", "fd09::1"], underlay: "203.0.113.1" });
      const revision = store.revision;
      expect(await hub.putHubMember(hubFacts())).toEqual(member);
      expect(store.revision).toBe(revision);
      const renewed = await hub.putHubMember({ ...hubFacts(), deviceKey: new Uint8Array(32).fill(3) });
      expect(renewed.addresses).toEqual(member.addresses);
      expect(hub.authenticate(hubFacts().deviceKey)).toEqual({ refused: "unknown" });
      await admit(1);
      await expect(hub.putHubMember({ ...hubFacts(), name: "m1" })).rejects.toThrow(RangeError);
    });

    it("signs a record anew only when a connection changes it", async () => {
      await admit(1, {}, { localAddress: "192.168.1.20" });
      const facts = { endpoints: ["203.0.113.5:51871", "bad", "203.0.113.5:51871"], localAddress: "192.168.1.20" };
      await hub.noteConnection("m1", facts);
      const [member] = hub.members();
      expect(member).toMatchObject({ endpoints: ["203.0.113.5:51871"], underlay: "192.168.1.20" });
      const revision = store.revision;
      await hub.noteConnection("m1", facts);
      await hub.noteConnection("nobody", facts);
      expect(store.revision).toBe(revision);
      // a connection through the mesh tells nothing of the underlay
      const [inside] = member!.addresses;
      await hub.noteConnection("m1", { endpoints: [`${inside}:51871`], localAddress: inside! });
      expect(store.revision).toBe(revision);
      await hub.noteConnection("m1", { ...facts, localAddress: "10.0.0.8" });
      expect(recordOf(hub.members()[0]!.record).underlay).toBe("10.0.0.8");
      expect(JSON.parse(await text("cilium/state/nodes/v1/edge1/m1")).IPAddresses[0].IP).toBe("10.0.0.8");
    });

    it("signs the network that a member says it is in, keeps it while nothing is said, and takes it back", async () => {
      await admit(1);
      const networkOf = () => recordOf(hub.members()[0]!.record).network;
      const facts = { endpoints: ["192.0.2.1:51871"], localAddress: "" };
      expect(networkOf()).toBe("");
      for (const [said, network] of [["lan", "lan"], [undefined, "lan"], ["wan", "wan"], ["", ""]] as const) {
        await hub.noteConnection("m1", { ...facts, ...(said !== undefined && { network: said }) });
        expect(networkOf()).toBe(network);
      }
    });

    it("gives outer headers one family, also to a member that comes over the other", async () => {
      await admit(1, {}, { localAddress: "2001:db8::20" });
      const underlayOf = () => recordOf(hub.members()[0]!.record).underlay;
      expect(underlayOf()).toBe(hub.members()[0]!.addresses[0]);
      await hub.noteConnection("m1", { endpoints: [], localAddress: "192.168.1.20" });
      expect(underlayOf()).toBe("192.168.1.20");
      await hub.noteConnection("m1", { endpoints: [], localAddress: "2001:db8::20" });
      expect(underlayOf()).toBe(hub.members()[0]!.addresses[0]);
    });

    it("signs what a member announces for transport data, and takes it back with a report that says nothing of it", async () => {
      await admit(1);
      const aeadsOf = () => recordOf(hub.members()[0]!.record).aeads;
      expect(aeadsOf()).toEqual([]);
      const facts = { endpoints: ["192.0.2.1:51871"], localAddress: "" };
      await hub.noteConnection("m1", { ...facts, aeads: ["aegis128l", "aes256gcm"] });
      expect(aeadsOf()).toEqual(["aegis128l", "aes256gcm"]);
      const revision = store.revision;
      await hub.noteConnection("m1", { ...facts, aeads: ["aegis128l", "aes256gcm"] });
      expect(store.revision).toBe(revision);
      await hub.noteConnection("m1", facts); // an older release runs there now
      expect(aeadsOf()).toEqual([]);
      await hub.noteAeads("m1", ["aes256gcm"]);
      await hub.noteAeads("nobody", ["aes256gcm"]);
      expect(aeadsOf()).toEqual(["aes256gcm"]);
      await hub.noteAeads("m1", ["aes256gcm"]);
      expect(store.revision).toBe(revision + 2);
    });

    it("keeps underlay addresses unique: who comes later takes its mesh address", async () => {
      await admit(1, {}, { localAddress: "192.168.1.20" });
      const second = await admit(2, {}, { localAddress: "192.168.1.20" });
      expect(recordOf(second.record).underlay).toBe(second.addresses[0]);
      await hub.noteConnection("m2", { endpoints: [], localAddress: "192.168.1.21" });
      expect(hub.members()[1]!.underlay).toBe("192.168.1.21");
      await hub.noteConnection("m1", { endpoints: [], localAddress: "192.168.1.21" });
      expect(hub.members()[0]!.underlay).toBe("10.9.0.2");
    });
  });

  describe("audit", () => {
    it("holds who did what, newest first, in a ring", async () => {
      await admit(1);
      await hub.revokeMember("m1");
      const records = await hub.audit(10);
      expect(records.map((r) => `${r.event} ${r.result} ${r.member}`)).toEqual([
        "revoke ok m1",
        "join joined m1",
        "token-create ok ",
      ]);
      expect(records[1]).toMatchObject({
        from: "198.51.100.7:40000",
        device: expect.stringMatching(/^[0-9a-f]{16}$/),
      });
      await restart();
      await admit(2);
      expect((await hub.audit(1))[0]).toMatchObject({ sequence: 4, member: "m2" });
      expect(await hub.audit(0)).toEqual([]);
    });
  });
}
