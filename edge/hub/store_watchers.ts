/**
 * What local stores share: checks of arguments, and the list of watchers with its order of delivery.
 */
import type { StoreCompare, StoreEvent, StoreOp, WatchBatch } from "./store.ts";

/** Longest key; etcd has no limit, Cilium's keys stay far below. */
const MAX_KEY_CHARS = 1024;
/** etcd's own default limit for a request. */
const MAX_VALUE_BYTES = 1.5 * 1024 * 1024;

interface Watcher {
  readonly prefix: string;
  readonly onBatch: (batch: WatchBatch) => void;
  /** first revision that it has not been told of */
  next: number;
}

/** Tells watchers of changes: each revision once, in order, also when a watcher makes the next change while it is told. */
export class Watchers {
  readonly #watchers = new Set<Watcher>();
  readonly #waiting: { revision: number; events: readonly StoreEvent[] }[] = [];
  #isDelivering = false;

  /** Adds a watcher that has been told of everything before `next`. @returns removes it */
  add(prefix: string, next: number, onBatch: (batch: WatchBatch) => void): () => void {
    const watcher = { prefix, onBatch, next };
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  /** Delivers the changes of one revision. */
  deliver(revision: number, events: readonly StoreEvent[]): void {
    this.#waiting.push({ revision, events });
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    try {
      for (let batch = this.#waiting.shift(); batch !== undefined; batch = this.#waiting.shift()) {
        for (const watcher of this.#watchers) tell(watcher, batch.revision, batch.events);
      }
    } finally {
      this.#isDelivering = false;
    }
  }

  clear(): void {
    this.#watchers.clear();
  }
}

function tell(watcher: Watcher, revision: number, events: readonly StoreEvent[]): void {
  if (revision < watcher.next) return;
  watcher.next = revision + 1;
  const wanted = events.filter((event) => keyOf(event).startsWith(watcher.prefix));
  if (wanted.length > 0) watcher.onBatch({ type: "events", revision, events: wanted });
}

export function keyOf(event: StoreEvent): string {
  return event.type === "put" ? event.entry.key : event.key;
}

/** @throws RangeError for a key that no store takes: only printable ASCII, so that all stores sort alike */
export function checkKey(key: string): void {
  if (key.length === 0 || key.length > MAX_KEY_CHARS || !/^[\x21-\x7e]+$/.test(key)) {
    throw new RangeError(
      `Cannot use store key ${JSON.stringify(key.slice(0, 80))}: not 1 to 1024 printable characters`,
    );
  }
}

/** @throws RangeError for a transaction that no store takes */
export function checkTxn(compares: readonly StoreCompare[], ops: readonly StoreOp[]): void {
  for (const compare of compares) checkKey(compare.key);
  const seen = new Set<string>();
  for (const op of ops) {
    checkKey(op.key);
    if (seen.has(op.key)) throw new RangeError(`Cannot change store key "${op.key}" twice in one transaction`);
    seen.add(op.key);
    if (op.op === "put" && op.value.length > MAX_VALUE_BYTES) {
      throw new RangeError(`Cannot store "${op.key}": ${op.value.length} octets are more than ${MAX_VALUE_BYTES}`);
    }
  }
}

/** @throws RangeError */
export function checkTtl(ttlSeconds: number): void {
  if (!Number.isInteger(ttlSeconds) || ttlSeconds < 1 || ttlSeconds > 86_400) {
    throw new RangeError(`Cannot grant a lease of ${ttlSeconds} seconds: not 1 to 86400`);
  }
}
