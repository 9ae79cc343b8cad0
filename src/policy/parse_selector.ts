/**
 * Label selectors: Kubernetes' LabelSelector, and Cilium's with a label source in front of the key. Defaulting of namespace and
 * cluster is done here, because it depends on how the object was written; the local cluster's name itself comes later.
 * @see facts policy.md sections 1, 2 and 4
 */
import {
  KEY_CLUSTER,
  KEY_NAMESPACE,
  KEY_NAMESPACE_LABELS,
  SOURCE_ANY,
  SOURCE_K8S,
  SOURCE_RESERVED,
  splitKey,
} from "../identity/labels.ts";
import { field, joinPath, type Problems, quote } from "./fields.ts";
import type { Operator, Requirement, Selector } from "./model.ts";

const OPERATORS: readonly Operator[] = ["In", "NotIn", "Exists", "DoesNotExist"];
const SELECTOR_FIELDS = ["matchLabels", "matchExpressions"];
const EXPRESSION_FIELDS = ["key", "operator", "values"];
/** Sources that only identities of addresses and nodes have, and what to write instead. */
const REFUSED_SOURCES: Readonly<Record<string, string>> = {
  cidr: "use fromCIDR, toCIDR or entities",
  cidrgroup: "use cidrGroupSelector in fromCIDRSet or toCIDRSet",
  fqdn: "use toFQDNs",
  node: "use fromNodes, toNodes or entities",
};
const MAX_VALUES = 1000;

/** How keys are written: without a source; with one; with one that may be `node`, over node labels. */
export type KeyStyle = "kubernetes" | "cilium" | "node";

/** A selector's conditions, without any defaulting. `undefined` after an error. */
export function readRequirements(
  value: unknown,
  path: string,
  style: KeyStyle,
  problems: Problems,
): Requirement[] | undefined {
  const selector = problems.object(value, path, SELECTOR_FIELDS);
  if (selector === undefined) return undefined;
  const requirements: Requirement[] = [];
  requirements.push(...readLabelMap(field(selector, "matchLabels"), joinPath(path, "matchLabels"), style, problems));
  readExpressions(
    field(selector, "matchExpressions"),
    joinPath(path, "matchExpressions"),
    style,
    problems,
    requirements,
  );
  return requirements;
}

/** Labels with their values, as conditions: what `matchLabels` says. Those that are no labels are noted and left out. */
export function readLabelMap(value: unknown, path: string, style: KeyStyle, problems: Problems): Requirement[] {
  const requirements: Requirement[] = [];
  const labels = value === undefined ? undefined : problems.anyObject(value, path);
  if (labels === undefined) return requirements;
  for (const name of Object.keys(labels)) {
    const at = joinPath(path, name);
    const key = readKey(name, at, style, problems);
    // A null value is an empty one, as in Go's map of strings.
    const text = labels[name] === null ? "" : problems.text(labels[name], at);
    if (key === undefined || text === undefined || !checkValue(text, at, problems)) continue;
    requirements.push({ ...key, operator: "In", values: [text] });
  }
  return requirements;
}

function readExpressions(value: unknown, path: string, style: KeyStyle, problems: Problems, into: Requirement[]): void {
  if (value === undefined) return;
  problems.items(value, path)?.forEach((item, i) => {
    const requirement = readExpression(item, `${path}[${i}]`, style, problems);
    if (requirement !== undefined) into.push(requirement);
  });
}

function readExpression(item: unknown, path: string, style: KeyStyle, problems: Problems): Requirement | undefined {
  const fields = problems.object(item, path, EXPRESSION_FIELDS);
  if (fields === undefined) return undefined;
  const name = field(fields, "key");
  const keyText = name === undefined
    ? problems.add(joinPath(path, "key"), "MISSING", "Expression without a key")
    : problems.text(name, joinPath(path, "key"));
  const key = keyText === undefined ? undefined : readKey(keyText, joinPath(path, "key"), style, problems);
  const operatorValue = field(fields, "operator");
  const operator = operatorValue === undefined
    ? problems.add(joinPath(path, "operator"), "MISSING", `Expression without an operator: ${OPERATORS.join(", ")}`)
    : problems.word(operatorValue, joinPath(path, "operator"), OPERATORS);
  const values = readValues(field(fields, "values"), joinPath(path, "values"), problems);
  if (key === undefined || operator === undefined || values === undefined) return undefined;
  const needsValues = operator === "In" || operator === "NotIn";
  if (needsValues && values.length === 0) {
    return problems.add(joinPath(path, "values"), "MISSING", `Operator ${operator} needs at least one value`);
  }
  if (!needsValues && values.length > 0) {
    return problems.add(joinPath(path, "values"), "CONFLICT", `Operator ${operator} takes no values`);
  }
  return { ...key, operator, values };
}

/** Sorted and distinct. */
function readValues(value: unknown, path: string, problems: Problems): string[] | undefined {
  if (value === undefined) return [];
  const items = problems.items(value, path);
  if (items === undefined) return undefined;
  if (items.length > MAX_VALUES) return problems.add(path, "TOO_MANY", `More than ${MAX_VALUES} values`);
  const values = new Set<string>();
  let isGood = true;
  items.forEach((item, i) => {
    const text = problems.text(item, `${path}[${i}]`);
    if (text === undefined || !checkValue(text, `${path}[${i}]`, problems)) isGood = false;
    else values.add(text);
  });
  return isGood ? [...values].sort() : undefined;
}

