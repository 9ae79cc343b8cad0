/**
 * `policy.networking.k8s.io` ClusterNetworkPolicy (v1alpha2) and its forerunners AdminNetworkPolicy and BaselineAdminNetworkPolicy
 * (v1alpha1) -> rules. Their rules are ordered, and selecting a pod isolates nothing. An entry that is not known here is refused,
 * which keeps the gate as it was.
 * @see facts policy.md section 14; network-policy-api, apis/v1alpha1 and apis/v1alpha2
 */
import type { PolicyFeatures } from "./features.ts";
import { field, type Fields, joinPath, type Problems, quote } from "./fields.ts";
import {
  type Direction,
  EGRESS,
  INGRESS,
  type Peer,
  type PolicySpec,
  type Rule,
  type RuleVerdict,
  type Selector,
  TIER_ADMIN,
  TIER_BASELINE,
} from "./model.ts";
import { readPrefix } from "./parse_cidr.ts";
import { readAdminPort, readProtocol } from "./parse_cluster_ports.ts";
import { readNameText } from "./parse_fqdn.ts";
import type { Ports } from "./parse_ports.ts";
import { kubernetesPeer, nodePeer, readRequirements } from "./parse_selector.ts";

/** What the three kinds differ in. */
interface Dialect {
  readonly kind: string;
  readonly hasTier: boolean;
  readonly hasPriority: boolean;
  /** the tier where the object names none */
  readonly tier: number;
  readonly verdicts: Readonly<Record<string, RuleVerdict>>;
  readonly hasDomainNames: boolean;
  /** a missing namespaceSelector is every namespace */
  readonly needsNamespaces: boolean;
  /** of rules, of peers and of port entries */
  readonly maxItems: number;
  readonly portsField: "protocols" | "ports";
}

const CLUSTER: Dialect = {
  kind: "ClusterNetworkPolicy",
  hasTier: true,
  hasPriority: true,
  tier: TIER_ADMIN,
  verdicts: { Accept: "allow", Deny: "deny", Pass: "pass" },
  hasDomainNames: true,
  needsNamespaces: false,
  maxItems: 25,
  portsField: "protocols",
};

const ADMIN: Dialect = {
  ...CLUSTER,
  kind: "AdminNetworkPolicy",
  hasTier: false,
  verdicts: { Allow: "allow", Deny: "deny", Pass: "pass" },
  needsNamespaces: true,
  maxItems: 100,
  portsField: "ports",
};

const BASELINE: Dialect = {
  ...ADMIN,
  kind: "BaselineAdminNetworkPolicy",
  hasPriority: false,
  tier: TIER_BASELINE,
  verdicts: { Allow: "allow", Deny: "deny" },
  hasDomainNames: false,
};

const MAX_PRIORITY = 1000;
const MAX_NAME = 100;
/** of prefixes and of names in one peer */
const MAX_IN_PEER = 25;
/** Rule i of an object has the priority of the object and i hundredths, as in Cilium 1.20. */
const PRIORITY_STEP = 1 / 100;

type Reader = (document: Fields, namespace: string, features: PolicyFeatures, problems: Problems) => PolicySpec[];

export const readClusterSpecs: Reader = (document, _namespace, features, problems) =>
  readSpec(document, CLUSTER, features, problems);

export const readAdminSpecs: Reader = (document, _namespace, features, problems) =>
  readSpec(document, ADMIN, features, problems);

export const readBaselineSpecs: Reader = (document, _namespace, features, problems) => {
  const metadata = field(document, "metadata") as Fields | undefined; // readMetadata has looked at it
  const name = metadata === undefined ? undefined : field(metadata, "name");
  if (typeof name === "string" && name !== "default") {
    problems.add(
      "metadata.name",
      "BAD_VALUE",
      `${quote(name)} is not "default", the one ${BASELINE.kind} of a cluster`,
    );
  }
  return readSpec(document, BASELINE, features, problems);
};

