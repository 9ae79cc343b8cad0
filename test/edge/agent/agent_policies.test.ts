/** Policies as the agent brings them into force: on trial, with proxies and names, and on the dry run. */
import { describe, expect, it } from "vitest";
import type { DatapathCommand, FlowRecord } from "../../../src/datapath/control.ts";
import type { EntryValue } from "../../../src/mesh/entries.ts";
import { PolicyTable } from "../../../src/policy/table.ts";
import { DROP_POLICY_DENIED, DROP_POLICY_DENY, FORWARD, REDIRECT } from "../../../src/verdict.ts";
import { entriesOf } from "../../src/mesh/fixtures.ts";
import type { SourceStatus } from "../../../edge/sync/source.ts";
import { type FakeAgent, makeAgent } from "./fakes.ts";

const PEER = 65536 + 256 + 3;
const TCP = 6;

/** What the datapath's own table says of egress to member 3. */
function egress(fake: FakeAgent, port: number, identity = PEER): number {
  const table = new PolicyTable();
  for (const command of fake.link.told.flat()) if (command.op === "policy") table.apply(command.update);
  return table.lookup(1, identity, TCP, port);
}

function last<Op extends DatapathCommand["op"]>(fake: FakeAgent, op: Op) {
  return fake.link.told.flat().filter((command) => command.op === op).at(-1) as
    | Extract<DatapathCommand, { op: Op }>
    | undefined;
}

function policy(name: string, egressRules: unknown): readonly [string, EntryValue] {
  return [`policy/CiliumClusterwideNetworkPolicy//${name}`, {
    apiVersion: "cilium.io/v2",
    kind: "CiliumClusterwideNetworkPolicy",
    metadata: { name },
    spec: { endpointSelector: {}, egress: egressRules },
  }];
}

const CLOSED = policy("closed", [{}]);

async function synced(options: Pick<SourceStatus, "localAddress" | "remote"> = {}): Promise<FakeAgent> {
  const fake = makeAgent();
  await fake.agent.start();
  fake.source.sink!.apply({ t: "snapshot", epoch: "e", revision: 1, entries: entriesOf(1, 2, 3) });
  fake.source.sink!.status({ state: "synced", hub: "hub:7443", ...options });
  return fake;
}

let revision = 1;
function put(fake: FakeAgent, ...puts: (readonly [string, EntryValue])[]): void {
  fake.source.sink!.apply({ t: "delta", revision: ++revision, puts, deletes: [] });
}

const codes = (fake: FakeAgent) => fake.agent.health.items().map(({ code }) => code);

describe("a policy that cuts the member off from its hub", () => {
  it("is rolled back when the hub inside the mesh is not heard after it, and says so", async () => {
    const fake = await synced({ localAddress: "10.9.0.2" });
    put(fake, CLOSED);
    expect(egress(fake, 7443)).toBe(DROP_POLICY_DENIED);
    fake.time.pass(29_000);
    expect(egress(fake, 7443)).toBe(DROP_POLICY_DENIED);
    fake.time.pass(2_000);
    expect(egress(fake, 7443)).toBe(FORWARD);
    expect(codes(fake)).toContain("policy-rolled-back");
  });

  it("stays when the hub is heard in time", async () => {
    const fake = await synced({ localAddress: "10.9.0.2" });
    put(fake, CLOSED);
    fake.time.pass(2_000);
    fake.source.sink!.heard!();
    fake.time.pass(60_000);
    expect(egress(fake, 7443)).toBe(DROP_POLICY_DENIED);
    expect(codes(fake)).not.toContain("policy-rolled-back");
  });

  it("stays when the way to the hub does not run through the mesh: the policy cannot have cut it", async () => {
    const fake = await synced({ localAddress: "192.168.1.5" });
    put(fake, CLOSED);
    fake.source.sink!.status({ state: "offline", detail: "gone" });
    fake.time.pass(120_000);
    expect(egress(fake, 7443)).toBe(DROP_POLICY_DENIED);
  });

  it("stays when it lets the connection to the hub pass: whoever silences the hub must not choose the policy", async () => {
    const ends = { localAddress: "10.9.0.2", remote: { address: "10.9.0.3", port: 7443 } };
    const fake = await synced(ends);
    put(fake, policy("hub", [{ toPorts: [{ ports: [{ port: "7443" }] }] }]));
    fake.source.sink!.status({ state: "offline", detail: "gone" });
    for (let i = 0; i < 5; i++) {
      fake.time.pass(40_000);
      expect([egress(fake, 7443), egress(fake, 80)]).toEqual([FORWARD, DROP_POLICY_DENIED]);
    }
    expect(codes(fake)).not.toContain("policy-rolled-back");
    fake.source.sink!.status({ state: "synced", hub: "hub:7443", ...ends });
    put(fake, policy("hub", [{}]));
    fake.time.pass(31_000);
    expect([egress(fake, 7443), egress(fake, 80)]).toEqual([FORWARD, DROP_POLICY_DENIED]);
    expect(codes(fake)).toContain("policy-rolled-back");
  });

  it("is tried once more when the hub is heard again, and gets in force with a change that lifts the trouble", async () => {
    const fake = await synced({ localAddress: "10.9.0.2" });
    put(fake, CLOSED);
    fake.time.pass(31_000);
    fake.source.sink!.status({ state: "synced", hub: "hub:7443", localAddress: "10.9.0.2" });
    fake.source.sink!.heard!();
    fake.time.pass(12_000);
    expect(egress(fake, 7443)).toBe(DROP_POLICY_DENIED);
    fake.time.pass(31_000);
    expect(egress(fake, 7443)).toBe(FORWARD);
    put(fake, policy("hub", [{ toPorts: [{ ports: [{ port: "7443" }] }] }]));
    fake.time.pass(2_000);
    fake.source.sink!.heard!();
    expect(egress(fake, 7443)).toBe(FORWARD);
    expect(egress(fake, 80)).toBe(DROP_POLICY_DENIED);
    expect(codes(fake)).not.toContain("policy-rolled-back");
  });
});

