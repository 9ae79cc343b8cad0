/**
 * Cilium's tunnel envelope around an inner packet: outer IP, UDP, Geneve or VXLAN, Ethernet; and its removal.
 *
 *     | IPv4 20 or IPv6 40 | UDP 8 | Geneve or VXLAN 8 | Ethernet 14 | inner packet |
 *
 * Hot file (bench: `scripts/bench/micro.ts`, stage "encapsulate"). Everything of the envelope that does not change from packet
 * to packet is written once per peer into a template; a packet copies it and fills in lengths, source port and checksums.
 * Facts: RFC 8926 §3.3 (ports, checksum), RFC 6864 §4 (an atomic datagram's ID is 0), Cilium's `bpf/lib/encap.h`.
 */
import { complement, fold, sumOctets } from "../bytes/checksum.ts";
import type { Checksummer } from "../bytes/checksum.ts";
import { readU16, readU8, writeU16, writeU32, writeU8 } from "../bytes/integers.ts";
import type { IpAddress } from "../ip/address.ts";
import {
  DROP_CONTROL_MESSAGE,
  DROP_FRAGMENT,
  DROP_INVALID_PACKET,
  DROP_L3_CHECKSUM,
  DROP_UNKNOWN_L4,
  DROP_UNSUPPORTED_L2,
  DROP_UNSUPPORTED_L3,
  FORWARD,
  type Verdict,
} from "../verdict.ts";
import { GENEVE_BASE_BYTES, GeneveHeader, readGeneve, writeGeneve } from "../wire/geneve.ts";
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_ETHERNET,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  GENEVE_PORT,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  PROTOCOL_UDP,
  UDP_HEADER_BYTES,
  VXLAN_PORT,
} from "../wire/numbers.ts";
import { readVxlan, writeVxlan } from "../wire/vxlan.ts";

export type TunnelProtocol = "geneve" | "vxlan";

/** Room for one template: the longest envelope (70) rounded up. */
export const TEMPLATE_BYTES = 80;

const TUNNEL_TTL = 64;
/** The first four octets; destination 00:02:00:00:00:01, source 00:02:00:01:00:01. Any unicast pair does: Cilium looks at neither. */
const INNER_DESTINATION_MAC = 0x0002_0000;
const INNER_SOURCE_MAC = 0x0002_0001;

/** Octets of the envelope over an underlay address of this family. */
export function envelopeBytes(underlay: IpAddress): number {
  const ip = underlay.length === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  return ip + UDP_HEADER_BYTES + GENEVE_BASE_BYTES + ETHERNET_HEADER_BYTES;
}

/**
 * Writes the envelope for packets from us to one peer, lengths and checksums as for an empty payload.
 * @param from, to underlay addresses of one family
 * @param identity our security identity, 24 bits
 */
export function writeTemplate(
  bytes: Uint8Array,
  at: number,
  from: IpAddress,
  to: IpAddress,
  protocol: TunnelProtocol,
  identity: number,
): void {
  let position = at;
  if (from.length === 4) {
    writeU32(bytes, at, 0x4500_0000);
    writeU32(bytes, at + 4, 0x0000_4000); // ID 0, don't fragment: an atomic datagram
    writeU8(bytes, at + 8, TUNNEL_TTL);
    writeU8(bytes, at + 9, PROTOCOL_UDP);
    writeU16(bytes, at + 10, 0);
    bytes.set(from, at + 12);
    bytes.set(to, at + 16);
    writeU16(bytes, at + 10, fold(sumOctets(bytes, at, at + IPV4_HEADER_BYTES))); // unfinished: without the length
    position += IPV4_HEADER_BYTES;
  } else {
    writeU32(bytes, at, 0x6000_0000);
    writeU16(bytes, at + 4, 0);
    writeU8(bytes, at + 6, PROTOCOL_UDP);
    writeU8(bytes, at + 7, TUNNEL_TTL);
    bytes.set(from, at + 8);
    bytes.set(to, at + 24);
    position += IPV6_HEADER_BYTES;
  }
  writeU16(bytes, position, 0);
  writeU16(bytes, position + 2, protocol === "geneve" ? GENEVE_PORT : VXLAN_PORT);
  writeU32(bytes, position + 4, 0);
  position += UDP_HEADER_BYTES;
  writeInnermost(bytes, position, protocol, identity);
}

/** Octets in front of the inner packet in a datagram of the plain tunnel: the rest of the envelope is the kernel's work there. */
export const PLAIN_ENVELOPE_BYTES = GENEVE_BASE_BYTES + ETHERNET_HEADER_BYTES;

/** Writes what stands before an inner IPv4 packet in the plain tunnel, PLAIN_ENVELOPE_BYTES octets. */
export function writePlainTemplate(bytes: Uint8Array, protocol: TunnelProtocol, identity: number): void {
  writeInnermost(bytes, 0, protocol, identity);
}

