/**
 * Packets that wait for a WireGuard session: at most 128 per peer and a bounded number of octets in all, oldest dropped first
 * (WireGuard paper §6.1). Copies are made here, outside the steady state: a peer with a session stages nothing.
 *
 * When all the room is taken, whoever has most of it gives some up: a peer that is dead, and is sent much, keeps no other from
 * waiting.
 */
export const MAX_STAGED_PER_PEER = 128;
/** for all peers together: enough for a few full windows, small beside the memory goal */
export const MAX_STAGED_BYTES = 2 * 1024 * 1024;

/** What waits for one peer, oldest first, and its octets. */
interface Queue {
  readonly packets: Uint8Array[];
  bytes: number;
}

export class Staging {
  readonly #byPeer = new Map<number, Queue>();
  #bytes = 0;
  /** packets that had to make room since start */
  overflows = 0;

  /** Keeps a copy of `[at, end)` for a peer. False when there is no room, and no peer has more than one packet. */
  add(peerSlot: number, bytes: Uint8Array, at: number, end: number): boolean {
    const octets = end - at;
    let queue = this.#byPeer.get(peerSlot);
    if (queue === undefined) {
      queue = { packets: [], bytes: 0 };
      this.#byPeer.set(peerSlot, queue);
    }
    if (queue.packets.length >= MAX_STAGED_PER_PEER) this.#dropOldest(queue);
    while (this.#bytes + octets > MAX_STAGED_BYTES) {
      const largest = this.#findLargest();
      if (largest === undefined) return false;
      this.#dropOldest(largest);
    }
    queue.packets.push(bytes.slice(at, end));
    queue.bytes += octets;
    this.#bytes += octets;
    return true;
  }

  /** Hands over what waits for a peer, oldest first; it is the caller's then. */
  take(peerSlot: number): Uint8Array[] {
    const queue = this.#byPeer.get(peerSlot);
    if (queue === undefined) return [];
    this.#byPeer.delete(peerSlot);
    this.#bytes -= queue.bytes;
    return queue.packets;
  }

  countOf(peerSlot: number): number {
    return this.#byPeer.get(peerSlot)?.packets.length ?? 0;
  }

  #dropOldest(queue: Queue): void {
    const octets = queue.packets.shift()!.length;
    queue.bytes -= octets;
    this.#bytes -= octets;
    this.overflows++;
  }

  /** The queue that holds the most octets, of those with more than one packet: the last one of a peer is not taken from it. */
  #findLargest(): Queue | undefined {
    let largest: Queue | undefined;
    for (const queue of this.#byPeer.values()) {
      if (queue.packets.length > 1 && (largest === undefined || queue.bytes > largest.bytes)) largest = queue;
    }
    return largest;
  }

  /** Octets held for all peers. */
  get bytes(): number {
    return this.#bytes;
  }
}
