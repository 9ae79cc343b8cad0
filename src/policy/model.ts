/**
 * The one rule model that every policy object is read into, and that the engine resolves. Read `facts` order: an object becomes a
 * `Policy` of one or more `PolicySpec`s (one subject each), a spec becomes `Rule`s.
 *
 * Nothing here depends on a setting or on the mesh: what does (local cluster, identities, named ports) is left open and resolved by
 * the engine, so that a policy is read once.
 */
import type { IpPrefix } from "../ip/address.ts";

export const INGRESS = 0;
export const EGRESS = 1;
/** Seen from the endpoint that the policy selects. */
export type Direction = typeof INGRESS | typeof EGRESS;

/** Lower decides first. Cilium's numbers. */
export const TIER_ADMIN = 100;
/** NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy */
export const TIER_NORMAL = 200;
export const TIER_BASELINE = 250;
/** made by the engine */
export const TIER_DEFAULT = 255;

/** What a matching rule says. `pass` leaves the rest of its tier. */
export type RuleVerdict = "allow" | "deny" | "pass";

export type Operator = "In" | "NotIn" | "Exists" | "DoesNotExist";

/** One condition on labels. NotIn and DoesNotExist hold when the key is absent. */
export interface Requirement {
  /** `any`, or the source that the label must have */
  readonly source: string;
  readonly key: string;
  readonly operator: Operator;
  /** sorted, distinct; empty for Exists and DoesNotExist */
  readonly values: readonly string[];
}

/** A conjunction of conditions on an identity's labels. */
export interface Selector {
  readonly requirements: readonly Requirement[];
  /** the local cluster's name is one more condition when the mesh's `defaultLocalCluster` is on: no condition names a cluster */
  readonly defaultsCluster: boolean;
}

export const ENTITIES = [
  "all",
  "world",
  "cluster",
  "cluster-mesh",
  "host",
  "remote-node",
  "kube-apiserver",
  "health",
  "init",
  "ingress",
  "unmanaged",
  "none",
] as const;
export type Entity = typeof ENTITIES[number];

/** Who is on the other side. */
export type Peer =
  | { readonly kind: "selector"; readonly selector: Selector }
  | { readonly kind: "entity"; readonly entity: Entity }
  /** Outside addresses in `prefix` and in none of `except`. Host bits are cleared. */
  | {
    readonly kind: "cidr";
    readonly prefix: IpPrefix;
    readonly except: readonly IpPrefix[];
    /** from an API of Kubernetes itself, where plain semantics match addresses inside the cluster too */
    readonly isStandard?: boolean;
  }
  /** The prefixes of CiliumCIDRGroups, by name or by labels, without the holes. An unknown group has none. */
  | {
    readonly kind: "cidrGroup";
    /** its name, or conditions of source k8s on its own labels */
    readonly group: string | Selector;
    readonly except: readonly IpPrefix[];
  }
  /** What stands behind Kubernetes services: the members that a service's selector names, or its endpoints' addresses. */
  | {
    readonly kind: "service";
    /** its name, or conditions of source k8s on its own labels */
    readonly service: string | Selector;
    /** empty: every namespace */
    readonly namespace: string;
  }
  /** Addresses that were learned for names; egress only. */
  | {
    readonly kind: "fqdn";
    /** as `readPattern` of src/fqdn gives it; a name is a pattern without stars */
    readonly pattern: string;
  }
  /** Nodes by their node labels (`fromNodes`, `toNodes`). */
  | { readonly kind: "node"; readonly selector: Selector };

/** Which HTTP requests a port rule lets through. What is absent matches everything; `headers` must all hold. */
export interface HttpRule {
  /** regular expressions (RE2) that must cover the whole value */
  readonly method?: string;
  readonly path?: string;
  readonly host?: string;
  readonly headers: readonly HeaderMatch[];
}

/** A condition on a header; without a value its presence. */
export interface HeaderMatch {
  /** a token in lower case */
  readonly name: string;
  /** never empty; Latin-1 without control characters, exactly as it has to be */
  readonly value?: string;
  /** the rule matches all the same, and this is done; absent: a mismatch fails the rule */
  readonly mismatch?: "LOG" | "ADD" | "DELETE" | "REPLACE";
}

