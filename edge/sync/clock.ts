/**
 * The time that certificates and tokens are judged by. A board without a clock boots in 1970 or at the last shutdown, and it must join
 * all the same; but time that somebody we trust has told us never goes back:
 *
 *     now = max(system clock, release time, floors given, newest time that the hub signed + time passed since)
 */

/** This program was not written before: no machine that runs it can be. Raised with releases. */
export const RELEASE_UNIX_MS = Date.UTC(2026, 10, 24);

/** A clock ahead of the trusted time by less than this is no worry; used for status only. */
const BEHIND_MS = 60_000;

/** Trusted time; see the head of the file. */
export class TrustedClock {
  #floorMs: number;
  #learntAtMs = 0;
  readonly #system: () => number;
  readonly #monotonic: () => number;

  /**
   * @param floors  Unix milliseconds that have passed for certain: issue time of a token, a saved floor
   * @param system  the wall clock, Unix milliseconds
   * @param monotonic never goes back, milliseconds
   */
  constructor(
    floors: readonly number[] = [],
    system: () => number = () => Date.now(),
    monotonic: () => number = () => performance.now(),
  ) {
    this.#system = system;
    this.#monotonic = monotonic;
    this.#floorMs = Math.max(RELEASE_UNIX_MS, ...floors.filter(Number.isFinite));
    this.#learntAtMs = monotonic();
  }

  /** Unix milliseconds. */
  now(): number {
    return Math.max(this.#system(), this.#floor());
  }

  /** A time that somebody trusted has just told: the hub, over a verified connection. An older one changes nothing. */
  learn(unixMs: number): void {
    if (!Number.isSafeInteger(unixMs) || unixMs <= this.#floor()) return;
    this.#floorMs = unixMs;
    this.#learntAtMs = this.#monotonic();
  }

  /** How far the system clock is behind what we know for certain, milliseconds; 0 when it is not, or by less than a minute. */
  behindMs(): number {
    const behindMs = this.#floor() - this.#system();
    return behindMs > BEHIND_MS ? behindMs : 0;
  }

  #floor(): number {
    return this.#floorMs + (this.#monotonic() - this.#learntAtMs);
  }
}
