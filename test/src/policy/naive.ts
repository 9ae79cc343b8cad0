/**
 * The naive evaluator: looks at documents, not at compiled anything, one flow at a time. It shares no code with the engine but the
 * address parser. Deliberately slow and short.
 * @see facts policy.md sections 1 to 9, 14
 */
import { parseAddress, parsePrefix, prefixContains } from "../../../src/ip/address.ts";
import type { EngineSettings, Subject } from "../../../src/policy/engine.ts";
import type { NamedPort } from "../../../src/policy/model.ts";
import { GROUPS, LEARNED, SERVICES } from "./generate.ts";

// deno-lint-ignore no-explicit-any -- documents are plain data
type Doc = any;

export interface Other {
  readonly labels: Readonly<Record<string, string>>;
  readonly namedPorts: readonly NamedPort[];
  /** an outside address */
  readonly address?: string;
  /** of a node; keys without a source */
  readonly nodeLabels?: Readonly<Record<string, string>>;
  /** whose it is, when it is nobody's outside */
  readonly place?: "nodes" | "pods";
  readonly isWorld?: boolean;
  /** an identity that nobody knows: rules for everybody only */
  readonly isUnknown?: boolean;
}

export interface NaiveFlow {
  readonly direction: 0 | 1;
  readonly protocol: number;
  readonly port: number;
}

/** What the rules say of one flow. */
export interface Answer {
  /** 0, 133, 181, or 205: as far as a proxy allows it */
  readonly verdict: number;
  /** with 205: paths and patterns that either proxy could let through; "*" is everything */
  readonly http: readonly string[];
  readonly dns: readonly string[];
}

/** Audit mode forwards what would be dropped. */
export function judge(
  docs: readonly Doc[],
  subject: Subject,
  settings: EngineSettings,
  other: Other,
  flow: NaiveFlow,
): number {
  const { verdict } = judgeStrictly(docs, subject, settings, other, flow);
  return settings.policy.auditMode && verdict !== 205 ? 0 : verdict;
}

/** What the rules say, without audit mode. */
export function judgeStrictly(
  docs: readonly Doc[],
  subject: Subject,
  settings: EngineSettings,
  other: Other,
  flow: NaiveFlow,
): Answer {
  const { enforcementMode: mode, hostFirewall, allowLocalhost, flavor } = settings.policy;
  const isHost = "reserved:host" in subject.labels;
  if (mode === "never" || (isHost && !hostFirewall)) return answer(0);
  const said = docs.flatMap((d) => (d.spec ? [d.spec] : []).concat(d.specs ?? []).map((s: Doc) => ({ d, s })))
    .filter(({ d, s }) => selects(d, s, subject, hostFirewall === true))
    .flatMap(({ d, s }) => rulesOf(d, s, flow.direction).map((r) => ({ ...r, d })));
  const hits = said.filter((r) =>
    r.rule && peersMatch(r, other, settings, flow) && portsMatch(r, other, subject, flow)
  );
  const closes = said.some((r) => r.closes);
  const skipsBaseline = closes && (flavor === "kubernetes" || said.some((r) => r.action === "pass"));
  for (const tier of skipsBaseline ? [100, 200] : [100, 200, 250]) {
    for (const order of [...new Set(hits.filter((r) => r.tier === tier).map((r) => r.order))].sort((a, b) => a - b)) {
      const equal = hits.filter((r) => r.tier === tier && r.order === order);
      const plain = equal.filter((r) => !l7Of(r, other, subject, flow).length);
      if (equal.some((r) => r.action === "deny")) return answer(181);
      if (plain.some((r) => r.action === "allow")) return answer(0);
      if (plain.length < equal.length) return answer(205, equal.flatMap((r) => l7Of(r, other, subject, flow)));
      break; // a pass
    }
  }
  const isLocalhost = flow.direction === 0 && said.some((r) => r.isIngress) && "reserved:host" in other.labels;
  if (isLocalhost && allowLocalhost === "always") return answer(0);
  return answer(mode === "always" || closes ? 133 : 0);
}

function answer(verdict: number, l7: readonly Doc[] = []): Answer {
  const unique = (texts: string[]) => [...new Set(texts)].sort();
  return {
    verdict,
    http: unique(l7.flatMap((r) => (r.http ?? []).map((one: Doc) => one.path))),
    dns: unique(l7.flatMap((r) => (r.dns ?? []).map((one: Doc) => one.matchPattern))),
  };
}

interface Said {
  readonly rule?: Doc;
  readonly action: "allow" | "deny" | "pass";
  readonly closes: boolean;
  /** counts as ingress rules for the local host */
  readonly isIngress: boolean;
  readonly style: "cilium" | "kubernetes" | "cluster";
  readonly tier: number;
  readonly order: number;
}

