/**
 * The whole packet path of two members in one process, without the kernel: what a superpacket of the TUN costs until it is one
 * write to the other TUN. `scripts/bench/run datapath [--aead auto|libsodium|libcrypto] [--member-aead aegis128l|aes256gcm]`; on
 * Deno (`BENCH_RUNTIME=deno`) it also says how many octets of heap a
 * segment leaves behind, and fails when that is more than LIMIT_OCTETS: the packet path must not allocate.
 */
import { parseArgs } from "node:util";
import { chooseAead, withTransportAead } from "../../ffi/aead.ts";
import { loadLibcrypto, type TransportAead } from "../../ffi/libcrypto.ts";
import { makeArena } from "../../ffi/memory.ts";
import { loadSodium, randomBytes } from "../../ffi/sodium.ts";
import { ConntrackTable } from "../../src/conntrack/table.ts";
import { layoutArena } from "../../src/datapath/arena.ts";
import { DatapathCounters, EGRESS, INGRESS } from "../../src/datapath/counters.ts";
import { Datapath } from "../../src/datapath/datapath.ts";
import { parseAddress, parsePrefixOrAddress } from "../../src/ip/address.ts";
import { copyUnderlayAddr, writeUnderlayAddr } from "../../src/ip/underlay_addr.ts";
import { IpCache } from "../../src/ipcache/ipcache.ts";
import { PolicyTable } from "../../src/policy/table.ts";
import type { AeadName, ReceivedRun, Tun, Underlay } from "../../src/ports.ts";
import { WireGuard } from "../../src/tunnel/wireguard.ts";
import { policyOf } from "../../test/fakes/mesh_node.ts";
import { makePacket } from "../../test/fakes/packets.ts";

const SLOTS = 8;
const SLOT_BYTES = 65536 + 64;
/**
 * Octets of heap per segment that are no allocation of ours. An address is a double on Deno: where V8 does not inline the call to
 * C, it boxes two of them, 16 octets each. One `subarray` per packet would be 52 more.
 */
const LIMIT_OCTETS = 40;
const MSS = 1303;
const ROUNDS = 5;

const { values: options } = parseArgs({
  options: { aead: { type: "string", default: "auto" }, "member-aead": { type: "string" } },
});
const memberAead = options["member-aead"] as AeadName | undefined;
const aead = aeadNamed(options.aead);

function aeadNamed(setting: string): TransportAead {
  if (setting === "libcrypto") return loadLibcrypto();
  if (setting === "auto" || setting === "libsodium") return chooseAead(setting).aead;
  throw new RangeError(`Cannot measure "${setting}": expected auto, libsodium or libcrypto`);
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

function makeMember(address: string, underlayAddress: string, peerUnderlay: string, identity: number) {
  const ciphers = withTransportAead(loadSodium(), aead);
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

type Member = ReturnType<typeof makeMember>;

function learn(member: Member, other: Member): void {
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
function superpacket(segments: number): Uint8Array {
  const inner = makePacket({
    source: "10.9.0.1",
    destination: "10.9.0.2",
    protocol: "tcp",
    sourcePort: 40000,
    destinationPort: 80,
    payload: new Uint8Array(segments * MSS).fill(0x5a),
  });
  const header = segments > 1 ? [1, 1, 40, 0, MSS & 255, MSS >> 8, 20, 0, 16, 0] : new Array<number>(10).fill(0);
  return Uint8Array.from([...header, ...inner]);
}

function move(a: Member, b: Member, superpackets: number): void {
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

const collect = (globalThis as { gc?: () => void }).gc;
const a = makeMember("10.9.0.1", "192.0.2.1", "192.0.2.2", 65537);
const b = makeMember("10.9.0.2", "192.0.2.2", "192.0.2.1", 65538);
a.underlay.other = b.underlay;
b.underlay.other = a.underlay;
learn(a, b);
learn(b, a);

console.log(`transport data sealed by ${aead.name}${memberAead === undefined ? "" : ` with ${memberAead}`}`);
let isLeaking = false;
for (const segments of [1, 8, 45]) {
  a.tun.packet = superpacket(segments);
  const rounds = Math.ceil(90_000 / segments);
  move(a, b, Math.ceil(rounds / 2)); // warm up, and the handshake
  let bestNs = Infinity;
  let leastOctets = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const writes = b.tun.writes;
    collect?.();
    const heap = process.memoryUsage().heapUsed;
    const start = performance.now();
    move(a, b, rounds);
    bestNs = Math.min(bestNs, ((performance.now() - start) * 1e6) / (rounds * segments));
    leastOctets = Math.min(leastOctets, (process.memoryUsage().heapUsed - heap) / (rounds * segments));
    if (b.tun.writes === writes) throw new Error("nothing arrived");
  }
  const drops = [a, b].map((m) => m.counters.totalDrops(INGRESS) + m.counters.totalDrops(EGRESS));
  if (drops.some((count) => count > 0)) throw new Error(`dropped ${drops}`);
  const heap = collect ? `  ${Math.max(0, leastOctets).toFixed(2)} octets of heap per segment` : "";
  console.log(
    `TUN to TUN, ${String(segments).padStart(2)} segments of ${MSS}  ${
      bestNs.toFixed(0).padStart(6)
    } ns per segment${heap}`,
  );
  if (collect && leastOctets > LIMIT_OCTETS) isLeaking = true;
}
if (isLeaking) {
  console.log(`more than ${LIMIT_OCTETS} octets of heap per segment: something on the packet path allocates`);
  process.exitCode = 1;
}
