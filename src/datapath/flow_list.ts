/** The flows of this node as people see them: those of conntrack and those that go through a proxy, in one list. */
import type { FlowSnapshot } from "../conntrack/table.ts";
import { formatAddress } from "../ip/address.ts";
import { PROTOCOL_ICMP, PROTOCOL_ICMP6 } from "../wire/numbers.ts";
import { ICMP6_ECHO_REQUEST, ICMP_ECHO_REQUEST } from "../wire/packet.ts";
import type { FlowRecord } from "./control.ts";
import { INGRESS } from "./counters.ts";
import type { Node } from "./node.ts";
import type { RedirectTable } from "./redirect_table.ts";
import { MAX_REDIRECTED } from "./redirect_view.ts";

/**
 * The flows alive, those with the newest packets first. Allocates: for the control thread's questions.
 * @param limit most flows, 0 or more
 */
export function listFlows(node: Node, nowMs: number, unixMs: number, limit: number): FlowRecord[] {
  const { conntrack } = node.parts;
  const nowSeconds = Math.floor(nowMs / 1000);
  const unixMsOf = (seconds: number) => unixMs - (nowSeconds - seconds) * 1000;
  const flows = conntrack.recentFlows(nowMs, limit).map((flow) => recordOf(flow, unixMsOf(flow.lastSeenSeconds)));
  const redirects = node.redirects;
  if (redirects === undefined || redirects.table.size === 0) return flows;
  for (let slot = 0; slot < MAX_REDIRECTED; slot++) {
    const { table } = redirects;
    if (!table.isAlive(slot, nowMs)) continue;
    flows.push(redirectedRecordOf(table, slot, unixMsOf(table.lastSeen[slot]!)));
  }
  return flows.sort((a, b) => b.lastSeenUnixMs - a.lastSeenUnixMs).slice(0, limit);
}

function recordOf(flow: FlowSnapshot, lastSeenUnixMs: number): FlowRecord {
  const isIcmp = flow.protocol === PROTOCOL_ICMP || flow.protocol === PROTOCOL_ICMP6;
  const type = flow.isEcho ? flow.protocol === PROTOCOL_ICMP ? ICMP_ECHO_REQUEST : ICMP6_ECHO_REQUEST : flow.openerPort;
  return {
    direction: flow.direction === INGRESS ? "ingress" : "egress",
    source: formatAddress(flow.opener),
    destination: formatAddress(flow.responder),
    protocol: flow.protocol,
    sourcePort: isIcmp && !flow.isEcho ? 0 : flow.openerPort,
    destinationPort: isIcmp ? type : flow.responderPort,
    identity: flow.identity,
    state: flow.state,
    packets: flow.packets,
    bytes: flow.bytes,
    replyPackets: flow.replyPackets,
    replyBytes: flow.replyBytes,
    lastSeenUnixMs,
    isRedirected: false,
  };
}

function redirectedRecordOf(table: RedirectTable, slot: number, lastSeenUnixMs: number): FlowRecord {
  const octets = table.versions[slot] === 4 ? 4 : 16;
  const addressAt = (at: number) => formatAddress(table.addresses.slice(at, at + octets));
  return {
    direction: table.directions[slot] === INGRESS ? "ingress" : "egress",
    source: addressAt(table.fromAt(slot)),
    destination: addressAt(table.toAt(slot)),
    protocol: table.protocols[slot]!,
    sourcePort: table.fromPorts[slot]!,
    destinationPort: table.toPorts[slot]!,
    identity: table.identities[slot]!,
    state: table.stateOf(slot),
    packets: table.packets[2 * slot]!,
    bytes: table.bytes[2 * slot]!,
    replyPackets: table.packets[2 * slot + 1]!,
    replyBytes: table.bytes[2 * slot + 1]!,
    lastSeenUnixMs,
    isRedirected: true,
  };
}
