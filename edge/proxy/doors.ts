/**
 * What the proxies of L7 policy are given, and what they report. `http_proxy.ts` and `dns_proxy.ts` judge the flows that the
 * datapath steers to them (src/datapath/redirect_view.ts); the agent starts them only while a policy needs them, and
 * `edge/agent/flow_log.ts` keeps what they report for people.
 */
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import type { L7Rules } from "../../src/policy/model.ts";
import type { RuleRef } from "../../src/policy/explain.ts";
import type { Log } from "../../src/ports.ts";
import type { Verdict } from "../../src/verdict.ts";

/** A rule that a proxy judges a flow by. */
export interface L7RuleOf {
  readonly rule: RuleRef;
  readonly l7: L7Rules;
}

/** The doors of a proxy. Every one answers at once, from memory. */
export interface ProxyDoors {
  /** The flow that a client port stands for; undefined: none, the connection does not come from the datapath. */
  flowOf(handle: number): RedirectedFlow | undefined;
  /**
   * What the flow is judged by now, asked again for each request. Empty: nothing allows it any more, refuse it. Where policy has
   * come to allow the flow without a proxy, the answer is one rule that matches everything, since the flow cannot leave the proxy.
   * Better the same list, by identity, as long as nothing changed: what is compiled from it is kept by that.
   */
  l7RulesFor(flow: RedirectedFlow): readonly L7RuleOf[];
  /** Whom the datapath makes a proxy's client: a connection from any other address stands for no flow, whatever its port. */
  clientAddress(family: 4 | 6): string;
  /** Where the real server of a flow is reached, at the flow's handle as port. */
  serverAddress(family: 4 | 6): string;
  record(record: L7Record): void;
  readonly log: Log;
}

/** One request that a proxy judged. Texts come from the network: of any length, with any characters. */
export interface L7Record {
  readonly unixMs: number;
  readonly flow: RedirectedFlow;
  readonly kind: "http" | "dns";
  /** FORWARD or DROP_PROXY_REFUSED */
  readonly verdict: Verdict;
  /** the rule that decided; absent when none matched */
  readonly rule?: RuleRef;
  readonly http?: HttpFacts;
  readonly dns?: DnsFacts;
  /** why it was refused or could not be forwarded */
  readonly reason?: string;
}

export interface HttpFacts {
  /** empty where no request could be read */
  readonly method: string;
  /** with the query */
  readonly path: string;
  readonly host: string;
  /** what the client was answered; 0: nothing, the connection ended first */
  readonly status: number;
}

export interface DnsFacts {
  readonly name: string;
  /** A, AAAA, ...; "TYPE<n>" for others */
  readonly type: string;
  /** NOERROR, NXDOMAIN, REFUSED, ...; empty: no answer came */
  readonly rcode: string;
  readonly addresses: readonly string[];
}
