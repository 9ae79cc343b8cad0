/**
 * One member in a test: the whole datapath between fake doors, on a fake network and clock. `settle` moves time and packets until
 * nothing happens any more.
 */
import { loadSodiumWasm } from "../../edge/ciphers_wasm.ts";
import { makePacketMemory } from "../../src/bytes/packet_memory.ts";
import { ConntrackTable } from "../../src/conntrack/table.ts";
import { layoutArena } from "../../src/datapath/arena.ts";
import type { DatapathEvent, SetSelf } from "../../src/datapath/control.ts";
import { DatapathCounters } from "../../src/datapath/counters.ts";
import { Datapath } from "../../src/datapath/datapath.ts";
import { parseAddress, parsePrefixOrAddress } from "../../src/ip/address.ts";
import { formatUnderlayAddr, parseUnderlayAddr } from "../../src/ip/underlay_addr.ts";
import { IpCache } from "../../src/ipcache/ipcache.ts";
import {
  KIND_DENY,
  KIND_DNS,
  KIND_FORWARD,
  KIND_HTTP,
  KIND_NO_RULE,
  makeDecision,
  makeKey,
} from "../../src/policy/decision.ts";
import { type DirectionUpdate, PolicyTable, type PolicyUpdate } from "../../src/policy/table.ts";
import type { AeadName, Ciphers } from "../../src/ports.ts";
import { RECEIVE_BATCHES, SEND_PARTS } from "../../src/pair/memory.ts";
import { pairAddressBytes } from "../../src/pair/send_ring.ts";
import { WireGuard } from "../../src/tunnel/wireguard.ts";
import { FakeTun, FakeUnderlay } from "./doors.ts";
import { type FakeNetwork, seeded } from "./network.ts";
import { FakePair } from "./pair.ts";

const SLOTS = 4;
const RECEIVE_BYTES = SLOTS * (65536 + 64);
const MAX_PEERS = 16;
/** wall clock at the network's time 0 */
export const EPOCH_UNIX_MS = 1_790_000_000_000;

export interface MeshNodeOptions {
  readonly name: string;
  readonly addresses: readonly string[];
  /** address in outer headers and on the network */
  readonly underlay: string;
  readonly identity: number;
  readonly offload?: boolean;
  readonly seed?: number;
  readonly tunnelProtocol?: "geneve" | "vxlan";
  readonly sendAeads?: readonly AeadName[];
  readonly acceptsNative?: boolean;
  readonly encryption?: "wireguard" | "none";
  readonly probesPaths?: boolean;
  readonly copiesDscp?: boolean;
  /** its arena is memory for vector code, as a real member's is */
  readonly hasVectors?: boolean;
  /** sockets and ciphers are another Worker's (`src/pair/`), which gets on with every step */
  readonly isPair?: boolean;
}

export class MeshNode {
  readonly options: MeshNodeOptions;
  readonly arena: Uint8Array;
  readonly tun: FakeTun;
  readonly underlay: FakeUnderlay;
  readonly wireguard: WireGuard;
  readonly counters = new DatapathCounters(new ArrayBuffer(DatapathCounters.bytes));
  readonly datapath: Datapath;
  readonly events: DatapathEvent[] = [];
  readonly network: FakeNetwork;
  readonly pair: FakePair | undefined;
  /** the socket of the unencrypted tunnel, once it was opened */
  plain: FakeUnderlay | undefined;

