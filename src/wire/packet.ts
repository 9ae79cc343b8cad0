/**
 * One IP packet down to its ports: what policy, conntrack and routing need of it, read in one pass into one reused record.
 *
 * Hot file (bench: `scripts/bench/micro.ts`, stage "parse"). Read RFC 791 §3.1 and RFC 8200 §4 before you edit.
 *
 * Fragments are refused, first ones included (RFC 1858 and 3128: a verdict on the first says nothing of the rest).
 */
import { readU16, readU8 } from "../bytes/integers.ts";
import {
  DROP_FRAGMENT,
  DROP_INVALID_EXTENSION_HEADER,
  DROP_INVALID_PACKET,
  DROP_UNKNOWN_L4,
  DROP_UNSUPPORTED_L3,
  FORWARD,
  type Verdict,
} from "../verdict.ts";
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

export const ICMP_ECHO_REPLY = 0;
export const ICMP_ECHO_REQUEST = 8;
export const ICMP6_ECHO_REQUEST = 128;
export const ICMP6_ECHO_REPLY = 129;

/** What `readPacket` found. All fields are written on FORWARD, none on a drop. Offsets are into the bytes it was given. */
export class PacketInfo {
  /** 4 or 6 */
  version = 0;
  /** first octet of the IP header */
  at = 0;
  /** one past the packet, by its own length field */
  end = 0;
  sourceAt = 0;
  destinationAt = 0;
  /** type of service or traffic class */
  trafficClass = 0;
  /** first octet of the transport header, extension headers skipped */
  transportAt = 0;
  /** IANA protocol number of the transport header */
  protocol = 0;
  /** ICMP echo: the identifier; other ICMP: 0 */
  sourcePort = 0;
  /** ICMP echo: the identifier; other ICMP: 0 */
  destinationPort = 0;
  /** FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128; 0 for others */
  tcpFlags = 0;
  /** ICMP and ICMPv6 only, else 0 */
  icmpType = 0;
  icmpCode = 0;
  /** first octet of the transport payload */
  payloadAt = 0;
}

/**
 * Reads the packet that starts at `at`.
 *
 * @param end  one past the octets that there are; the packet may end earlier (padding), not later
 * @param into record to fill: all fields on FORWARD, none on a drop
 */
export function readPacket(bytes: Uint8Array, at: number, end: number, into: PacketInfo): Verdict {
  if (end - at < IPV4_HEADER_BYTES) return DROP_INVALID_PACKET;
  const version = readU8(bytes, at) >> 4;
  if (version === 4) return readPacket4(bytes, at, end, into);
  if (version === 6) return readPacket6(bytes, at, end, into);
  return DROP_UNSUPPORTED_L3;
}

function readPacket4(bytes: Uint8Array, at: number, end: number, into: PacketInfo): Verdict {
  const headerBytes = (readU8(bytes, at) & 0x0f) * 4;
  const packetEnd = at + readU16(bytes, at + 2);
  if (headerBytes < IPV4_HEADER_BYTES || packetEnd > end || at + headerBytes > packetEnd) return DROP_INVALID_PACKET;
  if ((readU16(bytes, at + 6) & 0x3fff) !== 0) return DROP_FRAGMENT; // more fragments, or an offset
  const protocol = readU8(bytes, at + 9);
  if (protocol === PROTOCOL_ICMP6) return DROP_UNKNOWN_L4;
  const verdict = readTransport(bytes, at + headerBytes, packetEnd, protocol, into);
  if (verdict !== FORWARD) return verdict;
  into.version = 4;
  into.at = at;
  into.end = packetEnd;
  into.sourceAt = at + 12;
  into.destinationAt = at + 16;
  into.trafficClass = readU8(bytes, at + 1);
  return FORWARD;
}

