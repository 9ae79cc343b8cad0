/** The L3 part of an entry of a Cilium policy: who is on the other side. @see facts policy.md sections 3 to 5, 8 and 13 */
import { field, type Fields, joinPath, type Problems } from "./fields.ts";
import { EGRESS, ENTITIES, INGRESS, type Peer } from "./model.ts";
import { readExcept, readHoles, readPrefix } from "./parse_cidr.ts";
import { readName } from "./parse_fqdn.ts";
import { readNamespaceName, readObjectName } from "./parse_metadata.ts";
import type { Section } from "./parse_section.ts";
import { ciliumPeer, nodePeer, plainSelector, readRequirements } from "./parse_selector.ts";

/** One peer of a list. */
type PeerReader = (item: unknown, path: string, section: Section, problems: Problems) => Peer | undefined;

/** By the field's name without "from" or "to". */
const READERS: Readonly<Record<string, PeerReader>> = {
  Endpoints: (item, path, section, problems) => {
    const terms = readRequirements(item, path, "cilium", problems);
    return terms && { kind: "selector", selector: ciliumPeer(terms, section.namespace, section.subjectIsInit) };
  },
  Entities: (item, path, _section, problems) => {
    const entity = problems.word(item, path, ENTITIES);
    return entity && { kind: "entity", entity };
  },
  CIDR: (item, path, _section, problems) => {
    const prefix = readPrefix(item, path, problems);
    return prefix && { kind: "cidr", prefix, except: [] };
  },
  CIDRSet: (item, path, _section, problems) => readCidrSet(item, path, problems),
  Nodes: (item, path, _section, problems) => {
    const terms = readRequirements(item, path, "node", problems);
    return terms && { kind: "node", selector: nodePeer(terms) };
  },
  Services: (item, path, _section, problems) => readService(item, path, problems),
  FQDNs: (item, path, _section, problems) => {
    const pattern = readName(item, path, problems);
    return pattern === undefined ? undefined : { kind: "fqdn", pattern };
  },
};

/** Fields that name peers, those that are refused by name among them. */
export function peerFields(section: Section): string[] {
  const side = sideOf(section);
  const fields = ["Endpoints", "Requires", "CIDR", "CIDRSet", "Entities", "Groups", "Nodes"].map((name) => side + name);
  // FQDN peers are known in deny rules too, so that the message says why they are refused there.
  return section.direction === EGRESS ? [...fields, "toServices", "toFQDNs"] : fields;
}

/** The L3 part: `undefined` when there is none, an empty list when one is given that names nobody. */
export function readPeers(entry: Fields, path: string, section: Section, problems: Problems): Peer[] | undefined {
  const side = sideOf(section);
  refusePeers(entry, path, section, problems);
  const kinds = [...Object.keys(READERS), "Groups"].filter((name) => field(entry, side + name) !== undefined);
  if (kinds.length > 1) {
    problems.add(
      path,
      "CONFLICT",
      `Entry with both ${side + kinds[0]} and ${side + kinds[1]}; write an entry for each`,
    );
    return [];
  }
  const kind = kinds[0];
  if (kind === undefined) return undefined;
  const read = READERS[kind];
  const at = joinPath(path, side + kind);
  const peers: Peer[] = [];
  problems.items(field(entry, side + kind), at)?.forEach((item, i) => {
    const peer = read?.(item, `${at}[${i}]`, section, problems);
    if (peer !== undefined) peers.push(peer);
  });
  return peers;
}

function sideOf(section: Section): string {
  return section.direction === INGRESS ? "from" : "to";
}

