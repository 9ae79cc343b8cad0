/**
 * What `HubState` must do over any store. `reopen` gives the same store after a kill: nothing was closed in an orderly way before.
 */
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { makeSignatures } from "../../edge/hub/signatures.ts";
import { HubState, type JoinContext, type Subscription } from "../../edge/hub/state.ts";
import type { Store } from "../../edge/hub/store.ts";
import { makeSigner, verifyEd25519 } from "../../edge/sync/ed25519.ts";
import { decodeMsgpack } from "../../edge/sync/msgpack.ts";
import { encodeFrame } from "../../edge/hub/frames.ts";
import { toBase64, toHex } from "../../src/bytes/text.ts";
import {
  deviceMessageOf,
  type JoinAnswer,
  type JoinRequest,
  type JoinTranscript,
  proveJoin,
  recordMessageOf,
  transcriptOf,
} from "../../src/hub/join.ts";
import type { JoinRefusal } from "../../src/hub/refusal.ts";
import { type JoinToken, readToken } from "../../src/hub/token.ts";
import type { EntryValue, MemberRecord, MeshSettings, SignedRecord, StateFrame } from "../../src/mesh/entries.ts";
import type { Log } from "../../src/ports.ts";

export interface HubUnderTest {
  readonly name: string;
  open(): Promise<Store>;
  reopen(store: Store): Promise<Store>;
  readonly cleanUp?: () => Promise<void>;
}

const CA_PIN = new Uint8Array(32).fill(0xca);
const FROM: JoinContext = { remoteAddress: "198.51.100.7", remotePort: 40000 };
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const settings: MeshSettings = {
  cluster: { name: "edge1", id: 1 },
  routing: { mode: "tunnel", tunnelProtocol: "geneve", encryption: "wireguard" },
  policy: { enforcementMode: "default", defaultLocalCluster: true, allowLocalhost: "always" },
  memberCidrs: ["10.9.0.0/16", "fd09::/64"],
};
const recordSigner = makeSigner(new Uint8Array(32).fill(7));
const recordSecret = new Uint8Array([...new Uint8Array(32).fill(7), ...recordSigner.publicKey]);

/** A device: its keys, and what it asks for. */
class Device {
  readonly signer: ReturnType<typeof makeSigner>;
  publicKey: Uint8Array;
  wishes: Partial<JoinTranscript>;

  constructor(seed: number, wishes: Partial<JoinTranscript> = {}) {
    const bytes = new Uint8Array(32);
    new DataView(bytes.buffer).setUint32(0, seed);
    this.signer = makeSigner(bytes);
    this.publicKey = bytes.with(31, 1);
    this.wishes = wishes;
  }

  request(token: JoinToken, challenge: Uint8Array): JoinRequest {
    const asked: JoinTranscript = {
      challenge,
      tokenId: token.id,
      deviceKey: this.signer.publicKey,
      publicKey: this.publicKey,
      caPin: CA_PIN,
      name: "",
      namespace: "",
      labels: {},
      namedPorts: [],
      localAddress: "",
      listenPort: 51871,
      ...this.wishes,
    };
    const transcript = transcriptOf(asked);
    const proof = proveJoin(token.secret, transcript);
    return { ...asked, proof, signature: this.signer.sign(deviceMessageOf(transcript)) };
  }
}

/** What a member keeps of the frames that it gets. */
class Replica {
  readonly entries = new Map<string, EntryValue>();
  frames: StateFrame[] = [];
  epoch = "";
  revision = 0;
  gone: string | undefined;
  subscription: Subscription | undefined;

  connect(hub: HubState, name: string, isFresh = false): this {
    this.subscription?.();
    const resume = this.epoch === "" || isFresh ? undefined : { epoch: this.epoch, revision: this.revision };
    this.subscription = hub.subscribe(name, resume, (frame) => this.apply(frame), (why) => void (this.gone = why));
    return this;
  }

  apply(frame: StateFrame): void {
    // through the wire form, as a member gets it
    expect(decodeMsgpack(encodeFrame(frame))).toEqual(frame);
    this.frames.push(frame);
    expect(frame.revision).toBeGreaterThanOrEqual(frame.t === "delta" ? this.revision : 0);
    this.revision = frame.revision;
    if (frame.t === "snapshot") {
      this.epoch = frame.epoch;
      this.entries.clear();
      for (const [key, value] of frame.entries) this.entries.set(key, value);
      return;
    }
    for (const [key, value] of frame.puts) this.entries.set(key, value);
    for (const key of frame.deletes) this.entries.delete(key);
  }

