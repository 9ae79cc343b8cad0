/** Protocol numbers that more than one header file needs. Source: IANA registries; RFC 8926 for Geneve. */

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMP6 = 58;
export const PROTOCOL_SCTP = 132;

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_IPV6 = 0x86dd;
/** Transparent Ethernet bridging: an Ethernet frame follows (RFC 8926 §3.4) */
export const ETHERTYPE_ETHERNET = 0x6558;

export const GENEVE_PORT = 6081;
export const VXLAN_PORT = 8472;

export const IPV4_HEADER_BYTES = 20;
export const IPV6_HEADER_BYTES = 40;
export const UDP_HEADER_BYTES = 8;
export const TCP_HEADER_BYTES = 20;
export const ICMP_HEADER_BYTES = 8;
export const SCTP_HEADER_BYTES = 12;
export const ETHERNET_HEADER_BYTES = 14;

/** IPv6 extension headers (RFC 8200 §4.1). */
export const EXTENSION_HOP_BY_HOP = 0;
export const EXTENSION_ROUTING = 43;
export const EXTENSION_FRAGMENT = 44;
export const EXTENSION_DESTINATION = 60;
/** Extension headers that one packet may have: more is not traffic, it is an attack on parsers. */
export const MAX_EXTENSION_HEADERS = 6;

const PROTOCOL_NAMES: ReadonlyMap<number, string> = new Map([
  [PROTOCOL_ICMP, "ICMP"],
  [PROTOCOL_TCP, "TCP"],
  [PROTOCOL_UDP, "UDP"],
  [PROTOCOL_ICMP6, "ICMPv6"],
  [PROTOCOL_SCTP, "SCTP"],
]);

/** What people call an IP protocol: its name, or its number as text. */
export function nameOfProtocol(protocol: number): string {
  return PROTOCOL_NAMES.get(protocol) ?? String(protocol);
}
