/**
 * What the parts of the suite for `HubState` share: a hub whose clock, chance and timers the test holds, devices that join it, and
 * what members keep of what they are sent. Each test has a new hub.
 */
import { afterEach, beforeEach, expect } from "vitest";
import { makeSignatures } from "../../../edge/hub/signatures.ts";
import { HubState, type JoinContext, type Subscription } from "../../../edge/hub/state.ts";
import type { Store } from "../../../edge/hub/store.ts";
import { makeSigner, verifyEd25519 } from "../../../edge/sync/ed25519.ts";
import { decodeMsgpack } from "../../../edge/sync/msgpack.ts";
import { encodeFrame } from "../../../edge/hub/frames.ts";
import {
  deviceMessageOf,
  type JoinAnswer,
  type JoinRequest,
  type JoinTranscript,
  proveJoin,
  recordMessageOf,
  transcriptOf,
} from "../../../src/hub/join.ts";
import type { JoinRefusal } from "../../../src/hub/refusal.ts";
import { type JoinToken, readToken } from "../../../src/hub/token.ts";
import type { EntryValue, MemberRecord, MeshSettings, SignedRecord, StateFrame } from "../../../src/mesh/entries.ts";
import type { Log } from "../../../src/ports.ts";

/** A store, and how to get at it again after a kill. */
export interface HubUnderTest {
  readonly name: string;
  open(): Promise<Store>;
  reopen(store: Store): Promise<Store>;
  readonly cleanUp?: () => Promise<void>;
}
export const CA_PIN = new Uint8Array(32).fill(0xca);
export const FROM: JoinContext = { remoteAddress: "198.51.100.7", remotePort: 40000 };
export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
export const settings: MeshSettings = {
  cluster: { name: "edge1", id: 1 },
  routing: { mode: "tunnel", tunnelProtocol: "geneve", encryption: "wireguard" },
  policy: { enforcementMode: "default", defaultLocalCluster: true, allowLocalhost: "always" },
  memberCidrs: ["10.9.0.0/16", "fd09::/64"],
};
export const recordSigner = makeSigner(new Uint8Array(32).fill(7));
const recordSecret = new Uint8Array([...new Uint8Array(32).fill(7), ...recordSigner.publicKey]);

/** A device: its keys, and what it asks for. */
export class Device {
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
export class Replica {
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

export function recordOf(signed: SignedRecord): MemberRecord {
  expect(verifyEd25519(recordSigner.publicKey, recordMessageOf(signed.record), signed.signature)).toBe(true);
  // of a copy: msgpackr leaves a property on what it reads
  return decodeMsgpack(signed.record.slice()) as MemberRecord;
}

const silent: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
export const app = (name: string) => ({ matchLabels: { app: name } });
export const networkPolicy = (name: string, spec: unknown) => ({
  apiVersion: "networking.k8s.io/v1",
  kind: "NetworkPolicy",
  metadata: { name, namespace: "default" },
  spec,
});
export const namespace = (name: string, labels: Record<string, string>) => ({
  apiVersion: "v1",
  kind: "Namespace",
  metadata: { name, labels },
});

/** the store and the hub of the test that runs, and the wall clock of both, Unix milliseconds */
export let store: Store;
export let hub: HubState;
export const clock = { now: 0 };
/** events and fields of what the hub logged */
export const logged: unknown[] = [];
/** what the hub wants to be called for later */
export const tasks: (() => void)[] = [];
let chance = 0;
let subject: HubUnderTest;

/** To be called once, in the `describe` that all tests are in. */
export function useHub(under: HubUnderTest): void {
  beforeEach(async () => {
    subject = under;
    clock.now = 1_800_000_000_000;
    chance = 1;
    logged.length = 0;
    tasks.length = 0;
    await openOver();
  });
  afterEach(async () => {
    hub.close();
    await store.close();
    await subject.cleanUp?.();
  });
}

async function openOver(over: Partial<MeshSettings> = {}): Promise<void> {
  store = await subject.open();
  hub = await openHub(over);
}

/** A hub over the store that is open. */
export function openHub(over: Partial<MeshSettings> = {}): Promise<HubState> {
  return HubState.open({
    store,
    settings: { ...settings, ...over },
    recordKey: { publicKey: recordSigner.publicKey, secretKey: recordSecret },
    ciphers: makeSignatures(),
    random: (into) => {
      for (let i = 0; i < into.length; i++) {
        into[i] = Math.imul(chance = (Math.imul(chance, 1103515245) + 12345) | 0, 1) >>> 16;
      }
    },
    now: () => clock.now,
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
}

/** The hub is killed, and comes back over what the store holds. */
export async function restart(over: Partial<MeshSettings> = {}): Promise<void> {
  store = await subject.reopen(store);
  hub = await openHub(over);
}

/** Another hub over an empty store. */
export async function startOver(over: Partial<MeshSettings> = {}): Promise<void> {
  hub.close();
  await store.close();
  await openOver(over);
}

type TokenOptions = Partial<Parameters<HubState["createToken"]>[0]>;

export async function makeToken(options: TokenOptions = {}): Promise<JoinToken> {
  const { token } = await hub.createToken({ endpoints: ["hub.example:7443"], caPin: CA_PIN, ...options });
  const read = readToken(token);
  if (!("token" in read)) throw new Error(read.fault.message);
  return read.token;
}

export function send(request: JoinRequest, from = FROM): Promise<JoinAnswer | JoinRefusal> {
  return hub.join(request, from);
}

export function tryJoin(device: Device, token: JoinToken, from = FROM): Promise<JoinAnswer | JoinRefusal> {
  return send(device.request(token, hub.challenge()), from);
}

/** @throws when it is refused */
export async function join(device: Device, token: JoinToken): Promise<JoinAnswer> {
  const outcome = await tryJoin(device, token);
  if (!("status" in outcome)) throw new Error(`${outcome.code}: ${outcome.message}`);
  return outcome;
}

export function codeOf(outcome: JoinAnswer | JoinRefusal): string {
  return "code" in outcome ? outcome.code : outcome.status;
}

/** Lets a device in by a token of its own; it is called m and its seed. */
export async function admit(
  seed: number,
  labels: Record<string, string> = {},
  wishes: Partial<JoinTranscript> = {},
): Promise<JoinAnswer> {
  return await join(new Device(seed, { labels, name: `m${seed}`, ...wishes }), await makeToken());
}

/** A value of the store as text. */
export async function text(key: string): Promise<string> {
  return new TextDecoder().decode((await store.get(key))?.value);
}

/** A hub that is a member itself. */
export function hubFacts() {
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
