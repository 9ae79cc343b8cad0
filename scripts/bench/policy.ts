/**
 * Benchmark of the policy engine on a workload whose figures for Cilium 1.20.2's own Go packages are known (one core of a shared
 * 2-core x86-64 machine, medians). Prints ours beside them. Runs on Bun, Deno and Node; no IO but printing.
 *
 *     bun scripts/bench/policy.ts            deno run scripts/bench/policy.ts
 *     bun scripts/bench/policy.ts memory     resident memory with everything built once
 *
 * Identities i = 0..9999: app=app{i%500}, tier=tier{i%7}, env=env{i%3}, pod=pod{i}, namespace ns{i%50}, cluster cluster1.
 * Policies j = 0..999 in ns0, of which S select the one endpoint (app=subject).
 */
import process from "node:process";
import { KEY_CLUSTER, KEY_NAMESPACE, type Labels } from "../../src/identity/labels.ts";
import { PolicyEngine } from "../../src/policy/engine.ts";
import type { Policy } from "../../src/policy/model.ts";
import { readPolicy } from "../../src/policy/read_policy.ts";
import { PolicyTable, type PolicyUpdate } from "../../src/policy/table.ts";

const IDENTITIES = 10_000;
const POLICIES = 1000;
const ROUNDS = 5;
const FIRST_IDENTITY = 65_536 + 256;
const SETTINGS = {
  cluster: "cluster1",
  policy: { enforcementMode: "default", defaultLocalCluster: true, allowLocalhost: "always" },
} as const;

/** Cilium's figures: seconds but for the last two. */
interface Reference {
  readonly parse: number;
  readonly full: number;
  readonly one: number;
  readonly identity: number;
  readonly policy: number;
  readonly lookups: number;
  readonly entries: number;
}

const CILIUM: Readonly<Record<number, Reference>> = {
  20: { parse: 0.2, full: 0.092, one: 0.0076, identity: 6e-6, policy: 0.0043, lookups: 1.7e6, entries: 3850 },
  1000: { parse: 0.16, full: 1.99, one: 0.332, identity: 0.35e-3, policy: 0.387, lookups: 0.84e6, entries: 136_875 },
};

function labelsOfIdentity(i: number): Labels {
  return {
    "k8s:app": `app${i % 500}`,
    "k8s:tier": `tier${i % 7}`,
    "k8s:env": `env${i % 3}`,
    "k8s:pod": `pod${i}`,
    [`k8s:${KEY_NAMESPACE}`]: `ns${i % 50}`,
    [`k8s:${KEY_CLUSTER}`]: "cluster1",
  };
}

/** @param firstPort added to the ports, so that a policy can change */
function documentOf(j: number, selecting: number, firstPort = 1000): Record<string, unknown> {
  const ns = "k8s:io.kubernetes.pod.namespace";
  const ports = [
    { port: String(firstPort + (j % 300)), protocol: "TCP" },
    { port: String(5000 + (j % 10)), protocol: "UDP" },
  ] as { port: string; protocol: string; endPort?: number }[];
  if (j % 10 === 0) ports.push({ port: String(20_000 + j), endPort: 20_099 + j, protocol: "TCP" });
  const spec: Record<string, unknown> = {
    endpointSelector: { matchLabels: { app: j < selecting ? "subject" : `other${j}` } },
    ingress: [{
      fromEndpoints: [
        { matchLabels: { app: `app${(3 * j) % 500}`, [ns]: `ns${(3 * j) % 50}` } },
        {
          matchExpressions: [
            { key: "tier", operator: "In", values: [`tier${j % 7}`] },
            { key: ns, operator: "In", values: [`ns${j % 50}`, `ns${(j + 1) % 50}`] },
          ],
        },
      ],
      toPorts: [{ ports }],
    }],
  };
  if (j % 5 === 0) {
    spec["egress"] = [{ toCIDR: [`10.${j % 256}.0.0/16`], toPorts: [{ ports: [{ port: "443", protocol: "TCP" }] }] }];
  }
  if (j % 20 === 0) {
    spec["ingressDeny"] = [{
      fromEndpoints: [{ matchLabels: { env: `env${j % 3}`, app: `app${j % 500}`, [ns]: `ns${j % 50}` } }],
    }];
  }
  return {
    apiVersion: "cilium.io/v2",
    kind: "CiliumNetworkPolicy",
    metadata: { name: `p${j}`, namespace: "ns0" },
    spec,
  };
}

