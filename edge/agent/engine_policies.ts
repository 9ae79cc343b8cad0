/**
 * `Policies` by the policy engine of `src/policy`. Brings three things together that go to the datapath in one message: the mesh's
 * tables, the policy table, and the prefixes that policies name (CIDR rules), which must never take the place of a mesh entry.
 */
import type { DatapathCommand } from "../../src/datapath/control.ts";
import type { Labels } from "../../src/identity/labels.ts";
import { labelsOfMember } from "../../src/identity/member_labels.ts";
import { formatPrefix, type IpPrefix } from "../../src/ip/address.ts";
import type { MemberRecord, NamedPort } from "../../src/mesh/entries.ts";
import type { MeshChange, MeshState } from "../../src/mesh/state.ts";
import { PolicyEngine, type RuleRef } from "../../src/policy/engine.ts";
import { readPolicy } from "../../src/policy/read_policy.ts";
import type { PolicyUpdate } from "../../src/policy/table.ts";
import type { Policies } from "./policies.ts";

/** Real policies. One per agent. */
export function makePolicies(): Policies {
  return new EnginePolicies();
}

interface Given {
  readonly labels: Labels;
  readonly namedPorts: readonly NamedPort[];
}

class EnginePolicies implements Policies {
  readonly #engine = new PolicyEngine();
  readonly #refused = new Map<string, string>();
  /** identities that the engine was given */
  #given = new Map<number, Given>();
  /** prefixes of policies that the datapath holds */
  #prefixes = new Map<string, { prefix: IpPrefix; identity: number }>();
  #revision = 0;

  get refused(): ReadonlyMap<string, string> {
    return this.#refused;
  }

  get revision(): number {
    return this.#revision;
  }

  get isEnforced(): { ingress: boolean; egress: boolean } {
    return { ingress: this.#engine.isEnforced(0), egress: this.#engine.isEnforced(1) };
  }

  rules(): readonly RuleRef[] {
    return this.#engine.rules();
  }

  selectsSelf(policy: string): boolean {
    return this.#engine.isSelecting(policy);
  }

  apply(change: MeshChange, mesh: MeshState): readonly DatapathCommand[] {
    this.#feed(change, mesh);
    if (!isWhole(mesh)) return change.commands;
    const update = this.#engine.takeUpdate();
    this.#engine.takePrefixes(); // all of them are looked at below: mesh entries that came or went count too
    const { removals, puts } = this.#alignPrefixes(mesh);
    return [...removals, ...change.commands, ...this.#commandOf(update), ...puts];
  }

  full(mesh: MeshState): readonly DatapathCommand[] {
    if (!isWhole(mesh)) return mesh.allCommands();
    const update = this.#engine.takeFullUpdate();
    this.#engine.takePrefixes();
    this.#prefixes = new Map();
    const { puts } = this.#alignPrefixes(mesh);
    return [...mesh.allCommands(), ...this.#commandOf(update), ...puts];
  }

  #commandOf(update: PolicyUpdate | undefined): DatapathCommand[] {
    if (update === undefined) return [];
    this.#revision = update.revision;
    return [{ op: "policy", update }];
  }

  #feed(change: MeshChange, mesh: MeshState): void {
    const engine = this.#engine;
    const { settings, self } = mesh;
    if (change.isSettingsChanged && settings !== undefined) {
      engine.setSettings({ cluster: settings.cluster.name, policy: settings.policy });
    }
    if (hasChanges(change.namespaces)) {
      engine.setNamespaces(new Map([...mesh.namespaces].map(([name, { labels }]) => [name, labels])));
    }
    if (change.isMembersChanged || hasChanges(change.identities) || hasChanges(change.namespaces)) {
      this.#feedIdentities(mesh);
    }
    if (self !== undefined && (change.isSelfChanged || change.isMembersChanged || hasChanges(change.namespaces))) {
      const { identity, namespace, namedPorts } = self;
      engine.setSubject({ labels: labelsOf(self, mesh), identity, namespace, namedPorts });
    }
    for (const [key, document] of change.policies.puts) this.#putPolicy(key, document);
    for (const key of change.policies.deletes) {
      engine.removePolicy(key);
      this.#refused.delete(key);
    }
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
    for (const id of this.#given.keys()) if (!wanted.has(id)) this.#engine.removeIdentity(id);
    // the engine sees by itself what is the same as before
    for (const [id, { labels, namedPorts }] of wanted) this.#engine.putIdentity(id, labels, namedPorts);
    this.#given = wanted;
  }

  #putPolicy(key: string, document: unknown): void {
    const result = readPolicy(document);
    if ("policy" in result) {
      this.#engine.putPolicy(key, result.policy);
      this.#refused.delete(key);
      return;
    }
    this.#closeFor(key);
    const texts = result.errors.map(({ path, message }) => path === "" ? message : `${path}: ${message}`);
    this.#refused.set(key, texts.slice(0, 3).join("; "));
  }

  /**
   * In place of a policy that we cannot read (a newer hub's, say): one that allows nothing. A gate that nobody understands stays
   * shut; status names the policy and why.
   */
  #closeFor(key: string): void {
    const [, namespace = ""] = key.split("/");
    const name = "unreadable";
    const closed = readPolicy({
      apiVersion: "cilium.io/v2",
      kind: namespace === "" ? "CiliumClusterwideNetworkPolicy" : "CiliumNetworkPolicy",
      metadata: namespace === "" ? { name } : { name, namespace },
      spec: { endpointSelector: {}, ingress: [{}], egress: [{}] },
    });
    if (!("policy" in closed)) throw new Error(`Cannot close for policy "${key}": ${closed.errors[0]?.message}`);
    this.#engine.putPolicy(key, closed.policy);
  }

  /** Which prefixes of policies the ipcache should hold now: all that lie outside the mesh's own. */
  #alignPrefixes(mesh: MeshState): { removals: DatapathCommand[]; puts: DatapathCommand[] } {
    const wanted = new Map<string, { prefix: IpPrefix; identity: number }>();
    for (const { prefix, identity } of this.#engine.allPrefixes()) {
      if (!mesh.isCovered(prefix)) wanted.set(formatPrefix(prefix), { prefix, identity });
    }
    const removals: DatapathCommand[] = [];
    const puts: DatapathCommand[] = [];
    for (const [text, { prefix }] of this.#prefixes) if (!wanted.has(text)) removals.push({ op: "removeIp", prefix });
    for (const [text, { prefix, identity }] of wanted) {
      if (this.#prefixes.get(text)?.identity !== identity) puts.push({ op: "ip", prefix, identity });
    }
    this.#prefixes = wanted;
    return { removals, puts };
  }
}

/** A join leaves settings and our own record at revision 0: no policies, so no reason to open to anybody. */
function isWhole(mesh: MeshState): boolean {
  return mesh.position !== undefined && mesh.position.revision > 0;
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
