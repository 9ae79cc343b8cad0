/**
 * Probes of a way, as they travel inside WireGuard: ICMP echo requests between the two nodes' underlay addresses, with a mark.
 * No policy is asked for them, as no program is at either end; and a peer that is none of ours answers like any machine.
 *
 *     | IPv4 or IPv6, from our underlay address to the peer's | ICMP echo 8 | mark 8 | as much as the size asks for |
 *
 * We answer with the mark alone: so only the way there is measured, and the answer passes where the probe did.
 */
import type { Checksummer } from "../bytes/checksum.ts";
import { complement, sumOctets } from "../bytes/checksum.ts";
import { readU16, readU8, writeU16, writeU32, writeU8 } from "../bytes/integers.ts";
import {
  ICMP_HEADER_BYTES,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  PROTOCOL_ICMP,
  PROTOCOL_ICMP6,
} from "../wire/numbers.ts";
import { ICMP6_ECHO_REPLY, ICMP6_ECHO_REQUEST, ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST } from "../wire/packet.ts";

/** "edgepath" */
const MARK = [0x65, 0x64, 0x67, 0x65, 0x70, 0x61, 0x74, 0x68];
/** identifier of the echo */
const PATH_ID = 0xed9e;
const TTL = 64;

export const NO_PATH_MESSAGE = 0;
export const PATH_REQUEST = 1;
export const PATH_REPLY = 2;
/** a later fragment of an ICMP packet: a foreign machine answers a large probe in pieces, and the first one told all */
export const PATH_REST = 3;

/** Octets of a message without filling, by the version of its addresses. */
export function smallestMessageBytes(version: number): number {
  return (version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) + ICMP_HEADER_BYTES + MARK.length;
}

/**
 * Writes a message into `[at, end)`, `smallestMessageBytes` at least. The addresses stand in the bytes already, 12 (IPv4) or 8
 * (IPv6) octets behind `at`.
 */
export function writePathMessage(
  bytes: Uint8Array,
  at: number,
  end: number,
  version: number,
  kind: number,
  sequence: number,
  sums: Checksummer,
): void {
  const isV4 = version === 4;
  const icmpAt = at + (isV4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
  const isRequest = kind === PATH_REQUEST;
  writeU8(
    bytes,
    icmpAt,
    isV4 ? (isRequest ? ICMP_ECHO_REQUEST : ICMP_ECHO_REPLY) : isRequest ? ICMP6_ECHO_REQUEST : ICMP6_ECHO_REPLY,
  );
  writeU8(bytes, icmpAt + 1, 0);
  writeU16(bytes, icmpAt + 2, 0);
  writeU16(bytes, icmpAt + 4, PATH_ID);
  writeU16(bytes, icmpAt + 6, sequence);
  for (let i = 0; i < MARK.length; i++) bytes[icmpAt + ICMP_HEADER_BYTES + i] = MARK[i]!;
  bytes.fill(0, icmpAt + ICMP_HEADER_BYTES + MARK.length, end);
  if (isV4) {
    writeU16(bytes, at, 0x4500);
    writeU16(bytes, at + 2, end - at);
    writeU32(bytes, at + 4, 0x0000_4000);
    writeU16(bytes, at + 8, (TTL << 8) | PROTOCOL_ICMP);
    writeU16(bytes, at + 10, 0);
    writeU16(bytes, at + 10, complement(sumOctets(bytes, at, icmpAt)));
    writeU16(bytes, icmpAt + 2, complement(sums.sum(icmpAt, end)));
    return;
  }
  writeU32(bytes, at, 0x6000_0000);
  writeU16(bytes, at + 4, end - icmpAt);
  writeU16(bytes, at + 6, (PROTOCOL_ICMP6 << 8) | TTL);
  const pseudo = sumOctets(bytes, at + 8, icmpAt) + (end - icmpAt) + PROTOCOL_ICMP6;
  writeU16(bytes, icmpAt + 2, complement(pseudo + sums.sum(icmpAt, end)));
}

/**
 * What a packet out of WireGuard is: PATH_REQUEST, PATH_REPLY, PATH_REST, or mostly NO_PATH_MESSAGE, which costs two reads. Its addresses are
 * the caller's to check, its sequence number is at `sequenceAt`. Reads nothing past `end`.
 */
export function kindOfMessage(bytes: Uint8Array, at: number, end: number): number {
  if (end - at < IPV4_HEADER_BYTES) return NO_PATH_MESSAGE;
  const first = readU8(bytes, at);
  if (first === 0x45) {
    if (readU8(bytes, at + 9) !== PROTOCOL_ICMP) return NO_PATH_MESSAGE;
    if (readU16(bytes, at + 2) > end - at) return NO_PATH_MESSAGE;
    const fragment = readU16(bytes, at + 6) & 0x3fff;
    if ((fragment & 0x1fff) !== 0) return PATH_REST;
    const kind = kindOfEcho(bytes, at + IPV4_HEADER_BYTES, end, ICMP_ECHO_REQUEST, ICMP_ECHO_REPLY);
    // a request is never cut: what came in pieces did not come through the way whole
    return fragment !== 0 && kind === PATH_REQUEST ? NO_PATH_MESSAGE : kind;
  }
  if (first >> 4 !== 6 || end - at < IPV6_HEADER_BYTES || readU8(bytes, at + 6) !== PROTOCOL_ICMP6) {
    return NO_PATH_MESSAGE;
  }
  if (readU16(bytes, at + 4) > end - at - IPV6_HEADER_BYTES) return NO_PATH_MESSAGE;
  return kindOfEcho(bytes, at + IPV6_HEADER_BYTES, end, ICMP6_ECHO_REQUEST, ICMP6_ECHO_REPLY);
}

/** Where the sequence number of a message is. */
export function sequenceAt(bytes: Uint8Array, at: number): number {
  return at + (readU8(bytes, at) >> 4 === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) + 6;
}

function kindOfEcho(bytes: Uint8Array, at: number, end: number, request: number, reply: number): number {
  if (at + ICMP_HEADER_BYTES + MARK.length > end || readU16(bytes, at + 4) !== PATH_ID) return NO_PATH_MESSAGE;
  for (let i = 0; i < MARK.length; i++) if (bytes[at + ICMP_HEADER_BYTES + i] !== MARK[i]) return NO_PATH_MESSAGE;
  const type = readU8(bytes, at);
  return type === request ? PATH_REQUEST : type === reply ? PATH_REPLY : NO_PATH_MESSAGE;
}