const NORMAL = { action: "allow", tier: 200, order: 0, isIngress: true } as const;

/** Rules of one direction; one without a body where a section only closes it. */
function rulesOf(d: Doc, s: Doc, direction: 0 | 1): Said[] {
  const name = direction === 0 ? "ingress" : "egress";
  if (d.kind === "NetworkPolicy") {
    const rules = (s[name] ?? []).map((rule: Doc) => ({ ...NORMAL, rule, closes: true, style: "kubernetes" }));
    const types = s.policyTypes ?? [];
    const isClosed = direction === 0
      ? types.includes("Ingress") || !types.includes("Egress")
      : types.includes("Egress");
    return rules.length === 0 && isClosed ? [{ ...NORMAL, closes: true, style: "kubernetes" }] : rules;
  }
  if (d.kind === "ClusterNetworkPolicy") {
    return (s[name] ?? []).map((rule: Doc, i: number) => ({
      rule,
      action: rule.action === "Accept" ? "allow" : rule.action.toLowerCase(),
      closes: false,
      isIngress: true,
      style: "cluster",
      tier: s.tier === "Admin" ? 100 : 250,
      order: s.priority * 100 + i,
    }));
  }
  const closes = s.enableDefaultDeny?.[name] ?? true;
  const all = { ...NORMAL, closes, style: "cilium" } as const;
  return [
    ...(s[name] ?? []).map((rule: Doc) => ({ ...all, rule })),
    ...(s[name + "Deny"] ?? []).map((rule: Doc) => ({ ...all, rule, action: "deny" })),
  ];
}

const NS = "io.kubernetes.pod.namespace";
const NS_LABEL = "io.cilium.k8s.namespace.labels.";
const CLUSTER = "io.cilium.k8s.policy.cluster";

function selects(d: Doc, s: Doc, { labels, nodeLabels }: Subject, hostFirewall: boolean): boolean {
  if (s.nodeSelector) return hostFirewall && nodeLabels !== undefined && holds(s.nodeSelector, sourced(nodeLabels), "");
  if ("reserved:host" in labels) return false;
  const namespace = d.metadata.namespace;
  if (d.kind === "ClusterNetworkPolicy") return isPodPeer(s.subject, labels);
  if (namespace !== undefined && labels["k8s:" + NS] !== namespace) return false;
  return holds(d.kind === "NetworkPolicy" ? s.podSelector : s.endpointSelector, labels, "");
}

function sourced(labels: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).map(([key, value]) => [`k8s:${key}`, value]));
}

/** Pods as a ClusterNetworkPolicy writes them. */
function isPodPeer({ namespaces, pods }: Doc, labels: Readonly<Record<string, string>>): boolean {
  return "k8s:" + NS in labels && holds(namespaces ?? pods.namespaceSelector ?? {}, labels, NS_LABEL) &&
    (pods === undefined || holds(pods.podSelector, labels, ""));
}

/** Every condition of a selector; `prefix` goes before each key. */
function holds(selector: Doc, labels: Readonly<Record<string, string>>, prefix: string): boolean {
  const value = (key: string) => {
    const [source, name] = key.includes(":") ? key.split(":") as [string, string] : ["any", key];
    const sources = source === "any" ? ["k8s", "reserved", "cidr"] : [source];
    return sources.map((one) => labels[`${one}:${prefix}${name}`]).find((found) => found !== undefined);
  };
  return Object.entries(selector.matchLabels ?? {}).every(([k, v]) => value(k) === v) &&
    (selector.matchExpressions ?? []).every((e: Doc) => {
      const found = value(e.key);
      if (e.operator === "In") return found !== undefined && e.values.includes(found);
      if (e.operator === "NotIn") return found === undefined || !e.values.includes(found);
      return (found !== undefined) === (e.operator === "Exists");
    });
}

function keysOf(selector: Doc): string[] {
  return [...Object.keys(selector.matchLabels ?? {}), ...(selector.matchExpressions ?? []).map((e: Doc) => e.key)];
}

