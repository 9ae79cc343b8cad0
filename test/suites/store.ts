/**
 * What every `Store` must do. A suite is a function of (implementation); `reopen` closes and opens the same data again, where
 * the implementation keeps any.
 */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Store, StoreEvent, WatchBatch } from "../../edge/hub/store.ts";

export interface StoreUnderTest {
  readonly name: string;
  /** an empty store; `nowMs` is its monotonic clock, `historyRevisions` its limit */
  open(clock: { nowMs: number }, historyRevisions: number): Promise<Store>;
  /** the same store after a restart; none: it forgets */
  readonly reopen?: (store: Store, clock: { nowMs: number }, historyRevisions: number) => Promise<Store>;
  readonly cleanUp?: () => Promise<void>;
}

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) => value && new TextDecoder().decode(value);
const HISTORY = 300;

export function storeSuite(subject: StoreUnderTest): void {
  describe(`${subject.name} as a store`, () => {
    let store: Store;
    const clock = { nowMs: 0 };

    beforeEach(async () => {
      clock.nowMs = 1000;
      store = await subject.open(clock, HISTORY);
    });
    afterEach(async () => {
      await store.close();
      await subject.cleanUp?.();
    });

    it("starts at revision 0 and counts one for each transaction", async () => {
      expect(store.revision).toBe(0);
      expect(await store.put("a/1", bytes("x"))).toBe(1);
      const result = await store.txn([], [
        { op: "put", key: "a/2", value: bytes("y") },
        { op: "put", key: "a/3", value: bytes("z") },
        { op: "delete", key: "a/1" },
      ]);
      expect(result).toEqual({ succeeded: true, revision: 2 });
      expect(store.revision).toBe(2);
    });

    it("gives back what was put, with the revisions of its making and its last change", async () => {
      await store.put("k", bytes("one"));
      await store.put("other", bytes("two"));
      await store.put("k", bytes("three"));
      const entry = await store.get("k");
      expect(text(entry?.value)).toBe("three");
      expect(entry).toMatchObject({ key: "k", createRevision: 1, modRevision: 3, lease: 0 });
      expect(await store.get("nothing")).toBeUndefined();
    });

    it("keeps values of any octets, empty ones too", async () => {
      const all = Uint8Array.from({ length: 256 }, (_, i) => i);
      await store.put("all", all);
      await store.put("none", new Uint8Array(0));
      expect((await store.get("all"))?.value).toEqual(all);
      expect((await store.get("none"))?.value).toEqual(new Uint8Array(0));
    });

    it("does not see later changes of the array that a value came in", async () => {
      const value = bytes("abc");
      await store.put("k", value);
      value[0] = 0;
      expect(text((await store.get("k"))?.value)).toBe("abc");
    });

    it("lists a prefix in the order of its keys, with the revision", async () => {
      for (const key of ["b/2", "b/10", "a/9", "b/1", "b/~", "b", "c/1"]) await store.put(key, bytes(key));
      const { entries, revision } = await store.list("b/");
      expect(entries.map((entry) => entry.key)).toEqual(["b/1", "b/10", "b/2", "b/~"]);
      expect(revision).toBe(7);
      expect((await store.list("")).entries).toHaveLength(7);
    });

    it("deletes, says whether there was something, and counts only then", async () => {
      await store.put("k", bytes("v"));
      expect(await store.delete("k")).toBe(true);
      expect(await store.delete("k")).toBe(false);
      expect(store.revision).toBe(2);
      await store.put("k", bytes("again"));
      expect(await store.get("k")).toMatchObject({ createRevision: 3, modRevision: 3 });
    });

    it("does nothing when one condition of a transaction fails", async () => {
      await store.put("k", bytes("v"));
      const ops = [{ op: "put", key: "new", value: bytes("n") }] as const;
      const absent = await store.txn([{ key: "k", modRevision: 0 }], ops);
      expect(absent).toEqual({ succeeded: false, revision: 1 });
      const stale = await store.txn([{ key: "other", modRevision: 0 }, { key: "k", modRevision: 7 }], ops);
      expect(stale.succeeded).toBe(false);
      expect(await store.get("new")).toBeUndefined();
      const right = await store.txn([{ key: "other", modRevision: 0 }, { key: "k", modRevision: 1 }], ops);
      expect(right).toEqual({ succeeded: true, revision: 2 });
    });

    it("refuses a key twice in one transaction, bad keys and unknown leases, and changes nothing then", async () => {
      const put = (key: string, lease = 0) => ({ op: "put", key, value: bytes("v"), lease }) as const;
      await expect(store.txn([], [put("k"), put("k")])).rejects.toThrow(RangeError);
      await expect(store.put("", bytes("v"))).rejects.toThrow(RangeError);
      await expect(store.put("with space", bytes("v"))).rejects.toThrow(RangeError);
      await expect(store.put("é", bytes("v"))).rejects.toThrow(RangeError);
      await expect(store.put("k", new Uint8Array(2_000_000))).rejects.toThrow(RangeError);
      await expect(store.txn([], [put("a"), put("b", 12345)])).rejects.toThrow(RangeError);
      expect(store.revision).toBe(0);
      expect((await store.list("")).entries).toEqual([]);
    });

    it("tells a watcher of every change under its prefix, in order, once", async () => {
      const seen: WatchBatch[] = [];
      await store.put("w/old", bytes("0"));
      const stop = store.watch("w/", 2, (batch) => void seen.push(batch));
      await store.put("w/a", bytes("1"));
      await store.put("x/a", bytes("2"));
      await store.txn([], [{ op: "delete", key: "w/a" }, { op: "put", key: "w/b", value: bytes("3") }]);
      stop();
      await store.put("w/c", bytes("4"));
      expect(seen.map(show)).toEqual(["2: put w/a=1", "4: delete w/a, put w/b=3"]);
    });

    it("tells a watcher of the past first, from the revision that it names", async () => {
      for (let i = 1; i <= 5; i++) await store.put(`w/${i}`, bytes(String(i)));
      await store.delete("w/2");
      const seen: WatchBatch[] = [];
      const stop = store.watch("w/", 4, (batch) => void seen.push(batch));
      await store.put("w/7", bytes("7"));
      stop();
      expect(seen.map(show)).toEqual(["4: put w/4=4", "5: put w/5=5", "6: delete w/2", "7: put w/7=7"]);
    });

    it("waits with a watch that starts in the future", async () => {
      const seen: WatchBatch[] = [];
      store.watch("", 3, (batch) => void seen.push(batch));
      for (let i = 1; i <= 3; i++) await store.put(`k${i}`, bytes(""));
      expect(seen.map(show)).toEqual(["3: put k3="]);
    });

    it("keeps the order when a watcher makes a change itself", async () => {
      const first: string[] = [];
      const second: string[] = [];
      store.watch("", 1, (batch) => {
        first.push(show(batch));
        if (store.revision === 1) void store.put("b", bytes(""));
      });
      store.watch("", 1, (batch) => void second.push(show(batch)));
      await store.put("a", bytes(""));
      expect(first).toEqual(["1: put a=", "2: put b="]);
      expect(second).toEqual(first);
    });

    it("says compacted when the history asked for is gone", async () => {
      for (let i = 0; i < HISTORY + 600; i++) await store.put("k", bytes(String(i)));
      const seen: WatchBatch[] = [];
      store.watch("", 1, (batch) => void seen.push(batch));
      expect(seen).toHaveLength(1);
      const answer = seen[0]!;
      if (answer.type !== "compacted") throw new Error("not told that the history is gone");
      expect(answer.compactRevision).toBeGreaterThanOrEqual(256);
      const rest: WatchBatch[] = [];
      store.watch("", answer.compactRevision + 1, (batch) => void rest.push(batch));
      expect(rest).toHaveLength(store.revision - answer.compactRevision);
      await store.put("k", bytes("more"));
      expect(seen).toHaveLength(1);
    });

    it("ends a lease with its keys when its time is over, and not while it is kept alive", async () => {
      const lease = await store.grantLease(10);
      const other = await store.grantLease(100);
      await store.put("l/1", bytes("1"), lease);
      await store.put("l/2", bytes("2"), lease);
      await store.put("l/3", bytes("3"), other);
      await store.put("l/4", bytes("4"));
      const seen: WatchBatch[] = [];
      store.watch("l/", store.revision + 1, (batch) => void seen.push(batch));
      clock.nowMs += 9_000;
      expect(await store.keepLeaseAlive(lease)).toBe(true);
      clock.nowMs += 9_999;
      await store.tick();
      expect(seen).toEqual([]);
      clock.nowMs += 1;
      await store.tick();
      expect(seen.map(show)).toEqual(["5: delete l/1, delete l/2"]);
      expect(await store.keepLeaseAlive(lease)).toBe(false);
      expect((await store.list("l/")).entries.map((entry) => entry.key)).toEqual(["l/3", "l/4"]);
    });

    it("takes a key off its lease when it is put without one", async () => {
      const lease = await store.grantLease(10);
      await store.put("k", bytes("1"), lease);
      await store.put("k", bytes("2"));
      await store.revokeLease(lease);
      expect(text((await store.get("k"))?.value)).toBe("2");
    });

    it("revokes a lease at once, and ignores one that it does not know", async () => {
      const lease = await store.grantLease(10);
      await store.put("k", bytes("1"), lease);
      await store.revokeLease(lease);
      await store.revokeLease(lease);
      await store.revokeLease(4711);
      expect(await store.get("k")).toBeUndefined();
      await expect(store.grantLease(0)).rejects.toThrow(RangeError);
      await expect(store.grantLease(100_000)).rejects.toThrow(RangeError);
    });

    if (subject.reopen === undefined) return;
    it("is the same after a restart: entries, revision, epoch, history, leases", async () => {
      const lease = await store.grantLease(10);
      await store.put("a", bytes("1"));
      await store.put("b", bytes("2"), lease);
      await store.delete("a");
      const { epoch } = store;
      store = await subject.reopen!(store, clock, HISTORY);
      expect(store.epoch).toBe(epoch);
      expect(store.revision).toBe(3);
      expect(await store.get("a")).toBeUndefined();
      expect(await store.get("b")).toMatchObject({ createRevision: 2, modRevision: 2, lease });
      const seen: WatchBatch[] = [];
      store.watch("", 1, (batch) => void seen.push(batch));
      expect(seen.map(show)).toEqual(["1: put a=1", "2: put b=2", "3: delete a"]);
      clock.nowMs += 10_000;
      await store.tick();
      expect(await store.get("b")).toBeUndefined();
      expect(await store.grantLease(5)).not.toBe(lease);
    });
  });
}

function show(batch: WatchBatch): string {
  if (batch.type === "compacted") return `compacted ${batch.compactRevision}`;
  return `${batch.revision}: ${batch.events.map(showEvent).join(", ")}`;
}

function showEvent(event: StoreEvent): string {
  return event.type === "put" ? `put ${event.entry.key}=${text(event.entry.value)}` : `delete ${event.key}`;
}
