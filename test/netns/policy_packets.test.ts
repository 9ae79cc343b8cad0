/**
 * Policies as real packets: scenarios of `test/scenario/policy`, the same files that `edgemesh policy test` judges, on members that
 * run. Each endpoint of a scenario is a member; a probe is an HTTP request, a UDP echo or a ping between two of them.
 *
 * The members stay, and get the next scenario by SIGHUP: so sessions and flows of the one before are there when it comes.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { readManifest } from "../../edge/manifest.ts";
import { readScenarios } from "../../edge/policy/read_scenario.ts";
import {
  DEFAULT_CONFIG,
  type Probe,
  probeText,
  type Scenario,
  type ScenarioEndpoint,
} from "../../edge/policy/scenario.ts";
import { Lab, until } from "../../scripts/lab/lab.ts";
import { Agent } from "../../scripts/lab/program.ts";
import { formatAddress } from "../../src/ip/address.ts";

const SCENARIOS = join(import.meta.dirname, "../scenario/policy");
const PROBES = [process.execPath, join(import.meta.dirname, "../../scripts/lab/probes.mjs")];

/** Members that run; scenarios whose probes name more endpoints are left to `policy test`. */
const MEMBERS = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9"];
/** How long a probe that must not get through is tried, and the patience for one that must. */
const DENIED_AFTER_MS = 450;
const ALLOWED_WITHIN_MS = 5_000;
const PROTOCOLS = ["TCP", "UDP", "ICMP", "ICMPv6"];
/** What a mesh file can say of a scenario's configuration. */
const CONFIG = [
  "localCluster",
  "policyDefaultLocalCluster",
  "enforcementMode",
  "allowLocalhost",
  "clusterNetworkPolicy",
];
/** Members enforce these whatever the scenario says of watching them. */
const CLUSTER_KINDS = ["ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"];

/** A probe with its ends as members. */
interface PacketProbe {
  readonly from: number;
  readonly to: number;
  readonly probe: Probe;
}

interface PacketScenario {
  readonly scenario: Scenario;
  /** by member: those that probes name */
  readonly endpoints: readonly ScenarioEndpoint[];
  readonly probes: readonly PacketProbe[];
}

const chosen = readdirSync(SCENARIOS).filter((name) => name.endsWith(".yaml")).flatMap(readPacketScenarios);
const lab = { value: undefined as Lab | undefined };
const agents: Agent[] = [];
let keys: { readonly file: string; readonly publicKey: string }[] = [];

beforeAll(async () => {
  lab.value = await Lab.create(MEMBERS);
  keys = await Promise.all(MEMBERS.map(makeKey));
  const ports = [...new Set(chosen.flatMap(({ probes }) => probes.map(({ probe }) => probe)).flatMap(portOf))];
  for (const name of MEMBERS) {
    const server = lab.value.start(name, `answer-${name}`, [...PROBES, "answer", ...ports.map(String)]);
    await server.saw(/^ready$/m);
    const agent = new Agent(lab.value, name);
    agents.push(agent);
  }
  writeScenario(chosen[0]!);
  for (const agent of agents) agent.start(["run", "--mesh", meshFile(agent)]);
  await until("all members answer", async () => (await revisions()).every((revision) => revision === 1));
}, 60_000);
afterAll(() => lab.value?.close());

describe("policies on packets", () => {
  it("are tried with at least a hundred probes", () => {
    expect(chosen.reduce((sum, { probes }) => sum + probes.length, 0)).toBeGreaterThanOrEqual(100);
  });

  it.each(chosen)("$scenario.id", async (one) => {
    await bring(one);
    const dropsBefore = await policyDrops();
    const got = await ask(one);
    const wrong = one.probes.flatMap(({ probe }, i) =>
      isExpected(probe, got[i]!) ? [] : [`${probeText(probe, endText)}: got ${got[i] || "nothing"}`]
    );
    expect(wrong).toEqual([]);
    // what did not get through was dropped by policy, not lost
    const denied = one.probes.filter(({ probe }) => isDropped(probe)).length;
    expect(await policyDrops() - dropsBefore).toBeGreaterThanOrEqual(denied);
  }, 30_000);
});