function peersMatch(r: Said & { d: Doc }, other: Other, settings: EngineSettings, flow: NaiveFlow): boolean {
  const side = flow.direction === 0 ? "from" : "to";
  const isLocal = !settings.policy.defaultLocalCluster || other.labels["k8s:" + CLUSTER] === settings.cluster;
  const isPod = "k8s:" + NS in other.labels;
  const namespace = r.d.metadata.namespace;
  if (r.style === "cluster") {
    return !other.isUnknown && r.rule[side].some((peer: Doc) => {
      if (peer.networks) {
        return peer.networks.some((cidr: string) => inCidr({ cidr }, other, settings, true));
      }
      if (peer.nodes) return isNode(peer.nodes, other, settings);
      if (peer.domainNames) {
        return peer.domainNames.some((name: string) => isNamed(name.replace(/^\*\./, "**."), other));
      }
      return isLocal && isPodPeer(peer, other.labels);
    });
  }
  if (r.style === "kubernetes") {
    const peers = r.rule[side] ?? [];
    if (peers.length === 0) return true;
    return !other.isUnknown && peers.some((peer: Doc) => {
      if (peer.ipBlock) return inCidr(peer.ipBlock, other, settings, true);
      if (!isPod || !isLocal) return false;
      if (peer.podSelector && !holds(peer.podSelector, other.labels, "")) return false;
      if (peer.namespaceSelector) return holds(peer.namespaceSelector, other.labels, NS_LABEL);
      return other.labels["k8s:" + NS] === namespace;
    });
  }
  const kinds = Object.keys(r.rule).filter((key) => key.startsWith(side) && key !== "toPorts");
  if (kinds.length === 0) return (r.rule.toPorts ?? r.rule.icmps ?? []).length > 0; // `{}` is nobody
  const list = r.rule[kinds[0]!];
  if (kinds[0] === side + "Entities" && list.includes("all")) return true;
  if (other.isUnknown) return false;
  if (kinds[0] === side + "CIDR") return list.some((cidr: string) => inCidr({ cidr }, other, settings, false));
  if (kinds[0] === side + "CIDRSet") {
    return list.some((block: Doc) => blocksOf(block).some((one) => inCidr(one, other, settings, false)));
  }
  if (kinds[0] === side + "Nodes") return list.some((selector: Doc) => isNode(selector, other, settings));
  if (kinds[0] === "toFQDNs") return list.some((one: Doc) => isNamed(one.matchPattern, other));
  if (kinds[0] === "toServices") {
    return list.some((one: Doc) => servicesOf(one).some((s) => isBehind(s, other, settings)));
  }
  if (kinds[0] === side + "Entities") return list.some((entity: string) => inEntity(entity, other, settings));
  return list.some((selector: Doc) => {
    if (!holds(selector, other.labels, "")) return false;
    const keys = keysOf(selector);
    if (keys.some((key) => key.startsWith("reserved:"))) return true;
    const bare = keys.map((key) => key.replace(/^(k8s|any):/, ""));
    if (!bare.includes(CLUSTER) && !isLocal) return false;
    if (bare.includes(NS)) return true;
    if (namespace === undefined) return isPod;
    return bare.some((key) => key.startsWith(NS_LABEL)) || other.labels["k8s:" + NS] === namespace;
  });
}

/** A set entry that names groups is one entry for each of their prefixes. */
function blocksOf(block: Doc): Doc[] {
  if (block.cidr) return [block];
  const isMeant = ({ name, labels }: typeof GROUPS[number]) =>
    block.cidrGroupRef ? name === block.cidrGroupRef : holds(block.cidrGroupSelector, sourced(labels), "");
  return GROUPS.filter(isMeant).flatMap(({ prefixes }) => prefixes.map((cidr) => ({ cidr, except: block.except })));
}

function isNode(selector: Doc, { labels, nodeLabels }: Other, settings: EngineSettings): boolean {
  if (nodeLabels === undefined || !("reserved:remote-node" in labels)) return false;
  if (!holds(selector, sourced(nodeLabels), "")) return false;
  return keysOf(selector).includes(CLUSTER) || !settings.policy.defaultLocalCluster ||
    nodeLabels[CLUSTER] === settings.cluster;
}

/** A star is no dot; two stars and a dot in front are one or more labels. */
function isNamed(pattern: string, { address, place }: Other): boolean {
  if (address === undefined || place !== undefined) return false;
  const rest = pattern.replace(/^\*\*\./, "").replaceAll(".", "\\.").replaceAll("*", "[^.]*");
  const regex = pattern === "*" ? /./ : new RegExp(`^${pattern.startsWith("**.") ? "([^.]+\\.)+" : ""}${rest}\\.$`);
  return Object.entries(LEARNED).some(([name, addresses]) => addresses.includes(address) && regex.test(name));
}

type Service = typeof SERVICES[number];

function servicesOf({ k8sService, k8sServiceSelector }: Doc): Service[] {
  const { namespace } = k8sService ?? k8sServiceSelector;
  return SERVICES.filter((s) => namespace === undefined || s.namespace === namespace)
    .filter((s) =>
      k8sService ? s.name === k8sService.serviceName : holds(k8sServiceSelector.selector, sourced(s.labels), "")
    );
}

function isBehind({ selector, namespace, addresses }: Service, other: Other, settings: EngineSettings): boolean {
  if (selector === undefined) {
    return addresses.some((address) =>
      inCidr({ cidr: `${address}/${address.includes(":") ? 128 : 32}` }, other, settings, false)
    );
  }
  return other.labels["k8s:" + NS] === namespace && holds({ matchLabels: selector }, other.labels, "");
}

