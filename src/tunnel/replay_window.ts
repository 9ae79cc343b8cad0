/**
 * Which counters of a session were received already: a ring of bits behind the highest one (RFC 6479).
 *
 * A counter is two unsigned 32-bit halves, so the whole 64-bit range works without a bigint. The ring has 256 words of 32
 * bits; 8128 counters behind the highest are told apart, as the kernel and wireguard-go do with their 64-bit words.
 *
 * Hot file: `accept` runs once per received packet, after its tag verified.
 */
import { REPLAY_WINDOW } from "./constants.ts";

const WORDS = 256;
const WORD_MASK = WORDS - 1;
const RING_BITS = WORDS * 32;
const TWO_32 = 0x1_0000_0000;
/** Low half of 2^64 - 2^13 - 1, the first counter that is refused (REJECT_AFTER_MESSAGES of the paper). */
const REJECT_LOW = 0xffff_dfff;
const REJECT_HIGH = 0xffff_ffff;

export class ReplayWindow {
  readonly #words = new Int32Array(WORDS);
  /** Highest counter accepted; 0 at first, with its bit not set. */
  #high = 0;
  #low = 0;

  /**
   * Accepts a counter once. Never call it before the message's tag verified: it moves the window.
   *
   * @param high upper 32 bits, unsigned
   * @param low  lower 32 bits, unsigned
   * @returns false, and nothing has changed, for one seen before, too far behind, or at the protocol's limit
   */
  accept(high: number, low: number): boolean {
    if (high === REJECT_HIGH && low >= REJECT_LOW) return false;
    // Exact near the highest counter; far away only its sign and that it is large matter.
    const ahead = (high - this.#high) * TWO_32 + (low - this.#low);
    if (ahead > 0) this.#moveTo(high, low, ahead);
    else if (ahead < -REPLAY_WINDOW) return false;
    const words = this.#words;
    const at = (low >>> 5) & WORD_MASK;
    const word = words[at]!;
    const bit = 1 << (low & 31);
    if ((word & bit) !== 0) return false;
    words[at] = word | bit;
    return true;
  }

  /** Clears the words between the old highest counter and the new one: at most the whole ring. */
  #moveTo(high: number, low: number, ahead: number): void {
    const words = this.#words;
    if (ahead >= RING_BITS) words.fill(0);
    else {
      const last = low >>> 5;
      for (let at = last - ((((this.#low & 31) + ahead) >>> 5) - 1); at <= last; at++) words[at & WORD_MASK] = 0;
    }
    this.#high = high;
    this.#low = low;
  }
}
