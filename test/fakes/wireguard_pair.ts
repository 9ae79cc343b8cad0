/**
 * Two WireGuard devices with a datapath that only stages, sends and counts, on a clock and a network that the test moves.
 * Nothing waits on the real clock; the same seed gives the same run, keys and jitter included.
 *
 * An inner packet is a number: 16 octets, the number in the first eight.
 */
import { readU32LE, writeU53LE } from "../../src/bytes/integers.ts";
import { parsePrefix } from "../../src/ip/address.ts";
import { parseUnderlayAddr, UNDERLAY_ADDR_BYTES, writeUnderlayAddr } from "../../src/ip/underlay_addr.ts";
import type { AeadName, Ciphers, PacketCipher } from "../../src/ports.ts";
import type { Peer } from "../../src/tunnel/peer.ts";
import type { PeerSpec } from "../../src/tunnel/peer_table.ts";
import { addressRoomBytes, WireGuard } from "../../src/tunnel/wireguard.ts";
import { DROP_UNKNOWN_MESSAGE, FORWARD, type Verdict } from "../../src/verdict.ts";
import { MESSAGE_TRANSPORT, readMessageType } from "../../src/wire/wg_message.ts";
import { FakeNetwork, type NetworkOptions, seeded } from "./network.ts";

export const UNIX_START_MS = 1_700_000_000_000;
const MAX_PEERS = 4;
const PACKET_BYTES = 16;
// The arena: address records, the source of what is being received, then one message each way.
const FROM_AT = addressRoomBytes(MAX_PEERS);
const IN_AT = FROM_AT + UNDERLAY_ADDR_BYTES;
const OUT_AT = IN_AT + 4096;
const ARENA_BYTES = OUT_AT + 4096;

/** A message as it left. */
export interface SentMessage {
  readonly type: number;
  readonly atMs: number;
  readonly size: number;
  readonly to: string;
  readonly bytes: Uint8Array;
}

export interface NodeOptions {
  readonly startUnixMs?: number;
  /** `WireGuardOptions.sendAeads` */
  readonly sendAeads?: readonly AeadName[];
}

export class FakeNode {
  readonly wireguard: WireGuard;
  readonly arena = new Uint8Array(ARENA_BYTES);
  readonly cipher: PacketCipher;
  readonly privateKey: Uint8Array;
  /** where it sends from and is reached, as text; change it to roam */
  address: string;
  /** numbers received, in order */
  readonly got: number[] = [];
  /** keepalives received */
  keepalives = 0;
  readonly drops = new Map<Verdict, number>();
  /** handshake messages and keepalives sent (data only when `keepsData`) */
  readonly sent: SentMessage[] = [];
  keepsData = false;
  /** packets given up because the peer could not be reached */
  readonly flushed: number[] = [];
  /** every address that it has sent to */
  readonly spokenTo = new Set<string>();
  /** when `tick` wants to be called */
  dueMs = Infinity;
  readonly #network: FakeNetwork;
  readonly #staged = new Map<Peer, number[]>();

  constructor(ciphers: Ciphers, network: FakeNetwork, address: string, seed: number, options: NodeOptions = {}) {
    const startUnixMs = options.startUnixMs ?? UNIX_START_MS;
    const draw = seeded(seed);
    const random = (into: Uint8Array) => {
      for (let i = 0; i < into.length; i++) into[i] = Math.floor(draw() * 256);
    };
    this.privateKey = new Uint8Array(32);
    random(this.privateKey);
    this.#network = network;
    this.address = address;
    this.cipher = ciphers.packetCipher(this.arena);
    this.unixMs = () => startUnixMs + network.nowMs;
    this.wireguard = new WireGuard({
      privateKey: this.privateKey,
      ciphers,
      random,
      arena: this.arena,
      addressesAt: 0,
      maxPeers: MAX_PEERS,
      nowMs: network.nowMs,
      unixMs: this.unixMs(),
      sendAeads: options.sendAeads ?? [],
    });
  }

  /** the wall clock; a test may set it */
  unixMs: () => number;