function read(document: unknown): Policy {
  const result = readPolicy(document);
  if ("errors" in result) throw new Error(JSON.stringify(result.errors));
  return result.policy;
}

function setSubject(engine: PolicyEngine, app: string): void {
  engine.setSubject({
    labels: { "k8s:app": app, [`k8s:${KEY_NAMESPACE}`]: "ns0", [`k8s:${KEY_CLUSTER}`]: "cluster1" },
    identity: FIRST_IDENTITY + IDENTITIES,
    namespace: "ns0",
    namedPorts: [],
  });
}

function secondsOf(work: () => void): number {
  const start = performance.now();
  work();
  return (performance.now() - start) / 1000;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** Everything from nothing: identities, policies, resolution, the endpoint's table. */
function buildAll(
  policies: readonly Policy[],
  labels: readonly Labels[],
): { engine: PolicyEngine; table: PolicyTable } {
  const engine = new PolicyEngine();
  engine.setSettings(SETTINGS);
  setSubject(engine, "subject");
  labels.forEach((one, i) => engine.putIdentity(FIRST_IDENTITY + i, one));
  policies.forEach((policy, j) => engine.putPolicy(`p${j}`, policy));
  const table = new PolicyTable();
  table.apply(engine.takeUpdate()!);
  engine.takePrefixes();
  return { engine, table };
}

function updateTable(engine: PolicyEngine, table: PolicyTable): PolicyUpdate | undefined {
  const update = engine.takeUpdate();
  if (update !== undefined) table.apply(update);
  return update;
}

/** The endpoint's resolution alone: everything else is in place. */
function timeOneEndpoint(engine: PolicyEngine, table: PolicyTable): number {
  const times: number[] = [];
  for (let i = 0; i < 5 * ROUNDS; i++) {
    setSubject(engine, "nobody");
    updateTable(engine, table);
    times.push(secondsOf(() => {
      setSubject(engine, "subject");
      updateTable(engine, table);
    }));
  }
  return median(times);
}

function timeIdentities(engine: PolicyEngine, table: PolicyTable): number {
  const count = 1000;
  const labels = Array.from({ length: count }, (_, i) => labelsOfIdentity(IDENTITIES + 7 * i));
  const times = labels.map((one, i) =>
    secondsOf(() => {
      engine.putIdentity(FIRST_IDENTITY + IDENTITIES + 1 + i, one);
      updateTable(engine, table);
    })
  );
  for (let i = 0; i < count; i++) engine.removeIdentity(FIRST_IDENTITY + IDENTITIES + 1 + i);
  updateTable(engine, table);
  return median(times);
}

function timePolicyChanges(engine: PolicyEngine, table: PolicyTable, selecting: number): number {
  const times: number[] = [];
  for (let i = 0; i < 40; i++) {
    const j = (i * 37) % selecting;
    const changed = read(documentOf(j, selecting, 1400 + i));
    times.push(secondsOf(() => {
      engine.putPolicy(`p${j}`, changed);
      updateTable(engine, table);
    }));
    engine.putPolicy(`p${j}`, read(documentOf(j, selecting)));
    updateTable(engine, table);
  }
  return median(times);
}

function lookupsPerSecond(table: PolicyTable): { rate: number; allowed: number } {
  const mask = 0xffff;
  const identities = new Int32Array(mask + 1);
  const ports = new Int32Array(mask + 1);
  let state = 12345;
  const random = (below: number) => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0, (state >>> 8) % below);
  for (let i = 0; i <= mask; i++) {
    identities[i] = FIRST_IDENTITY + random(IDENTITIES);
    ports[i] = 1000 + random(400);
  }
  let allowed = 0;
  const count = 4_000_000;
  const round = () => {
    for (let i = 0; i < count; i++) if (table.lookup(0, identities[i & mask]!, 6, ports[i & mask]!) === 0) allowed++;
  };
  round();
  const rates = Array.from({ length: ROUNDS }, () => count / secondsOf(round));
  return { rate: median(rates), allowed: allowed / (count * (ROUNDS + 1)) };
}