/** What the rules of one object have in common. */
interface Context {
  readonly dialect: Dialect;
  readonly features: PolicyFeatures;
  readonly tier: number;
  readonly priority: number;
}

function readSpec(document: Fields, dialect: Dialect, features: PolicyFeatures, problems: Problems): PolicySpec[] {
  const value = field(document, "spec");
  if (value === undefined) problems.add("spec", "MISSING", `${dialect.kind} without a spec`);
  const known = ["subject", "ingress", "egress"];
  if (dialect.hasPriority) known.unshift("priority");
  if (dialect.hasTier) known.unshift("tier");
  const spec = value === undefined ? undefined : problems.object(value, "spec", known);
  if (spec === undefined) return [];
  const tier = dialect.hasTier ? readTier(field(spec, "tier"), problems) : dialect.tier;
  const priority = dialect.hasPriority ? readPriority(field(spec, "priority"), problems) : 0;
  const subject = readSubject(field(spec, "subject"), dialect, problems);
  const context = { dialect, features, tier: tier ?? dialect.tier, priority: priority ?? 0 };
  const ingress = readRules(field(spec, "ingress"), INGRESS, context, problems);
  const egress = readRules(field(spec, "egress"), EGRESS, context, problems);
  if (subject === undefined) return [];
  return [{
    subject,
    hasIngress: ingress.length > 0,
    hasEgress: egress.length > 0,
    closesIngress: false,
    closesEgress: false,
    rules: [...ingress, ...egress],
  }];
}

function readTier(value: unknown, problems: Problems): number | undefined {
  if (value === undefined) return problems.add("spec.tier", "MISSING", "Spec without a tier: Admin or Baseline");
  const word = problems.word(value, "spec.tier", ["Admin", "Baseline"]);
  return word === undefined ? undefined : word === "Admin" ? TIER_ADMIN : TIER_BASELINE;
}

function readPriority(value: unknown, problems: Problems): number | undefined {
  const path = "spec.priority";
  if (value === undefined) {
    return problems.add(path, "MISSING", `Spec without a priority: 0 to ${MAX_PRIORITY}, the lower one first`);
  }
  return problems.integer(value, path, 0, MAX_PRIORITY);
}

function readSubject(value: unknown, dialect: Dialect, problems: Problems): Selector | undefined {
  const path = "spec.subject";
  if (value === undefined) return problems.add(path, "MISSING", "Spec without a subject: namespaces or pods");
  const one = onlyField(value, path, "Subject", ["namespaces", "pods"], problems);
  const selector = one && readPods(one.value, joinPath(path, one.name), one.name === "pods", dialect, problems);
  // A policy acts on its own cluster's endpoints anyway.
  return selector && { requirements: selector.requirements, defaultsCluster: false };
}

/** The one field that is set. */
function onlyField(
  value: unknown,
  path: string,
  what: string,
  known: readonly string[],
  problems: Problems,
): { name: string; value: unknown } | undefined {
  const fields = problems.object(value, path, known);
  if (fields === undefined) return undefined;
  const given = known.filter((name) => field(fields, name) !== undefined);
  if (given.length > 1) {
    return problems.add(path, "CONFLICT", `${what} with both ${given[0]} and ${given[1]}; exactly one is meant`);
  }
  const name = given[0];
  if (name === undefined) return problems.add(path, "MISSING", `${what} without any of ${known.join(", ")}`);
  return { name, value: field(fields, name) };
}

/** Pods of some namespaces, and of some labels when `isPods`. */
function readPods(
  value: unknown,
  path: string,
  isPods: boolean,
  dialect: Dialect,
  problems: Problems,
): Selector | undefined {
  const selector = (one: unknown, at: string) => readRequirements(one, at, "kubernetes", problems);
  if (!isPods) {
    const terms = selector(value, path);
    return terms && kubernetesPeer(undefined, terms, "");
  }
  const fields = problems.object(value, path, ["namespaceSelector", "podSelector"]);
  if (fields === undefined) return undefined;
  const required = (name: string, isNeeded: boolean) => {
    const one = field(fields, name);
    const at = joinPath(path, name);
    if (one !== undefined) return selector(one, at);
    return isNeeded ? problems.add(at, "MISSING", `pods without a ${name}; {} selects all`) : [];
  };
  const namespaces = required("namespaceSelector", dialect.needsNamespaces);
  const pods = required("podSelector", true);
  return namespaces && pods && kubernetesPeer(pods, namespaces, "");
}

