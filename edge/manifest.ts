/**
 * Manifests: YAML or JSON text -> documents, each with where it stands in the text, so that an error about `spec.ingress[0].from` can
 * name a line. Many documents in one text (`---`), and `kind: List`, come apart. Hostile text ends in an error, in bounded time and
 * memory: size, depth, document count and alias expansion are limited.
 *
 * Loaded only by commands that take manifests: the `yaml` package is heavy (design D13).
 */
import {
  type Document,
  isAlias,
  isCollection,
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseAllDocuments,
  visit,
} from "yaml";

/** Octets of one text. A CiliumNetworkPolicy is a few KiB; an API server takes 1.5 MiB. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
/** Documents in one text, lists taken apart. */
export const MAX_DOCUMENTS = 10_000;
/** Nesting of one document. */
export const MAX_DEPTH = 64;
/** Values of one document after every alias is written out. */
export const MAX_VALUES = 1_000_000;
/** How often the aliases of one document may be used in all. */
const MAX_ALIASES = 1000;
/** Errors that one text can have; more are not reported. */
const MAX_ERRORS = 50;

/** Where something stands: both count from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

export interface ManifestDocument {
  /** plain JSON data */
  readonly value: unknown;
  /** where it begins */
  readonly position: Position;
  /**
   * Where a field stands, by the path that errors carry (`spec.ingress[0].ports`); of the nearest field above, when it is not
   * there; of the document for an empty path.
   */
  positionOf(path: string): Position;
}

export interface ManifestError {
  readonly message: string;
  readonly position: Position;
}

/** Either documents or errors: a text with one error gives no document. */
export type ManifestResult = { readonly documents: readonly ManifestDocument[] } | {
  readonly errors: readonly ManifestError[];
};

const [OPEN_BRACKET, CLOSE_BRACKET, OPEN_BRACE, CLOSE_BRACE] = [0x5b, 0x5d, 0x7b, 0x7d];
const [DASH, QUESTION, COLON, SPACE, TAB] = [0x2d, 0x3f, 0x3a, 0x20, 0x09];

const TOO_DEEP = `Manifest nests deeper than ${MAX_DEPTH}`;
const START: Position = { line: 1, column: 1 };

/** Reads a text. Empty documents are left out. Never throws. */
export function readManifest(text: string): ManifestResult {
  // A character is at least one octet in UTF-8: the cheap test first.
  if (text.length > MAX_MANIFEST_BYTES || new TextEncoder().encode(text).length > MAX_MANIFEST_BYTES) {
    return failed(`Manifest is larger than ${MAX_MANIFEST_BYTES} octets`);
  }
  if (isFarTooDeep(text)) return failed(TOO_DEEP);
  try {
    return readDocuments(text);
  } catch (error) {
    // The parser recurses: deep block nesting can exhaust the stack before our own limit is looked at.
    if (error instanceof RangeError) return failed(TOO_DEEP);
    return failed(`Manifest cannot be read: ${error instanceof Error ? firstLine(error.message) : String(error)}`);
  }
}

function failed(message: string, position: Position = START): { readonly errors: readonly ManifestError[] } {
  return { errors: [{ message, position }] };
}

/**
 * Collections can nest with one character a level (`[[[`), or two (`- - - x`), and the parser takes time with the square of that
 * (Bun: 18 s for 10,000 characters). Quotes and comments may hide such characters, so this only refuses far too many.
 */
function isFarTooDeep(text: string): boolean {
  let flow = 0;
  let block = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === OPEN_BRACKET || c === OPEN_BRACE) {
      if (++flow > 16 * MAX_DEPTH) return true;
    } else if (c === CLOSE_BRACKET || c === CLOSE_BRACE) flow = Math.max(0, flow - 1);
    if (isBlank(c)) continue;
    const isIndicator = (c === DASH || c === QUESTION || c === COLON) && isBlank(text.charCodeAt(i + 1));
    block = isIndicator ? block + 1 : 0;
    if (block > 4 * MAX_DEPTH) return true;
  }
  return false;
}