function show(name: string, ours: string, theirs: string, ratio?: number): void {
  console.log(
    `  ${name.padEnd(34)}${ours.padStart(14)}${theirs.padStart(14)}${
      ratio === undefined ? "" : `${ratio.toFixed(1)} x`.padStart(10)
    }`,
  );
}

function time(seconds: number): string {
  return seconds < 1e-3
    ? `${(seconds * 1e6).toFixed(1)} us`
    : seconds < 1
    ? `${(seconds * 1e3).toFixed(1)} ms`
    : `${seconds.toFixed(2)} s`;
}

function run(selecting: number): void {
  const cilium = CILIUM[selecting]!;
  const labels = Array.from({ length: IDENTITIES }, (_, i) => labelsOfIdentity(i));
  const texts = Array.from({ length: POLICIES }, (_, j) => JSON.stringify(documentOf(j, selecting)));
  let policies: Policy[] = [];
  const parse = median(
    Array.from({ length: ROUNDS }, () => secondsOf(() => (policies = texts.map((text) => read(JSON.parse(text)))))),
  );
  let built = buildAll(policies, labels);
  const full = median(Array.from({ length: ROUNDS }, () => secondsOf(() => (built = buildAll(policies, labels)))));
  const { engine, table } = built;
  const one = timeOneEndpoint(engine, table);
  const identity = timeIdentities(engine, table);
  const policy = timePolicyChanges(engine, table, selecting);
  const { rate, allowed } = lookupsPerSecond(table);
  const { ingress, egress, bytes } = table.sizes();
  const entries = ingress.segments + egress.segments;
  console.log(`S = ${selecting}${"".padEnd(31)}edgemesh        Cilium     ahead`);
  show("parse 1000 policies", time(parse), time(cilium.parse), cilium.parse / parse);
  show("full: rules, resolution, table", time(full), time(cilium.full), cilium.full / full);
  show("resolution of the one endpoint", time(one), time(cilium.one), cilium.one / one);
  show("one identity added", time(identity), time(cilium.identity), cilium.identity / identity);
  show("one policy changed", time(policy), time(cilium.policy), cilium.policy / policy);
  show("look-ups per second", `${(rate / 1e6).toFixed(1)} M`, `${cilium.lookups / 1e6} M`, rate / cilium.lookups);
  show("table entries (segments)", String(entries), String(cilium.entries), cilium.entries / entries);
  console.log(
    `  classes ${ingress.classes + egress.classes}, identities listed ${
      ingress.identities + egress.identities
    }, rules ${engine.sizes.rules}`,
  );
  console.log(
    `  table ${bytes} octets: ${(bytes / entries).toFixed(1)} an entry; look-ups allowed ${
      (100 * allowed).toFixed(1)
    } %`,
  );
}

/** One endpoint with everything: what it takes while it is resolved, and at rest. */
async function showMemory(): Promise<void> {
  const engine = new PolicyEngine();
  engine.setSettings(SETTINGS);
  setSubject(engine, "subject");
  for (let i = 0; i < IDENTITIES; i++) engine.putIdentity(FIRST_IDENTITY + i, labelsOfIdentity(i));
  for (let j = 0; j < POLICIES; j++) engine.putPolicy(`p${j}`, read(documentOf(j, POLICIES)));
  const table = new PolicyTable();
  table.apply(engine.takeUpdate()!);
  engine.takePrefixes();
  const resolved = process.memoryUsage().rss;
  // as the member does after its start: what resolving left behind is garbage
  await new Promise((resolve) => setTimeout(resolve, 500));
  (globalThis as unknown as { Bun?: { gc(isSync: boolean): void } }).Bun?.gc(true);
  const { rss, heapUsed } = process.memoryUsage();
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(0);
  console.log(`S = 1000, ${engine.sizes.identities} identities, ${engine.sizes.rules} rules, the runtime included:`);
  console.log(`  resident when resolved ${megabytes(resolved)} MB, at rest ${megabytes(rss)} MB`);
  console.log(`  heap in use ${megabytes(heapUsed)} MB, of it the datapath's table ${table.sizes().bytes} octets`);
}

if (process.argv.includes("memory")) await showMemory();
else for (const selecting of [20, 1000]) run(selecting);
