/**
 * Two members in one process and one thread, TUN and underlay of which are memory: for what a packet costs and leaves behind on its
 * way through both. Needs libsodium through FFI.
 */
import { makeArena } from "../../ffi/memory.ts";
import { randomBytes } from "../../ffi/sodium.ts";
import { ConntrackTable } from "../../src/conntrack/table.ts";
import { layoutArena } from "../../src/datapath/arena.ts";
import { DatapathCounters } from "../../src/datapath/counters.ts";
import { Datapath } from "../../src/datapath/datapath.ts";
import { parseAddress, parsePrefixOrAddress } from "../../src/ip/address.ts";
import { copyUnderlayAddr, writeUnderlayAddr } from "../../src/ip/underlay_addr.ts";
import { IpCache } from "../../src/ipcache/ipcache.ts";
import { PolicyTable } from "../../src/policy/table.ts";
import type { AeadName, Ciphers, ReceivedRun, Tun, Underlay } from "../../src/ports.ts";
import { WireGuard } from "../../src/tunnel/wireguard.ts";
import { policyOf } from "./mesh_node.ts";
import { makePacket } from "./packets.ts";

/** Octets of TCP payload in a full segment. */
export const LOOP_MSS = 1303;
const SLOTS = 8;
const SLOT_BYTES = 65536 + 64;

export interface LoopOptions {
  readonly ciphers: Ciphers;
  readonly memberAead?: AeadName | undefined;
}

export type LoopPair = readonly [LoopMember, LoopMember];

/** Both know each other; a handshake comes with the first packet. */
export function makeLoopPair(options: LoopOptions): LoopPair {
  const a = makeMember("10.9.0.1", "192.0.2.1", "192.0.2.2", 65537, options);
  const b = makeMember("10.9.0.2", "192.0.2.2", "192.0.2.1", 65538, options);
  a.underlay.other = b.underlay;
  b.underlay.other = a.underlay;
  learn(a, b, options.memberAead);
  learn(b, a, options.memberAead);
  return [a, b];
}

/** A TUN that gives the same packet again and again, and takes everything. */
class LoopTun implements Tun {
  readonly name = "loop";
  readonly hasOffload = true;
  readonly mergesTcp = true;
  readonly mergesUdp = true;
  readonly offloadChanges = 0;
  packet: Uint8Array = new Uint8Array();
  remaining = 0;
  writes = 0;
  octets = 0;
  readonly #arena: Uint8Array;

  constructor(arena: Uint8Array) {
    this.#arena = arena;
  }

  read(at: number, _end: number): number {
    if (this.remaining === 0) return 0;
    this.remaining--;
    this.#arena.set(this.packet, at);
    return this.packet.length;
  }

  write(pieces: Int32Array, count: number): number {
    let octets = 0;
    for (let i = 0; i < count; i++) octets += pieces[2 * i + 1]! - pieces[2 * i]!;
    this.writes++;
    this.octets += octets;
    return octets;
  }

  switchOffload(): void {}
  refuseMerged(): void {}
  close(): void {}
}

/** An underlay whose runs land in the other's receive slots at once. */
class LoopUnderlay implements Underlay {
  readonly port = 51871;
  readonly hasSegmentation = true;
  readonly maxSegments = 64;
  readonly sendErrors = new Map<number, number>();
  readonly sendErrorCount = 0;
  readonly received: ReceivedRun[];
  other!: LoopUnderlay;
  waiting = 0;
  readonly #arena: Uint8Array;
  readonly #receiveAt: number;

  constructor(arena: Uint8Array, receiveAt: number) {
    this.#arena = arena;
    this.#receiveAt = receiveAt;
    this.received = Array.from({ length: SLOTS }, (_, i) => ({
      at: receiveAt + i * SLOT_BYTES,
      end: 0,
      segmentBytes: 0,
      fromAt: receiveAt + i * SLOT_BYTES + 65536,
      ecn: 0,
      isTruncated: false,
    }));
  }

  receive(): number {
    const count = this.waiting;
    this.waiting = 0;
    return count;
  }

  queue(at: number, end: number, segmentBytes: number, _toAt: number, _ecn: number): void {
    const { other } = this;
    const run = other.received[other.waiting++]!;
    const to = run.at;
    other.#arena.set(this.#arena.subarray(at, end), to);
    run.end = to + (end - at);
    run.segmentBytes = segmentBytes;
  }

  sendWhole(at: number, end: number): number {
    this.queue(at, end, end - at, 0, 0);
    return 0;
  }