  /** Adds the other node as a peer. */
  knows(other: FakeNode, changes: Partial<PeerSpec> = {}): Peer {
    const peer = this.wireguard.putPeer({
      name: other.address,
      publicKey: other.wireguard.publicKey,
      keepaliveSeconds: 0,
      allowedIps: [parsePrefix("10.0.0.0/8")!],
      endpoint: parseUnderlayAddr(other.address),
      ...changes,
    }, this.#network.nowMs);
    this.tick();
    return peer;
  }

  /** Sends a number to a peer, or stages it. */
  send(peer: Peer, value: number): void {
    this.#send(peer, value);
    this.#drain();
  }

  /** A datagram arrives; returns what became of it. A batch of one. */
  receive(bytes: Uint8Array, from: string): Verdict {
    const verdict = this.receiveInBatch(bytes, from, FROM_AT);
    this.finishBatch();
    return verdict;
  }

  /** One datagram of a batch; `finishBatch` ends it. */
  receiveInBatch(bytes: Uint8Array, from: string, fromAt = FROM_AT): Verdict {
    const nowMs = this.#network.nowMs;
    const end = IN_AT + bytes.length;
    this.arena.set(bytes, IN_AT);
    writeUnderlayAddr(this.arena, fromAt, parseUnderlayAddr(from)!);
    const type = readMessageType(this.arena, IN_AT, end);
    let verdict: Verdict = DROP_UNKNOWN_MESSAGE;
    if (type === MESSAGE_TRANSPORT) {
      verdict = this.wireguard.open(this.cipher, this.arena, IN_AT, end, fromAt, nowMs);
      if (verdict === FORWARD) this.#deliver();
    } else verdict = this.wireguard.receiveControl(this.arena, IN_AT, end, fromAt, nowMs, this.unixMs());
    if (verdict !== FORWARD) this.drops.set(verdict, (this.drops.get(verdict) ?? 0) + 1);
    return verdict;
  }

  finishBatch(): void {
    this.wireguard.finishReceiveBatch(this.#network.nowMs);
    this.#drain();
  }

  tick(): void {
    this.wireguard.tick(this.#network.nowMs, this.unixMs());
    this.#drain();
  }

  /** Times at which messages of a type were sent. */
  timesOf(type: number): number[] {
    return this.sent.filter((message) => message.type === type).map((message) => message.atMs);
  }

  last(type: number): SentMessage | undefined {
    return this.sent.findLast((message) => message.type === type);
  }

  dropsOf(verdict: Verdict): number {
    return this.drops.get(verdict) ?? 0;
  }

  #deliver(): void {
    const { openedAt, openedEnd } = this.wireguard;
    if (openedAt === openedEnd) this.keepalives++;
    else this.got.push(readU32LE(this.arena, openedAt) + readU32LE(this.arena, openedAt + 4) * 2 ** 32);
  }

  #send(peer: Peer, value: number): void {
    const nowMs = this.#network.nowMs;
    const session = this.wireguard.sealing(peer, nowMs);
    if (session === undefined) {
      this.#stagedOf(peer).push(value);
      peer.stagedCount = this.#stagedOf(peer).length;
      return;
    }
    const plainEnd = OUT_AT + 16 + PACKET_BYTES;
    this.arena.fill(0, OUT_AT, plainEnd);
    writeU53LE(this.arena, OUT_AT + 16, value);
    const end = this.wireguard.writeTransport(session, this.cipher, this.arena, OUT_AT, plainEnd, OUT_AT);
    this.#emit(MESSAGE_TRANSPORT, peer.endpointAt, OUT_AT, end, this.keepsData);
    this.wireguard.afterSend(peer, nowMs, true);
  }

  #stagedOf(peer: Peer): number[] {
    const staged = this.#staged.get(peer) ?? [];
    this.#staged.set(peer, staged);
    return staged;
  }