function refusePeers(entry: Fields, path: string, section: Section, problems: Problems): void {
  const side = sideOf(section);
  const given = (name: string) => field(entry, side + name) !== undefined;
  const refuse = (name: string, code: Parameters<Problems["add"]>[1], message: string) =>
    problems.add(joinPath(path, side + name), code, `${side + name} ${message}`);
  if (given("Groups")) {
    refuse(
      "Groups",
      "UNSUPPORTED_GROUPS",
      "(cloud security groups) is not supported; list their prefixes in a CiliumCIDRGroup and name it by cidrGroupRef",
    );
  }
  if (given("Nodes") && !(section.features.nodeSelectorLabels ?? false)) {
    refuse("Nodes", "TURNED_OFF", "needs enable-node-selector-labels, which is off; use the entity remote-node");
  }
  if (given("FQDNs") && section.verdict === "deny") {
    refuse("FQDNs", "CONFLICT", "is for egress rules that allow only; deny the prefixes by toCIDR");
  }
  const requires = field(entry, `${side}Requires`);
  const items = requires === undefined ? undefined : problems.items(requires, joinPath(path, `${side}Requires`));
  if (items !== undefined && items.length > 0) {
    refuse("Requires", "REMOVED", "was removed in Cilium 1.19; put the conditions into the selectors");
  }
}

const SET_FIELDS = ["cidr", "cidrGroupRef", "cidrGroupSelector"];

function readCidrSet(item: unknown, path: string, problems: Problems): Peer | undefined {
  const fields = problems.object(item, path, [...SET_FIELDS, "except"]);
  if (fields === undefined) return undefined;
  const given = SET_FIELDS.filter((name) => field(fields, name) !== undefined);
  if (given.length > 1) return problems.add(path, "CONFLICT", `Entry with both ${given[0]} and ${given[1]}`);
  const kind = given[0];
  if (kind === undefined) {
    return problems.add(joinPath(path, "cidr"), "MISSING", "Entry without a cidr, cidrGroupRef or cidrGroupSelector");
  }
  const at = joinPath(path, kind);
  const value = field(fields, kind);
  const holes = field(fields, "except");
  const holesAt = joinPath(path, "except");
  if (kind === "cidr") {
    const prefix = readPrefix(value, at, problems);
    const except = readExcept(holes, holesAt, prefix, false, problems);
    return prefix && { kind: "cidr", prefix, except };
  }
  const except = readHoles(holes, holesAt, problems);
  const group = kind === "cidrGroupRef" ? readObjectName(value, at, problems) : readPlain(value, at, problems);
  return group === undefined ? undefined : { kind: "cidrGroup", group, except };
}

/** A selector over an object's own labels, which have no source. */
function readPlain(value: unknown, path: string, problems: Problems) {
  const terms = readRequirements(value, path, "kubernetes", problems);
  return terms && plainSelector(terms);
}

const SERVICE_FIELDS = ["k8sService", "k8sServiceSelector"];

function readService(item: unknown, path: string, problems: Problems): Peer | undefined {
  const fields = problems.object(item, path, SERVICE_FIELDS);
  if (fields === undefined) return undefined;
  const given = SERVICE_FIELDS.filter((name) => field(fields, name) !== undefined);
  if (given.length > 1) {
    return problems.add(path, "CONFLICT", `Entry with both ${given[0]} and ${given[1]}; write an entry for each`);
  }
  const kind = given[0];
  if (kind === undefined) {
    return problems.add(path, "MISSING", `Entry without ${SERVICE_FIELDS.join(" or ")}`);
  }
  const at = joinPath(path, kind);
  const key = kind === "k8sService" ? "serviceName" : "selector";
  const inner = problems.object(field(fields, kind), at, [key, "namespace"]);
  if (inner === undefined) return undefined;
  const namespaceValue = field(inner, "namespace");
  const namespace = namespaceValue === undefined
    ? ""
    : readNamespaceName(namespaceValue, joinPath(at, "namespace"), problems);
  const keyAt = joinPath(at, key);
  const value = field(inner, key);
  if (value === undefined) return problems.add(keyAt, "MISSING", `${kind} without a ${key}`);
  const service = kind === "k8sService" ? readObjectName(value, keyAt, problems) : readPlain(value, keyAt, problems);
  return service === undefined || namespace === undefined ? undefined : { kind: "service", service, namespace };
}
