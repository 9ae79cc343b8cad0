/**
 * Verdicts: what a step of the packet path answers. `FORWARD` goes on; every other number is a drop reason, and ends the
 * packet there. One list for counters, logs, metrics and the health page; `REASONS` names them all.
 *
 * Numbers below 256 are Cilium's (`pkg/monitor/api/drop.go`), so that its tools print them; ours start at 300.
 * No reason is used for two causes.
 */

/** FORWARD, or a drop reason. Never a boolean, never an exception. */
export type Verdict = number;

export const FORWARD = 0;

// Cilium's numbers
export const DROP_INVALID_SOURCE_IP = 132;
export const DROP_POLICY_DENIED = 133;
export const DROP_INVALID_PACKET = 134;
export const DROP_CT_INVALID_HEADER = 135;
export const DROP_PACKET_TOO_BIG = 136;
export const DROP_UNSUPPORTED_L3 = 139;
export const DROP_UNKNOWN_L4 = 142;
export const DROP_INVALID_GENEVE_OPTION = 149;
export const DROP_UNROUTABLE = 151;
export const DROP_L3_CHECKSUM = 153;
export const DROP_L4_CHECKSUM = 154;
export const DROP_CT_INSERT_FAILED = 155;
export const DROP_INVALID_EXTENSION_HEADER = 156;
export const DROP_FRAGMENT = 157;
export const DROP_NO_BACKEND = 158;
export const DROP_NO_TUNNEL_ENDPOINT = 160;
export const DROP_UNSUPPORTED_L2 = 166;
export const DROP_INVALID_IDENTITY = 171;
export const DROP_UNKNOWN_SENDER = 172;
export const DROP_FRAGMENT_NOT_FOUND = 175;
export const DROP_FORBIDDEN_ICMP6 = 176;
export const DROP_NO_PROXY = 180;
export const DROP_POLICY_DENY = 181;
export const DROP_INVALID_VNI = 183;
export const DROP_INVALID_CLUSTER_ID = 192;
export const DROP_UNENCRYPTED = 195;
export const DROP_TTL_EXCEEDED = 196;
export const DROP_NOT_READY = 202;
/** Policy's answer for a flow that a proxy has to judge: whoever has no proxy drops it. */
export const REDIRECT = 205;

// Ours
export const DROP_REPLAYED = 300;
export const DROP_NO_SESSION = 301;
export const DROP_BAD_TAG = 302;
export const DROP_SESSION_EXPIRED = 303;
export const DROP_COUNTER_RANGE = 304;
export const DROP_NOT_ALLOWED_IP = 305;
export const DROP_BAD_MAC1 = 306;
export const DROP_BAD_HANDSHAKE = 307;
export const DROP_STALE_HANDSHAKE = 308;
export const DROP_UNKNOWN_PEER = 309;
export const DROP_UNDER_LOAD = 310;
export const DROP_RATE_LIMITED = 311;
export const DROP_BAD_COOKIE = 312;
export const DROP_STAGED_OVERFLOW = 313;
export const DROP_NO_UNDERLAY_ADDRESS = 314;
export const DROP_TUN_WRITE = 315;
export const DROP_UNDERLAY_SEND = 316;
export const DROP_UNKNOWN_MESSAGE = 317;
export const DROP_IDENTITY_MISMATCH = 318;
export const DROP_NOT_FOR_US = 319;
export const DROP_CONTROL_MESSAGE = 320;
export const DROP_TOO_MANY_SEGMENTS = 321;
export const DROP_BAD_OFFLOAD_HEADER = 322;
export const DROP_TRUNCATED = 323;
export const DROP_PROXY_REFUSED = 324;
export const DROP_NO_REDIRECT = 325;

