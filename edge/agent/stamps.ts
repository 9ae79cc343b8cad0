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
/** what may have been sent since the last look */
const MARGIN_MS = 2000;

/** Keeps the reservation of one device. */
export class StampReservation {
  readonly #save: (stampFloorUnixMs: number) => void;
  /** no stamp above this was sent */
  #sentMs: number;
  #reservedMs: number;
  #handshakes = 0;

  /** @param savedMs what was saved last; 0: nothing @param save writes a new reservation to disk */
  constructor(savedMs: number, save: (stampFloorUnixMs: number) => void) {
    this.#sentMs = savedMs;
    this.#reservedMs = savedMs;
    this.#save = save;
  }

  /** The floor for a datapath that starts now; what it may send in the next hour is on disk when this returns. */
  begin(unixMs: number): Uint8Array {
    this.#handshakes = 0;
    this.note(unixMs, 0);
    const floor = new StampClock().next(this.#sentMs + MARGIN_MS);
    this.#sentMs += MARGIN_MS;
    this.#reserve();
    return floor;
  }

  /**
   * Looks at the clock, about once a second, and renews the reservation in time.
   * @param handshakes initiations and answers since the datapath started: an upper bound of stamps made
   */
  note(unixMs: number, handshakes: number): void {
    const made = Math.max(0, handshakes - this.#handshakes);
    this.#handshakes = handshakes;
    this.#sentMs = Math.ceil(Math.max(this.#sentMs, unixMs)) + made * STEP_MS;
    if (this.#reservedMs > 0 && this.#sentMs > this.#reservedMs - RENEW_BEFORE_MS) this.#reserve();
  }

  /** A clean end: gives back what was reserved and not used. */
  end(): void {
    this.#save(this.#sentMs + MARGIN_MS);
  }

  #reserve(): void {
    this.#reservedMs = this.#sentMs + RESERVE_MS;
    this.#save(this.#reservedMs);
  }
}
