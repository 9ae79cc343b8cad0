/** Whether an identity's labels meet a selector. */
import { bareKey, KEY_CLUSTER, type Labels, SOURCE_ANY, SOURCE_K8S } from "../identity/labels.ts";
import type { Requirement, Selector } from "./model.ts";

/** Labels made ready for matching. */
export interface LabelSet {
  readonly labels: Labels;
  /** the same labels as (bare key, value) */
  readonly pairs: readonly (readonly [key: string, value: string])[];
  /** some label has another source than k8s */
  readonly hasOtherSources: boolean;
}

export function labelSet(labels: Labels): LabelSet {
  const pairs: [string, string][] = [];
  let hasOtherSources = false;
  for (const name of Object.keys(labels)) {
    pairs.push([bareKey(name), labels[name]!]);
    if (!name.startsWith("k8s:")) hasOtherSources = true;
  }
  return { labels, pairs, hasOtherSources };
}

/** A selector with every default filled in, ready for matching. */
export interface BoundSelector {
  readonly requirements: readonly Requirement[];
  /** "source:key" of each requirement; for source `any` that of k8s, where it nearly always is */
  readonly names: readonly string[];
  /** equal for selectors that match the same by their text */
  readonly id: string;
}

/** @param cluster the local cluster where selectors default to it, else `undefined` */
export function bindSelector(selector: Selector, cluster: string | undefined): BoundSelector {
  const requirements = [...selector.requirements];
  if (selector.defaultsCluster && cluster !== undefined) {
    requirements.push({ source: SOURCE_K8S, key: KEY_CLUSTER, operator: "In", values: [cluster] });
  }
  return bindRequirements(requirements);
}

export function bindRequirements(requirements: readonly Requirement[]): BoundSelector {
  const names = requirements.map((r) => `${r.source === SOURCE_ANY ? SOURCE_K8S : r.source}:${r.key}`);
  const texts = requirements.map((r) => `${r.source}:${r.key} ${r.operator} ${r.values.join(",")}`);
  return { requirements, names, id: "labels " + texts.sort().join(";") };
}

export function matchesSelector(selector: BoundSelector, set: LabelSet): boolean {
  const { requirements, names } = selector;
  for (let i = 0; i < requirements.length; i++) if (!meets(requirements[i]!, names[i]!, set)) return false;
  return true;
}

function meets(requirement: Requirement, name: string, set: LabelSet): boolean {
  const value = set.labels[name];
  const operator = requirement.operator;
  if (operator === "Exists" || operator === "DoesNotExist") {
    const exists = value !== undefined ||
      (isAny(requirement, set) && set.pairs.some(([key]) => key === requirement.key));
    return exists === (operator === "Exists");
  }
  const values = requirement.values;
  const isIn = (value !== undefined && values.includes(value)) ||
    (isAny(requirement, set) && set.pairs.some(([key, other]) => key === requirement.key && values.includes(other)));
  return isIn === (operator === "In");
}

/** Labels of every source have to be looked at. */
function isAny(requirement: Requirement, set: LabelSet): boolean {
  return set.hasOtherSources && requirement.source === SOURCE_ANY;
}
