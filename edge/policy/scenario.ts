/**
 * What a policy scenario says, once it is read: a small mesh, its policies, and what is expected of them. `read_scenario.ts` reads
 * one, `run_scenario.ts` runs it.
 */
import type { IpAddress } from "../../src/ip/address.ts";
import type { NamedPort } from "../../src/policy/model.ts";

/** Whose reading of the objects counts. */
export const FLAVORS = ["cilium", "k8s", "kcnp"] as const;
export type Flavor = typeof FLAVORS[number];

/** Settings of the cluster; names and defaults are Cilium's. */
export interface ScenarioConfig {
  readonly localCluster: string;
  readonly policyDefaultLocalCluster: boolean;
  readonly enforcementMode: "default" | "always" | "never";
  readonly allowLocalhost: "always" | "policy";
  readonly policyCIDRMatchMode: readonly ("nodes" | "pods")[];
  readonly hostFirewall: boolean;
  readonly auditMode: boolean;
  readonly clusterNetworkPolicy: boolean;
  readonly enableL7Proxy: boolean;
  readonly enableICMPRules: boolean;
  readonly enableNodeSelectorLabels: boolean;
}

export const DEFAULT_CONFIG: ScenarioConfig = {
  localCluster: "cluster1",
  policyDefaultLocalCluster: true,
  enforcementMode: "default",
  allowLocalhost: "always",
  policyCIDRMatchMode: [],
  hostFirewall: false,
  auditMode: false,
  clusterNetworkPolicy: false,
  enableL7Proxy: true,
  enableICMPRules: true,
  enableNodeSelectorLabels: false,
};

/** Somebody whom probes can name. */
export interface ScenarioEndpoint {
  readonly ref: string;
  readonly name: string;
  /** empty for what is no pod */
  readonly namespace: string;
  readonly cluster: string;
  /** as written: keys may carry a source in front */
  readonly labels: Readonly<Record<string, string>>;
  readonly addresses: readonly IpAddress[];
  readonly namedPorts: readonly NamedPort[];
  readonly serviceAccount: string | undefined;
  /** reserved labels without "reserved:"; empty for a pod */
  readonly reserved: readonly string[];
}

export interface ScenarioService {
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly selector: Readonly<Record<string, string>> | undefined;
  readonly endpointAddresses: readonly IpAddress[];
}

/** An answer that was seen through an allowed DNS rule, and is still alive. */
export interface DnsAnswer {
  readonly name: string;
  readonly addresses: readonly IpAddress[];
  readonly ttlSeconds: number;
}

/** One side of a probe: an endpoint, or an address that belongs to none. */
export type ProbeEnd = { readonly ref: string } | { readonly address: IpAddress };

export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly host: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

export interface Probe {
  readonly from: ProbeEnd;
  readonly to: ProbeEnd;
  readonly proto: ProbeProtocol;
  /** destination port; the type for ICMP and ICMPv6 */
  readonly port: number;
  readonly side: "egress" | "ingress" | "both";
  /** the packet answers inside a connection that was allowed the other way */
  readonly isReply: boolean;
  readonly http: HttpRequest | undefined;
  readonly httpStatus: number | undefined;
  readonly dns: { readonly name: string; readonly type: string } | undefined;
  readonly dnsRcode: string | number | undefined;
  readonly sni: string | undefined;
  readonly expect: "allow" | "deny";
  readonly dropReason: number | undefined;
  readonly verdict: string | undefined;
  /** as written, for reports */
  readonly given: unknown;
}

export const PROBE_PROTOCOLS = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"] as const;
export type ProbeProtocol = typeof PROBE_PROTOCOLS[number];

/** IP protocol numbers. */
export const PROTOCOL_NUMBERS: Readonly<Record<ProbeProtocol, number>> = {
  TCP: 6,
  UDP: 17,
  SCTP: 132,
  ICMP: 1,
  ICMPv6: 58,
};

/** What is asked of the policies. */
export type Question =
  | { readonly kind: "probes"; readonly probes: readonly Probe[] }
  | {
    readonly kind: "names";
    readonly field: "matchName" | "matchPattern";
    readonly pattern: string;
    readonly checks: readonly { readonly name: string; readonly match: boolean }[];
  }
  | { readonly kind: "valid"; readonly valid: boolean; readonly why: string | undefined };

export interface Scenario {
  readonly id: string;
  readonly flavor: Flavor;
  readonly config: ScenarioConfig;
  /** the same labels hold for a namespace of that name in every cluster */
  readonly namespaces: ReadonlyMap<string, Readonly<Record<string, string>>>;
  readonly endpoints: readonly ScenarioEndpoint[];
  /** whole documents, not judged yet */
  readonly policies: readonly unknown[];
  readonly cidrGroups: readonly unknown[];
  readonly services: readonly ScenarioService[];
  readonly dnsCache: readonly DnsAnswer[];
  readonly question: Question;
  /** upstreams or releases disagree about it: reported apart */
  readonly isContested: boolean;
}

/** "app/web -> app/db TCP/5432 (egress)" */
export function probeText(probe: Probe, endText: (end: ProbeEnd) => string): string {
  const notes = [...(probe.side === "both" ? [] : [probe.side]), ...(probe.isReply ? ["reply"] : [])];
  const note = notes.length === 0 ? "" : ` (${notes.join(", ")})`;
  return `${endText(probe.from)} -> ${endText(probe.to)} ${probe.proto}/${probe.port}${note}`;
}
