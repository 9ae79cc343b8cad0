/**
 * What single steps of the packet path cost, in nanoseconds: `scripts/bench/run micro [STAGE]`, `BENCH_RUNTIME=deno` for Deno,
 * where it also says how many octets an operation leaves on the heap: about 0, or something allocates.
 *
 * Stages: parse, checksum, prefix, policy, conntrack, redirect, split, seal, merge. Each line is the best of five rounds. Read
 * lines of one run on one machine side by side, and no other way.
 */
import { Checksummer, complement } from "../../src/bytes/checksum.ts";
import { makePacketMemory } from "../../src/bytes/packet_memory.ts";
import { readI32 } from "../../src/bytes/integers.ts";
import { ConntrackTable } from "../../src/conntrack/table.ts";
import { proxyRoleOf, ROLE_CLIENT } from "../../src/datapath/proxy_addresses.ts";
import { LEG_OPENER, RedirectTable } from "../../src/datapath/redirect_table.ts";
import { RedirectView } from "../../src/datapath/redirect_view.ts";
import { rewritePacket } from "../../src/datapath/rewrite.ts";
import { PrefixTable } from "../../src/ip/prefix_table.ts";
import { Merger } from "../../src/offload/merge.ts";
import { Splitter } from "../../src/offload/split.ts";
import { writeGsoHeader } from "../../src/offload/virtio.ts";
import { KIND_HTTP } from "../../src/policy/decision.ts";
import { PacketInfo, readPacket } from "../../src/wire/packet.ts";
import { benchPolicy } from "./stages/policy.ts";
import { benchSeal } from "./stages/seal.ts";

const ROUNDS = 5;
const collect = (globalThis as { gc?: () => void }).gc;
let sink = 0;

/** @param work does `count` operations and gives a number that depends on them */
function measure(name: string, count: number, work: (count: number) => number): void {
  sink += work(count >> 2); // let the compilers see it
  let best = Infinity;
  let octets = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    collect?.();
    const before = process.memoryUsage().heapUsed;
    const start = performance.now();
    sink += work(count);
    best = Math.min(best, ((performance.now() - start) * 1e6) / count);
    octets = Math.min(octets, (process.memoryUsage().heapUsed - before) / count);
  }
  const heap = collect ? `  ${Math.max(0, octets).toFixed(1).padStart(6)} B` : "";
  console.log(`${name.padEnd(52)}${best.toFixed(1).padStart(10)} ns${heap}`);
}

const IPV4_TCP = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 8, 0, 1, 10, 8, 0, 2];
const IPV6_TCP = [0x60, 0, 0, 0, 0, 0, 6, 64, ...address6(1), ...address6(2)];
/** ports, sequence, acknowledgement, 32 octets of header, ACK, window, checksum, urgent, timestamps */
const TCP = [
  0x9c,
  0x40,
  0,
  80,
  0,
  0,
  4,
  0,
  0,
  0,
  0,
  9,
  0x80,
  16,
  1,
  0,
  0,
  0,
  0,
  0,
  1,
  1,
  8,
  10,
  0,
  0,
  0,
  1,
  0,
  0,
  0,
  2,
];

function address6(last: number): number[] {
  return [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last >> 8, last & 255];
}

/** An arena to put packets into, with what that needs made once. */
class Scene {
  readonly arena: Uint8Array;
  readonly #sums: Checksummer;
  readonly #view: DataView;

  constructor(arena: Uint8Array) {
    this.arena = arena;
    this.#sums = new Checksummer(arena);
    this.#view = new DataView(arena.buffer);
  }

