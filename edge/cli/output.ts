/** How commands print: one document as JSON or YAML, or text in columns. */
import type { Terminal } from "./context.ts";

export type OutputFormat = "text" | "wide" | "json" | "yaml";

/** Prints a document in a format for programs. @returns false for the formats for people, which the caller prints */
export async function printDocument(terminal: Terminal, format: OutputFormat, document: unknown): Promise<boolean> {
  if (format === "json") terminal.out(`${JSON.stringify(document, null, 2)}\n`);
  else if (format === "yaml") terminal.out((await import("yaml")).stringify(document));
  else return false;
  return true;
}

/** Rows under headings, columns two blanks apart, as `kubectl` prints them. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [headings, ...rows];
  const widths = headings.map((_, column) => Math.max(...all.map((row) => (row[column] ?? "").length)));
  const lines = all.map((row) => row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd());
  return `${lines.join("\n")}\n`;
}

/** Colours for people; plain text where the terminal has none. */
export function painter(
  terminal: Terminal,
): Record<"bold" | "dim" | "red" | "green" | "yellow", (text: string) => string> {
  const paint = (code: number) => (text: string) => terminal.hasColor ? `\x1b[${code}m${text}\x1b[0m` : text;
  return { bold: paint(1), dim: paint(2), red: paint(31), green: paint(32), yellow: paint(33) };
}

/** Text from elsewhere, made harmless for a terminal: no control characters. */
export function clean(text: string): string {
  return text.replace(/\p{Cc}/gu, "?");
}

/** `a=b,c=d`, sorted; "-" for none. */
export function labelText(labels: Readonly<Record<string, string>>): string {
  const parts = Object.entries(labels).map(([key, value]) => `${key}=${value}`).sort();
  return parts.length === 0 ? "-" : clean(parts.join(","));
}

/** `3.2 MiB` */
export function byteText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit]}`;
}

/** `5s`, `3m`, `2h`, `4d`: how long ago, or how long still. */
export function ageText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}
