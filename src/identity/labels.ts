/**
 * Labels with their source, as Cilium writes them: `k8s:app=web`, `reserved:host=`, `cidr:10.0.0.0/8=`.
 *
 * A set of labels is a plain record "source:key" -> value, which structured clone and msgpackr carry unchanged. Two equal sets are
 * one identity; `formatLabelList` is the canonical text, and the value of Cilium's `cilium/state/identities/v1/id/<n>` keys.
 */

/** "source:key" -> value. Treat as immutable. */
export type Labels = Readonly<Record<string, string>>;

/** One label, taken apart. */
export interface Label {
  readonly source: string;
  readonly key: string;
  readonly value: string;
}

export const SOURCE_K8S = "k8s";
export const SOURCE_RESERVED = "reserved";
export const SOURCE_CIDR = "cidr";
/** followed by a pattern that one of an address's names matches */
export const SOURCE_FQDN = "fqdn";
/** followed by the key of a node's label */
export const SOURCE_NODE = "node";
/** In selectors only: a label of any source. */
export const SOURCE_ANY = "any";

export const KEY_NAMESPACE = "io.kubernetes.pod.namespace";
/** followed by the key of a namespace's label */
export const KEY_NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels.";
export const KEY_CLUSTER = "io.cilium.k8s.policy.cluster";
export const KEY_SERVICE_ACCOUNT = "io.cilium.k8s.policy.serviceaccount";

const KNOWN_SOURCES: ReadonlySet<string> = new Set([
  "unspec",
  SOURCE_ANY,
  SOURCE_K8S,
  "gen",
  "cni",
  SOURCE_RESERVED,
  SOURCE_CIDR,
  "cidrgroup",
  SOURCE_FQDN,
  SOURCE_NODE,
  "directory",
  "container",
]);

/**
 * Splits a selector or label key into source and key. Without a known source in front, the source is `any` and the key is the
 * whole text.
 */
export function splitKey(text: string): { source: string; key: string } {
  const colon = text.indexOf(":");
  const source = colon < 0 ? "" : text.slice(0, colon);
  return KNOWN_SOURCES.has(source) ? { source, key: text.slice(colon + 1) } : { source: SOURCE_ANY, key: text };
}

/** The key of "source:key", without its source. */
export function bareKey(sourceKey: string): string {
  return sourceKey.slice(sourceKey.indexOf(":") + 1);
}

/**
 * Reads `source:key=value` or `source:key`; the value may hold further `=`. Without a known source it is `unspec`, as in Cilium.
 * @returns `undefined` for an empty key
 */
export function parseLabel(text: string): Label | undefined {
  const equals = text.indexOf("=");
  const name = equals < 0 ? text : text.slice(0, equals);
  const { source, key } = splitKey(name);
  if (key === "") return undefined;
  return {
    source: source === SOURCE_ANY && key === name ? "unspec" : source,
    key,
    value: equals < 0 ? "" : text.slice(equals + 1),
  };
}

/**
 * The canonical text of a set: sorted by key (by source where keys are equal), each label followed by `;`. Equal sets give equal
 * text, so it is also the "same labels = same identity" key. Empty for no labels.
 * @see Cilium `pkg/labels` SortedList; facts: value of `cilium/state/identities/v1/id/<n>`
 */
export function formatLabelList(labels: Labels): string {
  const sorted = Object.keys(labels).map((name) => ({ name, key: bareKey(name) }));
  sorted.sort((a, b) => compareText(a.key, b.key) || compareText(a.name, b.name));
  let text = "";
  for (const { name } of sorted) text += `${name}=${labels[name]};`;
  return text;
}

/**
 * Reads the text of a set. The order is not checked; the last `;` may be missing.
 * @returns `undefined` when it holds no label, an empty one, one without a key, or one name twice
 */
export function parseLabelList(text: string): Labels | undefined {
  const parts = (text.endsWith(";") ? text.slice(0, -1) : text).split(";");
  const labels: Record<string, string> = {};
  for (const part of parts) {
    const label = parseLabel(part);
    if (label === undefined) return undefined;
    const name = `${label.source}:${label.key}`;
    if (Object.hasOwn(labels, name)) return undefined;
    labels[name] = label.value;
  }
  return labels;
}

/** Order of code units: the same on every machine and in every locale. */
function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
