/**
 * One fragment of an IP packet: what `readPacket` refuses, read down to its ports where it has them.
 *
 * A first fragment must hold the whole transport header, and no other may begin inside it: otherwise the ports that policy saw
 * are not those that the destination puts together (RFC 1858, RFC 3128, RFC 7112). `fragment_table.ts` sees to the second.
 * Facts: RFC 791 §3.2, RFC 8200 §4.5, RFC 6946 (IPv6 "atomic" fragments are whole packets).
 */
import { readI32, readU16, readU8 } from "../bytes/integers.ts";
import {
  DROP_FRAGMENT,
  DROP_INVALID_EXTENSION_HEADER,
  DROP_INVALID_PACKET,
  FORWARD,
  type Verdict,
} from "../verdict.ts";
import { isErrorType } from "./icmp_error.ts";
import {
  EXTENSION_DESTINATION,
  EXTENSION_FRAGMENT,
  EXTENSION_HOP_BY_HOP,
  EXTENSION_ROUTING,
  ICMP_HEADER_BYTES,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  MAX_EXTENSION_HEADERS,
  PROTOCOL_ICMP,
  PROTOCOL_ICMP6,
  PROTOCOL_SCTP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  SCTP_HEADER_BYTES,
  TCP_HEADER_BYTES,
  UDP_HEADER_BYTES,
} from "./numbers.ts";
import { ICMP6_ECHO_REPLY, ICMP6_ECHO_REQUEST, ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, type PacketInfo } from "./packet.ts";

const MORE_FRAGMENTS = 0x2000;
const OFFSET_BITS = 0x1fff;
const MAX_PACKET_BYTES = 65535;
const FRAGMENT_HEADER_BYTES = 8;

/** What makes a fragment one. All fields are written on FORWARD, none on a drop. */
export class FragmentInfo {
  /** all fragments of one packet have the same; 16 bits, IPv6 32, signed */
  id = 0;
  /** octets of the packet's data before this fragment's; 0: the first */
  offset = 0;
  /** one past this fragment's data, counted like `offset` */
  endOffset = 0;
  /** there is more of the packet; false with `offset` 0: it is whole (IPv6) */
  hasMore = false;
}

/**
 * Reads the fragment that starts at `at`. On FORWARD `into` is filled; its ports, ICMP fields and `tcpFlags` are 0 when `offset`
 * is not: the table has them from the first fragment.
 *
 * @returns FORWARD; DROP_FRAGMENT: one that no honest sender makes, or of a protocol without ports; DROP_INVALID_PACKET or
 *          DROP_INVALID_EXTENSION_HEADER
 */
export function readFragment(
  bytes: Uint8Array,
  at: number,
  end: number,
  into: PacketInfo,
  fragment: FragmentInfo,
): Verdict {
  if (end - at < IPV4_HEADER_BYTES) return DROP_INVALID_PACKET;
  return readU8(bytes, at) >> 4 === 4
    ? readFragment4(bytes, at, end, into, fragment)
    : readFragment6(bytes, at, end, into, fragment);
}

function readFragment4(bytes: Uint8Array, at: number, end: number, into: PacketInfo, fragment: FragmentInfo): Verdict {
  const headerBytes = (readU8(bytes, at) & 0x0f) * 4;
  const packetEnd = at + readU16(bytes, at + 2);
  if (headerBytes < IPV4_HEADER_BYTES || packetEnd > end || at + headerBytes > packetEnd) return DROP_INVALID_PACKET;
  const field = readU16(bytes, at + 6);
  const protocol = readU8(bytes, at + 9);
  if (protocol === PROTOCOL_ICMP6) return DROP_FRAGMENT;
  const offset = (field & OFFSET_BITS) * 8;
  const verdict = readData(
    bytes,
    at + headerBytes,
    packetEnd,
    protocol,
    offset,
    (field & MORE_FRAGMENTS) !== 0,
    into,
    fragment,
  );
  if (verdict !== FORWARD) return verdict;
  fragment.id = readU16(bytes, at + 4);
  into.version = 4;
  into.at = at;
  into.end = packetEnd;
  into.sourceAt = at + 12;
  into.destinationAt = at + 16;
  into.trafficClass = readU8(bytes, at + 1);
  return FORWARD;
}