  #drain(): void {
    const { ready, abandoned, outbox } = this.wireguard;
    for (let peer = ready.take(); peer !== undefined; peer = ready.take()) {
      const staged = this.#stagedOf(peer).splice(0);
      peer.stagedCount = 0;
      for (const value of staged) this.#send(peer, value);
    }
    for (let peer = abandoned.take(); peer !== undefined; peer = abandoned.take()) {
      this.flushed.push(...this.#stagedOf(peer).splice(0));
      peer.stagedCount = 0;
    }
    for (let i = 0; i < outbox.count; i++) {
      const message = outbox.at(i);
      const end = this.wireguard.writeOutgoing(message, this.cipher, OUT_AT);
      if (end > OUT_AT) this.#emit(readU32LE(this.arena, OUT_AT), message.toAt, OUT_AT, end, true);
    }
    outbox.clear();
    this.dueMs = this.wireguard.tick(this.#network.nowMs, this.unixMs());
    if (outbox.count > 0) this.#drain();
  }

  #emit(type: number, toAt: number, at: number, end: number, isKept: boolean): void {
    const bytes = this.arena.slice(at, end);
    const to = addressText(this.arena, toAt);
    if (isKept) this.sent.push({ type, atMs: this.#network.nowMs, size: bytes.length, to, bytes });
    this.spokenTo.add(to);
    this.#network.send(this.address, to, bytes);
  }
}

/** Text of an IPv4 record, enough for the fake network. */
function addressText(bytes: Uint8Array, at: number): string {
  return `${bytes.subarray(at + 4, at + 8).join(".")}:${(bytes[at + 2]! << 8) | bytes[at + 3]!}`;
}

interface Action {
  atMs: number;
  readonly everyMs: number;
  readonly run: () => void;
}

/** The two nodes, each other's peer, and the time. */
export class WireGuardPair {
  readonly network: FakeNetwork;
  readonly a: FakeNode;
  readonly b: FakeNode;
  /** b as a sees it, and a as b sees it */
  readonly toB: Peer;
  readonly toA: Peer;
  #actions: Action[] = [];

  constructor(
    ciphers: Ciphers,
    options: Partial<NetworkOptions> & {
      a?: Partial<PeerSpec>;
      b?: Partial<PeerSpec>;
      sendAeads?: readonly AeadName[];
      /** when b is of an older release, or of another machine */
      ciphersOfB?: Ciphers;
    } = {},
  ) {
    const seed = options.seed ?? 1;
    const nodeOptions: NodeOptions = { sendAeads: options.sendAeads ?? [] };
    this.network = new FakeNetwork({ delayMs: 10, ...options, seed });
    this.a = new FakeNode(ciphers, this.network, "192.0.2.1:51820", seed * 2 + 1000, nodeOptions);
    const ciphersOfB = options.ciphersOfB ?? ciphers;
    this.b = new FakeNode(ciphersOfB, this.network, "192.0.2.2:51820", seed * 2 + 1001, nodeOptions);
    this.toB = this.a.knows(this.b, options.a);
    this.toA = this.b.knows(this.a, options.b);
  }

  get nowMs(): number {
    return this.network.nowMs;
  }

  /** Does something once, or again and again, at a time from now. */
  after(ms: number, run: () => void, everyMs = Infinity): void {
    this.#actions.push({ atMs: this.nowMs + ms, everyMs, run });
  }

  /** Lets time pass: arrivals, timers and actions happen when they are due. */
  run(ms: number): void {
    const untilMs = this.nowMs + ms;
    for (;;) {
      const action = this.#actions.reduce((least, each) => Math.min(least, each.atMs), Infinity);
      const nextMs = Math.min(this.network.nextMs, this.a.dueMs, this.b.dueMs, action);
      if (nextMs > untilMs) break;
      this.network.nowMs = Math.max(this.nowMs, nextMs);
      this.#step();
    }
    this.network.nowMs = untilMs;
  }

  /** Brings a session up, from a, with one packet (number 0). */
  connect(): void {
    this.a.send(this.toB, 0);
    this.run(100);
  }

  #step(): void {
    for (const node of [this.a, this.b]) {
      for (const datagram of this.network.take(node.address)) node.receive(datagram.bytes, datagram.from);
      if (node.dueMs <= this.nowMs) node.tick();
    }
    for (const address of [...this.a.spokenTo, ...this.b.spokenTo]) { // what arrives where nobody is any more
      if (address !== this.a.address && address !== this.b.address) this.network.take(address);
    }
    for (const action of this.#actions.filter((each) => each.atMs <= this.nowMs)) {
      action.atMs += action.everyMs;
      action.run();
    }
    this.#actions = this.#actions.filter((each) => each.atMs < Infinity);
  }
}
