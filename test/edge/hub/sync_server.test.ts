import type { Duplex } from "node:stream";
import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Member, Subscription } from "../../../edge/hub/state.ts";
import { SyncServer } from "../../../edge/hub/sync_server.ts";
import { makeSigner, verifyEd25519 } from "../../../edge/sync/ed25519.ts";
import { encodeFrame, FrameReader, MAX_HUB_FRAME_BYTES } from "../../../edge/sync/frames.ts";
import {
  authMessageOf,
  type HelloMessage,
  type HubMessage,
  readHubMessage,
  timeMessageOf,
} from "../../../edge/sync/messages.ts";
import type { StateFrame } from "../../../src/mesh/entries.ts";
import type { Log } from "../../../src/ports.ts";
import { duplexPair } from "../../fakes/duplex.ts";

const HUB = makeSigner(new Uint8Array(32).fill(1));
const DEVICE = makeSigner(new Uint8Array(32).fill(2));
const CA_PIN = new Uint8Array(32).fill(3);
const QUIET: Log = { debug() {}, info() {}, warn() {}, error() {} };
const REPORT = { endpoints: ["192.0.2.9:51871"], localAddress: "10.0.0.9", wireguardPort: 51871, version: "0.1.0" };
const SNAPSHOT: StateFrame = {
  t: "snapshot",
  epoch: "e1",
  revision: 7,
  entries: [["namespace/default", { labels: {} }]],
};

/** A state that admits DEVICE as "pi" and records what the server asks of it. */
class FakeState {
  standing: "active" | "revoked" | "unknown" | "pending" = "active";
  readonly calls: string[] = [];
  readonly noted: unknown[] = [];
  send: ((frame: StateFrame) => void) | undefined;
  gone: ((reason: "revoked" | "removed") => void) | undefined;
  first: StateFrame = SNAPSHOT;

  authenticate(deviceKey: Uint8Array): Member | { refused: "revoked" | "unknown" | "pending" } {
    if (this.standing !== "active") return { refused: this.standing };
    expect(deviceKey).toEqual(DEVICE.publicKey);
    return { name: "pi" } as Member;
  }

  noteConnection(_name: string, facts: unknown): Promise<void> {
    this.noted.push(facts);
    return Promise.resolve();
  }

  subscribe(
    name: string,
    resume: { epoch: string; revision: number } | undefined,
    send: (frame: StateFrame) => void,
    onGone?: (reason: "revoked" | "removed") => void,
  ): Subscription {
    this.calls.push(`subscribe ${name} ${resume === undefined ? "-" : `${resume.epoch}:${resume.revision}`}`);
    this.send = send;
    this.gone = onGone;
    send(this.first);
    return Object.assign(() => void this.calls.push("unsubscribe"), {
      pause: () => void this.calls.push("pause"),
      resume: () => void this.calls.push("resume"),
    });
  }
}

/** The member's end of one connection. */
class TestMember {
  readonly socket: Duplex;
  readonly got: HubMessage[] = [];
  isClosed = false;
  readonly #waiting: (() => void)[] = [];

  constructor(socket: Duplex, isReading = true) {
    this.socket = socket;
    const reader = new FrameReader(MAX_HUB_FRAME_BYTES, (value) => {
      const message = readHubMessage(value);
      expect(message).toBeDefined();
      this.got.push(message!);
      this.#wake();
    });
    if (isReading) socket.on("data", (chunk: Uint8Array) => expect(reader.push(chunk)).toBeUndefined());
    socket.on("close", () => {
      this.isClosed = true;
      this.#wake();
    });
    socket.on("end", () => socket.end());
  }

