import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import fc from "fast-check";
import { type DurableDir, nodeDurableDir } from "../../../edge/agent/durable_dir.ts";
import { StateFile } from "../../../edge/agent/state_file.ts";

const text = (bytes: Uint8Array | undefined) => bytes && new TextDecoder().decode(bytes);
const bytes = (content: string) => new TextEncoder().encode(content);

class PowerCut extends Error {}

/**
 * A directory in memory whose power fails at a chosen step. A write that is cut leaves any part of the file; a rename is there
 * or not, and before `syncDir` it may be undone.
 */
class CutDir implements DurableDir {
  readonly path = "/fake";
  files = new Map<string, Uint8Array>();
  steps = 0;
  /** fail at this step; the part of an interrupted write that reaches the disk */
  cutAt = Infinity;
  cutPart = 0;

  prepare(): void {
    this.#step();
  }

  list(): string[] {
    return [...this.files.keys()];
  }

  read(name: string): Uint8Array {
    const found = this.files.get(name);
    if (found === undefined) throw new Error(`ENOENT ${name}`);
    return found;
  }

  writeDurably(name: string, content: Uint8Array): void {
    this.#step(() => this.files.set(name, content.slice(0, Math.floor(content.length * this.cutPart))));
    this.files.set(name, content);
  }

  rename(from: string, to: string): void {
    this.#step();
    this.files.set(to, this.read(from));
    this.files.delete(from);
  }

  remove(name: string): void {
    this.#step();
    this.files.delete(name);
  }

  syncDir(): void {
    this.#step();
  }

  #step(whenCut: () => void = () => {}): void {
    if (++this.steps < this.cutAt) return;
    whenCut();
    throw new PowerCut();
  }
}

describe("StateFile", () => {
  it("gives back what was saved last", () => {
    const dir = new CutDir();
    const file = new StateFile(dir, "identity");
    file.save(bytes("one"));
    file.save(bytes("two"));
    expect(file.writes).toBe(2);
    const { payload, notes } = new StateFile(dir, "identity").load();
    expect([text(payload), notes]).toEqual(["two", []]);
    expect([...dir.files.keys()].sort()).toEqual(["identity", "identity.prev"]);
  });

  it("finds nothing in an empty or missing directory, without a note", () => {
    expect(new StateFile(new CutDir(), "x").load()).toEqual({ payload: undefined, notes: [] });
    expect(new StateFile(nodeDurableDir("/nonexistent/edgemesh"), "x").load()).toEqual({
      payload: undefined,
      notes: [],
    });
  });

  it("has either the new payload or the one before after a power cut at any step, also twice in a row", () => {
    for (let first = 1; first <= 12; first++) {
      for (let second = 1; second <= 12; second++) {
        for (const part of [0, 0.5, 0.99]) {
          const dir = new CutDir();
          const file = new StateFile(dir, "s");
          file.save(bytes("one"));
          file.save(bytes("two"));
          let expected = cutSave(dir, "three", first, part, ["two"]);
          expected = cutSave(dir, "four", second, part, expected);
          const found = text(load(dir));
          expect(expected, `cut at ${first} and ${second}, part ${part}`).toContain(found);
        }
      }
    }
  });

  /** @returns what may be found afterwards */
  function cutSave(dir: CutDir, content: string, step: number, part: number, before: string[]): string[] {
    dir.cutAt = Infinity;
    const file = new StateFile(dir, "s");
    const found = text(file.load().payload)!;
    expect(before).toContain(found);
    dir.steps = 0;
    dir.cutAt = step;
    dir.cutPart = part;
    try {
      file.save(bytes(content));
      return [content]; // it returned: a cut cannot lose it
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error;
      return [found, content];
    } finally {
      dir.cutAt = Infinity;
    }
  }

  function load(dir: CutDir): Uint8Array | undefined {
    dir.cutAt = Infinity;
    return new StateFile(dir, "s").load().payload;
  }

  it("takes an orphaned temporary file that is newer", () => {
    const dir = new CutDir();
    new StateFile(dir, "s").save(bytes("one"));
    const newer = new CutDir();
    const file = new StateFile(newer, "s");
    file.save(bytes("one"));
    file.save(bytes("two"));
    dir.files.set("s.new", newer.files.get("s")!);
    const loaded = new StateFile(dir, "s").load();
    expect(text(loaded.payload)).toBe("two");
    expect(loaded.notes).toEqual(['"s" was recovered from "s.new"']);
    expect(text(new StateFile(dir, "s").load().payload)).toBe("two");
  });

  it("falls back to the previous generation when the newest is damaged at any octet, and sets it aside", () => {
    const dir = new CutDir();
    const file = new StateFile(dir, "s");
    file.save(bytes("one"));
    file.save(bytes("two"));
    const good = new Map(dir.files);
    const size = good.get("s")!.length;
    for (let at = 0; at < size; at++) {
      dir.files = new Map(good);
      const damaged = good.get("s")!.slice();
      damaged[at] = damaged[at]! ^ 0x10;
      dir.files.set("s", damaged);
      const loaded = new StateFile(dir, "s").load();
      // three octets of padding count too: everything is under the checksum
      expect(text(loaded.payload), `octet ${at}`).toBe("one");
      expect(dir.files.has("s.bad")).toBe(true);
    }
  });

  it("goes on counting after a recovery: what is saved next is the newest", () => {
    const dir = new CutDir();
    const file = new StateFile(dir, "s");
    file.save(bytes("one"));
    file.save(bytes("two"));
    dir.files.set("s", bytes("rubbish"));
    const again = new StateFile(dir, "s");
    expect(text(again.load().payload)).toBe("one");
    again.save(bytes("three"));
    expect(text(new StateFile(dir, "s").load().payload)).toBe("three");
  });

  it("never throws on any content", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), fc.uint8Array({ maxLength: 200 }), (a, b) => {
      const dir = new CutDir();
      dir.files.set("s", a);
      dir.files.set("s.new", b);
      expect(new StateFile(dir, "s").load().payload).toBeUndefined();
    }));
  });

  it("forgets all generations when it is erased", () => {
    const dir = new CutDir();
    const file = new StateFile(dir, "s");
    file.save(bytes("one"));
    file.save(bytes("two"));
    file.erase();
    expect(dir.files.size).toBe(0);
  });
});

describe("nodeDurableDir", () => {
  const made: string[] = [];
  afterEach(() => made.splice(0).forEach((path) => rmSync(path, { recursive: true, force: true })));

  it("keeps files to their owner, through save, load and erase", () => {
    const root = mkdtempSync(join(tmpdir(), "edgemesh-state-"));
    made.push(root);
    const path = join(root, "deep", "state");
    const file = new StateFile(nodeDurableDir(path), "identity");
    file.save(bytes("one"));
    file.save(bytes("two"));
    expect(statSync(path).mode & 0o777).toBe(0o700);
    expect(statSync(join(path, "identity")).mode & 0o777).toBe(0o600);
    expect(text(new StateFile(nodeDurableDir(path), "identity").load().payload)).toBe("two");
    writeFileSync(join(path, "identity"), "");
    expect(text(new StateFile(nodeDurableDir(path), "identity").load().payload)).toBe("one");
    file.erase();
    expect(new StateFile(nodeDurableDir(path), "identity").load().payload).toBeUndefined();
  });

  it("throws where it cannot write", () => {
    const root = mkdtempSync(join(tmpdir(), "edgemesh-state-"));
    made.push(root);
    writeFileSync(join(root, "file"), "");
    expect(() => new StateFile(nodeDurableDir(join(root, "file")), "s").save(bytes("x"))).toThrow();
  });
});
