/** Reading JSON that somebody else wrote: text in, the wanted shape or `undefined` out, never an exception. */

export type JsonObject = Readonly<Record<string, unknown>>;

/** The object that the text is; `undefined` for other JSON and for what is no JSON. */
export function readJsonObject(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

/** An array of which every element reads; `undefined` if one does not, or if it is none. */
export function readList<T>(value: unknown, readItem: (item: unknown) => T | undefined): T[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const items: T[] = [];
  for (const element of value) {
    const item = readItem(element);
    if (item === undefined) return undefined;
    items.push(item);
  }
  return items;
}

/** A map whose values are text. */
export function readTextMap(value: unknown): Record<string, string> | undefined {
  if (!isObject(value)) return undefined;
  return Object.values(value).every((v) => typeof v === "string") ? { ...value as Record<string, string> } : undefined;
}

export function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