function inCidr(block: Doc, other: Other, settings: EngineSettings, isStandard: boolean): boolean {
  const { flavor, cidrMatchMode = [] } = settings.policy;
  if (other.place && !cidrMatchMode.includes(other.place) && !(isStandard && flavor === "kubernetes")) return false;
  if (other.isWorld) return block.cidr.endsWith("/0");
  if (other.address === undefined) return false;
  const address = parseAddress(other.address)!;
  return prefixContains(parsePrefix(block.cidr)!, address) &&
    !(block.except ?? []).some((hole: string) => prefixContains(parsePrefix(hole)!, address));
}

function inEntity(entity: string, other: Other, settings: EngineSettings): boolean {
  const has = (name: string) => `reserved:${name}` in other.labels;
  if (entity === "none") return false;
  if (entity === "world") return has("world") || has("world-ipv4") || has("world-ipv6");
  if (!entity.startsWith("cluster")) return has(entity);
  if (["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"].some(has)) return true;
  const cluster = other.labels["k8s:" + CLUSTER];
  return entity === "cluster" ? cluster === settings.cluster : cluster !== undefined;
}

const PROTOCOLS: Readonly<Record<string, number[]>> = { TCP: [6], UDP: [17], SCTP: [132], ANY: [6, 17, 132] };
const ICMP_TYPES: Readonly<Record<string, number>> = { "8": 8, EchoReply: 0, EchoRequest: 128 };

function portsMatch(r: Said, other: Other, subject: Subject, flow: NaiveFlow): boolean {
  const { rule, style } = r;
  if (style === "cluster") {
    return rule.protocols === undefined || rule.protocols.some((p: Doc) => protocolMatches(p, flow));
  }
  const icmps = style === "cilium" ? (rule.icmps ?? []) : [];
  const isOpen = style === "cilium" ? (rule.toPorts ?? []).length === 0 : (rule.ports ?? []).length === 0;
  if (isOpen && icmps.length === 0) return true;
  return (!isOpen && blocksFor(r, other, subject, flow).length > 0) ||
    icmps.some((icmp: Doc) =>
      (icmp.fields ?? []).some((f: Doc) =>
        flow.protocol === (f.family === "IPv6" ? 58 : 1) && flow.port === ICMP_TYPES[String(f.type)]
      )
    );
}

function protocolMatches({ tcp, udp }: Doc, { protocol, port }: NaiveFlow): boolean {
  const { number, range } = (tcp ?? udp).destinationPort;
  return protocol === (tcp ? 6 : 17) && (range ? range.start <= port && port <= range.end : port === number);
}

/** Blocks of ports that hold a flow. */
function blocksFor(r: Said, other: Other, subject: Subject, flow: NaiveFlow): Doc[] {
  const blocks = r.style === "cilium" ? (r.rule.toPorts ?? []) : [{ ports: r.rule.ports }];
  const known = flow.direction === 0 ? subject.namedPorts : other.namedPorts;
  // there is no DNS over SCTP: ANY is UDP and TCP there
  const carried = blocks.filter((block: Doc) => flow.protocol !== 132 || block.rules?.dns === undefined);
  return carried.filter((block: Doc) => (block.ports ?? []).some((p: Doc) => portMatches(p, r, known, flow)));
}

/** L7 rules under which alone a rule allows a flow; none where it allows all of it. Without default deny nothing is refused. */
function l7Of(r: Said, other: Other, subject: Subject, flow: NaiveFlow): Doc[] {
  if (r.style !== "cilium" || r.action !== "allow") return [];
  const blocks = blocksFor(r, other, subject, flow);
  if (blocks.some((block) => block.rules === undefined)) return [];
  const everything = (rules: Doc) => (rules.http ? { http: [{ path: "*" }] } : { dns: [{ matchPattern: "*" }] });
  return blocks.flatMap(({ rules }) => (r.closes ? [rules] : [rules, everything(rules)]));
}

function portMatches(p: Doc, r: Said, known: readonly NamedPort[], flow: NaiveFlow): boolean {
  if (!PROTOCOLS[p.protocol ?? (r.style === "cilium" ? "ANY" : "TCP")]!.includes(flow.protocol)) return false;
  if (p.port === undefined || p.port === "0") return true;
  if (!isNaN(Number(p.port))) {
    return flow.port >= Number(p.port) && flow.port <= Math.max(Number(p.port), p.endPort ?? 0);
  }
  const numbers = known.filter((k) => k.name === p.port && PROTOCOLS[k.protocol]![0] === flow.protocol).map((k) =>
    k.port
  );
  return numbers.includes(flow.port) && (r.action === "deny" || new Set(numbers).size === 1);
}
