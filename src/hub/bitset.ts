/** Sets of small numbers as bits: who may talk to whom is asked for every pair. */

/** Holds numbers from 0 up to a capacity given at the start. */
export class Bitset {
  readonly capacity: number;
  readonly words: Uint32Array;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.words = new Uint32Array((capacity + 31) >>> 5);
  }

  add(index: number): void {
    const word = index >>> 5;
    this.words[word] = this.words[word]! | (1 << (index & 31));
  }

  remove(index: number): void {
    const word = index >>> 5;
    this.words[word] = this.words[word]! & ~(1 << (index & 31));
  }

  /** False beyond the capacity. */
  has(index: number): boolean {
    return ((this.words[index >>> 5] ?? 0) >>> (index & 31) & 1) === 1;
  }

  /** Adds everything that `other` holds; both have the same capacity. */
  addAll(other: Bitset): void {
    for (let i = 0; i < this.words.length; i++) this.words[i] = this.words[i]! | other.words[i]!;
  }

  removeAll(other: Bitset): void {
    for (let i = 0; i < this.words.length; i++) this.words[i] = this.words[i]! & ~other.words[i]!;
  }

  /** Adds every number below the capacity. */
  fill(): void {
    this.words.fill(0xffff_ffff);
    const rest = this.capacity & 31;
    if (rest !== 0) this.words[this.words.length - 1] = 2 ** rest - 1;
  }

  /** Short text that is equal for equal sets, whatever their capacity. */
  toKey(): string {
    let count = this.words.length;
    while (count > 0 && this.words[count - 1] === 0) count--;
    let text = "";
    for (let i = 0; i < count; i++) text += String.fromCharCode(this.words[i]! & 0xffff, this.words[i]! >>> 16);
    return text;
  }
}
