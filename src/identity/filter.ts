/**
 * Which labels make an identity. Labels that differ in every pod (hashes, indices) would give each pod an identity of its own.
 * @see Cilium `pkg/labelsfilter/filter.go`, the default list
 */
import { SOURCE_RESERVED } from "./labels.ts";

/** Each matches from the first character of the key. */
const INCLUDED: readonly RegExp[] = [
  /^io\.kubernetes\.pod\.namespace/,
  /^io\.cilium\.k8s\.namespace\.labels/,
  /^app\.kubernetes\.io/,
  /^io\.cilium\.k8s\.policy\.cluster/,
  /^io\.cilium\.k8s\.policy\.serviceaccount/,
];

const EXCLUDED: readonly RegExp[] = [
  /^io\.kubernetes/,
  /^kubernetes\.io/,
  /^statefulset\.kubernetes\.io\/pod-name/,
  /^apps\.kubernetes\.io\/pod-index/,
  /^batch\.kubernetes\.io\/job-completion-index/,
  /^batch\.kubernetes\.io\/controller-uid/,
  /^.*beta\.kubernetes\.io/,
  /^k8s\.io/,
  /^pod-template-generation/,
  /^pod-template-hash/,
  /^controller-revision-hash/,
  /^controller-uid/,
  /^annotation.*/,
  /^etcd_node/,
  /^topology\.kubernetes\.io/,
];

/** Whether a label counts: no exclusion matches, or the longest inclusion is longer than the shortest exclusion. */
export function isIdentityLabel(source: string, key: string): boolean {
  if (source === SOURCE_RESERVED) return true;
  let shortestExclusion = Infinity;
  for (const pattern of EXCLUDED) {
    shortestExclusion = Math.min(shortestExclusion, matchLength(pattern, key) ?? Infinity);
  }
  if (shortestExclusion === Infinity) return true;
  let longestInclusion = -1;
  for (const pattern of INCLUDED) longestInclusion = Math.max(longestInclusion, matchLength(pattern, key) ?? -1);
  return longestInclusion > shortestExclusion;
}

function matchLength(pattern: RegExp, key: string): number | undefined {
  return pattern.exec(key)?.[0].length;
}
