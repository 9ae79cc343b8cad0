/**
 * Reads plain data field by field and collects what is wrong. Every reader returns `undefined` on bad input, after noting an error;
 * none throws. A `null` counts as absent, as in Kubernetes; an empty list does not.
 */
import { MAX_ERRORS, type PolicyError, type PolicyErrorCode } from "./errors.ts";

/** An object from JSON or YAML. */
export type Fields = Readonly<Record<string, unknown>>;

export class Problems {
  readonly errors: PolicyError[] = [];
  /** paths of fields that a misspelt one was meant to be, and of the objects that they are in */
  readonly #meant = new Set<string>();

  /** What is missing only because its name was misspelt is not said again. */
  add(path: string, code: PolicyErrorCode, message: string): undefined {
    if (!this.isFull && !(code === "MISSING" && this.#meant.has(path))) this.errors.push({ path, message, code });
    return undefined;
  }

  get any(): boolean {
    return this.errors.length > 0;
  }

  /** No more errors are kept. */
  get isFull(): boolean {
    return this.errors.length >= MAX_ERRORS;
  }

  /** As `didYouMean`, and nothing when full: the comparison is what a hostile document would make us pay for. */
  hint(text: string, words: readonly string[]): string {
    return this.isFull ? "" : didYouMean(text, words);
  }

  /** An object whose fields are all in `known`. Unknown ones are noted; the object is returned all the same. */
  object(value: unknown, path: string, known: readonly string[]): Fields | undefined {
    const fields = this.anyObject(value, path);
    if (fields === undefined) return undefined;
    for (const name of Object.keys(fields)) {
      if (!known.includes(name)) this.#unknownField(name, path, known);
    }
    return fields;
  }

  /** An object with any fields. */
  anyObject(value: unknown, path: string): Fields | undefined {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields;
    return this.add(path, "WRONG_TYPE", `Expected an object, got ${nameOfType(value)}`);
  }

  items(value: unknown, path: string): readonly unknown[] | undefined {
    if (Array.isArray(value)) return value;
    return this.add(path, "WRONG_TYPE", `Expected a list, got ${nameOfType(value)}`);
  }

  text(value: unknown, path: string): string | undefined {
    if (typeof value === "string") return value;
    const hint = typeof value === "number" || typeof value === "boolean" ? `: write "${value}"` : "";
    return this.add(path, "WRONG_TYPE", `Expected text, got ${nameOfType(value)}${hint}`);
  }

  boolean(value: unknown, path: string): boolean | undefined {
    if (typeof value === "boolean") return value;
    return this.add(path, "WRONG_TYPE", `Expected true or false, got ${nameOfType(value)}`);
  }

  /** An integer within the two, both inclusive. */
  integer(value: unknown, path: string, least: number, most: number): number | undefined {
    if (typeof value !== "number" || !Number.isInteger(value)) {
      const hint = typeof value === "string" && /^[0-9]{1,9}$/.test(value) ? `: write ${value} without quotes` : "";
      return this.add(path, "WRONG_TYPE", `Expected a whole number, got ${nameOfType(value)}${hint}`);
    }
    if (value >= least && value <= most) return value;
    return this.add(path, "BAD_VALUE", `${value} is not within ${least} to ${most}`);
  }

  /** One of some words, case-sensitive. */
  word<T extends string>(value: unknown, path: string, words: readonly T[]): T | undefined {
    const text = this.text(value, path);
    if (text === undefined) return undefined;
    if ((words as readonly string[]).includes(text)) return text as T;
    return this.add(path, "BAD_VALUE", `${quote(text)} is not one of ${words.join(", ")}${this.hint(text, words)}`);
  }

  #unknownField(name: string, path: string, known: readonly string[]): void {
    if (this.isFull) return;
    const meant = nearest(name, known);
    if (meant !== undefined) this.#meant.add(path).add(joinPath(path, meant));
    const hint = meant === undefined ? `known: ${known.join(", ")}` : `did you mean ${quote(meant)}?`;
    this.add(joinPath(path, name), "UNKNOWN_FIELD", `Unknown field ${quote(name)}; ${hint}`);
  }
}

/** The field's value; `undefined` for absent and for null. Inherited properties are not fields. */
export function field(fields: Fields, name: string): unknown {
  return Object.hasOwn(fields, name) ? (fields[name] ?? undefined) : undefined;
}

export function joinPath(path: string, name: string): string {
  const shown = /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : `[${quote(name)}]`;
  if (path === "") return shown;
  return shown.startsWith("[") ? path + shown : `${path}.${shown}`;
}

/** Text in quotes, cut to a length that fits a line. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? text.slice(0, 77) + "..." : text);
}

function nameOfType(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  if (typeof value === "string") return `text ${quote(value)}`;
  if (typeof value === "number") return `the number ${value}`;
  if (typeof value === "boolean") return String(value);
  return `a ${typeof value}`;
}

/** `; did you mean "x"?` for the nearest word, or nothing when none is near. */
export function didYouMean(text: string, words: readonly string[]): string {
  const word = nearest(text, words);
  return word === undefined ? "" : `; did you mean ${quote(word)}?`;
}

function nearest(text: string, words: readonly string[]): string | undefined {
  if (text.length > 40) return undefined;
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(text.length / 3)) + 1;
  for (const word of words) {
    const distance = editDistance(text.toLowerCase(), word.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [word, distance];
  }
  return best;
}

/** Levenshtein: fewest insertions, deletions and replacements. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
