/**
 * The four WireGuard messages: lengths and offsets, and the check that makes all later reads safe.
 * Every integer is little endian. Read the WireGuard paper §5.4 before you edit.
 *
 *     type 1 initiation  0 type | 4 sender | 8 ephemeral | 40 static+tag | 88 timestamp+tag | 116 mac1 | 132 mac2
 *     type 2 response    0 type | 4 sender | 8 receiver | 12 ephemeral | 44 empty+tag | 60 mac1 | 76 mac2
 *     type 3 cookie      0 type | 4 receiver | 8 nonce (24) | 32 cookie+tag
 *     type 4 transport   0 type | 4 receiver | 8 counter (64 bits) | 16 ciphertext | tag (16; between
 *                        members that seal with AEGIS-128L 32, see src/tunnel/aead.ts)
 *
 * Hot file: `readMessageType` and `writeTransportHeader` run once per packet.
 */
import { readU32LE, writeU32LE, writeU53LE } from "../bytes/integers.ts";

export const MESSAGE_INITIATION = 1;
export const MESSAGE_RESPONSE = 2;
export const MESSAGE_COOKIE = 3;
export const MESSAGE_TRANSPORT = 4;

export const INITIATION_BYTES = 148;
export const RESPONSE_BYTES = 92;
export const COOKIE_BYTES = 64;
/** Header and tag of a transport message: its smallest size, that of a keepalive under the shortest tag. */
export const TRANSPORT_MIN_BYTES = 32;
export const TRANSPORT_HEADER_BYTES = 16;

export const KEY_BYTES = 32;
export const TAG_BYTES = 16;
export const MAC_BYTES = 16;
export const COOKIE_NONCE_BYTES = 24;
export const STAMP_BYTES = 12;

/** Sender's index, in types 1 and 2. */
export const AT_SENDER = 4;

export const AT_INITIATION_EPHEMERAL = 8;
export const AT_INITIATION_STATIC = 40;
export const AT_INITIATION_STAMP = 88;

export const AT_RESPONSE_RECEIVER = 8;
export const AT_RESPONSE_EPHEMERAL = 12;
export const AT_RESPONSE_EMPTY = 44;

export const AT_COOKIE_RECEIVER = 4;
export const AT_COOKIE_NONCE = 8;
export const AT_COOKIE_SEALED = 32;

export const AT_TRANSPORT_RECEIVER = 4;
export const AT_TRANSPORT_COUNTER = 8;

/** mac1 and mac2 stand this far before the end of types 1 and 2. */
export const MAC1_FROM_END = 32;
export const MAC2_FROM_END = 16;

/**
 * The type of a received datagram, when its length fits the type and the three reserved octets are zero; else 0.
 * After any other answer all offsets of that type are inside the range.
 *
 * @returns 0 to 4
 */
export function readMessageType(bytes: Uint8Array, at: number, end: number): number {
  const size = end - at;
  if (size < TRANSPORT_MIN_BYTES) return 0;
  const type = readU32LE(bytes, at);
  if (type === MESSAGE_TRANSPORT) return MESSAGE_TRANSPORT;
  if (type === MESSAGE_INITIATION) return size === INITIATION_BYTES ? type : 0;
  if (type === MESSAGE_RESPONSE) return size === RESPONSE_BYTES ? type : 0;
  if (type === MESSAGE_COOKIE) return size === COOKIE_BYTES ? type : 0;
  return 0;
}

/** Writes the 16 octets before the ciphertext. @param counter 0 to 2^53 - 1 */
export function writeTransportHeader(bytes: Uint8Array, at: number, receiverIndex: number, counter: number): void {
  writeU32LE(bytes, at, MESSAGE_TRANSPORT);
  writeU32LE(bytes, at + AT_TRANSPORT_RECEIVER, receiverIndex);
  writeU53LE(bytes, at + AT_TRANSPORT_COUNTER, counter);
}
