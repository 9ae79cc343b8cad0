/**
 * Which flow to look at when: a ring of lists, one per second. An entry stands in the list of the second in which it is due, or
 * in the farthest one if that is beyond the ring; whoever turns the wheel then looks and puts it back. So a flow that lives on
 * is not moved with each packet, only looked at again every few minutes.
 */

const BUCKETS = 256;
const FARTHEST_S = BUCKETS - 1;
const NONE = -1;

/** Lists of entry indexes by due second. Allocates nothing after construction. */
export class ExpiryWheel {
  readonly #heads = new Int32Array(BUCKETS).fill(NONE);
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #due: Int32Array;
  #count = 0;
  /** the second whose list is being worked off; all before it are empty */
  #cursor = 0;

  constructor(capacity: number) {
    this.#next = new Int32Array(capacity);
    this.#previous = new Int32Array(capacity);
    this.#due = new Int32Array(capacity);
  }

  /** The second in which an entry will be looked at; at most the one it was added for. */
  dueOf(entry: number): number {
    return this.#due[entry]!;
  }

  /** Adds an entry that is not in the wheel. @param due second to look at it; the past means as soon as possible */
  add(entry: number, due: number, nowSeconds: number): void {
    if (this.#count++ === 0) this.#cursor = nowSeconds;
    const when = Math.min(Math.max(due, this.#cursor + 1), this.#cursor + FARTHEST_S);
    const bucket = when & (BUCKETS - 1);
    const head = this.#heads[bucket]!;
    this.#due[entry] = when;
    this.#next[entry] = head;
    this.#previous[entry] = NONE;
    if (head !== NONE) this.#previous[head] = entry;
    this.#heads[bucket] = entry;
  }

  /** Takes out an entry that is in the wheel. */
  remove(entry: number): void {
    const next = this.#next[entry]!, previous = this.#previous[entry]!;
    if (next !== NONE) this.#previous[next] = previous;
    if (previous !== NONE) this.#next[previous] = next;
    else this.#heads[this.#due[entry]! & (BUCKETS - 1)] = next;
    this.#count--;
  }

  /** Takes out one entry that is due at `nowSeconds` or before, or answers -1. Which of several: not defined. */
  takeDue(nowSeconds: number): number {
    if (this.#count === 0) return NONE;
    // After a long sleep one turn meets every list.
    if (nowSeconds - this.#cursor > BUCKETS) this.#cursor = nowSeconds - BUCKETS;
    for (; this.#cursor <= nowSeconds; this.#cursor++) {
      const entry = this.#heads[this.#cursor & (BUCKETS - 1)]!;
      if (entry === NONE) continue;
      this.remove(entry);
      return entry;
    }
    this.#cursor = nowSeconds;
    return NONE;
  }
}
