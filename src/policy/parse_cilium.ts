/**
 * `cilium.io/v2` CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy -> rules.
 * @see facts policy.md sections 3 to 9 and 13
 */
import type { PolicyErrorCode } from "./errors.ts";
import { field, type Fields, joinPath, type Problems } from "./fields.ts";
import {
  type Direction,
  EGRESS,
  ENTITIES,
  INGRESS,
  type Peer,
  type PolicySpec,
  type Rule,
  type RuleVerdict,
  TIER_NORMAL,
} from "./model.ts";
import { readExcept, readPrefix } from "./parse_cidr.ts";
import { type Ports, readCiliumPorts, readIcmps } from "./parse_ports.ts";
import { ciliumPeer, readRequirements, selectsInit, subjectAnywhere, subjectInNamespace } from "./parse_selector.ts";

const SPEC_FIELDS = [
  "endpointSelector",
  "nodeSelector",
  "ingress",
  "ingressDeny",
  "egress",
  "egressDeny",
  "enableDefaultDeny",
  "labels",
  "description",
  "log",
];

/** What an entry of a section depends on. */
interface Section {
  readonly direction: Direction;
  readonly verdict: RuleVerdict;
  readonly namespace: string;
  readonly subjectIsInit: boolean;
}

/** @param namespace the policy's; empty for a cluster-wide one */
export function readCiliumSpecs(document: Fields, namespace: string, problems: Problems): PolicySpec[] {
  const specs: PolicySpec[] = [];
  const one = field(document, "spec");
  const many = field(document, "specs");
  if (one === undefined && many === undefined) problems.add("spec", "MISSING", "Object with neither spec nor specs");
  if (one !== undefined) readSpec(one, "spec", namespace, problems, specs);
  if (many !== undefined) {
    problems.items(many, "specs")?.forEach((item, i) => readSpec(item, `specs[${i}]`, namespace, problems, specs));
  }
  return specs;
}

function readSpec(value: unknown, path: string, namespace: string, problems: Problems, into: PolicySpec[]): void {
  const spec = problems.object(value, path, SPEC_FIELDS);
  if (spec === undefined) return;
  readNotes(spec, path, problems);
  const terms = readSubject(spec, path, namespace, problems);
  const subjectIsInit = terms !== undefined && selectsInit(terms);
  const section = (name: string, direction: Direction, verdict: RuleVerdict) =>
    readSection(field(spec, name), joinPath(path, name), { direction, verdict, namespace, subjectIsInit }, problems);
  const ingress = [...section("ingress", INGRESS, "allow"), ...section("ingressDeny", INGRESS, "deny")];
  const egress = [...section("egress", EGRESS, "allow"), ...section("egressDeny", EGRESS, "deny")];
  if (["ingress", "ingressDeny", "egress", "egressDeny"].every((name) => field(spec, name) === undefined)) {
    problems.add(path, "MISSING", "Rule without ingress, ingressDeny, egress or egressDeny");
  }
  const defaults = readEnableDefaultDeny(
    field(spec, "enableDefaultDeny"),
    joinPath(path, "enableDefaultDeny"),
    problems,
  );
  if (terms === undefined) return;
  into.push({
    subject: namespace === "" ? subjectAnywhere(terms) : subjectInNamespace(terms, namespace),
    hasIngress: ingress.length > 0,
    hasEgress: egress.length > 0,
    // Said of a direction without rules, it has no effect in Cilium 1.20.
    closesIngress: ingress.length > 0 && (defaults.ingress ?? true),
    closesEgress: egress.length > 0 && (defaults.egress ?? true),
    rules: [...ingress, ...egress],
  });
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
      return problems.add(nodesAt, "CONFLICT", "nodeSelector is for CiliumClusterwideNetworkPolicy only");
    }
    if (endpoints !== undefined) {
      return problems.add(nodesAt, "CONFLICT", "Rule with both endpointSelector and nodeSelector");
    }
    return problems.add(nodesAt, "UNSUPPORTED_NODE_SELECTOR", "nodeSelector (host firewall) is not supported yet");
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
  if (value === undefined) return rules;
  problems.items(value, path)?.forEach((item, i) => {
    const rule = readEntry(item, `${path}[${i}]`, section, problems);
    if (rule !== undefined) rules.push(rule);
  });
  return rules;
}

