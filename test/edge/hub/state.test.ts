/** `HubState` over the stores: memory everywhere, SQLite where the runtime has `node:sqlite` (Bun, Deno). */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "vitest";
import { MemoryStore } from "../../support/store_memory.ts";
import { hubStateSuite } from "../../suites/hub_state.ts";

hubStateSuite({
  name: "MemoryStore",
  open: async () => new MemoryStore({ nowMs: () => 0 }),
  reopen: async (store) => store,
});

const sqlite = await import("../../../edge/hub/store_sqlite.ts").catch(() => undefined);

if (sqlite === undefined) {
  describe("HubState over SqliteStore", () => {
    it.skip("needs node:sqlite, which this runtime has not (Bun, Deno and Node 22 have it)", () => {});
  });
} else {
  const folders: string[] = [];
  const openAt = (folder: string) =>
    sqlite.SqliteStore.open({
      path: join(folder, "state.db"),
      nowMs: () => 0,
      now: () => 0,
      makeEpoch: () => `epoch-${folder}`,
    });
  hubStateSuite({
    name: "SqliteStore",
    open: async () => {
      folders.push(mkdtempSync(join(tmpdir(), "edgemesh-hub-")));
      return openAt(folders.at(-1)!);
    },
    // the lock of the file belongs to the process, so a kill is played by closing; store_sqlite.test.ts has the real one
    reopen: async (store) => {
      await store.close();
      return openAt(folders.at(-1)!);
    },
    cleanUp: async () => {
      for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
    },
  });
}
