/**
 * `edgemesh apply`, `get` and `delete`: policies, what they refer to, and namespaces on the hub, as Kubernetes documents.
 */
import { API_VERSION } from "../agent/documents.ts";
import { EdgeError, EXIT_FAILED, EXIT_OK } from "../errors.ts";
import { isNamespaced, kindOf } from "../kinds.ts";
import type { KubernetesObject, ObjectName } from "../sync/admin_messages.ts";
import type { AdminClient } from "../sync/admin_client.ts";
import type { DryRunReport } from "../sync/dry_run.ts";
import { type CommandContext, optionOf } from "./context.ts";
import { dryRunText } from "./dry_run.ts";
import { hubClient } from "./hub_client.ts";
import { readObjects } from "./object_files.ts";
import { clean, printDocument, table } from "./output.ts";

export async function apply(context: CommandContext): Promise<number> {
  const { terminal, loaded: { config } } = context;
  const placed = await readObjects(context, "apply");
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
    const changesNamespace = answer.applied.some(({ kind, action }) => kind === "Namespace" && action !== "unchanged");
    if (isOk && isDryRun) terminal.out(dryRunOf(answer.dryRun, changesNamespace));
    if (!isOk) terminal.err("  Nothing was applied. Correct what is named above, and apply again.\n");
  }
  return isOk ? EXIT_OK : EXIT_FAILED;
}

function dryRunOf(dryRun: DryRunReport | undefined, changesNamespace: boolean): string {
  if (dryRun === undefined) {
    return "what would be newly dropped is not known: the hub is of an older release, or busy with other dry runs\n";
  }
  const note = "labels of namespaces are not looked at: they give members other identities\n";
  return dryRunText(dryRun) + (changesNamespace ? note : "");
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
  const wanted: ObjectName[] = [];
  if (context.options.has("filename")) {
    wanted.push(...(await readObjects(context, "delete")).map(({ document }) => placeOf(document)));
  }
  if (kindText !== undefined) {
    if (name === undefined) throw new EdgeError("EDGE_USAGE", `Cannot delete "${kindText}": the name is missing`);
    const kind = kindOf(kindText);
    wanted.push({ kind, namespace: isNamespaced(kind) ? optionOf(context, "namespace") ?? "default" : "", name });
  }
  if (wanted.length === 0) {
    throw new EdgeError("EDGE_USAGE", "Cannot delete: neither an object nor a file was named");
  }
  if (context.options.has("dry-run")) return await tryRemoval(context, client, wanted);
  for (const { kind, namespace, name } of wanted) {
    await client.deleteObject(kind, namespace, name);
    context.terminal.out(`${clean(nameOf(kind, namespace, name))} deleted\n`);
  }
  return EXIT_OK;
}

async function tryRemoval(
  { terminal, loaded: { config } }: CommandContext,
  client: AdminClient,
  wanted: readonly ObjectName[],
): Promise<number> {
  const answer = await client.deleteDryRun(wanted);
  const missing = answer.missing[0];
  if (missing !== undefined) throw notFound(missing.kind, missing.name);
  if (await printDocument(terminal, config.output, { apiVersion: API_VERSION, kind: "DeleteResult", ...answer })) {
    return EXIT_OK;
  }
  for (const { kind, namespace, name } of wanted) {
    terminal.out(`${clean(nameOf(kind, namespace, name))} deleted (dry run)\n`);
  }
  terminal.out(dryRunOf(answer.dryRun, wanted.some(({ kind }) => kind === "Namespace")));
  return EXIT_OK;
}

function placeOf(object: KubernetesObject): ObjectName {
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
