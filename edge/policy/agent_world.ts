/** The world of `policy trace`, made of what a running agent knows: this member, its peers, and the policies that it was given. */
import type { Labels } from "../../src/identity/labels.ts";
import { labelsOfMember } from "../../src/identity/member_labels.ts";
import { RESERVED_LABELS } from "../../src/identity/reserved.ts";
import { type IpAddress, parseAddress } from "../../src/ip/address.ts";
import { readCidrGroup } from "../../src/policy/read_cidr_group.ts";
import type {
  IdentitiesDocument,
  MemberDocument,
  PeersDocument,
  PoliciesDocument,
  StatusDocument,
} from "../agent/documents.ts";
import { EdgeError } from "../errors.ts";
import { readPolicies, type RefusedPolicy } from "./make_world.ts";
import { PolicyWorld, type WorldEndpoint } from "./world.ts";

/** Asks the agent. */
export interface AgentReader {
  get<T>(path: string): Promise<T>;
}

export interface AgentWorld {
  readonly world: PolicyWorld;
  /** by name and by "<cluster>/<name>", reserved ones by "reserved:<name>" */
  readonly named: ReadonlyMap<string, WorldEndpoint>;
  /** policies that the agent holds and cannot enforce: the real member is closed where they select it */
  readonly refused: readonly RefusedPolicy[];
}

/**
 * Reads the agent's state.
 * @throws EdgeError EDGE_NOT_FOUND while the agent knows neither itself nor the mesh's settings, or what asking it throws
 */
export async function readAgentWorld(agent: AgentReader): Promise<AgentWorld> {
  const status = await agent.get<StatusDocument>("/v1/status");
  const peers = await agent.get<PeersDocument>("/v1/peers");
  const identities = await agent.get<IdentitiesDocument>("/v1/identities");
  const policies = await agent.get<PoliciesDocument>("/v1/policies");
  if (status.member === null || policies.settings === null) {
    throw new EdgeError("EDGE_NOT_FOUND", "Cannot trace: the agent has no state of the mesh yet", {
      fix: 'Wait for it with "edgemesh status --wait".',
    });
  }
  const labels = new Map(identities.identities.map(({ id, labels }) => [id, labels]));
  const named = new Map<string, WorldEndpoint>();
  const { cluster, ...settings } = policies.settings;
  for (const member of [status.member, ...peers.peers]) {
    const endpoint = worldEndpoint(member, labels.get(member.identity) ?? ownLabels(member), cluster);
    named.set(`${member.cluster.name}/${member.name}`, endpoint);
    if (!named.has(member.name)) named.set(member.name, endpoint);
  }
  const { policies: read, refused } = readPolicies(policies.policies.map(({ document }) => document));
  const world = new PolicyWorld({
    settings: { cluster, policy: settings },
    endpoints: [...new Set(named.values())],
    policies: read,
    groups: (policies.cidrGroups ?? []).flatMap(({ document }) => {
      const result = readCidrGroup(document);
      return "group" in result ? [result.group] : [];
    }),
    names: new Map((policies.names ?? []).map(({ name, addresses }) => [name, addressesOf(addresses)])),
    services: (policies.services ?? []).map(({ namespace, name, labels, selector, addresses }) => ({
      namespace,
      name,
      labels,
      ...(selector !== null && { selector }),
      addresses: addressesOf(addresses),
    })),
  });
  for (const [identity, labels] of RESERVED_LABELS) {
    const ref = Object.keys(labels)[0]!;
    named.set(ref, { ref, labels, identity, namespace: "", namedPorts: [], addresses: [], isSubject: false });
  }
  return { world, named, refused };
}

/** An identity that the mesh does not list has the labels of its member. */
function ownLabels({ cluster, namespace, labels }: MemberDocument): Labels {
  return labelsOfMember({ cluster: cluster.name, namespace, namespaceLabels: {}, labels });
}

function worldEndpoint(member: MemberDocument, labels: Labels, localCluster: string): WorldEndpoint {
  return {
    ref: `${member.cluster.name}/${member.name}`,
    labels,
    identity: member.identity,
    namespace: member.namespace,
    namedPorts: member.namedPorts,
    addresses: addressesOf(member.addresses),
    isSubject: member.cluster.name === localCluster,
    nodeLabels: member.labels,
  };
}

function addressesOf(texts: readonly string[]): IpAddress[] {
  return texts.flatMap((text) => parseAddress(text) ?? []);
}
