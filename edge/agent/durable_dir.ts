/**
 * The few file operations that durable state needs, as an interface, so that a test can stop the world at any of them.
 * `nodeDurableDir` is the real one. All calls are synchronous: a save is a handful of system calls every few minutes.
 */
import * as fs from "node:fs";
import { join } from "node:path";

/** One directory. Names are plain file names in it. Every call throws as node:fs does. */
export interface DurableDir {
  readonly path: string;
  /** makes the directory (0700) where it is missing */
  prepare(): void;
  /** names in the directory */
  list(): string[];
  read(name: string): Uint8Array;
  /** creates or replaces a file (0600) and flushes it to the disk */
  writeDurably(name: string, bytes: Uint8Array): void;
  rename(from: string, to: string): void;
  remove(name: string): void;
  /** flushes the directory itself, so that a rename survives a power cut */
  syncDir(): void;
}

/** The real directory. */
export function nodeDurableDir(path: string): DurableDir {
  const at = (name: string) => join(path, name);
  return {
    path,
    prepare: () => void fs.mkdirSync(path, { recursive: true, mode: 0o700 }),
    list: () => fs.readdirSync(path),
    read: (name) => fs.readFileSync(at(name)),
    writeDurably: (name, bytes) => {
      const fd = fs.openSync(at(name), "w", 0o600);
      try {
        for (let done = 0; done < bytes.length;) done += fs.writeSync(fd, bytes, done);
        fs.fsyncSync(fd);
      } finally {
        fs.closeSync(fd);
      }
    },
    rename: (from, to) => fs.renameSync(at(from), at(to)),
    remove: (name) => fs.rmSync(at(name), { force: true }),
    syncDir: () => {
      const fd = fs.openSync(path, "r");
      try {
        fs.fsyncSync(fd);
      } finally {
        fs.closeSync(fd);
      }
    },
  };
}
