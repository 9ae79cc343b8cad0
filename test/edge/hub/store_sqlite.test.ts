/**
 * The SQLite store: the suite of all stores, and what only a file can get wrong: kill -9, two owners, damage.
 * Node 20 has no `node:sqlite`: run on Bun, Deno or a newer Node.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { SqliteStore } from "../../../edge/hub/store_sqlite.ts";
import { storeSuite } from "../../suites/store.ts";

const module = await import("../../../edge/hub/store_sqlite.ts").catch(() => undefined);

if (module === undefined) {
  describe("the SQLite store", () => {
    it.skip("needs node:sqlite, which this runtime has not (Bun, Deno and Node 22 have it)", () => {});
  });
} else {
  const { SqliteStore } = module;
  let folder = "";
  let epochs = 0;
  const open = (nowMs: () => number, historyRevisions = 10_000) =>
    SqliteStore.open({
      path: join(folder, "hub", "state.db"),
      nowMs,
      now: () => 1_700_000_000_000,
      makeEpoch: () => `epoch-${++epochs}`,
      historyRevisions,
    });

  storeSuite({
    name: "SqliteStore",
    open: async (clock, historyRevisions) => {
      folder = mkdtempSync(join(tmpdir(), "edgemesh-store-"));
      return open(() => clock.nowMs, historyRevisions);
    },
    reopen: async (store, clock, historyRevisions) => {
      await store.close();
      return open(() => clock.nowMs, historyRevisions);
    },
    cleanUp: async () => rmSync(folder, { recursive: true, force: true }),
  });

  describe("SqliteStore and its file", () => {
    const bytes = (text: string) => new TextEncoder().encode(text);
    const file = () => join(folder, "hub", "state.db");
    let store: SqliteStore | undefined;

    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), "edgemesh-store-"));
    });
    afterEach(async () => {
      await store?.close();
      store = undefined;
      rmSync(folder, { recursive: true, force: true });
    });

    it("writes through to the disk with every transaction, behind a write-ahead log", async () => {
      store = open(() => 0);
      await store.put("k", bytes("v"));
      expect(readdirSync(join(folder, "hub")).sort()).toEqual(["state.db", "state.db-wal"]);
      expect(readFileSync(file() + "-wal").includes("k")).toBe(true);
    });

    it("lets no second hub at the same file", async () => {
      store = open(() => 0);
      await store.put("k", bytes("v"));
      expect(() => open(() => 0)).toThrow(`Cannot open store "${file()}": another hub is using it`);
    });

    it("sets a file aside that is no database, says why, and starts a new history", async () => {
      store = open(() => 0);
      await store.put("k", bytes("v"));
      const { epoch } = store;
      await store.close();
      writeFileSync(file(), "this was a database before the power went".repeat(200));
      store = open(() => 0);
      expect(store.setAside).toMatchObject({ path: `${file()}.broken-1700000000000` });
      expect(store.setAside?.reason).toMatch(/not a database/);
      expect(store.epoch).not.toBe(epoch);
      expect(store.revision).toBe(0);
      expect(readFileSync(store.setAside!.path, "utf8")).toContain("this was a database");
      await store.put("k", bytes("new"));
    });

    it("sets a file aside whose pages are overwritten", async () => {
      store = open(() => 0);
      for (let i = 0; i < 400; i++) await store.put(`key/${i}`, new Uint8Array(200).fill(i));
      await store.close();
      const content = readFileSync(file());
      content.fill(0xa5, 4096, content.length - 4096);
      writeFileSync(file(), content);
      store = open(() => 0);
      expect(store.setAside?.reason).toMatch(/malformed/);
      expect(await store.get("key/1")).toBeUndefined();
    });

    it("refuses a file of another format and leaves it alone", async () => {
      const { DatabaseSync } = await import("node:sqlite");
      store = open(() => 0);
      await store.close();
      const db = new DatabaseSync(file());
      db.exec("UPDATE meta SET value = 2 WHERE name = 'format'");
      db.close();
      expect(() => open(() => 0)).toThrow("its format is 2, this edgemesh reads 1");
      expect(readdirSync(join(folder, "hub")).some((name) => name.includes("broken"))).toBe(false);
      store = undefined;
    });

    it("loses nothing that it acknowledged when it is killed at any moment", async () => {
      const writer = fileURLToPath(new URL("store_writer.ts", import.meta.url));
      for (let round = 0; round < 4; round++) {
        const acknowledged = await writeUntilKilled(writer, file(), 20 + round * 37);
        store = open(() => 0);
        expect(store.setAside).toBeUndefined();
        // the writer puts w/<n> and count=<n> in one transaction, n = revision, and prints n once it is acknowledged
        expect(store.revision).toBeGreaterThanOrEqual(acknowledged);
        expect((await store.list("w/")).entries).toHaveLength(store.revision);
        expect(new TextDecoder().decode((await store.get("count"))!.value)).toBe(String(store.revision));
        await store.close();
        store = undefined;
      }
    }, 60_000);
  });
}

/** Runs the writer, kills it after it has acknowledged `count` more revisions. @returns the last one acknowledged */
function writeUntilKilled(writer: string, path: string, count: number): Promise<number> {
  const isDeno = "Deno" in globalThis;
  const args = isDeno ? ["run", "-A", writer, path] : [writer, path];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    let seen = "";
    child.stdout.on("data", (chunk: Uint8Array) => {
      seen += new TextDecoder().decode(chunk);
      if (seen.split("\n").length > count) child.kill("SIGKILL");
    });
    child.on("error", reject);
    child.on("close", () => resolve(Number(seen.trimEnd().split("\n").at(-1))));
  });
}
