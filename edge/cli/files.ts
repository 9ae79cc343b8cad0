/** Files that commands take documents from: by path, by folder, or standard input. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { EdgeError, messageOf } from "../errors.ts";
import type { Terminal } from "./context.ts";

export interface NamedText {
  readonly text: string;
  /** the path, or "standard input" */
  readonly place: string;
}

/**
 * The text of each file. A folder stands for the YAML and JSON files in it, `-` for standard input.
 * @throws EdgeError EDGE_MANIFEST_INVALID for what cannot be read
 */
export async function readTexts(names: readonly string[], terminal: Terminal): Promise<NamedText[]> {
  const texts: NamedText[] = [];
  for (const name of names) {
    if (name === "-") texts.push({ text: await terminal.readInput(), place: "standard input" });
    else for (const path of filesOf(name)) texts.push({ text: reading(path, readText), place: path });
  }
  return texts;
}

function filesOf(name: string): readonly string[] {
  return reading(name, () => {
    if (!statSync(name).isDirectory()) return [name];
    return readdirSync(name).filter((file) => /\.(ya?ml|json)$/.test(file)).sort().map((file) => join(name, file));
  });
}

function readText(path: string): string {
  return readFileSync(path, "utf8");
}

function reading<T>(path: string, read: (path: string) => T): T {
  try {
    return read(path);
  } catch (error) {
    throw new EdgeError("EDGE_MANIFEST_INVALID", `Cannot read "${path}": ${messageOf(error)}`, {
      fix: "Check the path.",
    });
  }
}