/** A list within its bounds; an empty one has no meaning of its own and is refused. */
function readList(
  value: unknown,
  path: string,
  most: number,
  problems: Problems,
  empty: string,
): readonly unknown[] | undefined {
  const items = problems.items(value, path);
  if (items === undefined) return undefined;
  if (items.length === 0) return problems.add(path, "MISSING", empty);
  if (items.length > most) return problems.add(path, "TOO_MANY", `${items.length} entries, more than ${most}`);
  return items;
}

function readRules(value: unknown, direction: Direction, context: Context, problems: Problems): Rule[] {
  const path = direction === INGRESS ? "spec.ingress" : "spec.egress";
  const rules: Rule[] = [];
  const items = value === undefined ? undefined : problems.items(value, path);
  if (items === undefined) return rules;
  const { maxItems } = context.dialect;
  if (items.length > maxItems) {
    problems.add(path, "TOO_MANY", `${items.length} rules, more than ${maxItems}`);
    return rules;
  }
  items.forEach((item, i) => {
    const rule = readRule(item, `${path}[${i}]`, direction, i, context, problems);
    if (rule !== undefined) rules.push(rule);
  });
  return rules;
}

function readRule(
  item: unknown,
  path: string,
  direction: Direction,
  index: number,
  context: Context,
  problems: Problems,
): Rule | undefined {
  const { dialect, tier, priority } = context;
  const peersField = direction === INGRESS ? "from" : "to";
  const fields = problems.object(item, path, ["name", "action", peersField, dialect.portsField]);
  if (fields === undefined) return undefined;
  readRuleName(field(fields, "name"), joinPath(path, "name"), problems);
  const verdict = readAction(field(fields, "action"), joinPath(path, "action"), dialect, problems);
  const peersAt = joinPath(path, peersField);
  const peers = readPeers(field(fields, peersField), peersAt, direction, verdict, context, problems);
  const portsAt = joinPath(path, dialect.portsField);
  const ports = readPorts(field(fields, dialect.portsField), portsAt, dialect, problems);
  if (ports !== undefined && ports.names.length > 0 && peers.some(({ kind }) => kind !== "selector")) {
    problems.add(
      portsAt,
      "CONFLICT",
      "A port by name needs peers that are pods; networks, nodes and domainNames name none",
    );
  }
  if (verdict === undefined) return undefined;
  return {
    direction,
    tier,
    priority: priority + index * PRIORITY_STEP,
    verdict,
    peers,
    ports: ports?.ranges,
    names: ports?.names ?? [],
    path,
  };
}

function readRuleName(value: unknown, path: string, problems: Problems): void {
  const name = value === undefined ? undefined : problems.text(value, path);
  if (name === undefined || name.length <= MAX_NAME) return;
  problems.add(path, "BAD_VALUE", `${quote(name)} has ${name.length} characters, more than ${MAX_NAME}`);
}

function readAction(value: unknown, path: string, dialect: Dialect, problems: Problems): RuleVerdict | undefined {
  const words = Object.keys(dialect.verdicts);
  if (value === undefined) return problems.add(path, "MISSING", `Rule without an action: ${words.join(", ")}`);
  const word = problems.word(value, path, words);
  return word === undefined ? undefined : dialect.verdicts[word];
}

