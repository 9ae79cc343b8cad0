/** How a device gets in, and the tokens that let it. */
import { describe, expect, it } from "vitest";
import { toBase64, toHex } from "../../../src/bytes/text.ts";
import type { JoinRequest } from "../../../src/hub/join.ts";
import { type JoinToken, readToken } from "../../../src/hub/token.ts";
import {
  admit,
  CA_PIN,
  clock,
  codeOf,
  Device,
  FROM,
  HOUR,
  hub,
  join,
  logged,
  makeToken,
  MINUTE,
  recordOf,
  recordSigner,
  restart,
  send,
  settings,
  startOver,
  store,
  text,
  tryJoin,
} from "./fixture.ts";

export function testJoining(): void {
  describe("join", () => {
    it("admits a device, signs its record, and publishes it in Cilium's key space", async () => {
      const device = new Device(1, { name: "pi-7", labels: { app: "web" }, localAddress: "192.168.1.20" });
      const answer = await join(device, await makeToken({ labels: { site: "lyon" }, namespace: "edge" }));
      expect(answer).toMatchObject({
        status: "joined",
        epoch: store.epoch,
        unixMs: clock.now,
        name: "pi-7",
        addresses: ["10.9.0.2", "fd09::2"],
        recordKey: recordSigner.publicKey,
        settings,
      });
      const record = recordOf(answer.record);
      expect(record).toEqual({
        name: "pi-7",
        cluster: settings.cluster,
        publicKey: device.publicKey,
        deviceKey: device.signer.publicKey,
        addresses: ["10.9.0.2", "fd09::2"],
        underlay: "192.168.1.20",
        endpoints: ["198.51.100.7:51871", "192.168.1.20:51871"],
        namespace: "edge",
        labels: { app: "web", site: "lyon" },
        namedPorts: [],
        aeads: [],
        network: "",
        identity: 65792,
        notBefore: clock.now - 24 * HOUR,
        notAfter: clock.now + 30 * 24 * HOUR,
        isHub: false,
      });
      const node = JSON.parse(await text("cilium/state/nodes/v1/edge1/pi-7"));
      expect(node).toMatchObject({ Name: "pi-7", ClusterID: 1, WireguardPubKey: toBase64(device.publicKey) });
      expect(node.IPAddresses).toEqual([{ Type: "InternalIP", IP: "192.168.1.20" }]);
      for (const ip of answer.addresses) {
        expect(JSON.parse(await text(`cilium/state/ip/v1/default/${ip}`))).toMatchObject({
          IP: ip,
          HostIP: "192.168.1.20",
          ID: 65792,
          Key: 255,
          K8sNamespace: "edge",
          K8sPodName: "pi-7",
        });
      }
      expect(await text("cilium/state/identities/v1/id/65792")).toBe(
        "k8s:app=web;k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=edge;" +
          "k8s:io.cilium.k8s.policy.cluster=edge1;k8s:io.cilium.k8s.policy.serviceaccount=default;" +
          "k8s:io.kubernetes.pod.namespace=edge;k8s:site=lyon;",
      );
      expect(JSON.parse(await text("cilium/cluster-config/edge1"))).toMatchObject({ id: 1 });
      for (const kind of ["nodes", "services", "identities", "ip"]) {
        expect(await text(`cilium/synced/edge1/cilium/state/${kind}/v1`)).toMatch(/^20/);
      }
    });

    it("gives distinct names and addresses, and one identity for equal labels", async () => {
      const token = await makeToken({ uses: 20 });
      const devices = Array.from({ length: 20 }, (_, i) => new Device(i + 1, { labels: { app: i % 2 ? "a" : "b" } }));
      const answers = await Promise.all(devices.map((device) => join(device, token)));
      expect(new Set(answers.map((a) => a.name)).size).toBe(20);
      for (const { name } of answers) expect(name).toMatch(/^edge-[a-z2-7]{4}$/);
      expect(new Set(answers.flatMap((a) => a.addresses)).size).toBe(40);
      const identities = new Set(answers.map((a) => recordOf(a.record).identity));
      expect([...identities].sort()).toEqual([65792, 65793]);
      expect(hub.listTokens()[0]).toMatchObject({ state: "used-up", used: 20, uses: 20 });
    });

    it("refuses a token that is unknown, used up, expired or revoked, each in its own words", async () => {
      const token = await makeToken();
      expect(await tryJoin(new Device(1), { ...token, id: new Uint8Array(8) })).toMatchObject({
        code: "unknown",
        isRetryable: false,
      });
      await join(new Device(1), token);
      expect(await tryJoin(new Device(2), token)).toMatchObject({
        code: "used-up",
        message: expect.stringContaining("1 of 1"),
      });
      const late = await makeToken({ ttlMs: HOUR });
      clock.now += HOUR + 1000;
      expect(await tryJoin(new Device(3), late)).toMatchObject({ code: "expired" });
      const revoked = await makeToken();
      expect(await hub.revokeToken(toHex(revoked.id))).toBe(true);
      expect(await hub.revokeToken("0000000000000000")).toBe(false);
      expect(await tryJoin(new Device(4), revoked)).toMatchObject({ code: "revoked" });
      clock.now -= 2 * HOUR;
      const early = await makeToken();
      clock.now -= HOUR;
      expect(await tryJoin(new Device(5), early)).toMatchObject({ code: "clock", isRetryable: true });
      expect(hub.members()).toHaveLength(1);
      const reasons = (await hub.audit(10)).filter((a) => a.event === "join").map((a) => a.result);
      expect(reasons).toEqual(["clock", "revoked", "expired", "used-up", "joined", "unknown"]);
    });

    it("refuses a request that was seen before, and a changed one", async () => {
      const token = await makeToken({ uses: 5 });
      const request = new Device(1).request(token, hub.challenge());
      expect(codeOf(await send(request))).toBe("joined");
      expect(await send(request)).toMatchObject({ code: "replayed", isRetryable: false });
      const other = new Device(2).request(token, hub.challenge());
      const changes: Partial<JoinRequest>[] = [
        { name: "other" },
        { publicKey: new Uint8Array(32).fill(5) },
        { labels: { app: "admin" } },
        { proof: new Uint8Array(32) },
        { signature: new Uint8Array(64) },
        { caPin: new Uint8Array(32) },
        { deviceKey: request.deviceKey },
      ];
      for (const change of changes) expect(codeOf(await send({ ...other, ...change }))).toBe("bad-proof");
      expect(codeOf(await send(other))).toBe("joined");
    });

    it("checks the device's own signature: a token alone cannot register somebody else's key", async () => {
      const token = await makeToken();
      const victim = new Device(1).request(token, hub.challenge());
      const thief = new Device(2, { deviceKey: victim.deviceKey });
      expect(codeOf(await tryJoin(thief, token))).toBe("bad-proof");
    });

    it("asks for another challenge when it ran out, or is another process's", async () => {
      const token = await makeToken();
      const old = new Device(1).request(token, hub.challenge());
      clock.now += 3 * MINUTE;
      expect(await send(old)).toMatchObject({ code: "stale-challenge", isRetryable: true });
      const challenge = hub.challenge();
      await restart();
      expect(codeOf(await send(new Device(1).request(token, challenge)))).toBe("stale-challenge");
      expect(codeOf(await tryJoin(new Device(1), token))).toBe("joined");
    });

    it("repeats its answer to the same device for 15 minutes, and then says that it is a replay", async () => {
      const token = await makeToken();
      const device = new Device(1);
      const first = await join(device, token);
      clock.now += 15 * MINUTE;
      const again = await join(device, token);
      expect(again).toEqual({ ...first, unixMs: clock.now });
      clock.now += 1;
      expect(await tryJoin(device, token)).toMatchObject({
        code: "replayed",
        message: expect.stringContaining(`"${first.name}"`),
      });
      expect(hub.listTokens()[0]).toMatchObject({ used: 1 });
    });

    it("repeats also what was answered just before a kill", async () => {
      const token = await makeToken();
      const first = await join(new Device(1), token);
      await restart();
      expect(await join(new Device(1), token)).toEqual({ ...first, unixMs: clock.now });
    });

    it("lets a known device join again with another token, as the same member", async () => {
      const device = new Device(1, { name: "pi-1", labels: { app: "web" } });
      const first = await join(device, await makeToken());
      clock.now += HOUR;
      device.publicKey = new Uint8Array(32).fill(9);
      device.wishes = { labels: { app: "db" } };
      const second = await join(device, await makeToken());
      expect(second).toMatchObject({ name: "pi-1", addresses: first.addresses });
      expect(recordOf(second.record)).toMatchObject({ publicKey: device.publicKey, labels: { app: "db" } });
      expect(hub.members()).toHaveLength(1);
    });

    it("refuses a taken name, a copied WireGuard key, and wishes that the token forbids", async () => {
      await admit(1);
      const device = new Device(2, { name: "m1" });
      expect(codeOf(await tryJoin(device, await makeToken()))).toBe("name-taken");
      device.wishes = {};
      device.publicKey = new Device(1).publicKey;
      expect(codeOf(await tryJoin(device, await makeToken()))).toBe("duplicate-key");
      const fixed = await makeToken({ name: "pi-9" });
      expect(codeOf(await tryJoin(new Device(3, { name: "pi-8" }), fixed))).toBe("bad-request");
      expect(await join(new Device(3), fixed)).toMatchObject({ name: "pi-9" });
    });

    it("says when the mesh is full, and goes on when there is room", async () => {
      await startOver({ memberCidrs: ["10.9.0.0/30"] });
      await admit(1);
      const token = await makeToken();
      expect(await tryJoin(new Device(2), token)).toMatchObject({ code: "exhausted", isRetryable: true });
      await hub.removeMember("m1");
      expect(await join(new Device(2), token)).toMatchObject({ addresses: ["10.9.0.2"] });
    });

    it("makes whoever fails too often wait, and nobody else", async () => {
      const token = await makeToken({ uses: 2 });
      const guess = { ...token, secret: new Uint8Array(16) };
      for (let i = 0; i < 20; i++) expect(codeOf(await tryJoin(new Device(i), guess))).toBe("bad-proof");
      const refusal = await tryJoin(new Device(99), token);
      expect(refusal).toMatchObject({ code: "rate-limited", isRetryable: true, retryAfterMs: 6000 });
      expect(codeOf(await tryJoin(new Device(98), token, { remoteAddress: "203.0.113.9", remotePort: 1 }))).toBe(
        "joined",
      );
      const before = store.revision;
      for (let i = 0; i < 50; i++) await tryJoin(new Device(99), token);
      expect(store.revision).toBe(before);
      clock.now += 6000;
      expect(codeOf(await tryJoin(new Device(99), token))).toBe("joined");
    });

    it("never throws on what is no request, and writes down that it came", async () => {
      for (const bad of [undefined, null, 7, "x", [], {}, { challenge: "x" }]) {
        expect(codeOf(await hub.join(bad as never, FROM))).toBe("bad-request");
      }
      expect((await hub.audit(1))[0]).toMatchObject({ result: "bad-request", from: "198.51.100.7:40000" });
    });

    it("keeps no secret: neither store nor log nor audit holds the token's", async () => {
      const { token } = await hub.createToken({ endpoints: ["h:1"], caPin: CA_PIN });
      const read = readToken(token) as { token: JoinToken };
      await join(new Device(1), read.token);
      await tryJoin(new Device(2), read.token);
      const { entries } = await store.list("");
      const everything = JSON.stringify([
        entries.map(({ key, value }) => [key, new TextDecoder().decode(value)]),
        logged,
      ]);
      const { secret } = read.token;
      for (const form of [toHex(secret), toBase64(secret).slice(0, 20), token, token.slice(20, 40)]) {
        expect(everything).not.toContain(form);
      }
      expect(everything).toContain(toHex(read.token.id));
    });
  });

  describe("tokens", () => {
    it("are listed with their state, and refuse options that make no sense", async () => {
      await makeToken({ uses: Infinity, ttlMs: Infinity, labels: { a: "b" }, approve: "manual" });
      expect(hub.listTokens()).toEqual([{
        id: expect.stringMatching(/^[0-9a-f]{16}$/),
        state: "valid",
        uses: null,
        used: 0,
        createdAt: clock.now,
        notAfter: null,
        labels: { a: "b" },
        namespace: "",
        name: "",
        approve: "manual",
        lastUsedBy: "",
        lastUsedAt: null,
      }]);
      const bad: Parameters<typeof makeToken>[0][] = [
        { uses: 0 },
        { uses: 1.5 },
        { ttlMs: 0 },
        { ttlMs: NaN },
        { name: "A B" },
        { name: "x", uses: 2 },
        { namespace: "A" },
        { labels: { "a b": "" } },
        { endpoints: ["nonsense"] },
      ];
      for (const options of bad) {
        await expect(makeToken(options), JSON.stringify(options)).rejects.toThrow(RangeError);
      }
      expect(hub.listTokens()).toHaveLength(1);
    });

    it("survive a restart with their uses", async () => {
      const token = await makeToken({ uses: 2 });
      await join(new Device(1), token);
      await restart();
      expect(hub.listTokens()[0]).toMatchObject({ used: 1, state: "valid", lastUsedAt: clock.now });
      await join(new Device(2), token);
      await restart();
      expect(codeOf(await tryJoin(new Device(3), token))).toBe("used-up");
    });
  });
}
