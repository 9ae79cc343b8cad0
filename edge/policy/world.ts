/**
 * A mesh at rest, for questions about flows: every endpoint that policies can select has its engine and its `PolicyTable`, the
 * datapath's own, made when it is first asked. `run_scenario.ts` and `policy trace` ask through it.
 */
import type { Labels } from "../../src/identity/labels.ts";
import type { IpAddress } from "../../src/ip/address.ts";
import { type EngineSettings, type Explanation, PolicyEngine, type RuleRef } from "../../src/policy/engine.ts";
import { EGRESS, INGRESS, type NamedPort, type Policy } from "../../src/policy/model.ts";
import { PolicyTable } from "../../src/policy/table.ts";
import { FORWARD, type Verdict } from "../../src/verdict.ts";
import { addressKey } from "./read_values.ts";

export interface WorldEndpoint {
  readonly ref: string;
  readonly labels: Labels;
  readonly identity: number;
  readonly namespace: string;
  readonly namedPorts: readonly NamedPort[];
  readonly addresses: readonly IpAddress[];
  /** policies can select it: it is of the local cluster, and is no node */
  readonly isSubject: boolean;
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
  readonly decidedBy: RuleRef | undefined;
  readonly isEnforced: boolean;
  /** the same by going through the rules one by one */
  readonly explain: () => Explanation;
}

export interface Judgement {
  /** that of the first end that drops it */
  readonly verdict: Verdict;
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
    if (from === to) return { verdict: FORWARD, steps: [], isLoopback: true };
    const steps: Step[] = [];
    if (side !== "ingress" && isSubject(from)) steps.push(this.#ask("egress", from, to, flow));
    if (side !== "egress" && isSubject(to)) steps.push(this.#ask("ingress", to, from, flow));
    const drop = steps.find(({ verdict }) => verdict !== FORWARD);
    return { verdict: drop?.verdict ?? FORWARD, steps, isLoopback: false };
  }

  #ask(side: Step["side"], subject: WorldEndpoint, other: WorldEnd, { protocol, port }: Flow): Step {
    const { engine, table } = this.#subjectOf(subject);
    const direction = side === "ingress" ? INGRESS : EGRESS;
    const identity = "identity" in other ? other.identity : engine.identityOfOutside(other.address);
    const verdict = table.lookup(direction, identity, protocol, port);
    return {
      side,
      subject,
      identity,
      verdict,
      decidedBy: table.decidedBy < 0 ? undefined : engine.ruleOf(table.decidedBy),
      isEnforced: table.isEnforced(direction),
      explain: () => engine.explain(direction, identity, protocol, port),
    };
  }

  #subjectOf(endpoint: WorldEndpoint): Subject {
    let subject = this.#subjects.get(endpoint);
    if (subject === undefined) this.#subjects.set(endpoint, subject = this.#makeSubject(endpoint));
    return subject;
  }

  #makeSubject({ labels, identity, namespace, namedPorts }: WorldEndpoint): Subject {
    const engine = new PolicyEngine();
    engine.setSettings(this.#input.settings);
    engine.setSubject({ labels, identity, namespace, namedPorts });
    for (const other of this.#input.endpoints) engine.putIdentity(other.identity, other.labels, other.namedPorts);
    for (const [key, policy] of this.#input.policies) engine.putPolicy(key, policy);
    const table = new PolicyTable();
    const update = engine.takeUpdate();
    if (update !== undefined) table.apply(update);
    return { engine, table };
  }
}

function isSubject(end: WorldEnd): end is WorldEndpoint {
  return "identity" in end && end.isSubject;
}
