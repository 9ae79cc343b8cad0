/** Makes the documents of `documents.ts` from a running agent. Reads only. */
import { toBase64 } from "../../src/bytes/text.ts";
import type { DatapathSnapshot, DropRecord, PeerSnapshot } from "../../src/datapath/control.ts";
import { type Direction, EGRESS, INGRESS } from "../../src/datapath/counters.ts";
import { UNDERLAY_OVERHEAD_BYTES } from "../../src/datapath/path_mtu.ts";
import { formatAddress, parseAddress } from "../../src/ip/address.ts";
import { formatUnderlayAddr } from "../../src/ip/underlay_addr.ts";
import type { MemberRecord } from "../../src/mesh/entries.ts";
import { modeBetween, networkOf } from "../../src/mesh/routing.ts";
import { nameOfVerdict, REASONS } from "../../src/verdict.ts";
import { nameOfProtocol } from "../../src/wire/numbers.ts";
import type { Agent } from "./agent.ts";
import {
  API_VERSION,
  type DeviceDocument,
  type DropDocument,
  type DropsDocument,
  type HubDocument,
  type IdentitiesDocument,
  type MemberDocument,
  type PeerDocument,
  type PeersDocument,
  type PingDocument,
  type PoliciesDocument,
  type PolicyDocumentState,
  type RoutingDocument,
  type RuleState,
  type StatusDocument,
  type TrafficDocument,
} from "./documents.ts";

const NO_SNAPSHOT: DatapathSnapshot = {
  peers: [],
  flows: 0,
  policyRevision: 0,
  ruleHits: new Float64Array(),
  drops: [],
};

/** What the datapath holds now; an empty one while none runs or it does not answer. */
export async function snapshotOf(agent: Agent): Promise<DatapathSnapshot> {
  try {
    return await agent.link?.query() ?? NO_SNAPSHOT;
  } catch {
    return NO_SNAPSHOT; // health says that it hangs
  }
}

export async function statusOf(agent: Agent): Promise<StatusDocument> {
  const { mesh, doors } = agent;
  const snapshot = await snapshotOf(agent);
  const self = mesh.self;
  const health = agent.health.items();
  return {
    apiVersion: API_VERSION,
    kind: "Status",
    version: agent.options.version,
    state: stateOf(agent),
    member: self === undefined ? null : memberOf(self),
    routing: routingOf(agent),
    device: deviceOf(agent),
    hub: hubOf(agent),
    mesh: {
      epoch: mesh.position?.epoch ?? null,
      revision: mesh.position?.revision ?? null,
      isStale: agent.isStale,
      syncedAt: agent.syncedUnixMs === undefined ? null : timeOf(agent.syncedUnixMs),
      members: mesh.members.size,
      identities: mesh.identities.size,
      policies: mesh.policies.size,
      refused: [...mesh.refused].map(([key, reason]) => ({ key, reason })),
    },
    peers: peerCountsOf(agent, snapshot.peers),
    policy: {
      isReady: doors.policies.revision > 0,
      revision: doors.policies.revision,
      refused: [...doors.policies.refused].map(([policy, reason]) => ({ policy, reason })),
    },
    traffic: trafficOf(agent),
    health,
    startedAt: timeOf(agent.startedUnixMs),
    stateWrites: doors.store.writes,
  };
}

/** In one word: what the first line of `status` says. */
export function stateOf(agent: Agent): StatusDocument["state"] {
  const items = agent.health.items();
  if (items.some((item) => item.impactsConnectivity)) return "failing";
  if (!agent.isNetworkDone) return "starting";
  return items.some((item) => item.severity !== "info") ? "degraded" : "ready";
}

export async function peersOf(agent: Agent): Promise<PeersDocument> {
  const snapshot = await snapshotOf(agent);
  const live = new Map(snapshot.peers.map((peer) => [peer.name, peer]));
  return {
    apiVersion: API_VERSION,
    kind: "Peers",
    publicKey: toBase64(agent.options.mesh.publicKey),
    wireguardPort: agent.datapathFacts?.port ?? agent.options.datapath.wireguardPort,
    tun: agent.datapathFacts?.tun ?? agent.options.datapath.tun,
    peers: peersOfMesh(agent).map(([name, member]) => peerOf(agent, member, live.get(name))),
  };
}

export async function dropsOf(agent: Agent): Promise<DropsDocument> {
  const { drops } = await snapshotOf(agent);
  return {
    apiVersion: API_VERSION,
    kind: "Drops",
    totals: { ingress: dropTotals(agent, INGRESS), egress: dropTotals(agent, EGRESS) },
    recent: drops.map(dropOf),
  };
}

