/** A store that forgets: for tests and for trying things out. The same behaviour as the others otherwise. */
import type {
  Store,
  StoreCompare,
  StoreEntry,
  StoreEvent,
  StoreOp,
  TxnResult,
  WatchBatch,
} from "../../edge/hub/store.ts";
import { checkKey, checkTtl, checkTxn, Watchers } from "../../edge/hub/store_watchers.ts";

export interface MemoryStoreOptions {
  readonly epoch?: string;
  /** monotonic milliseconds, for leases */
  readonly nowMs: () => number;
  /** revisions that a watch may start in the past; default 10 000 */
  readonly historyRevisions?: number;
}

export class MemoryStore implements Store {
  readonly epoch: string;
  readonly #nowMs: () => number;
  readonly #keep: number;
  readonly #entries = new Map<string, StoreEntry>();
  readonly #leases = new Map<number, { ttlMs: number; endsAt: number }>();
  readonly #watchers = new Watchers();
  readonly #history: { revision: number; events: readonly StoreEvent[] }[] = [];
  #revision = 0;
  #nextLease = 1;

  constructor(options: MemoryStoreOptions) {
    this.epoch = options.epoch ?? "memory";
    this.#nowMs = options.nowMs;
    this.#keep = options.historyRevisions ?? 10_000;
  }

  get revision(): number {
    return this.#revision;
  }

  async get(key: string): Promise<StoreEntry | undefined> {
    return this.#entries.get(key);
  }

  async list(prefix: string): Promise<{ readonly entries: readonly StoreEntry[]; readonly revision: number }> {
    const entries = [...this.#entries.values()].filter((entry) => entry.key.startsWith(prefix));
    entries.sort((a, b) => a.key < b.key ? -1 : 1);
    return { entries, revision: this.#revision };
  }

  async put(key: string, value: Uint8Array, lease = 0): Promise<number> {
    return this.#commit([], [{ op: "put", key, value, lease }]).revision;
  }

  async delete(key: string): Promise<boolean> {
    checkKey(key);
    const before = this.#revision;
    return this.#commit([], [{ op: "delete", key }]).revision !== before;
  }

  async txn(compares: readonly StoreCompare[], ops: readonly StoreOp[]): Promise<TxnResult> {
    return this.#commit(compares, ops);
  }

  async grantLease(ttlSeconds: number): Promise<number> {
    checkTtl(ttlSeconds);
    const id = this.#nextLease++;
    this.#leases.set(id, { ttlMs: ttlSeconds * 1000, endsAt: this.#nowMs() + ttlSeconds * 1000 });
    return id;
  }

  async keepLeaseAlive(lease: number): Promise<boolean> {
    const found = this.#leases.get(lease);
    if (found !== undefined) found.endsAt = this.#nowMs() + found.ttlMs;
    return found !== undefined;
  }

  async revokeLease(lease: number): Promise<void> {
    if (!this.#leases.delete(lease)) return;
    const keys = [...this.#entries.values()].filter((entry) => entry.lease === lease);
    this.#commit([], keys.map(({ key }) => ({ op: "delete", key })));
  }

  watch(prefix: string, fromRevision: number, onBatch: (batch: WatchBatch) => void): () => void {
    const oldest = this.#history[0]?.revision ?? this.#revision + 1;
    if (fromRevision < oldest && fromRevision <= this.#revision) {
      onBatch({ type: "compacted", compactRevision: oldest - 1 });
      return () => {};
    }
    for (const { revision, events } of this.#history) {
      const wanted = events.filter((e) => (e.type === "put" ? e.entry.key : e.key).startsWith(prefix));
      if (revision >= fromRevision && wanted.length > 0) onBatch({ type: "events", revision, events: wanted });
    }
    return this.#watchers.add(prefix, Math.max(fromRevision, this.#revision + 1), onBatch);
  }

  async tick(): Promise<void> {
    const now = this.#nowMs();
    for (const [id, lease] of this.#leases) if (lease.endsAt <= now) await this.revokeLease(id);
  }

  async close(): Promise<void> {
    this.#watchers.clear();
  }

  #commit(compares: readonly StoreCompare[], ops: readonly StoreOp[]): TxnResult {
    checkTxn(compares, ops);
    for (const op of ops) {
      if (op.op === "put" && op.lease && !this.#leases.has(op.lease)) throw new RangeError(`No lease ${op.lease}`);
    }
    const holds = compares.every(({ key, modRevision }) => (this.#entries.get(key)?.modRevision ?? 0) === modRevision);
    if (!holds) return { succeeded: false, revision: this.#revision };
    const revision = this.#revision + 1;
    const events = ops.map((op) => this.#apply(op, revision)).filter((event) => event !== undefined);
    if (events.length === 0) return { succeeded: true, revision: this.#revision };
    this.#revision = revision;
    this.#history.push({ revision, events });
    if (this.#history.length > this.#keep) this.#history.shift();
    this.#watchers.deliver(revision, events);
    return { succeeded: true, revision };
  }

  #apply(op: StoreOp, revision: number): StoreEvent | undefined {
    const old = this.#entries.get(op.key);
    if (op.op === "delete") {
      return this.#entries.delete(op.key) ? { type: "delete", key: op.key, revision } : undefined;
    }
    const createRevision = old?.createRevision ?? revision;
    const entry = { key: op.key, value: op.value.slice(), createRevision, modRevision: revision, lease: op.lease ?? 0 };
    this.#entries.set(op.key, entry);
    return { type: "put", entry };
  }
}
