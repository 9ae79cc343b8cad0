/** The labels that make a member's identity, as a Cilium agent derives them for a pod. */
import { isIdentityLabel } from "./filter.ts";
import {
  KEY_CLUSTER,
  KEY_NAMESPACE,
  KEY_NAMESPACE_LABELS,
  KEY_SERVICE_ACCOUNT,
  type Labels,
  SOURCE_K8S,
} from "./labels.ts";

export interface MemberLabelsInput {
  /** cluster name */
  readonly cluster: string;
  readonly namespace: string;
  /** the namespace's own labels; `kubernetes.io/metadata.name` is always the name, as an API server sets it */
  readonly namespaceLabels: Readonly<Record<string, string>>;
  /** the member's labels, bare keys */
  readonly labels: Readonly<Record<string, string>>;
  /** "default" when not given, as for a pod */
  readonly serviceAccount?: string;
}

const METADATA_NAME = "kubernetes.io/metadata.name";

/**
 * Identity labels of a member: its own labels that pass the filter, its namespace and the namespace's labels, its cluster and its
 * service account. A label of the member cannot pose as one of the derived ones: those are written last.
 */
export function labelsOfMember(input: MemberLabelsInput): Labels {
  const labels: Record<string, string> = {};
  for (const [key, value] of Object.entries(input.labels)) {
    if (isIdentityLabel(SOURCE_K8S, key) && !isDerivedKey(key)) labels[`${SOURCE_K8S}:${key}`] = value;
  }
  Object.assign(labels, namespaceLabels(input.namespace, input.namespaceLabels));
  labels[`${SOURCE_K8S}:${KEY_NAMESPACE}`] = input.namespace;
  labels[`${SOURCE_K8S}:${KEY_CLUSTER}`] = input.cluster;
  labels[`${SOURCE_K8S}:${KEY_SERVICE_ACCOUNT}`] = input.serviceAccount ?? "default";
  return labels;
}

/** A namespace's labels as they stand in the identity of everything in it. */
export function namespaceLabels(name: string, own: Readonly<Record<string, string>>): Labels {
  const labels: Record<string, string> = {};
  for (const [key, value] of Object.entries(own)) {
    const derived = KEY_NAMESPACE_LABELS + key;
    if (isIdentityLabel(SOURCE_K8S, derived)) labels[`${SOURCE_K8S}:${derived}`] = value;
  }
  labels[`${SOURCE_K8S}:${KEY_NAMESPACE_LABELS}${METADATA_NAME}`] = name;
  return labels;
}

function isDerivedKey(key: string): boolean {
  return key === KEY_NAMESPACE || key === KEY_CLUSTER || key === KEY_SERVICE_ACCOUNT ||
    key.startsWith(KEY_NAMESPACE_LABELS);
}
