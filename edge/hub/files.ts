/**
 * Small secret files of the hub, written so that a power cut leaves the old file or the new one, never half of either:
 * temporary file, fsync, rename, fsync of the directory. Called by `ca.ts`; read D12 of the design first.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf } from "../errors.ts";

/** Makes the directory with its parents, readable by its owner only. One that exists keeps its mode. */
export function makePrivateDir(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
}

/** Replaces the file at `path` as a whole; for its owner alone to read. */
export function writeFileDurably(path: string, text: string): void {
  const temporary = `${path}.new`;
  const file = openSync(temporary, "w", 0o600);
  try {
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at, bytes.length - at);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(temporary, path);
  syncDir(dirname(path));
}

/** The text of a file, or `undefined` when there is none; any other failure is thrown. */
export function readFileIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function syncDir(path: string): void {
  // Some file systems cannot open or sync a directory: the rename is then as durable as they make it.
  try {
    const dir = openSync(path, "r");
    try {
      fsyncSync(dir);
    } finally {
      closeSync(dir);
    }
  } catch {
    return;
  }
}
