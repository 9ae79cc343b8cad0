/** An object's metadata: name and namespace. The rest of it is Kubernetes' business and not looked into. */
import { field, type Fields, joinPath, type Problems, quote } from "./fields.ts";

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

function readName(metadata: Fields, problems: Problems): string | undefined {
  const path = joinPath("metadata", "name");
  const value = field(metadata, "name");
  if (value === undefined) return problems.add(path, "MISSING", "Object without a name");
  const name = problems.text(value, path);
  if (name === undefined) return undefined;
  if (name.length <= 253 && /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(name)) return name;
  return problems.add(path, "BAD_VALUE", `${quote(name)} is no object name: lower-case letters, digits, "-" and "."`);
}

function readNamespace(metadata: Fields, isNamespaced: boolean, problems: Problems): string | undefined {
  const path = joinPath("metadata", "namespace");
  const value = field(metadata, "namespace");
  if (value === undefined) return undefined;
  const namespace = problems.text(value, path);
  if (namespace === undefined || namespace === "") return undefined;
  if (!isNamespaced) return problems.add(path, "CONFLICT", "A cluster-wide object has no namespace");
  if (namespace.length <= 63 && /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(namespace)) return namespace;
  return problems.add(
    path,
    "BAD_VALUE",
    `${quote(namespace)} is no namespace name: lower-case letters, digits and "-"`,
  );
}
