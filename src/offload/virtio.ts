/**
 * The virtio header that stands before each packet read from or written to a TUN device with offload.
 *
 *     0  u8   flags        NEEDS_CSUM 1: the checksum field holds the pseudo-header sum, the rest is to be summed
 *     1  u8   gso_type     NONE 0, TCPV4 1, TCPV6 4, UDP_L4 5; 0x80 beside it: the first segment carries CWR
 *     2  u16  hdr_len      IP + transport header; a hint, and wrong for forwarded packets: never used on read
 *     4  u16  gso_size     payload octets of each segment but the last
 *     6  u16  csum_start   first octet to be summed, from the first octet of the IP header
 *     8  u16  csum_offset  where the sum goes, from csum_start: 16 for TCP, 6 for UDP
 *
 * Integers are in the CPU's order, which is little endian on every CPU we run on.
 * Source: `linux/virtio_net.h`, virtio 1.2 §5.1.6.
 */
import { writeU16LE, writeU8 } from "../bytes/integers.ts";

/** Octets of the header, where `TUNSETVNETHDRSZ` was left alone. */
export const VIRTIO_HEADER_BYTES = 10;

export const AT_FLAGS = 0;
export const AT_GSO_TYPE = 1;
export const AT_GSO_SIZE = 4;
export const AT_CSUM_START = 6;
export const AT_CSUM_OFFSET = 8;

export const FLAG_NEEDS_CSUM = 1;

export const GSO_NONE = 0;
export const GSO_TCP4 = 1;
export const GSO_TCP6 = 4;
export const GSO_UDP = 5;
/** bit beside the type */
export const GSO_ECN = 0x80;

/** Where the checksum stands in a TCP header, and in a UDP header. */
export const TCP_CHECKSUM_AT = 16;
export const UDP_CHECKSUM_AT = 6;

/** Writes the header of a packet that is whole: ten zero octets. */
export function writePlainHeader(bytes: Uint8Array, at: number): void {
  for (let i = 0; i < VIRTIO_HEADER_BYTES; i++) bytes[at + i] = 0;
}

/**
 * Writes the header of a superpacket, whose checksum field must hold the pseudo-header sum.
 * @param headerBytes   IP and transport header
 * @param ipHeaderBytes IP header alone
 */
export function writeGsoHeader(
  bytes: Uint8Array,
  at: number,
  gsoType: number,
  headerBytes: number,
  gsoSize: number,
  ipHeaderBytes: number,
): void {
  writeU8(bytes, at + AT_FLAGS, FLAG_NEEDS_CSUM);
  writeU8(bytes, at + AT_GSO_TYPE, gsoType);
  writeU16LE(bytes, at + 2, headerBytes);
  writeU16LE(bytes, at + AT_GSO_SIZE, gsoSize);
  writeU16LE(bytes, at + AT_CSUM_START, ipHeaderBytes);
  writeU16LE(bytes, at + AT_CSUM_OFFSET, gsoType === GSO_UDP ? UDP_CHECKSUM_AT : TCP_CHECKSUM_AT);
}
