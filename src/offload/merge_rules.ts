/**
 * Which packets may become one superpacket, apart from their order and their checksums: a kernel that splits it again must give
 * back what came in, so everything but length, IPv4 id, sequence number, PSH and checksums has to be equal.
 *
 * The rules are those of Linux' GRO (`net/ipv4/tcp_offload.c`, `inet_gro_receive`, `ipv6_gro_receive`).
 */
import { readI32, readU16, readU8 } from "../bytes/integers.ts";
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  PROTOCOL_ICMP6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_HEADER_BYTES,
  UDP_HEADER_BYTES,
} from "../wire/numbers.ts";

/** Belongs to no TCP or UDP flow, whatever is inside: written alone, and others may pass it. */
export const KIND_OTHER = 0;
/** May belong to any flow: written alone, and nothing may pass it. */
export const KIND_BARRIER = 1;
export const KIND_TCP = 2;
export const KIND_UDP = 3;

export const TCP_PSH = 8;
const TCP_ACK = 16;
const TCP_ECE = 64;

/** version 4 and a header without options */
const IPV4_PLAIN = 0x45;
/** more fragments, and the offset */
const FRAGMENT_BITS = 0x3fff;
const DONT_FRAGMENT = 0x4000;

/**
 * Tunnels in UDP: the kernel's own devices for these ports mishandle merged datagrams. Geneve, VXLAN as Linux and Cilium have it,
 * VXLAN as IANA has it.
 */
const PORT_GENEVE = 6081;
const PORT_VXLAN_LINUX = 8472;
const PORT_VXLAN = 4789;

/** What merging must know of one packet. Reused; `read` writes every field, those that a kind does not have as 0. */
export class Candidate {
  at = 0;
  kind = KIND_OTHER;
  /** false: part of its flow, but always written alone (pure ACK, SYN, FIN, RST, URG, CWR, no checksum, ...) */
  isMergeable = false;
  /** IP and transport header */
  headerBytes = 0;
  payloadBytes = 0;
  /** signed 32 bits */
  sequence = 0;
  tcpFlags = 0;
  /** any 32 bits, equal within a flow */
  flowHash = 0;

  read(bytes: Uint8Array, at: number, end: number): void {
    this.at = at;
    this.isMergeable = false;
    this.headerBytes = 0;
    this.payloadBytes = 0;
    this.sequence = 0;
    this.tcpFlags = 0;
    this.flowHash = 0;
    this.kind = this.#readIp(bytes, at, end);
  }

  #readIp(bytes: Uint8Array, at: number, end: number): number {
    const packetBytes = end - at;
    if (packetBytes < IPV4_HEADER_BYTES) return KIND_BARRIER;
    const first = readU8(bytes, at);
    if (first === IPV4_PLAIN) {
      if (readU16(bytes, at + 2) !== packetBytes || (readU16(bytes, at + 6) & FRAGMENT_BITS) !== 0) return KIND_BARRIER;
      const protocol = readU8(bytes, at + 9);
      if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) return KIND_OTHER;
      const hash = readI32(bytes, at + 12) ^ Math.imul(readI32(bytes, at + 16), 0x85ebca77 | 0);
      return this.#readTransport(bytes, at, IPV4_HEADER_BYTES, end, protocol, hash);
    }
    if (first >> 4 !== 6 || packetBytes < IPV6_HEADER_BYTES) return KIND_BARRIER;
    if (readU16(bytes, at + 4) !== packetBytes - IPV6_HEADER_BYTES) return KIND_BARRIER;
    const protocol = readU8(bytes, at + 6);
    if (protocol === PROTOCOL_ICMP6) return KIND_OTHER;
    if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) return KIND_BARRIER;
    const source = readI32(bytes, at + 16) ^ Math.imul(readI32(bytes, at + 20), 0x27d4eb2f);
    const destination = readI32(bytes, at + 32) ^ Math.imul(readI32(bytes, at + 36), 0x165667b1);
    const hash = source ^ Math.imul(destination, 0x85ebca77 | 0);
    return this.#readTransport(bytes, at, IPV6_HEADER_BYTES, end, protocol, hash);
  }

  #readTransport(
    bytes: Uint8Array,
    at: number,
    ipHeaderBytes: number,
    end: number,
    protocol: number,
    hash: number,
  ): number {
    const transportAt = at + ipHeaderBytes;
    const transportBytes = end - transportAt;
    const isTcp = protocol === PROTOCOL_TCP;
    if (transportBytes < (isTcp ? TCP_HEADER_BYTES : UDP_HEADER_BYTES)) return KIND_BARRIER;
    const headerBytes = isTcp ? (readU8(bytes, transportAt + 12) >> 4) * 4 : UDP_HEADER_BYTES;
    if (headerBytes > transportBytes || (isTcp && headerBytes < TCP_HEADER_BYTES)) return KIND_BARRIER;
    this.headerBytes = ipHeaderBytes + headerBytes;
    this.payloadBytes = transportBytes - headerBytes;
    const mixed = Math.imul(hash ^ readI32(bytes, transportAt), 0x9e3779b1 | 0);
    this.flowHash = mixed ^ (mixed >>> 15);
    if (isTcp) {
      this.sequence = readI32(bytes, transportAt + 4);
      this.tcpFlags = readU8(bytes, transportAt + 13);
      this.isMergeable = this.payloadBytes > 0 && (this.tcpFlags & ~(TCP_PSH | TCP_ECE)) === TCP_ACK;
      return KIND_TCP;
    }
    if (readU16(bytes, transportAt + 4) !== transportBytes) return KIND_BARRIER;
    this.isMergeable = this.payloadBytes > 0 && readU16(bytes, transportAt + 6) !== 0 &&
      !isTunnelPort(readU16(bytes, transportAt + 2));
    return KIND_UDP;
  }
}

