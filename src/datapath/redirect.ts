/**
 * Steers the flows that policy answers REDIRECT for through a proxy of this node, by rewriting addresses; no feature of the kernel is
 * used. A:a opened the flow to B:b (egress: A is us; ingress: B is us), p is the proxy's port, q the port of the proxy's connection.
 *
 *     1  A:a -> B:b                     becomes  PROXY_CLIENT:handle -> own:p     to the TUN
 *     2  own:p -> PROXY_CLIENT:handle   becomes  B:b -> A:a                       egress: to the TUN; ingress: to the peer
 *     3  own:q -> PROXY_SERVER:handle   becomes  A:a -> B:b                       egress: to the peer; ingress: to the TUN
 *     4  B:b -> A:a                     becomes  PROXY_SERVER:handle -> own:q     to the TUN
 *
 * 1 and 4 come here from `admission.ts`, from either side; 2 and 3 from `egress.ts`, which knows them by their destination.
 *
 * Only a TCP SYN or a UDP packet starts a redirected flow: a proxy cannot take over in the middle of a connection. Read
 * proxy_addresses.ts and redirect_table.ts first.
 */
import { equalRange } from "../bytes/compare.ts";
import { readI32, readU16LE, readU8 } from "../bytes/integers.ts";
import { isOpeningSyn } from "../conntrack/lifetimes.ts";
import {
  AT_CSUM_OFFSET,
  AT_CSUM_START,
  AT_FLAGS,
  FLAG_NEEDS_CSUM,
  TCP_CHECKSUM_AT,
  UDP_CHECKSUM_AT,
} from "../offload/virtio.ts";
import { KIND_DNS, KIND_HTTP } from "../policy/decision.ts";
import {
  DROP_BAD_OFFLOAD_HEADER,
  DROP_NO_PROXY,
  DROP_NO_REDIRECT,
  DROP_TUN_WRITE,
  FORWARD,
  REDIRECT,
  type Verdict,
} from "../verdict.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/numbers.ts";
import type { PacketInfo } from "../wire/packet.ts";
import type { SetProxy } from "./control.ts";
import { counterOf, type Direction, EGRESS, INGRESS } from "./counters.ts";
import type { Node } from "./node.ts";
import { peerOfOther } from "./other_side.ts";
import { ROLE_CLIENT, ROLE_SERVER } from "./proxy_addresses.ts";
import { LEG_OPENER, LEG_SERVER, NO_SLOT, RedirectTable } from "./redirect_table.ts";
import { MAX_REDIRECTED, RedirectView } from "./redirect_view.ts";
import { RESET_BYTES, wantsReset, writeReset } from "./reset.ts";
import { rewritePacket } from "./rewrite.ts";

const TO_TUN_PACKETS = counterOf("toTunPackets");
const TO_TUN_BYTES = counterOf("toTunBytes");
const TO_TUN_WRITES = counterOf("toTunWrites");

/** Slots looked at for expiry in one call: four calls see all. */
const EXPIRE_BUDGET = MAX_REDIRECTED / 4;

export class Redirects {
  readonly table: RedirectTable;
  /** of the last packet that was found */
  slot = NO_SLOT;

  readonly #node: Node;
  readonly #single = new Int32Array(2);
  #httpPort = 0;
  #dnsPort = 0;

  /** @param view where the proxies look flows up */
  constructor(node: Node, view: RedirectView, nowMs: number) {
    this.#node = node;
    this.table = new RedirectTable(node.parts.conntrack.makeKey(), view, nowMs);
  }

  /** Takes the proxies' ports. Flows of a proxy that went or moved are over: its connections are gone. */
  setPorts({ http, dns }: SetProxy, nowMs: number): void {
    const { table } = this;
    for (let slot = 0; slot < MAX_REDIRECTED; slot++) {
      if (table.handles[slot] === 0) continue;
      if (table.proxyPorts[slot] !== (table.kinds[slot] === KIND_DNS ? dns : http)) table.block(slot, nowMs);
    }
    this.#httpPort = http;
    this.#dnsPort = dns;
  }

