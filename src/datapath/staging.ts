/**
 * Packets that wait for a WireGuard session: at most 128 per peer and a bounded number of octets in all, oldest dropped first
 * (WireGuard paper §6.1). Copies are made here, outside the steady state: a peer with a session stages nothing.
 */
export const MAX_STAGED_PER_PEER = 128;
/** for all peers together: enough for a few full windows, small beside the memory goal */
export const MAX_STAGED_BYTES = 2 * 1024 * 1024;

export class Staging {
  readonly #byPeer = new Map<number, Uint8Array[]>();
  #bytes = 0;
  /** packets that had to make room since start */
  overflows = 0;

  /** Keeps a copy of `[at, end)` for a peer. False when there is no room even after its own oldest went. */
  add(peerSlot: number, bytes: Uint8Array, at: number, end: number): boolean {
    let queue = this.#byPeer.get(peerSlot);
    if (queue === undefined) {
      queue = [];
      this.#byPeer.set(peerSlot, queue);
    }
    while (queue.length > 0 && (queue.length >= MAX_STAGED_PER_PEER || this.#bytes + (end - at) > MAX_STAGED_BYTES)) {
      this.#bytes -= queue.shift()!.length;
      this.overflows++;
    }
    if (this.#bytes + (end - at) > MAX_STAGED_BYTES) return false;
    queue.push(bytes.slice(at, end));
    this.#bytes += end - at;
    return true;
  }

  /** Hands over what waits for a peer, oldest first; it is the caller's then. */
  take(peerSlot: number): Uint8Array[] {
    const queue = this.#byPeer.get(peerSlot) ?? [];
    this.#byPeer.delete(peerSlot);
    for (const packet of queue) this.#bytes -= packet.length;
    return queue;
  }

  countOf(peerSlot: number): number {
    return this.#byPeer.get(peerSlot)?.length ?? 0;
  }

  /** Octets held for all peers. */
  get bytes(): number {
    return this.#bytes;
  }
}
