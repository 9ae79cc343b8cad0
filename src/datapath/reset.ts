/**
 * Tells a program of this machine that its TCP connection is over, as the other side would: for one that was allowed without a proxy and
 * now needs one. It connects anew at once instead of sending into nowhere for a quarter of an hour.
 */
import { complement, sumOctets } from "../bytes/checksum.ts";
import { readU32, writeU16, writeU32, writeU8 } from "../bytes/integers.ts";
import { IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PROTOCOL_TCP, TCP_HEADER_BYTES } from "../wire/numbers.ts";
import type { PacketInfo } from "../wire/packet.ts";

const FLAG_FIN = 1, FLAG_SYN = 2, FLAG_RST = 4, FLAG_ACK = 16;
const HOP_LIMIT = 64;

/** Octets of the longest reset. */
export const RESET_BYTES = IPV6_HEADER_BYTES + TCP_HEADER_BYTES;

/** Whether a packet wants a reset as answer: TCP in the middle of a connection. Nothing answers a reset (RFC 9293 §3.5.2). */
export function wantsReset(packet: PacketInfo): boolean {
  return packet.protocol === PROTOCOL_TCP && (packet.tcpFlags & (FLAG_SYN | FLAG_RST)) === 0;
}

/**
 * Writes the reset that answers a packet.
 * @param at RESET_BYTES free octets, apart from the packet
 * @returns one past it
 * @see RFC 9293 §3.5.2, group 1
 */
export function writeReset(bytes: Uint8Array, packet: PacketInfo, at: number): number {
  const isV4 = packet.version === 4;
  const octets = isV4 ? 4 : 16;
  const tcpAt = at + (isV4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
  const end = tcpAt + TCP_HEADER_BYTES;
  const sourceAt = at + (isV4 ? 12 : 8);
  bytes.fill(0, at, end);
  bytes.copyWithin(sourceAt, packet.destinationAt, packet.destinationAt + octets);
  bytes.copyWithin(sourceAt + octets, packet.sourceAt, packet.sourceAt + octets);
  if (isV4) {
    writeU16(bytes, at, 0x4500);
    writeU16(bytes, at + 2, end - at);
    writeU16(bytes, at + 6, 0x4000);
    writeU16(bytes, at + 8, (HOP_LIMIT << 8) | PROTOCOL_TCP);
    writeU16(bytes, at + 10, complement(sumOctets(bytes, at, tcpAt)));
  } else {
    writeU32(bytes, at, 0x6000_0000);
    writeU16(bytes, at + 4, TCP_HEADER_BYTES);
    writeU16(bytes, at + 6, (PROTOCOL_TCP << 8) | HOP_LIMIT);
  }
  writeU16(bytes, tcpAt, packet.destinationPort);
  writeU16(bytes, tcpAt + 2, packet.sourcePort);
  if ((packet.tcpFlags & FLAG_ACK) !== 0) {
    writeU32(bytes, tcpAt + 4, readU32(bytes, packet.transportAt + 8));
    writeU8(bytes, tcpAt + 13, FLAG_RST);
  } else {
    const length = packet.end - packet.payloadAt + (packet.tcpFlags & FLAG_FIN);
    writeU32(bytes, tcpAt + 8, readU32(bytes, packet.transportAt + 4) + length);
    writeU8(bytes, tcpAt + 13, FLAG_RST | FLAG_ACK);
  }
  writeU8(bytes, tcpAt + 12, (TCP_HEADER_BYTES / 4) << 4);
  const sum = sumOctets(bytes, sourceAt, end) + TCP_HEADER_BYTES + PROTOCOL_TCP;
  writeU16(bytes, tcpAt + 16, complement(sum));
  return end;
}