export function identitiesOf(agent: Agent): IdentitiesDocument {
  const identities = [...agent.mesh.identities].sort(([a], [b]) => a - b).map(([id, { labels }]) => ({ id, labels }));
  return { apiVersion: API_VERSION, kind: "Identities", identities };
}

export async function policiesOf(agent: Agent): Promise<PoliciesDocument> {
  const { policyRevision, ruleHits } = await snapshotOf(agent);
  const { policies } = agent.doors;
  // a number can mean another rule in another revision
  const areOfThisRevision = policyRevision > 0 && policyRevision === policies.revision;
  const ruleStates = new Map<string, RuleState[]>();
  for (const { index, policy, path, verdict } of policies.rules()) {
    const rule = { path, verdict, hits: areOfThisRevision ? ruleHits[index + 1] ?? 0 : null };
    ruleStates.set(policy, [...ruleStates.get(policy) ?? [], rule]);
  }
  const states = [...agent.mesh.policies].map(([key, document]): PolicyDocumentState => {
    const [kind = "", namespace = "", name = ""] = key.split("/");
    const reason = policies.refused.get(key) ?? null;
    const selectsSelf = policies.selectsSelf(key);
    const rules = ruleStates.get(key) ?? [];
    return {
      kind,
      namespace,
      name,
      state: reason === null ? "enforced" : "refused",
      reason,
      selectsSelf,
      rules,
      document,
    };
  });
  const { settings } = agent.mesh;
  return {
    apiVersion: API_VERSION,
    kind: "Policies",
    isReady: policies.revision > 0,
    revision: policies.revision,
    enforcement: policies.isEnforced,
    settings: settings === undefined ? null : { cluster: settings.cluster.name, ...settings.policy },
    undecidedHits: areOfThisRevision ? ruleHits[0] ?? 0 : null,
    policies: states.sort((a, b) => keyOf(a) < keyOf(b) ? -1 : 1),
    names: [...agent.l7.names.list()].sort(byKey).map(([name, addresses]) => ({ name, addresses })),
    cidrGroups: [...agent.mesh.cidrGroups].sort(byKey).map(([name, document]) => ({ name, document })),
    services: [...agent.mesh.services].sort(byKey).map(([key, { labels, selector, addresses }]) => {
      const [namespace = "", name = ""] = key.split("/");
      return { namespace, name, labels, selector: selector ?? null, addresses };
    }),
  };
}

