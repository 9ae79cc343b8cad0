/**
 * `cilium.io/v2` CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy -> rules. Who the peers are is in parse_peers.ts, ports in
 * parse_blocks.ts, what a proxy judges in parse_l7.ts.
 * @see facts policy.md sections 3 to 9 and 13
 */
import type { PolicyFeatures } from "./features.ts";
import { field, type Fields, joinPath, type Problems } from "./fields.ts";
import { type Direction, EGRESS, INGRESS, type PolicySpec, type Rule, type RuleVerdict, TIER_NORMAL } from "./model.ts";
import { readPortPart } from "./parse_blocks.ts";
import { peerFields, readPeers } from "./parse_peers.ts";
import type { Section } from "./parse_section.ts";
import { plainSelector, readRequirements, selectsInit, subjectInNamespace } from "./parse_selector.ts";

const SECTION_FIELDS = ["ingress", "ingressDeny", "egress", "egressDeny"];
const SPEC_FIELDS = [
  "endpointSelector",
  "nodeSelector",
  ...SECTION_FIELDS,
  "enableDefaultDeny",
  "labels",
  "description",
  "log",
];

/** @param namespace the policy's; empty for a cluster-wide one */
export function readCiliumSpecs(
  document: Fields,
  namespace: string,
  features: PolicyFeatures,
  problems: Problems,
): PolicySpec[] {
  const specs: PolicySpec[] = [];
  const one = field(document, "spec");
  const many = field(document, "specs");
  if (one === undefined && many === undefined) problems.add("spec", "MISSING", "Object with neither spec nor specs");
  const read = (value: unknown, path: string) => {
    const spec = readSpec(value, path, namespace, features, problems);
    if (spec !== undefined) specs.push(spec);
  };
  if (one !== undefined) read(one, "spec");
  if (many !== undefined) problems.items(many, "specs")?.forEach((item, i) => read(item, `specs[${i}]`));
  return specs;
}

function readSpec(
  value: unknown,
  path: string,
  namespace: string,
  features: PolicyFeatures,
  problems: Problems,
): PolicySpec | undefined {
  const spec = problems.object(value, path, SPEC_FIELDS);
  if (spec === undefined) return undefined;
  readNotes(spec, path, problems);
  const isForNodes = field(spec, "nodeSelector") !== undefined;
  const terms = readSubject(spec, path, namespace, problems);
  const subjectIsInit = terms !== undefined && selectsInit(terms);
  const defaults = readEnableDefaultDeny(
    field(spec, "enableDefaultDeny"),
    joinPath(path, "enableDefaultDeny"),
    problems,
  );
  const section = (name: string, direction: Direction, verdict: RuleVerdict) => {
    const closes = defaults[direction === INGRESS ? "ingress" : "egress"] ?? true;
    const context = { direction, verdict, namespace, subjectIsInit, isForNodes, closes, features };
    return readSection(field(spec, name), joinPath(path, name), context, problems);
  };
  const ingress = [...section("ingress", INGRESS, "allow"), ...section("ingressDeny", INGRESS, "deny")];
  const egress = [...section("egress", EGRESS, "allow"), ...section("egressDeny", EGRESS, "deny")];
  if (SECTION_FIELDS.every((name) => field(spec, name) === undefined)) {
    problems.add(path, "MISSING", `Rule without ${SECTION_FIELDS.slice(0, -1).join(", ")} or egressDeny`);
  }
  if (terms === undefined) return undefined;
  return {
    subject: namespace === "" ? plainSelector(terms) : subjectInNamespace(terms, namespace),
    ...(isForNodes && { isForNodes }),
    hasIngress: ingress.length > 0,
    hasEgress: egress.length > 0,
    // Said of a direction without rules, it has no effect in Cilium 1.20.
    closesIngress: ingress.length > 0 && (defaults.ingress ?? true),
    closesEgress: egress.length > 0 && (defaults.egress ?? true),
    rules: [...ingress, ...egress],
  };
}

