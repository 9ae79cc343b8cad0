/**
 * When each peer's earliest timer fires, at the latest seen from below: arming lowers the bound, disarming leaves it, and the
 * exact value is found again when the bound is reached. So the packet path pays two comparisons, and a scan costs one number
 * per peer.
 */
import { NEVER } from "./peer.ts";

export class Deadlines {
  readonly #dueAtMs: Float64Array;
  /** No timer of any peer fires before this. */
  nextAtMs = NEVER;

  constructor(maxPeers: number) {
    this.#dueAtMs = new Float64Array(maxPeers).fill(NEVER);
  }

  /** A timer of the peer in `slot` was armed. */
  lower(slot: number, atMs: number): void {
    if (atMs < this.#dueAtMs[slot]!) this.#dueAtMs[slot] = atMs;
    if (atMs < this.nextAtMs) this.nextAtMs = atMs;
  }

  dueAtMs(slot: number): number {
    return this.#dueAtMs[slot]!;
  }

  /** Sets the exact time, `NEVER` for none. Does not touch `nextAtMs`. */
  set(slot: number, atMs: number): void {
    this.#dueAtMs[slot] = atMs;
  }
}
