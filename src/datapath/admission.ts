/**
 * The step that both directions share: is this packet part of a flow that was allowed, or may it start one?
 *
 * Policy is asked once per flow, policy revision and identity of the other side. When one of these changed, the flow is judged again
 * in the direction in which it was opened, whoever sent the packet at hand: so a rule that goes away, or a peer that becomes somebody
 * else, cuts both halves and the ICMP errors about them, and an allowed flow never notices a change. Facts: Cilium's decision
 * procedure, `bpf/lib/conntrack.h`.
 */
import { readI32 } from "../bytes/integers.ts";
import { isOpeningSyn } from "../conntrack/lifetimes.ts";
import { OWN_FLOWS } from "../conntrack/table.ts";
import { IDENTITY_UNKNOWN } from "../identity/reserved.ts";
import {
  DROP_CT_INSERT_FAILED,
  DROP_INVALID_SOURCE_IP,
  DROP_NO_PROXY,
  FORWARD,
  REDIRECT,
  type Verdict,
} from "../verdict.ts";
import { ICMP_HEADER_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMP6, PROTOCOL_UDP } from "../wire/numbers.ts";
import { ICMP6_ECHO_REQUEST, ICMP_ECHO_REQUEST, type PacketInfo } from "../wire/packet.ts";
import { counterOf, type Direction, INGRESS } from "./counters.ts";
import type { Node } from "./node.ts";
import { peerOfOther } from "./other_side.ts";
import { proxyRoleOf, ROLE_NONE } from "./proxy_addresses.ts";

const FLOWS_CREATED = counterOf("flowsCreated");

/**
 * @param packet    the inner packet
 * @param direction of this packet, seen from this node
 * @param identity  of the other side
 * @returns FORWARD; REDIRECT: `node.redirects` has the flow, and the packet goes to its proxy; a policy reason; DROP_INVALID_SOURCE_IP
 *          for a peer that sends from a proxy's address; DROP_NO_PROXY, also for
 *          a TCP flow that was allowed without a proxy until now: it cannot go on, its ends have to connect anew; or
 *          DROP_CT_INSERT_FAILED when the flow table is full of live flows
 */
export function admit(node: Node, packet: PacketInfo, direction: Direction, identity: number, nowMs: number): Verdict {
  const { arena, conntrack, policy, counters } = node.parts;
  // Whoever may send for all addresses (a gateway to the world) may not send for the proxies'.
  if (
    direction === INGRESS && node.redirects !== undefined &&
    proxyRoleOf(arena, packet.sourceAt, packet.version) !== ROLE_NONE
  ) {
    return DROP_INVALID_SOURCE_IP;
  }
  const flow = conntrack.find(arena, packet, nowMs);
  if (flow >= 0) {
    if (conntrack.revisionOf(flow) === policy.revision && conntrack.identityOf(flow) === identity) {
      conntrack.touch(flow, packet, nowMs);
      return FORWARD;
    }
    const port = policyPort(packet, conntrack.isReply);
    const verdict = policy.lookup(conntrack.directionOf(flow) as Direction, identity, packet.protocol, port);
    if (verdict === FORWARD) {
      conntrack.setJudged(flow, policy.revision, identity);
      conntrack.touch(flow, packet, nowMs);
      return FORWARD;
    }
    // A flow that is cut stays known: its other half would be taken for the start of one in the other direction.
    if (!startsAnew(packet, conntrack.isReply, verdict)) return verdict === REDIRECT ? DROP_NO_PROXY : verdict;
    conntrack.remove(flow);
  }
  if (isIcmpError(packet)) {
    const about = conntrack.findRelated(arena, packet, nowMs);
    if (about >= 0) return judgeRelated(node, packet, about, direction, identity);
  }
  if (node.redirects !== undefined) {
    const known = node.redirects.find(packet, identity, nowMs);
    if (known !== FORWARD) return known;
  }
  const verdict = policy.lookup(direction, identity, packet.protocol, policyPort(packet, false));
  if (verdict === REDIRECT) return redirect(node, packet, direction, identity, nowMs);
  if (verdict !== FORWARD) return verdict;
  if (isIcmpError(packet)) return FORWARD; // an error belongs to a flow or to none: it never starts one
  const owner = direction === INGRESS ? peerOfOther(node, packet, INGRESS) : OWN_FLOWS;
  if (conntrack.insert(arena, packet, direction, identity, policy.revision, nowMs, owner) < 0) {
    return DROP_CT_INSERT_FAILED;
  }
  counters.add(FLOWS_CREATED, 1);
  return FORWARD;
}

