/**
 * Which key a receiver index means, in shared memory: the main Worker writes what it has opened itself, the cipher Worker asks
 * before it opens. A cache: an entry may be missing, then the main Worker opens the message and puts it again.
 *
 * An entry is the index and a key's id. The id goes first and comes last, and no id is used twice: whoever reads the same id
 * before and after the index has both of one entry.
 */
import { AT_INDEXES, INDEX_SETS, INDEX_WAYS, type PairMemory } from "./memory.ts";

function setOf(index: number): number {
  return AT_INDEXES + (index & (INDEX_SETS - 1)) * INDEX_WAYS * 2; // indexes are random
}

/** Puts an entry, in place of the one of that index, of a free one, or of any other of its set. Main Worker only. */
export function putIndex({ words }: PairMemory, index: number, keyId: number): void {
  const set = setOf(index);
  let chosen = set + ((keyId & (INDEX_WAYS - 1)) * 2);
  for (let way = INDEX_WAYS - 1; way >= 0; way--) if (words[set + way * 2 + 1] === 0) chosen = set + way * 2;
  for (let way = 0; way < INDEX_WAYS; way++) {
    if (words[set + way * 2] === (index | 0) && words[set + way * 2 + 1] !== 0) chosen = set + way * 2;
  }
  Atomics.store(words, chosen + 1, 0);
  Atomics.store(words, chosen, index | 0);
  Atomics.store(words, chosen + 1, keyId);
}

/** Removes the entry of an index, if it is that key's. Main Worker only. */
export function removeIndex({ words }: PairMemory, index: number, keyId: number): void {
  const set = setOf(index);
  for (let way = 0; way < INDEX_WAYS; way++) {
    if (words[set + way * 2 + 1] === keyId) Atomics.store(words, set + way * 2 + 1, 0);
  }
}

/** The id of the key that an index means, 0 when it is not known. Either Worker. */
export function findIndex({ words }: PairMemory, index: number): number {
  const set = setOf(index);
  for (let way = 0; way < INDEX_WAYS; way++) {
    const id = Atomics.load(words, set + way * 2 + 1);
    if (id === 0 || Atomics.load(words, set + way * 2) !== (index | 0)) continue;
    if (Atomics.load(words, set + way * 2 + 1) === id) return id;
  }
  return 0;
}