  /** Forgets flows that are past their lifetime. Call it now and then. */
  expire(nowMs: number): void {
    if (this.table.size > 0) { while (this.table.takeExpired(nowMs, EXPIRE_BUDGET) !== NO_SLOT); }
  }

  /**
   * Steps 1 and 4: a packet between the opener and the other side.
   * @param identity of the other side
   * @returns FORWARD: it belongs to no redirected flow; REDIRECT: it goes to the proxy (`toProxy`); else a drop
   */
  find(packet: PacketInfo, identity: number, nowMs: number): Verdict {
    if (packet.protocol !== PROTOCOL_TCP && packet.protocol !== PROTOCOL_UDP) return FORWARD;
    const { table } = this;
    const { arena } = this.#node.parts;
    const slot = table.find(arena, packet, nowMs);
    if (slot === NO_SLOT) return FORWARD;
    const verdict = this.#judge(slot, identity, nowMs);
    if (verdict !== FORWARD) return verdict;
    const { isReply } = table;
    if (table.isBlocked(slot)) return DROP_NO_PROXY;
    if (isReply && table.serverLegPorts[slot] === 0) return DROP_NO_REDIRECT; // nobody asked the other side yet
    table.touch(slot, isReply ? LEG_SERVER : LEG_OPENER, isReply, packet, nowMs);
    this.slot = slot;
    return REDIRECT;
  }