/** Which names may be asked for. */
export interface DnsRule {
  /** as `readPattern` of src/fqdn gives it */
  readonly pattern: string;
}

/** What a proxy has to judge on the ports of a rule. Alternatives: one that matches is enough. */
export type L7Rules =
  | { readonly kind: "http"; readonly rules: readonly HttpRule[] }
  | { readonly kind: "dns"; readonly rules: readonly DnsRule[] };

/** A range of ports (or ICMP types) of one protocol. */
export interface PortRange {
  /** IP protocol number */
  readonly protocol: number;
  /** 0 to 65535 */
  readonly first: number;
  /** inclusive */
  readonly last: number;
}

/** A port by name: the subject's on ingress, the destination's on egress. */
export interface PortName {
  /** lower case */
  readonly name: string;
  /** IP protocol numbers that the named port may have */
  readonly protocols: readonly number[];
}

export interface Rule {
  readonly direction: Direction;
  /** TIER_... */
  readonly tier: number;
  /** order inside a tier, lower first; 0 where the kind of object has none */
  readonly priority: number;
  readonly verdict: RuleVerdict;
  /** `undefined`: everybody, whatever their identity. Empty: nobody. */
  readonly peers: readonly Peer[] | undefined;
  /** `undefined`: every protocol and port. With an empty `names`, an empty list: nothing. */
  readonly ports: readonly PortRange[] | undefined;
  readonly names: readonly PortName[];
  /** an allow that a proxy completes; absent: all of it is allowed */
  readonly l7?: L7Rules;
  /** where it stands in its object, e.g. "spec.ingress[0]" */
  readonly path: string;
}

/** What one object says about one set of subjects. */
export interface PolicySpec {
  readonly subject: Selector;
  /** the subject is the host of nodes with these node labels (`nodeSelector`), never an endpoint */
  readonly isForNodes?: boolean;
  /** it has rules, or closes that direction: the subject counts as selected in it */
  readonly hasIngress: boolean;
  readonly hasEgress: boolean;
  /** what no rule allows is dropped in that direction */
  readonly closesIngress: boolean;
  readonly closesEgress: boolean;
  readonly rules: readonly Rule[];
}

/** A policy object, read and accepted. Structured clone carries it. */
export interface Policy {
  readonly kind: string;
  /** empty for a cluster-wide kind */
  readonly namespace: string;
  readonly name: string;
  readonly specs: readonly PolicySpec[];
}

/** `<kind>/<namespace>/<name>`: the key that the mesh state, logs and explanations use. */
export function keyOfPolicy(policy: Policy): string {
  return `${policy.kind}/${policy.namespace}/${policy.name}`;
}

/** A port of a workload by its name. The same shape as the mesh state's. */
export interface NamedPort {
  readonly name: string;
  readonly port: number;
  readonly protocol: "TCP" | "UDP" | "SCTP";
}

/** How policies are read; words and defaults are Cilium's. The same shape as the mesh state's. */
export interface PolicySettings {
  readonly enforcementMode: "default" | "always" | "never";
  readonly defaultLocalCluster: boolean;
  /** `always`: the local host reaches an endpoint that ingress rules select, unless a rule denies it; `policy`: as everybody else */
  readonly allowLocalhost: "always" | "policy";
  /** what would be dropped is forwarded, and reported (`policy-audit-mode`); off when absent */
  readonly auditMode?: boolean;
  /** addresses inside the cluster that CIDR rules mean too (`policy-cidr-match-mode`); none when absent */
  readonly cidrMatchMode?: readonly CidrMatch[];
  /**
   * Whose reading counts where Cilium differs from Kubernetes: `kubernetes` lets ipBlock and networks match addresses inside the
   * cluster. `cilium` when absent.
   */
  readonly flavor?: "cilium" | "kubernetes";
  /** policies with a nodeSelector hold for hosts (`enable-host-firewall`); off when absent */
  readonly hostFirewall?: boolean;
}

export type CidrMatch = "nodes" | "pods";

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMPV6 = 58;
export const PROTOCOL_SCTP = 132;
/** What the word ANY stands for. Not ICMP. */
export const PROTOCOLS_ANY: readonly number[] = [PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP];
