/**
 * A mesh at rest, for questions about flows: every endpoint that policies can select has its engine and its `PolicyTable`, the
 * datapath's own, made when it is first asked. `run_scenario.ts` and `policy trace` ask through it.
 */
import type { Labels } from "../../src/identity/labels.ts";
import type { IpAddress } from "../../src/ip/address.ts";
import { KEY_CLUSTER } from "../../src/identity/labels.ts";
import { IDENTITY_HOST, IDENTITY_REMOTE_NODE } from "../../src/identity/reserved.ts";
import {
  type CidrGroup,
  type EngineSettings,
  type Explanation,
  type JudgedBy,
  PolicyEngine,
  type PolicyService,
  type RuleRef,
  type Subject as EngineSubject,
} from "../../src/policy/engine.ts";
import {
  EGRESS,
  INGRESS,
  type NamedPort,
  type Policy,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
} from "../../src/policy/model.ts";
import { auditedVerdict } from "../../src/policy/decision.ts";
import { PolicyTable } from "../../src/policy/table.ts";
import { FORWARD, REDIRECT, type Verdict } from "../../src/verdict.ts";
import { addressKey } from "./read_values.ts";

export interface WorldEndpoint {
  readonly ref: string;
  readonly labels: Labels;
  readonly identity: number;
  readonly namespace: string;
  readonly namedPorts: readonly NamedPort[];
  readonly addresses: readonly IpAddress[];
  /** policies can select it: it is of the local cluster, and is no node unless the host firewall is on */
  readonly isSubject: boolean;
  /** of an endpoint that is a host as well (a member is): policies with a nodeSelector may hold for it too */
  readonly nodeLabels?: Labels;
  /** of a node; keys without a source */
  readonly node?: { readonly labels: Labels; readonly cluster: string };
}

/** Who is at one end of a flow. */
export type WorldEnd = WorldEndpoint | { readonly address: IpAddress };

export interface Flow {
  readonly from: WorldEnd;
  readonly to: WorldEnd;
  /** IP protocol number */
  readonly protocol: number;
  /** destination port, or ICMP type */
  readonly port: number;
  readonly side: "egress" | "ingress" | "both";
}

/** What one end says. */
export interface Step {
  readonly side: "egress" | "ingress";
  readonly subject: WorldEndpoint;
  /** identity of the other end, as this one sees it */
  readonly identity: number;
  readonly verdict: Verdict;
  /** the drop that audit mode held back, else FORWARD */
  readonly audited: Verdict;
  readonly decidedBy: RuleRef | undefined;
  readonly isEnforced: boolean;
  /** what a proxy judges by, where the verdict is REDIRECT; else empty */
  readonly l7: readonly JudgedBy[];
  /** the same by going through the rules one by one */
  readonly explain: () => Explanation;
}

export interface Judgement {
  /** that of the first end that drops it, else REDIRECT where a proxy is on the way */
  readonly verdict: Verdict;
  /** the first drop that audit mode held back, else FORWARD */
  readonly audited: Verdict;
  /** the ends that were asked, in the order in which a packet meets them; those that no policy can select are not */
  readonly steps: readonly Step[];
  /** it never leaves the endpoint, so nobody was asked */
  readonly isLoopback: boolean;
}

export interface WorldInput {
  readonly settings: EngineSettings;
  readonly endpoints: readonly WorldEndpoint[];
  /** by the name that rules are reported under */
  readonly policies: ReadonlyMap<string, Policy>;
  readonly groups?: readonly CidrGroup[];
  readonly services?: readonly PolicyService[];
  /** learned addresses by canonical name */
  readonly names?: ReadonlyMap<string, readonly IpAddress[]>;
}

interface Subject {
  readonly engine: PolicyEngine;
  readonly table: PolicyTable;
}

export class PolicyWorld {
  readonly #input: WorldInput;
  readonly #subjects = new Map<WorldEndpoint, Subject>();
  readonly #byAddress = new Map<string, WorldEndpoint>();

  constructor(input: WorldInput) {
    this.#input = input;
    for (const endpoint of input.endpoints) {
      for (const address of endpoint.addresses) this.#byAddress.set(addressKey(address), endpoint);
    }
  }

  /** The endpoint with an address, or the address as one that belongs to nobody. */
  endOf(address: IpAddress): WorldEnd {
    return this.#byAddress.get(addressKey(address)) ?? { address };
  }

