/**
 * `networking.k8s.io/v1` NetworkPolicy -> rules, with Cilium's reading of it.
 * @see facts policy.md sections 1 (object), 2 (how Cilium reads it: policyTypes counts only for an empty section)
 */
import { field, type Fields, joinPath, type Problems } from "./fields.ts";
import { type Direction, EGRESS, INGRESS, type Peer, type PolicySpec, type Rule, TIER_NORMAL } from "./model.ts";
import { readIpBlock } from "./parse_cidr.ts";
import { type Ports, readKubernetesPort } from "./parse_ports.ts";
import { kubernetesPeer, readRequirements, subjectInNamespace } from "./parse_selector.ts";

const SPEC_FIELDS = ["podSelector", "ingress", "egress", "policyTypes"];

export function readNetworkPolicySpec(document: Fields, namespace: string, problems: Problems): PolicySpec | undefined {
  const value = field(document, "spec");
  if (value === undefined) return problems.add("spec", "MISSING", "NetworkPolicy without a spec");
  const spec = problems.object(value, "spec", SPEC_FIELDS);
  if (spec === undefined) return undefined;
  const selector = field(spec, "podSelector");
  const pods = selector === undefined
    ? problems.add("spec.podSelector", "MISSING", "Spec without a podSelector; {} selects every pod of the namespace")
    : readRequirements(selector, "spec.podSelector", "kubernetes", problems);
  const types = readPolicyTypes(field(spec, "policyTypes"), problems);
  const ingress = readSection(field(spec, "ingress"), INGRESS, namespace, problems);
  const egress = readSection(field(spec, "egress"), EGRESS, namespace, problems);
  if (pods === undefined) return undefined;
  const hasIngress = ingress.length > 0 || types.includes("Ingress") || !types.includes("Egress");
  const hasEgress = egress.length > 0 || types.includes("Egress");
  return {
    subject: subjectInNamespace(pods, namespace),
    hasIngress,
    hasEgress,
    closesIngress: hasIngress,
    closesEgress: hasEgress,
    rules: [...ingress, ...egress],
  };
}

function readPolicyTypes(value: unknown, problems: Problems): string[] {
  const path = "spec.policyTypes";
  const items = value === undefined ? undefined : problems.items(value, path);
  if (items === undefined) return [];
  if (items.length > 2) problems.add(path, "TOO_MANY", "More than two policyTypes");
  const types: string[] = [];
  items.slice(0, 2).forEach((item, i) => {
    const type = problems.word(item, `${path}[${i}]`, ["Ingress", "Egress"]);
    if (type !== undefined) types.push(type);
  });
  return types;
}

function readSection(value: unknown, direction: Direction, namespace: string, problems: Problems): Rule[] {
  const path = direction === INGRESS ? "spec.ingress" : "spec.egress";
  const rules: Rule[] = [];
  if (value === undefined) return rules;
  problems.items(value, path)?.forEach((item, i) => {
    const rule = readRule(item, `${path}[${i}]`, direction, namespace, problems);
    if (rule !== undefined) rules.push(rule);
  });
  return rules;
}

/** Missing or empty peers: everybody. Missing or empty ports: everything. */
function readRule(
  item: unknown,
  path: string,
  direction: Direction,
  namespace: string,
  problems: Problems,
): Rule | undefined {
  const peersField = direction === INGRESS ? "from" : "to";
  const fields = problems.object(item, path, [peersField, "ports"]);
  if (fields === undefined) return undefined;
  const peersAt = joinPath(path, peersField);
  const peers: Peer[] = [];
  const peerItems = listOf(field(fields, peersField), peersAt, problems);
  peerItems.forEach((one, i) => {
    const peer = readPeer(one, `${peersAt}[${i}]`, namespace, problems);
    if (peer !== undefined) peers.push(peer);
  });
  const portsAt = joinPath(path, "ports");
  const ports: Ports = { ranges: [], names: [] };
  const portItems = listOf(field(fields, "ports"), portsAt, problems);
  portItems.forEach((one, i) => readKubernetesPort(one, `${portsAt}[${i}]`, problems, ports));
  return {
    direction,
    tier: TIER_NORMAL,
    priority: 0,
    verdict: "allow",
    peers: peerItems.length === 0 ? undefined : peers,
    ports: portItems.length === 0 ? undefined : ports.ranges,
    names: ports.names,
    path,
  };
}

function listOf(value: unknown, path: string, problems: Problems): readonly unknown[] {
  return value === undefined ? [] : (problems.items(value, path) ?? []);
}

function readPeer(item: unknown, path: string, namespace: string, problems: Problems): Peer | undefined {
  const fields = problems.object(item, path, ["podSelector", "namespaceSelector", "ipBlock"]);
  if (fields === undefined) return undefined;
  const pods = field(fields, "podSelector");
  const namespaces = field(fields, "namespaceSelector");
  const block = field(fields, "ipBlock");
  if (block !== undefined) {
    if (pods !== undefined || namespaces !== undefined) {
      return problems.add(
        path,
        "CONFLICT",
        "ipBlock stands alone in its entry; write selectors as an entry of their own",
      );
    }
    const cidr = readIpBlock(block, joinPath(path, "ipBlock"), problems);
    return cidr && { kind: "cidr", ...cidr, isStandard: true };
  }
  if (pods === undefined && namespaces === undefined) {
    return problems.add(path, "MISSING", "Peer without podSelector, namespaceSelector or ipBlock");
  }
  const podTerms = pods === undefined
    ? undefined
    : readRequirements(pods, joinPath(path, "podSelector"), "kubernetes", problems);
  const namespaceTerms = namespaces === undefined
    ? undefined
    : readRequirements(namespaces, joinPath(path, "namespaceSelector"), "kubernetes", problems);
  return { kind: "selector", selector: kubernetesPeer(podTerms, namespaceTerms, namespace) };
}
