/**
 * One hub and many members: how long until all have joined, how long until one policy change is everywhere, what the hub needs.
 *
 *     deno task bench hub [--members 1000] [--json]
 *
 * Three processes on loopback: this one (the administrator and the clock), the hub (SQLite in a temporary directory, TLS, real
 * tokens), and the members (light clients: real keys, join, TLS and sync protocol, but no datapath). Goals: joined within 60 s, the
 * change everywhere within 1 s, hub below 300 MB. Exit code 1 when one is missed.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { adminTokenPath, caPath } from "../../edge/hub/ca.ts";
import { hubKeyDir, openHub } from "../../edge/hub/hub.ts";
import { AdminClient } from "../../edge/sync/admin_client.ts";
import { HubClient } from "../../edge/sync/client.ts";
import { TrustedClock } from "../../edge/sync/clock.ts";
import { joinHub } from "../../edge/sync/join_client.ts";
import type { StateFrame } from "../../src/mesh/entries.ts";
import type { Log } from "../../src/ports.ts";

const GOAL_JOIN_MS = 60_000;
const GOAL_CHANGE_MS = 1_000;
const GOAL_HUB_BYTES = 300e6;
const JOINS_AT_ONCE = 16;
const LIMIT_MS = 180_000;
const POLICY_KEY = "policy/CiliumNetworkPolicy/default/bench";

const [role = "main", ...rest] = process.argv.slice(2).filter((arg) => !arg.startsWith("--"));
if (role === "hub") await runHubRole(rest[0]!);
else if (role === "members") await runMembersRole(Number(rest[0]));
else await runMain();

/** Milliseconds since the epoch with a fraction; the same clock in all three processes. */
function clockMs(): number {
  return performance.timeOrigin + performance.now();
}

function quietLog(): Log {
  const say = (event: string, fields: unknown) => process.stderr.write(`${event} ${JSON.stringify(fields)}\n`);
  return { debug() {}, info() {}, warn: say, error: say };
}

async function runHubRole(stateDir: string): Promise<void> {
  const hub = await openHub({
    stateDir,
    clusterName: "bench",
    clusterId: 1,
    listen: "127.0.0.1:0",
    advertise: [],
    memberCidrs: [],
    routing: { mode: "tunnel", tunnelProtocol: "geneve", encryption: "wireguard" },
    version: "bench",
    log: quietLog(),
  });
  console.log(JSON.stringify({ port: hub.server.port }));
  process.once("SIGTERM", () => void hub.close().then(() => process.exit(0)));
}

/** Reads the token from stdin, joins and follows with every member, and says on stdout what happens, a JSON line each. */
async function runMembersRole(count: number): Promise<void> {
  const token = (await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next()).value as string;
  const log = quietLog();
  const changedAt: number[] = [];
  let synced = 0;
  let applied = 0;
  let entries = 0;
  const clients: HubClient[] = [];
  const joinOne = async (index: number) => {
    const deviceSecretKey = new Uint8Array(randomBytes(32));
    const { answer, caPem, endpoints } = await joinHub(token, {
      deviceSecretKey,
      wireguardPublicKey: new Uint8Array(randomBytes(32)),
      wireguardPort: 51871,
      name: `m${index}`,
      labels: { app: `app-${index % 10}` },
      log,
    });
    let at: { epoch: string; revision: number } | undefined;
    const client = new HubClient({
      endpoints,
      caPem,
      deviceSecretKey,
      recordKey: answer.recordKey,
      report: () => ({ endpoints: [], wireguardPort: 51871, version: "bench" }),
      clock: new TrustedClock(),
      log,
    });
    client.start({
      apply(frame: StateFrame) {
        applied++;
        const puts = frame.t === "snapshot" ? frame.entries : frame.puts;
        entries += puts.length;
        at = { epoch: frame.t === "snapshot" ? frame.epoch : at!.epoch, revision: frame.revision };
        if (!puts.some(([key]) => key === POLICY_KEY)) return;
        changedAt.push(clockMs());
        if (changedAt.length === count) console.log(JSON.stringify({ changedAt, applied, entries }));
      },
      status(status) {
        if (status.state === "synced" && status.hubUnixMs === undefined) synced++;
        else if (status.state === "refused") console.log(JSON.stringify({ failed: status.detail }));
      },
      resume: () => at,
    });
    clients.push(client);
  };
  let next = 0;
  let joined = 0;
  const worker = async () => {
    while (next < count) {
      await joinOne(next++);
      if (++joined % 100 === 0) console.log(JSON.stringify({ joined, atMs: clockMs(), applied, entries }));
    }
  };
  await Promise.all(Array.from({ length: JOINS_AT_ONCE }, worker));
  console.log(JSON.stringify({ allJoined: joined, synced, atMs: clockMs(), applied, entries }));
  process.once("SIGTERM", () => process.exit(0));
}

