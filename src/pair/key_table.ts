/**
 * Transport keys in shared memory: the main Worker puts and wipes, the cipher Worker makes keys of its own from them.
 *
 * A key's id is its slot and, above, a number that grows with every use of the slot: so an id names one key and, after its
 * wipe, none. Slots are used again in turn, so that the number comes around only after thousands of millions of keys. Id 0 is no key.
 */
import type { AeadName, Ciphers, TransportKey } from "../ports.ts";
import { AT_KEYS, KEY_OCTETS, KEY_SLOTS, KEY_WORDS, type PairMemory, WIPES } from "./memory.ts";

const AEADS: readonly AeadName[] = ["chacha20poly1305", "aegis128l", "aes256gcm"];
const KEY_BYTES: Readonly<Record<AeadName, number>> = { chacha20poly1305: 32, aegis128l: 16, aes256gcm: 32 };
const MAX_GENERATION = Math.floor(0x7fff_ffff / KEY_SLOTS);

/** The main Worker's end. */
export class KeyTable {
  readonly #memory: PairMemory;
  readonly #generations = new Uint32Array(KEY_SLOTS);
  /** free slots, used from the front and given back at the end */
  readonly #free: Uint16Array;
  #freeFrom = 0;
  #freeCount = KEY_SLOTS;

  constructor(memory: PairMemory) {
    this.#memory = memory;
    this.#free = Uint16Array.from({ length: KEY_SLOTS }, (_, slot) => slot);
  }

  /** @returns the key's id, or 0 when the table is full */
  put(key: Uint8Array, aead: AeadName): number {
    if (this.#freeCount === 0) return 0;
    const slot = this.#free[this.#freeFrom]!;
    this.#freeFrom = (this.#freeFrom + 1) % KEY_SLOTS;
    this.#freeCount--;
    const generation = this.#generations[slot]! % MAX_GENERATION + 1;
    this.#generations[slot] = generation;
    const { words, bytes } = this.#memory;
    const at = AT_KEYS + slot * KEY_WORDS;
    words[at + 1] = AEADS.indexOf(aead);
    bytes.set(key, (at + KEY_OCTETS) * 4);
    // at most 2^31 - 1; never 0, as generations start at 1 and the largest times KEY_SLOTS still fits
    const id = (generation - 1) * KEY_SLOTS + slot + 1;
    Atomics.store(words, at, id);
    return id;
  }

  /** Overwrites a key; the cipher Worker does so with its copy when it looks next. */
  wipe(id: number): void {
    const slot = (id - 1) % KEY_SLOTS;
    const { words, bytes } = this.#memory;
    const at = AT_KEYS + slot * KEY_WORDS;
    if (Atomics.load(words, at) !== id) return;
    Atomics.store(words, at, 0);
    bytes.fill(0, (at + KEY_OCTETS) * 4, (at + KEY_WORDS) * 4);
    this.#free[(this.#freeFrom + this.#freeCount) % KEY_SLOTS] = slot;
    this.#freeCount++;
    Atomics.add(words, WIPES, 1);
  }
}

/** The cipher Worker's end. */
export class KeyCopies {
  readonly #memory: PairMemory;
  readonly #ciphers: Ciphers;
  readonly #ids = new Int32Array(KEY_SLOTS);
  readonly #keys: (TransportKey | undefined)[] = [];
  /** slots of which there is a copy */
  #slots: number[] = [];
  #wipes = 0;

  constructor(memory: PairMemory, ciphers: Ciphers) {
    this.#memory = memory;
    this.#ciphers = ciphers;
  }

  /** How many keys are held here. */
  get count(): number {
    return this.#slots.length;
  }

  /** The key of an id, made when first asked for; undefined when there is none of that id, any more. */
  find(id: number): TransportKey | undefined {
    if (id <= 0) return undefined;
    const slot = (id - 1) % KEY_SLOTS;
    return this.#ids[slot] === id ? this.#keys[slot] : this.#make(id, slot);
  }

  #make(id: number, slot: number): TransportKey | undefined {
    const { words, bytes } = this.#memory;
    const at = AT_KEYS + slot * KEY_WORDS;
    if (Atomics.load(words, at) !== id) return undefined;
    const aead = AEADS[words[at + 1]!];
    if (aead === undefined) return undefined;
    const from = (at + KEY_OCTETS) * 4;
    const octets = bytes.slice(from, from + KEY_BYTES[aead]);
    const isSame = Atomics.load(words, at) === id; // else it was wiped meanwhile, and these may be octets of two keys
    const key = isSame ? this.#ciphers.makeTransportKey(octets, aead) : undefined;
    this.#ciphers.wipe(octets);
    if (key === undefined) return undefined;
    this.#keys[slot]?.wipe();
    if (this.#ids[slot] === 0) this.#slots.push(slot);
    this.#ids[slot] = id;
    this.#keys[slot] = key;
    return key;
  }

  /** Whether `sweep` has something to look at. */
  get isStale(): boolean {
    return Atomics.load(this.#memory.words, WIPES) !== this.#wipes;
  }

  /** Overwrites copies of keys that were wiped. */
  sweep(): void {
    const { words } = this.#memory;
    this.#wipes = Atomics.load(words, WIPES);
    const left: number[] = [];
    for (const slot of this.#slots) {
      if (Atomics.load(words, AT_KEYS + slot * KEY_WORDS) === this.#ids[slot]) left.push(slot);
      else {
        this.#keys[slot]?.wipe();
        this.#keys[slot] = undefined;
        this.#ids[slot] = 0;
      }
    }
    this.#slots = left;
  }

  /** Overwrites all copies. */
  wipe(): void {
    for (const slot of this.#slots) {
      this.#keys[slot]?.wipe();
      this.#keys[slot] = undefined;
      this.#ids[slot] = 0;
    }
    this.#slots = [];
  }
}