describe("an object that this member cannot read", () => {
  const OPEN = policy("open", [{ toEntities: ["all"] }]);
  const denying = (rules: unknown, more: Record<string, unknown> = {}): readonly [string, EntryValue] => [
    "policy/CiliumClusterwideNetworkPolicy//deny",
    {
      apiVersion: "cilium.io/v2",
      kind: "CiliumClusterwideNetworkPolicy",
      metadata: { name: "deny" },
      spec: { endpointSelector: {}, egressDeny: rules, ...more },
    },
  ];

  it("closes what others allow, where it may deny it, and no more where it only allows", async () => {
    const fake = await synced();
    put(fake, OPEN, denying([{ toPorts: [{ ports: [{ port: "80" }] }] }]));
    expect([egress(fake, 80), egress(fake, 81)]).toEqual([DROP_POLICY_DENY, FORWARD]);
    // a newer hub's: what it denies cannot be told
    put(fake, denying([{ toPorts: [{ ports: [{ port: "80" }] }] }], { toSomethingNew: true }));
    expect([egress(fake, 80), egress(fake, 81)]).toEqual([DROP_POLICY_DENY, DROP_POLICY_DENY]);
    expect(codes(fake)).toContain("policy-refused");
    put(fake, denying([{ toPorts: [{ ports: [{ port: "81" }] }] }]));
    expect([egress(fake, 80), egress(fake, 81)]).toEqual([FORWARD, DROP_POLICY_DENY]);
    put(fake, policy("deny", [{ toSomethingNew: true }]));
    expect([egress(fake, 80), egress(fake, 81)]).toEqual([FORWARD, FORWARD]);
    fake.source.sink!.apply({ t: "delta", revision: ++revision, puts: [], deletes: [OPEN[0]] });
    expect(egress(fake, 80)).toBe(DROP_POLICY_DENIED);
  });

  it("closes above what an admin policy allows, when it may be one that denies", async () => {
    const fake = await synced();
    const admin = (name: string, rule: Record<string, unknown>): readonly [string, EntryValue] => [
      `policy/ClusterNetworkPolicy//${name}`,
      {
        apiVersion: "policy.networking.k8s.io/v1alpha2",
        kind: "ClusterNetworkPolicy",
        metadata: { name },
        spec: { tier: "Admin", priority: 0, subject: { namespaces: {} }, egress: [rule] },
      },
    ];
    put(fake, admin("open", { action: "Accept", to: [{ namespaces: {} }] }));
    expect(egress(fake, 80)).toBe(FORWARD);
    put(fake, admin("new", { action: "Deny", to: [{ somethingNew: {} }] }));
    expect(egress(fake, 80)).toBe(DROP_POLICY_DENY);
  });

  it("is a group too: an empty one would open what a policy denies by it", async () => {
    const fake = await synced();
    const group = (spec: unknown): readonly [string, EntryValue] => [
      "cidrgroup/bad",
      { apiVersion: "cilium.io/v2", kind: "CiliumCIDRGroup", metadata: { name: "bad" }, spec } as EntryValue,
    ];
    put(fake, OPEN, denying([{ toCIDRSet: [{ cidrGroupRef: "bad" }] }]), group({ externalCIDRs: ["203.0.113.0/24"] }));
    expect(egress(fake, 80)).toBe(FORWARD);
    put(fake, group({ externalCIDRs: ["203.0.113.0/24"], somethingNew: 1 }));
    expect(egress(fake, 80)).toBe(DROP_POLICY_DENY);
  });
});