/** Geneve or VXLAN, and Ethernet. */
function writeInnermost(bytes: Uint8Array, at: number, protocol: TunnelProtocol, identity: number): void {
  if (protocol === "geneve") writeGeneve(bytes, at, identity, ETHERTYPE_ETHERNET);
  else writeVxlan(bytes, at, identity);
  const position = at + GENEVE_BASE_BYTES;
  writeU32(bytes, position, INNER_DESTINATION_MAC);
  writeU16(bytes, position + 4, 0x0001);
  writeU32(bytes, position + 6, INNER_SOURCE_MAC);
  writeU16(bytes, position + 10, 0x0001);
  writeU16(bytes, position + 12, ETHERTYPE_IPV4);
}

const SHORT_ENVELOPE_BYTES = IPV4_HEADER_BYTES + UDP_HEADER_BYTES + PLAIN_ENVELOPE_BYTES;

/** Whether an envelope of that many octets has a checksum over all that is in it: one over IPv6. */
export function isSummed(envelope: number): boolean {
  return envelope > SHORT_ENVELOPE_BYTES;
}

/**
 * Puts the envelope in front of the inner packet at `innerAt`; the octets before it are free.
 *
 * @param templateAt  the peer's template, in the same bytes
 * @param envelope    its length (`envelopeBytes`)
 * @param innerEnd    one past the inner packet
 * @param entropy     16 bits of the inner flow's hash: the source port tells flows apart (RFC 8926 §3.3)
 * @param sums        for the UDP checksum, which IPv6 wants (`isSummed`)
 * @param innerSum    folded sum of the inner packet where it is known, else -1
 * @returns offset of the outer packet
 */
export function encapsulate(
  bytes: Uint8Array,
  templateAt: number,
  envelope: number,
  innerAt: number,
  innerEnd: number,
  entropy: number,
  sums: Checksummer,
  innerSum: number,
): number {
  const at = innerAt - envelope;
  bytes.copyWithin(at, templateAt, templateAt + envelope);
  if (bytes[innerAt]! >> 4 === 6) writeU16(bytes, innerAt - 2, ETHERTYPE_IPV6);
  const udpAt = innerAt - ETHERNET_HEADER_BYTES - GENEVE_BASE_BYTES - UDP_HEADER_BYTES;
  const udpBytes = innerEnd - udpAt;
  writeU16(bytes, udpAt, 0xc000 | (entropy & 0x3fff));
  writeU16(bytes, udpAt + 4, udpBytes);
  if (udpAt - at === IPV4_HEADER_BYTES) {
    const total = innerEnd - at;
    writeU16(bytes, at + 2, total);
    writeU16(bytes, at + 10, complement(readU16(bytes, at + 10) + total));
    return at; // UDP checksum 0, as Cilium's device sends it over IPv4
  }
  writeU16(bytes, at + 4, udpBytes);
  const rest = innerSum < 0 ? sums.sum(udpAt, innerEnd) : sumOctets(bytes, udpAt, innerAt) + innerSum;
  const sum = sumOctets(bytes, at + 8, at + 40) + udpBytes + PROTOCOL_UDP + rest;
  const checksum = complement(sum);
  writeU16(bytes, udpAt + 6, checksum === 0 ? 0xffff : checksum);
  return at;
}

/**
 * Writes a datagram of the plain tunnel: template, then a copy of the inner packet.
 *
 * @param template from `writePlainTemplate`
 * @param to       where the datagram goes; must not overlap the inner packet
 * @returns its end
 */
export function encapsulatePlain(
  bytes: Uint8Array,
  template: Uint8Array,
  innerAt: number,
  innerEnd: number,
  to: number,
): number {
  bytes.set(template, to);
  const copyAt = to + PLAIN_ENVELOPE_BYTES;
  if (bytes[innerAt]! >> 4 === 6) writeU16(bytes, copyAt - 2, ETHERTYPE_IPV6);
  bytes.copyWithin(copyAt, innerAt, innerEnd);
  return copyAt + (innerEnd - innerAt);
}

/** What `decapsulate` found. All fields are written on FORWARD, none on a drop. */
export class Envelope {
  /** the inner packet: `innerAt` to at most `innerEnd` */
  innerAt = 0;
  innerEnd = 0;
  /** source identity that the sender claims */
  vni = 0;
  outerVersion = 0;
  outerSourceAt = 0;
  outerDestinationAt = 0;
  /** the outer UDP header */
  udpAt = 0;
}

const header = new GeneveHeader(); // scratch of decapsulate, used within one call only

/**
 * Reads the outer packet that a WireGuard message carried, down to the inner IP packet.
 *
 * @param end  one past the plaintext; WireGuard's padding may follow the packet
 * @param into record to fill: all fields on FORWARD, none on a drop
 */
