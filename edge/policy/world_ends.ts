/** Endpoints of a scenario as the ends of flows: their labels, and identities for these. */
import { KEY_CLUSTER, type Labels, SOURCE_ANY, SOURCE_K8S, splitKey } from "../../src/identity/labels.ts";
import { labelsOfMember } from "../../src/identity/member_labels.ts";
import { FIRST_ALLOCATABLE } from "../../src/identity/ranges.ts";
import { RESERVED_LABELS, reservedOfName } from "../../src/identity/reserved.ts";
import type { IpAddress } from "../../src/ip/address.ts";
import { isReservedRef } from "./read_probe.ts";
import type { Scenario, ScenarioEndpoint } from "./scenario.ts";
import type { WorldEnd } from "./world.ts";

/** Numbers for label sets: those of pods whose named ports differ are different ones, as in Cilium 1.20. */
export class Identities {
  readonly #clusters = new Map<string, number>();
  readonly #known = new Map<string, number>();

  constructor(localCluster: string) {
    this.#clusters.set(localCluster, 1);
  }

  #nodes = 0;

  /** An address that nobody else has, for a node that was given none. */
  nextNodeAddress(): IpAddress {
    const address = new Uint8Array(16);
    address.set([0xfd, 0x6e, 0x6f, 0x64, 0x65]);
    new DataView(address.buffer).setUint32(12, ++this.#nodes);
    return address;
  }

  numberOf(cluster: string, labels: Labels, namedPorts: unknown): number {
    const text = JSON.stringify([Object.entries(labels).sort(), namedPorts]);
    let number = this.#known.get(text);
    if (number === undefined) {
      let id = this.#clusters.get(cluster);
      if (id === undefined) this.#clusters.set(cluster, id = this.#clusters.size + 1);
      this.#known.set(text, number = (id << 16) + FIRST_ALLOCATABLE + this.#known.size);
    }
    return number;
  }
}

/** An endpoint as the world knows it, or why it cannot be. */
export function worldEnd(one: ScenarioEndpoint, scenario: Scenario, numbers: Identities): WorldEnd | string {
  const isLocal = one.cluster === scenario.config.localCluster;
  const common = { ref: one.ref, namespace: one.namespace, namedPorts: one.namedPorts, addresses: one.addresses };
  if (one.reserved.length === 0) {
    const labels = podLabels(one, scenario);
    return {
      ...common,
      labels,
      identity: numbers.numberOf(one.cluster, labels, one.namedPorts),
      isSubject: isLocal,
    };
  }
  const isWorld = one.reserved.every((name) => name.startsWith("world"));
  if (isWorld && one.addresses[0] !== undefined) return { address: one.addresses[0] };
  const identity = reservedNumber(one.reserved);
  if (identity === undefined) return `an endpoint with the labels ${one.reserved.join(" and ")} is not supported yet`;
  const reserved = RESERVED_LABELS.get(identity)!;
  if (NODES.some((name) => one.reserved.includes(name))) return nodeEnd(one, identity, scenario, numbers);
  const isOwn = SUBJECTS.includes(one.reserved[0]!);
  return {
    ...common,
    labels: { ...reserved, ...(isOwn ? ownLabels(one) : {}) },
    identity,
    isSubject: isLocal && isOwn,
  };
}

/** The host of a node: its labels are those that a nodeSelector asks for. */
function nodeEnd(one: ScenarioEndpoint, identity: number, { config }: Scenario, numbers: Identities): WorldEnd {
  const { ref, namespace, namedPorts, cluster } = one;
  return {
    ref,
    namespace,
    namedPorts,
    // a node that peers mean by its labels is told from others by its address
    addresses: one.addresses.length === 0 && config.enableNodeSelectorLabels
      ? [numbers.nextNodeAddress()]
      : one.addresses,
    labels: RESERVED_LABELS.get(identity)!,
    identity,
    isSubject: cluster === config.localCluster && config.hostFirewall,
    node: { labels: one.labels, cluster },
  };
}

const NODES = ["host", "remote-node", "kube-apiserver"];

/** Endpoints without a pod that policies can select all the same. */
const SUBJECTS = ["health", "init", "ingress"];

function reservedNumber(names: readonly string[]): number | undefined {
  if (names.length === 1) return reservedOfName(names[0]!);
  const wanted = names.map((name) => `reserved:${name}`).sort().join();
  for (const [identity, labels] of RESERVED_LABELS) {
    if (Object.keys(labels).sort().join() === wanted) return identity;
  }
  return undefined;
}

export function reservedEnd(ref: string): WorldEnd | undefined {
  if (!isReservedRef(ref)) return undefined;
  const identity = reservedOfName(ref.slice("reserved:".length))!;
  const labels = RESERVED_LABELS.get(identity)!;
  return { ref, labels, identity, namespace: "", namedPorts: [], addresses: [], isSubject: false };
}

function podLabels(one: ScenarioEndpoint, { namespaces }: Scenario): Labels {
  const bare: Record<string, string> = {};
  const sourced: Record<string, string> = {};
  for (const [name, value] of Object.entries(one.labels)) {
    const { source, key } = splitKey(name);
    if (source === SOURCE_K8S || key === name) bare[key] = value;
    else sourced[name] = value;
  }
  const derived = labelsOfMember({
    cluster: one.cluster,
    namespace: one.namespace,
    namespaceLabels: namespaces.get(one.namespace) ?? {},
    labels: bare,
    ...(one.serviceAccount !== undefined && { serviceAccount: one.serviceAccount }),
  });
  return { ...sourced, ...derived };
}

function ownLabels(one: ScenarioEndpoint): Labels {
  const labels: Record<string, string> = {};
  for (const [name, value] of Object.entries(one.labels)) {
    const { source, key } = splitKey(name);
    labels[source === SOURCE_ANY ? `${SOURCE_K8S}:${key}` : `${source}:${key}`] = value;
  }
  labels[`${SOURCE_K8S}:${KEY_CLUSTER}`] = one.cluster;
  return labels;
}