  /** Whether the first packet of a flow passes: out of its source, then into its destination. */
  judge(flow: Flow): Judgement {
    const { from, to, side } = flow;
    if (from === to) return { verdict: FORWARD, audited: FORWARD, steps: [], isLoopback: true };
    const steps: Step[] = [];
    if (side !== "ingress" && isSubject(from)) steps.push(this.#ask("egress", from, to, flow));
    if (side !== "egress" && isSubject(to)) steps.push(this.#ask("ingress", to, from, flow));
    const drop = steps.find(({ verdict }) => verdict !== FORWARD && verdict !== REDIRECT) ??
      steps.find(({ verdict }) => verdict === REDIRECT);
    const audited = steps.find((step) => step.audited !== FORWARD);
    return { verdict: drop?.verdict ?? FORWARD, audited: audited?.audited ?? FORWARD, steps, isLoopback: false };
  }

  #ask(side: Step["side"], subject: WorldEndpoint, other: WorldEnd, flow: Flow): Step {
    const { protocol, port } = flow;
    const { engine, table } = this.#subjectOf(subject);
    const direction = side === "ingress" ? INGRESS : EGRESS;
    const identity = this.#identityOf(other, subject, engine, flow);
    const verdict = table.lookup(direction, identity, protocol, port);
    return {
      side,
      subject,
      identity,
      verdict,
      audited: auditedVerdict(table.kind),
      decidedBy: table.decidedBy < 0 ? undefined : engine.ruleOf(table.decidedBy),
      isEnforced: table.isEnforced(direction),
      l7: engine.l7RulesFor(direction, identity, protocol, port),
      explain: () => engine.explain(direction, identity, protocol, port),
    };
  }

  /** As the datapath's ipcache would say: an address of the mesh may have an identity of its own where prefixes can mean it. */
  #identityOf(other: WorldEnd, subject: WorldEndpoint, engine: PolicyEngine, flow: Flow): number {
    if (!("identity" in other)) return engine.identityOfAddress(other.address);
    if (subject.node !== undefined && other.identity === IDENTITY_HOST) return IDENTITY_REMOTE_NODE; // the host of another
    const address = this.#hasOwnIdentity(other) ? addressIn(other, flow) : undefined;
    return address === undefined ? other.identity : engine.identityOfAddress(address);
  }

  #hasOwnIdentity(endpoint: WorldEndpoint): boolean {
    if (endpoint.node !== undefined) return true;
    const { cidrMatchMode, flavor } = this.#input.settings.policy;
    const isNode = NODE_LABELS.some((label) => label in endpoint.labels);
    return flavor === "kubernetes" || (cidrMatchMode ?? []).includes(isNode ? "nodes" : "pods");
  }

  #subjectOf(endpoint: WorldEndpoint): Subject {
    let subject = this.#subjects.get(endpoint);
    if (subject === undefined) this.#subjects.set(endpoint, subject = this.#makeSubject(endpoint));
    return subject;
  }

  #makeSubject(endpoint: WorldEndpoint): Subject {
    const { settings, endpoints, policies, groups, services, names } = this.#input;
    const engine = new PolicyEngine();
    engine.setSettings(settings);
    engine.setSubject(subjectOf(endpoint));
    for (const { identity, labels, namedPorts, addresses, node } of endpoints) {
      engine.putIdentity(identity, labels, namedPorts);
      for (const address of addresses) {
        if (node === undefined) engine.putAddress(address, identity);
        else engine.putNode(address, identity, { ...node.labels, [KEY_CLUSTER]: node.cluster });
      }
    }
    for (const group of groups ?? []) engine.putCidrGroup(group);
    for (const service of services ?? []) engine.putService(`${service.namespace}/${service.name}`, service);
    for (const [name, addresses] of names ?? []) engine.putNames(name, addresses);
    for (const [key, policy] of policies) engine.putPolicy(key, policy);
    const table = new PolicyTable();
    const update = engine.takeUpdate();
    if (update !== undefined) table.apply(update);
    return { engine, table };
  }
}

/** A node that is asked is the host of its own policies. */
function subjectOf({ labels, identity, namespace, namedPorts, node, nodeLabels }: WorldEndpoint): EngineSubject {
  if (node === undefined) {
    return { labels, identity, namespace, namedPorts, ...(nodeLabels !== undefined && { nodeLabels }) };
  }
  return { labels: { "reserved:host": "" }, identity: IDENTITY_HOST, namespace, namedPorts, nodeLabels: node.labels };
}

const NODE_LABELS = ["reserved:host", "reserved:remote-node", "reserved:kube-apiserver"];

/** The endpoint's address in the family of the flow; its first one where any will do. */
function addressIn(endpoint: WorldEndpoint, { from, to, protocol }: Flow): IpAddress | undefined {
  const outside = [from, to].flatMap((end) => "identity" in end ? [] : [end.address.length])[0];
  const octets = outside ?? (protocol === PROTOCOL_ICMPV6 ? 16 : protocol === PROTOCOL_ICMP ? 4 : undefined);
  return endpoint.addresses.find(({ length }) => octets === undefined || length === octets);
}

function isSubject(end: WorldEnd): end is WorldEndpoint {
  return "identity" in end && end.isSubject;
}
