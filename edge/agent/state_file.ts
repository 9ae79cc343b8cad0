/**
 * One small file that survives power cuts (D12): two generations, each with sequence and checksum.
 *
 *     <name>        newest          write <name>.new, fsync, keep <name> as <name>.prev (rename), rename <name>.new to <name>,
 *     <name>.prev   the one before  fsync the directory
 *     <name>.new    being written, or orphaned by a power cut: read like the others
 *     <name>.bad    a file that did not check, set aside for a look
 *
 * File: magic "EMST", u8 version 1, 3 zero octets, u64 sequence, u32 payload length, 32 octets BLAKE2s of all before it and the
 * payload, payload. Integers in network order. Loading takes the valid file with the highest sequence, whatever its name. A
 * broken file is never a reason not to start.
 */
import { blake2s } from "../../src/bytes/blake2s.ts";
import { equalConstantTime } from "../../src/bytes/compare.ts";
import { readU32, writeU32 } from "../../src/bytes/integers.ts";
import { messageOf } from "../errors.ts";
import type { DurableDir } from "./durable_dir.ts";

const MAGIC = 0x454d5354; // "EMST"
const VERSION = 1;
const AT_VERSION = 4;
const AT_SEQUENCE = 8;
const AT_LENGTH = 16;
const AT_CHECKSUM = 20;
const CHECKSUM_BYTES = 32;
const HEADER_BYTES = AT_CHECKSUM + CHECKSUM_BYTES;

/** What a load found. */
export interface LoadedState {
  /** the newest valid payload; undefined: there is none */
  readonly payload: Uint8Array | undefined;
  /** what was repaired or set aside, for the log and the health page; empty when all was well */
  readonly notes: readonly string[];
}

interface Generation {
  readonly name: string;
  readonly sequence: number;
  readonly payload: Uint8Array;
}

/** A doubled, checked file. One owner per directory and name. */
export class StateFile {
  readonly #dir: DurableDir;
  readonly #name: string;
  #sequence = 0;
  #writes = 0;

  constructor(dir: DurableDir, name: string) {
    this.#dir = dir;
    this.#name = name;
  }

  /** Saves that reached the disk since start: `edgemesh_state_writes_total`. */
  get writes(): number {
    return this.#writes;
  }

  /** Reads the newest valid generation. Never throws: a directory that cannot be read is a note. */
  load(): LoadedState {
    const notes: string[] = [];
    let present: string[];
    try {
      present = this.#dir.list();
    } catch (error) {
      if ((error as { code?: string }).code === "ENOENT") return { payload: undefined, notes };
      return { payload: undefined, notes: [`cannot list "${this.#dir.path}": ${messageOf(error)}`] };
    }
    let newest: Generation | undefined;
    for (const name of [this.#name, `${this.#name}.prev`, `${this.#name}.new`]) {
      if (!present.includes(name)) continue;
      const found = this.#readGeneration(name, notes);
      if (found !== undefined && (newest === undefined || found.sequence > newest.sequence)) newest = found;
    }
    if (newest === undefined) return { payload: undefined, notes };
    this.#sequence = newest.sequence;
    if (newest.name !== this.#name) {
      notes.push(`"${this.#name}" was recovered from "${newest.name}"`);
      if (newest.name.endsWith(".new")) this.#finishSave();
    }
    return { payload: newest.payload, notes };
  }

  /**
   * Makes `payload` the newest generation. When it returns, a power cut cannot lose it; when it throws, or the power fails
   * inside, `load` finds either this payload or the one before, whole.
   */
  save(payload: Uint8Array): void {
    this.#dir.prepare();
    const sequence = this.#sequence + 1;
    this.#dir.writeDurably(`${this.#name}.new`, encode(sequence, payload));
    this.#promote();
    this.#sequence = sequence;
    this.#writes++;
  }

  /** Removes every generation. */
  erase(): void {
    for (const suffix of ["", ".prev", ".new"]) this.#dir.remove(`${this.#name}${suffix}`);
    this.#dir.syncDir();
    this.#sequence = 0;
  }

  /** Does what is left of a save that a power cut stopped: the next save must not overwrite the newest generation. */
  #finishSave(): void {
    try {
      this.#promote();
    } catch {
      // a read-only directory: a save will fail there too
    }
  }

  /** Invariant: at each step one of the three names holds the newest durable payload. */
  #promote(): void {
    if (this.#dir.list().includes(this.#name)) this.#dir.rename(this.#name, `${this.#name}.prev`);
    this.#dir.rename(`${this.#name}.new`, this.#name);
    this.#dir.syncDir();
  }

  #readGeneration(name: string, notes: string[]): Generation | undefined {
    let bytes: Uint8Array;
    try {
      bytes = this.#dir.read(name);
    } catch (error) {
      notes.push(`cannot read "${name}": ${messageOf(error)}`);
      return undefined;
    }
    const decoded = decode(bytes);
    if (decoded !== undefined) return { name, ...decoded };
    // a file cut short while it was written is expected after a power cut: no note for a ".new"
    if (!name.endsWith(".new")) notes.push(`"${name}" was damaged and set aside`);
    this.#setAside(name);
    return undefined;
  }

  #setAside(name: string): void {
    try {
      if (name.endsWith(".new")) this.#dir.remove(name);
      else this.#dir.rename(name, `${name}.bad`);
    } catch {
      // a read-only directory: it stays where it is, and is skipped again next time
    }
  }
}

function encode(sequence: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  writeU32(bytes, 0, MAGIC);
  bytes[AT_VERSION] = VERSION;
  writeU32(bytes, AT_SEQUENCE, Math.floor(sequence / 2 ** 32));
  writeU32(bytes, AT_SEQUENCE + 4, sequence >>> 0);
  writeU32(bytes, AT_LENGTH, payload.length);
  bytes.set(payload, HEADER_BYTES);
  bytes.set(checksumOf(bytes), AT_CHECKSUM);
  return bytes;
}

function decode(bytes: Uint8Array): { sequence: number; payload: Uint8Array } | undefined {
  if (bytes.length < HEADER_BYTES || readU32(bytes, 0) !== MAGIC || bytes[AT_VERSION] !== VERSION) return undefined;
  if (readU32(bytes, AT_LENGTH) !== bytes.length - HEADER_BYTES) return undefined;
  const stored = bytes.slice(AT_CHECKSUM, HEADER_BYTES);
  if (!equalConstantTime(stored, checksumOf(bytes))) return undefined;
  const sequence = readU32(bytes, AT_SEQUENCE) * 2 ** 32 + readU32(bytes, AT_SEQUENCE + 4);
  return { sequence, payload: bytes.slice(HEADER_BYTES) };
}

/** Over everything but the checksum's own place. */
function checksumOf(bytes: Uint8Array): Uint8Array {
  return blake2s(CHECKSUM_BYTES, undefined, bytes.subarray(0, AT_CHECKSUM), bytes.subarray(HEADER_BYTES));
}