async function runMain(): Promise<void> {
  const asked = process.argv.indexOf("--members");
  const count = asked < 0 ? 1000 : Number(process.argv[asked + 1]);
  const stateDir = mkdtempSync(join(tmpdir(), "edgemesh-bench-"));
  const children: { kill(): void }[] = [];
  const giveUp = setTimeout(() => {
    console.error(`no result after ${LIMIT_MS / 1000} s`);
    for (const child of children.toReversed()) child.kill(); // members before their hub
    rmSync(stateDir, { recursive: true, force: true });
    process.exit(1);
  }, LIMIT_MS);
  try {
    const result = await measure(count, stateDir, children);
    if (process.argv.includes("--json")) console.log(JSON.stringify(result));
    else print(result);
    if (!result.isGood) process.exitCode = 1;
  } finally {
    clearTimeout(giveUp);
    for (const child of children.toReversed()) child.kill(); // members before their hub
    rmSync(stateDir, { recursive: true, force: true });
  }
}

interface Result {
  readonly members: number;
  readonly joinMs: number;
  /** until every member has applied the newest revision, all others' records included; seen four times a second */
  readonly syncedMs: number;
  readonly change: {
    readonly medianMs: number;
    readonly p99Ms: number;
    readonly maxMs: number;
    readonly applyMs: number;
  };
  readonly hub: {
    readonly rssMb: number;
    readonly peakMb: number;
    readonly anonymousMb: number;
    readonly cpuS: number;
  };
  readonly sentPerMember: { readonly min: number; readonly median: number; readonly max: number };
  readonly changeBytesPerMember: number;
  readonly isGood: boolean;
}

async function measure(count: number, stateDir: string, children: { kill(): void }[]): Promise<Result> {
  const hub = startRole(["hub", stateDir]);
  children.push(hub);
  const { port } = await hub.next((line) => typeof line["port"] === "number") as { port: number };
  const keyDir = hubKeyDir(stateDir);
  const admin = new AdminClient({
    endpoint: `127.0.0.1:${port}`,
    caPem: readFileSync(caPath(keyDir), "utf8"),
    credential: readFileSync(adminTokenPath(keyDir), "utf8").trim(),
  });
  const { token } = await admin.createToken({ uses: count });
  const members = startRole(["members", String(count)]);
  children.push(members);
  const startMs = clockMs();
  members.write(`${token}\n`);
  const all = await members.next((line) => "allJoined" in line) as { atMs: number };
  const joinMs = all.atMs - startMs;
  await settle(admin, count);
  const syncedMs = clockMs() - startMs;
  const before = await admin.members();
  const changeMs = clockMs();
  const applied = await admin.apply([policy()]);
  const applyMs = clockMs() - changeMs;
  if (applied.errors.length > 0) throw new Error(JSON.stringify(applied.errors));
  const { changedAt } = await members.next((line) => "changedAt" in line) as { changedAt: number[] };
  const took = changedAt.map((atMs) => atMs - changeMs).sort((a, b) => a - b);
  const after = await admin.members();
  const hubFacts = processFacts(hub.pid);
  const sent = after.map((member) => member.connection?.sentBytes ?? 0).filter((bytes) => bytes > 0).sort((a, b) =>
    a - b
  );
  const sentBefore = before.reduce((sum, member) => sum + (member.connection?.sentBytes ?? 0), 0);
  const change = { medianMs: at(took, 0.5), p99Ms: at(took, 0.99), maxMs: at(took, 1), applyMs };
  return {
    members: count,
    joinMs,
    syncedMs,
    change,
    hub: hubFacts,
    sentPerMember: { min: at(sent, 0), median: at(sent, 0.5), max: at(sent, 1) },
    changeBytesPerMember: (sent.reduce((sum, bytes) => sum + bytes, 0) - sentBefore) / count,
    isGood: syncedMs < GOAL_JOIN_MS && change.maxMs < GOAL_CHANGE_MS && hubFacts.peakMb * 1e6 < GOAL_HUB_BYTES,
  };
}

