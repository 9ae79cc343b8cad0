/** Kubernetes objects of the files that `-f` names. */
import { EdgeError } from "../errors.ts";
import type { KubernetesObject } from "../sync/admin_messages.ts";
import type { CommandContext } from "./context.ts";
import { readTexts } from "./files.ts";

/** A document and where it stood, for messages. */
export interface Placed {
  readonly document: KubernetesObject;
  readonly place: string;
}

/**
 * All documents of all `-f`; a list counts as its items.
 * @param verb what is to be done with them, for messages
 * @throws EdgeError EDGE_USAGE without a file, EDGE_MANIFEST_INVALID for what cannot be read
 */
export async function readObjects(context: CommandContext, verb: string): Promise<readonly Placed[]> {
  const names = context.options.get("filename") ?? [];
  if (names.length === 0) {
    throw new EdgeError("EDGE_USAGE", `Cannot ${verb}: no file was named`, { fix: "Name one with -f FILE." });
  }
  const { readManifest } = await import("../manifest.ts");
  const placed: Placed[] = [];
  for (const { text, place } of await readTexts(names, context.terminal)) {
    const manifest = readManifest(text);
    if ("errors" in manifest) {
      const faults = manifest.errors.map(({ message, position }) => `${place}:${position.line}: ${message}`);
      throw new EdgeError("EDGE_MANIFEST_INVALID", `Cannot read the documents:\n  ${faults.join("\n  ")}`);
    }
    for (const { value, position } of manifest.documents) {
      const at = `${place}:${position.line}`;
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw new EdgeError("EDGE_MANIFEST_INVALID", `Cannot read ${at}: it is no Kubernetes object`);
      }
      placed.push({ document: value as KubernetesObject, place: at });
    }
  }
  if (placed.length === 0) {
    throw new EdgeError("EDGE_MANIFEST_INVALID", `Cannot read ${names.join(", ")}: no document in it`);
  }
  return placed;
}