export function decapsulate(
  bytes: Uint8Array,
  at: number,
  end: number,
  protocol: TunnelProtocol,
  into: Envelope,
): Verdict {
  if (end - at < IPV4_HEADER_BYTES) return DROP_INVALID_PACKET;
  const version = readU8(bytes, at) >> 4;
  let udpAt: number;
  let packetEnd: number;
  if (version === 4) {
    const headerBytes = (readU8(bytes, at) & 0x0f) * 4;
    packetEnd = at + readU16(bytes, at + 2);
    if (headerBytes < IPV4_HEADER_BYTES || packetEnd > end || at + headerBytes > packetEnd) return DROP_INVALID_PACKET;
    if (fold(sumOctets(bytes, at, at + headerBytes)) !== 0xffff) return DROP_L3_CHECKSUM;
    if ((readU16(bytes, at + 6) & 0x3fff) !== 0) return DROP_FRAGMENT;
    if (readU8(bytes, at + 9) !== PROTOCOL_UDP) return DROP_UNKNOWN_L4;
    udpAt = at + headerBytes;
  } else if (version === 6) {
    if (end - at < IPV6_HEADER_BYTES) return DROP_INVALID_PACKET;
    packetEnd = at + IPV6_HEADER_BYTES + readU16(bytes, at + 4);
    if (packetEnd > end) return DROP_INVALID_PACKET;
    if (readU8(bytes, at + 6) !== PROTOCOL_UDP) return DROP_UNKNOWN_L4;
    udpAt = at + IPV6_HEADER_BYTES;
  } else return DROP_UNSUPPORTED_L3;

  if (packetEnd - udpAt < UDP_HEADER_BYTES) return DROP_INVALID_PACKET;
  const isGeneve = protocol === "geneve";
  if (readU16(bytes, udpAt + 2) !== (isGeneve ? GENEVE_PORT : VXLAN_PORT)) return DROP_UNKNOWN_L4;
  const udpEnd = udpAt + readU16(bytes, udpAt + 4);
  if (udpEnd > packetEnd || udpEnd < udpAt + UDP_HEADER_BYTES) return DROP_INVALID_PACKET;
  const verdict = decapsulatePlain(bytes, udpAt + UDP_HEADER_BYTES, udpEnd, protocol, into);
  if (verdict !== FORWARD) return verdict;
  into.outerVersion = version;
  into.udpAt = udpAt;
  into.outerSourceAt = version === 4 ? at + 12 : at + 8;
  into.outerDestinationAt = version === 4 ? at + 16 : at + 24;
  return FORWARD;
}

/**
 * Reads Geneve or VXLAN down to the inner IP packet: the payload of a datagram. Writes the inner fields of the record only.
 *
 * @param end one past the datagram
 */
export function decapsulatePlain(
  bytes: Uint8Array,
  at: number,
  end: number,
  protocol: TunnelProtocol,
  into: Envelope,
): Verdict {
  const verdict = protocol === "geneve" ? readGeneve(bytes, at, end, header) : readVxlan(bytes, at, end, header);
  if (verdict !== FORWARD) return verdict;
  if (header.isControl) return DROP_CONTROL_MESSAGE;
  let innerAt = header.payloadAt;
  let ethertype = header.protocol;
  if (ethertype === ETHERTYPE_ETHERNET) {
    if (end - innerAt < ETHERNET_HEADER_BYTES) return DROP_INVALID_PACKET;
    ethertype = readU16(bytes, innerAt + 12);
    innerAt += ETHERNET_HEADER_BYTES;
  }
  if (ethertype !== ETHERTYPE_IPV4 && ethertype !== ETHERTYPE_IPV6) return DROP_UNSUPPORTED_L2;
  if (innerAt >= end || readU8(bytes, innerAt) >> 4 !== (ethertype === ETHERTYPE_IPV4 ? 4 : 6)) {
    return DROP_INVALID_PACKET;
  }
  into.innerAt = innerAt;
  into.innerEnd = end;
  into.vni = header.vni;
  return FORWARD;
}

/**
 * Whether a packet out of WireGuard is addressed like an envelope: UDP, whole, to the tunnel's port. Reads nothing past `end`;
 * whose addresses they are is the caller's to ask. Senders never send a packet of their own bare that looks like this (`egress.ts`).
 */
export function looksLikeEnvelope(bytes: Uint8Array, at: number, end: number, protocol: TunnelProtocol): boolean {
  if (end - at < IPV4_HEADER_BYTES + UDP_HEADER_BYTES) return false;
  const first = readU8(bytes, at);
  let udpAt = at + IPV6_HEADER_BYTES;
  if (first >> 4 === 4) {
    if (readU8(bytes, at + 9) !== PROTOCOL_UDP || (readU16(bytes, at + 6) & 0x3fff) !== 0) return false;
    udpAt = at + (first & 0x0f) * 4;
  } else if (first >> 4 !== 6 || readU8(bytes, at + 6) !== PROTOCOL_UDP) return false;
  if (udpAt + UDP_HEADER_BYTES > end) return false;
  return readU16(bytes, udpAt + 2) === (protocol === "geneve" ? GENEVE_PORT : VXLAN_PORT);
}