function isBlank(c: number): boolean {
  return c === SPACE || c === TAB;
}

function readDocuments(text: string): ManifestResult {
  const lines = new LineCounter();
  const parsed = parseAllDocuments(text, {
    lineCounter: lines,
    merge: true,
    prettyErrors: false,
    uniqueKeys: false, // the package compares every key with every other; `Excess` does it with a set
    version: "1.2",
    logLevel: "silent",
  });
  const documents: ManifestDocument[] = [];
  const errors: ManifestError[] = [];
  // An empty text is no list of documents but an object that says so.
  for (const document of Array.isArray(parsed) ? parsed as Document.Parsed[] : []) {
    if (documents.length > MAX_DOCUMENTS) return failed(`Manifest has more than ${MAX_DOCUMENTS} documents`);
    const found = faultsOf(document, lines);
    if (found.length > 0) errors.push(...found.slice(0, MAX_ERRORS - errors.length));
    else if (errors.length === 0 && document.contents !== null) documents.push(...takeApart(document, lines));
  }
  return errors.length > 0 ? { errors } : { documents };
}

/** What the parser said, warnings too (an unknown tag is not what its author meant), and what goes beyond our limits. */
function faultsOf(document: Document.Parsed, lines: LineCounter): ManifestError[] {
  const faults = [...document.errors, ...document.warnings].map((error) => ({
    // The parser reports its own exhausted stack as an error of the document.
    message: /call stack/i.test(error.message) ? TOO_DEEP : firstLine(error.message),
    position: positionAt(lines, error.pos[0]),
  }));
  if (faults.length > 0) return faults;
  const excess = new Excess(document, lines);
  excess.visit(document.contents, 0);
  return excess.faults;
}

/** What each alias of a document stands for: the last node before it with its anchor. */
function anchorsOf(document: Document.Parsed): Map<unknown, Node> {
  const anchors = new Map<string, Node>();
  const targets = new Map<unknown, Node>();
  visit(document, {
    Node: (_, node) => {
      if (isAlias(node)) {
        const target = anchors.get(node.source);
        if (target !== undefined) targets.set(node, target);
      } else if (node.anchor !== undefined) anchors.set(node.anchor, node);
    },
  });
  return targets;
}

/** Walks a document with its aliases written out, and stops at the first excess. */
class Excess {
  readonly faults: ManifestError[] = [];
  readonly #targets: ReadonlyMap<unknown, Node>;
  readonly #lines: LineCounter;
  #values = 0;
  #aliases = 0;

  constructor(document: Document.Parsed, lines: LineCounter) {
    this.#targets = anchorsOf(document);
    this.#lines = lines;
  }

  visit(node: unknown, depth: number): void {
    if (this.faults.length > 0) return;
    if (depth > MAX_DEPTH) return this.#fault(`Document nests deeper than ${MAX_DEPTH}`, node);
    if (++this.#values > MAX_VALUES) return this.#fault(`Document has more than ${MAX_VALUES} values`, node);
    if (isAlias(node)) {
      if (++this.#aliases > MAX_ALIASES) {
        return this.#fault(`Document uses aliases more than ${MAX_ALIASES} times`, node);
      }
      const target = this.#targets.get(node);
      if (target === undefined) this.#fault(`Alias to nothing: no anchor "${node.source}" stands before it`, node);
      else this.visit(target, depth + 1);
    } else if (isPair(node)) {
      if (!isScalar(node.key) || !isPlainKey(node.key.value)) return this.#fault("Field name is not text", node.key);
      this.visit(node.value, depth);
    } else if (isMap(node)) {
      this.#checkNames(node.items);
      for (const item of node.items) this.visit(item, depth + 1);
    } else if (isCollection(node)) { for (const item of node.items) this.visit(item, depth + 1); }
    else if (isScalar(node) && !isPlainValue(node.value)) {
      this.#fault("Value is no text, number, true, false or null", node);
    }
  }

  #checkNames(pairs: readonly { readonly key: unknown }[]): void {
    const names = new Set<string>();
    for (const { key } of pairs) {
      if (!isScalar(key) || isMergeKey(key.value)) continue;
      const name = String(key.value);
      if (names.has(name)) return this.#fault(`Field "${name}" stands there twice`, key);
      names.add(name);
    }
  }