  get keys(): string[] {
    return [...this.entries.keys()].sort();
  }

  record(name: string): MemberRecord {
    return recordOf(this.entries.get(`member/edge1/${name}`) as SignedRecord);
  }
}

function recordOf(signed: SignedRecord): MemberRecord {
  expect(verifyEd25519(recordSigner.publicKey, recordMessageOf(signed.record), signed.signature)).toBe(true);
  // of a copy: msgpackr leaves a property on what it reads
  return decodeMsgpack(signed.record.slice()) as MemberRecord;
}

const silent: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const app = (name: string) => ({ matchLabels: { app: name } });
const networkPolicy = (name: string, spec: unknown) => ({
  apiVersion: "networking.k8s.io/v1",
  kind: "NetworkPolicy",
  metadata: { name, namespace: "default" },
  spec,
});
const namespace = (name: string, labels: Record<string, string>) => ({
  apiVersion: "v1",
  kind: "Namespace",
  metadata: { name, labels },
});

export function hubStateSuite(subject: HubUnderTest): void {
  describe(`HubState over ${subject.name}`, () => {
    let store: Store;
    let hub: HubState;
    let now = 0;
    let chance = 0;
    const logged: unknown[] = [];
    const tasks: (() => void)[] = [];

    const openHub = (over: Partial<MeshSettings> = {}) =>
      HubState.open({
        store,
        settings: { ...settings, ...over },
        recordKey: { publicKey: recordSigner.publicKey, secretKey: recordSecret },
        ciphers: makeSignatures(),
        random: (into) => {
          for (let i = 0; i < into.length; i++) {
            into[i] = Math.imul(chance = (Math.imul(chance, 1103515245) + 12345) | 0, 1) >>> 16;
          }
        },
        now: () => now,
        log: {
          ...silent,
          info: (event, fields) => void logged.push(event, fields),
          warn: (event, fields) => void logged.push(event, fields),
        },
        schedule: (task) => {
          tasks.push(task);
          return () => void tasks.splice(tasks.indexOf(task), 1);
        },
      });

    beforeEach(async () => {
      now = 1_800_000_000_000;
      chance = 1;
      logged.length = 0;
      tasks.length = 0;
      store = await subject.open();
      hub = await openHub();
    });
    afterEach(async () => {
      hub.close();
      await store.close();
      await subject.cleanUp?.();
    });

    const restart = async (over: Partial<MeshSettings> = {}) => {
      store = await subject.reopen(store);
      hub = await openHub(over);
    };
    const makeToken = async (options: Partial<Parameters<HubState["createToken"]>[0]> = {}): Promise<JoinToken> => {
      const { token } = await hub.createToken({ endpoints: ["hub.example:7443"], caPin: CA_PIN, ...options });
      const read = readToken(token);
      if (!("token" in read)) throw new Error(read.fault.message);
      return read.token;
    };
    const send = (request: JoinRequest, from = FROM) => hub.join(request, from);
    const tryJoin = (device: Device, token: JoinToken, from = FROM) =>
      send(device.request(token, hub.challenge()), from);
    const join = async (device: Device, token: JoinToken): Promise<JoinAnswer> => {
      const outcome = await tryJoin(device, token);
      if (!("status" in outcome)) throw new Error(`${outcome.code}: ${outcome.message}`);
      return outcome;
    };
    const codeOf = (outcome: JoinAnswer | JoinRefusal) => "code" in outcome ? outcome.code : outcome.status;
    const admit = async (seed: number, labels: Record<string, string> = {}, wishes: Partial<JoinTranscript> = {}) =>
      await join(new Device(seed, { labels, name: `m${seed}`, ...wishes }), await makeToken());
    const text = async (key: string) => new TextDecoder().decode((await store.get(key))?.value);

    describe("join", () => {
      it("admits a device, signs its record, and publishes it in Cilium's key space", async () => {
        const device = new Device(1, { name: "pi-7", labels: { app: "web" }, localAddress: "192.168.1.20" });
        const answer = await join(device, await makeToken({ labels: { site: "lyon" }, namespace: "edge" }));
        expect(answer).toMatchObject({
          status: "joined",
          epoch: store.epoch,
          unixMs: now,
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
          notBefore: now - 24 * HOUR,
          notAfter: now + 30 * 24 * HOUR,
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
        now += HOUR + 1000;
        expect(await tryJoin(new Device(3), late)).toMatchObject({ code: "expired" });
        const revoked = await makeToken();
        expect(await hub.revokeToken(toHex(revoked.id))).toBe(true);
        expect(await hub.revokeToken("0000000000000000")).toBe(false);
        expect(await tryJoin(new Device(4), revoked)).toMatchObject({ code: "revoked" });
        now -= 2 * HOUR;
        const early = await makeToken();
        now -= HOUR;
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
        now += 3 * MINUTE;
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
        now += 15 * MINUTE;
        const again = await join(device, token);
        expect(again).toEqual({ ...first, unixMs: now });
        now += 1;
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
        expect(await join(new Device(1), token)).toEqual({ ...first, unixMs: now });
      });

      it("lets a known device join again with another token, as the same member", async () => {
        const device = new Device(1, { name: "pi-1", labels: { app: "web" } });
        const first = await join(device, await makeToken());
        now += HOUR;
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
        hub.close();
        await store.close();
        store = await subject.open();
        hub = await openHub({ memberCidrs: ["10.9.0.0/30"] });
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
        now += 6000;
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
          createdAt: now,
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
        expect(hub.listTokens()[0]).toMatchObject({ used: 1, state: "valid", lastUsedAt: now });
        await join(new Device(2), token);
        await restart();
        expect(codeOf(await tryJoin(new Device(3), token))).toBe("used-up");
      });
    });

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
        now += 1;
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
        now += HOUR;
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
        now += 59_000;
        await hub.tick();
        expect(await text("cilium/.heartbeat")).toBe(first);
        now += 1000;
        await hub.tick();
        expect(await text("cilium/.heartbeat")).toBe(new Date(now).toISOString());
        const before = hub.members()[0]!.record;
        now += 16 * 24 * HOUR;
        await hub.tick();
        const after = hub.members()[0]!.record;
        expect(recordOf(after).notAfter).toBe(now + 30 * 24 * HOUR);
        expect(recordOf(before).notAfter).toBeLessThan(recordOf(after).notAfter);
        await hub.removeMember("m1");
        for (let i = 0; i < 3; i++) {
          now += 16 * 24 * HOUR;
          await hub.tick();
        }
        expect(hub.listTokens()).toEqual([]);
        expect((await store.list("cilium/state/identities/")).entries).toEqual([]);
        expect((await store.list("edgemesh/released/")).entries).toEqual([]);
      });
    });

    describe("policies and namespaces", () => {
      const closed = networkPolicy("closed", {
        podSelector: app("web"),
        ingress: [{ from: [{ podSelector: app("client") }] }],
      });

      it("are stored all together, given back as they were, and deleted", async () => {
        const result = await hub.apply([closed, namespace("prod", { team: "core" })]);
        expect(result).toEqual({
          applied: [
            { kind: "NetworkPolicy", namespace: "default", name: "closed", action: "created" },
            { kind: "Namespace", namespace: "", name: "prod", action: "created" },
          ],
          revision: store.revision,
        });
        await restart();
        expect(hub.get()).toEqual([namespace("prod", { team: "core" }), closed]);
        expect(hub.get("NetworkPolicy")).toEqual([closed]);
        expect(hub.get("NetworkPolicy", "other")).toEqual([]);
        const again = await hub.apply([{ kind: "List", apiVersion: "v1", items: [closed] }]);
        expect(again).toMatchObject({ applied: [{ action: "unchanged" }] });
        expect(await hub.delete("NetworkPolicy", "default", "closed")).toBe(true);
        expect(await hub.delete("NetworkPolicy", "default", "closed")).toBe(false);
        expect(await hub.delete("Namespace", "", "prod")).toBe(true);
        expect(hub.get()).toEqual([]);
      });

      it("with one fault none is stored, and each fault is named", async () => {
        const bad = networkPolicy("bad", { podSelector: {}, ingres: [] });
        const result = await hub.apply([closed, bad, { kind: "Pod" }, 7, namespace("BAD", {})]);
        if (!("errors" in result)) throw new Error("stored");
        expect(result.errors.map((e) => e.index)).toEqual(expect.arrayContaining([1, 2, 3, 4]));
        expect(result.errors[0]).toMatchObject({
          object: "NetworkPolicy default/bad",
          message: expect.stringContaining("ingres"),
        });
        expect(hub.get()).toEqual([]);
        expect(await hub.apply([closed, closed])).toMatchObject({
          errors: [{ index: 1, message: "it is there twice" }],
        });
      });

      it("a dry run says what would happen and does nothing", async () => {
        const revision = store.revision;
        expect(await hub.apply([closed], true)).toMatchObject({ applied: [{ action: "created" }] });
        expect(store.revision).toBe(revision);
      });

      it("no document makes apply throw", async () => {
        await fc.assert(
          fc.asyncProperty(fc.array(fc.anything(), { maxLength: 3 }), async (documents) => {
            await hub.apply(documents, true);
          }),
          { numRuns: 60 },
        );
      });

      it("a namespace's labels are in the identity of its members, also after a change", async () => {
        await admit(1, { app: "web" }, { namespace: "prod" });
        await admit(2, { app: "web" }, { namespace: "prod" });
        await admit(3, { app: "web" });
        const replica = new Replica().connect(hub, "m3");
        const before = replica.record("m1").identity;
        await hub.apply([namespace("prod", { team: "core" })]);
        hub.flush();
        const after = replica.record("m1").identity;
        expect(after).not.toBe(before);
        expect(replica.record("m2").identity).toBe(after);
        expect(replica.entries.get(`identity/${after}`)).toMatchObject({
          labels: { "k8s:io.cilium.k8s.namespace.labels.team": "core" },
        });
        expect(replica.entries.has(`identity/${before}`)).toBe(false);
        expect(replica.entries.get("namespace/prod")).toEqual({ labels: { team: "core" } });
        expect(JSON.parse(await text("cilium/state/ip/v1/default/10.9.0.2")).ID).toBe(after);
        await hub.delete("Namespace", "", "prod");
        expect(recordOf(hub.members()[0]!.record).identity).toBe(before);
      });
    });

    describe("CIDR groups and services", () => {
      const group = (name: string, ...externalCIDRs: string[]) => ({
        apiVersion: "cilium.io/v2",
        kind: "CiliumCIDRGroup",
        metadata: { name, labels: { site: "lyon" } },
        spec: { externalCIDRs },
      });
      const service = (name: string, spec: object = {}) => ({
        apiVersion: "v1",
        kind: "Service",
        metadata: { name, namespace: "shop", labels: { tier: "data" } },
        spec,
      });
      const slice = (name: string, of: string, ...addresses: string[]) => ({
        apiVersion: "discovery.k8s.io/v1",
        kind: "EndpointSlice",
        metadata: { name, namespace: "shop", labels: { "kubernetes.io/service-name": of } },
        addressType: "IPv4",
        endpoints: addresses.map((address) => ({ addresses: [address] })),
      });

      it("go to every member, a service with the addresses of all its slices", async () => {
        await admit(1);
        hub.flush();
        const replica = new Replica().connect(hub, "m1");
        const office = group("office", "192.0.2.0/24");
        await hub.apply([slice("db-1", "db", "198.51.100.7"), office]);
        hub.flush();
        expect(replica.entries.get("cidrgroup/office")).toEqual(office);
        expect(replica.entries.has("service/shop/db")).toBe(false); // no Service yet
        await hub.apply([service("db"), slice("db-2", "db", "198.51.100.8")]);
        hub.flush();
        expect(replica.entries.get("service/shop/db")).toEqual({
          labels: { tier: "data" },
          addresses: ["198.51.100.7", "198.51.100.8"],
        });
        await restart();
        expect(new Replica().connect(hub, "m1").keys).toEqual(replica.keys);
        replica.connect(hub, "m1");
        expect(hub.get("Service")).toEqual([service("db")]);
        expect(hub.get("EndpointSlice", "shop")).toHaveLength(2);
        expect(hub.get("CiliumCIDRGroup")).toEqual([office]);
        // a slice moves to another service
        await hub.apply([slice("db-2", "cache", "198.51.100.8"), service("cache", { selector: { app: "cache" } })]);
        hub.flush();
        expect(replica.entries.get("service/shop/db")).toMatchObject({ addresses: ["198.51.100.7"] });
        expect(replica.entries.get("service/shop/cache")).toEqual({
          labels: { tier: "data" },
          selector: { app: "cache" },
          addresses: [],
        });
        expect(await hub.delete("Service", "shop", "db")).toBe(true);
        expect(await hub.delete("CiliumCIDRGroup", "", "office")).toBe(true);
        expect(await hub.delete("CiliumCIDRGroup", "", "office")).toBe(false);
        expect(await hub.delete("EndpointSlice", "shop", "db-1")).toBe(true);
        hub.flush();
        expect(replica.keys.filter((key) => /^(service|cidrgroup)/.test(key))).toEqual(["service/shop/cache"]);
        expect(replica.keys).toEqual(new Replica().connect(hub, "m1").keys);
      });

      it("are refused with their faults, and when one service has more addresses than members take", async () => {
        const result = await hub.apply([
          group("bad", "192.0.2.0/33"),
          service("web", { type: "ExternalName" }),
          { ...slice("x", "db"), addressType: "FQDN" },
        ]);
        if (!("errors" in result)) throw new Error("stored");
        expect(result.errors.map(({ index, object }) => [index, object])).toEqual([
          [0, "CiliumCIDRGroup bad"],
          [1, "Service shop/web"],
          [2, "EndpointSlice shop/x"],
        ]);
        const many = [0, 1, 2, 3, 4].map((n) =>
          slice(`s${n}`, "db", ...Array.from({ length: 900 }, (_, i) => `10.${n}.${i >> 8}.${i & 255}`))
        );
        expect(await hub.apply([service("db"), ...many])).toMatchObject({
          errors: [{ message: "service shop/db would have 4500 addresses, more than 4096" }],
        });
        expect(hub.get()).toEqual([]);
      });

      it("tell in a dry run what members would be sent", async () => {
        await hub.apply([service("db"), slice("db-1", "db", "198.51.100.7")]);
        const policy = networkPolicy("p", { podSelector: {} });
        const more = slice("db-2", "db", "198.51.100.8");
        const result = await hub.apply([policy, more, service("db"), group("office", "192.0.2.0/24")], true);
        expect(result).toMatchObject({
          puts: [
            ["policy/NetworkPolicy/default/p", policy],
            ["cidrgroup/office", { kind: "CiliumCIDRGroup" }],
            ["service/shop/db", { addresses: ["198.51.100.7", "198.51.100.8"] }],
          ],
        });
        expect(hub.get("NetworkPolicy")).toEqual([]);
      });

      it("tell what members would be sent, were they deleted", async () => {
        const policy = networkPolicy("p", { podSelector: {} });
        const slices = [slice("db-1", "db", "198.51.100.7"), slice("db-2", "db", "198.51.100.8")];
        await hub.apply([service("db"), ...slices, policy, group("office", "192.0.2.0/24"), namespace("prod", {})]);
        const named = (kind: string, namespace: string, name: string) => ({ kind, namespace, name });
        const db2 = named("EndpointSlice", "shop", "db-2");
        expect(hub.previewDelete([db2, named("Service", "shop", "gone"), named("Namespace", "", "prod")])).toEqual({
          missing: [named("Service", "shop", "gone")],
          puts: [["service/shop/db", { labels: { tier: "data" }, addresses: ["198.51.100.7"] }]],
          deletes: [],
        });
        const all = [
          db2,
          named("Service", "shop", "db"),
          named("NetworkPolicy", "default", "p"),
          named("CiliumCIDRGroup", "", "office"),
        ];
        expect(hub.previewDelete(all)).toEqual({
          missing: [],
          puts: [],
          deletes: ["service/shop/db", "policy/NetworkPolicy/default/p", "cidrgroup/office"],
        });
        expect(hub.get()).toHaveLength(6);
      });
    });

    describe("policies that depend on settings", () => {
      const host = {
        apiVersion: "cilium.io/v2",
        kind: "CiliumClusterwideNetworkPolicy",
        metadata: { name: "host" },
        spec: { nodeSelector: {}, ingress: [{ fromEntities: ["cluster"] }] },
      };

      it("for hosts are refused by name while the host firewall is off", async () => {
        const result = await hub.apply([host]);
        expect(result).toMatchObject({
          errors: [{
            object: "CiliumClusterwideNetworkPolicy host",
            message: expect.stringContaining("--enable-host-firewall"),
          }],
        });
        await restart({ policy: { ...settings.policy, hostFirewall: true } });
        expect(await hub.apply([host])).toMatchObject({ applied: [{ action: "created" }] });
      });

      it("must have regular expressions that can be read", async () => {
        const http = (path: string) => ({
          apiVersion: "cilium.io/v2",
          kind: "CiliumNetworkPolicy",
          metadata: { name: "web", namespace: "shop" },
          spec: {
            endpointSelector: {},
            ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules: { http: [{ path }] } }] }],
          },
        });
        expect(await hub.apply([http("/a(")])).toMatchObject({ errors: [{ object: "CiliumNetworkPolicy shop/web" }] });
        expect(await hub.apply([http("/a.*")])).toMatchObject({ applied: [{ action: "created" }] });
      });

      it("changed settings reach members that resume", async () => {
        await admit(1);
        hub.flush();
        const replica = new Replica().connect(hub, "m1");
        replica.subscription!();
        const policy = { ...settings.policy, enforcementMode: "always" as const, auditMode: true };
        await restart({ policy });
        replica.connect(hub, "m1");
        expect(replica.entries.get("settings")).toMatchObject({ policy });
      });
    });

    describe("what members are sent", () => {
      const both = (name: string, to: string, from: string) =>
        networkPolicy(name, {
          podSelector: app(to),
          policyTypes: ["Ingress", "Egress"],
          ingress: [{ from: [{ podSelector: app(from) }] }],
        });

      it("starts with a snapshot of the settings, all members and their identities", async () => {
        await hub.putHubMember(hubFacts());
        await admit(1, { app: "web" });
        await admit(2, { app: "web" });
        hub.flush();
        const replica = new Replica().connect(hub, "m1");
        expect(replica.frames.map((f) => f.t)).toEqual(["snapshot"]);
        expect(replica.keys).toEqual([
          "identity/65792",
          "identity/65793",
          "member/edge1/hub",
          "member/edge1/m1",
          "member/edge1/m2",
          "settings",
        ]);
        expect(replica.entries.get("settings")).toEqual(settings);
        expect(replica.record("m2").addresses).toEqual(["10.9.0.3", "fd09::3"]);
      });

      it("goes on with deltas, one for all changes of a batch, the same object for everybody", async () => {
        await admit(1);
        await admit(2);
        const [a, b] = [new Replica().connect(hub, "m1"), new Replica().connect(hub, "m2")];
        hub.flush();
        const start = a.frames.length;
        await admit(3, { app: "new" });
        await admit(4, { app: "new" });
        expect(a.frames.length).toBe(start);
        expect(tasks.length).toBe(1);
        tasks[0]!();
        expect(a.frames.length).toBe(start + 1);
        expect(a.frames.at(-1)).toBe(b.frames.at(-1));
        expect(a.keys).toEqual(new Replica().connect(hub, "m1").keys);
        expect(tasks.length).toBe(0);
      });

      it("holds back members that it may not talk to, and policies that do not select it", async () => {
        await hub.putHubMember(hubFacts());
        await admit(1, { app: "web" });
        await admit(2, { app: "client" });
        await admit(3, { app: "other" });
        await admit(4, { app: "web" });
        const replicas = [1, 2, 3, 4].map((i) => new Replica().connect(hub, `m${i}`));
        await hub.apply([both("p", "web", "client")]);
        hub.flush();
        const peers = (r: Replica) =>
          r.keys.filter((k) => k.startsWith("member/")).map((k) => k.slice("member/edge1/".length));
        expect(replicas.map(peers)).toEqual([
          ["hub", "m1", "m2"],
          ["hub", "m1", "m2", "m3", "m4"],
          ["hub", "m2", "m3"],
          ["hub", "m2", "m4"],
        ]);
        const policies = (r: Replica) => r.keys.filter((k) => k.startsWith("policy/"));
        expect(replicas.map(policies)).toEqual([
          ["policy/NetworkPolicy/default/p"],
          [],
          [],
          ["policy/NetworkPolicy/default/p"],
        ]);
        expect(replicas[2]!.keys.filter((k) => k.startsWith("identity/"))).toEqual(
          [replicas[0]!.record("hub").identity, replicas[1]!.record("m2").identity, replicas[2]!.record("m3").identity]
            .sort().map((id) => `identity/${id}`),
        );
        const hubReplica = new Replica().connect(hub, "hub");
        expect(peers(hubReplica)).toEqual(["hub", "m1", "m2", "m3", "m4"]);
        await hub.noteConnection("m4", { endpoints: ["192.0.2.4:51871"], localAddress: "" });
        hub.flush();
        expect(replicas[0]!.frames.at(-1)).toMatchObject({
          puts: expect.not.arrayContaining([["member/edge1/m4", {}]]),
        });
        expect(replicas[3]!.record("m4").endpoints).toEqual(["192.0.2.4:51871"]);
        await hub.delete("NetworkPolicy", "default", "p");
        hub.flush();
        for (const replica of replicas) expect(peers(replica)).toEqual(["hub", "m1", "m2", "m3", "m4"]);
      });

      it("a changed policy goes to those that it selects, and to nobody else", async () => {
        await admit(1, { app: "web" });
        await admit(2, { app: "other" });
        await hub.apply([networkPolicy("p", { podSelector: app("web"), ingress: [{ ports: [{ port: 80 }] }] })]);
        hub.flush();
        const [web, other] = [new Replica().connect(hub, "m1"), new Replica().connect(hub, "m2")];
        const changed = networkPolicy("p", { podSelector: app("web"), ingress: [{ ports: [{ port: 81 }] }] });
        await hub.apply([changed]);
        hub.flush();
        expect(web.frames.at(-1)).toEqual({
          t: "delta",
          revision: hub.revision,
          puts: [["policy/NetworkPolicy/default/p", changed]],
          deletes: [],
        });
        expect(other.frames).toHaveLength(1);
      });

      it("resumes from a revision with a delta, after a restart of the hub too", async () => {
        await admit(1);
        await admit(2);
        hub.flush();
        const replica = new Replica().connect(hub, "m1");
        replica.subscription!();
        await admit(3);
        await hub.removeMember("m2");
        replica.connect(hub, "m1");
        expect(replica.frames.at(-1)).toMatchObject({ t: "delta", deletes: ["member/edge1/m2"] });
        expect(replica.keys).toEqual(new Replica().connect(hub, "m1").keys);
        now += MINUTE;
        await hub.tick();
        await restart();
        replica.connect(hub, "m1");
        expect(replica.frames.at(-1)).toMatchObject({ t: "delta", puts: [], deletes: [] });
        await admit(4);
        hub.flush();
        expect(replica.keys).toEqual(new Replica().connect(hub, "m1").keys);
      });

      it("answers a point of another history, of the future, or from before a restart with a snapshot", async () => {
        await admit(1);
        hub.flush();
        const old = hub.revision;
        const first = (resume: { epoch: string; revision: number }) => {
          const frames: StateFrame[] = [];
          hub.subscribe("m1", resume, (frame) => void frames.push(frame))();
          return frames[0]!.t;
        };
        expect(first({ epoch: store.epoch, revision: old })).toBe("delta");
        expect(first({ epoch: "other", revision: old })).toBe("snapshot");
        expect(first({ epoch: store.epoch, revision: old + 1000 })).toBe("snapshot");
        expect(first({ epoch: store.epoch, revision: 0 })).toBe("snapshot");
        await admit(2);
        await restart();
        expect(first({ epoch: store.epoch, revision: old })).toBe("snapshot");
      });

      it("sends nothing while paused, and one frame for all of it afterwards", async () => {
        await admit(1);
        const replica = new Replica().connect(hub, "m1");
        replica.subscription!.pause();
        const count = replica.frames.length;
        for (let i = 2; i < 6; i++) {
          await admit(i);
          hub.flush();
        }
        expect(replica.frames).toHaveLength(count);
        replica.subscription!.resume();
        expect(replica.frames).toHaveLength(count + 1);
        expect(replica.frames.at(-1)!.t).toBe("delta");
        expect(replica.keys).toEqual(new Replica().connect(hub, "m1").keys);
      });

      it("tells who is revoked or removed that it is gone, and its peers at once", async () => {
        for (let i = 1; i <= 3; i++) await admit(i);
        const replicas = [1, 2, 3].map((i) => new Replica().connect(hub, `m${i}`));
        hub.flush();
        await hub.revokeMember("m1");
        await hub.removeMember("m2");
        expect(replicas.map((r) => r.gone)).toEqual(["revoked", "removed", undefined]);
        expect(replicas[2]!.keys.filter((k) => k.startsWith("member/"))).toEqual(["member/edge1/m3"]);
        const count = replicas[0]!.frames.length;
        await admit(4);
        hub.flush();
        expect(replicas[0]!.frames).toHaveLength(count);
      });

      it("is, after any changes and interruptions, what a fresh snapshot says", async () => {
        const apps = ["a", "b", "c"];
        const step = fc.oneof(
          fc.record({ do: fc.constant("join"), app: fc.constantFrom(...apps) }),
          fc.record({ do: fc.constantFrom("remove", "revoke", "note", "reconnect", "pause", "resume"), at: fc.nat(9) }),
          fc.record({
            do: fc.constant("policy"),
            name: fc.nat(2),
            to: fc.constantFrom(...apps),
            from: fc.constantFrom(...apps),
          }),
          fc.record({ do: fc.constant("unpolicy"), name: fc.nat(2) }),
          fc.record({ do: fc.constant("namespace"), team: fc.nat(2) }),
          fc.record({ do: fc.constantFrom("flush", "kill") }),
        );
        await fc.assert(
          // deno-lint-ignore no-explicit-any -- steps of different shapes
          fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps: any[]) => {
            hub.close();
            await store.close();
            store = await subject.open();
            hub = await openHub();
            const replicas = new Map<string, Replica>();
            const paused = new Set<string>();
            const token = await makeToken({ uses: Infinity });
            let seed = 0;
            const connect = (name: string) => {
              const replica = replicas.get(name) ?? new Replica();
              replicas.set(name, replica.connect(hub, name));
              paused.delete(name);
            };
            const nameAt = (at: number) => [...replicas.keys()][at % Math.max(1, replicas.size)] ?? "";
            for (const s of steps) {
              const name = "at" in s ? nameAt(s.at) : "";
              if (s.do === "join") {
                const answer = await join(new Device(++seed, { labels: { app: s.app } }), token);
                connect(answer.name);
              } else if ((s.do === "remove" || s.do === "revoke") && name !== "") {
                await (s.do === "remove" ? hub.removeMember(name) : hub.revokeMember(name));
                expect(replicas.get(name)!.gone).toBe(s.do === "remove" ? "removed" : "revoked");
                replicas.delete(name);
              } else if (s.do === "note" && name !== "") {
                await hub.noteConnection(name, { endpoints: [`192.0.2.1:${++seed}`], localAddress: "" });
              } else if (s.do === "reconnect" && name !== "") connect(name);
              else if (s.do === "pause" && name !== "") {
                replicas.get(name)!.subscription!.pause();
                paused.add(name);
              } else if (s.do === "resume" && name !== "") {
                replicas.get(name)!.subscription!.resume();
                paused.delete(name);
              } else if (s.do === "policy") await hub.apply([both(`p${s.name}`, s.to, s.from)]);
              else if (s.do === "unpolicy") await hub.delete("NetworkPolicy", "default", `p${s.name}`);
              else if (s.do === "namespace") await hub.apply([namespace("default", { team: `t${s.team}` })]);
              else if (s.do === "flush") hub.flush();
              else if (s.do === "kill") {
                await restart();
                for (const known of replicas.keys()) connect(known);
              }
            }
            hub.flush();
            for (const [name, replica] of replicas) {
              if (paused.has(name)) replica.subscription!.resume();
              const fresh = new Replica().connect(hub, name);
              expect(Object.fromEntries(replica.entries)).toEqual(Object.fromEntries(fresh.entries));
              expect(replica.entries.has(`member/edge1/${name}`)).toBe(true);
            }
          }),
          { numRuns: 60 },
        );
      }, 120_000);

      it("numbers classes anew when most are gone, and members stay right", async () => {
        const token = await makeToken({ uses: Infinity });
        await join(new Device(1, { name: "m1", labels: { app: "web" } }), token);
        await hub.apply([both("p", "web", "client")]);
        hub.flush();
        const replica = new Replica().connect(hub, "m1");
        for (let i = 0; i < 90; i++) {
          await join(new Device(100 + i, { name: "x", labels: { app: "client", number: String(i) } }), token);
          hub.flush();
          expect(replica.record("x").labels["number"]).toBe(String(i));
          await hub.removeMember("x");
        }
        await join(new Device(2, { name: "m2", labels: { app: "client" } }), token);
        await join(new Device(3, { name: "m3", labels: { app: "other" } }), token);
        hub.flush();
        expect(replica.keys.filter((k) => k.startsWith("member/"))).toEqual(["member/edge1/m1", "member/edge1/m2"]);
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
  });
}

function hubFacts() {
  return {
    name: "hub",
    deviceKey: new Uint8Array(32).fill(1),
    publicKey: new Uint8Array(32).fill(2),
    underlay: "203.0.113.1",
    endpoints: ["203.0.113.1:51871"],
    namespace: "default",
    labels: { role: "hub" },
    namedPorts: [],
  };
}