/** Whether a packet of a flow that is cut may begin one of its own: a connection that opens, a datagram that a proxy can take. */
function startsAnew(packet: PacketInfo, isReply: boolean, verdict: Verdict): boolean {
  return isOpeningSyn(packet.protocol, packet.tcpFlags) ||
    (verdict === REDIRECT && packet.protocol === PROTOCOL_UDP && !isReply);
}

/**
 * An ICMP error is judged like the flow that it is about: what nobody may send, nobody may complain about either.
 * @param identity of whoever sent the error, or is sent it: of the flow's other side only where we send it
 */
function judgeRelated(node: Node, packet: PacketInfo, flow: number, direction: Direction, identity: number): Verdict {
  const { conntrack, policy } = node.parts;
  const other = direction === INGRESS ? quotedIdentity(node, packet) : identity;
  if (conntrack.revisionOf(flow) === policy.revision && conntrack.identityOf(flow) === other) return FORWARD;
  const protocol = conntrack.protocolOf(flow);
  const port = protocol === PROTOCOL_ICMP
    ? ICMP_ECHO_REQUEST
    : protocol === PROTOCOL_ICMP6
    ? ICMP6_ECHO_REQUEST
    : conntrack.responderPortOf(flow);
  const verdict = policy.lookup(conntrack.directionOf(flow) as Direction, other, protocol, port);
  if (verdict === FORWARD) conntrack.setJudged(flow, policy.revision, other);
  return verdict === REDIRECT ? DROP_NO_PROXY : verdict;
}

/** Identity of whoever the quoted packet was for; of nobody when no member has the address any more. */
function quotedIdentity(node: Node, packet: PacketInfo): number {
  const { arena, ipcache } = node.parts;
  const quotedAt = packet.transportAt + ICMP_HEADER_BYTES;
  const entry = packet.version === 4
    ? ipcache.find4(readI32(arena, quotedAt + 16))
    : ipcache.find6(arena, quotedAt + 24);
  return entry < 0 ? IDENTITY_UNKNOWN : ipcache.identityOf(entry);
}

/** Policy hands the flow to a proxy: REDIRECT, or DROP_NO_PROXY. */
function redirect(node: Node, packet: PacketInfo, direction: Direction, identity: number, nowMs: number): Verdict {
  const { redirects } = node;
  if (redirects === undefined) return DROP_NO_PROXY;
  const verdict = redirects.begin(packet, direction, identity, nowMs);
  if (verdict === REDIRECT) node.parts.counters.add(FLOWS_CREATED, 1);
  return verdict;
}

/**
 * The port that policy is asked for: the one that the flow was opened to. An ICMP packet's is its type (Cilium); the reply to an
 * echo counts as the request.
 */
function policyPort(packet: PacketInfo, isReply: boolean): number {
  if (packet.protocol === PROTOCOL_ICMP) return isReply ? ICMP_ECHO_REQUEST : packet.icmpType;
  if (packet.protocol === PROTOCOL_ICMP6) return isReply ? ICMP6_ECHO_REQUEST : packet.icmpType;
  return isReply ? packet.sourcePort : packet.destinationPort;
}

/** ICMP types 3, 11, 12 and ICMPv6 types 1 to 4 carry the packet that they complain about (RFC 792, RFC 4443 §2.1). */
function isIcmpError(packet: PacketInfo): boolean {
  if (packet.protocol === PROTOCOL_ICMP) {
    return packet.icmpType === 3 || packet.icmpType === 11 || packet.icmpType === 12;
  }
  return packet.protocol === PROTOCOL_ICMP6 && packet.icmpType >= 1 && packet.icmpType <= 4;
}
