/**
 * Random and mutated octets into every reader of packets, one after the other. EDGEMESH_FUZZ sets how many each gets (the slow stage
 * runs a million), EDGEMESH_FUZZ_SEED which ones.
 */
import { describe, expect, it } from "vitest";
import { decapsulate, Envelope } from "../../../src/datapath/encapsulation.ts";
import { Merger } from "../../../src/offload/merge.ts";
import { Splitter } from "../../../src/offload/split.ts";
import { FORWARD, REASONS } from "../../../src/verdict.ts";
import { GeneveHeader, readGeneve } from "../../../src/wire/geneve.ts";
import { PacketInfo, readPacket } from "../../../src/wire/packet.ts";
import { readVxlan } from "../../../src/wire/vxlan.ts";
import { seeded } from "../../fakes/network.ts";
import { makePacket, ones } from "../../fakes/packets.ts";

const COUNT = Number(process.env["EDGEMESH_FUZZ"] ?? 20_000);
const SEED = Number(process.env["EDGEMESH_FUZZ_SEED"] ?? 1);
/** where the octets lie in the arena: with room before and behind, as in the packet path */
const AT = 256;

const arena = new Uint8Array(8192);
const header = new GeneveHeader();
const packet = new PacketInfo();
const envelope = new Envelope();
const splitter = new Splitter(arena);
const merger = new Merger(arena, { tcp: true, udp: true });
let written = 0;

const V4 = makePacket({ source: "10.9.0.1", destination: "10.9.0.2", protocol: "tcp", payload: new Uint8Array(100) });
const V6 = makePacket({ source: "fd09::1", destination: "fd09::2", payload: new Uint8Array(40) });
const SUPERPACKET = Uint8Array.of(1, 1, 40, 0, 20, 0, 20, 0, 16, 0, ...V4);
const GENEVE = genuineEnvelope();

function genuineEnvelope(): Uint8Array {
  const udpBytes = 8 + 8 + 14 + V4.length;
  const ip = Uint8Array.of(0x45, 0, 0, 20 + udpBytes, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2);
  const checksum = ones(ip);
  ip.set([checksum >> 8, checksum & 255], 10);
  const rest = [0xe0, 0, 0x17, 0xc1, 0, udpBytes, 0, 0, 0, 0, 0x65, 0x58, 1, 0, 1, 0, ...new Uint8Array(12), 8, 0];
  return Uint8Array.of(...ip, ...rest, ...V4);
}

/** A reader, what is genuine for it, and how far its answer may reach. */
const READERS: readonly [name: string, genuine: Uint8Array, read: (end: number) => [verdict: number, reach: number]][] =
  [
    ["readPacket, IPv4", V4, (end) => [readPacket(arena, AT, end, packet), packet.end]],
    ["readPacket, IPv6", V6, (end) => [readPacket(arena, AT, end, packet), packet.end]],
    ["readGeneve", GENEVE.slice(28), (end) => [readGeneve(arena, AT, end, header), header.payloadAt]],
    [
      "readVxlan",
      Uint8Array.of(8, 0, 0, 0, 1, 2, 3, 0, ...V4),
      (end) => [readVxlan(arena, AT, end, header), header.payloadAt],
    ],
    ["decapsulate", GENEVE, (end) => [decapsulate(arena, AT, end, "geneve", envelope), envelope.innerEnd]],
    ["Splitter", SUPERPACKET, (end) => {
      const verdict = splitter.begin(AT, end);
      let reach = AT;
      for (let segments = 0; splitter.next(); segments++) {
        if (segments > 200) throw new Error("the splitter does not end");
        reach = Math.max(reach, splitter.segmentEnd);
      }
      return [verdict, reach];
    }],
    ["Merger", V4, (end) => {
      const before = written;
      merger.add(AT, end);
      merger.flush(() => (written++, true));
      return [written === before + 1 ? FORWARD : -1, end];
    }],
  ];

describe(`readers under ${COUNT} hostile inputs each (seed ${SEED})`, () => {
  it.each(READERS)("%s gives each a verdict of the list and reads inside them", (_, genuine, read) => {
    const random = seeded(SEED);
    let forwarded = 0;
    for (let i = 0; i < COUNT; i++) {
      const isRandom = random() < 0.3;
      const length = isRandom
        ? Math.floor(random() * 120)
        : random() < 0.2
        ? Math.floor(random() * genuine.length)
        : genuine.length;
      if (isRandom) { for (let at = 0; at < length; at++) arena[AT + at] = random() * 256; }
      else {
        for (let at = 0; at < length; at++) arena[AT + at] = genuine[at]!;
        for (let n = 1 + Math.floor(random() * 3); n > 0 && length > 0; n--) {
          arena[AT + Math.floor(random() * Math.min(length, 64))] = random() * 256;
        }
      }
      const end = AT + length;
      const [verdict, reach] = read(end);
      if (verdict === FORWARD) {
        forwarded++;
        if (reach > end) throw new Error(`input ${i}: reached ${reach - end} octets past the end`);
      } else if (!REASONS.has(verdict)) throw new Error(`input ${i}: verdict ${verdict}`);
    }
    expect(forwarded).toBeGreaterThan(0);
  }, 600_000);
});
