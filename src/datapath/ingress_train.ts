/**
 * Packets of one flow that come right behind each other, as a bulk transfer sends them: full segments that differ in what GRO may
 * merge, and in nothing else. What the first of them was judged by stands in its headers, so one comparison of all headers at once,
 * from the envelope to the TCP options, answers for the next what steps 2 to 7 of `ingress.ts` would.
 *
 *     | outer IP | UDP | Geneve | Ethernet | IP      | TCP               |
 *     |  same    same*   same     same       same**    same***           |  * checksum  ** IPv4 id, checksum  *** sequence, checksum, PSH
 *
 * Within one run only, as nothing changes a table meanwhile but a packet that is looked up (`flow_memo.ts`). What has to be true
 * of the rest is asked by `Merger.extend`. Needs vector code; without it every packet goes the long way.
 *
 * Hot file (bench: `scripts/bench/datapath.ts`).
 */
import { readU8, writeU16, writeU32, writeU8 } from "../bytes/integers.ts";
import { type VectorCode, vectorCodeOf } from "../bytes/packet_memory.ts";
import { TCP_CHECKSUM_AT, UDP_CHECKSUM_AT } from "../offload/virtio.ts";
import { IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PROTOCOL_TCP, PROTOCOL_UDP, UDP_HEADER_BYTES } from "../wire/numbers.ts";
import type { PacketInfo } from "../wire/packet.ts";

/** Room for the mask: IPv6, UDP, Geneve, Ethernet; IPv6, TCP with options (170); rounded up to whole vectors. */
export const TRAIN_MASK_BYTES = 176;
const VECTOR_BYTES = 16;
/** So many packets, and there is load: only then is the code made (`checksum.ts` waits likewise). */
const LOAD_PACKETS = 1024;

const PSH = 0x08;
const IPV4_ID_AT = 4;
const IPV4_CHECKSUM_AT = 10;
const TCP_SEQUENCE_AT = 4;
const TCP_FLAGS_AT = 13;

export class IngressTrain {
  /** The inner packet that `isNext` found. */
  innerAt = 0;
  innerEnd = 0;
  /** of either packet */
  ipHeaderBytes = 0;
  /** index of their flow in the flow table */
  flow = -1;

  readonly #bytes: Uint8Array;
  readonly #offset: number;
  readonly #maskAt: number;
  #vectors: VectorCode | undefined;
  #packets = 0;

  // The packet before. #octets is 0 when there is none.
  #at = 0;
  #octets = 0;
  #peerSlot = -1;
  #innerOffset = 0;
  #innerBytes = 0;
  #headerBytes = 0;

  // What the mask is for: one shape after another is rare.
  #shape = -1;

  /** @param maskAt TRAIN_MASK_BYTES of the arena for our own */
  constructor(arena: Uint8Array, maskAt: number) {
    this.#bytes = arena;
    this.#offset = arena.byteOffset;
    this.#maskAt = maskAt;
  }

  forget(): void {
    this.#octets = 0;
  }

  /**
   * Notes a packet that was let pass as part of a flow and given to the merger.
   *
   * @param at     what came out of WireGuard, or the datagram of the plain tunnel, envelope and padding included
   * @param end    its end
   * @param udpAt  offset of the outer UDP header behind `at`; -1: there is none
   */
  note(at: number, end: number, udpAt: number, packet: PacketInfo, peerSlot: number, flow: number): void {
    this.#octets = 0;
    if (this.#vectors === undefined) {
      if (++this.#packets === LOAD_PACKETS) this.#vectors = vectorCodeOf(this.#bytes.buffer);
      return;
    }
    const ipHeaderBytes = packet.version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    if (packet.transportAt - packet.at !== ipHeaderBytes) return;
    const { protocol } = packet;
    if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) return;
    const transportBytes = protocol === PROTOCOL_UDP
      ? UDP_HEADER_BYTES
      : (readU8(this.#bytes, packet.transportAt + 12) >> 4) * 4;
    const innerOffset = packet.at - at;
    const headerBytes = innerOffset + ipHeaderBytes + transportBytes;
    if (headerBytes > TRAIN_MASK_BYTES || at + TRAIN_MASK_BYTES > this.#bytes.length) return;
    const kinds = (packet.version === 4 ? 2 : 0) + (protocol === PROTOCOL_TCP ? 1 : 0);
    const shape = (innerOffset << 18) | (headerBytes << 10) | ((udpAt + 1) << 2) | kinds; // 7, 8, 8 and 2 bits
    if (shape !== this.#shape) this.#writeMask(shape, innerOffset, ipHeaderBytes, headerBytes, udpAt, protocol);
    this.#at = at;
    this.#octets = end - at;
    this.#peerSlot = peerSlot;
    this.#innerOffset = innerOffset;
    this.#innerBytes = packet.end - packet.at;
    this.#headerBytes = headerBytes;
    this.ipHeaderBytes = ipHeaderBytes;
    this.flow = flow;
  }

  /** Whether this packet of a peer's is like the one before in all that was judged. Then it is the one before for the next. */
  isNext(at: number, end: number, peerSlot: number): boolean {
    if (end - at !== this.#octets || peerSlot !== this.#peerSlot) return false;
    const offset = this.#offset;
    const octets = (this.#headerBytes + VECTOR_BYTES - 1) & ~(VECTOR_BYTES - 1);
    if (at + octets > this.#bytes.length) return false;
    if (this.#vectors!.isSame(offset + this.#at, offset + at, offset + this.#maskAt, octets) === 0) return false;
    this.#at = at;
    this.innerAt = at + this.#innerOffset;
    this.innerEnd = this.innerAt + this.#innerBytes;
    return true;
  }

  #writeMask(
    shape: number,
    innerOffset: number,
    ipHeaderBytes: number,
    headerBytes: number,
    udpAt: number,
    protocol: number,
  ): void {
    const bytes = this.#bytes;
    const maskAt = this.#maskAt;
    bytes.fill(0xff, maskAt, maskAt + headerBytes);
    bytes.fill(0, maskAt + headerBytes, maskAt + TRAIN_MASK_BYTES);
    if (udpAt >= 0) writeU16(bytes, maskAt + udpAt + UDP_CHECKSUM_AT, 0);
    if (ipHeaderBytes === IPV4_HEADER_BYTES) {
      writeU16(bytes, maskAt + innerOffset + IPV4_ID_AT, 0);
      writeU16(bytes, maskAt + innerOffset + IPV4_CHECKSUM_AT, 0);
    }
    const transportAt = maskAt + innerOffset + ipHeaderBytes;
    if (protocol === PROTOCOL_TCP) {
      writeU32(bytes, transportAt + TCP_SEQUENCE_AT, 0);
      writeU8(bytes, transportAt + TCP_FLAGS_AT, ~PSH);
      writeU16(bytes, transportAt + TCP_CHECKSUM_AT, 0);
    } else writeU16(bytes, transportAt + UDP_CHECKSUM_AT, 0);
    this.#shape = shape;
  }
}
