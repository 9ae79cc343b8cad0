import { randomBytes } from "node:crypto";
import { createServer, type TLSSocket } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HubClient, type HubClientOptions } from "../../../edge/sync/client.ts";
import { TrustedClock } from "../../../edge/sync/clock.ts";
import { makeSigner } from "../../../edge/sync/ed25519.ts";
import { encodeFrame } from "../../../edge/sync/frames.ts";
import { joinHub } from "../../../edge/sync/join_client.ts";
import { timeMessageOf } from "../../../edge/sync/messages.ts";
import type { SourceStatus, StateSink } from "../../../edge/sync/source.ts";
import { decodeMsgpack } from "../../../edge/sync/msgpack.ts";
import type { MemberRecord, SignedRecord, StateFrame } from "../../../src/mesh/entries.ts";
import { makeLog, type Relay, startRelay, startTestHub, type TestHub } from "../../support/hub.ts";

const POLICY = {
  apiVersion: "cilium.io/v2",
  kind: "CiliumNetworkPolicy",
  metadata: { name: "web", namespace: "default" },
  spec: { endpointSelector: {}, ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }] }] }] },
};
const POLICY_KEY = "policy/CiliumNetworkPolicy/default/web";

/** Keeps what a source says, and lets a test wait for it. */
class TestSink implements StateSink {
  readonly frames: StateFrame[] = [];
  readonly statuses: SourceStatus[] = [];
  position: { epoch: string; revision: number } | undefined;
  #wake: () => void = () => {};

  apply(frame: StateFrame): void {
    this.frames.push(frame);
    this.position = { epoch: frame.t === "snapshot" ? frame.epoch : this.position!.epoch, revision: frame.revision };
    this.#wake();
  }

  status(status: SourceStatus): void {
    this.statuses.push({ ...status });
    this.#wake();
  }

  resume() {
    return this.position;
  }

