/**
 * The addresses behind which a redirected flow meets a proxy of this node. They are routed into the TUN device, belong to nobody,
 * and never leave the machine; `redirect.ts` translates between them and the flow's own addresses.
 *
 *     PROXY_CLIENT:handle   whom the proxy sees as its client
 *     PROXY_SERVER:handle   where the proxy reaches the real server
 *
 * IPv4 has them in the link-local block (RFC 3927), IPv6 in the unique local one (RFC 4193); /128 and /32 routes, so whatever else
 * a machine has in these blocks stays reachable.
 */
import { readI32 } from "../bytes/integers.ts";
import { type IpAddress, parseAddress } from "../ip/address.ts";

const CLIENT4 = "169.254.101.1";
const SERVER4 = "169.254.101.2";
const CLIENT6 = "fd65:6d65:7368::1";
const SERVER6 = "fd65:6d65:7368::2";

/**
 * Prefixes that must be routed into the TUN device while a proxy runs. Whoever sends there sends to the ends of a flow without a proxy
 * between: only the proxies may.
 */
export const PROXY_ROUTES: readonly string[] = [`${CLIENT4}/32`, `${CLIENT6}/128`, `${SERVER4}/32`, `${SERVER6}/128`];

/** What an address is: no proxy address at all, or one of the two. */
export const ROLE_NONE = 0;
export const ROLE_CLIENT = 1;
export const ROLE_SERVER = 2;

/** The address of whoever opened a redirected flow, as the proxy sees it: a connection from elsewhere is not one of ours. */
export function proxyClientAddress(family: 4 | 6): string {
  return family === 4 ? CLIENT4 : CLIENT6;
}

/** The address at which the proxy reaches the server of a flow: at the flow's handle as port. */
export function proxyServerAddress(family: 4 | 6): string {
  return family === 4 ? SERVER4 : SERVER6;
}

/** The octets of a proxy address. @param role ROLE_CLIENT or ROLE_SERVER */
export function proxyAddressOf(role: number, family: 4 | 6): IpAddress {
  return parseAddress(role === ROLE_CLIENT ? proxyClientAddress(family) : proxyServerAddress(family))!;
}

// All but the last octet, whose value is the role.
const PREFIX4 = readI32(parseAddress("169.254.101.0")!, 0);
const PREFIX6 = parseAddress("fd65:6d65:7368::")!;
const PREFIX6_0 = readI32(PREFIX6, 0);
const PREFIX6_4 = readI32(PREFIX6, 4);

/** ROLE_... of the address at `at`. Once per packet: a comparison where it is none. */
export function proxyRoleOf(bytes: Uint8Array, at: number, version: number): number {
  let role: number;
  if (version === 4) role = readI32(bytes, at) ^ PREFIX4;
  else {
    if (readI32(bytes, at) !== PREFIX6_0) return ROLE_NONE;
    if (readI32(bytes, at + 4) !== PREFIX6_4 || readI32(bytes, at + 8) !== 0) return ROLE_NONE;
    role = readI32(bytes, at + 12);
  }
  return role === ROLE_CLIENT || role === ROLE_SERVER ? role : ROLE_NONE;
}
