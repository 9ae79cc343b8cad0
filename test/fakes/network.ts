/**
 * A deterministic underlay for scenarios: datagrams between named nodes, with seeded loss and reordering, on a clock that the
 * test moves. Nothing waits, nothing is random that a seed does not say.
 */

/** A small generator for tests (mulberry32): the same seed, the same numbers. */
export function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export interface Datagram {
  readonly from: string;
  readonly to: string;
  readonly bytes: Uint8Array;
  readonly dueMs: number;
  /** nobody may fragment it */
  readonly isWhole?: boolean;
}

export interface NetworkOptions {
  readonly seed: number;
  /** 0 to 1 */
  readonly loss?: number;
  /** most milliseconds that a datagram may be late; those behind may then pass it */
  readonly jitterMs?: number;
  readonly delayMs?: number;
}

export class FakeNetwork {
  readonly #random: () => number;
  readonly #options: NetworkOptions;
  #inFlight: Datagram[] = [];
  nowMs = 0;
  sent = 0;
  lost = 0;
  /** sees every datagram that is sent, before it may be lost; false drops it */
  tap: (datagram: Datagram) => boolean = () => true;

  constructor(options: NetworkOptions) {
    this.#options = options;
    this.#random = seeded(options.seed);
  }

  /** Takes a copy of the bytes. */
  send(from: string, to: string, bytes: Uint8Array, isWhole = false): void {
    const { loss = 0, jitterMs = 0, delayMs = 1 } = this.#options;
    const datagram = {
      from,
      to,
      bytes: bytes.slice(),
      dueMs: this.nowMs + delayMs + this.#random() * jitterMs,
      isWhole,
    };
    this.sent++;
    if (!this.tap(datagram) || this.#random() < loss) this.lost++;
    else this.#inFlight.push(datagram);
  }

  /** What has arrived at `to` by now, in order of arrival. */
  take(to: string): Datagram[] {
    const due = this.#inFlight.filter((d) => d.to === to && d.dueMs <= this.nowMs);
    this.#inFlight = this.#inFlight.filter((d) => !due.includes(d));
    return due.sort((a, b) => a.dueMs - b.dueMs);
  }

  /** When the next datagram arrives anywhere, Infinity when none is under way. */
  get nextMs(): number {
    return this.#inFlight.reduce((least, datagram) => Math.min(least, datagram.dueMs), Infinity);
  }

  /** When the next datagram arrives at one of these, Infinity when none is under way to them. */
  nextMsFor(addresses: readonly string[]): number {
    let least = Infinity;
    for (const datagram of this.#inFlight) if (addresses.includes(datagram.to)) least = Math.min(least, datagram.dueMs);
    return least;
  }
}
