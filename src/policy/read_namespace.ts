/** The door for Namespace objects: the labels that selectors of namespaces are compared with. */
import type { PolicyError } from "./errors.ts";
import { field, type Fields, Problems, quote } from "./fields.ts";
import { readMetadata, readNamespaceName, readOwnLabels } from "./parse_metadata.ts";

export interface Namespace {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

export type NamespaceResult = { readonly namespace: Namespace } | { readonly errors: readonly PolicyError[] };

export const NAMESPACE_KIND = "Namespace";
const API_VERSION = "v1";

/** Reads plain data. One error refuses the whole object. Never throws, whatever the data. */
export function readNamespaceObject(document: unknown): NamespaceResult {
  const problems = new Problems();
  const namespace = readDocument(document, problems);
  return namespace === undefined || problems.any ? { errors: problems.errors } : { namespace };
}

function readDocument(value: unknown, problems: Problems): Namespace | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return problems.add("", "NOT_AN_OBJECT", `A ${NAMESPACE_KIND} is an object with apiVersion, kind and metadata`);
  }
  const document = value as Fields;
  const version = field(document, "apiVersion");
  if (version !== API_VERSION) {
    const found = typeof version === "string" ? quote(version) : "none";
    problems.add(
      "apiVersion",
      version === undefined ? "MISSING" : "BAD_VALUE",
      `${NAMESPACE_KIND} is of apiVersion ${API_VERSION}, got ${found}`,
    );
  }
  problems.object(document, "", ["apiVersion", "kind", "metadata", "spec", "status"]);
  const { name } = readMetadata(document, false, problems);
  if (name !== "") readNamespaceName(name, "metadata.name", problems);
  return { name, labels: readOwnLabels(document, problems) };
}
