/**
 * Where everything of the packet path lies: one arena, fixed regions, made once at start. Pages are touched when first used, so
 * room that is not needed costs nothing.
 *
 *     addresses    the tunnel's address records, one per peer and some spare
 *     templates    one outer header per peer
 *     trainMask    which octets of headers are compared (`ingress_train.ts`)
 *     fromTun      headroom, then the packet being read from the TUN, then tailroom
 *     toUnderlay   sealed messages, back to back, until the underlay is flushed; several parts where two Workers take turns
 *     received     the receive slots of all sockets, one socket after the other
 *     plain...     address records and datagrams of the tunnel without encryption; touched only where a mesh has none
 *     sendAddresses  destinations of what two Workers send (`src/pair/`)
 */
import { UNDERLAY_ADDR_BYTES } from "../ip/underlay_addr.ts";
import { addressRoomBytes } from "../tunnel/wireguard.ts";
import { TEMPLATE_BYTES } from "./encapsulation.ts";
import { TRAIN_MASK_BYTES } from "./ingress_train.ts";

export const VIRTIO_HEADER_BYTES = 10;
/** Free octets before a packet read from the TUN: WireGuard header (16), outer IPv6, UDP, Geneve, Ethernet (70), virtio (10). */
export const HEADROOM_BYTES = 128;
/** Octets behind it: WireGuard's padding. */
export const TAILROOM_BYTES = 64;
export const MAX_PACKET_BYTES = 65535;
/** One superpacket sealed: 65535 octets in the splitter's 192 segments, each with up to 190 octets around it; rounded up. */
export const SEALED_SUPERPACKET_BYTES = 112 * 1024;

export interface ArenaLayout {
  readonly bytes: number;
  readonly maxPeers: number;
  readonly addressesAt: number;
  readonly templatesAt: number;
  readonly trainMaskAt: number;
  /** first octet of a packet read from the TUN (its virtio header); HEADROOM_BYTES lie free before it */
  readonly fromTunAt: number;
  readonly fromTunEnd: number;
  readonly toUnderlayAt: number;
  readonly toUnderlayEnd: number;
  /** equal parts of it that are used in turn: 1 where messages are sent before the next are written */
  readonly sendParts: number;
  /** where a pair of Workers keeps copies of destinations (`src/pair/`) */
  readonly sendAddressesAt: number;
  readonly receivedAt: number;
  /** one address record per peer */
  readonly plainAddressesAt: number;
  readonly plainAt: number;
  readonly plainEnd: number;
}

/**
 * @param maxPeers     WireGuard peers that fit
 * @param receiveBytes what the underlay needs for its receive slots
 * @param sealedBytes  room for sealed messages between two flushes, SEALED_SUPERPACKET_BYTES at least
 * @param sendParts    how many such rooms there are
 * @param sendAddressBytes for copies of destinations
 */
export function layoutArena(
  maxPeers: number,
  receiveBytes: number,
  sealedBytes: number,
  sendParts = 1,
  sendAddressBytes = 0,
): ArenaLayout {
  let next = 0;
  const take = (bytes: number) => {
    const at = next;
    next += Math.ceil(bytes / 64) * 64;
    return at;
  };
  const addressesAt = take(addressRoomBytes(maxPeers));
  const templatesAt = take(maxPeers * TEMPLATE_BYTES);
  const trainMaskAt = take(TRAIN_MASK_BYTES);
  const fromTunSlot = take(HEADROOM_BYTES + VIRTIO_HEADER_BYTES + MAX_PACKET_BYTES + TAILROOM_BYTES);
  const toUnderlayAt = take(sealedBytes * sendParts);
  const receivedAt = take(receiveBytes);
  const plainAddressesAt = take(maxPeers * UNDERLAY_ADDR_BYTES);
  const plainAt = take(sealedBytes);
  const sendAddressesAt = take(sendAddressBytes);
  return {
    bytes: next,
    maxPeers,
    addressesAt,
    templatesAt,
    trainMaskAt,
    fromTunAt: fromTunSlot + HEADROOM_BYTES,
    fromTunEnd: fromTunSlot + HEADROOM_BYTES + VIRTIO_HEADER_BYTES + MAX_PACKET_BYTES,
    toUnderlayAt,
    toUnderlayEnd: toUnderlayAt + sealedBytes * sendParts,
    sendParts,
    sendAddressesAt,
    receivedAt,
    plainAddressesAt,
    plainAt,
    plainEnd: plainAt + sealedBytes,
  };
}
