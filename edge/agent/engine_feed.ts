/**
 * From the mesh state to the inputs of a policy engine: settings, identities, the subject, policies, and the objects that they name.
 * Documents are read here; one that cannot be read closes the member, and `refused` says why.
 */
import type { Labels } from "../../src/identity/labels.ts";
import { labelsOfMember } from "../../src/identity/member_labels.ts";
import { type IpAddress, parseAddress } from "../../src/ip/address.ts";
import type { MemberRecord, NamedPort, PolicyDocument, ServiceEntry } from "../../src/mesh/entries.ts";
import type { MeshChange, MeshState } from "../../src/mesh/state.ts";
import type { PolicyEngine } from "../../src/policy/engine.ts";
import { CIDR_GROUP_KIND, readCidrGroup } from "../../src/policy/read_cidr_group.ts";
import { readPolicy } from "../../src/policy/read_policy.ts";
import { closedPolicy } from "./closed_policy.ts";
import type { PolicyChange } from "./policy_trial.ts";

interface Given {
  readonly labels: Labels;
  readonly namedPorts: readonly NamedPort[];
}

/** Feeds one engine. */
export class EngineFeed {
  readonly #engine: PolicyEngine;
  readonly #refused = new Map<string, string>();
  /** identities that the engine was given */
  #identities = new Map<number, Given>();
  /** addresses inside the mesh that the engine was given, with their identities */
  #addresses = new Map<string, number>();

  constructor(engine: PolicyEngine) {
    this.#engine = engine;
  }

  /** By "<kind>/<ns>/<name>": documents that cannot be enforced as written, with the reason. */
  get refused(): ReadonlyMap<string, string> {
    return this.#refused;
  }

  /** Takes what a frame changed. @param mesh the state after the change */
  apply(change: MeshChange, mesh: MeshState): void {
    const engine = this.#engine;
    const { settings, self } = mesh;
    if (change.isSettingsChanged && settings !== undefined) {
      engine.setSettings({ cluster: settings.cluster.name, policy: settings.policy });
    }
    const hasNewNamespaces = hasChanges(change.namespaces);
    if (hasNewNamespaces) {
      engine.setNamespaces(new Map([...mesh.namespaces].map(([name, { labels }]) => [name, labels])));
    }
    if (change.isMembersChanged || hasChanges(change.identities) || hasNewNamespaces) this.#feedIdentities(mesh);
    if (change.isMembersChanged || change.isSettingsChanged) this.#feedAddresses(mesh);
    if (self !== undefined && (change.isSelfChanged || change.isMembersChanged || hasNewNamespaces)) {
      this.#feedSubject(self, mesh);
    }
    this.applyPolicies(change);
  }

  /** Takes other policies, and the objects that they name. */
  applyPolicies({ policies, cidrGroups, services }: PolicyChange): void {
    for (const [name, document] of cidrGroups.puts) this.#putGroup(name, document);
    for (const name of cidrGroups.deletes) this.#removeGroup(name);
    for (const [key, service] of services.puts) this.#engine.putService(key, serviceOf(key, service));
    for (const key of services.deletes) this.#engine.removeService(key);
    for (const [key, document] of policies.puts) this.#putPolicy(key, document);
    for (const key of policies.deletes) this.#removePolicy(key);
  }

  /** Everything of a state, for an engine that knows nothing yet. */
  fill(mesh: MeshState): void {
    const none = { puts: [], deletes: [] };
    this.apply({
      commands: [],
      refused: [],
      isSelfChanged: true,
      isMembersChanged: true,
      isSettingsChanged: true,
      identities: none,
      namespaces: { puts: [...mesh.namespaces], deletes: [] },
      policies: { puts: [...mesh.policies], deletes: [] },
      cidrGroups: { puts: [...mesh.cidrGroups], deletes: [] },
      services: { puts: [...mesh.services], deletes: [] },
      replaced: new Map(),
    }, mesh);
  }