function entryFields(section: Section): string[] {
  const side = section.direction === INGRESS ? "from" : "to";
  const fields = ["Endpoints", "Requires", "CIDR", "CIDRSet", "Entities", "Groups", "Nodes"].map((name) => side + name);
  if (section.direction === EGRESS) fields.push("toServices");
  if (section.verdict === "allow") {
    fields.push("authentication");
    if (section.direction === EGRESS) fields.push("toFQDNs");
  }
  return [...fields, "toPorts", "icmps"];
}

function readEntry(item: unknown, path: string, section: Section, problems: Problems): Rule | undefined {
  const entry = problems.object(item, path, entryFields(section));
  if (entry === undefined) return undefined;
  refuseUnsupported(entry, path, problems);
  const peers = readPeers(entry, path, section, problems);
  const ports = readPortPart(entry, path, section, problems);
  // `{}` admits nothing, though the direction is closed by it: the opposite of NetworkPolicy.
  const isEmpty = peers === undefined && ports === undefined;
  return {
    direction: section.direction,
    tier: TIER_NORMAL,
    priority: 0,
    verdict: section.verdict,
    peers: isEmpty ? [] : peers,
    ports: ports?.ranges,
    names: ports?.names ?? [],
    path,
  };
}

const UNSUPPORTED_FIELDS: readonly (readonly [string, PolicyErrorCode, string])[] = [
  ["toFQDNs", "UNSUPPORTED_TO_FQDNS", "toFQDNs is not supported yet"],
  [
    "toServices",
    "UNSUPPORTED_TO_SERVICES",
    "toServices is not supported yet; select the service's endpoints by labels",
  ],
  ["fromGroups", "UNSUPPORTED_GROUPS", "fromGroups (cloud security groups) is not supported"],
  ["toGroups", "UNSUPPORTED_GROUPS", "toGroups (cloud security groups) is not supported"],
  ["fromNodes", "UNSUPPORTED_NODES", "fromNodes is not supported yet; use the entity remote-node"],
  ["toNodes", "UNSUPPORTED_NODES", "toNodes is not supported yet; use the entity remote-node"],
];

function refuseUnsupported(entry: Fields, path: string, problems: Problems): void {
  for (const [name, code, message] of UNSUPPORTED_FIELDS) {
    if (field(entry, name) !== undefined) problems.add(joinPath(path, name), code, message);
  }
  for (const name of ["fromRequires", "toRequires"]) {
    const value = field(entry, name);
    const items = value === undefined ? undefined : problems.items(value, joinPath(path, name));
    if (items !== undefined && items.length > 0) {
      problems.add(
        joinPath(path, name),
        "REMOVED",
        `${name} was removed in Cilium 1.19; put the conditions into the selectors`,
      );
    }
  }
  const authentication = field(entry, "authentication");
  if (authentication === undefined) return;
  const at = joinPath(path, "authentication");
  const fields = problems.object(authentication, at, ["mode"]);
  if (fields === undefined) return;
  const mode = problems.word(field(fields, "mode"), joinPath(at, "mode"), ["disabled", "required", "test-always-fail"]);
  if (mode !== undefined && mode !== "disabled") {
    problems.add(
      joinPath(at, "mode"),
      "UNSUPPORTED_AUTHENTICATION",
      `Authentication mode ${mode} is not supported; every peer is authenticated by its tunnel`,
    );
  }
}

/** The L3 part: `undefined` when there is none, an empty list when one is given that names nobody. */
function readPeers(entry: Fields, path: string, section: Section, problems: Problems): Peer[] | undefined {
  const side = section.direction === INGRESS ? "from" : "to";
  const kinds = ["Endpoints", "CIDR", "CIDRSet", "Entities", "Nodes", "Groups", "FQDNs", "Services"]
    .map((name) => side + name)
    .filter((name) => field(entry, name) !== undefined);
  if (kinds.length > 1) {
    problems.add(path, "CONFLICT", `Entry with both ${kinds[0]} and ${kinds[1]}; write an entry for each`);
    return [];
  }
  const kind = kinds[0];
  if (kind === undefined) return undefined;
  const at = joinPath(path, kind);
  const peers: Peer[] = [];
  problems.items(field(entry, kind), at)?.forEach((item, i) => {
    const peer = readPeer(kind.slice(side.length), item, `${at}[${i}]`, section, problems);
    if (peer !== undefined) peers.push(peer);
  });
  return peers;
}

