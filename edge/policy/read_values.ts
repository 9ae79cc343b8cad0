/** Reads the plain values that scenarios are made of. Bad ones are noted and come back as `undefined`, or are left out of a list. */
import { formatAddress, type IpAddress, parseAddress } from "../../src/ip/address.ts";
import { field, type Fields, joinPath, type Problems, quote } from "../../src/policy/fields.ts";

/** A text; `undefined` when it is not there. */
export function textAt(fields: Fields, path: string, name: string, problems: Problems): string | undefined {
  const value = field(fields, name);
  return value === undefined ? undefined : problems.text(value, joinPath(path, name));
}

/** A list, each item by its reader; empty when it is not there. */
export function itemsAt<T>(
  fields: Fields,
  path: string,
  name: string,
  problems: Problems,
  read: (item: unknown, path: string) => T | undefined,
): T[] {
  const value = field(fields, name);
  const at = joinPath(path, name);
  const items = value === undefined ? undefined : problems.items(value, at);
  const found: T[] = [];
  items?.forEach((item, i) => {
    const one = read(item, `${at}[${i}]`);
    if (one !== undefined) found.push(one);
  });
  return found;
}

/** A map of texts; empty when it is not there. */
export function labelsOf(value: unknown, path: string, problems: Problems): Record<string, string> {
  const labels: Record<string, string> = {};
  const fields = value === undefined ? undefined : problems.anyObject(value, path);
  for (const key of Object.keys(fields ?? {})) {
    const text = field(fields!, key) === undefined ? "" : problems.text(fields![key], joinPath(path, key));
    if (text !== undefined) labels[key] = text;
  }
  return labels;
}

/** One address. */
export function addressOf(value: unknown, path: string, problems: Problems): IpAddress | undefined {
  const text = problems.text(value, path);
  if (text === undefined) return undefined;
  return parseAddress(text) ?? problems.add(path, "BAD_VALUE", `${quote(text)} is no IP address`);
}

/** A list of addresses; empty when it is not there. */
export function addressesOf(fields: Fields, path: string, name: string, problems: Problems): IpAddress[] {
  return itemsAt(fields, path, name, problems, (item, at) => addressOf(item, at, problems));
}

/** Equal for equal addresses, whatever the text was. */
export function addressKey(address: IpAddress): string {
  return formatAddress(address);
}