/** Fields that say nothing about traffic, checked for their type only. */
function readNotes(spec: Fields, path: string, problems: Problems): void {
  const labels = field(spec, "labels");
  if (labels !== undefined) {
    problems.items(labels, joinPath(path, "labels"))?.forEach((item, i) =>
      problems.object(item, `${joinPath(path, "labels")}[${i}]`, ["key", "value", "source"])
    );
  }
  const description = field(spec, "description");
  if (description !== undefined) problems.text(description, joinPath(path, "description"));
  const log = field(spec, "log");
  if (log === undefined) return;
  const fields = problems.object(log, joinPath(path, "log"), ["value"]);
  const value = fields && field(fields, "value");
  if (value !== undefined) problems.text(value, joinPath(joinPath(path, "log"), "value"));
}

function readSubject(spec: Fields, path: string, namespace: string, problems: Problems) {
  const endpoints = field(spec, "endpointSelector");
  const nodes = field(spec, "nodeSelector");
  const nodesAt = joinPath(path, "nodeSelector");
  if (nodes !== undefined) {
    if (namespace !== "") {
      return problems.add(
        nodesAt,
        "CONFLICT",
        "nodeSelector is for CiliumClusterwideNetworkPolicy only; nodes are of no namespace",
      );
    }
    if (endpoints !== undefined) {
      return problems.add(
        nodesAt,
        "CONFLICT",
        "Rule with both endpointSelector and nodeSelector; write one of specs for each",
      );
    }
    return readRequirements(nodes, nodesAt, "node", problems);
  }
  const endpointsAt = joinPath(path, "endpointSelector");
  if (endpoints === undefined) {
    return problems.add(endpointsAt, "MISSING", "Rule without an endpointSelector; {} selects every endpoint");
  }
  return readRequirements(endpoints, endpointsAt, "cilium", problems);
}

function readEnableDefaultDeny(
  value: unknown,
  path: string,
  problems: Problems,
): { ingress?: boolean; egress?: boolean } {
  const fields = value === undefined ? undefined : problems.object(value, path, ["ingress", "egress"]);
  const defaults: { ingress?: boolean; egress?: boolean } = {};
  if (fields === undefined) return defaults;
  for (const name of ["ingress", "egress"] as const) {
    const one = field(fields, name);
    const flag = one === undefined ? undefined : problems.boolean(one, joinPath(path, name));
    if (flag !== undefined) defaults[name] = flag;
  }
  return defaults;
}

function readSection(value: unknown, path: string, section: Section, problems: Problems): Rule[] {
  const rules: Rule[] = [];
  const items = value === undefined ? undefined : problems.items(value, path);
  const known = entryFields(section);
  items?.forEach((item, i) => readEntry(item, `${path}[${i}]`, section, known, problems, rules));
  return rules;
}

function entryFields(section: Section): string[] {
  return [...peerFields(section), ...(section.verdict === "allow" ? ["authentication"] : []), "toPorts", "icmps"];
}

/** One rule for what needs no proxy, and one for each block of ports that has L7 rules. */
function readEntry(
  item: unknown,
  path: string,
  section: Section,
  known: readonly string[],
  problems: Problems,
  into: Rule[],
): void {
  const entry = problems.object(item, path, known);
  if (entry === undefined) return;
  refuseAuthentication(field(entry, "authentication"), joinPath(path, "authentication"), problems);
  const peers = readPeers(entry, path, section, problems);
  const part = readPortPart(entry, path, section, problems);
  const common = { direction: section.direction, tier: TIER_NORMAL, priority: 0, verdict: section.verdict };
  if (part === undefined) {
    // `{}` admits nothing, though the direction is closed by it: the opposite of NetworkPolicy.
    into.push({ ...common, peers: peers ?? [], ports: undefined, names: [], path });
    return;
  }
  const { plain } = part;
  if (plain !== undefined) into.push({ ...common, peers, ports: plain.ranges, names: plain.names, path });
  for (const { ports, l7, path } of part.proxied) {
    into.push({ ...common, peers, ports: ports.ranges, names: ports.names, l7, path });
  }
}

function refuseAuthentication(value: unknown, path: string, problems: Problems): void {
  const fields = value === undefined ? undefined : problems.object(value, path, ["mode"]);
  if (fields === undefined) return;
  const at = joinPath(path, "mode");
  const mode = problems.word(field(fields, "mode"), at, ["disabled", "required", "test-always-fail"]);
  if (mode === undefined || mode === "disabled") return;
  problems.add(
    at,
    "UNSUPPORTED_AUTHENTICATION",
    `Authentication mode ${mode} is not supported; leave it out: every member is authenticated by its tunnel's key`,
  );
}
