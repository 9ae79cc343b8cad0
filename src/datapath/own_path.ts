/**
 * Tells this machine's own IPv6 what a way takes: a "packet too big" about one of our datagrams, written into the TUN as if a router
 * had sent it. From then on the machine fragments what is longer, as it would have if the router had not been silent.
 *
 * That is for packets inside that are longer than the way takes and may not be made smaller: IPv6 up to 1280 octets, where the underlay
 * is IPv6 too and no router fragments. The machine forgets after ten minutes (`net.ipv6.route.mtu_expires`), so it is told again.
 * Facts: RFC 4443 §3.2; Linux takes the message for a socket whose IPV6_MTU_DISCOVER is DONT (`ffi/udp_socket.ts`).
 */
import { complement, sumOctets } from "../bytes/checksum.ts";
import { readU16, writeU16, writeU32 } from "../bytes/integers.ts";
import type { Peer } from "../tunnel/peer.ts";
import { ICMP6_PACKET_TOO_BIG } from "../wire/icmp_error.ts";
import {
  ICMP_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  PROTOCOL_ICMP6,
  PROTOCOL_UDP,
  UDP_HEADER_BYTES,
} from "../wire/numbers.ts";
import type { PacketInfo } from "../wire/packet.ts";
import type { Node } from "./node.ts";

const AGAIN_AFTER_MS = 60_000;
const TTL = 64;
const ADDRESS_BYTES = 16;
/** octets of the message, and of the virtio header before it */
export const OWN_PATH_BYTES = 10 + 2 * IPV6_HEADER_BYTES + ICMP_HEADER_BYTES + UDP_HEADER_BYTES;

export class OwnPath {
  readonly #node: Node;
  /** by peer slot; 0: never */
  readonly #toldAtMs: Float64Array;
  readonly #toldBytes: Uint16Array;
  readonly #single = new Int32Array(2);

  constructor(node: Node) {
    this.#node = node;
    const { maxPeers } = node.parts.layout;
    this.#toldAtMs = new Float64Array(maxPeers);
    this.#toldBytes = new Uint16Array(maxPeers);
  }

  /**
   * Tells it, unless it was told lately.
   * @param packet an IPv6 packet to the peer: its addresses make the message one that the machine takes
   * @param at     where OWN_PATH_BYTES are free
   */
  tell(peer: Peer, packet: PacketInfo, at: number, nowMs: number): void {
    const node = this.#node;
    const pathBytes = node.paths.pathOf(peer.slot);
    const toldAtMs = this.#toldAtMs[peer.slot]!;
    const isFresh = toldAtMs !== 0 && nowMs - toldAtMs < AGAIN_AFTER_MS;
    if (isFresh && this.#toldBytes[peer.slot] === pathBytes) return;
    this.#toldAtMs[peer.slot] = nowMs;
    this.#toldBytes[peer.slot] = pathBytes;
    node.parts.arena.fill(0, at, at + OWN_PATH_BYTES);
    this.#single[0] = at;
    this.#single[1] = this.#write(peer, packet, at + node.virtioBytes, pathBytes);
    node.parts.tun.write(this.#single, 1); // when it is refused, the next one is the next try
  }

  #write(peer: Peer, packet: PacketInfo, at: number, pathBytes: number): number {
    const { arena, underlay } = this.#node.parts;
    const icmpAt = at + IPV6_HEADER_BYTES;
    const quotedAt = icmpAt + ICMP_HEADER_BYTES;
    const udpAt = quotedAt + IPV6_HEADER_BYTES;
    const end = udpAt + UDP_HEADER_BYTES;
    writeU32(arena, at, 0x6000_0000);
    writeU16(arena, at + 4, end - icmpAt);
    writeU16(arena, at + 6, (PROTOCOL_ICMP6 << 8) | TTL);
    this.#copyAddress(packet.destinationAt, at + 8);
    this.#copyAddress(packet.sourceAt, at + 24);
    writeU32(arena, quotedAt, 0x6000_0000);
    writeU16(arena, quotedAt + 4, pathBytes);
    writeU16(arena, quotedAt + 6, (PROTOCOL_UDP << 8) | TTL);
    this.#copyAddress(packet.sourceAt, quotedAt + 8);
    this.#copyAddress(peer.endpointAt + 8, quotedAt + 24);
    writeU16(arena, udpAt, underlay.port);
    writeU16(arena, udpAt + 2, readU16(arena, peer.endpointAt + 2));
    writeU16(arena, udpAt + 4, pathBytes);
    writeU16(arena, icmpAt, ICMP6_PACKET_TOO_BIG << 8);
    writeU32(arena, icmpAt + 4, pathBytes);
    const pseudo = sumOctets(arena, at + 8, icmpAt) + (end - icmpAt) + PROTOCOL_ICMP6;
    writeU16(arena, icmpAt + 2, complement(pseudo + sumOctets(arena, icmpAt, end)));
    return end;
  }

  #copyAddress(from: number, to: number): void {
    this.#node.parts.arena.copyWithin(to, from, from + ADDRESS_BYTES);
  }
}
