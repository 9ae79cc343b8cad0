/**
 * Splits a superpacket from the TUN (TSO, USO) into packets, in place and one at a time.
 *
 *     | virtio | headers | payload 1 | payload 2 | payload 3 |
 *              [ segment 1           ]
 *                          [ headers | payload 2 ]              written over the end of payload 1
 *                                      [ headers | payload 3 ]
 *
 * So the caller is done with a segment (it has sealed it to somewhere else) before it asks for the next, and may use every octet
 * before `segmentAt`: of the first segment that is the virtio header and whatever headroom the caller left before it, of later
 * ones at least as much. Octets from `segmentEnd` on belong to the next segment and must be as they were when `next` is called.
 *
 * Packets that are no superpacket pass through; an unfinished checksum is finished. Headers are read from the packet, never from
 * the virtio header's hint. Hot file (bench: `scripts/bench/micro.ts`, stage "split"). Read virtio.ts first.
 */
import { Checksummer, complement, fold, sumOctets } from "../bytes/checksum.ts";
import { readI32, readU16, readU16LE, readU8, writeU16, writeU32, writeU8 } from "../bytes/integers.ts";
import { DROP_BAD_OFFLOAD_HEADER, DROP_TOO_MANY_SEGMENTS, FORWARD, type Verdict } from "../verdict.ts";
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_HEADER_BYTES,
  UDP_HEADER_BYTES,
} from "../wire/numbers.ts";
import {
  AT_CSUM_OFFSET,
  AT_CSUM_START,
  AT_FLAGS,
  AT_GSO_SIZE,
  AT_GSO_TYPE,
  FLAG_NEEDS_CSUM,
  GSO_ECN,
  GSO_NONE,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP,
  TCP_CHECKSUM_AT,
  UDP_CHECKSUM_AT,
  VIRTIO_HEADER_BYTES,
} from "./virtio.ts";

/**
 * Segments that one superpacket may give unless the caller says otherwise: 65535 octets at a TCP payload of 341. Kernels give at
 * most 128 for UDP, and 122 for TCP at the smallest segment size that Internet hosts use (536).
 */
export const DEFAULT_MAX_SEGMENTS = 192;

/** IPv4 with options (60) or IPv6 with extension headers, and TCP with options (60). */
const MAX_HEADER_BYTES = 192;
const MAX_PACKET_BYTES = 65535;

const FLAGS_LAST_ONLY = 0x09; // FIN, PSH
const FLAG_CWR = 0x80;
const EXTENSION_HOP_BY_HOP = 0;
const EXTENSION_DESTINATION = 60;

/** One superpacket at a time: `begin`, then `next` until it answers false. Allocates nothing after construction. */
export class Splitter {
  /** The segment that `next` made: first octet of its IP header, and one past its payload. */
  segmentAt = 0;
  segmentEnd = 0;
  /** Segments of the packet that `begin` took. */
  segments = 0;
  /** Octets of its largest segment, headers included; all but the last have exactly so many. */
  segmentBytes = 0;

  readonly #bytes: Uint8Array;
  readonly #sums: Checksummer;
  readonly #maxSegments: number;
  /** headers of the superpacket: the caller overwrites those in place */
  readonly #headers = new Uint8Array(MAX_HEADER_BYTES);
  #index = 0;
  /** false: one packet that passes as it is */
  #isSuperpacket = false;
  #packetAt = 0;
  #payloadAt = 0;
  #packetEnd = 0;
  #gsoSize = 0;
  #headerBytes = 0;
  #ipHeaderBytes = 0;
  #isTcp = false;
  #isV4 = false;
  /** sums of what does not change from segment to segment */
  #ipSum = 0;
  #transportSum = 0;
  /** of the pseudo-header, without the length */
  #pseudoSum = 0;

  /** @param bytes the arena; see `Checksummer` for what it must be */
  constructor(bytes: Uint8Array, maxSegments: number = DEFAULT_MAX_SEGMENTS) {
    this.#bytes = bytes;
    this.#sums = new Checksummer(bytes);
    this.#maxSegments = maxSegments;
  }

