/**
 * Names and name patterns of `toFQDNs` and `rules.dns`, with Cilium's meaning. Used by whoever reads policies, by the engine that
 * maps learned names to peers, and by the DNS proxy that judges questions.
 *
 * A star never matches a dot, so a pattern is judged label by label: no regular expression, and no more steps than the product
 * of the two lengths (at most 255 each) on any input.
 *
 *     *.cilium.io      www.cilium.io                 not cilium.io, a.b.cilium.io
 *     *cilium.io       cilium.io, subcilium.io       not www.cilium.io
 *     **.cilium.io     app., test.app.cilium.io      not cilium.io
 *     *                any name
 *
 * @see Cilium, pkg/fqdn/matchpattern; CRD patterns of FQDNSelector
 */

/** Characters of a name or a pattern that Cilium's CRD takes. */
const MAX_NAME_CHARACTERS = 255;

/** The pattern that any name matches; all of `*`, `**`, `*.` and so on are read into it. */
export const ANY_NAME = "*";

// Upper case is matched as such: lower-casing first would turn letters beyond ASCII into ASCII ones.
const NAME = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?$/;
const PATTERN = /^[A-Za-z0-9_*-]+(\.[A-Za-z0-9_*-]+)*\.?$/;

/** One label of a pattern: the pieces between its stars; one piece is a label without a star. */
type Label = readonly string[];

/** A pattern made ready to be compared. */
interface Compiled {
  /** the first labels are "one or more whole labels" */
  readonly hasLeadingLabels: boolean;
  readonly labels: readonly Label[];
}

/** Patterns kept compiled. All of them are forgotten at once beyond that: policies name far fewer. */
const MAX_COMPILED = 4096;
const compiledPatterns = new Map<string, Compiled>();

/**
 * A name in the form that everything here compares: lower case with the root's dot at its end. `.` is the root itself.
 *
 * @param text with or without the dot at its end
 * @returns undefined when it is no name: empty, longer than 255 characters, an empty label, or a character other than letters,
 *          digits, `-`, `_` and `.`
 */
export function canonicalName(text: string): string | undefined {
  if (text === ".") return text;
  if (text.length > MAX_NAME_CHARACTERS || !NAME.test(text)) return undefined;
  const lower = text.toLowerCase();
  return lower.endsWith(".") ? lower : `${lower}.`;
}

/**
 * Reads a matchPattern, or a matchName, which is a pattern without stars.
 *
 * @returns the pattern in its one spelling: lower case, dot at the end, no two stars beside each other except in a leading `**.`;
 *          or what is wrong, as the end of a sentence that starts with the quoted text
 */
export function readPattern(text: string): { readonly pattern: string } | { readonly error: string } {
  if (text === "") return { error: "is empty" };
  if (text.length > MAX_NAME_CHARACTERS) return { error: `is longer than ${MAX_NAME_CHARACTERS} characters` };
  if (/[^A-Za-z0-9_.*-]/.test(text)) {
    return { error: 'has a character other than letters, digits, "-", "_", "." and "*"' };
  }
  if (!PATTERN.test(text)) return { error: "has an empty label: two dots beside each other, or a dot at its start" };
  const lower = text.toLowerCase();
  const rooted = lower.endsWith(".") ? lower : `${lower}.`;
  if (/^\*+\.$/.test(rooted)) return { pattern: ANY_NAME };
  const leading = /^\*{2,}\./.exec(rooted)?.[0] ?? "";
  const rest = rooted.slice(leading.length).replace(/\*+/g, "*");
  return { pattern: leading === "" ? rest : `**.${rest}` };
}

/** Whether a pattern is a plain name. */
function isPlainName(pattern: string): boolean {
  return !pattern.includes("*");
}

/**
 * Whether a pattern matches a name.
 *
 * @param pattern as `readPattern` gives it
 * @param name    as `canonicalName` gives it
 */
export function matchesPattern(pattern: string, name: string): boolean {
  if (pattern === ANY_NAME) return true;
  if (isPlainName(pattern)) return pattern === name;
  const { hasLeadingLabels, labels } = compile(pattern);
  const found = name.slice(0, -1).split(".");
  const extra = found.length - labels.length;
  if (name === "." || (hasLeadingLabels ? extra < 1 : extra !== 0)) return false;
  return labels.every((label, index) => matchesLabel(label, found[index + extra]!));
}

function compile(pattern: string): Compiled {
  const known = compiledPatterns.get(pattern);
  if (known !== undefined) return known;
  const hasLeadingLabels = pattern.startsWith("**.");
  const labels = pattern.slice(hasLeadingLabels ? 3 : 0, -1).split(".").map((label) => label.split("*"));
  const compiled = { hasLeadingLabels, labels };
  if (compiledPatterns.size >= MAX_COMPILED) compiledPatterns.clear();
  compiledPatterns.set(pattern, compiled);
  return compiled;
}

/** First and last piece are anchored; each one between is taken where it comes first, which never loses a match. */
function matchesLabel(pieces: Label, text: string): boolean {
  const first = pieces[0]!;
  if (pieces.length === 1) return text === first;
  const last = pieces[pieces.length - 1]!;
  const end = text.length - last.length;
  let at = first.length;
  if (at > end || !text.startsWith(first) || !text.endsWith(last)) return false;
  for (let index = 1; index < pieces.length - 1; index++) {
    const piece = pieces[index]!;
    const found = text.indexOf(piece, at);
    if (found < 0 || found + piece.length > end) return false;
    at = found + piece.length;
  }
  return true;
}
