/**
 * Lowers the segment size that a TCP connection is opened with to what fits the way to the peer, so that neither end ever makes
 * a packet that is too big: no error message has to come back, which firewalls like to lose.
 *
 * Only SYN packets come here. Facts: RFC 9293 §3.2 (options), RFC 6691 (the option counts neither IP nor TCP options).
 */
import { readU16, readU8, writeU16 } from "../bytes/integers.ts";
import { updateChecksum } from "../bytes/checksum.ts";
import { AT_FLAGS, FLAG_NEEDS_CSUM, TCP_CHECKSUM_AT, VIRTIO_HEADER_BYTES } from "../offload/virtio.ts";
import { IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, TCP_HEADER_BYTES } from "../wire/numbers.ts";
import type { PacketInfo } from "../wire/packet.ts";

export const TCP_SYN = 2;
const OPTION_END = 0;
const OPTION_NOTHING = 1;
const OPTION_MSS = 2;
const OPTION_MSS_BYTES = 4;

/**
 * Clamps the option of a SYN or SYN-ACK that `readPacket` accepted; without the option nothing changes, and it never rises.
 * Options that contradict themselves end the search. The checksum is brought along, right or wrong as it was.
 *
 * @param largestPacket largest IP packet of the flow
 * @param isPartial     the checksum field holds the pseudo-header sum (virtio NEEDS_CSUM): options are no part of it
 */
export function clampMss(bytes: Uint8Array, packet: PacketInfo, largestPacket: number, isPartial: boolean): void {
  const headers = (packet.version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) + TCP_HEADER_BYTES;
  const largest = Math.max(1, largestPacket - headers);
  const end = packet.payloadAt;
  let at = packet.transportAt + TCP_HEADER_BYTES;
  while (at < end) {
    const kind = readU8(bytes, at);
    if (kind === OPTION_END) return;
    if (kind === OPTION_NOTHING) {
      at++;
      continue;
    }
    if (at + 2 > end) return;
    const length = readU8(bytes, at + 1);
    if (length < 2 || at + length > end) return;
    if (kind === OPTION_MSS && length === OPTION_MSS_BYTES) {
      lower(bytes, packet.transportAt, at + 2, largest, isPartial);
    }
    at += length;
  }
}

/** Whether a packet read from the TUN, its virtio header before it, has an unfinished checksum. */
export function isChecksumUnfinished(bytes: Uint8Array, packetAt: number, virtioBytes: number): boolean {
  return virtioBytes === VIRTIO_HEADER_BYTES &&
    (readU8(bytes, packetAt - virtioBytes + AT_FLAGS) & FLAG_NEEDS_CSUM) !== 0;
}

function lower(bytes: Uint8Array, tcpAt: number, at: number, largest: number, isPartial: boolean): void {
  const before = readU16(bytes, at);
  if (before <= largest) return;
  writeU16(bytes, at, largest);
  if (isPartial) return;
  const checksumAt = tcpAt + TCP_CHECKSUM_AT;
  // at an odd offset the two octets stand in the halves of two neighbouring words: the sum is the same with both swapped
  const isOdd = ((at - tcpAt) & 1) !== 0;
  const old = isOdd ? swap(before) : before;
  const now = isOdd ? swap(largest) : largest;
  writeU16(bytes, checksumAt, updateChecksum(readU16(bytes, checksumAt), old, now));
}

function swap(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8);
}
