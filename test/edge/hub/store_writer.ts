/** Writes to a store as fast as it can and prints each acknowledged revision, until it is killed: see store_sqlite.test.ts. */
import { writeSync } from "node:fs";
import { SqliteStore } from "../../../edge/hub/store_sqlite.ts";

const store = SqliteStore.open({ path: process.argv[2]!, nowMs: () => 0, now: () => 0, makeEpoch: () => "e" });
const bytes = (text: string) => new TextEncoder().encode(text);
while (store.revision < 1_000_000) {
  const next = String(store.revision + 1);
  await store.txn([], [
    { op: "put", key: `w/${next}`, value: bytes(next) },
    { op: "put", key: "count", value: bytes(next) },
  ]);
  writeSync(1, `${next}\n`);
}