function readPacket6(bytes: Uint8Array, at: number, end: number, into: PacketInfo): Verdict {
  if (end - at < IPV6_HEADER_BYTES) return DROP_INVALID_PACKET;
  const packetEnd = at + IPV6_HEADER_BYTES + readU16(bytes, at + 4);
  if (packetEnd > end) return DROP_INVALID_PACKET;
  let next = readU8(bytes, at + 6);
  let position = at + IPV6_HEADER_BYTES;
  for (let i = 0; isExtension(next); i++) {
    if (next === EXTENSION_FRAGMENT) return DROP_FRAGMENT;
    if (i === MAX_EXTENSION_HEADERS || position + 8 > packetEnd) return DROP_INVALID_EXTENSION_HEADER;
    next = readU8(bytes, position);
    position += 8 + readU8(bytes, position + 1) * 8;
    if (position > packetEnd) return DROP_INVALID_EXTENSION_HEADER;
  }
  if (next === PROTOCOL_ICMP) return DROP_UNKNOWN_L4;
  const verdict = readTransport(bytes, position, packetEnd, next, into);
  if (verdict !== FORWARD) return verdict;
  into.version = 6;
  into.at = at;
  into.end = packetEnd;
  into.sourceAt = at + 8;
  into.destinationAt = at + 24;
  into.trafficClass = (readU16(bytes, at) >> 4) & 0xff;
  return FORWARD;
}

function isExtension(next: number): boolean {
  return next === EXTENSION_HOP_BY_HOP || next === EXTENSION_ROUTING || next === EXTENSION_FRAGMENT ||
    next === EXTENSION_DESTINATION;
}

/** The transport header: its ports, or what stands for them. Writes the record's transport fields on FORWARD only. */
function readTransport(bytes: Uint8Array, at: number, end: number, protocol: number, into: PacketInfo): Verdict {
  const available = end - at;
  if (protocol === PROTOCOL_TCP) {
    if (available < TCP_HEADER_BYTES) return DROP_INVALID_PACKET;
    const headerBytes = (readU8(bytes, at + 12) >> 4) * 4;
    if (headerBytes < TCP_HEADER_BYTES || headerBytes > available) return DROP_INVALID_PACKET;
    return setTransport(
      into,
      at,
      protocol,
      readU16(bytes, at),
      readU16(bytes, at + 2),
      readU8(bytes, at + 13),
      0,
      0,
      at + headerBytes,
    );
  }
  if (protocol === PROTOCOL_UDP) {
    if (available < UDP_HEADER_BYTES) return DROP_INVALID_PACKET;
    const length = readU16(bytes, at + 4);
    if (length < UDP_HEADER_BYTES || length > available) return DROP_INVALID_PACKET;
    return setTransport(into, at, protocol, readU16(bytes, at), readU16(bytes, at + 2), 0, 0, 0, at + UDP_HEADER_BYTES);
  }
  if (protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMP6) {
    if (available < ICMP_HEADER_BYTES) return DROP_INVALID_PACKET;
    const type = readU8(bytes, at);
    const isEcho = protocol === PROTOCOL_ICMP
      ? type === ICMP_ECHO_REQUEST || type === ICMP_ECHO_REPLY
      : type === ICMP6_ECHO_REQUEST || type === ICMP6_ECHO_REPLY;
    const id = isEcho ? readU16(bytes, at + 4) : 0;
    return setTransport(into, at, protocol, id, id, 0, type, readU8(bytes, at + 1), at + ICMP_HEADER_BYTES);
  }
  if (protocol === PROTOCOL_SCTP) {
    if (available < SCTP_HEADER_BYTES) return DROP_INVALID_PACKET;
    return setTransport(
      into,
      at,
      protocol,
      readU16(bytes, at),
      readU16(bytes, at + 2),
      0,
      0,
      0,
      at + SCTP_HEADER_BYTES,
    );
  }
  return DROP_UNKNOWN_L4;
}

function setTransport(
  into: PacketInfo,
  at: number,
  protocol: number,
  sourcePort: number,
  destinationPort: number,
  tcpFlags: number,
  icmpType: number,
  icmpCode: number,
  payloadAt: number,
): Verdict {
  into.transportAt = at;
  into.protocol = protocol;
  into.sourcePort = sourcePort;
  into.destinationPort = destinationPort;
  into.tcpFlags = tcpFlags;
  into.icmpType = icmpType;
  into.icmpCode = icmpCode;
  into.payloadAt = payloadAt;
  return FORWARD;
}
