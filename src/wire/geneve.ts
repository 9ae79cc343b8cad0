/**
 * The Geneve header. Read RFC 8926 §3.4 and §3.5 before you edit.
 *
 *      0                   1                   2                   3
 *     |Ver|  Opt Len  |O|C|    Rsvd.  |          Protocol Type        |
 *     |        Virtual Network Identifier (VNI)       |    Reserved   |
 *     |                    Variable-Length Options                    |
 *
 * Cilium carries the source's security identity in the VNI and an Ethernet frame as the payload, without options.
 */
import { readU16, readU24, readU8, writeU16, writeU24 } from "../bytes/integers.ts";
import { DROP_INVALID_GENEVE_OPTION, DROP_INVALID_PACKET, FORWARD, type Verdict } from "../verdict.ts";

export const GENEVE_BASE_BYTES = 8;

const AT_VERSION_OPTLEN = 0;
const AT_FLAGS = 1;
const AT_PROTOCOL = 2;
const AT_VNI = 4;
const FLAG_CONTROL = 0x80;
const OPTION_HEADER_BYTES = 4;
const OPTION_CRITICAL = 0x80;

export class GeneveHeader {
  /** O bit: a control message, whose payload is not forwarded */
  isControl = false;
  /** EtherType of the payload */
  protocol = 0;
  /** 24 bits; in Cilium's tunnels the source identity */
  vni = 0;
  payloadAt = 0;
}

/**
 * Reads the Geneve header of a received datagram. We know no option: others are skipped, a critical one ends the packet.
 *
 * @param bytes arena that holds it; borrowed for this call only
 * @param at    offset of its first octet
 * @param end   offset one past the datagram
 * @param into  record to fill: all fields on FORWARD, none on a drop
 * @returns FORWARD, DROP_INVALID_PACKET (cut short, or a version other than 0) or DROP_INVALID_GENEVE_OPTION (options run
 *          past `end` or past their stated length, or one is critical); never throws
 * @see RFC 8926 §3.4 for the fields, §3.5 for the options
 */
export function readGeneve(bytes: Uint8Array, at: number, end: number, into: GeneveHeader): Verdict {
  if (end - at < GENEVE_BASE_BYTES) return DROP_INVALID_PACKET;
  const first = readU8(bytes, at + AT_VERSION_OPTLEN);
  if (first >> 6 !== 0) return DROP_INVALID_PACKET;
  const payloadAt = at + GENEVE_BASE_BYTES + (first & 0x3f) * 4; // option length counts 4-octet words
  if (payloadAt > end) return DROP_INVALID_GENEVE_OPTION;
  let optionAt = at + GENEVE_BASE_BYTES;
  while (optionAt < payloadAt) {
    if (payloadAt - optionAt < OPTION_HEADER_BYTES) return DROP_INVALID_GENEVE_OPTION;
    if ((readU8(bytes, optionAt + 2) & OPTION_CRITICAL) !== 0) return DROP_INVALID_GENEVE_OPTION;
    optionAt += OPTION_HEADER_BYTES + (readU8(bytes, optionAt + 3) & 0x1f) * 4;
  }
  if (optionAt !== payloadAt) return DROP_INVALID_GENEVE_OPTION;
  into.isControl = (readU8(bytes, at + AT_FLAGS) & FLAG_CONTROL) !== 0;
  into.protocol = readU16(bytes, at + AT_PROTOCOL);
  into.vni = readU24(bytes, at + AT_VNI);
  into.payloadAt = payloadAt;
  return FORWARD;
}

/** Writes a header of 8 octets without options. */
export function writeGeneve(bytes: Uint8Array, at: number, vni: number, protocol: number): void {
  writeU16(bytes, at + AT_VERSION_OPTLEN, 0);
  writeU16(bytes, at + AT_PROTOCOL, protocol);
  writeU24(bytes, at + AT_VNI, vni);
  bytes[at + 7] = 0;
}