  takeTooBig(): number {
    return -1;
  }

  readonly offloadChanges = 0;
  switchOffload(): void {}
  flush(): void {}
  close(): void {}

  setSource(text: string): void {
    const record = new Uint8Array(32);
    writeUnderlayAddr(record, 0, { address: parseAddress(text)!, port: 51871, scope: 0 });
    for (const run of this.received) copyUnderlayAddr(record, 0, this.#arena, run.fromAt);
    void this.#receiveAt;
  }
}

function makeMember(
  address: string,
  underlayAddress: string,
  peerUnderlay: string,
  identity: number,
  { ciphers, memberAead }: LoopOptions,
) {
  const layout = layoutArena(16, SLOTS * SLOT_BYTES, 512 * 1024);
  const arena = makeArena(layout.bytes);
  const tun = new LoopTun(arena);
  const underlay = new LoopUnderlay(arena, layout.receivedAt);
  underlay.setSource(peerUnderlay);
  const privateKey = new Uint8Array(32);
  randomBytes(privateKey);
  const wireguard = new WireGuard({
    privateKey,
    ciphers,
    random: randomBytes,
    arena,
    addressesAt: layout.addressesAt,
    maxPeers: 16,
    sendAeads: memberAead === undefined ? [] : [memberAead],
    nowMs: 0,
    unixMs: Date.now(),
  });
  const counters = new DatapathCounters(new ArrayBuffer(DatapathCounters.bytes));
  const datapath = new Datapath(
    {
      arena,
      layout,
      tun,
      underlay,
      cipher: ciphers.packetCipher(arena),
      wireguard,
      ipcache: new IpCache(),
      conntrack: new ConntrackTable(1024, new Uint8Array(16)),
      policy: new PolicyTable(),
      counters,
      mtu: 1355,
    },
    () => {},
    () => 0,
  );
  const addresses = [parseAddress(address)!];
  datapath.apply({
    op: "self",
    addresses,
    underlay: parseAddress(underlayAddress)!,
    identity,
    tunnelProtocol: "geneve",
  }, 0);
  datapath.apply({ op: "policy", update: policyOf(1, [{ identity: 0, protocol: 6, port: 80, verdict: "allow" }]) }, 0);
  return { address, underlayAddress, identity, tun, underlay, wireguard, counters, datapath };
}

export type LoopMember = ReturnType<typeof makeMember>;

function learn(member: LoopMember, other: LoopMember, memberAead: AeadName | undefined): void {
  const { publicKey } = other.wireguard;
  const address = parseAddress(other.underlayAddress)!;
  const endpoint = { address, port: 51871, scope: 0 };
  const name = other.address;
  const aead = memberAead === undefined ? {} : { aead: memberAead };
  member.datapath.apply(
    { op: "peer", name, publicKey, endpoint, keepaliveSeconds: 0, mode: "tunnel", underlay: address, ...aead },
    0,
  );
  const prefix = parsePrefixOrAddress(other.address)!;
  member.datapath.apply({ op: "ip", prefix, identity: other.identity, peer: publicKey }, 0);
}

/** A TCP superpacket as the kernel gives it: virtio header, partial checksum (the splitter makes the whole one). */
export function superpacket(segments: number): Uint8Array {
  const inner = makePacket({
    source: "10.9.0.1",
    destination: "10.9.0.2",
    protocol: "tcp",
    sourcePort: 40000,
    destinationPort: 80,
    payload: new Uint8Array(segments * LOOP_MSS).fill(0x5a),
  });
  const header = segments > 1
    ? [1, 1, 40, 0, LOOP_MSS & 255, LOOP_MSS >> 8, 20, 0, 16, 0]
    : new Array<number>(10).fill(0);
  return Uint8Array.from([...header, ...inner]);
}

/** Sends what a's TUN gives so many times, until nothing is on its way. */
export function move([a, b]: LoopPair, superpackets: number): void {
  a.tun.remaining = superpackets;
  while (a.tun.remaining > 0 || a.underlay.waiting > 0 || b.underlay.waiting > 0) {
    // as many as the other's receive slots take: two runs each at the most
    const more = a.tun.remaining;
    a.tun.remaining = Math.min(more, SLOTS / 2);
    a.datapath.readTun(1, 1);
    a.tun.remaining = more - Math.min(more, SLOTS / 2);
    b.datapath.receive(1, 1);
    a.datapath.receive(1, 1);
  }
}
