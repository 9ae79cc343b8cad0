/** Which peer a new flow is counted for: what one has must not be taken from the others. */
import { readI32 } from "../bytes/integers.ts";
import type { PacketInfo } from "../wire/packet.ts";
import { type Direction, INGRESS } from "./counters.ts";
import type { Node } from "./node.ts";

/** Slot of the peer at the other side of a packet; -1: nobody's address. */
export function peerOfOther(node: Node, packet: PacketInfo, direction: Direction): number {
  const { arena, ipcache } = node.parts;
  const at = direction === INGRESS ? packet.sourceAt : packet.destinationAt;
  const entry = packet.version === 4 ? ipcache.find4(readI32(arena, at)) : ipcache.find6(arena, at);
  return entry < 0 ? -1 : ipcache.peerOf(entry);
}
