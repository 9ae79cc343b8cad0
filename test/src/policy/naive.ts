/**
 * The naive evaluator: looks at documents, not at compiled anything, one flow at a time. It shares no code with the engine but the
 * address parser. Deliberately slow and short.
 * @see facts policy.md sections 1 to 6, 9
 */
import { parseAddress, parsePrefix, prefixContains } from "../../../src/ip/address.ts";
import type { EngineSettings, Subject } from "../../../src/policy/engine.ts";
import type { NamedPort } from "../../../src/policy/model.ts";

// deno-lint-ignore no-explicit-any -- documents are plain data
type Doc = any;

export interface Other {
  readonly labels: Readonly<Record<string, string>>;
  readonly namedPorts: readonly NamedPort[];
  /** an outside address */
  readonly address?: string;
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

/** Audit mode lets everything through. */
export function judge(
  docs: readonly Doc[],
  subject: Subject,
  settings: EngineSettings,
  other: Other,
  flow: NaiveFlow,
): number {
  return settings.policy.auditMode ? 0 : judgeStrictly(docs, subject, settings, other, flow);
}

/** 0, 133 or 181: what the rules say. */
export function judgeStrictly(
  docs: readonly Doc[],
  subject: Subject,
  settings: EngineSettings,
  other: Other,
  flow: NaiveFlow,
): number {
  const mode = settings.policy.enforcementMode;
  if (mode === "never") return 0;
  const specs = docs.flatMap((d) => (d.spec ? [d.spec] : []).concat(d.specs ?? []).map((s: Doc) => ({ d, s })))
    .filter(({ d, s }) => selects(d, s, subject.labels));
  const said = specs.flatMap(({ d, s }) => rulesOf(d, s, flow.direction).map((r) => ({ ...r, d })));
  const hits = said.filter((r) =>
    r.rule && peersMatch(r, other, settings, flow) && portsMatch(r, other, subject, flow)
  );
  if (hits.some((r) => r.deny)) return 181;
  if (hits.length > 0) return 0;
  const isLocalhost = flow.direction === 0 && said.length > 0 && "reserved:host" in other.labels;
  if (isLocalhost && settings.policy.allowLocalhost === "always") return 0;
  return mode === "always" || said.some((r) => r.closes) ? 133 : 0;
}

interface Said {
  readonly rule?: Doc;
  readonly deny: boolean;
  readonly closes: boolean;
  readonly cilium: boolean;
}

/** Rules of one direction; one without a body where a section only closes it. */
function rulesOf(d: Doc, s: Doc, direction: 0 | 1): Said[] {
  const name = direction === 0 ? "ingress" : "egress";
  if (d.kind === "NetworkPolicy") {
    const rules = (s[name] ?? []).map((rule: Doc) => ({ rule, deny: false, closes: true, cilium: false }));
    const types = s.policyTypes ?? [];
    const isClosed = direction === 0
      ? types.includes("Ingress") || !types.includes("Egress")
      : types.includes("Egress");
    return rules.length === 0 && isClosed ? [{ deny: false, closes: true, cilium: false }] : rules;
  }
  const closes = s.enableDefaultDeny?.[name] ?? true;
  return [
    ...(s[name] ?? []).map((rule: Doc) => ({ rule, deny: false, closes, cilium: true })),
    ...(s[name + "Deny"] ?? []).map((rule: Doc) => ({ rule, deny: true, closes, cilium: true })),
  ];
}

const NS = "io.kubernetes.pod.namespace";
const NS_LABEL = "io.cilium.k8s.namespace.labels.";
const CLUSTER = "io.cilium.k8s.policy.cluster";

function selects(d: Doc, s: Doc, labels: Readonly<Record<string, string>>): boolean {
  const namespace = d.metadata.namespace;
  if (namespace !== undefined && labels["k8s:" + NS] !== namespace) return false;
  return holds(d.kind === "NetworkPolicy" ? s.podSelector : s.endpointSelector, labels, "");
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
  if (!r.cilium) {
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
  if (kinds[0] === side + "CIDRSet") return list.some((block: Doc) => inCidr(block, other, settings, false));
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
  const blocks = r.cilium ? r.rule.toPorts : r.rule.ports && [{ ports: r.rule.ports }];
  const icmps = r.cilium ? (r.rule.icmps ?? []) : [];
  const isOpen = (blocks ?? []).length === 0 || (!r.cilium && r.rule.ports.length === 0);
  if (isOpen && icmps.length === 0) return true;
  const known = flow.direction === 0 ? subject.namedPorts : other.namedPorts;
  const inPorts = !isOpen &&
    blocks.some((block: Doc) => (block.ports ?? []).some((p: Doc) => portMatches(p, r, known, flow)));
  return inPorts ||
    icmps.some((icmp: Doc) =>
      (icmp.fields ?? []).some((f: Doc) =>
        flow.protocol === (f.family === "IPv6" ? 58 : 1) && flow.port === ICMP_TYPES[String(f.type)]
      )
    );
}

function portMatches(p: Doc, r: Said, known: readonly NamedPort[], flow: NaiveFlow): boolean {
  if (!PROTOCOLS[p.protocol ?? (r.cilium ? "ANY" : "TCP")]!.includes(flow.protocol)) return false;
  if (p.port === undefined || p.port === "0") return true;
  if (!isNaN(Number(p.port))) {
    return flow.port >= Number(p.port) && flow.port <= Math.max(Number(p.port), p.endPort ?? 0);
  }
  const numbers = known.filter((k) => k.name === p.port && PROTOCOLS[k.protocol]![0] === flow.protocol).map((k) =>
    k.port
  );
  return numbers.includes(flow.port) && (r.deny || new Set(numbers).size === 1);
}