function readPeers(
  value: unknown,
  path: string,
  direction: Direction,
  verdict: RuleVerdict | undefined,
  context: Context,
  problems: Problems,
): Peer[] {
  const peers: Peer[] = [];
  const none = "Rule without peers; {namespaces: {}} is every pod";
  if (value === undefined) problems.add(path, "MISSING", none);
  const items = value === undefined ? undefined : readList(value, path, context.dialect.maxItems, problems, none);
  items?.forEach((item, i) => peers.push(...readPeer(item, `${path}[${i}]`, direction, verdict, context, problems)));
  return peers;
}

function readPeer(
  item: unknown,
  path: string,
  direction: Direction,
  verdict: RuleVerdict | undefined,
  { dialect, features }: Context,
  problems: Problems,
): Peer[] {
  const known = ["namespaces", "pods"];
  if (direction === EGRESS) known.push("nodes", "networks", ...(dialect.hasDomainNames ? ["domainNames"] : []));
  const one = onlyField(item, path, "Peer", known, problems);
  if (one === undefined) return [];
  const { name, value } = one;
  const at = joinPath(path, name);
  if (name === "networks") return readNetworks(value, at, problems);
  if (name === "domainNames") return readDomainNames(value, at, verdict, problems);
  if (name === "nodes") {
    const terms = readNodes(value, at, features, problems);
    return terms === undefined ? [] : [{ kind: "node", selector: nodePeer(terms) }];
  }
  const selector = readPods(value, at, name === "pods", dialect, problems);
  return selector === undefined ? [] : [{ kind: "selector", selector }];
}

function readNodes(value: unknown, path: string, features: PolicyFeatures, problems: Problems) {
  if (!(features.nodeSelectorLabels ?? false)) {
    const message = "nodes needs enable-node-selector-labels, which is off; list the nodes' addresses in networks";
    return problems.add(path, "TURNED_OFF", message);
  }
  return readRequirements(value, path, "node", problems);
}

function readNetworks(value: unknown, path: string, problems: Problems): Peer[] {
  const peers: Peer[] = [];
  readList(value, path, MAX_IN_PEER, problems, "Peer without prefixes")?.forEach((item, i) => {
    const prefix = readPrefix(item, `${path}[${i}]`, problems);
    if (prefix !== undefined) peers.push({ kind: "cidr", prefix, except: [], isStandard: true });
  });
  return peers;
}

const DOMAIN_NAME = /^(\*\.)?([A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?\.)+[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?\.?$/;

/** A leading "*." is one or more labels, which is "**." in Cilium's patterns. */
function readDomainNames(value: unknown, path: string, verdict: RuleVerdict | undefined, problems: Problems): Peer[] {
  if (verdict === "deny" || verdict === "pass") {
    problems.add(
      path,
      "CONFLICT",
      "domainNames are for rules that allow only; deny what is left by a later rule of networks",
    );
  }
  const peers: Peer[] = [];
  readList(value, path, MAX_IN_PEER, problems, "Peer without names")?.forEach((item, i) => {
    const at = `${path}[${i}]`;
    const text = problems.text(item, at);
    if (text === undefined) return;
    if (text.length <= 255 && !DOMAIN_NAME.test(text)) {
      problems.add(
        at,
        "BAD_VALUE",
        `${quote(text)} is no domain name: labels and dots, with "*." at most at its start`,
      );
      return;
    }
    const pattern = readNameText(text.startsWith("*.") ? `*${text}` : text, at, problems);
    if (pattern !== undefined) peers.push({ kind: "fqdn", pattern });
  });
  return peers;
}

function readPorts(value: unknown, path: string, dialect: Dialect, problems: Problems): Ports | undefined {
  if (value === undefined) return undefined;
  const ports: Ports = { ranges: [], names: [] };
  const read = dialect.portsField === "protocols" ? readProtocol : readAdminPort;
  const empty = `An empty list; leave ${dialect.portsField} out to mean everything`;
  readList(value, path, dialect.maxItems, problems, empty)?.forEach((item, i) => {
    const one = onlyField(item, `${path}[${i}]`, "Entry", read.known, problems);
    if (one !== undefined) read.entry(one.name, one.value, joinPath(`${path}[${i}]`, one.name), problems, ports);
  });
  return ports;
}
