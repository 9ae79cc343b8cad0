/**
 * Who gets which name, address, identity and underlay address. Pure and deterministic: same state and same chance, same answer,
 * so that a decision can be made again after a restart or a lost race.
 */
import { clusterRange, type MaxClusters } from "../identity/ranges.ts";
import {
  formatAddress,
  type IpAddress,
  type IpPrefix,
  maskedPrefix,
  parseAddress,
  parsePrefix,
  prefixContains,
} from "../ip/address.ts";
import type { RandomBytes } from "../ports.ts";

/** How long a freed address is left alone while others are free: peers may still hold it in their tables. */
export const QUARANTINE_MS = 60 * 60 * 1000;

const NAME_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";

/** A DNS label in lower case (RFC 1123): what names a member, a namespace, a cluster. */
export function isDnsLabel(text: string): boolean {
  return /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(text);
}

/** A Kubernetes label: `[prefix/]name` and value, as the API server accepts them. */
export function isLabel(key: string, value: string): boolean {
  const slash = key.indexOf("/");
  const prefix = slash < 0 ? undefined : key.slice(0, slash);
  const name = key.slice(slash + 1);
  if (prefix !== undefined && !(prefix.length <= 253 && prefix.split(".").every(isDnsLabel))) return false;
  const part = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
  return part.test(name) && (value === "" || part.test(value));
}

/** `edge-` and four characters that nobody has yet; `undefined` when chance finds none in a hundred tries. */
export function makeMemberName(isTaken: (name: string) => boolean, random: RandomBytes): string | undefined {
  const bytes = new Uint8Array(4);
  for (let attempt = 0; attempt < 100; attempt++) {
    random(bytes);
    const name = "edge-" + Array.from(bytes, (octet) => NAME_ALPHABET[octet & 31]).join("");
    if (!isTaken(name)) return name;
  }
  return undefined;
}

/** Which addresses are in use, and since when others are free. Keys are canonical text. */
export interface AddressUse {
  readonly isTaken: (address: string) => boolean;
  /** Unix milliseconds when the address was freed; `undefined` = never used, or long ago */
  readonly freedAt: (address: string) => number | undefined;
}

/**
 * Addresses for a new member: the lowest free IPv4 host number, and the same number in the IPv6 prefix when that is free, else
 * the lowest free one there. The first host of each prefix is the hub's; network, broadcast and subnet-router addresses are
 * nobody's. Freed addresses wait out `QUARANTINE_MS`, unless nothing else is left: then the one freed first.
 *
 * @param memberCidrs text prefixes, at least one; of each family the prefixes are filled in order
 * @returns canonical text, IPv4 first; `undefined` when a family that the mesh has is full
 */
export function allocateAddresses(
  memberCidrs: readonly string[],
  use: AddressUse,
  nowUnixMs: number,
): readonly string[] | undefined {
  const prefixes = memberCidrs.map((text) => maskedPrefix(parsePrefix(text)!));
  const v4 = prefixes.filter((prefix) => prefix.address.length === 4);
  const v6 = prefixes.filter((prefix) => prefix.address.length === 16);
  const addresses: string[] = [];
  let hostNumber: number | undefined;
  if (v4.length > 0) {
    const found = lowestFree(v4, use, nowUnixMs);
    if (found === undefined) return undefined;
    addresses.push(found.address);
    hostNumber = found.host;
  }
  if (v6.length > 0) {
    const mirrored = hostNumber === undefined ? undefined : mirrorOf(v6[0]!, hostNumber, use, nowUnixMs);
    const address = mirrored ?? lowestFree(v6, use, nowUnixMs)?.address;
    if (address === undefined) return undefined;
    addresses.push(address);
  }
  return addresses;
}

/** The first host address of the first prefix of each family: the hub's own, IPv4 first. */
export function hubAddresses(memberCidrs: readonly string[]): readonly string[] {
  const prefixes = memberCidrs.map((text) => maskedPrefix(parsePrefix(text)!));
  const first = [4, 16].map((octets) => prefixes.find((prefix) => prefix.address.length === octets));
  return first.filter((prefix) => prefix !== undefined).map((prefix) => formatAddress(hostAddress(prefix, 1)));
}

/**
 * Faults of the prefixes that members' addresses come from: each must be a prefix with room for a hub and a member, and none may
 * overlap another. Empty = fine.
 */
export function memberCidrFaults(memberCidrs: readonly string[]): string[] {
  const faults: string[] = [];
  const prefixes: IpPrefix[] = [];
  for (const text of memberCidrs) {
    const prefix = parsePrefix(text);
    if (prefix === undefined) faults.push(`"${text}" is no prefix`);
    else if (formatAddress(maskedPrefix(prefix).address) !== formatAddress(prefix.address)) {
      faults.push(`"${text}" has host bits set`);
    } else if (lastHost(prefix) < 2) faults.push(`"${text}" has no room for a hub and a member`);
    else if (prefixes.some((other) => prefixContains(other, prefix.address) || prefixContains(prefix, other.address))) {
      faults.push(`"${text}" overlaps another member prefix`);
    } else prefixes.push(prefix);
  }
  if (memberCidrs.length === 0) faults.push("there is no member prefix");
  return faults;
}

