/** `{matchName}` or `{matchPattern}` of `toFQDNs` and of DNS rules. @see facts policy.md section 8 */
import { readPattern } from "../fqdn/pattern.ts";
import { field, joinPath, type Problems, quote } from "./fields.ts";

const FIELDS = ["matchName", "matchPattern"];

/** The canonical pattern; a name is a pattern without stars. `undefined` after an error. */
export function readName(item: unknown, path: string, problems: Problems): string | undefined {
  const fields = problems.object(item, path, FIELDS);
  if (fields === undefined) return undefined;
  const given = FIELDS.filter((name) => field(fields, name) !== undefined);
  if (given.length > 1) {
    return problems.add(path, "CONFLICT", "Entry with both matchName and matchPattern; write an entry for each");
  }
  const kind = given[0];
  if (kind === undefined) {
    return problems.add(path, "MISSING", 'Entry without matchName or matchPattern; the pattern "*" is every name');
  }
  const at = joinPath(path, kind);
  const text = problems.text(field(fields, kind), at);
  if (text === undefined) return undefined;
  if (kind === "matchName" && text.includes("*")) {
    return problems.add(at, "BAD_VALUE", `${quote(text)} is a pattern; write it as matchPattern`);
  }
  return readNameText(text, at, problems);
}

/** A name, or a pattern with stars. */
export function readNameText(text: string, path: string, problems: Problems): string | undefined {
  const read = readPattern(text);
  return "pattern" in read ? read.pattern : problems.add(path, "BAD_VALUE", `${quote(text)} ${read.error}`);
}