  /**
   * Takes a packet as read from a TUN with offload. `readPacket` need not have accepted it: all that is used is checked.
   *
   * Addresses and ports may still be rewritten in place before the first `next`.
   *
   * @param at  the virtio header; the IP packet follows it
   * @param end one past the packet
   * @returns FORWARD, DROP_BAD_OFFLOAD_HEADER (header and packet do not fit together), or DROP_TOO_MANY_SEGMENTS
   */
  begin(at: number, end: number): Verdict {
    const bytes = this.#bytes;
    const packetAt = at + VIRTIO_HEADER_BYTES;
    if (end - packetAt < IPV4_HEADER_BYTES || end - packetAt > MAX_PACKET_BYTES) return this.#refuse();
    const type = readU8(bytes, at + AT_GSO_TYPE) & ~GSO_ECN;
    const needsChecksum = (readU8(bytes, at + AT_FLAGS) & FLAG_NEEDS_CSUM) !== 0;
    const checksumStart = readU16LE(bytes, at + AT_CSUM_START);
    const checksumOffset = readU16LE(bytes, at + AT_CSUM_OFFSET);
    if (type === GSO_NONE) {
      if (needsChecksum && !this.#finishChecksum(packetAt, end, checksumStart, checksumOffset)) return this.#refuse();
      return this.beginPlain(packetAt, end);
    }
    if (!needsChecksum || !this.#readHeaders(packetAt, end, type, checksumStart, checksumOffset)) return this.#refuse();
    this.#gsoSize = readU16LE(bytes, at + AT_GSO_SIZE);
    if (this.#gsoSize === 0) return this.#refuse();
    const payloadBytes = end - this.#payloadAt;
    this.segments = Math.ceil(payloadBytes / this.#gsoSize);
    if (this.segments > this.#maxSegments) {
      this.#refuse();
      return DROP_TOO_MANY_SEGMENTS;
    }
    this.segmentBytes = this.#headerBytes + Math.min(this.#gsoSize, payloadBytes);
    this.#isSuperpacket = true;
    this.#index = 0;
    return FORWARD;
  }

  /** Takes a packet without a virtio header, as a TUN without offload gives it: it passes as it is. */
  beginPlain(at: number, end: number): Verdict {
    this.#isSuperpacket = false;
    this.#packetAt = at;
    this.#packetEnd = end;
    this.#index = 0;
    this.segments = 1;
    this.segmentBytes = end - at;
    return FORWARD;
  }

  /** Makes the next segment and sets `segmentAt` and `segmentEnd`; false when there is none. */
  next(): boolean {
    if (this.#index >= this.segments) return false;
    if (this.#isSuperpacket) this.#makeSegment(this.#index);
    else {
      this.segmentAt = this.#packetAt;
      this.segmentEnd = this.#packetEnd;
    }
    this.#index++;
    return true;
  }

  /**
   * The folded sum of all octets of the segment that `next` made, without reading its payload again: its checksums are right, so
   * that what they cover is known from the pseudo-header.
   * @returns -1 for a packet that passes as it is: whether its checksums are right is not known
   */
  sumSegment(): number {
    if (!this.#isSuperpacket) return -1;
    const transportAt = this.segmentAt + this.#ipHeaderBytes;
    const transportSum = complement(this.#pseudoSum + (this.segmentEnd - transportAt));
    return this.#isV4 ? transportSum : fold(sumOctets(this.#bytes, this.segmentAt, transportAt) + transportSum);
  }

  /** After a refusal `next` gives nothing, so that a caller who overlooks the verdict sends nothing. */
  #refuse(): Verdict {
    this.segments = 0;
    this.#index = 0;
    return DROP_BAD_OFFLOAD_HEADER;
  }

  /** Completes the sum whose pseudo-header part stands in the checksum field. */
  #finishChecksum(at: number, end: number, start: number, offset: number): boolean {
    const bytes = this.#bytes;
    const fieldAt = at + start + offset;
    if (start < IPV4_HEADER_BYTES || fieldAt + 2 > end) return false;
    const checksum = complement(this.#sums.sum(at + start, end));
    // Only UDP has its checksum there; a UDP checksum of 0 would say that there is none (RFC 768).
    writeU16(bytes, fieldAt, checksum === 0 && offset === UDP_CHECKSUM_AT ? 0xffff : checksum);
    return true;
  }

  /** Checks that the packet is what the virtio header says, and notes where its parts are. */
  #readHeaders(at: number, end: number, type: number, checksumStart: number, checksumOffset: number): boolean {
    const bytes = this.#bytes;
    const version = readU8(bytes, at) >> 4;
    const isTcp = type === GSO_TCP4 || type === GSO_TCP6;
    if (!isTcp && type !== GSO_UDP) return false;
    if (type === GSO_TCP4 && version !== 4 || type === GSO_TCP6 && version !== 6) return false;
    const protocol = isTcp ? PROTOCOL_TCP : PROTOCOL_UDP;
    const ipHeaderBytes = version === 4
      ? ipv4HeaderBytes(bytes, at, end, protocol)
      : version === 6
      ? ipv6HeaderBytes(bytes, at, end, protocol)
      : 0;
    if (ipHeaderBytes === 0 || checksumStart !== ipHeaderBytes) return false;
    if (checksumOffset !== (isTcp ? TCP_CHECKSUM_AT : UDP_CHECKSUM_AT)) return false;
    const transportAt = at + ipHeaderBytes;
    if (end - transportAt < (isTcp ? TCP_HEADER_BYTES : UDP_HEADER_BYTES)) return false;
    const transportBytes = isTcp ? (readU8(bytes, transportAt + 12) >> 4) * 4 : UDP_HEADER_BYTES;
    const headerBytes = ipHeaderBytes + transportBytes;
    if (isTcp && transportBytes < TCP_HEADER_BYTES) return false;
    if (headerBytes > MAX_HEADER_BYTES || at + headerBytes >= end) return false; // no payload: nothing to split
    this.#packetAt = at;
    this.#packetEnd = end;
    this.#payloadAt = at + headerBytes;
    this.#headerBytes = headerBytes;
    this.#ipHeaderBytes = ipHeaderBytes;
    this.#isTcp = isTcp;
    this.#isV4 = version === 4;
    return true;
  }

  /** Keeps the headers, and sums what all segments have in common. */
  #keepHeaders(): void {
    const bytes = this.#bytes;
    const headers = this.#headers;
    for (let i = 0; i < this.#headerBytes; i++) headers[i] = bytes[this.#packetAt + i]!;
    const transportAt = this.#ipHeaderBytes;
    if (this.#isV4) {
      // without total length, id and checksum
      this.#ipSum = sumOctets(headers, 0, 2) + sumOctets(headers, 6, 10) + sumOctets(headers, 12, transportAt);
    }
    const addresses = this.#isV4 ? sumOctets(headers, 12, 20) : sumOctets(headers, 8, 40);
    this.#pseudoSum = addresses + (this.#isTcp ? PROTOCOL_TCP : PROTOCOL_UDP);
    this.#transportSum = this.#isTcp
      // without sequence number, flags and checksum
      ? addresses + PROTOCOL_TCP + sumOctets(headers, transportAt, transportAt + 4) +
        sumOctets(headers, transportAt + 8, transportAt + 12) + sumOctets(headers, transportAt + 14, transportAt + 16) +
        sumOctets(headers, transportAt + 18, this.#headerBytes)
      : addresses + PROTOCOL_UDP + sumOctets(headers, transportAt, transportAt + 4);
  }

  #makeSegment(index: number): void {
    if (index === 0) this.#keepHeaders();
    const bytes = this.#bytes;
    const headers = this.#headers;
    const headerBytes = this.#headerBytes;
    const payloadAt = this.#payloadAt + index * this.#gsoSize;
    const end = Math.min(payloadAt + this.#gsoSize, this.#packetEnd);
    const at = payloadAt - headerBytes;
    if (index > 0) { for (let i = 0; i < headerBytes; i++) bytes[at + i] = headers[i]!; }
    if (this.#isV4) this.#writeIpv4(at, end, index);
    else writeU16(bytes, at + 4, end - at - IPV6_HEADER_BYTES);
    if (this.#isTcp) this.#writeTcp(at, payloadAt, end, index);
    else this.#writeUdp(at, payloadAt, end);
    this.segmentAt = at;
    this.segmentEnd = end;
  }

  #writeIpv4(at: number, end: number, index: number): void {
    const bytes = this.#bytes;
    const id = (readU16(this.#headers, 4) + index) & 0xffff;
    writeU16(bytes, at + 2, end - at);
    writeU16(bytes, at + 4, id);
    writeU16(bytes, at + 10, complement(this.#ipSum + (end - at) + id));
  }

  #writeTcp(at: number, payloadAt: number, end: number, index: number): void {
    const bytes = this.#bytes;
    const transportAt = at + this.#ipHeaderBytes;
    const sequence = readI32(this.#headers, this.#ipHeaderBytes + 4) + index * this.#gsoSize;
    let flags = readU8(this.#headers, this.#ipHeaderBytes + 13);
    if (end < this.#packetEnd) flags &= ~FLAGS_LAST_ONLY;
    if (index > 0) flags &= ~FLAG_CWR;
    writeU32(bytes, transportAt + 4, sequence);
    writeU8(bytes, transportAt + 13, flags);
    const changing = (end - transportAt) + ((sequence >>> 16) & 0xffff) + (sequence & 0xffff) +
      readU16(bytes, transportAt + 12);
    const sum = this.#transportSum + changing + this.#sums.sum(payloadAt, end);
    writeU16(bytes, transportAt + TCP_CHECKSUM_AT, complement(sum));
  }

  #writeUdp(at: number, payloadAt: number, end: number): void {
    const bytes = this.#bytes;
    const transportAt = at + this.#ipHeaderBytes;
    const length = end - transportAt;
    writeU16(bytes, transportAt + 4, length);
    // The length counts twice: in the pseudo-header and in the header.
    const checksum = complement(this.#transportSum + 2 * length + this.#sums.sum(payloadAt, end));
    writeU16(bytes, transportAt + UDP_CHECKSUM_AT, checksum === 0 ? 0xffff : checksum); // RFC 768
  }
}

/** Octets of the IPv4 header of a whole, unfragmented packet of that protocol, or 0. */
function ipv4HeaderBytes(bytes: Uint8Array, at: number, end: number, protocol: number): number {
  const headerBytes = (readU8(bytes, at) & 0x0f) * 4;
  if (headerBytes < IPV4_HEADER_BYTES || readU16(bytes, at + 2) !== end - at) return 0;
  if ((readU16(bytes, at + 6) & 0x3fff) !== 0 || readU8(bytes, at + 9) !== protocol) return 0;
  return headerBytes;
}

/**
 * Octets of the IPv6 header and its extension headers, or 0 when it is no whole packet of that protocol. Headers that change
 * what the checksum covers, or that make it a fragment, are refused.
 */
function ipv6HeaderBytes(bytes: Uint8Array, at: number, end: number, protocol: number): number {
  if (end - at < IPV6_HEADER_BYTES || readU16(bytes, at + 4) !== end - at - IPV6_HEADER_BYTES) return 0;
  let next = readU8(bytes, at + 6);
  let headerBytes = IPV6_HEADER_BYTES;
  while (next === EXTENSION_HOP_BY_HOP || next === EXTENSION_DESTINATION) {
    if (at + headerBytes + 8 > end || headerBytes > MAX_HEADER_BYTES) return 0;
    next = readU8(bytes, at + headerBytes);
    headerBytes += 8 + readU8(bytes, at + headerBytes + 1) * 8;
  }
  return next === protocol ? headerBytes : 0;
}
