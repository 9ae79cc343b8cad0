/**
 * The regular expressions of HTTP rules: RE2's syntax, the whole value has to match, in time linear in its length. What comes from
 * the network is matched against what a policy author wrote, so neither may make the other expensive.
 */
import { RE2JS } from "re2js";

/** Longest expression, characters. */
const MAX_SOURCE = 4096;
/** Most instructions that an expression may compile to: 0.1 s for the worst value of 16 KiB, measured. */
const MAX_PROGRAM = 2500;
/** Compiled expressions that are kept; policies of a mesh rarely have more than some dozens. */
const MAX_CACHED = 512;

/** An expression that was compiled. */
export interface Regex {
  /** The whole of `text` matches. */
  matches(text: string): boolean;
}

/** By source, oldest use first; a source that cannot be compiled has its reason. */
const cache = new Map<string, Regex | string>();

/** What is wrong with an expression; undefined: nothing. For the reader of policies. */
export function checkRegex(source: string): string | undefined {
  const known = compile(source);
  return typeof known === "string" ? known : undefined;
}

/** Compiles an expression, or takes it from the last 512. @returns undefined for one that `checkRegex` has something against */
export function compileRegex(source: string): Regex | undefined {
  const known = compile(source);
  return typeof known === "string" ? undefined : known;
}

function compile(source: string): Regex | string {
  let known = cache.get(source);
  if (known === undefined) known = compileNew(source);
  else cache.delete(source);
  if (cache.size >= MAX_CACHED) cache.delete(cache.keys().next().value!);
  cache.set(source, known);
  return known;
}

function compileNew(source: string): Regex | string {
  if (source.length > MAX_SOURCE) return `it is longer than ${MAX_SOURCE} characters`;
  try {
    const compiled = RE2JS.compile(source);
    if (compiled.programSize() > MAX_PROGRAM) {
      return `it is too large: it takes ${compiled.programSize()} steps, ${MAX_PROGRAM} are allowed`;
    }
    return compiled;
  } catch (error) {
    return error instanceof Error ? error.message.replace(/^error parsing regexp: /, "") : "it cannot be read";
  }
}