describe("policies that a proxy completes", () => {
  const HTTP = policy("web", [{
    toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules: { http: [{ method: "GET", path: "/public" }] } }],
  }]);

  it("start the proxy, route its addresses, tell the datapath, and end all of it with the policy", async () => {
    const fake = await synced();
    put(fake, HTTP);
    await fake.settle();
    expect(fake.started).toEqual(["http 10.9.0.2 fd09::2"]);
    expect(last(fake, "proxy")).toMatchObject({ http: 40_001, dns: 0 });
    expect(egress(fake, 80)).toBe(REDIRECT);
    expect(fake.network.on(fake.network.localRoutes)).toContain("169.254.101.1/32");
    const flow = {
      from: { address: "10.9.0.2", port: 5 },
      to: { address: "10.9.0.3", port: 80 },
      protocol: 6,
      direction: 1,
      identity: PEER,
    } as const;
    expect(fake.proxyDoors!.l7RulesFor(flow).map(({ l7 }) => l7)).toEqual([
      { kind: "http", rules: [{ method: "GET", path: "/public", headers: [] }] },
    ]);
    expect(fake.proxyDoors!.l7RulesFor(flow)).toBe(fake.proxyDoors!.l7RulesFor(flow));
    put(
      fake,
      policy("web", [{
        toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules: { http: [{ path: "/other" }] } }],
      }]),
    );
    expect(fake.proxyDoors!.l7RulesFor(flow).map(({ l7 }) => l7.rules)).toEqual([[{ path: "/other", headers: [] }]]);
    fake.source.sink!.apply({ t: "delta", revision: ++revision, puts: [], deletes: [HTTP[0]] });
    await fake.settle();
    expect(last(fake, "proxy")).toMatchObject({ http: 0, dns: 0 });
    // a flow that is with the proxy cannot leave it: it passes whole now
    expect(fake.proxyDoors!.l7RulesFor(flow)).toHaveLength(1);
  });

  it("let the addresses of a learned name pass, and only those", async () => {
    const fake = await synced();
    put(
      fake,
      policy("names", [
        { toPorts: [{ ports: [{ port: "53", protocol: "UDP" }], rules: { dns: [{ matchPattern: "*" }] } }] },
        { toFQDNs: [{ matchName: "db.example" }] },
      ]),
    );
    await fake.settle();
    expect(fake.started).toEqual(["dns 10.9.0.2 fd09::2"]);
    await fake.dnsDoors!.learn("db.example.", ["192.0.2.7"], 60);
    await fake.dnsDoors!.learn("other.example.", ["192.0.2.8"], 60);
    const known = last(fake, "ip")!;
    expect([...known.prefix.address]).toEqual([192, 0, 2, 7]);
    expect(egress(fake, 443, known.identity)).toBe(FORWARD);
    expect(egress(fake, 443)).toBe(DROP_POLICY_DENIED);
  });
});

describe("a dry run", () => {
  const flow: FlowRecord = {
    direction: "egress",
    source: "10.9.0.2",
    destination: "10.9.0.3",
    protocol: 6,
    sourcePort: 40_000,
    destinationPort: 5432,
    identity: PEER,
    state: "established",
    packets: 1,
    bytes: 1,
    replyPackets: 1,
    replyBytes: 1,
    lastSeenUnixMs: 0,
    isRedirected: false,
  };

  it("names the flows that a change would newly drop, and changes nothing", async () => {
    const fake = await synced();
    fake.link.flowRecords = [flow, { ...flow, destinationPort: 80 }];
    const before = fake.link.told.length;
    const result = await fake.agent.evaluate([policy("web", [{ toPorts: [{ ports: [{ port: "80" }] }] }])], []);
    expect(result).toMatchObject({ total: 1, lookedAt: 2 });
    expect(result.flows[0]).toMatchObject({ destination: "10.9.0.3", port: 5432, peer: "edge1/m3" });
    expect(result.flows[0]!.after.verdict).toBe("POLICY_DENIED");
    expect(fake.link.told.length).toBe(before);
  });
});