interface Found {
  readonly address: string;
  readonly host: number;
}

function lowestFree(prefixes: readonly IpPrefix[], use: AddressUse, nowUnixMs: number): Found | undefined {
  let oldest: (Found & { freedAt: number }) | undefined;
  for (const [i, prefix] of prefixes.entries()) {
    const last = lastHost(prefix);
    // the first host of the first prefix is the hub's
    for (let host = i === 0 ? 2 : 1; host <= last; host++) {
      const address = formatAddress(hostAddress(prefix, host));
      if (use.isTaken(address)) continue;
      const freedAt = use.freedAt(address);
      if (isFree(freedAt, nowUnixMs)) return { address, host };
      if (oldest === undefined || freedAt! < oldest.freedAt) oldest = { address, host, freedAt: freedAt! };
    }
  }
  return oldest;
}

function mirrorOf(prefix: IpPrefix, host: number, use: AddressUse, nowUnixMs: number): string | undefined {
  if (host > lastHost(prefix)) return undefined;
  const address = formatAddress(hostAddress(prefix, host));
  return use.isTaken(address) || !isFree(use.freedAt(address), nowUnixMs) ? undefined : address;
}

/** A clock that was set back must not lock addresses away for ever: a time in the future counts as long ago. */
function isFree(freedAt: number | undefined, nowUnixMs: number): boolean {
  return freedAt === undefined || freedAt > nowUnixMs || nowUnixMs - freedAt >= QUARANTINE_MS;
}

/** Highest host number that is given out: IPv4 keeps the broadcast address back. At most 2^24, more than any hub serves. */
function lastHost(prefix: IpPrefix): number {
  const bits = Math.min(24, prefix.address.length * 8 - prefix.length);
  return 2 ** bits - 2;
}

function hostAddress(prefix: IpPrefix, host: number): IpAddress {
  const address = new Uint8Array(prefix.address);
  for (let i = address.length - 1, rest = host; rest > 0; i--, rest = Math.floor(rest / 256)) {
    address[i] = address[i]! | (rest & 255);
  }
  return address;
}

/**
 * The lowest identity of the cluster that has no labels yet; `undefined` when all are given out. Which labels have one already
 * is the caller's index: same labels, same identity.
 */
export function allocateIdentity(
  clusterId: number,
  isTaken: (identity: number) => boolean,
  maxClusters: MaxClusters = 255,
): number | undefined {
  const { first, last } = clusterRange(clusterId, maxClusters);
  for (let identity = first; identity <= last; identity++) if (!isTaken(identity)) return identity;
  return undefined;
}

/** What `chooseUnderlay` looks at. */
export interface UnderlayFacts {
  /** the member's mesh addresses, at least one */
  readonly addresses: readonly string[];
  readonly memberCidrs: readonly string[];
  /** whether another member has it as underlay address */
  readonly isUsed: (underlay: string) => boolean;
  /** the mesh has no encryption: datagrams really go to it, and it may be of any family */
  readonly isPlain: boolean;
}

/**
 * The member's address in outer headers: its own local address when that is usable and nobody else's in the mesh, else its first
 * mesh address, which is unique by construction. (Cilium wants it unique, not reachable: WireGuard's endpoint is learned.)
 * Inside WireGuard all of a mesh are of the family of the first mesh address: an envelope has one for both ends.
 *
 * @param localAddress as the member reports it, or ""
 */
export function chooseUnderlay(localAddress: string, facts: UnderlayFacts): string {
  const { addresses, memberCidrs, isUsed, isPlain } = facts;
  const local = parseAddress(localAddress);
  if (local === undefined || !isUnicast(local)) return addresses[0]!;
  if (isMeshAddress(localAddress, memberCidrs)) return addresses[0]!;
  if (!isPlain && local.length !== parseAddress(addresses[0]!)!.length) return addresses[0]!;
  const text = formatAddress(local);
  return isUsed(text) ? addresses[0]! : text;
}

/** Whether an address is one of the mesh's own: a connection from it came through the mesh, and tells nothing of the underlay. */
export function isMeshAddress(address: string, memberCidrs: readonly string[]): boolean {
  const parsed = parseAddress(address);
  return parsed !== undefined && memberCidrs.some((text) => prefixContains(parsePrefix(text)!, parsed));
}

/** Not unspecified, loopback, link-local, multicast, broadcast, or an IPv4 address in IPv6 clothes. */
function isUnicast(address: IpAddress): boolean {
  const [a, b] = [address[0]!, address[1]!];
  if (address.length === 4) return a !== 0 && a !== 127 && a < 224 && !(a === 169 && b === 254);
  if (address.slice(0, 10).every((octet) => octet === 0)) return false;
  return a !== 0xff && !(a === 0xfe && (b & 0xc0) === 0x80);
}
