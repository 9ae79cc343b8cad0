/** `edgemesh apply`, `get` and `delete`: policies and namespaces on the hub, as Kubernetes documents. */
import { API_VERSION } from "../agent/documents.ts";
import { EdgeError, EXIT_FAILED, EXIT_OK } from "../errors.ts";
import type { KubernetesObject } from "../sync/admin_client.ts";
import { type CommandContext, optionOf } from "./context.ts";
import { readTexts } from "./files.ts";
import { hubClient } from "./hub_client.ts";
import { clean, printDocument, table } from "./output.ts";

/** A document and where it stood, for messages. */
interface Placed {
  readonly document: KubernetesObject;
  readonly place: string;
}

export async function apply(context: CommandContext): Promise<number> {
  const { terminal, loaded: { config } } = context;
  const placed = await readFiles(context);
  const isDryRun = context.options.has("dry-run");
  const answer = await hubClient(config).apply(placed.map(({ document }) => document), isDryRun);
  const isOk = answer.errors.length === 0;
  if (!await printDocument(terminal, config.output, { apiVersion: API_VERSION, kind: "ApplyResult", ...answer })) {
    for (const { kind, namespace, name, action } of answer.applied) {
      terminal.out(`${clean(nameOf(kind, namespace, name))} ${action}${isDryRun ? " (dry run)" : ""}\n`);
    }
    for (const { index, object, message } of answer.errors) {
      const place = placed[index]?.place ?? "";
      terminal.err(`edgemesh: ${clean(place)}: ${clean(object)}: ${clean(message)}\n`);
    }
    if (!isOk) terminal.err("  Nothing was applied. Correct what is named above, and apply again.\n");
  }
  return isOk ? EXIT_OK : EXIT_FAILED;
}

export async function get(context: CommandContext): Promise<number> {
  const { terminal, loaded: { config } } = context;
  const [kind, name] = context.args;
  const namespace = optionOf(context, "namespace");
  const found = await hubClient(config).objects({
    ...(kind !== undefined && { kind: kindOf(kind) }),
    ...(namespace !== undefined && { namespace }),
  });
  const objects = name === undefined ? found : found.filter((object) => placeOf(object).name === name);
  if (name !== undefined && objects.length === 0) throw notFound(kind!, name);
  const document = name !== undefined && objects.length === 1
    ? objects[0]!
    : { apiVersion: "v1", kind: "List", items: objects };
  if (await printDocument(terminal, config.output, document)) return EXIT_OK;
  const rows = objects.map((object) => {
    const place = placeOf(object);
    return [place.kind, place.namespace === "" ? "-" : place.namespace, place.name].map(clean);
  });
  terminal.out(rows.length === 0 ? "nothing is stored\n" : table(["KIND", "NAMESPACE", "NAME"], rows));
  return EXIT_OK;
}

export async function remove(context: CommandContext): Promise<number> {
  const client = hubClient(context.loaded.config);
  const [kindText, name] = context.args;
  const wanted: { kind: string; namespace: string; name: string }[] = [];
  if (context.options.has("filename")) {
    wanted.push(...(await readFiles(context)).map(({ document }) => placeOf(document)));
  }
  if (kindText !== undefined) {
    if (name === undefined) throw new EdgeError("EDGE_USAGE", `Cannot delete "${kindText}": the name is missing`);
    const kind = kindOf(kindText);
    wanted.push({ kind, namespace: isNamespaced(kind) ? optionOf(context, "namespace") ?? "default" : "", name });
  }
  if (wanted.length === 0) {
    throw new EdgeError("EDGE_USAGE", "Cannot delete: neither an object nor a file was named");
  }
  for (const { kind, namespace, name } of wanted) {
    await client.deleteObject(kind, namespace, name);
    context.terminal.out(`${clean(nameOf(kind, namespace, name))} deleted\n`);
  }
  return EXIT_OK;
}

/** Short and plural names, as `kubectl` knows them. */
const KIND_NAMES: Readonly<Record<string, string>> = {
  netpol: "NetworkPolicy",
  cnp: "CiliumNetworkPolicy",
  ccnp: "CiliumClusterwideNetworkPolicy",
  ns: "Namespace",
};

function kindOf(text: string): string {
  const lower = text.toLowerCase();
  const kinds = ["NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "Namespace"];
  const isNameOf = (kind: string) =>
    [kind, `${kind}s`, kind.replace(/y$/, "ies")].some((form) => form.toLowerCase() === lower);
  return KIND_NAMES[lower] ?? kinds.find(isNameOf) ?? text;
}

function isNamespaced(kind: string): boolean {
  return kind !== "Namespace" && !kind.includes("Clusterwide");
}

function placeOf(object: KubernetesObject): { kind: string; namespace: string; name: string } {
  const { kind, metadata } = object as { kind?: unknown; metadata?: { name?: unknown; namespace?: unknown } };
  const kindText = String(kind ?? "");
  const namespace = isNamespaced(kindText) ? String(metadata?.namespace ?? "default") : "";
  return { kind: kindText, namespace, name: String(metadata?.name ?? "") };
}

function nameOf(kind: string, namespace: string, name: string): string {
  return `${kind} ${namespace === "" ? name : `${namespace}/${name}`}`;
}

function notFound(kind: string, name: string): EdgeError {
  return new EdgeError("EDGE_NOT_FOUND", `Cannot find ${kind} "${name}": the hub has none`);
}

/** All documents of all `-f`; a list counts as its items. */
async function readFiles(context: CommandContext): Promise<readonly Placed[]> {
  const names = context.options.get("filename") ?? [];
  if (names.length === 0) {
    throw new EdgeError("EDGE_USAGE", "Cannot apply: no file was named", { fix: "Name one with -f FILE." });
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
