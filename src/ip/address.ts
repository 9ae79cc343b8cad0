/**
 * IP addresses and prefixes: values, strict text, and the byte form used in tables and headers.
 *
 * Strict on purpose: policy and allowed IPs are decided on what is parsed here. Leading zeros, missing parts, zone names,
 * white space and shortened IPv4 are refused. Text that is written is canonical (RFC 5952), as Go's `netip` prints it.
 */

/** An address: 4 or 16 octets in network order. Treat as immutable. */
export type IpAddress = Uint8Array;

/** An address and a length in bits. `address` has its host bits as given; see `maskedPrefix`. */
export interface IpPrefix {
  readonly address: IpAddress;
  /** 0 to 32, or 0 to 128 */
  readonly length: number;
}

/** Reads an IPv4 or IPv6 address; `undefined` when it is not exactly one. IPv4-mapped IPv6 stays IPv6. */
export function parseAddress(text: string): IpAddress | undefined {
  return text.includes(":") ? parseIpv6(text) : parseIpv4(text);
}

function parseIpv4(text: string): Uint8Array | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  const bytes = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    const part = parts[i]!;
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    bytes[i] = Number(part);
  }
  return bytes;
}

function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = groupsOf(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? groupsOf(halves[1]!, true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const count = head.length + tail.length;
  if (halves.length === 1 ? count !== 8 : count > 7) return undefined;
  const groups = [...head, ...new Array<number>(8 - count).fill(0), ...tail];
  const bytes = new Uint8Array(16);
  groups.forEach((group, i) => {
    bytes[2 * i] = group >> 8;
    bytes[2 * i + 1] = group;
  });
  return bytes;
}

/** The 16-bit groups of one side of "::"; an IPv4 tail counts as two and may only stand last. */
function groupsOf(text: string, mayEndInIpv4: boolean): number[] | undefined {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i]!;
    if (part.includes(".")) {
      const v4 = mayEndInIpv4 && i === parts.length - 1 ? parseIpv4(part) : undefined;
      if (v4 === undefined) return undefined;
      groups.push((v4[0]! << 8) | v4[1]!, (v4[2]! << 8) | v4[3]!);
    } else if (/^[0-9a-fA-F]{1,4}$/.test(part)) groups.push(parseInt(part, 16));
    else return undefined;
  }
  return groups;
}

/** Reads `address/length`. A bare address, a length with leading zeros or out of range: `undefined`. Host bits may be set. */
export function parsePrefix(text: string): IpPrefix | undefined {
  const slash = text.indexOf("/");
  if (slash < 0) return undefined;
  const address = parseAddress(text.slice(0, slash));
  const lengthText = text.slice(slash + 1);
  if (address === undefined || !/^(0|[1-9][0-9]{0,2})$/.test(lengthText)) return undefined;
  const length = Number(lengthText);
  return length <= address.length * 8 ? { address, length } : undefined;
}

/** Reads a prefix, or a bare address as its host prefix. */
export function parsePrefixOrAddress(text: string): IpPrefix | undefined {
  if (text.includes("/")) return parsePrefix(text);
  const address = parseAddress(text);
  return address && { address, length: address.length * 8 };
}

/** Canonical text (RFC 5952): lower case, the longest run of two or more zero groups as "::", IPv4-mapped with dots. */
export function formatAddress(address: IpAddress): string {
  if (address.length === 4) return address.join(".");
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push((address[i]! << 8) | address[i + 1]!);
  if (groups.slice(0, 5).every((g) => g === 0) && groups[5] === 0xffff) return "::ffff:" + address.slice(12).join(".");
  let bestAt = -1;
  let bestCount = 1;
  for (let i = 0; i < 8; i++) {
    let count = 0;
    while (i + count < 8 && groups[i + count] === 0) count++;
    if (count > bestCount) [bestAt, bestCount] = [i, count];
  }
  const hex = (from: number, to: number) => groups.slice(from, to).map((g) => g.toString(16)).join(":");
  return bestAt < 0 ? hex(0, 8) : `${hex(0, bestAt)}::${hex(bestAt + bestCount, 8)}`;
}

/** Canonical text of a prefix; the address is written with the host bits it has. */
export function formatPrefix(prefix: IpPrefix): string {
  return `${formatAddress(prefix.address)}/${prefix.length}`;
}

/** The same prefix with its host bits cleared. */
export function maskedPrefix(prefix: IpPrefix): IpPrefix {
  const address = new Uint8Array(prefix.address);
  for (let i = 0; i < address.length; i++) {
    const bits = Math.min(8, Math.max(0, prefix.length - 8 * i));
    address[i] = address[i]! & (0xff << (8 - bits));
  }
  return { address, length: prefix.length };
}

/** Whether `prefix` covers `address`. Addresses of the other family are never covered. */
export function prefixContains(prefix: IpPrefix, address: IpAddress): boolean {
  if (prefix.address.length !== address.length) return false;
  const whole = prefix.length >> 3;
  for (let i = 0; i < whole; i++) if (prefix.address[i] !== address[i]) return false;
  const bits = prefix.length & 7;
  return bits === 0 || ((prefix.address[whole]! ^ address[whole]!) >> (8 - bits)) === 0;
}