function readPeer(kind: string, item: unknown, path: string, section: Section, problems: Problems): Peer | undefined {
  switch (kind) {
    case "Endpoints": {
      const terms = readRequirements(item, path, "cilium", problems);
      return terms && { kind: "selector", selector: ciliumPeer(terms, section.namespace, section.subjectIsInit) };
    }
    case "Entities": {
      const entity = problems.word(item, path, ENTITIES);
      return entity && { kind: "entity", entity };
    }
    case "CIDR": {
      const prefix = readPrefix(item, path, problems);
      return prefix && { kind: "cidr", prefix, except: [] };
    }
    case "CIDRSet":
      return readCidrSet(item, path, problems);
    default:
      return undefined; // refused by name already
  }
}

function readCidrSet(item: unknown, path: string, problems: Problems): Peer | undefined {
  const fields = problems.object(item, path, ["cidr", "cidrGroupRef", "cidrGroupSelector", "except"]);
  if (fields === undefined) return undefined;
  const given = ["cidr", "cidrGroupRef", "cidrGroupSelector"].filter((name) => field(fields, name) !== undefined);
  if (given.length > 1) return problems.add(path, "CONFLICT", `Entry with both ${given[0]} and ${given[1]}`);
  if (given.length === 0) return problems.add(joinPath(path, "cidr"), "MISSING", "Entry without a cidr");
  if (given[0] !== "cidr") {
    return problems.add(
      joinPath(path, given[0]!),
      "UNSUPPORTED_CIDR_GROUP",
      `${given[0]} is not supported yet; list the prefixes`,
    );
  }
  const prefix = readPrefix(field(fields, "cidr"), joinPath(path, "cidr"), problems);
  const except = readExcept(field(fields, "except"), joinPath(path, "except"), prefix, false, problems);
  return prefix && { kind: "cidr", prefix, except };
}

/** The L4 part: `undefined` when there is none (every protocol and port). */
function readPortPart(entry: Fields, path: string, section: Section, problems: Problems): Ports | undefined {
  const blocksAt = joinPath(path, "toPorts");
  const icmpsAt = joinPath(path, "icmps");
  const blocks = listOf(field(entry, "toPorts"), blocksAt, problems);
  const icmps = listOf(field(entry, "icmps"), icmpsAt, problems);
  if (blocks.length > 0 && icmps.length > 0) {
    problems.add(icmpsAt, "CONFLICT", "icmps and toPorts need entries of their own");
  }
  if (blocks.length === 0 && icmps.length === 0) return undefined;
  const ports: Ports = { ranges: [], names: [] };
  blocks.forEach((block, i) => readBlock(block, `${blocksAt}[${i}]`, section, problems, ports));
  icmps.forEach((icmp, i) => readIcmps(icmp, `${icmpsAt}[${i}]`, problems, ports));
  return ports;
}

function readBlock(item: unknown, path: string, section: Section, problems: Problems, into: Ports): void {
  const known = section.verdict === "deny"
    ? ["ports"]
    : ["ports", "rules", "terminatingTLS", "originatingTLS", "serverNames", "listener"];
  const block = problems.object(item, path, known);
  if (block === undefined) return;
  if (section.verdict === "allow") refuseProxy(block, path, problems);
  const ports = field(block, "ports");
  if (ports !== undefined) readCiliumPorts(ports, joinPath(path, "ports"), problems, into);
}

function refuseProxy(block: Fields, path: string, problems: Problems): void {
  const rules = field(block, "rules");
  if (rules !== undefined) refuseL7(rules, joinPath(path, "rules"), problems);
  for (const name of ["terminatingTLS", "originatingTLS", "serverNames"]) {
    const value = field(block, name);
    if (value !== undefined) problems.add(joinPath(path, name), "UNSUPPORTED_TLS", `${name} is not supported yet`);
  }
  if (field(block, "listener") !== undefined) {
    problems.add(
      joinPath(path, "listener"),
      "UNSUPPORTED_LISTENER",
      "listener (a custom Envoy listener) is not supported",
    );
  }
}

function refuseL7(value: unknown, path: string, problems: Problems): void {
  const rules = problems.object(value, path, ["http", "dns", "kafka", "l7proto", "l7"]);
  if (rules === undefined) return;
  for (const name of ["http", "dns"]) {
    if (field(rules, name) !== undefined) {
      problems.add(joinPath(path, name), "UNSUPPORTED_L7", `L7 rules (${name}) are not supported yet`);
    }
  }
  for (const name of ["kafka", "l7proto", "l7"]) {
    if (field(rules, name) !== undefined) {
      problems.add(joinPath(path, name), "REMOVED", `L7 rules (${name}) were removed in Cilium 1.20`);
    }
  }
}

function listOf(value: unknown, path: string, problems: Problems): readonly unknown[] {
  return value === undefined ? [] : (problems.items(value, path) ?? []);
}
