/**
 * Reads TypeScript as text, for tests that look at the source itself: which files and packages it imports, and its code
 * without comments and strings. Not a parser: it knows just enough not to be fooled by a word in a comment.
 */

/** One import, export-from or import() of a file. */
export interface Import {
  readonly from: string;
  /** erased when it is compiled: `import type`, `export type ... from`, or only `type` names in the braces */
  readonly isType: boolean;
  /** an `import()` call: loaded when it is reached */
  readonly isDynamic: boolean;
}

/** All imports of a source text, in order. Imports that only stand in comments or strings are not among them. */
export function importsOf(source: string): Import[] {
  const code = codeOf(source);
  const found: (Import & { at: number })[] = [];
  // strings are blanked in `code`, so the shape is matched there and the name read from the source at the same place
  const shapes = /\b(import|export)\b(?!\s*\()([^;"'`()]*?)\bfrom\s*(["'])|\bimport\s*(["'])|\bimport\s*\(\s*(["'])/g;
  for (let hit = shapes.exec(code); hit; hit = shapes.exec(code)) {
    const quoteAt = hit.index + hit[0].length - 1;
    const quote = source[quoteAt]!;
    const from = source.slice(quoteAt + 1, source.indexOf(quote, quoteAt + 1));
    const clause = hit[2]?.trim() ?? "";
    found.push({
      from,
      isType: hit[1] !== undefined && isTypeClause(clause),
      isDynamic: hit[5] !== undefined,
      at: hit.index,
    });
  }
  return found.map(({ from, isType, isDynamic }) => ({ from, isType, isDynamic }));
}

function isTypeClause(clause: string): boolean {
  if (/^type\b(?!\s*,|\s*from)/.test(clause)) return true;
  const braces = /^\{([\s\S]*)\}$/.exec(clause);
  if (!braces) return false;
  const names = braces[1]!.split(",").map((name) => name.trim()).filter((name) => name !== "");
  return names.length > 0 && names.every((name) => name.startsWith("type "));
}

/**
 * The source with comments, and the insides of strings and regular expressions, replaced by spaces. Line numbers and
 * offsets stay. What stands in `${}` of a template is code and stays too.
 */
export function codeOf(source: string): string {
  const out = source.split("");
  const blank = (from: number, to: number): void => {
    for (let i = from; i < to; i++) if (out[i] !== "\n") out[i] = " ";
  };
  // depth of braces at which each open template continues
  const templates: number[] = [];
  let depth = 0;
  let last = ""; // last character of code that is no space: tells a division from a regular expression
  let i = 0;
  while (i < source.length) {
    const two = source.slice(i, i + 2);
    const one = source[i]!;
    if (two === "//" || (two === "#!" && i === 0)) {
      const end = endOf(source, i, "\n");
      blank(i, end);
      i = end;
    } else if (two === "/*") {
      const end = Math.min(
        source.length,
        source.indexOf("*/", i + 2) < 0 ? source.length : source.indexOf("*/", i + 2) + 2,
      );
      blank(i, end);
      i = end;
    } else if (one === '"' || one === "'") {
      const end = endOfQuoted(source, i + 1, one);
      blank(i + 1, end);
      i = end + 1;
      last = one;
    } else if (one === "`" || (one === "}" && templates.at(-1) === depth)) {
      if (one === "}") templates.pop();
      const end = endOfTemplate(source, i + 1);
      blank(i + 1, end);
      if (source[end] === "$") {
        templates.push(depth);
        i = end + 2;
        last = "(";
      } else {
        i = end + 1;
        last = "`";
      }
    } else if (one === "/" && startsRegExp(source, i, last)) {
      const end = endOfRegExp(source, i + 1);
      blank(i + 1, end);
      i = end + 1;
      last = "/";
    } else {
      if (one === "{") depth++;
      if (one === "}") depth--;
      if (!/\s/.test(one)) last = one;
      i++;
    }
  }
  return out.join("");
}

function endOf(source: string, from: number, mark: string): number {
  const end = source.indexOf(mark, from);
  return end < 0 ? source.length : end;
}

function endOfQuoted(source: string, from: number, quote: string): number {
  let i = from;
  while (i < source.length && source[i] !== quote && source[i] !== "\n") i += source[i] === "\\" ? 2 : 1;
  return i;
}

function endOfTemplate(source: string, from: number): number {
  let i = from;
  while (i < source.length && source[i] !== "`" && source.slice(i, i + 2) !== "${") i += source[i] === "\\" ? 2 : 1;
  return i;
}

function endOfRegExp(source: string, from: number): number {
  let inClass = false;
  let i = from;
  while (i < source.length && source[i] !== "\n" && (inClass || source[i] !== "/")) {
    if (source[i] === "[") inClass = true;
    if (source[i] === "]") inClass = false;
    i += source[i] === "\\" ? 2 : 1;
  }
  return i;
}

function startsRegExp(source: string, at: number, last: string): boolean {
  if (last === "" || "(,=:[!&|?{};+-*%<>~^".includes(last)) return true;
  return /\b(return|typeof|case|in|of)\s*$/.test(source.slice(Math.max(0, at - 12), at));
}