/** Every drop reason with the name that counters, logs, metrics and pages print, and a sentence for people. */
export const REASONS: ReadonlyMap<Verdict, { readonly name: string; readonly text: string }> = new Map([
  [DROP_INVALID_SOURCE_IP, { name: "INVALID_SOURCE_IP", text: "Invalid source IP" }],
  [DROP_POLICY_DENIED, { name: "POLICY_DENIED", text: "Policy denied: no rule allows it" }],
  [DROP_INVALID_PACKET, { name: "INVALID_PACKET", text: "Invalid packet" }],
  [DROP_CT_INVALID_HEADER, { name: "CT_INVALID_HEADER", text: "CT: truncated or invalid header" }],
  [DROP_PACKET_TOO_BIG, { name: "PACKET_TOO_BIG", text: "Fragmentation needed" }],
  [DROP_UNSUPPORTED_L3, { name: "UNSUPPORTED_L3", text: "Unsupported L3 protocol" }],
  [DROP_UNKNOWN_L4, { name: "UNKNOWN_L4", text: "Unknown L4 protocol" }],
  [DROP_INVALID_GENEVE_OPTION, { name: "INVALID_GENEVE_OPTION", text: "Invalid Geneve option" }],
  [DROP_UNROUTABLE, { name: "UNROUTABLE", text: "Stale or unroutable IP" }],
  [DROP_L3_CHECKSUM, { name: "L3_CHECKSUM", text: "L3 checksum error" }],
  [DROP_L4_CHECKSUM, { name: "L4_CHECKSUM", text: "L4 checksum error" }],
  [DROP_CT_INSERT_FAILED, { name: "CT_INSERT_FAILED", text: "CT: map insertion failed" }],
  [DROP_INVALID_EXTENSION_HEADER, { name: "INVALID_EXTENSION_HEADER", text: "Invalid IPv6 extension header" }],
  [DROP_FRAGMENT, { name: "FRAGMENT", text: "Fragment that cannot be judged" }],
  [DROP_NO_BACKEND, { name: "NO_BACKEND", text: "Service backend not found" }],
  [DROP_NO_TUNNEL_ENDPOINT, { name: "NO_TUNNEL_ENDPOINT", text: "No tunnel endpoint for the destination" }],
  [DROP_UNSUPPORTED_L2, { name: "UNSUPPORTED_L2", text: "Unsupported L2 protocol" }],
  [DROP_INVALID_IDENTITY, { name: "INVALID_IDENTITY", text: "Invalid identity" }],
  [DROP_UNKNOWN_SENDER, { name: "UNKNOWN_SENDER", text: "Unknown sender" }],
  [DROP_FRAGMENT_NOT_FOUND, { name: "FRAGMENT_NOT_FOUND", text: "First fragment of the packet not seen" }],
  [DROP_FORBIDDEN_ICMP6, { name: "FORBIDDEN_ICMP6", text: "Forbidden ICMPv6 message" }],
  [DROP_NO_PROXY, { name: "NO_PROXY", text: "No proxy can judge this flow" }],
  [DROP_POLICY_DENY, { name: "POLICY_DENY", text: "Policy denied by a deny rule" }],
  [DROP_INVALID_VNI, { name: "INVALID_VNI", text: "Invalid VNI" }],
  [DROP_INVALID_CLUSTER_ID, { name: "INVALID_CLUSTER_ID", text: "Invalid cluster ID" }],
  [DROP_UNENCRYPTED, { name: "UNENCRYPTED", text: "Traffic is unencrypted" }],
  [DROP_TTL_EXCEEDED, { name: "TTL_EXCEEDED", text: "TTL exceeded" }],
  [DROP_NOT_READY, { name: "NOT_READY", text: "Closed until the first policy sync" }],
  [REDIRECT, { name: "REDIRECT", text: "Handed to a proxy" }],
  [DROP_REPLAYED, { name: "REPLAYED", text: "WireGuard counter seen before or too old" }],
  [DROP_NO_SESSION, { name: "NO_SESSION", text: "No WireGuard session of that index" }],
  [DROP_BAD_TAG, { name: "BAD_TAG", text: "Authentication tag does not verify" }],
  [DROP_SESSION_EXPIRED, { name: "SESSION_EXPIRED", text: "WireGuard session is too old" }],
  [DROP_COUNTER_RANGE, { name: "COUNTER_RANGE", text: "WireGuard counter above the limit" }],
  [DROP_NOT_ALLOWED_IP, { name: "NOT_ALLOWED_IP", text: "Source is not among the peer's allowed IPs" }],
  [DROP_BAD_MAC1, { name: "BAD_MAC1", text: "Handshake with a wrong mac1" }],
  [DROP_BAD_HANDSHAKE, { name: "BAD_HANDSHAKE", text: "Handshake message does not authenticate" }],
  [DROP_STALE_HANDSHAKE, { name: "STALE_HANDSHAKE", text: "Handshake timestamp not newer, or answer to none of ours" }],
  [DROP_UNKNOWN_PEER, { name: "UNKNOWN_PEER", text: "Handshake from a key that is no peer" }],
  [DROP_UNDER_LOAD, { name: "UNDER_LOAD", text: "Handshake answered with a cookie while under load" }],
  [DROP_RATE_LIMITED, { name: "RATE_LIMITED", text: "Handshakes of this source exceed the rate limit" }],
  [DROP_BAD_COOKIE, { name: "BAD_COOKIE", text: "Cookie reply does not open" }],
  [DROP_STAGED_OVERFLOW, { name: "STAGED_OVERFLOW", text: "Too many packets waiting for a session" }],
  [DROP_NO_UNDERLAY_ADDRESS, { name: "NO_UNDERLAY_ADDRESS", text: "Peer's underlay address is not known" }],
  [DROP_TUN_WRITE, { name: "TUN_WRITE", text: "TUN device refused the packet" }],
  [DROP_UNDERLAY_SEND, { name: "UNDERLAY_SEND", text: "UDP socket refused the datagram" }],
  [DROP_UNKNOWN_MESSAGE, { name: "UNKNOWN_MESSAGE", text: "Datagram is no WireGuard message" }],
  [DROP_IDENTITY_MISMATCH, { name: "IDENTITY_MISMATCH", text: "Identity in the VNI is not that of the inner source" }],
  [DROP_NOT_FOR_US, { name: "NOT_FOR_US", text: "Inner destination is not an address of this node" }],
  [DROP_CONTROL_MESSAGE, { name: "CONTROL_MESSAGE", text: "Geneve control message" }],
  [DROP_TOO_MANY_SEGMENTS, { name: "TOO_MANY_SEGMENTS", text: "Superpacket has more segments than a batch holds" }],
  [DROP_BAD_OFFLOAD_HEADER, { name: "BAD_OFFLOAD_HEADER", text: "Virtio header does not fit its packet" }],
  [DROP_TRUNCATED, { name: "TRUNCATED", text: "Datagram was larger than its slot" }],
  [DROP_PROXY_REFUSED, { name: "PROXY_REFUSED", text: "Refused by an L7 rule" }],
  [DROP_NO_REDIRECT, { name: "NO_REDIRECT", text: "Packet between proxy and tunnel belongs to no flow of a proxy" }],
]);

/** The printed name of a verdict: "FORWARD", a reason's name, or "REASON_<n>" for a number nobody defined. */
export function nameOfVerdict(verdict: Verdict): string {
  return verdict === FORWARD ? "FORWARD" : (REASONS.get(verdict)?.name ?? `REASON_${verdict}`);
}