  async until(isThere: () => boolean): Promise<void> {
    while (!isThere()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  async next<T extends HubMessage["t"]>(t: T): Promise<Extract<HubMessage, { t: T }>> {
    const isIt = (message: HubMessage): message is Extract<HubMessage, { t: T }> => message.t === t;
    await this.until(() => this.got.some(isIt));
    return this.got.find(isIt)!;
  }

  send(message: unknown): void {
    this.socket.write(encodeFrame(message));
  }

  async authenticate(resume: { epoch: string; revision: number } | null = null): Promise<void> {
    const { challenge } = await this.next("hello");
    const signature = DEVICE.sign(authMessageOf(challenge, CA_PIN));
    this.send({ t: "auth", deviceKey: DEVICE.publicKey, signature, resume, report: REPORT });
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function setUp() {
  const clock = { nowMs: 1000, unixMs: Date.UTC(2026, 10, 24) };
  const state = new FakeState();
  const server = new SyncServer({
    state,
    signer: HUB,
    caPin: CA_PIN,
    cluster: "lab",
    log: QUIET,
    random: (into) => into.set(randomBytes(into.length)),
    unixMs: () => clock.unixMs,
    nowMs: () => clock.nowMs,
  });
  const connect = (isReading = true) => {
    const [near, far] = duplexPair();
    const member = new TestMember(far, isReading);
    server.accept(near, new Uint8Array(0), { address: "192.0.2.1", port: 4000 });
    return { member, near };
  };
  return { clock, state, server, connect };
}

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}

describe("SyncServer", () => {
  it("greets with a fresh challenge and its signed time", async () => {
    const { clock, connect } = setUp();
    const hellos: HelloMessage[] = [];
    for (let i = 0; i < 2; i++) hellos.push(await connect().member.next("hello"));
    expect(hellos[0]!.challenge).not.toEqual(hellos[1]!.challenge);
    for (const { challenge, unixMs, signature, cluster } of hellos) {
      expect({ unixMs, cluster }).toEqual({ unixMs: clock.unixMs, cluster: "lab" });
      expect(verifyEd25519(HUB.publicKey, timeMessageOf(challenge, unixMs), signature)).toBe(true);
    }
  });

  it("welcomes a member that proves its key, subscribes it from where it stands, and notes where it is", async () => {
    const { state, server, connect } = setUp();
    const { member } = connect();
    await member.authenticate({ epoch: "e1", revision: 5 });
    expect((await member.next("welcome")).name).toBe("pi");
    expect(await member.next("snapshot")).toEqual(SNAPSHOT);
    expect(state.calls).toEqual(["subscribe pi e1:5"]);
    expect(state.noted).toEqual([{ endpoints: ["192.0.2.1:51871", "192.0.2.9:51871"], localAddress: "10.0.0.9" }]);
    member.send({ t: "ack", revision: 7 });
    await settle();
    expect(server.connectionOf("pi")).toMatchObject({ from: "192.0.2.1:4000", version: "0.1.0", appliedRevision: 7 });
    expect(server.connected).toBe(1);
  });

  it("refuses a signature over another challenge or for another hub", async () => {
    const { state, connect } = setUp();
    for (
      const [challenge, pin] of [[new Uint8Array(32), CA_PIN], [undefined, new Uint8Array(32)]] as [
        Uint8Array | undefined,
        Uint8Array,
      ][]
    ) {
      const { member } = connect();
      const hello = await member.next("hello");
      const signature = DEVICE.sign(authMessageOf(challenge ?? hello.challenge, pin));
      member.send({ t: "auth", deviceKey: DEVICE.publicKey, signature, resume: null, report: REPORT });
      expect(await member.next("refused")).toMatchObject({ code: "bad-proof", isRetryable: false });
    }
    expect(state.calls).toEqual([]);
  });

  it.each([["revoked", false], ["unknown", false], ["pending", true]] as const)(
    "refuses a device that is %s, and says whether to come back",
    async (standing, isRetryable) => {
      const { state, connect } = setUp();
      state.standing = standing;
      const { member } = connect();
      await member.authenticate();
      expect(await member.next("refused")).toMatchObject({ code: standing, isRetryable });
      await member.until(() => member.isClosed);
      expect(state.calls).toEqual([]);
    },
  );

  it("cuts a member off at once when it is revoked", async () => {
    const { state, server, connect } = setUp();
    const { member } = connect();
    await member.authenticate();
    await member.next("snapshot");
    state.gone!("revoked");
    expect(await member.next("refused")).toMatchObject({ code: "revoked", isRetryable: false });
    await member.until(() => member.isClosed);
    expect(state.calls.at(-1)).toBe("unsubscribe");
    const sent = server.counters.sentFrames;
    state.send!({ t: "delta", revision: 8, puts: [], deletes: [] });
    expect(server.counters.sentFrames).toBe(sent);
    expect(server.connected).toBe(0);
  });

  it("lets a new connection of the same device replace the old one", async () => {
    const { server, connect } = setUp();
    const first = connect().member;
    await first.authenticate();
    await first.next("snapshot");
    const second = connect().member;
    await second.authenticate();
    await second.next("snapshot");
    expect(await first.next("refused")).toMatchObject({ code: "replaced", isRetryable: true });
    await first.until(() => first.isClosed);
    expect(server.connected).toBe(1);
    expect(server.connectionOf("pi")).toBeDefined();
  });

  it("pauses a member that does not read, resumes it when it does, and never holds up another", async () => {
    const { state, server, connect } = setUp();
    const { member } = connect(false);
    // a slow one: its bytes stay in the pipe
    const hello = await readOne(member.socket);
    const { challenge } = hello as HelloMessage;
    const signature = DEVICE.sign(authMessageOf(challenge, CA_PIN));
    state.first = { ...SNAPSHOT, entries: [["namespace/x", { labels: { big: "x".repeat(200_000) } }]] } as StateFrame;
    member.send({ t: "auth", deviceKey: DEVICE.publicKey, signature, resume: null, report: REPORT });
    await settle();
    expect(state.calls).toEqual(["subscribe pi -", "pause"]);
    const other = connect().member;
    await other.next("hello");
    expect(server.counters.paused).toBe(1);
    member.socket.resume();
    await settle();
    expect(state.calls).toEqual(["subscribe pi -", "pause", "resume"]);
  });

  it("answers a member's ping, and piles up no answers for one that does not read", async () => {
    const { state, server, connect } = setUp();
    const { member } = connect();
    await member.authenticate();
    await member.next("snapshot");
    member.send({ t: "ping" });
    await member.next("pong");
    const slow = connect(false).member;
    const { challenge } = await readOne(slow.socket) as HelloMessage;
    const signature = DEVICE.sign(authMessageOf(challenge, CA_PIN));
    state.first = { ...SNAPSHOT, entries: [["namespace/x", { labels: { big: "x".repeat(200_000) } }]] } as StateFrame;
    slow.send({ t: "auth", deviceKey: DEVICE.publicKey, signature, resume: null, report: REPORT });
    await settle();
    const before = server.counters.sentFrames;
    for (let i = 0; i < 100; i++) slow.send({ t: "ping" });
    await settle();
    expect(server.counters.sentFrames).toBe(before);
  });

  it("asks for a dry run where the newest report says that the member does it", async () => {
    const { state, server, connect } = setUp();
    const { member } = connect();
    const { challenge, takes } = await member.next("hello");
    expect(takes).toEqual(expect.arrayContaining(["does", "ping"]));
    const signature = DEVICE.sign(authMessageOf(challenge, CA_PIN));
    member.send({ t: "auth", deviceKey: DEVICE.publicKey, signature, resume: null, report: REPORT });
    await member.next("snapshot");
    const ask = () => server.dryRuns.run([["policy/a//b", {}]], [], ["pi"]);
    expect((await ask())?.members).toMatchObject([{ state: "not-asked" }]);
    member.send({ t: "report", report: { ...REPORT, does: ["dry-run", "something-new"] } });
    await settle();
    const report = ask();
    const { id, puts } = await member.next("dryRun");
    expect(puts).toEqual([["policy/a//b", {}]]);
    member.send({ t: "dryRunResult", id, result: { flows: [], total: 0, lookedAt: 3, toProxy: 0 } });
    expect((await report)?.members).toMatchObject([{ state: "answered", result: { lookedAt: 3 } }]);
    const unanswered = ask();
    member.socket.destroy();
    expect((await unanswered)?.members).toMatchObject([{ state: "no-answer", reason: "its connection ended" }]);
    expect(state.calls.at(-1)).toBe("unsubscribe");
  });

  it("pings with signed time, and drops a member that has not spoken for 75 s", async () => {
    const { clock, server, connect } = setUp();
    const { member } = connect();
    await member.authenticate();
    await member.next("snapshot");
    clock.nowMs += 30_000;
    clock.unixMs += 30_000;
    server.tick(clock.nowMs);
    const ping = await member.next("ping");
    const { challenge } = await member.next("hello");
    expect(verifyEd25519(HUB.publicKey, timeMessageOf(challenge, clock.unixMs), ping.signature)).toBe(true);
    member.send({ t: "pong" });
    await settle();
    clock.nowMs += 74_000;
    server.tick(clock.nowMs);
    expect(server.connected).toBe(1);
    clock.nowMs += 2_000;
    server.tick(clock.nowMs);
    expect(server.connected).toBe(0);
    expect(server.counters.timedOut).toBe(1);
    await member.until(() => member.isClosed);
  });

  it("gives a stranger 10 s to prove itself", async () => {
    const { clock, server, connect } = setUp();
    const { member } = connect();
    await member.next("hello");
    clock.nowMs += 10_001;
    server.tick(clock.nowMs);
    await member.until(() => member.isClosed);
    expect(server.counters.timedOut).toBe(1);
  });

  it("applies reports of a changed address at most every 5 s, the newest one", async () => {
    const { clock, state, server, connect } = setUp();
    const { member } = connect();
    await member.authenticate();
    await member.next("snapshot");
    for (const port of [1, 2, 3]) member.send({ t: "report", report: { ...REPORT, wireguardPort: port } });
    await settle();
    server.tick(clock.nowMs);
    expect(state.noted.length).toBe(1);
    clock.nowMs += 5_000;
    server.tick(clock.nowMs);
    expect(state.noted.at(-1)).toMatchObject({ endpoints: ["192.0.2.1:3", "192.0.2.9:51871"] });
    expect(state.noted.length).toBe(2);
  });

  it("has room for 512 strangers at a time", () => {
    const { server, connect } = setUp();
    for (let i = 0; i < 512; i++) {
      expect(server.hasRoom()).toBe(true);
      connect();
    }
    expect(server.hasRoom()).toBe(false);
    server.close();
    expect(server.hasRoom()).toBe(true);
  });

  it.each([
    ["a length of 4 GB", new Uint8Array([0xff, 0xff, 0xff, 0xff])],
    ["a frame that is no value", new Uint8Array([0, 0, 0, 1, 0xc1])],
    ["an empty frame", new Uint8Array(4)],
    ["a message that nobody knows", encodeFrame({ t: "hug" })],
    ["an ack before the proof", encodeFrame({ t: "ack", revision: 1 })],
    ["a proof with a key too many", encodeFrame({ t: "auth", admin: true })],
    [
      "a proof with a short key",
      encodeFrame({ t: "auth", deviceKey: new Uint8Array(31), signature: new Uint8Array(64) }),
    ],
  ])("closes and counts at %s", async (_name, bytes) => {
    const { server, connect } = setUp();
    const { member } = connect();
    await member.next("hello");
    member.socket.write(bytes);
    await member.until(() => member.isClosed);
    expect(server.counters.brokenFrames).toBe(1);
    expect(server.hasRoom()).toBe(true);
  });

  it("survives any octets from a stranger", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.uint8Array({ minLength: 1, maxLength: 80 }), { maxLength: 8 }), async (chunks) => {
        const { server, connect } = setUp();
        const { member, near } = connect();
        for (const chunk of chunks) if (!member.socket.destroyed) member.socket.write(chunk);
        await settle();
        expect(server.connected).toBe(0);
        expect(server.counters.brokenFrames).toBeLessThanOrEqual(1);
        near.destroy();
      }),
      { numRuns: 100 },
    );
  });

  it("forgets a member whose connection ends in the middle of a frame", async () => {
    const { state, server, connect } = setUp();
    const { member } = connect();
    await member.authenticate();
    await member.next("snapshot");
    member.socket.write(new Uint8Array([0, 0, 1, 0, 1, 2]));
    await settle();
    member.socket.destroy();
    await settle();
    expect(server.connected).toBe(0);
    expect(state.calls.at(-1)).toBe("unsubscribe");
  });
});

/** Reads one message and leaves the rest unread. */
function readOne(socket: Duplex): Promise<unknown> {
  return new Promise((resolve) => {
    const reader = new FrameReader(MAX_HUB_FRAME_BYTES, (value) => {
      reader.stop();
      resolve(value);
    });
    const onData = (chunk: Uint8Array) => {
      reader.push(chunk);
      socket.pause();
      socket.off("data", onData);
    };
    socket.on("data", onData);
  });
}
