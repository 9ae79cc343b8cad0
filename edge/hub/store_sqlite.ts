/**
 * The store in one SQLite file, through `node:sqlite` (Bun, Deno, Node 22 and newer).
 *
 * Write-ahead log with `synchronous = FULL`: a transaction is one append and one fsync, and is on the disk before its promise
 * resolves; a power cut or `kill -9` at any moment leaves the last committed state. The file is locked for as long as it is
 * open, so two hubs cannot share it. A file that is not a sound database is set aside under another name and a new history
 * (epoch) begins: the caller must say so loudly.
 */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, renameSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { Store, StoreCompare, StoreEntry, StoreEvent, StoreOp, TxnResult, WatchBatch } from "./store.ts";
import { checkKey, checkTtl, checkTxn, keyOf, Watchers } from "./store_watchers.ts";

/** Written to the file; another number is refused, not converted by guesswork. */
const FORMAT = 1;
/** The history is trimmed once in so many revisions. */
const TRIM_EVERY = 256;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS entry (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL, lease INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS entry_lease ON entry (lease) WHERE lease <> 0;
  CREATE TABLE IF NOT EXISTS history (
    revision INTEGER NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, created INTEGER NOT NULL,
    lease INTEGER NOT NULL, PRIMARY KEY (revision, position)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS lease (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl INTEGER NOT NULL);
`;

export interface SqliteStoreOptions {
  /** file; its folder is made when missing */
  readonly path: string;
  /** monotonic milliseconds, for leases */
  readonly nowMs: () => number;
  /** Unix milliseconds, for the name of a file that is set aside */
  readonly now: () => number;
  /** text for a new epoch, never used before */
  readonly makeEpoch: () => string;
  /** revisions that a watch may start in the past; default 10 000 */
  readonly historyRevisions?: number;
}

/** What could not be used, and where it is now. */
export interface SetAside {
  readonly path: string;
  readonly reason: string;
}

interface EntryRow {
  key: string;
  value: Uint8Array;
  created: number;
  modified: number;
  lease: number;
}

interface HistoryRow {
  revision: number;
  key: string;
  value: Uint8Array | null;
  created: number;
  lease: number;
}

export class SqliteStore implements Store {
  readonly epoch: string;
  /** The broken file that was found in the place of the store, if any. */
  readonly setAside: SetAside | undefined;
  readonly #db: DatabaseSync;
  readonly #sql: Statements;
  readonly #nowMs: () => number;
  readonly #keep: number;
  readonly #watchers = new Watchers();
  readonly #leases = new Map<number, { ttlMs: number; endsAt: number }>();
  #revision: number;
  #compacted: number;

  private constructor(db: DatabaseSync, options: SqliteStoreOptions, setAside: SetAside | undefined) {
    this.#db = db;
    this.setAside = setAside;
    this.#nowMs = options.nowMs;
    this.#keep = options.historyRevisions ?? 10_000;
    this.#sql = prepare(db);
    this.epoch = String(readMeta(db, "epoch"));
    this.#revision = Number(readMeta(db, "revision"));
    this.#compacted = Number(readMeta(db, "compacted"));
    for (const row of db.prepare("SELECT id, ttl FROM lease").all() as { id: number; ttl: number }[]) {
      this.#leases.set(row.id, { ttlMs: row.ttl * 1000, endsAt: this.#nowMs() + row.ttl * 1000 });
    }
  }

  /**
   * Opens or makes the file.
   *
   * @throws Error when it is in use by another process, cannot be read or written, or has a newer format
   */
  static open(options: SqliteStoreOptions): SqliteStore {
    mkdirSync(dirname(options.path), { recursive: true, mode: 0o700 });
    try {
      return new SqliteStore(openDatabase(options), options, undefined);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (!isBroken(reason)) throw openError(options.path, reason);
      const setAside = { path: setFilesAside(options.path, options.now()), reason };
      return new SqliteStore(openDatabase(options), options, setAside);
    }
  }

  get revision(): number {
    return this.#revision;
  }

  async get(key: string): Promise<StoreEntry | undefined> {
    const row = this.#sql.get.get(key) as EntryRow | undefined;
    return row && entryOf(row);
  }

  async list(prefix: string): Promise<{ readonly entries: readonly StoreEntry[]; readonly revision: number }> {
    const rows = this.#sql.list.all(prefix, prefix + "\x7f") as unknown as EntryRow[];
    return { entries: rows.map(entryOf), revision: this.#revision };
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
    const id = Number(this.#sql.addLease.run(ttlSeconds).lastInsertRowid);
    this.#leases.set(id, { ttlMs: ttlSeconds * 1000, endsAt: this.#nowMs() + ttlSeconds * 1000 });
    return id;
  }

  async keepLeaseAlive(lease: number): Promise<boolean> {
    const found = this.#leases.get(lease);
    if (found !== undefined) found.endsAt = this.#nowMs() + found.ttlMs;
    return found !== undefined;
  }

  async revokeLease(lease: number): Promise<void> {
    if (!this.#leases.has(lease)) return;
    const rows = this.#sql.leased.all(lease) as { key: string }[];
    this.#commit([], rows.map(({ key }) => ({ op: "delete", key })), lease);
    this.#leases.delete(lease);
  }

  watch(prefix: string, fromRevision: number, onBatch: (batch: WatchBatch) => void): () => void {
    if (fromRevision <= this.#compacted) {
      onBatch({ type: "compacted", compactRevision: this.#compacted });
      return () => {};
    }
    const revision = this.#revision;
    if (fromRevision <= revision) {
      for (const batch of this.#past(prefix, fromRevision)) onBatch(batch);
    }
    return this.#watchers.add(prefix, Math.max(fromRevision, revision + 1), onBatch);
  }

  async tick(): Promise<void> {
    const now = this.#nowMs();
    for (const [id, lease] of this.#leases) if (lease.endsAt <= now) await this.revokeLease(id);
  }

  async close(): Promise<void> {
    this.#watchers.clear();
    this.#db.close();
  }

  #past(prefix: string, fromRevision: number): WatchBatch[] {
    const batches: { type: "events"; revision: number; events: StoreEvent[] }[] = [];
    for (const row of this.#sql.past.all(fromRevision) as unknown as HistoryRow[]) {
      const event = eventOf(row);
      if (!keyOf(event).startsWith(prefix)) continue;
      if (batches.at(-1)?.revision !== row.revision) {
        batches.push({ type: "events", revision: row.revision, events: [] });
      }
      batches.at(-1)!.events.push(event);
    }
    return batches;
  }

  /** One transaction; `endedLease` goes in it too. In memory nothing changes unless the disk has it. */
  #commit(compares: readonly StoreCompare[], ops: readonly StoreOp[], endedLease = 0): TxnResult {
    checkTxn(compares, ops);
    for (const op of ops) {
      if (op.op === "put" && op.lease && !this.#leases.has(op.lease)) throw new RangeError(`No lease ${op.lease}`);
    }
    const revision = this.#revision + 1;
    let events: StoreEvent[];
    let compacted = this.#compacted;
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      const holds = compares.every(({ key, modRevision }) => this.#modRevisionOf(key) === modRevision);
      events = holds ? this.#apply(ops, revision) : [];
      if (endedLease !== 0) this.#sql.dropLease.run(endedLease);
      if (!holds || (events.length === 0 && endedLease === 0)) {
        this.#db.exec("ROLLBACK");
        return { succeeded: holds, revision: this.#revision };
      }
      if (events.length > 0) this.#sql.setMeta.run("revision", revision);
      if (revision % TRIM_EVERY === 0) compacted = this.#trim(revision);
      this.#db.exec("COMMIT");
    } catch (error) {
      this.#rollBack();
      throw error;
    }
    this.#compacted = compacted;
    if (events.length === 0) return { succeeded: true, revision: this.#revision };
    this.#revision = revision;
    this.#watchers.deliver(revision, events);
    return { succeeded: true, revision };
  }

  #rollBack(): void {
    try {
      this.#db.exec("ROLLBACK");
    } catch {
      // SQLite has already rolled back, as it does when the disk is full
    }
  }

  #modRevisionOf(key: string): number {
    return (this.#sql.modified.get(key) as { modified: number } | undefined)?.modified ?? 0;
  }

  #apply(ops: readonly StoreOp[], revision: number): StoreEvent[] {
    const events: StoreEvent[] = [];
    for (const op of ops) {
      const event = op.op === "put" ? this.#applyPut(op, revision) : this.#applyDelete(op.key, revision);
      if (event === undefined) continue;
      const created = event.type === "put" ? event.entry.createRevision : 0;
      const value = event.type === "put" ? event.entry.value : null;
      const lease = event.type === "put" ? event.entry.lease : 0;
      this.#sql.remember.run(revision, events.length, op.key, value, created, lease);
      events.push(event);
    }
    return events;
  }

  #applyPut(op: Extract<StoreOp, { op: "put" }>, revision: number): StoreEvent {
    const old = this.#sql.created.get(op.key) as { created: number } | undefined;
    const createRevision = old?.created ?? revision;
    const value = op.value.slice();
    const lease = op.lease ?? 0;
    this.#sql.put.run(op.key, value, createRevision, revision, lease);
    return { type: "put", entry: { key: op.key, value, createRevision, modRevision: revision, lease } };
  }

  #applyDelete(key: string, revision: number): StoreEvent | undefined {
    return Number(this.#sql.drop.run(key).changes) > 0 ? { type: "delete", key, revision } : undefined;
  }

  #trim(revision: number): number {
    const compacted = Math.max(this.#compacted, revision - this.#keep);
    if (compacted === this.#compacted) return compacted;
    this.#sql.forget.run(compacted);
    this.#sql.setMeta.run("compacted", compacted);
    return compacted;
  }
}

type Statements = Readonly<Record<keyof typeof STATEMENTS, StatementSync>>;

const STATEMENTS = {
  get: "SELECT key, value, created, modified, lease FROM entry WHERE key = ?",
  list: "SELECT key, value, created, modified, lease FROM entry WHERE key >= ? AND key < ? ORDER BY key",
  modified: "SELECT modified FROM entry WHERE key = ?",
  created: "SELECT created FROM entry WHERE key = ?",
  put: "INSERT OR REPLACE INTO entry (key, value, created, modified, lease) VALUES (?, ?, ?, ?, ?)",
  drop: "DELETE FROM entry WHERE key = ?",
  leased: "SELECT key FROM entry WHERE lease = ?",
  remember: "INSERT INTO history (revision, position, key, value, created, lease) VALUES (?, ?, ?, ?, ?, ?)",
  past: "SELECT revision, key, value, created, lease FROM history WHERE revision >= ? ORDER BY revision, position",
  forget: "DELETE FROM history WHERE revision <= ?",
  setMeta: "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
  addLease: "INSERT INTO lease (ttl) VALUES (?)",
  dropLease: "DELETE FROM lease WHERE id = ?",
} as const;

function prepare(db: DatabaseSync): Statements {
  return Object.fromEntries(Object.entries(STATEMENTS).map(([name, sql]) => [name, db.prepare(sql)])) as Statements;
}

/** Opens, checks, and fills in what a new file lacks. Closes again when anything is wrong. */
function openDatabase(options: SqliteStoreOptions): DatabaseSync {
  const isNew = !existsSync(options.path);
  // it holds who is whom: for its owner alone, and SQLite gives the log beside it the same mode
  if (isNew) closeSync(openSync(options.path, "a", 0o600));
  const db = new DatabaseSync(options.path);
  try {
    db.exec("PRAGMA locking_mode = EXCLUSIVE");
    db.exec("PRAGMA journal_mode = WAL");
    db.exec("PRAGMA synchronous = FULL");
    db.exec("PRAGMA journal_size_limit = 4194304");
    if (!isNew) checkSound(db);
    db.exec("BEGIN IMMEDIATE");
    db.exec(SCHEMA);
    fillMeta(db, options);
    db.exec("COMMIT");
    if (isNew) syncFolder(dirname(options.path));
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

function checkSound(db: DatabaseSync): void {
  const rows = db.prepare("PRAGMA quick_check(1)").all() as Record<string, unknown>[];
  const answer = rows[0] === undefined ? "no answer" : String(Object.values(rows[0])[0]);
  if (answer !== "ok") throw new Error(`database disk image is malformed: ${answer}`);
}

function fillMeta(db: DatabaseSync, options: SqliteStoreOptions): void {
  const format = readMeta(db, "format");
  if (format !== undefined && format !== FORMAT) {
    throw new Error(`its format is ${format}, this edgemesh reads ${FORMAT}`);
  }
  if (format !== undefined) return;
  const add = db.prepare("INSERT INTO meta (name, value) VALUES (?, ?)");
  add.run("format", FORMAT);
  add.run("epoch", options.makeEpoch());
  add.run("revision", 0);
  add.run("compacted", 0);
}

function readMeta(db: DatabaseSync, name: string): unknown {
  return (db.prepare("SELECT value FROM meta WHERE name = ?").get(name) as { value: unknown } | undefined)?.value;
}

/** SQLITE_CORRUPT and SQLITE_NOTADB, whose codes the runtimes report differently and whose texts are alike. */
function isBroken(reason: string): boolean {
  return /malformed|not a database|SQLITE_CORRUPT|SQLITE_NOTADB/i.test(reason);
}

function openError(path: string, reason: string): Error {
  const isLocked = /locked|busy/i.test(reason);
  return new Error(`Cannot open store "${path}": ${isLocked ? "another hub is using it" : reason}`);
}

/** Renames the file and its log. @returns the new name of the file */
function setFilesAside(path: string, unixMs: number): string {
  const target = `${path}.broken-${unixMs}`;
  for (const suffix of ["", "-wal", "-shm"]) {
    if (existsSync(path + suffix)) renameSync(path + suffix, target + suffix);
  }
  syncFolder(dirname(path));
  return target;
}

/** A new or renamed file survives a power cut only when its folder is on the disk too. */
function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function entryOf(row: EntryRow): StoreEntry {
  const { key, created, modified, lease } = row;
  return { key, value: new Uint8Array(row.value), createRevision: created, modRevision: modified, lease };
}

function eventOf(row: HistoryRow): StoreEvent {
  const { key, value, created, revision, lease } = row;
  if (value === null) return { type: "delete", key, revision };
  const entry = { key, value: new Uint8Array(value), createRevision: created, modRevision: revision, lease };
  return { type: "put", entry };
}