/** Headers before the fragment header are in every fragment; those behind it belong to the data, and none is taken there. */
function readFragment6(bytes: Uint8Array, at: number, end: number, into: PacketInfo, fragment: FragmentInfo): Verdict {
  if (end - at < IPV6_HEADER_BYTES) return DROP_INVALID_PACKET;
  const packetEnd = at + IPV6_HEADER_BYTES + readU16(bytes, at + 4);
  if (packetEnd > end) return DROP_INVALID_PACKET;
  let next = readU8(bytes, at + 6);
  let position = at + IPV6_HEADER_BYTES;
  for (let i = 0; next !== EXTENSION_FRAGMENT; i++) {
    const isExtension = next === EXTENSION_HOP_BY_HOP || next === EXTENSION_ROUTING || next === EXTENSION_DESTINATION;
    if (!isExtension || i === MAX_EXTENSION_HEADERS || position + 8 > packetEnd) return DROP_INVALID_EXTENSION_HEADER;
    next = readU8(bytes, position);
    position += 8 + readU8(bytes, position + 1) * 8;
  }
  const dataAt = position + FRAGMENT_HEADER_BYTES;
  if (dataAt > packetEnd) return DROP_INVALID_EXTENSION_HEADER;
  const protocol = readU8(bytes, position);
  if (protocol === PROTOCOL_ICMP) return DROP_FRAGMENT;
  const field = readU16(bytes, position + 2);
  const verdict = readData(bytes, dataAt, packetEnd, protocol, field & 0xfff8, (field & 1) !== 0, into, fragment);
  if (verdict !== FORWARD) return verdict;
  fragment.id = readI32(bytes, position + 4);
  into.version = 6;
  into.at = at;
  into.end = packetEnd;
  into.sourceAt = at + 8;
  into.destinationAt = at + 24;
  into.trafficClass = (readU16(bytes, at) >> 4) & 0xff;
  return FORWARD;
}

/** What both versions have in common: sizes that fit together, and in a first fragment the whole transport header. */
function readData(
  bytes: Uint8Array,
  at: number,
  end: number,
  protocol: number,
  offset: number,
  hasMore: boolean,
  into: PacketInfo,
  fragment: FragmentInfo,
): Verdict {
  const octets = end - at;
  if (octets === 0 || (hasMore && (octets & 7) !== 0) || offset + octets > MAX_PACKET_BYTES) return DROP_FRAGMENT;
  const headerBytes = transportBytes(bytes, at, end, protocol, offset === 0);
  if (headerBytes === 0) return DROP_FRAGMENT;
  // RFC 1858 §3, RFC 3128: nobody who has anything to say needs to begin inside the longest header
  if (offset !== 0 && offset < headerBytes) return DROP_FRAGMENT;
  const isFirst = offset === 0;
  const isIcmp = protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMP6;
  const hasPorts = isFirst && !isIcmp;
  const id = isFirst && isIcmp ? echoId(bytes, at, protocol) : 0;
  if (id < 0) return DROP_FRAGMENT; // an error, or no echo: never so long
  into.transportAt = at;
  into.protocol = protocol;
  into.sourcePort = hasPorts ? readU16(bytes, at) : id;
  into.destinationPort = hasPorts ? readU16(bytes, at + 2) : id;
  into.tcpFlags = isFirst && protocol === PROTOCOL_TCP ? readU8(bytes, at + 13) : 0;
  into.icmpType = isFirst && isIcmp ? readU8(bytes, at) : 0;
  into.icmpCode = isFirst && isIcmp ? readU8(bytes, at + 1) : 0;
  into.payloadAt = isFirst ? at + headerBytes : at;
  fragment.offset = offset;
  fragment.endOffset = offset + octets;
  fragment.hasMore = hasMore;
  return FORWARD;
}

/** Octets of the transport header; in a later fragment the least that the first must have had. 0: not whole, or not known. */
function transportBytes(bytes: Uint8Array, at: number, end: number, protocol: number, isFirst: boolean): number {
  const available = end - at;
  if (protocol === PROTOCOL_TCP) {
    if (!isFirst) return TCP_HEADER_BYTES;
    if (available < TCP_HEADER_BYTES) return 0;
    const headerBytes = (readU8(bytes, at + 12) >> 4) * 4;
    return headerBytes < TCP_HEADER_BYTES || headerBytes > available ? 0 : headerBytes;
  }
  const headerBytes = protocol === PROTOCOL_UDP
    ? UDP_HEADER_BYTES
    : protocol === PROTOCOL_SCTP
    ? SCTP_HEADER_BYTES
    : protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMP6
    ? ICMP_HEADER_BYTES
    : 0;
  return isFirst && available < headerBytes ? 0 : headerBytes;
}

/** The identifier of an echo; -1 for other messages. */
function echoId(bytes: Uint8Array, at: number, protocol: number): number {
  const type = readU8(bytes, at);
  if (isErrorType(protocol, type)) return -1;
  const isEcho = protocol === PROTOCOL_ICMP
    ? type === ICMP_ECHO_REQUEST || type === ICMP_ECHO_REPLY
    : type === ICMP6_ECHO_REQUEST || type === ICMP6_ECHO_REPLY;
  return isEcho ? readU16(bytes, at + 4) : -1;
}
