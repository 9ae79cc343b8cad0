/**
 * Namespace labels as they are now. An identity carries those of the time when it was made; for identities of the local cluster the
 * current ones take their place, so that a namespace's change counts at once.
 */
import { KEY_CLUSTER, KEY_NAMESPACE, KEY_NAMESPACE_LABELS, type Labels } from "../identity/labels.ts";
import { namespaceLabels } from "../identity/member_labels.ts";

const NAME_CLUSTER = `k8s:${KEY_CLUSTER}`;
const NAME_NAMESPACE = `k8s:${KEY_NAMESPACE}`;
const NAME_PREFIX = `k8s:${KEY_NAMESPACE_LABELS}`;

/** namespace -> its labels */
export type Namespaces = ReadonlyMap<string, Readonly<Record<string, string>>>;

/** Namespace of an identity of the local cluster; `undefined` for every other. */
export function localNamespaceOf(labels: Labels, cluster: string): string | undefined {
  const own = labels[NAME_CLUSTER];
  return own === undefined || own === cluster ? labels[NAME_NAMESPACE] : undefined;
}

/** The labels with the namespace's current ones; the same object where nothing is known. */
export function withNamespaceLabels(labels: Labels, namespaces: Namespaces, cluster: string): Labels {
  const namespace = localNamespaceOf(labels, cluster);
  const current = namespace === undefined ? undefined : namespaces.get(namespace);
  if (namespace === undefined || current === undefined) return labels;
  const result: Record<string, string> = {};
  for (const name of Object.keys(labels)) {
    if (!name.startsWith(NAME_PREFIX)) result[name] = labels[name]!;
  }
  return Object.assign(result, namespaceLabels(namespace, current));
}

/** Namespaces whose labels differ between the two. */
export function changedNamespaces(before: Namespaces, after: Namespaces): Set<string> {
  const changed = new Set<string>();
  for (const name of [...before.keys(), ...after.keys()]) {
    if (JSON.stringify(sorted(before.get(name))) !== JSON.stringify(sorted(after.get(name)))) changed.add(name);
  }
  return changed;
}

function sorted(labels: Readonly<Record<string, string>> | undefined): [string, string][] | undefined {
  return labels && Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
}
