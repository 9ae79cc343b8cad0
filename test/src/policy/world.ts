/** A small mesh for policy tests: one subject, and others by name. */
import { labelsOfMember } from "../../../src/identity/member_labels.ts";
import { parseAddress } from "../../../src/ip/address.ts";
import { PolicyEngine } from "../../../src/policy/engine.ts";
import { keyOfPolicy, type NamedPort, type Policy, type PolicySettings } from "../../../src/policy/model.ts";
import { readPolicy } from "../../../src/policy/read_policy.ts";
import { PolicyTable } from "../../../src/policy/table.ts";

export const DEFAULTS: PolicySettings = {
  enforcementMode: "default",
  defaultLocalCluster: true,
  allowLocalhost: "always",
};
const NAMESPACES: Readonly<Record<string, Record<string, string>>> = { shop: { team: "core" }, bank: { team: "edge" } };

/** Reads a policy that must be good. */
export function read(document: unknown): Policy {
  const result = readPolicy(document, { nodeSelectorLabels: true });
  if ("errors" in result) throw new Error(JSON.stringify(result.errors));
  return result.policy;
}

export function cnp(spec: Record<string, unknown>, name = "p") {
  return {
    apiVersion: "cilium.io/v2",
    kind: "CiliumNetworkPolicy",
    metadata: { name, namespace: "shop" },
    spec: { endpointSelector: { matchLabels: { app: "web" } }, ...spec },
  };
}

export function ccnp(spec: Record<string, unknown>, name = "c") {
  return {
    apiVersion: "cilium.io/v2",
    kind: "CiliumClusterwideNetworkPolicy",
    metadata: { name },
    spec: { endpointSelector: { matchLabels: { app: "web" } }, ...spec },
  };
}

export function knp(spec: Record<string, unknown>, name = "k") {
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: { name, namespace: "shop" },
    spec: { podSelector: { matchLabels: { app: "web" } }, ...spec },
  };
}

export function memberLabels(
  name: string,
  namespace: string,
  cluster = "c1",
  namespaceLabels = NAMESPACES[namespace] ?? {},
) {
  return labelsOfMember({ cluster, namespace, namespaceLabels, labels: { app: name } });
}

/** Identities of the members, by the name that tests use. */
export const MEMBERS: Readonly<
  Record<string, { identity: number; name: string; namespace: string; cluster: string; ports: NamedPort[] }>
> = {
  db: {
    identity: 65_801,
    name: "db",
    namespace: "shop",
    cluster: "c1",
    ports: [{ name: "sql", port: 5432, protocol: "TCP" }],
  },
  client: {
    identity: 65_802,
    name: "client",
    namespace: "shop",
    cluster: "c1",
    ports: [{ name: "sql", port: 3306, protocol: "TCP" }],
  },
  bank: { identity: 65_803, name: "client", namespace: "bank", cluster: "c1", ports: [] },
  far: { identity: 131_400, name: "client", namespace: "shop", cluster: "c2", ports: [] },
};
const RESERVED: Readonly<Record<string, number>> = {
  host: 1,
  world: 2,
  health: 4,
  init: 5,
  "remote-node": 6,
  "kube-apiserver": 7,
  ingress: 8,
};

/** Who is asked about: a member, a reserved name, "nobody" (an unknown identity), or an outside address. */
export function identityOf(world: World, other: string): number {
  const member = MEMBERS[other];
  if (member !== undefined) return member.identity;
  if (other in RESERVED) return RESERVED[other]!;
  return other === "nobody" ? 4_000_000 : world.engine.identityOfAddress(parseAddress(other)!);
}

export interface World {
  readonly engine: PolicyEngine;
  readonly table: PolicyTable;
}

/** The subject is app=web in namespace shop of cluster c1, with port "http" = 8080/TCP. */
export function makeWorld(documents: readonly unknown[], settings: Partial<PolicySettings> = {}): World {
  const world = { engine: new PolicyEngine(), table: new PolicyTable() };
  const { engine } = world;
  engine.setSettings({ cluster: "c1", policy: { ...DEFAULTS, ...settings } });
  engine.setSubject({
    labels: memberLabels("web", "shop"),
    identity: 65_800,
    namespace: "shop",
    namedPorts: [{ name: "http", port: 8080, protocol: "TCP" }],
  });
  for (const { identity, name, namespace, cluster, ports } of Object.values(MEMBERS)) {
    engine.putIdentity(identity, memberLabels(name, namespace, cluster), ports);
  }
  for (const document of documents) engine.putPolicy(keyOfPolicy(read(document)), read(document));
  update(world);
  return world;
}

/** Brings the table up to date. */
export function update({ engine, table }: World): void {
  const change = engine.takeUpdate();
  if (change !== undefined) table.apply(structuredClone(change));
}

const PROTOCOLS: Readonly<Record<string, number>> = { tcp: 6, udp: 17, sctp: 132, icmp: 1, icmp6: 58, gre: 47 };

/** The verdict for a flow written as "in client tcp 80", "out 8.8.8.8 udp 53", "in far icmp 8". */
export function ask(world: World, flow: string): number {
  const [direction, other, protocol, port] = flow.split(" ") as [string, string, string, string];
  return world.table.lookup(
    direction === "in" ? 0 : 1,
    identityOf(world, other),
    PROTOCOLS[protocol]!,
    Number(port ?? 0),
  );
}
