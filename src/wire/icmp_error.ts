/**
 * ICMP errors of our own making, written around the packet that they complain about: its octets stay where they are and become
 * the quotation, the headers go in front of it.
 *
 *     | IP 20 or 40 | ICMP 8 | the packet, as much of it as an error may quote |
 *
 * The error comes from the address that the packet was sent to: whoever sent it has a route to there, and it is none of its own.
 * Facts: RFC 792, RFC 1191 §4 (next-hop MTU), RFC 1812 §4.3.2.3 (576 octets), RFC 4443 §2.4 and §3 (1280 octets).
 */
import { complement, sumOctets } from "../bytes/checksum.ts";
import { readU8, writeU16, writeU32, writeU8 } from "../bytes/integers.ts";
import { ICMP_HEADER_BYTES, IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMP6 } from "./numbers.ts";

export const ICMP_UNREACHABLE = 3;
export const ICMP_CODE_HOST_UNREACHABLE = 1;
export const ICMP_CODE_FRAGMENTATION_NEEDED = 4;
export const ICMP6_UNREACHABLE = 1;
export const ICMP6_CODE_NO_ROUTE = 0;
export const ICMP6_CODE_ADDRESS_UNREACHABLE = 3;
export const ICMP6_PACKET_TOO_BIG = 2;

/** The headers of an error, in front of its quotation. */
export const ICMP4_ERROR_HEADER_BYTES = IPV4_HEADER_BYTES + ICMP_HEADER_BYTES;
export const ICMP6_ERROR_HEADER_BYTES = IPV6_HEADER_BYTES + ICMP_HEADER_BYTES;
const MAX_ERROR4_BYTES = 576;
const MAX_ERROR6_BYTES = 1280;

const TTL = 64;
const DONT_FRAGMENT = 0x4000;
/** Internetwork control, precedence 6 (RFC 1812 §4.3.2.5). */
const TOS_CONTROL = 0xc0;

/**
 * Writes an ICMP error in front of the IPv4 packet at `at`; the 28 octets there are free.
 * @param mtu next-hop MTU, for code 4; else 0
 * @returns one past the error, which starts at `at - ICMP4_ERROR_HEADER_BYTES`
 */
export function writeError4(
  bytes: Uint8Array,
  at: number,
  packetEnd: number,
  type: number,
  code: number,
  mtu: number,
): number {
  const icmpAt = at - ICMP_HEADER_BYTES;
  const ipAt = icmpAt - IPV4_HEADER_BYTES;
  const end = Math.min(packetEnd, ipAt + MAX_ERROR4_BYTES);
  writeU8(bytes, ipAt, 0x45);
  writeU8(bytes, ipAt + 1, TOS_CONTROL);
  writeU16(bytes, ipAt + 2, end - ipAt);
  writeU16(bytes, ipAt + 4, 0);
  writeU16(bytes, ipAt + 6, DONT_FRAGMENT);
  writeU16(bytes, ipAt + 8, (TTL << 8) | PROTOCOL_ICMP);
  writeU16(bytes, ipAt + 10, 0);
  copyAddress(bytes, at + 16, ipAt + 12, 4);
  copyAddress(bytes, at + 12, ipAt + 16, 4);
  writeU16(bytes, ipAt + 10, complement(sumOctets(bytes, ipAt, icmpAt)));
  writeHeader(bytes, icmpAt, type, code, mtu);
  writeU16(bytes, icmpAt + 2, complement(sumOctets(bytes, icmpAt, end)));
  return end;
}

/** The same for the IPv6 packet at `at`, 48 octets in front of it. @param mtu for "packet too big"; else 0 */
export function writeError6(
  bytes: Uint8Array,
  at: number,
  packetEnd: number,
  type: number,
  code: number,
  mtu: number,
): number {
  const icmpAt = at - ICMP_HEADER_BYTES;
  const ipAt = icmpAt - IPV6_HEADER_BYTES;
  const end = Math.min(packetEnd, ipAt + MAX_ERROR6_BYTES);
  writeU32(bytes, ipAt, 0x6000_0000 | (TOS_CONTROL << 20));
  writeU16(bytes, ipAt + 4, end - icmpAt);
  writeU16(bytes, ipAt + 6, (PROTOCOL_ICMP6 << 8) | TTL);
  copyAddress(bytes, at + 24, ipAt + 8, 16);
  copyAddress(bytes, at + 8, ipAt + 24, 16);
  writeHeader(bytes, icmpAt, type, code, mtu);
  const pseudo = sumOctets(bytes, ipAt + 8, icmpAt) + (end - icmpAt) + PROTOCOL_ICMP6;
  writeU16(bytes, icmpAt + 2, complement(pseudo + sumOctets(bytes, icmpAt, end)));
  return end;
}

/** Whether the ICMP or ICMPv6 message of this type is an error, which no error answers (RFC 1122 §3.2.2, RFC 4443 §2.4 e). */
export function isErrorType(protocol: number, type: number): boolean {
  if (protocol === PROTOCOL_ICMP6) return type < 128 || type === 137; // redirects count as errors
  return protocol === PROTOCOL_ICMP && (type === 3 || type === 4 || type === 5 || type === 11 || type === 12);
}

/** Whether a packet to this address is never answered: multicast, broadcast, unspecified. */
export function isManyAddress(bytes: Uint8Array, at: number, version: number): boolean {
  const first = readU8(bytes, at);
  if (version === 4) return first >= 224 || first === 0;
  if (first === 0xff) return true;
  for (let i = 0; i < 16; i++) if (bytes[at + i] !== 0) return false;
  return true;
}

function writeHeader(bytes: Uint8Array, at: number, type: number, code: number, mtu: number): void {
  writeU8(bytes, at, type);
  writeU8(bytes, at + 1, code);
  writeU16(bytes, at + 2, 0);
  writeU32(bytes, at + 4, mtu);
}

function copyAddress(bytes: Uint8Array, from: number, to: number, octets: number): void {
  for (let i = 0; i < octets; i++) bytes[to + i] = bytes[from + i]!;
}
