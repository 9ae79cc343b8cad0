/**
 * The 32-bit indices that we gave out (sender indices of our messages, receiver indices of what comes back) and what each
 * stands for. Open addressing with linear probing; indices are random, so they are their own hash, and a stranger cannot
 * choose which ones collide.
 *
 * Hot file (`find` runs once per received packet).
 */
import { readU32LE } from "../bytes/integers.ts";
import type { RandomBytes } from "../ports.ts";

const START_CAPACITY = 64;

export class IndexTable<T extends object> {
  #keys = new Int32Array(START_CAPACITY);
  #values: (T | undefined)[] = new Array<T | undefined>(START_CAPACITY).fill(undefined);
  #mask = START_CAPACITY - 1;
  #count = 0;

  get size(): number {
    return this.#count;
  }

  /** @param index signed or unsigned 32 bits */
  find(index: number): T | undefined {
    const key = index | 0;
    const keys = this.#keys;
    const values = this.#values;
    const mask = this.#mask;
    for (let at = key & mask;; at = (at + 1) & mask) {
      const value = values[at];
      if (value === undefined || keys[at] === key) return value;
    }
  }

  /** Adds an index that is not there yet. */
  add(index: number, value: T): void {
    if (this.#count * 2 >= this.#mask) this.#grow();
    this.#place(index | 0, value);
    this.#count++;
  }

  /** Removes an index; no effect when it is not there. */
  delete(index: number): void {
    const key = index | 0;
    const mask = this.#mask;
    let at = key & mask;
    while (this.#values[at] !== undefined && this.#keys[at] !== key) at = (at + 1) & mask;
    if (this.#values[at] === undefined) return;
    this.#values[at] = undefined;
    this.#count--;
    // Those behind it that had to step over it move up, or `find` would stop at the hole.
    for (let next = (at + 1) & mask;; next = (next + 1) & mask) {
      const value = this.#values[next];
      if (value === undefined) return;
      const home = this.#keys[next]! & mask;
      if (((next - home) & mask) < ((next - at) & mask)) continue;
      this.#keys[at] = this.#keys[next]!;
      this.#values[at] = value;
      this.#values[next] = undefined;
      at = next;
    }
  }

  #place(key: number, value: T): void {
    let at = key & this.#mask;
    while (this.#values[at] !== undefined) at = (at + 1) & this.#mask;
    this.#keys[at] = key;
    this.#values[at] = value;
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    const capacity = keys.length * 2;
    this.#keys = new Int32Array(capacity);
    this.#values = new Array<T | undefined>(capacity).fill(undefined);
    this.#mask = capacity - 1;
    values.forEach((value, at) => value !== undefined && this.#place(keys[at]!, value));
  }
}

/** A random index, unsigned, that none of the tables has. */
export function pickIndex(random: RandomBytes, a: IndexTable<object>, b: IndexTable<object>): number {
  const bytes = new Uint8Array(4);
  for (;;) {
    random(bytes);
    const index = readU32LE(bytes, 0);
    if (a.find(index) === undefined && b.find(index) === undefined) return index;
  }
}