  #fault(message: string, node: unknown): void {
    this.faults.push({ message, position: positionOfNode(this.#lines, node) ?? START });
  }
}

function isPlainKey(value: unknown): boolean {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean" || isMergeKey(value);
}

function isMergeKey(value: unknown): boolean {
  return typeof value === "symbol" && value.description === "<<";
}

function isPlainValue(value: unknown): boolean {
  return value === null || ["string", "number", "boolean"].includes(typeof value);
}

/** The document, or the items of a `kind: List`. */
function takeApart(document: Document.Parsed, lines: LineCounter): ManifestDocument[] {
  const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });
  const root = document.contents as Node | null;
  if (value === null || value === undefined) return [];
  if (typeof value !== "object" || Array.isArray(value)) return [documentAt(document, root, value, lines)];
  const { kind, items } = value as { kind?: unknown; items?: unknown };
  if (typeof kind !== "string" || !kind.endsWith("List") || !Array.isArray(items)) {
    return [documentAt(document, root, value, lines)];
  }
  const list = child(document, root, "items");
  return items.map((item, i) => documentAt(document, child(document, list, i) ?? root, item, lines));
}

function documentAt(
  document: Document.Parsed,
  root: Node | null,
  value: unknown,
  lines: LineCounter,
): ManifestDocument {
  const position = positionOfNode(lines, root) ?? START;
  return {
    value,
    position,
    positionOf: (path) => {
      let found = position;
      let node: Node | null | undefined = root;
      for (const step of stepsOf(path)) {
        const place = placeOf(document, node, step);
        if (place === undefined) return found;
        found = positionOfNode(lines, place) ?? found;
        node = child(document, node, step);
      }
      return found;
    },
  };
}

/** `a.b[0]["c/d"]` -> "a", "b", 0, "c/d". What cannot be read ends it. */
function stepsOf(path: string): (string | number)[] {
  const steps: (string | number)[] = [];
  const pattern = /\.?([A-Za-z_][A-Za-z0-9_]*)|\[([0-9]+)\]|\[("(?:[^"\\]|\\.)*")\]/y;
  for (let match = pattern.exec(path); match !== null; match = pattern.exec(path)) {
    if (match[1] !== undefined) steps.push(match[1]);
    else if (match[2] !== undefined) steps.push(Number(match[2]));
    else steps.push(JSON.parse(match[3]!) as string);
  }
  return steps;
}

function resolved(document: Document.Parsed, node: unknown): unknown {
  return isAlias(node) ? node.resolve(document) : node;
}

/** What to point at: a field's name, or a list's item. */
function placeOf(document: Document.Parsed, parent: unknown, step: string | number): unknown {
  const node = resolved(document, parent);
  if (isMap(node)) return node.items.find((pair) => isScalar(pair.key) && String(pair.key.value) === String(step))?.key;
  return isSeq(node) && typeof step === "number" ? node.items[step] : undefined;
}

function child(document: Document.Parsed, parent: unknown, step: string | number): Node | undefined {
  const node = resolved(document, parent);
  if (isMap(node)) {
    const pair = node.items.find((one) => isScalar(one.key) && String(one.key.value) === String(step));
    return pair?.value as Node | undefined;
  }
  return isSeq(node) && typeof step === "number" ? node.items[step] as Node | undefined : undefined;
}

function positionOfNode(lines: LineCounter, node: unknown): Position | undefined {
  const range = (node as { range?: readonly number[] | null } | null | undefined)?.range;
  return range ? positionAt(lines, range[0]!) : undefined;
}

function positionAt(lines: LineCounter, offset: number): Position {
  const { line, col } = lines.linePos(offset);
  return line < 1 ? START : { line, column: col };
}

function firstLine(message: string): string {
  return message.split("\n", 1)[0]!;
}
