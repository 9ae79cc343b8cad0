/**
 * The floor of handshake stamps (TAI64N): a peer ignores an initiation whose stamp is not newer than the last, also after this
 * machine restarted with a clock that is behind. So an hour is reserved ahead on disk, about once an hour, and a life begins
 * above all that the one before may have sent.
 */
import { StampClock } from "../../src/noise/tai64n.ts";

const RESERVE_MS = 3_600_000;
/** a reservation is renewed when less than this is left of it */
const RENEW_BEFORE_MS = 300_000;
/** one handshake moves a stamp that is ahead of the clock by at most this (2^24 ns, rounded up) */
const STEP_MS = 17;

/** Keeps the reservation of one device. */
export class StampReservation {
  readonly #save: (stampFloorUnixMs: number) => void;
  /** every stamp sent so far is below this or below the highest clock seen */
  #floorMs: number;
  #reservedMs: number;
  #highestUnixMs = 0;
  #handshakes = 0;

  /** @param savedMs what was saved last; 0: nothing @param save writes a new reservation to disk */
  constructor(savedMs: number, save: (stampFloorUnixMs: number) => void) {
    this.#floorMs = savedMs;
    this.#reservedMs = savedMs;
    this.#save = save;
  }

  /** The floor for a datapath that starts now; what it may send in the next hour is on disk when this returns. */
  begin(unixMs: number): Uint8Array {
    this.note(unixMs, this.#handshakes);
    this.#floorMs = this.#sentBelowMs();
    this.#handshakes = 0;
    this.#reserve();
    return new StampClock().next(this.#floorMs);
  }

  /**
   * Looks at the clock now and then, and renews the reservation in time.
   * @param handshakes initiations and answers since the datapath started: an upper bound of stamps made
   */
  note(unixMs: number, handshakes: number): void {
    this.#highestUnixMs = Math.max(this.#highestUnixMs, unixMs);
    this.#handshakes = handshakes;
    if (this.#reservedMs > 0 && this.#sentBelowMs() > this.#reservedMs - RENEW_BEFORE_MS) this.#reserve();
  }

  /** A clean end: gives back what was reserved and not used. */
  end(): void {
    this.#save(this.#sentBelowMs());
  }

  #reserve(): void {
    this.#reservedMs = this.#sentBelowMs() + RESERVE_MS;
    this.#save(this.#reservedMs);
  }

  /** No stamp at or above this was sent. */
  #sentBelowMs(): number {
    return Math.ceil(Math.max(this.#highestUnixMs, this.#floorMs + this.#handshakes * STEP_MS)) + 1000;
  }
}
