/**
 * Finds the largest packet that gets to a peer, from nothing but which sizes are answered (RFC 8899, "packetization layer"
 * discovery): no ICMP message is asked for or believed.
 *
 * First the largest is tried, beside one so small that it passes everywhere: mostly both are answered, and that is all. Else sizes
 * are tried in rounds, all of a round at once: those that links have, then some that share out the gap between the largest that
 * was answered and the smallest above it that was not.
 */

/** Passes everywhere: it tells a peer that does not answer from a way that is narrow. */
export const SMALLEST_PROBE_BYTES = 160;
/** A size that is not answered so many times is too big: a lost packet alone is not. */
const TRIES = 3;
/** So close is close enough: WireGuard pads to it. */
const PRECISION_BYTES = 16;
/** Sizes that the later rounds try at once. */
const SIZES_PER_ROUND = 8;

/**
 * Sizes that links and tunnels have: the least of IPv4 and IPv6, what 1500 leaves inside tunnels of several kinds (1376: IPsec and
 * what is cut for it; 1420: WireGuard; 1492: PPPoE), Ethernet, FDDI, jumbo frames (RFC 1191 §7 and what came since).
 */
const COMMON_SIZES = [576, 1006, 1280, 1376, 1420, 1472, 1492, 1500, 4352, 8166, 9000];

/** What a step of the search says. */
export type SearchStep = "again" | "next-round" | "found" | "no-answer";

export class PathSearch {
  /** of the running round, ascending */
  sizes: readonly number[];
  /** greatest size that was answered; 0: none */
  answered = 0;
  readonly #largest: number;
  /** by position in `sizes` */
  #isAnswered: boolean[];
  #isRefused: boolean[];
  #tries = 1;
  /** the small one was answered, so there is somebody to ask for the others */
  #isWide = false;
  /** smallest size that is known to be too big */
  #tooBig: number;

  /** @param largest more is not looked for */
  constructor(largest: number) {
    this.#largest = largest;
    this.#tooBig = largest + 1;
    this.sizes = [SMALLEST_PROBE_BYTES, ...COMMON_SIZES.filter((size) => size < largest), largest];
    this.#isAnswered = this.sizes.map(() => false);
    this.#isRefused = this.sizes.map(() => false);
  }

  /** Whether the size at a position of `sizes` is worth sending: no larger one was answered, and it was not refused. */
  isWanted(index: number): boolean {
    const isNow = this.#isWide || index === 0 || index === this.sizes.length - 1;
    return isNow && this.sizes[index]! > this.answered && !this.#isRefused[index];
  }

  /** The size at a position of `sizes` was answered. @returns whether the search is over: more is not looked for */
  note(index: number): boolean {
    const size = this.sizes[index];
    if (size === undefined) return false;
    this.#isAnswered[index] = true;
    if (size > this.answered) this.answered = size;
    return this.answered === this.#largest;
  }

  /** This machine cannot even send that size. */
  refuse(index: number): void {
    this.#isRefused[index] = true;
  }

  /** Nothing that was sent in this round can be answered any more: what now? After "again" and "next-round" send what is wanted. */
  step(): SearchStep {
    if (this.answered === this.#largest) return "found";
    if (this.answered > 0 && !this.#isWide) {
      this.#isWide = true;
      this.#tries = 1;
      return "again";
    }
    if (this.#tries < TRIES && this.sizes.some((_, index) => this.isWanted(index))) {
      this.#tries++;
      return "again";
    }
    if (this.answered === 0) return "no-answer";
    // A size below the greatest that was answered was only lost.
    for (const [index, size] of this.sizes.entries()) {
      if (size > this.answered && size < this.#tooBig && !this.#isAnswered[index]) this.#tooBig = size;
    }
    const gap = this.#tooBig - this.answered;
    if (gap <= PRECISION_BYTES) return "found";
    this.#share(gap);
    return "next-round";
  }

  #share(gap: number): void {
    const step = Math.max(PRECISION_BYTES, Math.ceil(gap / (SIZES_PER_ROUND + 1)));
    const sizes: number[] = [];
    for (let size = this.answered + step; size < this.#tooBig; size += step) sizes.push(size);
    this.sizes = sizes;
    this.#isAnswered = sizes.map(() => false);
    this.#isRefused = sizes.map(() => false);
    this.#tries = 1;
  }
}