  constructor(network: FakeNetwork, ciphers: Ciphers, options: MeshNodeOptions) {
    this.options = options;
    this.network = network;
    const layout = options.isPair
      ? layoutArena(MAX_PEERS, (2 + RECEIVE_BATCHES) * RECEIVE_BYTES, 192 * 1024, SEND_PARTS, pairAddressBytes())
      : layoutArena(MAX_PEERS, 2 * RECEIVE_BYTES, 256 * 1024);
    this.arena = options.hasVectors ? makePacketMemory(layout.bytes) : new Uint8Array(layout.bytes);
    this.tun = new FakeTun(this.arena, options.offload);
    const isV4 = !options.underlay.includes(":");
    const endpoint = isV4 ? `${options.underlay}:51871` : `[${options.underlay}]:51871`;
    this.underlay = new FakeUnderlay(this.arena, network, endpoint, layout.receivedAt, SLOTS);
    this.pair = options.isPair
      ? new FakePair({
        arena: this.arena,
        room: { sendAt: layout.toUnderlayAt, sendEnd: layout.toUnderlayEnd, addressesAt: layout.sendAddressesAt },
        ciphers,
        socket: this.underlay,
        batchesAt: layout.receivedAt + 2 * RECEIVE_BYTES,
        batchBytes: RECEIVE_BYTES,
      })
      : undefined;
    const usedCiphers = this.pair?.ciphers ?? ciphers;
    const next = seeded(options.seed ?? options.identity);
    const random = (into: Uint8Array) => {
      for (let i = 0; i < into.length; i++) into[i] = next() * 256;
    };
    const privateKey = new Uint8Array(32);
    random(privateKey);
    this.wireguard = new WireGuard({
      privateKey,
      ciphers: usedCiphers,
      random,
      arena: this.arena,
      addressesAt: layout.addressesAt,
      maxPeers: layout.maxPeers,
      sendAeads: options.sendAeads ?? [],
      nowMs: network.nowMs,
      unixMs: EPOCH_UNIX_MS + network.nowMs,
    });
    this.datapath = new Datapath(
      {
        arena: this.arena,
        layout,
        tun: this.tun,
        underlay: this.pair?.underlay ?? this.underlay,
        cipher: usedCiphers.packetCipher(this.arena),
        wireguard: this.wireguard,
        ipcache: new IpCache(),
        conntrack: new ConntrackTable(1024, new Uint8Array(16).fill(options.identity)),
        policy: new PolicyTable(),
        counters: this.counters,
        mtu: 1355,
        probesPaths: options.probesPaths ?? false,
        copiesDscp: options.copiesDscp ?? false,
        openPlain: (local) =>
          this.plain = new FakeUnderlay(
            this.arena,
            network,
            formatUnderlayAddr(local),
            layout.receivedAt + RECEIVE_BYTES,
            SLOTS,
          ),
      },
      (event) => this.events.push(event),
      () => network.nowMs,
    );
    this.setSelf({});
  }

  /** Says again who this node is, with changes. */
  setSelf(changes: Partial<SetSelf>): void {
    const { options } = this;
    this.datapath.apply({
      op: "self",
      addresses: options.addresses.map((text) => parseAddress(text)!),
      underlay: parseAddress(options.underlay)!,
      identity: options.identity,
      tunnelProtocol: options.tunnelProtocol ?? "geneve",
      encryption: options.encryption ?? "wireguard",
      acceptsNative: options.acceptsNative ?? false,
      ...(options.encryption === "none" && { plain: parseAddress(options.underlay)! }),
      ...changes,
    }, this.network.nowMs);
  }

  /** Makes another node known: key, where it listens, its addresses and identity. */
  learn(
    other: MeshNode,
    options: {
      endpoint?: boolean;
      keepaliveSeconds?: number;
      mode?: "tunnel" | "native";
      plain?: string;
      aead?: AeadName;
    } = {},
  ): void {
    const { name, underlay, addresses, identity } = other.options;
    const publicKey = other.wireguard.publicKey;
    const endpoint = options.endpoint === false ? undefined : parseUnderlayAddr(other.underlay.address);
    const nowMs = this.network.nowMs;
    this.datapath.apply({
      op: "peer",
      name,
      publicKey,
      keepaliveSeconds: options.keepaliveSeconds ?? 0,
      underlay: parseAddress(underlay)!,
      mode: options.mode ?? "tunnel",
      ...(endpoint && { endpoint }),
      ...(options.aead && { aead: options.aead }),
      ...(options.plain !== undefined && { plain: parseAddress(options.plain)! }),
    }, nowMs);
    for (const address of addresses) {
      this.datapath.apply({ op: "ip", prefix: parsePrefixOrAddress(address)!, identity, peer: publicKey }, nowMs);
    }
  }

  setPolicy(update: PolicyUpdate): void {
    this.datapath.apply({ op: "policy", update }, this.network.nowMs);
  }

  /** The machine sends a packet. */
  send(packet: Uint8Array): void {
    const header = this.tun.hasOffload ? 10 : 0;
    const bytes = new Uint8Array(header + packet.length);
    bytes.set(packet, header);
    this.tun.toRead.push(bytes);
  }

  /** Packets that the machine received since the last call, without their virtio headers. */
  takeDelivered(): Uint8Array[] {
    const header = this.tun.hasOffload ? 10 : 0;
    return this.tun.written.splice(0).map((bytes) => bytes.slice(header));
  }