  async until(isThere: () => boolean): Promise<void> {
    while (!isThere()) await new Promise<void>((resolve) => this.#wake = resolve);
  }

  isState(state: SourceStatus["state"]): () => boolean {
    return () => this.statuses.at(-1)?.state === state;
  }
}

let hub: TestHub;
let relay: Relay;
let clients: HubClient[];
const lines: string[] = [];

beforeEach(async () => {
  hub = await startTestHub();
  relay = await startRelay(hub.server.port);
  clients = [];
});
afterEach(async () => {
  await Promise.all(clients.map((client) => client.stop()));
  await relay.close();
  await hub.close();
});

async function joined(name: string, clock?: TrustedClock) {
  const { token } = await hub.admin.createToken({});
  const deviceSecretKey = new Uint8Array(randomBytes(32));
  const { answer, caPem } = await joinHub(token, {
    deviceSecretKey,
    wireguardPublicKey: new Uint8Array(randomBytes(32)),
    wireguardPort: 51871,
    name,
  });
  return startClient({ deviceSecretKey, caPem, recordKey: answer.recordKey }, clock);
}

function startClient(
  options: Pick<HubClientOptions, "deviceSecretKey" | "caPem" | "recordKey">,
  clock = new TrustedClock(),
) {
  const sink = new TestSink();
  const client = new HubClient({
    endpoints: [relay.endpoint],
    report: () => ({ endpoints: [], wireguardPort: 51871, version: "test" }),
    clock,
    log: makeLog(lines),
    firstPauseMs: 5,
    longestPauseMs: 20,
    ...options,
  });
  clients.push(client);
  client.start(sink);
  return { client, sink, clock };
}

function keysOf(frame: StateFrame): readonly string[] {
  return (frame.t === "snapshot" ? frame.entries : frame.puts).map(([key]) => key);
}

describe("HubClient", () => {
  it("gets a snapshot with its own record, then deltas, and tells the hub what it has applied", async () => {
    const { sink } = await joined("pi-1");
    await sink.until(sink.isState("synced"));
    const first = sink.frames[0]!;
    expect(first.t).toBe("snapshot");
    expect(keysOf(first)).toEqual(expect.arrayContaining(["settings", "member/lab/pi-1"]));
    const { revision } = await hub.admin.apply([POLICY]);
    await sink.until(() => sink.frames.some((frame) => frame.t === "delta" && keysOf(frame).includes(POLICY_KEY)));
    await expect.poll(async () => (await hub.admin.members())[0]!.connection?.appliedRevision).toBe(revision);
  });

  it("comes back by itself and goes on with a delta from where it was", async () => {
    const { sink } = await joined("pi-1");
    await sink.until(sink.isState("synced"));
    // a change that has arrived says that all before it has: what joining itself changed may come behind the first snapshot
    await hub.admin.apply([{ ...POLICY, metadata: { ...POLICY.metadata, name: "first" } }]);
    await sink.until(() => sink.frames.some((frame) => keysOf(frame).some((key) => key.endsWith("/first"))));
    relay.isDown = true;
    relay.cut();
    await sink.until(sink.isState("offline"));
    await hub.admin.apply([POLICY]);
    const before = sink.frames.length;
    relay.isDown = false;
    await sink.until(() => sink.frames.some((frame) => keysOf(frame).includes(POLICY_KEY)));
    // an empty delta may come first: the hub collects changes for a moment
    const resumed = sink.frames.slice(before);
    expect(resumed.every(({ t }) => t === "delta")).toBe(true);
    expect(resumed.flatMap(keysOf)).toEqual([POLICY_KEY]);
  });

  it("says what it seals with, now and after the connection was lost, and the hub signs it", async () => {
    const { client, sink } = await joined("pi-1");
    const other = await joined("pi-2");
    await sink.until(sink.isState("synced"));
    const aeadsOf = (entry: unknown) => (decodeMsgpack((entry as SignedRecord).record) as MemberRecord).aeads;
    const seen = () =>
      other.sink.frames.flatMap((frame) => frame.t === "snapshot" ? frame.entries : frame.puts)
        .filter(([key]) => key === "member/lab/pi-1").map(([, entry]) => aeadsOf(entry)).at(-1);
    client.announce(["aegis128l", "aes256gcm"]);
    // the hub applies a second report five seconds after the first: it is told that they are over
    await expect.poll(() => (hub.server.sync.tick(performance.now() + 5_000), seen()), { interval: 5 })
      .toEqual(["aegis128l", "aes256gcm"]);
    relay.isDown = true;
    relay.cut();
    await sink.until(sink.isState("offline"));
    client.announce(["aes256gcm"]); // nobody is there to hear it
    relay.isDown = false;
    await other.sink.until(() => seen()?.length === 1);
    expect(seen()).toEqual(["aes256gcm"]);
  });

  it("gets a snapshot when its history is another one", async () => {
    const { sink } = await joined("pi-1");
    await sink.until(sink.isState("synced"));
    relay.isDown = true;
    relay.cut();
    await sink.until(sink.isState("offline"));
    sink.position = { epoch: "a hub that is gone", revision: 1_000_000 };
    const before = sink.frames.length;
    relay.isDown = false;
    await sink.until(sink.isState("synced"));
    expect(sink.frames[before]).toMatchObject({ t: "snapshot", epoch: "test-epoch" });
  });

  it("is cut off when it is revoked, says so, and stays away", async () => {
    const { sink } = await joined("pi-1");
    const other = await joined("pi-2");
    await sink.until(sink.isState("synced"));
    await other.sink.until(() => other.sink.frames.some((frame) => keysOf(frame).includes("member/lab/pi-1")));
    await hub.admin.revokeMember("pi-1");
    await sink.until(sink.isState("refused"));
    expect(sink.statuses.at(-1)!.detail).toMatch(/^revoked: /);
    const isGone = (frame: StateFrame) => frame.t === "delta" && frame.deletes.includes("member/lab/pi-1");
    await other.sink.until(() => other.sink.frames.some(isGone));
    const before = relay.connections;
    await hub.admin.apply([POLICY]);
    await other.sink.until(() => other.sink.frames.some((frame) => keysOf(frame).includes(POLICY_KEY)));
    expect(relay.connections).toBe(before);
    expect(sink.frames.some((frame) => keysOf(frame).includes(POLICY_KEY))).toBe(false);
  });

  it("waits for approval and is let in when it comes", async () => {
    const { token } = await hub.admin.createToken({ approve: "manual" });
    const deviceSecretKey = new Uint8Array(randomBytes(32));
    const { answer, caPem } = await joinHub(token, {
      deviceSecretKey,
      wireguardPublicKey: new Uint8Array(randomBytes(32)),
      wireguardPort: 51871,
      name: "pi-3",
    });
    const { sink } = startClient({ deviceSecretKey, caPem, recordKey: answer.recordKey });
    await sink.until(() => sink.statuses.some(({ state, detail }) => state === "offline" && /pending/.test(detail!)));
    expect(sink.frames).toEqual([]);
    await hub.admin.approveMember("pi-3");
    await sink.until(sink.isState("synced"));
  });

  it("learns the hub's time, so that a clock that stands at 1970 is no trouble", async () => {
    const { sink, clock } = await joined("pi-1", new TrustedClock([], () => 1000));
    await sink.until(sink.isState("synced"));
    expect(Math.abs(clock.now() - hub.clock.unixMs)).toBeLessThan(60_000);
  });

  it("says nothing more once it was stopped, synced or while it waits", async () => {
    const { client, sink } = await joined("pi-1");
    await sink.until(sink.isState("synced"));
    relay.isDown = true;
    const waiting = startClient({
      deviceSecretKey: new Uint8Array(32),
      caPem: hub.keys.caPem,
      recordKey: hub.keys.signer.publicKey,
    });
    await waiting.sink.until(waiting.sink.isState("offline"));
    await Promise.all([client.stop(), waiting.client.stop()]);
    const counts = [sink.statuses.length, sink.frames.length, waiting.sink.statuses.length, relay.connections];
    await hub.admin.apply([POLICY]);
    expect([sink.statuses.length, sink.frames.length, waiting.sink.statuses.length, relay.connections]).toEqual(counts);
    await expect.poll(() => hub.server.sync.connected).toBe(0);
  });

  it("closes the connection at a hub that sends nonsense, or time that is not the hub's, and tries again", async () => {
    const { deviceSecretKey, recordKey } = {
      deviceSecretKey: new Uint8Array(32),
      recordKey: hub.keys.signer.publicKey,
    };
    const challenge = new Uint8Array(32);
    const stranger = makeSigner(new Uint8Array(32).fill(9));
    const hello = (sign: (message: Uint8Array) => Uint8Array) =>
      encodeFrame({
        t: "hello",
        version: 1,
        challenge,
        cluster: "lab",
        unixMs: 5,
        signature: sign(timeMessageOf(challenge, 5)),
      });
    const good = hello((message) => hub.keys.signer.sign(message));
    const nonsense = [
      new Uint8Array([0xff, 0xff, 0xff, 0xff]),
      hello((message) => stranger.sign(message)),
      encodeFrame({ t: "snapshot", epoch: "e", revision: 1, entries: [] }), // before any welcome
      new Uint8Array([...good, ...encodeFrame({ t: "ping", unixMs: 5, signature: new Uint8Array(64) })]),
      new Uint8Array([...good, ...encodeFrame({ t: "welcome", name: "x" }), 0, 0, 0, 1, 0xc1]),
    ];
    const { certPem, keyPem } = await hub.keys.serverCertificate([], Date.now());
    let served = 0;
    const sockets = new Set<TLSSocket>();
    const server = createServer({ cert: certPem, key: keyPem, minVersion: "TLSv1.3" }, (socket) => {
      sockets.add(socket);
      socket.on("error", () => socket.destroy());
      socket.on("end", () => socket.destroy());
      socket.once("data", () => {
        socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: edgemesh-sync\r\n\r\n");
        socket.write(nonsense[served++ % nonsense.length]!);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const sink = new TestSink();
    const client = new HubClient({
      endpoints: [`127.0.0.1:${(server.address() as { port: number }).port}`],
      caPem: hub.keys.caPem,
      deviceSecretKey,
      recordKey,
      report: () => ({ endpoints: [], wireguardPort: 51871, version: "test" }),
      clock: new TrustedClock(),
      log: makeLog(lines),
      firstPauseMs: 1,
      longestPauseMs: 2,
    });
    client.start(sink);
    await sink.until(() => served > nonsense.length);
    await client.stop();
    expect(sink.frames).toEqual([]);
    expect(sink.statuses.every(({ state }) => state === "connecting" || state === "offline")).toBe(true);
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });
});