  /** @param key "<kind>/<ns>/<name>" */
  #putPolicy(key: string, document: unknown): void {
    const result = readPolicy(document);
    if ("policy" in result) {
      this.#engine.putPolicy(key, result.policy);
      this.#refused.delete(key);
      return;
    }
    this.#engine.putPolicy(key, closedPolicy(key, document));
    this.#refused.set(key, textOf(result.errors));
  }

  #removePolicy(key: string): void {
    this.#engine.removePolicy(key);
    this.#refused.delete(key);
  }

  #putGroup(name: string, document: PolicyDocument): void {
    const result = readCidrGroup(document);
    if ("group" in result) {
      this.#engine.putCidrGroup(result.group);
      this.#removePolicy(groupKey(name));
      return;
    }
    // an empty group would open what a policy denies by it
    this.#engine.putPolicy(groupKey(name), closedPolicy(groupKey(name), document));
    this.#refused.set(groupKey(name), textOf(result.errors));
  }

  #removeGroup(name: string): void {
    this.#engine.removeCidrGroup(name);
    this.#removePolicy(groupKey(name));
  }

  #feedSubject(self: MemberRecord, mesh: MeshState): void {
    const { identity, namespace, namedPorts } = self;
    // a member is an endpoint and, for policies with a nodeSelector, its own host
    this.#engine.setSubject({
      labels: labelsOf(self, mesh),
      identity,
      namespace,
      namedPorts,
      nodeLabels: self.labels,
    });
  }

  /** Identities that the mesh lists, and those of members: a member's own record tells its labels. */
  #feedIdentities(mesh: MeshState): void {
    const wanted = new Map<number, Given>();
    for (const member of mesh.members.values()) {
      const known = wanted.get(member.identity);
      const labels = mesh.identities.get(member.identity)?.labels ?? known?.labels ?? labelsOf(member, mesh);
      wanted.set(member.identity, { labels, namedPorts: joinPorts(known?.namedPorts, member.namedPorts) });
    }
    for (const [id, { labels }] of mesh.identities) if (!wanted.has(id)) wanted.set(id, { labels, namedPorts: [] });
    for (const id of this.#identities.keys()) if (!wanted.has(id)) this.#engine.removeIdentity(id);
    // the engine sees by itself what is the same as before
    for (const [id, { labels, namedPorts }] of wanted) this.#engine.putIdentity(id, labels, namedPorts);
    this.#identities = wanted;
  }

  /** Addresses of members, where CIDR rules may mean them: else the engine need not know them. */
  #feedAddresses(mesh: MeshState): void {
    const areMeant = (mesh.settings?.policy.cidrMatchMode ?? []).length > 0;
    const wanted = new Map<string, number>();
    for (const member of areMeant ? mesh.members.values() : []) {
      if (member === mesh.self) continue;
      for (const address of member.addresses) wanted.set(address, member.identity);
    }
    for (const address of this.#addresses.keys()) if (!wanted.has(address)) this.#engine.removeAddress(read(address));
    for (const [address, identity] of wanted) {
      if (this.#addresses.get(address) !== identity) this.#engine.putAddress(read(address), identity);
    }
    this.#addresses = wanted;
  }
}

function groupKey(name: string): string {
  return `${CIDR_GROUP_KIND}//${name}`;
}

function textOf(errors: readonly { readonly path: string; readonly message: string }[]): string {
  return errors.slice(0, 3).map(({ path, message }) => path === "" ? message : `${path}: ${message}`).join("; ");
}

/** Addresses in records are checked when they come in. */
function read(address: string): IpAddress {
  return parseAddress(address)!;
}

function serviceOf(key: string, { labels, selector, addresses }: ServiceEntry) {
  const [namespace = "", name = ""] = key.split("/");
  return {
    namespace,
    name,
    labels,
    ...(selector !== undefined && { selector }),
    addresses: addresses.flatMap((address) => parseAddress(address) ?? []),
  };
}

function hasChanges(
  { puts, deletes }: { readonly puts: readonly unknown[]; readonly deletes: readonly unknown[] },
): boolean {
  return puts.length > 0 || deletes.length > 0;
}

function labelsOf(member: MemberRecord, mesh: MeshState): Labels {
  return labelsOfMember({
    cluster: member.cluster.name,
    namespace: member.namespace,
    namespaceLabels: mesh.namespaces.get(member.namespace)?.labels ?? {},
    labels: member.labels,
  });
}

function joinPorts(a: readonly NamedPort[] | undefined, b: readonly NamedPort[]): readonly NamedPort[] {
  if (a === undefined || a.length === 0) return b;
  const known = new Set(a.map((port) => `${port.name} ${port.port} ${port.protocol}`));
  return [...a, ...b.filter((port) => !known.has(`${port.name} ${port.port} ${port.protocol}`))];
}
