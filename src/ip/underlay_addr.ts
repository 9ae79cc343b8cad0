/**
 * Underlay addresses (address:port of a UDP peer) as records of 48 octets in the arena, so that the packet path compares and
 * copies them without an object. The layout is Linux' `sockaddr_in` / `sockaddr_in6` on a little-endian CPU, which is every
 * CPU we run on: `ffi/` hands a record to the kernel as it is.
 *
 * Behind it is our own address that the peer spoke to, so that the answer comes from it: whoever has several addresses, or a
 * firewall between, would otherwise get it from a stranger. It is of the record's family, and moves with the record.
 *
 *     0  u16 LE  family: 2 (IPv4) or 10 (IPv6); 0 = no address
 *     2  u16     port, network order
 *     4  4       IPv4 address            | IPv6: flow info, 0
 *     8          zero                    | 16 octets IPv6 address
 *    24                                  | u32 LE scope (interface of a link-local address)
 *    28                                  | zero
 *    32  16      our own address, IPv4 in the first 4; zero = any
 */
import { equalRange } from "../bytes/compare.ts";
import { readU16, readU16LE, readU32LE, writeU16, writeU16LE, writeU32LE } from "../bytes/integers.ts";
import { formatAddress, type IpAddress, parseAddress } from "./address.ts";

export const UNDERLAY_ADDR_BYTES = 48;
/** Where our own address stands in a record. */
export const OWN_ADDRESS_AT = 32;
export const FAMILY_NONE = 0;
export const FAMILY_IPV4 = 2;
export const FAMILY_IPV6 = 10;

export interface UnderlayAddr {
  readonly address: IpAddress;
  readonly port: number;
  /** interface index of a link-local IPv6 address, else 0 */
  readonly scope: number;
}

export function familyOf(bytes: Uint8Array, at: number): number {
  return readU16LE(bytes, at);
}

/** Writes a record; all its octets are set. Our own address is any. */
export function writeUnderlayAddr(bytes: Uint8Array, at: number, addr: UnderlayAddr): void {
  bytes.fill(0, at, at + UNDERLAY_ADDR_BYTES);
  writeU16(bytes, at + 2, addr.port);
  if (addr.address.length === 4) {
    writeU16LE(bytes, at, FAMILY_IPV4);
    bytes.set(addr.address, at + 4);
  } else {
    writeU16LE(bytes, at, FAMILY_IPV6);
    bytes.set(addr.address, at + 8);
    writeU32LE(bytes, at + 24, addr.scope);
  }
}

/** Reads a record; `undefined` when it holds no address. Allocates: not for the packet path. */
export function readUnderlayAddr(bytes: Uint8Array, at: number): UnderlayAddr | undefined {
  const family = familyOf(bytes, at);
  const port = readU16(bytes, at + 2);
  if (family === FAMILY_IPV4) return { address: bytes.slice(at + 4, at + 8), port, scope: 0 };
  if (family === FAMILY_IPV6) return { address: bytes.slice(at + 8, at + 24), port, scope: readU32LE(bytes, at + 24) };
  return undefined;
}

/** Whether answers go out from an address that the peer spoke to. */
export function hasOwnAddress(bytes: Uint8Array, at: number): boolean {
  const from = at + OWN_ADDRESS_AT;
  return (readU32LE(bytes, from) | readU32LE(bytes, from + 4) | readU32LE(bytes, from + 8) |
    readU32LE(bytes, from + 12)) !== 0;
}

/** From now on the machine chooses the address that it sends from. */
export function forgetOwnAddress(bytes: Uint8Array, at: number): void {
  bytes.fill(0, at + OWN_ADDRESS_AT, at + UNDERLAY_ADDR_BYTES);
}

export function copyUnderlayAddr(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number): void {
  for (let i = 0; i < UNDERLAY_ADDR_BYTES; i++) to[toAt + i] = from[fromAt + i]!;
}

export function equalUnderlayAddr(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number): boolean {
  return equalRange(a, aAt, b, bAt, UNDERLAY_ADDR_BYTES);
}

/** `192.0.2.1:51871`, `[2001:db8::1]:51871`, with `%<scope>` when link-local. */
export function formatUnderlayAddr(addr: UnderlayAddr): string {
  const text = formatAddress(addr.address);
  if (addr.address.length === 4) return `${text}:${addr.port}`;
  return `[${text}${addr.scope ? `%${addr.scope}` : ""}]:${addr.port}`;
}

/** Reads `a.b.c.d:port` or `[v6]:port`, port 1 to 65535; names are not resolved here. */
export function parseUnderlayAddr(text: string): UnderlayAddr | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([1-9][0-9]{0,4})$/.exec(text);
  if (!match) return undefined;
  const address = parseAddress(match[1] ?? match[2]!);
  const port = Number(match[3]);
  if (!address || port > 65535 || (match[1] !== undefined) !== (address.length === 16)) return undefined;
  return { address, port, scope: 0 };
}
