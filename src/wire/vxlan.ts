/**
 * The VXLAN header (RFC 7348 §5), on Linux' and Cilium's port 8472. Always an Ethernet frame inside; no options.
 *
 *     |R|R|R|R|I|R|R|R|            Reserved                           |
 *     |                VXLAN Network Identifier (VNI) |   Reserved    |
 */
import { readU24, readU8, writeU24, writeU32 } from "../bytes/integers.ts";
import { DROP_INVALID_PACKET, FORWARD, type Verdict } from "../verdict.ts";
import { ETHERTYPE_ETHERNET } from "./numbers.ts";
import type { GeneveHeader } from "./geneve.ts";

const VXLAN_HEADER_BYTES = 8;
const FLAG_VNI_VALID = 0x08;

/**
 * Reads a VXLAN header into the record that Geneve uses, so that what follows is the same for both.
 * @returns FORWARD, or DROP_INVALID_PACKET (cut short, or without a valid VNI); reserved bits are ignored
 */
export function readVxlan(bytes: Uint8Array, at: number, end: number, into: GeneveHeader): Verdict {
  if (end - at < VXLAN_HEADER_BYTES || (readU8(bytes, at) & FLAG_VNI_VALID) === 0) return DROP_INVALID_PACKET;
  into.isControl = false;
  into.protocol = ETHERTYPE_ETHERNET;
  into.vni = readU24(bytes, at + 4);
  into.payloadAt = at + VXLAN_HEADER_BYTES;
  return FORWARD;
}

export function writeVxlan(bytes: Uint8Array, at: number, vni: number): void {
  writeU32(bytes, at, FLAG_VNI_VALID << 24);
  writeU24(bytes, at + 4, vni);
  bytes[at + 7] = 0;
}
