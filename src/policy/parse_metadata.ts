/** An object's metadata: name and namespace. The rest of it is Kubernetes' business and not looked into. */
import { field, type Fields, joinPath, type Problems, quote } from "./fields.ts";
import { readLabelMap } from "./parse_selector.ts";

const METADATA_FIELDS = [
  "name",
  "namespace",
  "labels",
  "annotations",
  "generateName",
  "selfLink",
  "uid",
  "resourceVersion",
  "generation",
  "creationTimestamp",
  "deletionTimestamp",
  "deletionGracePeriodSeconds",
  "ownerReferences",
  "finalizers",
  "managedFields",
  "clusterName",
];

export interface ObjectName {
  readonly namespace: string;
  readonly name: string;
}

/** @param isNamespaced the namespace is "default" when not given; a cluster-wide object has none, and may not name one */
export function readMetadata(document: Fields, isNamespaced: boolean, problems: Problems): ObjectName {
  const none = { namespace: isNamespaced ? "default" : "", name: "" };
  const value = field(document, "metadata");
  if (value === undefined) {
    problems.add("metadata", "MISSING", "Object without metadata.name");
    return none;
  }
  const metadata = problems.object(value, "metadata", METADATA_FIELDS);
  if (metadata === undefined) return none;
  return {
    namespace: readNamespace(metadata, isNamespaced, problems) ?? none.namespace,
    name: readName(metadata, problems) ?? "",
  };
}

/** An object's own labels, without a source. Empty when it has none. */
export function readOwnLabels(document: Fields, problems: Problems): Record<string, string> {
  const metadata = field(document, "metadata") as Fields | undefined; // readMetadata has looked at it
  const value = metadata === undefined ? undefined : field(metadata, "labels");
  const path = joinPath("metadata", "labels");
  const labels: Record<string, string> = {};
  for (const { key, values } of readLabelMap(value, path, "kubernetes", problems)) labels[key] = values[0]!;
  return labels;
}

function readName(metadata: Fields, problems: Problems): string | undefined {
  const path = joinPath("metadata", "name");
  const value = field(metadata, "name");
  if (value === undefined) return problems.add(path, "MISSING", "Object without a name");
  return readObjectName(value, path, problems);
}

function readNamespace(metadata: Fields, isNamespaced: boolean, problems: Problems): string | undefined {
  const path = joinPath("metadata", "namespace");
  const value = field(metadata, "namespace");
  if (value === undefined || value === "") return undefined;
  if (!isNamespaced) return problems.add(path, "CONFLICT", "A cluster-wide object has no namespace");
  return readNamespaceName(value, path, problems);
}

/** The name of an object: a DNS subdomain. */
export function readObjectName(value: unknown, path: string, problems: Problems): string | undefined {
  const name = problems.text(value, path);
  if (name === undefined) return undefined;
  if (name.length <= 253 && /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(name)) return name;
  return problems.add(path, "BAD_VALUE", `${quote(name)} is no object name: lower-case letters, digits, "-" and "."`);
}

export function readNamespaceName(value: unknown, path: string, problems: Problems): string | undefined {
  const name = problems.text(value, path);
  if (name === undefined) return undefined;
  if (name.length <= 63 && /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(name)) return name;
  return problems.add(path, "BAD_VALUE", `${quote(name)} is no namespace name: lower-case letters, digits and "-"`);
}