function readKey(
  text: string,
  path: string,
  style: KeyStyle,
  problems: Problems,
): { source: string; key: string } | undefined {
  const split = style === "kubernetes" ? { source: SOURCE_K8S, key: text } : splitKey(text);
  if (split.source === "unspec" || (split.source === "node" && style === "node")) split.source = SOURCE_ANY;
  const instead = Object.hasOwn(REFUSED_SOURCES, split.source) ? REFUSED_SOURCES[split.source] : undefined;
  if (instead !== undefined) {
    return problems.add(
      path,
      "UNSUPPORTED_LABEL_SOURCE",
      `Selecting by labels of source "${split.source}" is not supported; ${instead}`,
    );
  }
  if (isLabelKey(split.key)) return split;
  return problems.add(
    path,
    "BAD_VALUE",
    `${quote(text)} is no label key: an optional DNS name and "/", then up to 63 letters, digits, "-", "_", "."`,
  );
}

function isLabelKey(key: string): boolean {
  const slash = key.indexOf("/");
  const name = key.slice(slash + 1);
  if (name.length > 63 || !/^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$/.test(name)) return false;
  // Keys of namespace labels carry a long prefix of their own.
  return slash < 0 || (slash <= 253 + KEY_NAMESPACE_LABELS.length && isDnsSubdomain(key.slice(0, slash)));
}

function isDnsSubdomain(text: string): boolean {
  return /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(text);
}

function checkValue(text: string, path: string, problems: Problems): boolean {
  if (text.length <= 63 && /^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$/.test(text)) return true;
  problems.add(path, "BAD_VALUE", `${quote(text)} is no label value: up to 63 letters, digits, "-", "_", "."`);
  return false;
}

// Defaulting

/** A subject in a namespace. A condition on another namespace is overwritten, as Cilium does. */
export function subjectInNamespace(requirements: readonly Requirement[], namespace: string): Selector {
  return {
    requirements: [...requirements.filter((r) => !isNamespaceKey(r)), inNamespace(namespace)],
    defaultsCluster: false,
  };
}

/**
 * A peer of a Cilium policy.
 * @param namespace the policy's; empty for a cluster-wide one
 * @param subjectIsInit the policy selects `reserved:init` endpoints
 */
export function ciliumPeer(requirements: readonly Requirement[], namespace: string, subjectIsInit: boolean): Selector {
  if (requirements.some((r) => r.source === SOURCE_RESERVED)) return { requirements, defaultsCluster: false };
  const all = [...requirements];
  if (!requirements.some(isNamespaceKey)) {
    if (namespace === "") {
      if (!subjectIsInit) all.push(hasNamespace());
    } else if (!requirements.some((r) => r.key.startsWith(KEY_NAMESPACE_LABELS))) all.push(inNamespace(namespace));
  }
  return { requirements: all, defaultsCluster: !requirements.some(isClusterKey) };
}

/**
 * A peer of a NetworkPolicy. At least one of the two selectors is there.
 * A namespace selector always asks for a pod, so that one of negative terms only does not match nodes and the outside.
 */
export function kubernetesPeer(
  pods: readonly Requirement[] | undefined,
  namespaces: readonly Requirement[] | undefined,
  namespace: string,
): Selector {
  const all = [...(pods ?? [])];
  if (namespaces === undefined) all.push(inNamespace(namespace));
  else {
    all.push(hasNamespace());
    for (const r of namespaces) all.push({ ...r, key: KEY_NAMESPACE_LABELS + r.key });
  }
  return { requirements: all, defaultsCluster: !(pods ?? []).some(namesCluster) };
}

/** Nodes by their node labels. */
export function nodePeer(requirements: readonly Requirement[]): Selector {
  return { requirements, defaultsCluster: !requirements.some(isClusterKey) };
}

/** Nothing is added: the labels are those of an object, not of an identity. */
export function plainSelector(requirements: readonly Requirement[]): Selector {
  return { requirements, defaultsCluster: false };
}

/** Whether a subject selector asks for `reserved:init`. */
export function selectsInit(requirements: readonly Requirement[]): boolean {
  return requirements.some((r) =>
    r.source === SOURCE_RESERVED && r.key === "init" && (r.operator === "In" || r.operator === "Exists")
  );
}

function isNamespaceKey(r: Requirement): boolean {
  return r.key === KEY_NAMESPACE && (r.source === SOURCE_K8S || r.source === SOURCE_ANY);
}

function isClusterKey(r: Requirement): boolean {
  return r.key === KEY_CLUSTER && (r.source === SOURCE_K8S || r.source === SOURCE_ANY);
}

/** A NetworkPolicy names a cluster by any expression on the key, or by a label with a value. */
function namesCluster(r: Requirement): boolean {
  return r.key === KEY_CLUSTER && !(r.operator === "In" && r.values.length === 1 && r.values[0] === "");
}

function inNamespace(namespace: string): Requirement {
  return { source: SOURCE_K8S, key: KEY_NAMESPACE, operator: "In", values: [namespace] };
}

function hasNamespace(): Requirement {
  return { source: SOURCE_K8S, key: KEY_NAMESPACE, operator: "Exists", values: [] };
}