/** Waits until every member has a connection and has applied the newest revision. */
async function settle(admin: AdminClient, count: number): Promise<void> {
  for (;;) {
    const { revision } = await admin.status();
    const members = await admin.members();
    const ready = members.filter((member) => member.connection?.appliedRevision === revision);
    if (ready.length >= count) return;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/**
 * Selects everybody and lets one label of ten in: so nine of ten members can no longer talk to each other, and with the policy each
 * is told to forget some nine hundred others. A change that is small on the wire would be easier.
 */
function policy(): unknown {
  return {
    apiVersion: "cilium.io/v2",
    kind: "CiliumNetworkPolicy",
    metadata: { name: "bench", namespace: "default" },
    spec: {
      endpointSelector: {},
      ingress: [{
        fromEndpoints: [{ matchLabels: { app: "app-1" } }],
        toPorts: [{ ports: [{ port: "8080", protocol: "TCP" }] }],
      }],
    },
  };
}

interface Role {
  readonly pid: number;
  write(text: string): void;
  next(isWanted: (line: Record<string, unknown>) => boolean): Promise<Record<string, unknown>>;
  kill(): void;
}

/** Starts this program once more in another role; it speaks JSON lines. */
function startRole(args: readonly string[]): Role {
  const runtime = "Deno" in globalThis ? ["run", "-A"] : [];
  const child = spawn(process.execPath, [...runtime, import.meta.filename, ...args], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines: Record<string, unknown>[] = [];
  let wake = () => {};
  let isOver = false;
  createInterface({ input: child.stdout }).on("line", (text) => {
    const line = JSON.parse(text) as Record<string, unknown>;
    if ("joined" in line) process.stderr.write(`${text}\n`);
    lines.push(line);
    wake();
  });
  child.on("exit", () => {
    isOver = true;
    wake();
  });
  return {
    pid: child.pid!,
    write: (text) => void child.stdin.write(text),
    async next(isWanted) {
      for (;;) {
        const found = lines.findIndex((line) => isWanted(line) || "failed" in line);
        if (found >= 0) {
          const line = lines.splice(found, 1)[0]!;
          if ("failed" in line) throw new Error(`a member failed: ${String(line["failed"])}`);
          return line;
        }
        if (isOver) throw new Error(`the process "${args[0]}" has ended`);
        await new Promise<void>((resolve) => wake = resolve);
      }
    },
    kill: () => void child.kill("SIGTERM"),
  };
}

function processFacts(pid: number): Result["hub"] {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const mb = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1] ?? NaN) * 1024 / 1e6;
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return {
    rssMb: mb("VmRSS"),
    peakMb: mb("VmHWM"),
    anonymousMb: mb("RssAnon"),
    cpuS: (Number(stat[11]) + Number(stat[12])) / 100,
  };
}

function at(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
}

function print({ members, joinMs, syncedMs, change, hub, sentPerMember, changeBytesPerMember, isGood }: Result): void {
  const cpu = cpus();
  const ms = (value: number) => `${value.toFixed(0)} ms`;
  console.log(
    `${members} members, ${cpu.length} x ${cpu[0]?.model ?? "unknown CPU"}, hub, members and administrator on it`,
  );
  console.log(
    `all joined after      ${(joinMs / 1000).toFixed(1)} s, and all know all others after ` +
      `${(syncedMs / 1000).toFixed(1)} s   (goal: 60 s)`,
  );
  console.log(
    `one policy change     median ${ms(change.medianMs)}, p99 ${ms(change.p99Ms)}, last ${
      ms(change.maxMs)
    }   (goal: 1000 ms); ` +
      `the administrator's call took ${ms(change.applyMs)}`,
  );
  console.log(
    `hub                   RSS ${hub.rssMb.toFixed(0)} MB, peak ${hub.peakMb.toFixed(0)} MB (goal: 300 MB), ` +
      `anonymous ${hub.anonymousMb.toFixed(0)} MB, CPU ${hub.cpuS.toFixed(1)} s`,
  );
  console.log(
    `sent to one member    min ${kb(sentPerMember.min)}, median ${kb(sentPerMember.median)}, max ${
      kb(sentPerMember.max)
    }; ` +
      `for the change ${changeBytesPerMember.toFixed(0)} octets`,
  );
  console.log(isGood ? "all goals are met" : "a goal was missed");
}

function kb(bytes: number): string {
  return `${(bytes / 1000).toFixed(1)} kB`;
}