  /** One round of the loop. Whether anything was there to do. */
  step(): boolean {
    const nowMs = this.network.nowMs;
    const unixMs = EPOCH_UNIX_MS + nowMs;
    const isPlainReadable = this.plain?.isReadable === true;
    if (this.pair !== undefined) return this.#stepPair(nowMs, unixMs);
    const isBusy = this.underlay.isReadable || isPlainReadable || this.tun.toRead.length > 0;
    if (isPlainReadable) this.datapath.receivePlain(nowMs, unixMs);
    if (this.underlay.isReadable) this.datapath.receive(nowMs, unixMs);
    if (this.tun.toRead.length > 0) this.datapath.readTun(nowMs, unixMs);
    return isBusy;
  }

  /** The other Worker takes one step between the steps of this one. */
  #stepPair(nowMs: number, unixMs: number): boolean {
    const isBusy = this.pair!.step() || this.tun.toRead.length > 0;
    if (this.pair!.isReady) this.datapath.receive(nowMs, unixMs);
    if (this.tun.toRead.length > 0) this.datapath.readTun(nowMs, unixMs);
    return isBusy;
  }

  /** Runs due timers; when the next one is due. */
  tick(): number {
    const nextMs = this.datapath.tick(this.network.nowMs, EPOCH_UNIX_MS + this.network.nowMs);
    this.pair?.run();
    return nextMs;
  }
}

export async function loadTestCiphers(): Promise<Ciphers> {
  return await loadSodiumWasm();
}

/** Moves the clock to `untilMs`, from one thing that happens to the next. */
export function runUntil(nodes: readonly MeshNode[], untilMs: number): void {
  const network = nodes[0]!.network;
  const addresses = nodes.flatMap((node) => [node.underlay.address, node.plain?.address ?? []].flat());
  for (;;) {
    while (nodes.map((node) => node.step()).some((isBusy) => isBusy));
    const timers = nodes.map((node) => node.tick());
    const nextMs = Math.min(network.nextMsFor(addresses), ...timers);
    if (nextMs > untilMs) break;
    network.nowMs = Math.max(network.nowMs, nextMs);
  }
  network.nowMs = untilMs;
}

/** One allowed or denied port of an identity, or of everybody (identity 0). */
export interface TestRule {
  readonly identity: number;
  readonly protocol: number;
  readonly port: number;
  readonly verdict: "allow" | "deny" | "http" | "dns";
}

const KINDS = { allow: KIND_FORWARD, deny: KIND_DENY, http: KIND_HTTP, dns: KIND_DNS };

const OPEN: DirectionUpdate = {
  isEnforced: false,
  identities: new Int32Array(),
  classes: Int32Array.of(0, 1),
  segments: Uint32Array.of(0, makeDecision(KIND_FORWARD, -1)),
};

/** A direction in which only these rules allow something; `undefined`: nothing is enforced. */
export function directionOf(rules: readonly TestRule[] | undefined): DirectionUpdate {
  if (rules === undefined) return OPEN;
  const closed = makeDecision(KIND_NO_RULE, -1);
  const identities = [...new Set(rules.map((rule) => rule.identity))].filter((identity) => identity !== 0);
  const classes: number[] = [];
  const segments: number[] = [];
  [0, ...identities].forEach((identity, number) => {
    const own = rules.map((rule, index) => ({ ...rule, index })).filter((rule) =>
      rule.identity === identity || rule.identity === 0
    );
    const keys = own.map((rule) => ({ key: makeKey(rule.protocol, rule.port), rule })).sort((a, b) => a.key - b.key);
    const block = [0, closed];
    for (const { key, rule } of keys) {
      block.push(key, makeDecision(KINDS[rule.verdict], rule.index), key + 1, closed);
    }
    classes.push(number, block.length / 2);
    segments.push(...block);
  });
  return {
    isEnforced: true,
    identities: Int32Array.from(identities.flatMap((identity, i) => [identity, i + 1])),
    classes: Int32Array.from(classes),
    segments: Uint32Array.from(segments),
  };
}

/** A whole policy table by hand: what the engine would send for such rules. */
export function policyOf(revision: number, ingress?: readonly TestRule[], egress?: readonly TestRule[]): PolicyUpdate {
  return {
    revision,
    isFull: true,
    ruleCount: Math.max(ingress?.length ?? 0, egress?.length ?? 0),
    freshRules: new Int32Array(),
    ingress: directionOf(ingress),
    egress: directionOf(egress),
  };
}