/** Those of a file that a few running members can be: pods of one cluster, packets that a program can make. */
function readPacketScenarios(name: string): PacketScenario[] {
  const manifest = readManifest(readFileSync(join(SCENARIOS, name), "utf8"));
  if ("errors" in manifest) throw new Error(JSON.stringify(manifest.errors));
  return readScenarios(manifest.documents).flatMap((read) =>
    "bad" in read || !isForMembers(read.scenario) ? [] : packetScenario(read.scenario)
  );
}

function isForMembers(scenario: Scenario): boolean {
  const { flavor, config, policies, cidrGroups, services, dnsCache, isContested } = scenario;
  const isWatched = config.clusterNetworkPolicy ||
    !policies.some((document) => CLUSTER_KINDS.includes((document as { kind: string }).kind));
  const isUsual = Object.entries(DEFAULT_CONFIG).every(([name, value]) =>
    CONFIG.includes(name) || JSON.stringify(config[name as keyof typeof config]) === JSON.stringify(value)
  );
  return flavor === "cilium" && isUsual && isWatched && !isContested &&
    [cidrGroups, services, dnsCache].every((list) => list.length === 0);
}

function packetScenario(scenario: Scenario): PacketScenario[] {
  const { question, config } = scenario;
  const probes = question.kind !== "probes" ? [] : question.probes.filter(isPacket);
  const ends = scenario.endpoints.filter((one) => isPod(one, config.localCluster));
  const named = ends.filter(({ ref }) => probes.some(({ from, to }) => isEnd(from, ref) || isEnd(to, ref)));
  const indexOf = (end: Probe["from"]) => named.findIndex(({ ref }) => isEnd(end, ref));
  const placed = probes.map((probe) => ({ probe, from: indexOf(probe.from), to: indexOf(probe.to) }))
    .filter(({ from, to }) => from >= 0 && to >= 0 && from !== to);
  return placed.length === 0 || named.length > MEMBERS.length ? [] : [{ scenario, endpoints: named, probes: placed }];
}

/** A pod that a member can be: no service account, no labels of other sources. */
function isPod({ cluster, reserved, serviceAccount, labels }: ScenarioEndpoint, localCluster: string): boolean {
  return cluster === localCluster && reserved.length === 0 && serviceAccount === undefined &&
    Object.keys(labels).every((key) => !key.includes(":"));
}

/** Something that an ordinary program can send, from its beginning. */
function isPacket({ side, isReply, dns, sni, proto, port }: Probe): boolean {
  const isEcho = proto === "ICMP" ? port === 8 : proto !== "ICMPv6" || port === 128;
  return side === "both" && !isReply && isEcho && PROTOCOLS.includes(proto) && dns === undefined && sni === undefined;
}

function isEnd(end: Probe["from"], ref: string): boolean {
  return "ref" in end && end.ref === ref;
}

/** No packet of it arrives; a request that is refused gets an answer. */
function isDropped({ expect, http, httpStatus }: Probe): boolean {
  return expect === "deny" && http === undefined && httpStatus === undefined;
}

function isExpected(probe: Probe, status: number): boolean {
  if (isDropped(probe)) return status === 0;
  if (probe.httpStatus !== undefined) return status === probe.httpStatus;
  if (probe.http === undefined) return status > 0; // what a proxy then says of the request is another question
  return probe.expect === "allow" ? status === 200 : status === 403 || status === 0;
}

function endText(end: Probe["from"]): string {
  return "ref" in end ? end.ref : formatAddress(end.address);
}

function portOf({ proto, port }: Probe): number[] {
  return proto.startsWith("ICMP") ? [] : [port];
}

async function makeKey(name: string): Promise<{ file: string; publicKey: string }> {
  const { stdout: key } = await lab.value!.run(name, ["wg", "genkey"]);
  const { stdout: publicKey } = await lab.value!.run(name, ["wg", "pubkey"], { input: key });
  const file = join(lab.value!.node(name).dir, "wg.key");
  writeFileSync(file, key, { mode: 0o600 });
  return { file, publicKey: publicKey.trim() };
}

function meshFile(agent: Agent): string {
  return join(agent.node.dir, "mesh.yaml");
}

