/**
 * Gives a packet other addresses and ports in place, with its checksums brought along (RFC 1624, no payload is read).
 *
 * Source and destination address stand next to each other in both IP versions, and so do the ports, so each is one range. Hot file
 * (bench: `scripts/bench/micro.ts`, stage "redirect"): a redirected packet comes here once.
 */
import { complement, fold, sumOctets } from "../bytes/checksum.ts";
import { readU16, writeU16 } from "../bytes/integers.ts";
import { TCP_CHECKSUM_AT, UDP_CHECKSUM_AT } from "../offload/virtio.ts";
import { PROTOCOL_UDP } from "../wire/numbers.ts";
import type { PacketInfo } from "../wire/packet.ts";

/** Where the IPv4 header has its checksum. */
const IPV4_CHECKSUM_AT = 10;

/**
 * Rewrites a TCP or UDP packet, and the ports in `packet`.
 *
 * @param isPartial       the checksum field holds the pseudo-header sum (virtio NEEDS_CSUM): ports are no part of it
 * @param addresses       holds both new addresses, 4 or 16 octets each by the packet's version
 * @param fromAt, toAt    new source and destination in it
 */
export function rewritePacket(
  bytes: Uint8Array,
  packet: PacketInfo,
  isPartial: boolean,
  addresses: Uint8Array,
  fromAt: number,
  toAt: number,
  fromPort: number,
  toPort: number,
): void {
  const isV4 = packet.version === 4;
  const octets = isV4 ? 4 : 16;
  const { sourceAt, destinationAt, transportAt } = packet;
  const change = replaceAddresses(bytes, sourceAt, destinationAt, octets, addresses, fromAt, toAt);
  if (isV4) adjust(bytes, packet.at + IPV4_CHECKSUM_AT, change);
  const ports = 2 * 0xffff - readU16(bytes, transportAt) - readU16(bytes, transportAt + 2) + fromPort + toPort;
  writeU16(bytes, transportAt, fromPort);
  writeU16(bytes, transportAt + 2, toPort);
  packet.sourcePort = fromPort;
  packet.destinationPort = toPort;
  const isUdp = packet.protocol === PROTOCOL_UDP;
  const fieldAt = transportAt + (isUdp ? UDP_CHECKSUM_AT : TCP_CHECKSUM_AT);
  if (isPartial) writeU16(bytes, fieldAt, fold(readU16(bytes, fieldAt) + change));
  else if (!isUdp) adjust(bytes, fieldAt, change + ports);
  else if (readU16(bytes, fieldAt) !== 0) { // 0: the sender made none
    adjust(bytes, fieldAt, change + ports);
    if (readU16(bytes, fieldAt) === 0) writeU16(bytes, fieldAt, 0xffff); // RFC 768
  }
}

/** Writes both addresses. @returns what that adds to a sum over them: `~m + m'` of every word (RFC 1624 §3) */
function replaceAddresses(
  bytes: Uint8Array,
  sourceAt: number,
  destinationAt: number,
  octets: number,
  addresses: Uint8Array,
  fromAt: number,
  toAt: number,
): number {
  const end = destinationAt + octets;
  const before = sumOctets(bytes, sourceAt, end);
  for (let i = 0; i < octets; i++) {
    bytes[sourceAt + i] = addresses[fromAt + i]!;
    bytes[destinationAt + i] = addresses[toAt + i]!;
  }
  return octets * 0xffff - before + sumOctets(bytes, sourceAt, end); // both addresses have `octets` words together
}

function adjust(bytes: Uint8Array, fieldAt: number, change: number): void {
  writeU16(bytes, fieldAt, complement((~readU16(bytes, fieldAt) & 0xffff) + change));
}
