/** Rule indices of one table: small numbers, given again as late as possible, so that an old "decided by" seldom names a new rule. */

/** Freed numbers that wait before one is given again. */
const WAITING = 256;
const NONE = new Int32Array(0);

export class RuleNumbers {
  /** One past the highest number ever given. */
  count = 0;
  readonly #free: number[] = [];
  #freeAt = 0;
  #fresh: number[] = [];

  take(): number {
    const isWaiting = this.#free.length - this.#freeAt <= WAITING;
    const number = isWaiting ? this.count++ : this.#free[this.#freeAt++]!;
    if (this.#freeAt > 1024) {
      this.#free.splice(0, this.#freeAt);
      this.#freeAt = 0;
    }
    this.#fresh.push(number);
    return number;
  }

  give(number: number): void {
    this.#free.push(number);
  }

  /** Numbers given since the last call. */
  takeFresh(): Int32Array {
    if (this.#fresh.length === 0) return NONE;
    const fresh = Int32Array.from(this.#fresh);
    this.#fresh = [];
    return fresh;
  }
}
