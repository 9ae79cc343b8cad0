/**
 * What the hub keeps its state in: keys and values with revisions, as etcd has them. Implementation: SQLite
 * (store_sqlite.ts); tests have one in memory. `test/suites/store.ts` says what all of them must do.
 *
 * A change is one transaction, has one revision, and is on stable storage when its promise resolves. Watchers hear of it
 * before that.
 */

export interface StoreEntry {
  readonly key: string;
  /** the caller must not change it */
  readonly value: Uint8Array;
  /** revision that made the key */
  readonly createRevision: number;
  /** revision of its last change */
  readonly modRevision: number;
  /** 0 = no lease */
  readonly lease: number;
}

export type StoreOp =
  | { readonly op: "put"; readonly key: string; readonly value: Uint8Array; readonly lease?: number }
  | { readonly op: "delete"; readonly key: string };

/** A condition of a transaction: the key was last changed by exactly this revision; 0 = the key does not exist. */
export interface StoreCompare {
  readonly key: string;
  readonly modRevision: number;
}

export interface TxnResult {
  /** all conditions held, and the operations were done */
  readonly succeeded: boolean;
  /** revision after it */
  readonly revision: number;
}

/** One change of one key. */
export type StoreEvent =
  | { readonly type: "put"; readonly entry: StoreEntry }
  | { readonly type: "delete"; readonly key: string; readonly revision: number };

/** What a watcher is told: the changes of one revision, in order; or that the history it asked for is gone. */
export type WatchBatch =
  | { readonly type: "events"; readonly revision: number; readonly events: readonly StoreEvent[] }
  /** start again: list, then watch from its revision + 1; the watch has ended */
  | { readonly type: "compacted"; readonly compactRevision: number };

export interface Store {
  /** names this history; a store that was lost starts another, and revisions of different epochs do not compare */
  readonly epoch: string;
  /** of the newest change; 0 for an empty store */
  readonly revision: number;

  get(key: string): Promise<StoreEntry | undefined>;
  /** Everything whose key starts with `prefix`, ascending by key (UTF-8 octets), as of one revision. */
  list(prefix: string): Promise<{ readonly entries: readonly StoreEntry[]; readonly revision: number }>;
  /** @returns the new revision */
  put(key: string, value: Uint8Array, lease?: number): Promise<number>;
  /** @returns whether there was such a key; without one there is no new revision */
  delete(key: string): Promise<boolean>;
  /**
   * Does all operations if all conditions hold, else none. A key may be in one operation only. Deletes of absent keys are
   * nothing; a transaction that changes nothing makes no revision.
   *
   * @throws RangeError for a key twice, or a lease that does not exist
   */
  txn(compares: readonly StoreCompare[], ops: readonly StoreOp[]): Promise<TxnResult>;

  /** A lease of this many seconds (1 to 86400). Keys put with it are deleted when it ends. After a restart it counts anew. */
  grantLease(ttlSeconds: number): Promise<number>;
  /** Starts its time again. @returns false when there is no such lease (any more) */
  keepLeaseAlive(lease: number): Promise<boolean>;
  /** Ends it now, with its keys. Unknown leases are ignored. */
  revokeLease(lease: number): Promise<void>;

  /**
   * Tells of every change of keys under `prefix` from `fromRevision` on, in order, each revision once; past ones first.
   * `onBatch` must not throw.
   *
   * @returns ends the watch
   */
  watch(prefix: string, fromRevision: number, onBatch: (batch: WatchBatch) => void): () => void;

  /** Upkeep: ends leases whose time is over. Called about once a second by the owner. */
  tick(): Promise<void>;
  close(): Promise<void>;
}
