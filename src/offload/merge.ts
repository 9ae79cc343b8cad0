/**
 * Merges the packets of one batch into superpackets for the TUN (GRO): segments of one TCP stream, datagrams of one UDP flow.
 *
 * Packets stay where they are. A superpacket is the first packet, with its headers rewritten in place and a virtio header before
 * it, and then the payloads of the others, gathered by `writev`. Nothing is held after `flush`; there are no timers.
 *
 * Every packet becomes an item, or joins one. A packet joins only the newest item of its flow, so flows keep their order; the one
 * exception is a TCP segment that directly precedes that item, which goes in front of it, where it belongs. Packets that cannot
 * be assigned to a flow (fragments, options, extension headers) end all items: nothing passes them.
 *
 * Both transport checksums are verified before a merge: a superpacket is delivered without anybody looking at its checksum, so
 * merging would make a damaged packet good (facts: NEEDS_CSUM on TUN write).
 *
 * Hot file (bench: `scripts/bench/micro.ts`, stage "merge"). Read virtio.ts and merge_rules.ts first.
 */
import { Checksummer, complement, fold, sumOctets } from "../bytes/checksum.ts";
import { readI32, readU16, readU8, writeU16, writeU8 } from "../bytes/integers.ts";
import { IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/numbers.ts";
import { Candidate, hasSameHeaders, isSameFlow, KIND_BARRIER, KIND_TCP, KIND_UDP, TCP_PSH } from "./merge_rules.ts";
import {
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP,
  TCP_CHECKSUM_AT,
  UDP_CHECKSUM_AT,
  VIRTIO_HEADER_BYTES,
  writeGsoHeader,
  writePlainHeader,
} from "./virtio.ts";

/** Which protocols are merged. */
export interface MergerOptions {
  readonly tcp: boolean;
  readonly udp: boolean;
}

/**
 * Takes one packet for the TUN: pairs of `at`, `end`, the first beginning with the virtio header. Reused after the call.
 * @returns false: a superpacket was refused as such; its packets are then given one by one
 */
export type WritePieces = (pieces: Int32Array, count: number) => boolean;

/** Pieces of one write: a kernel takes 1024, and 256 segments of a TCP stream fill any superpacket that is worth it. */
const MAX_PIECES = 256;
/** Kernels before Linux 6.9 refuse UDP superpackets of more segments. */
const MAX_UDP_SEGMENTS = 64;
const MAX_PACKET_BYTES = 65535;
/** IPv4 flags and fragment offset */
const DONT_FRAGMENT = 0x4000;

/** Packets of a batch for which there is room from the start. */
const FIRST_CAPACITY = 1024;
const FLOW_BUCKETS = 2048;
/** A flow that finds no bucket within so many is not merged. */
const FLOW_WINDOW = 8;

const NONE = -1;

// Item state
const IS_OPEN = 1;
/** its first packet's checksum was verified */
const IS_VERIFIED = 2;
/** its last segment is shorter than the others, or carries PSH: nothing may follow */
const IS_ENDED = 4;
const HAS_PSH = 8;

/** One batch at a time: `add` each packet, then `flush`. Allocates only to grow beyond the largest batch so far. */
export class Merger {
  readonly #bytes: Uint8Array;
  readonly #sums: Checksummer;
  #options: MergerOptions;
  readonly #candidate = new Candidate();
  readonly #pieces = new Int32Array(2 * MAX_PIECES);

  /** newest item of a flow; valid where the stamp is the current one */
  readonly #flowItems = new Int32Array(FLOW_BUCKETS);
  readonly #flowStamps = new Int32Array(FLOW_BUCKETS);
  #stamp = 1;
  /** of the packet that was added last, where another may join it; else NONE */
  #lastItem = NONE;

  // Packets of the batch. There are never more items than packets.
  #capacity = 0;
  #packetCount = 0;
  #packetAt = new Int32Array(0);
  #packetEnd = new Int32Array(0);
  /** the packet that follows in the same item */
  #packetNext = new Int32Array(0);
  #itemCount = 0;
  #kind = new Uint8Array(0);
  #state = new Uint8Array(0);
  #head = new Int32Array(0);
  #tail = new Int32Array(0);
  #segments = new Int32Array(0);
  #headerBytes = new Int32Array(0);
  #payloadBytes = new Int32Array(0);
  #gsoSize = new Int32Array(0);
  #firstSequence = new Int32Array(0);
  #nextSequence = new Int32Array(0);

  /** @param bytes the arena; see `Checksummer` for what it must be */
  constructor(bytes: Uint8Array, options: MergerOptions) {
    this.#bytes = bytes;
    this.#sums = new Checksummer(bytes);
    this.#options = options;
    this.#grow(FIRST_CAPACITY);
  }

  /** Between a `flush` and the next `add` only. */
  setOptions(options: MergerOptions): void {
    this.#options = options;
  }

  /**
   * Takes one packet. It, and the 10 octets before it, are the merger's until `flush` returns: they may be overwritten.
   * @param at  first octet of the IP header, at least 10
   * @param end one past the packet
   */
  add(at: number, end: number): void {
    const packet = this.#keep(at, end);
    const candidate = this.#candidate;
    candidate.read(this.#bytes, at, end);
    this.#lastItem = NONE;
    if (candidate.kind !== KIND_TCP && candidate.kind !== KIND_UDP) {
      this.#startItem(packet, 0);
      if (candidate.kind === KIND_BARRIER) this.#forgetFlows();
      return;
    }
    const isEnabled = candidate.kind === KIND_TCP ? this.#options.tcp : this.#options.udp;
    let state = isEnabled && candidate.isMergeable ? IS_OPEN : 0;
    const bucket = this.#findBucket();
    const newest = bucket >= 0 && this.#flowStamps[bucket] === this.#stamp ? this.#flowItems[bucket]! : NONE;
    if (state !== 0 && newest !== NONE && (this.#state[newest]! & IS_OPEN) !== 0 && this.#mayJoin(newest)) {
      if (!this.#isItemSound(newest)) this.#state[newest] = 0;
      else if (!this.#isSound(at, end, candidate.kind)) state = 0;
      else {
        this.#join(newest, packet);
        this.#lastItem = newest;
        return;
      }
    }
    const item = this.#startItem(packet, state);
    if (state !== 0) this.#lastItem = item;
    if (bucket >= 0) {
      this.#flowStamps[bucket] = this.#stamp;
      this.#flowItems[bucket] = item;
    }
  }

  /**
   * Takes a packet that is like the one added last in all its headers say but length, IPv4 id, sequence number, PSH and checksums
   * (`ingress_train.ts` knows), if it continues the same superpacket: then nothing else need be looked at.
   *
   * @param ipHeaderBytes of either packet: 20 of a version 4 without options, 40 of a version 6 without extensions
   * @returns false: nothing was done, `add` it
   */
  extend(at: number, end: number, ipHeaderBytes: number): boolean {
    const item = this.#lastItem;
    if (item === NONE || (this.#state[item]! & (IS_OPEN | IS_ENDED)) !== IS_OPEN) return false;
    const payloadBytes = end - at - this.#headerBytes[item]!;
    if (payloadBytes !== this.#gsoSize[item]) return false;
    if (!this.#hasRoom(item, this.#kind[item]!, payloadBytes)) return false;
    if (!this.#isNext(item, at, ipHeaderBytes) || !this.#isItemSound(item)) return false;
    if (!this.#isSound(at, end, this.#kind[item]!)) return false;
    const packet = this.#keep(at, end);
    this.#packetNext[this.#tail[item]!] = packet;
    this.#tail[item] = packet;
    this.#segments[item] = this.#segments[item]! + 1;
    this.#payloadBytes[item] = this.#payloadBytes[item]! + payloadBytes;
    if (this.#kind[item] === KIND_TCP) {
      this.#nextSequence[item] = (this.#nextSequence[item]! + payloadBytes) | 0;
      if ((this.#bytes[at + ipHeaderBytes + 13]! & TCP_PSH) !== 0) {
        this.#state[item] = this.#state[item]! | HAS_PSH | IS_ENDED;
      }
    }
    return true;
  }

  /** Whether a packet with an item's headers follows its last one, by what differs in those headers. */
  #isNext(item: number, at: number, ipHeaderBytes: number): boolean {
    const bytes = this.#bytes;
    // without DF the id must count up: `add` looks
    if (ipHeaderBytes === IPV4_HEADER_BYTES && (readU16(bytes, at + 6) & DONT_FRAGMENT) === 0) return false;
    const transportAt = at + ipHeaderBytes;
    if (this.#kind[item] === KIND_TCP) return readI32(bytes, transportAt + 4) === this.#nextSequence[item];
    return readU16(bytes, transportAt + UDP_CHECKSUM_AT) !== 0;
  }

  /** Writes what was added, in order, and forgets it. @param write called once per packet for the TUN */
  flush(write: WritePieces): void {
    for (let item = 0; item < this.#itemCount; item++) {
      if (this.#segments[item] === 1) {
        const at = this.#packetAt[this.#head[item]!]!;
        writePlainHeader(this.#bytes, at - VIRTIO_HEADER_BYTES);
        write(this.#pieces, this.#gather(item));
      } else {
        this.#writeHeaders(item);
        if (!write(this.#pieces, this.#gather(item))) this.#writeSingly(item, write);
      }
    }
    this.#packetCount = 0;
    this.#itemCount = 0;
    this.#lastItem = NONE;
    this.#forgetFlows();
  }

  /** Whether the candidate continues or precedes an item of its own flow, by every rule but the checksums. */
  #mayJoin(item: number): boolean {
    const candidate = this.#candidate;
    if (candidate.headerBytes !== this.#headerBytes[item]) return false;
    if (!this.#hasRoom(item, candidate.kind, candidate.payloadBytes)) return false;
    const isAppend = this.#isAppend(item);
    if (!isAppend && !this.#isPrepend(item)) return false;
    const headAt = this.#packetAt[this.#head[item]!]!;
    return hasSameHeaders(this.#bytes, headAt, candidate, isAppend ? this.#segments[item]! : -1);
  }

  #hasRoom(item: number, kind: number, payloadBytes: number): boolean {
    if (this.#segments[item]! >= (kind === KIND_TCP ? MAX_PIECES : MAX_UDP_SEGMENTS)) return false;
    return this.#headerBytes[item]! + this.#payloadBytes[item]! + payloadBytes <= MAX_PACKET_BYTES;
  }

  #isAppend(item: number): boolean {
    const candidate = this.#candidate;
    if ((this.#state[item]! & IS_ENDED) !== 0 || candidate.payloadBytes > this.#gsoSize[item]!) return false;
    return candidate.kind === KIND_UDP || candidate.sequence === this.#nextSequence[item];
  }

  #isPrepend(item: number): boolean {
    const candidate = this.#candidate;
    if (candidate.kind !== KIND_TCP || (candidate.tcpFlags & TCP_PSH) !== 0) return false;
    if (((candidate.sequence + candidate.payloadBytes) | 0) !== this.#firstSequence[item]) return false;
    const gsoSize = this.#gsoSize[item]!;
    return this.#segments[item] === 1 ? candidate.payloadBytes >= gsoSize : candidate.payloadBytes === gsoSize;
  }

  #join(item: number, packet: number): void {
    const candidate = this.#candidate;
    const gsoSize = this.#gsoSize[item]!;
    if (this.#isAppend(item)) {
      this.#packetNext[this.#tail[item]!] = packet;
      this.#tail[item] = packet;
      this.#nextSequence[item] = (candidate.sequence + candidate.payloadBytes) | 0;
      this.#state[item] = this.#state[item]! | endOf(candidate, gsoSize);
    } else {
      this.#packetNext[packet] = this.#head[item]!;
      this.#head[item] = packet;
      this.#firstSequence[item] = candidate.sequence;
      this.#gsoSize[item] = candidate.payloadBytes;
      if (candidate.payloadBytes > gsoSize) this.#state[item] = this.#state[item]! | IS_ENDED;
    }
    this.#segments[item] = this.#segments[item]! + 1;
    this.#payloadBytes[item] = this.#payloadBytes[item]! + candidate.payloadBytes;
  }

  /** Notes a packet of the batch; its number. */
  #keep(at: number, end: number): number {
    if (this.#packetCount === this.#capacity) this.#grow(2 * this.#capacity);
    const packet = this.#packetCount++;
    this.#packetAt[packet] = at;
    this.#packetEnd[packet] = end;
    this.#packetNext[packet] = NONE;
    return packet;
  }

  #startItem(packet: number, state: number): number {
    const candidate = this.#candidate;
    const item = this.#itemCount++;
    this.#kind[item] = candidate.kind;
    this.#state[item] = state === 0 ? 0 : state | endOf(candidate, candidate.payloadBytes);
    this.#head[item] = packet;
    this.#tail[item] = packet;
    this.#segments[item] = 1;
    this.#headerBytes[item] = candidate.headerBytes;
    this.#payloadBytes[item] = candidate.payloadBytes;
    this.#gsoSize[item] = candidate.payloadBytes;
    this.#firstSequence[item] = candidate.sequence;
    this.#nextSequence[item] = (candidate.sequence + candidate.payloadBytes) | 0;
    return item;
  }

  /** Verifies an item's first packet, once. Those that joined were verified then. */
  #isItemSound(item: number): boolean {
    if ((this.#state[item]! & IS_VERIFIED) !== 0) return true;
    const packet = this.#head[item]!;
    if (!this.#isSound(this.#packetAt[packet]!, this.#packetEnd[packet]!, this.#kind[item]!)) return false;
    this.#state[item] = this.#state[item]! | IS_VERIFIED;
    return true;
  }

  /** Whether the IPv4 header and the transport part of a mergeable packet verify. */
  #isSound(at: number, end: number, kind: number): boolean {
    const bytes = this.#bytes;
    const isV4 = readU8(bytes, at) >> 4 === 4;
    if (isV4 && this.#sums.sum(at, at + IPV4_HEADER_BYTES) !== 0xffff) return false;
    const transportAt = at + (isV4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
    return fold(pseudoHeaderSum(bytes, at, isV4, kind, end - transportAt) + this.#sums.sum(transportAt, end)) ===
      0xffff;
  }

  /** Makes the first packet's headers those of the superpacket. */
  #writeHeaders(item: number): void {
    const bytes = this.#bytes;
    const at = this.#packetAt[this.#head[item]!]!;
    const kind = this.#kind[item]!;
    const headerBytes = this.#headerBytes[item]!;
    const totalBytes = headerBytes + this.#payloadBytes[item]!;
    const isV4 = readU8(bytes, at) >> 4 === 4;
    const ipHeaderBytes = isV4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    if (isV4) {
      writeU16(bytes, at + 2, totalBytes);
      writeU16(bytes, at + 10, 0);
      writeU16(bytes, at + 10, complement(sumOctets(bytes, at, at + IPV4_HEADER_BYTES)));
    } else writeU16(bytes, at + 4, totalBytes - IPV6_HEADER_BYTES);
    const transportAt = at + ipHeaderBytes;
    const transportBytes = totalBytes - ipHeaderBytes;
    const sum = fold(pseudoHeaderSum(bytes, at, isV4, kind, transportBytes));
    if (kind === KIND_TCP) {
      writeU16(bytes, transportAt + TCP_CHECKSUM_AT, sum);
      if ((this.#state[item]! & HAS_PSH) !== 0) {
        writeU8(bytes, transportAt + 13, readU8(bytes, transportAt + 13) | TCP_PSH);
      }
    } else {
      writeU16(bytes, transportAt + 4, transportBytes);
      writeU16(bytes, transportAt + UDP_CHECKSUM_AT, sum === 0 ? 0xffff : sum); // 0 would say: no checksum
    }
    const gsoType = kind === KIND_UDP ? GSO_UDP : isV4 ? GSO_TCP4 : GSO_TCP6;
    writeGsoHeader(bytes, at - VIRTIO_HEADER_BYTES, gsoType, headerBytes, this.#gsoSize[item]!, ipHeaderBytes);
  }

  /** Gives the packets of a superpacket that was refused, as they came. */
  #writeSingly(item: number, write: WritePieces): void {
    this.#restoreHeaders(item);
    const pieces = this.#pieces;
    for (let packet = this.#head[item]!; packet !== NONE; packet = this.#packetNext[packet]!) {
      const at = this.#packetAt[packet]! - VIRTIO_HEADER_BYTES;
      writePlainHeader(this.#bytes, at);
      pieces[0] = at;
      pieces[1] = this.#packetEnd[packet]!;
      write(pieces, 1);
    }
  }

  /** Undoes `#writeHeaders`: what it wrote over is known again from the packet itself, whose checksums were right. */
  #restoreHeaders(item: number): void {
    const bytes = this.#bytes;
    const packet = this.#head[item]!;
    const at = this.#packetAt[packet]!;
    const end = this.#packetEnd[packet]!;
    const kind = this.#kind[item]!;
    const isV4 = readU8(bytes, at) >> 4 === 4;
    const transportAt = at + (isV4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
    if (isV4) {
      writeU16(bytes, at + 2, end - at);
      writeU16(bytes, at + 10, 0);
      writeU16(bytes, at + 10, complement(sumOctets(bytes, at, at + IPV4_HEADER_BYTES)));
    } else writeU16(bytes, at + 4, end - transportAt);
    const checksumAt = transportAt + (kind === KIND_TCP ? TCP_CHECKSUM_AT : UDP_CHECKSUM_AT);
    // a first packet that others follow has no PSH: it comes from the last
    if (kind === KIND_TCP) writeU8(bytes, transportAt + 13, readU8(bytes, transportAt + 13) & ~TCP_PSH);
    else writeU16(bytes, transportAt + 4, end - transportAt);
    writeU16(bytes, checksumAt, 0);
    const sum = pseudoHeaderSum(bytes, at, isV4, kind, end - transportAt) + this.#sums.sum(transportAt, end);
    const checksum = complement(sum);
    writeU16(bytes, checksumAt, kind === KIND_UDP && checksum === 0 ? 0xffff : checksum);
  }

  /** Lists an item's pieces; their number. */
  #gather(item: number): number {
    const pieces = this.#pieces;
    let packet = this.#head[item]!;
    pieces[0] = this.#packetAt[packet]! - VIRTIO_HEADER_BYTES;
    pieces[1] = this.#packetEnd[packet]!;
    let count = 1;
    for (packet = this.#packetNext[packet]!; packet !== NONE; packet = this.#packetNext[packet]!) {
      pieces[2 * count] = this.#packetAt[packet]! + this.#headerBytes[item]!;
      pieces[2 * count + 1] = this.#packetEnd[packet]!;
      count++;
    }
    return count;
  }

  /** The bucket of the candidate's flow, else a free one, else -1. */
  #findBucket(): number {
    const bytes = this.#bytes;
    const candidate = this.#candidate;
    for (let i = 0; i < FLOW_WINDOW; i++) {
      const bucket = (candidate.flowHash + i) & (FLOW_BUCKETS - 1);
      if (this.#flowStamps[bucket] !== this.#stamp) return bucket;
      const item = this.#flowItems[bucket]!;
      if (this.#kind[item] !== candidate.kind) continue;
      if (isSameFlow(bytes, this.#packetAt[this.#head[item]!]!, candidate)) return bucket;
    }
    return NONE;
  }

  #forgetFlows(): void {
    if (this.#stamp === 0x7fffffff) {
      this.#flowStamps.fill(0);
      this.#stamp = 0;
    }
    this.#stamp++;
  }

  #grow(capacity: number): void {
    this.#capacity = capacity;
    this.#packetAt = grown(this.#packetAt, capacity);
    this.#packetEnd = grown(this.#packetEnd, capacity);
    this.#packetNext = grown(this.#packetNext, capacity);
    this.#head = grown(this.#head, capacity);
    this.#tail = grown(this.#tail, capacity);
    this.#segments = grown(this.#segments, capacity);
    this.#headerBytes = grown(this.#headerBytes, capacity);
    this.#payloadBytes = grown(this.#payloadBytes, capacity);
    this.#gsoSize = grown(this.#gsoSize, capacity);
    this.#firstSequence = grown(this.#firstSequence, capacity);
    this.#nextSequence = grown(this.#nextSequence, capacity);
    const kind = new Uint8Array(capacity), state = new Uint8Array(capacity);
    kind.set(this.#kind);
    state.set(this.#state);
    this.#kind = kind;
    this.#state = state;
  }
}

/** State bits that a last segment brings: nothing may follow a short one, nor one with PSH. */
function endOf(candidate: Candidate, gsoSize: number): number {
  const hasPsh = candidate.kind === KIND_TCP && (candidate.tcpFlags & TCP_PSH) !== 0;
  return (hasPsh ? HAS_PSH | IS_ENDED : 0) | (candidate.payloadBytes < gsoSize ? IS_ENDED : 0);
}

function pseudoHeaderSum(bytes: Uint8Array, at: number, isV4: boolean, kind: number, transportBytes: number): number {
  const addresses = isV4 ? sumOctets(bytes, at + 12, at + 20) : sumOctets(bytes, at + 8, at + 40);
  return addresses + (kind === KIND_TCP ? PROTOCOL_TCP : PROTOCOL_UDP) + transportBytes;
}

function grown(column: Int32Array<ArrayBuffer>, capacity: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(capacity);
  larger.set(column);
  return larger;
}