  /**
   * Step 1 for a packet that policy has just answered REDIRECT for: starts a flow.
   * @returns REDIRECT, or DROP_NO_PROXY: none runs, it cannot take this packet, or it has too many flows
   */
  begin(packet: PacketInfo, direction: Direction, identity: number, nowMs: number): Verdict {
    const { arena, policy } = this.#node.parts;
    const { table } = this;
    const { kind } = policy;
    const isTcp = packet.protocol === PROTOCOL_TCP;
    const port = kind === KIND_DNS ? this.#dnsPort : kind === KIND_HTTP && isTcp ? this.#httpPort : 0;
    if (port === 0 || (!isTcp && packet.protocol !== PROTOCOL_UDP)) return DROP_NO_PROXY;
    if (isTcp && !isOpeningSyn(packet.protocol, packet.tcpFlags)) return DROP_NO_PROXY;
    const peer = peerOfOther(this.#node, packet, direction);
    const slot = table.insert(arena, packet, direction, identity, policy.revision, kind, port, nowMs, peer);
    if (slot === NO_SLOT) return DROP_NO_PROXY;
    table.publish(slot);
    table.touch(slot, LEG_OPENER, false, packet, nowMs);
    this.slot = slot;
    return REDIRECT;
  }

  /** Rewrites the packet that `find` or `begin` answered REDIRECT for, as it was read from the tunnel. */
  toProxy(packet: PacketInfo): void {
    this.#rewriteToProxy(packet, false);
  }

  /** The same for a packet that was read from the TUN, which it goes back to. */
  returnToProxy(packet: PacketInfo): Verdict {
    const isPartial = isChecksumPartial(this.#node, packet);
    if (isPartial === undefined) return DROP_BAD_OFFLOAD_HEADER;
    this.#rewriteToProxy(packet, isPartial);
    return this.#writeBack(packet);
  }

  /**
   * Steps 2 and 3: a packet to a proxy address, from an address of ours.
   * @param role ROLE_CLIENT or ROLE_SERVER, of its destination
   * @returns FORWARD: found, see `isForTun`; DROP_NO_REDIRECT: no flow of ours; else what policy has come to say
   */
  findFromProxy(packet: PacketInfo, role: number, nowMs: number): Verdict {
    const { table } = this;
    const { arena } = this.#node.parts;
    if (packet.protocol !== PROTOCOL_TCP && packet.protocol !== PROTOCOL_UDP) return DROP_NO_REDIRECT;
    const slot = table.findHandle(packet.destinationPort, nowMs);
    if (
      slot === NO_SLOT || table.isBlocked(slot) || table.versions[slot] !== packet.version ||
      table.protocols[slot] !== packet.protocol
    ) {
      return DROP_NO_REDIRECT;
    }
    if (role === ROLE_CLIENT) {
      if (packet.sourcePort !== table.proxyPorts[slot]) return DROP_NO_REDIRECT;
      if (!this.#isFrom(packet, table.ownAt(slot))) return DROP_NO_REDIRECT;
    } else if (packet.sourcePort !== table.serverLegPorts[slot] || !this.#isFrom(packet, table.proxyAt(slot))) {
      if (packet.protocol === PROTOCOL_TCP && !isOpeningSyn(packet.protocol, packet.tcpFlags)) return DROP_NO_REDIRECT;
      table.openServerLeg(slot, arena, packet);
    }
    const verdict = this.#judgeNow(slot, nowMs);
    if (verdict !== FORWARD) return verdict;
    table.touch(slot, role === ROLE_CLIENT ? LEG_OPENER : LEG_SERVER, role === ROLE_CLIENT, packet, nowMs);
    this.slot = slot;
    return FORWARD;
  }

  /** Whether the packet that `findFromProxy` found goes to this machine, not to the peer. */
  isForTun(role: number): boolean {
    return this.table.directions[this.slot] === (role === ROLE_CLIENT ? EGRESS : INGRESS);
  }

  /** Rewrites the packet that `findFromProxy` found, in place. @returns FORWARD or DROP_BAD_OFFLOAD_HEADER */
  fromProxy(packet: PacketInfo, role: number): Verdict {
    const { table, slot } = this;
    const isPartial = isChecksumPartial(this.#node, packet);
    if (isPartial === undefined) return DROP_BAD_OFFLOAD_HEADER;
    const { arena } = this.#node.parts;
    const { addresses } = table;
    const fromAt = table.fromAt(slot), toAt = table.toAt(slot);
    const fromPort = table.fromPorts[slot]!, toPort = table.toPorts[slot]!;
    if (role === ROLE_SERVER) rewritePacket(arena, packet, isPartial, addresses, fromAt, toAt, fromPort, toPort);
    else rewritePacket(arena, packet, isPartial, addresses, toAt, fromAt, toPort, fromPort);
    return FORWARD;
  }

  /** Takes `fromProxy` back: a packet that has to wait waits as it came, and is judged again when it goes on. */
  undoFromProxy(packet: PacketInfo, role: number): void {
    const { table, slot } = this;
    const isPartial = isChecksumPartial(this.#node, packet) === true;
    const { arena } = this.#node.parts;
    const roleAt = table.roleAt(role, packet.version);
    const ownAt = role === ROLE_SERVER ? table.proxyAt(slot) : table.ownAt(slot);
    const ownPort = role === ROLE_SERVER ? table.serverLegPorts[slot]! : table.proxyPorts[slot]!;
    rewritePacket(arena, packet, isPartial, table.addresses, ownAt, roleAt, ownPort, table.handles[slot]!);
  }

  /** The same, and writes it to the TUN. */
  returnFromProxy(packet: PacketInfo, role: number): Verdict {
    const verdict = this.fromProxy(packet, role);
    return verdict === FORWARD ? this.#writeBack(packet) : verdict;
  }

  /** Tells the program of a packet from the TUN that its connection cannot go on without a proxy. Uses the packet's headroom. */
  refuse(packet: PacketInfo): void {
    if (!wantsReset(packet)) return;
    const { arena } = this.#node.parts;
    const virtioAt = packet.at - this.#node.virtioBytes;
    const at = virtioAt - RESET_BYTES;
    const end = writeReset(arena, packet, at);
    arena.fill(0, at - this.#node.virtioBytes, at);
    this.#write(at, end);
  }

  /** Whether the packet's source is the address at `at` of the table. */
  #isFrom(packet: PacketInfo, at: number): boolean {
    const { arena } = this.#node.parts;
    return equalRange(arena, packet.sourceAt, this.table.addresses, at, packet.version === 4 ? 4 : 16);
  }

  /**
   * Asks policy again when its revision changed, or the other side became somebody else. A flow that needs no proxy any more stays
   * with it: it cannot be moved.
   */
  #judge(slot: number, identity: number, nowMs: number): Verdict {
    const { policy } = this.#node.parts;
    const { table } = this;
    if (table.revisions[slot] === policy.revision && table.identities[slot] === identity) return FORWARD;
    const direction = table.directions[slot] as Direction;
    const verdict = policy.lookup(direction, identity, table.protocols[slot]!, table.toPorts[slot]!);
    if (verdict !== FORWARD && verdict !== REDIRECT) {
      table.block(slot, nowMs);
      return verdict;
    }
    table.revisions[slot] = policy.revision;
    if (table.identities[slot] !== identity) {
      table.identities[slot] = identity;
      if (!table.isBlocked(slot)) table.publish(slot);
    }
    return FORWARD;
  }

  /** The same where the packet does not say who the other side is. */
  #judgeNow(slot: number, nowMs: number): Verdict {
    const { ipcache } = this.#node.parts;
    const { table } = this;
    const remoteAt = table.remoteAt(slot);
    const entry = table.versions[slot] === 4
      ? ipcache.find4(readI32(table.addresses, remoteAt))
      : ipcache.find6(table.addresses, remoteAt);
    return this.#judge(slot, entry < 0 ? table.identities[slot]! : ipcache.identityOf(entry), nowMs);
  }

  #rewriteToProxy(packet: PacketInfo, isPartial: boolean): void {
    const { table, slot } = this;
    const isReply = table.isReply;
    const fromAt = table.roleAt(isReply ? ROLE_SERVER : ROLE_CLIENT, packet.version);
    const toAt = isReply ? table.proxyAt(slot) : table.ownAt(slot);
    const port = isReply ? table.serverLegPorts[slot]! : table.proxyPorts[slot]!;
    const { arena } = this.#node.parts;
    rewritePacket(arena, packet, isPartial, table.addresses, fromAt, toAt, table.handles[slot]!, port);
  }

  /** Writes a packet that was read from the TUN back to it, with the virtio header that it came with. */
  #writeBack(packet: PacketInfo): Verdict {
    return this.#write(packet.at, packet.end);
  }

  /** Writes the packet `[at, end)`, whose virtio header stands before it. */
  #write(at: number, end: number): Verdict {
    const { counters, tun } = this.#node.parts;
    this.#single[0] = at - this.#node.virtioBytes;
    this.#single[1] = end;
    const written = tun.write(this.#single, 1);
    counters.add(TO_TUN_WRITES, 1);
    if (written < 0) {
      this.#node.tunError = -written;
      return DROP_TUN_WRITE;
    }
    counters.add(TO_TUN_PACKETS, 1);
    counters.add(TO_TUN_BYTES, end - at);
    return FORWARD;
  }
}

/**
 * Whether the checksum field of a packet read from the TUN holds the pseudo-header sum only. `undefined`: the virtio header says
 * that some other part of the packet is to be summed.
 */
function isChecksumPartial(node: Node, packet: PacketInfo): boolean | undefined {
  if (node.virtioBytes === 0) return false;
  const { arena } = node.parts;
  const at = packet.at - node.virtioBytes;
  if ((readU8(arena, at + AT_FLAGS) & FLAG_NEEDS_CSUM) === 0) return false;
  const offset = packet.protocol === PROTOCOL_TCP ? TCP_CHECKSUM_AT : UDP_CHECKSUM_AT;
  const isTransport = readU16LE(arena, at + AT_CSUM_START) === packet.transportAt - packet.at &&
    readU16LE(arena, at + AT_CSUM_OFFSET) === offset;
  return isTransport ? true : undefined;
}
