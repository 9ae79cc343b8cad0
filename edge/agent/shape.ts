/**
 * Reads data of a file that people write (a mesh file): every field checked, every fault collected with the path to it, nothing
 * unknown let through. A reader asks for the fields it knows and calls `done`, which reports the rest.
 */
import { nearest } from "../config.ts";

/** Where in the document: names and list positions. */
export type DataPath = readonly (string | number)[];

/** One thing wrong in a document. */
export interface Fault {
  readonly path: DataPath;
  /** starts with "must", "is" or "needs" */
  readonly message: string;
}

/** `peers[0].publicKey` */
export function pathText(path: DataPath): string {
  let text = "";
  for (const part of path) text += typeof part === "number" ? `[${part}]` : text === "" ? part : `.${part}`;
  return text === "" ? "the document" : text;
}

/** One mapping of the document. What is missing or wrong reads as `undefined`, and stands in `faults`. */
export class Shape {
  readonly path: DataPath;
  readonly #fields: ReadonlyMap<string, unknown>;
  readonly #asked = new Set<string>();
  readonly #faults: Fault[];

  constructor(value: unknown, path: DataPath, faults: Fault[]) {
    this.path = path;
    this.#faults = faults;
    const isMap = typeof value === "object" && value !== null && !Array.isArray(value);
    this.#fields = new Map(isMap ? Object.entries(value) : []);
    if (!isMap) faults.push({ path, message: "must be a mapping" });
  }

  has(name: string): boolean {
    return this.#fields.has(name);
  }

  fault(name: string, message: string): undefined {
    this.#faults.push({ path: [...this.path, name], message });
    return undefined;
  }

  /** The raw value; marks the field as known. */
  take(name: string): unknown {
    this.#asked.add(name);
    return this.#fields.get(name) ?? undefined;
  }

  /**
   * A field read by a parser that throws a `RangeError` "must ..." on bad input.
   * @returns undefined where it is missing or wrong
   */
  optional<T>(name: string, parse: (text: string) => T): T | undefined {
    const value = this.take(name);
    if (value === undefined) return undefined;
    if (typeof value !== "string" && typeof value !== "number" && typeof value !== "boolean") {
      return this.fault(name, "must be one value");
    }
    try {
      return parse(String(value));
    } catch (error) {
      return this.fault(name, error instanceof Error ? error.message : String(error));
    }
  }

  required<T>(name: string, parse: (text: string) => T): T | undefined {
    const isThere = this.take(name) !== undefined;
    return isThere ? this.optional(name, parse) : this.fault(name, "is missing");
  }

  /** A mapping inside; undefined where it is missing. */
  shape(name: string): Shape | undefined {
    const value = this.take(name);
    return value === undefined ? undefined : new Shape(value, [...this.path, name], this.#faults);
  }

  /** A list; empty where it is missing. */
  list(name: string): readonly unknown[] {
    const value = this.take(name);
    if (value === undefined) return [];
    if (Array.isArray(value)) return value;
    this.fault(name, "must be a list");
    return [];
  }

  /** A list whose elements are read by a parser. */
  texts<T>(name: string, parse: (text: string) => T): readonly T[] {
    return this.list(name).flatMap((item, i) => {
      try {
        if (typeof item !== "string" && typeof item !== "number") throw new RangeError("must be a text");
        return [parse(String(item))];
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        this.#faults.push({ path: [...this.path, name, i], message });
        return [];
      }
    });
  }

  /** A list of mappings. */
  shapes(name: string): readonly Shape[] {
    return this.list(name).map((item, i) => new Shape(item, [...this.path, name, i], this.#faults));
  }

  /** A mapping from text to text; numbers and booleans are taken as they are written. */
  map<T>(name: string, parse: (text: string, key: string) => T): Readonly<Record<string, T>> {
    const value = this.take(name);
    if (value === undefined) return {};
    if (typeof value !== "object" || Array.isArray(value)) {
      this.fault(name, "must be a mapping");
      return {};
    }
    const entries: [string, T][] = [];
    for (const [key, item] of Object.entries(value as object)) {
      try {
        if (typeof item === "object") throw new RangeError("must be a text");
        entries.push([key, parse(String(item), key)]);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        this.#faults.push({ path: [...this.path, name, key], message });
      }
    }
    return Object.fromEntries(entries);
  }

  /** Names of all fields: for a mapping whose keys are data. */
  names(): readonly string[] {
    return [...this.#fields.keys()];
  }

  /** Reports every field that nobody asked for. */
  done(): void {
    for (const name of this.#fields.keys()) {
      if (this.#asked.has(name)) continue;
      const near = nearest(name, [...this.#asked]);
      this.fault(name, `is no field here${near === undefined ? "" : `; did you mean "${near}"?`}`);
    }
  }
}