function isTunnelPort(port: number): boolean {
  return port === PORT_GENEVE || port === PORT_VXLAN_LINUX || port === PORT_VXLAN;
}

/** Whether the packet at `at`, of the same kind, has the candidate's version, addresses and ports. */
export function isSameFlow(bytes: Uint8Array, at: number, candidate: Candidate): boolean {
  const other = candidate.at;
  const version = readU8(bytes, at) >> 4;
  if (version !== readU8(bytes, other) >> 4) return false;
  const from = version === 4 ? 12 : 8;
  const to = version === 4 ? 24 : 44; // the ports stand right behind the addresses, as no header here has options
  for (let i = from; i < to; i += 4) if (readI32(bytes, at + i) !== readI32(bytes, other + i)) return false;
  return true;
}

/**
 * Whether the candidate's headers are those of the packet at `at`, its flow's, in all that a superpacket can say only once.
 * @param distance segments from that packet to the candidate: IPv4 ids must count up, unless DF makes them meaningless (RFC 6864)
 */
export function hasSameHeaders(bytes: Uint8Array, at: number, candidate: Candidate, distance: number): boolean {
  const other = candidate.at;
  const isV4 = readU8(bytes, at) >> 4 === 4;
  if (isV4 ? !hasSameIpv4(bytes, at, other, distance) : !hasSameIpv6(bytes, at, other)) return false;
  if (candidate.kind === KIND_UDP) return true;
  const transportAt = isV4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  const a = at + transportAt, b = other + transportAt;
  // acknowledgement number; data offset, flags but PSH, window
  if (readI32(bytes, a + 8) !== readI32(bytes, b + 8)) return false;
  if (((readI32(bytes, a + 12) ^ readI32(bytes, b + 12)) & ~(TCP_PSH << 16)) !== 0) return false;
  if (readU16(bytes, a + 18) !== readU16(bytes, b + 18)) return false; // urgent pointer: unused, but it would be lost
  for (let i = TCP_HEADER_BYTES; i < candidate.headerBytes - transportAt; i += 4) {
    if (readI32(bytes, a + i) !== readI32(bytes, b + i)) return false;
  }
  return true;
}

function hasSameIpv4(bytes: Uint8Array, a: number, b: number, distance: number): boolean {
  if (readU8(bytes, a + 1) !== readU8(bytes, b + 1) || readU8(bytes, a + 8) !== readU8(bytes, b + 8)) return false;
  const flags = readU16(bytes, a + 6);
  if (flags !== readU16(bytes, b + 6)) return false;
  return (flags & DONT_FRAGMENT) !== 0 || ((readU16(bytes, a + 4) + distance) & 0xffff) === readU16(bytes, b + 4);
}

/** Version, traffic class, flow label; hop limit. */
function hasSameIpv6(bytes: Uint8Array, a: number, b: number): boolean {
  return readI32(bytes, a) === readI32(bytes, b) && readU8(bytes, a + 7) === readU8(bytes, b + 7);
}