function byKey([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}

/**
 * Sends one echo request to an address or to a member by its name.
 * @returns undefined when `target` is neither
 */
export async function pingFrom(
  agent: Agent,
  target: string,
  sequence: number,
  timeoutMs: number,
): Promise<PingDocument | undefined> {
  const address = parseAddress(target) ?? addressOfMember(agent, target);
  if (address === undefined) return undefined;
  const to = formatAddress(address);
  const member = [...agent.mesh.members].find(([, record]) => record.addresses.includes(to))?.[0] ?? null;
  const answer = { apiVersion: API_VERSION, kind: "Ping", to, member, sequence } as const;
  const result = await agent.link?.ping(address, sequence, timeoutMs);
  if (result === undefined) return { ...answer, result: "timeout", roundTripMs: null, reason: null };
  if ("verdict" in result) {
    return { ...answer, result: "dropped", roundTripMs: null, reason: nameOfVerdict(result.verdict) };
  }
  return { ...answer, result: "answered", roundTripMs: result.roundTripMs, reason: null };
}

/** `name` alone means a member of our own cluster. */
function addressOfMember(agent: Agent, name: string): Uint8Array | undefined {
  const cluster = agent.options.mesh.selfName.split("/")[0];
  const member = agent.mesh.members.get(name.includes("/") ? name : `${cluster}/${name}`);
  return member?.addresses[0] === undefined ? undefined : parseAddress(member.addresses[0]);
}

function peersOfMesh(agent: Agent): [string, MemberRecord][] {
  return [...agent.mesh.members].filter(([name]) => name !== agent.options.mesh.selfName);
}

function memberOf(record: MemberRecord): MemberDocument {
  const { name, cluster, addresses, underlay, identity, namespace, labels, namedPorts, isHub } = record;
  return {
    name,
    cluster,
    addresses,
    underlay,
    identity,
    namespace,
    labels,
    namedPorts,
    publicKey: toBase64(record.publicKey),
    isHub,
  };
}

function peerOf(agent: Agent, record: MemberRecord, live: PeerSnapshot | undefined): PeerDocument {
  const options = agent.options.mesh.peerOptions(record);
  const lastMs = live?.lastHandshakeUnixMs ?? 0;
  const { settings } = agent.mesh;
  const isPlain = settings?.routing.encryption === "none";
  return {
    ...memberOf(record),
    state: isPlain ? "unencrypted" : live?.hasSession ? "active" : lastMs > 0 ? "idle" : "new",
    mode: settings === undefined ? "tunnel" : modeBetween(agent.mesh.self, record, settings.routing),
    network: networkOf(record),
    underlayAddr: isPlain ? record.underlay : underlayAddrOf(record, live),
    lastHandshake: lastMs > 0 ? timeOf(lastMs) : null,
    rxBytes: live?.rxBytes ?? 0,
    txBytes: live?.txBytes ?? 0,
    aead: live?.aead ?? null,
    pathMtuBytes: live?.pathMtuBytes || null,
    keepaliveSeconds: options.keepaliveSeconds,
    hasPresharedKey: options.presharedKey !== undefined,
    prefixes: agent.mesh.prefixesOf(record),
  };
}

function peerCountsOf(agent: Agent, peers: readonly PeerSnapshot[]): StatusDocument["peers"] {
  const full = agent.options.datapath.mtu + UNDERLAY_OVERHEAD_BYTES;
  const narrow = peers.map((peer) => peer.pathMtuBytes).filter((bytes) => bytes > 0 && bytes < full);
  return {
    total: peersOfMesh(agent).length,
    withSession: peers.filter((peer) => peer.hasSession).length,
    withNarrowPath: narrow.length,
    leastPathMtuBytes: narrow.length === 0 ? null : Math.min(...narrow),
  };
}

function underlayAddrOf(record: MemberRecord, live: PeerSnapshot | undefined): string | null {
  return live?.endpoint === undefined ? record.endpoints[0] ?? null : formatUnderlayAddr(live.endpoint);
}

function routingOf(agent: Agent): RoutingDocument | null {
  const { settings, self } = agent.mesh;
  if (settings === undefined) return null;
  const { mode, tunnelProtocol, encryption } = settings.routing;
  return { mode, tunnelProtocol, encryption, network: self === undefined ? "" : networkOf(self) };
}

function deviceOf(agent: Agent): DeviceDocument {
  const facts = agent.datapathFacts;
  const { datapath } = agent.options;
  return {
    tun: facts?.tun ?? datapath.tun,
    isUp: agent.link !== undefined,
    mtuBytes: agent.mtuBytes,
    wireguardPort: facts?.port ?? datapath.wireguardPort,
    datapathWorkers: datapath.workers ?? 1,
    offload: facts === undefined ? {} : { ...facts.offload, memberAeads: facts.offload.memberAeads.join(", ") },
    routes: agent.mesh.routes(),
    starts: agent.datapathStarts,
  };
}

function hubOf(agent: Agent): HubDocument {
  const { state, hub, detail, sinceUnixMs } = agent.hub;
  return {
    state: agent.options.isFromFile ? "none" : state,
    endpoint: hub ?? null,
    detail: detail ?? null,
    since: timeOf(sinceUnixMs),
  };
}

/** Packets and octets since the datapath started. */
function trafficOf(agent: Agent): TrafficDocument {
  const counters = agent.link?.counters;
  return {
    fromTunPackets: counters?.read("fromTunPackets") ?? 0,
    fromTunBytes: counters?.read("fromTunBytes") ?? 0,
    toTunPackets: counters?.read("toTunPackets") ?? 0,
    toTunBytes: counters?.read("toTunBytes") ?? 0,
    fromUnderlayDatagrams: counters?.read("fromUnderlayDatagrams") ?? 0,
    fromUnderlayBytes: counters?.read("fromUnderlayBytes") ?? 0,
    toUnderlayDatagrams: counters?.read("toUnderlayDatagrams") ?? 0,
    toUnderlayBytes: counters?.read("toUnderlayBytes") ?? 0,
    ingressDrops: dropTotals(agent, INGRESS),
    egressDrops: dropTotals(agent, EGRESS),
  };
}

function dropTotals(agent: Agent, direction: Direction): Readonly<Record<string, number>> {
  const counted = agent.link?.counters.dropsByReason(direction) ?? new Map<number, number>();
  return Object.fromEntries([...counted].map(([verdict, count]) => [nameOfVerdict(verdict), count]));
}

function dropOf(drop: DropRecord): DropDocument {
  return {
    at: timeOf(drop.unixMs),
    direction: drop.direction,
    reason: nameOfVerdict(drop.verdict),
    text: REASONS.get(drop.verdict)?.text ?? "Dropped",
    source: drop.source ?? null,
    destination: drop.destination ?? null,
    protocol: nameOfProtocol(drop.protocol),
    sourcePort: drop.sourcePort,
    destinationPort: drop.destinationPort,
    identity: drop.identity,
  };
}

function keyOf(policy: PolicyDocumentState): string {
  return `${policy.kind}/${policy.namespace}/${policy.name}`;
}

function timeOf(unixMs: number): string {
  return new Date(unixMs).toISOString();
}
