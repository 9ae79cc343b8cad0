/** A list of peers that the device wants the datapath to look at, each at most once until it is drained. */
import type { Peer } from "./peer.ts";

type Mark = "isReady" | "isAbandoned";

export class PeerQueue {
  readonly #mark: Mark;
  readonly #peers: Peer[] = [];

  constructor(mark: Mark) {
    this.#mark = mark;
  }

  get count(): number {
    return this.#peers.length;
  }

  push(peer: Peer): void {
    if (peer[this.#mark]) return;
    peer[this.#mark] = true;
    this.#peers.push(peer);
  }

  /** The peer that waits longest, which leaves the list; `undefined` when it is empty. Removed peers are passed over. */
  take(): Peer | undefined {
    for (let peer = this.#peers.shift(); peer !== undefined; peer = this.#peers.shift()) {
      peer[this.#mark] = false;
      if (!peer.isRemoved) return peer;
    }
    return undefined;
  }
}