  /** Writes a TCP packet with right lengths and checksums around the payload that is there; its end. */
  placeTcp(at: number, isV6: boolean, payloadBytes: number, port: number, sequence: number): number {
    const view = this.#view;
    const ip = isV6 ? IPV6_TCP : IPV4_TCP;
    const transportAt = at + ip.length;
    const end = transportAt + TCP.length + payloadBytes;
    this.arena.set(ip, at);
    this.arena.set(TCP, transportAt);
    view.setUint16(isV6 ? at + 4 : at + 2, isV6 ? end - transportAt : end - at);
    if (!isV6) view.setUint16(at + 10, complement(this.#sums.sum(at, transportAt)));
    view.setUint16(transportAt, port);
    view.setUint32(transportAt + 4, sequence);
    const pseudo = this.#sums.sum(isV6 ? at + 8 : at + 12, transportAt) + 6 + end - transportAt;
    view.setUint16(transportAt + 16, complement(pseudo + this.#sums.sum(transportAt, end)));
    return end;
  }
}

function noise(bytes: Uint8Array): Uint8Array {
  let state = 12345;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) | 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

function benchParse(): void {
  const scene = new Scene(new Uint8Array(65536));
  const { arena } = scene;
  const packet = new PacketInfo();
  for (const isV6 of [false, true]) {
    const end = scene.placeTcp(64, isV6, 100, 40000, 1);
    measure(`parse ${isV6 ? "IPv6" : "IPv4"} TCP`, 4_000_000, (count) => {
      let sum = 0;
      for (let i = 0; i < count; i++) sum += readPacket(arena, 64, end, packet) + packet.sourcePort;
      return sum;
    });
  }
}

function benchChecksum(): void {
  const arena = noise(makePacketMemory(1 << 18));
  const sums = new Checksummer(arena);
  for (const [bytes, count] of [[64, 2_000_000], [1420, 300_000], [61440, 10_000]] as const) {
    for (const shift of [0, 2, 1]) {
      measure(`checksum ${bytes} octets at 4n + ${shift}`, count, (count) => {
        let sum = 0;
        for (let i = 0; i < count; i++) {
          const at = ((i & 63) << 11) + shift;
          sum += sums.sum(at, at + bytes);
        }
        return sum;
      });
    }
  }
}

function benchPrefix(): void {
  const table = new PrefixTable();
  const bytes = new Uint8Array(16 * 4096);
  table.set({ address: Uint8Array.of(0, 0, 0, 0), length: 0 }, 1);
  for (let i = 0; i < 20; i++) table.set({ address: Uint8Array.of(10, 20 + i, 0, 0), length: 16 }, i);
  for (let i = 0; i < 20; i++) {
    table.set({ address: Uint8Array.of(0xfd, i, ...new Array<number>(14).fill(0)), length: 16 }, i);
  }
  for (let i = 0; i < 5000; i++) {
    table.set({ address: Uint8Array.of(10, 8, i >> 8, i), length: 32 }, i);
    table.set({ address: Uint8Array.from(address6(i)), length: 128 }, i);
  }
  // four in five are hosts that are there, the others fall to a shorter prefix
  const words = new Int32Array(4096);
  const random = noise(new Uint8Array(2 * 4096));
  for (let i = 0; i < 4096; i++) {
    const host = readI32(random, 2 * i) & 0xfff;
    words[i] = (10 << 24) | ((i % 5 === 0 ? 25 : 8) << 16) | host;
    bytes.set(i % 5 === 0 ? [0xfd, 3, ...address6(host).slice(2)] : address6(host), 16 * i);
  }
  measure("prefix find4 among 5000 /32, 20 /16, /0", 8_000_000, (count) => {
    let sum = 0;
    for (let i = 0; i < count; i++) sum += table.find4(words[i & 4095]!);
    return sum;
  });
  measure("prefix find6 among 5000 /128, 20 /16", 4_000_000, (count) => {
    let sum = 0;
    for (let i = 0; i < count; i++) sum += table.find6(bytes, 16 * (i & 4095));
    return sum;
  });
}

function benchConntrack(): void {
  for (const isV6 of [false, true]) {
    const version = isV6 ? "IPv6" : "IPv4";
    const flows = 2048;
    const scene = new Scene(new Uint8Array(2 * flows * 128));
    const { arena } = scene;
    const packets: PacketInfo[] = [];
    const table = new ConntrackTable(65536, noise(new Uint8Array(16)));
    for (let i = 0; i < 2 * flows; i++) {
      const packet = new PacketInfo();
      readPacket(arena, 128 * i, scene.placeTcp(128 * i, isV6, 0, 1024 + i, 1), packet);
      packets.push(packet);
      if (i < flows) table.insert(arena, packet, 1, 1000, 1, 0, 0);
    }
    measure(`conntrack ${version} find + touch, 2048 flows`, 2_000_000, (count) => {
      let sum = 0;
      for (let i = 0; i < count; i++) {
        const packet = packets[i & (flows - 1)]!;
        const flow = table.find(arena, packet, 1);
        table.touch(flow, packet, 1);
        sum += flow;
      }
      return sum;
    });
    measure(`conntrack ${version} miss`, 2_000_000, (count) => {
      let sum = 0;
      for (let i = 0; i < count; i++) sum += table.find(arena, packets[flows + (i & (flows - 1))]!, 1);
      return sum;
    });
    measure(`conntrack ${version} insert + remove`, 1_000_000, (count) => {
      let sum = 0;
      for (let i = 0; i < count; i++) {
        const flow = table.insert(arena, packets[flows + (i & (flows - 1))]!, 1, 1000, 1, 1, 0);
        table.remove(flow);
        sum += flow;
      }
      return sum;
    });
  }
}

/** What a redirected packet costs beyond a plain one, and what a plain one pays for there being a proxy. */
function benchRedirect(): void {
  for (const isV6 of [false, true]) {
    const version = isV6 ? "IPv6" : "IPv4";
    const flows = 2048;
    const scene = new Scene(new Uint8Array(flows * 128));
    const { arena } = scene;
    const conntrack = new ConntrackTable(64, noise(new Uint8Array(16)));
    const view = new RedirectView(new SharedArrayBuffer(RedirectView.bytes));
    const table = new RedirectTable(conntrack.makeKey(), view, 0);
    const packets: PacketInfo[] = [];
    for (let i = 0; i < flows; i++) {
      const packet = new PacketInfo();
      readPacket(arena, 128 * i, scene.placeTcp(128 * i, isV6, 0, 1024 + i, 1), packet);
      packets.push(packet);
      table.publish(table.insert(arena, packet, 1, 1000, 1, KIND_HTTP, 8080, 0, 0));
    }
    measure(`redirect ${version} is it for a proxy?`, 5_000_000, (count) => {
      let sum = 0;
      for (let i = 0; i < count; i++) {
        const packet = packets[i & (flows - 1)]!;
        sum += proxyRoleOf(arena, packet.destinationAt, packet.version);
      }
      return sum;
    });
    measure(`redirect ${version} find + touch, 2048 flows`, 2_000_000, (count) => {
      let sum = 0;
      for (let i = 0; i < count; i++) {
        const packet = packets[i & (flows - 1)]!;
        const slot = table.find(arena, packet, 1);
        table.touch(slot, LEG_OPENER, false, packet, 1);
        sum += slot;
      }
      return sum;
    });
    const packet = packets[0]!;
    const slot = table.find(arena, packet, 1);
    measure(`redirect ${version} rewrite there and back`, 1_000_000, (count) => {
      const client = table.roleAt(ROLE_CLIENT, packet.version);
      for (let i = 0; i < count; i++) {
        rewritePacket(arena, packet, false, table.addresses, client, table.ownAt(slot), table.handles[slot]!, 8080);
        rewritePacket(arena, packet, false, table.addresses, table.fromAt(slot), table.toAt(slot), 1024, 80);
      }
      return packet.sourcePort;
    });
  }
}

const SEGMENTS = 46;
const SEGMENT_BYTES = 1348;

function benchSplit(): void {
  const scene = new Scene(noise(makePacketMemory(1 << 17)));
  const { arena } = scene;
  const splitter = new Splitter(arena);
  for (const isV6 of [false, true]) {
    measure(`split ${isV6 ? "IPv6" : "IPv4"} TCP 46 x 1348, per segment`, SEGMENTS * 2000, (count) => {
      let sum = 0;
      for (let done = 0; done < count; done += SEGMENTS) {
        const end = scene.placeTcp(256, isV6, 0, 40000, 1) + SEGMENTS * SEGMENT_BYTES;
        const lengthAt = isV6 ? 256 + 4 : 256 + 2;
        const length = end - 256 - (isV6 ? 40 : 0);
        arena[lengthAt] = length >> 8;
        arena[lengthAt + 1] = length & 255;
        writeGsoHeader(arena, 246, isV6 ? 4 : 1, 0, SEGMENT_BYTES, isV6 ? 40 : 20);
        if (splitter.begin(246, end) !== 0) throw new Error("Cannot split the benchmark's packet: refused");
        while (splitter.next()) sum += splitter.segmentAt;
      }
      return sum;
    });
  }
}

function benchMerge(): void {
  const scene = new Scene(noise(makePacketMemory(1 << 18)));
  const slotBytes = 2048;
  for (const isV6 of [false, true]) {
    const merger = new Merger(scene.arena, { tcp: true, udp: true });
    const ends = new Int32Array(SEGMENTS);
    const place = (i: number) => {
      ends[i] = scene.placeTcp(256 + i * slotBytes, isV6, SEGMENT_BYTES, 40000, 1 + i * SEGMENT_BYTES);
    };
    for (let i = 0; i < SEGMENTS; i++) place(i);
    const ipHeaderBytes = isV6 ? 40 : 20;
    // the second as a run of full segments goes: all but the first by `extend`
    for (const [name, isTrain] of [["", false], [" in a train", true]] as const) {
      let writes = 0;
      const write = () => (writes++, true);
      measure(`merge ${isV6 ? "IPv6" : "IPv4"} TCP 46 x 1348${name}, per packet`, SEGMENTS * 2000, (count) => {
        writes = 0;
        for (let done = 0; done < count; done += SEGMENTS) {
          place(0); // the flush before rewrote its headers
          for (let i = 0; i < SEGMENTS; i++) {
            const at = 256 + i * slotBytes;
            if (!isTrain || !merger.extend(at, ends[i]!, ipHeaderBytes)) merger.add(at, ends[i]!);
          }
          merger.flush(write);
        }
        if (writes !== Math.ceil(count / SEGMENTS)) {
          throw new Error("Cannot merge the benchmark's packets: too many writes");
        }
        return writes;
      });
    }
  }
}

const STAGES: Record<string, () => void> = {
  parse: benchParse,
  checksum: benchChecksum,
  prefix: benchPrefix,
  policy: () => benchPolicy(measure),
  conntrack: benchConntrack,
  redirect: benchRedirect,
  split: benchSplit,
  seal: () => benchSeal(measure),
  merge: benchMerge,
};

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !(name in STAGES));
if (unknown.length > 0) {
  console.error(`Unknown stage "${unknown[0]}": there are ${Object.keys(STAGES).join(", ")}`);
  process.exit(2);
}
const { versions } = process;
console.log(versions.bun ? `Bun ${versions.bun}` : versions.deno ? `Deno ${versions.deno}` : `Node ${versions.node}`);
for (const [name, run] of Object.entries(STAGES)) if (wanted.length === 0 || wanted.includes(name)) run();
if (sink === 0.5) console.log(""); // the results are used