/** Writes the mesh files of all members; those without an endpoint in the scenario stand by with labels of their own. */
function writeScenario({ scenario, endpoints }: PacketScenario): void {
  const { config } = scenario;
  const nodes = MEMBERS.map((name, i) => nodeOf(name, i, endpoints[i], config.localCluster));
  MEMBERS.forEach((_, i) => {
    const { publicKey: _publicKey, endpoint: _endpoint, ...own } = nodes[i]!;
    const file = {
      node: { ...own, privateKeyFile: keys[i]!.file, listenPort: 51871 },
      policy: {
        enforcementMode: config.enforcementMode,
        defaultLocalCluster: config.policyDefaultLocalCluster,
        allowLocalhost: config.allowLocalhost,
      },
      peers: nodes.filter((_, j) => j !== i),
      namespaces: Object.fromEntries([...scenario.namespaces].map(([name, labels]) => [name, { labels }])),
      policies: scenario.policies,
    };
    writeFileSync(meshFile(agents[i]!), stringify(file));
  });
}

function nodeOf(name: string, i: number, endpoint: ScenarioEndpoint | undefined, cluster: string) {
  const { ip4 } = lab.value!.node(name);
  return {
    name,
    cluster: { name: cluster, id: 1 },
    underlay: ip4,
    publicKey: keys[i]!.publicKey,
    endpoint: `${ip4}:51871`,
    addresses: addressesOf(i, endpoint).map((address) => `${address}/${address.includes(":") ? 128 : 32}`),
    namespace: endpoint?.namespace ?? "standby",
    labels: endpoint?.labels ?? { standby: name },
    namedPorts: Object.fromEntries(
      (endpoint?.namedPorts ?? []).map(({ name: port, port: number, protocol }) => [port, `${number}/${protocol}`]),
    ),
  };
}

/** The scenario's where it gives some (prefixes in policies may mean them), ours for the families that it leaves open. */
function addressesOf(i: number, endpoint: ScenarioEndpoint | undefined): string[] {
  const given = (endpoint?.addresses ?? []).map(formatAddress);
  return [
    given.find((address) => !address.includes(":")) ?? `10.250.0.${i + 1}`,
    given.find((address) => address.includes(":")) ?? `fd99::${i + 1}`,
  ];
}

let revision = 1;

/** The next scenario to all members, in force when it resolves. */
async function bring(one: PacketScenario): Promise<void> {
  if (one !== chosen[0]) {
    writeScenario(one);
    revision++;
    for (const agent of agents) agent.process!.signal("SIGHUP");
  }
  await until(
    `all members have scenario ${one.scenario.id}`,
    async () => (await revisions()).every((now) => now === revision),
    10_000,
    () => agents[0]!.process!.log().split("\n").slice(-5).join("\n"),
  );
}

async function statusOf(agent: Agent) {
  try {
    return JSON.parse((await agent.http("/v1/status")).body);
  } catch {
    return undefined;
  }
}

async function revisions(): Promise<number[]> {
  const all = await Promise.all(agents.map(statusOf));
  return all.map((status) => status?.state === "ready" ? status.mesh.revision : -1);
}

/** Packets that policy dropped, on all members. */
async function policyDrops(): Promise<number> {
  const pages = await Promise.all(agents.map((agent) => agent.http("/metrics")));
  const lines = pages.flatMap(({ body }) => body.split("\n")).filter((line) => /reason="POLICY_DEN/.test(line));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}

/** Sends all probes at once, each from its own member. @returns status codes, 0: nothing came back */
async function ask({ endpoints, probes }: PacketScenario): Promise<number[]> {
  const got: number[] = new Array(probes.length).fill(0);
  await Promise.all(MEMBERS.map(async (name, from) => {
    const mine = probes.map((probe, i) => ({ ...probe, i })).filter((probe) => probe.from === from);
    if (mine.length === 0) return;
    const asked = mine.map(({ probe, to }) => ({
      proto: probe.proto,
      port: probe.port,
      address: addressesOf(to, endpoints[to])[probe.proto === "ICMPv6" ? 1 : 0],
      waitMs: isDropped(probe) ? DENIED_AFTER_MS : ALLOWED_WITHIN_MS,
      ...(probe.http !== undefined && { http: probe.http }),
    }));
    const done = await lab.value!.run(name, [...PROBES, "ask", JSON.stringify(asked)]);
    JSON.parse(done.stdout).forEach((status: number, k: number) => got[mine[k]!.i] = status);
  }));
  return got;
}
