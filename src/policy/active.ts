/**
 * Which rules hold for a subject, and what that closes. The part of policy that knows about modes, default deny and the rules that
 * nobody wrote.
 * @see facts policy.md sections 2 (localhost), 9 (default deny, modes)
 */
import { type Labels, SOURCE_ANY, SOURCE_K8S, splitKey } from "../identity/labels.ts";
import {
  INGRESS,
  type NamedPort,
  type Policy,
  type PolicySettings,
  type PolicySpec,
  type Rule,
  TIER_DEFAULT,
} from "./model.ts";
import { bindSelector, type BoundSelector, type LabelSet, labelSet, matchesSelector } from "./selector.ts";

/** The endpoint that a table is made for. */
export interface Subject {
  readonly labels: Labels;
  readonly identity: number;
  readonly namespace: string;
  readonly namedPorts: readonly NamedPort[];
  /** labels of the node whose host it is: policies with a nodeSelector may hold for it; absent where it is no host */
  readonly nodeLabels?: Labels;
}

/** A subject made ready for matching. */
export interface SubjectSets {
  readonly endpoint: LabelSet;
  readonly node: LabelSet | undefined;
}

/** @param labels those of its identity, with its namespace's current ones */
export function subjectSets(labels: Labels, nodeLabels: Labels | undefined): SubjectSets {
  return { endpoint: labelSet(labels), node: nodeLabels && labelSet(withSource(nodeLabels, SOURCE_K8S)) };
}

/** Labels whose keys all have a source: plain ones get this one. */
export function withSource(labels: Labels, source: string): Labels {
  const sourced: Record<string, string> = {};
  for (const name of Object.keys(labels)) {
    const key = splitKey(name);
    sourced[key.source === SOURCE_ANY ? `${source}:${key.key}` : name] = labels[name]!;
  }
  return sourced;
}

/** Settings and the name of the local cluster. */
export interface EngineSettings {
  readonly cluster: string;
  readonly policy: PolicySettings;
}

/**
 * The specs of a policy that select a subject. None in mode never. An endpoint's policies never select a bare host, nor do those
 * with a nodeSelector without the host firewall.
 */
export function selectingSpecs(policy: Policy, subject: SubjectSets, settings: PolicySettings): PolicySpec[] {
  if (settings.enforcementMode === "never") return [];
  return policy.specs.filter((spec) => {
    const set = spec.isForNodes !== true
      ? (isHost(subject) ? undefined : subject.endpoint)
      : settings.hostFirewall === true
      ? subject.node
      : undefined;
    return set !== undefined && matchesSelector(boundSubject(spec), set);
  });
}

/** It is the host and nothing else: no endpoint. */
function isHost({ endpoint }: SubjectSets): boolean {
  return "reserved:host" in endpoint.labels;
}

/** Subjects made ready for matching: every change of the subject asks all of them. Entries go with their policies. */
const boundSubjects = new WeakMap<PolicySpec, BoundSelector>();

function boundSubject(spec: PolicySpec): BoundSelector {
  let bound = boundSubjects.get(spec);
  if (bound === undefined) boundSubjects.set(spec, bound = bindSelector(spec.subject, undefined));
  return bound;
}

/** How many selecting specs say what of each direction: kept up to date by the engine. */
export interface Selections {
  hasIngress: number;
  hasEgress: number;
  closesIngress: number;
  closesEgress: number;
}

export function noSelections(): Selections {
  return { hasIngress: 0, hasEgress: 0, closesIngress: 0, closesEgress: 0 };
}

/** @param step 1 to count a spec, -1 to take it back */
export function countSpec(selections: Selections, spec: PolicySpec, step: number): void {
  if (spec.hasIngress) selections.hasIngress += step;
  if (spec.hasEgress) selections.hasEgress += step;
  if (spec.closesIngress) selections.closesIngress += step;
  if (spec.closesEgress) selections.closesEgress += step;
}

/**
 * Whether what no rule allows is dropped. An endpoint whose labels are not known yet is closed in every mode but never; a host is open
 * without the host firewall.
 */
export function isClosed(closing: number, subject: SubjectSets, settings: PolicySettings): boolean {
  if (settings.enforcementMode === "never" || (isHost(subject) && settings.hostFirewall !== true)) return false;
  return settings.enforcementMode === "always" || closing > 0 || "reserved:init" in subject.endpoint.labels;
}

/**
 * Whether rules of the baseline tier are asked in a direction. By Kubernetes, whoever is isolated by a policy of the normal tier is
 * decided there. Cilium's default deny comes after the baseline, unless some rule passes: then it is written out in the normal tier.
 * @param closing specs that close the direction
 * @see facts policy.md section 14
 */
export function isBaselineAsked(closing: number, hasPass: boolean, settings: PolicySettings): boolean {
  return closing === 0 || (settings.flavor !== "kubernetes" && !hasPass);
}

/** Key that the rule for the local host goes by. */
export const LOCALHOST_POLICY = "reserved:allow-localhost-ingress";

/** The local host may reach the endpoint, below every rule that somebody wrote. */
const LOCALHOST_RULE: Rule = {
  direction: INGRESS,
  tier: TIER_DEFAULT,
  priority: 0,
  verdict: "allow",
  peers: [{ kind: "entity", entity: "host" }],
  ports: undefined,
  names: [],
  path: "",
};

/** Rules that nobody wrote: the local host's, where some ingress rule selects the subject. */
export function implicitRules(selections: Selections, settings: PolicySettings): Rule[] {
  const allows = settings.allowLocalhost === "always" && settings.enforcementMode !== "never";
  return allows && selections.hasIngress > 0 ? [LOCALHOST_RULE] : [];
}
