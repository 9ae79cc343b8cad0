/**
 * What is measured of a running pair. Load comes from iperf3 and ping; CPU time and memory are those of the programs that carry
 * the packets, at both ends. The kernel's own work is in there as far as it is done in their name.
 */
import { readFileSync } from "node:fs";
import { type Lab, pause, until } from "../../lab/lab.ts";
import { cpuSecondsOf, memoryOf } from "../../lab/program.ts";
import type { Pair } from "./contenders.ts";

const MEGABYTE = 1 << 20;
const SAMPLE_MS = 200;
/** of a second, in /proc/stat */
const TICKS = 100;
const REST_MS = 400;
/** of all cores */
const REST_SHARE = 0.1;
const PORT = 5201;
/** what iperf3 may take longer than its load */
const SPARE_SECONDS = 15;
/** left out at the start of each stream: congestion windows grow */
const WARM_SECONDS = 1;
const PINGS = 150;
const PING_INTERVAL_S = "0.005";

/** Numbers by the keys of METRICS and some more, which are in the JSON only. */
export type Numbers = Record<string, number>;

/** Streams at a time; `down` lets b send. */
export async function tcp(
  lab: Lab,
  pair: Pair,
  streams: number,
  direction: "up" | "down",
  seconds: number,
): Promise<Numbers> {
  const args = ["-P", String(streams), "-O", String(WARM_SECONDS), ...(direction === "down" ? ["-R"] : [])];
  const { result, cpuSeconds, foreign } = await iperf(lab, pair, args, seconds);
  // CPU time counts the warming second too, and so do these octets
  const octets = sumOf(result.intervals.map(({ sum }: { sum: { bytes: number } }) => sum.bytes));
  const name = `tcp${streams}.${direction}`;
  return {
    [`${name}.gbps`]: result.end.sum_received.bits_per_second / 1e9,
    [`${name}.foreign`]: foreign,
    [`${name}.retransmits`]: result.end.sum_sent.retransmits ?? 0,
    ...(pair.programs.length === 0 ? {} : { [`${name}.cpu`]: cpuSeconds / (octets / 1e9) }),
  };
}

/**
 * Datagrams of so many octets as fast as one process sends them. What counts is what the receiving process got; what the tunnel
 * delivered besides was lost in that process's full socket buffer, as sender, receiver and tunnel share the cores.
 */
export async function udp(lab: Lab, pair: Pair, octets: number, seconds: number): Promise<Numbers> {
  const before = await deliveredOf(lab, pair, octets);
  const { result, cpuSeconds, foreign } = await iperf(lab, pair, ["-u", "-b", "0", "-l", String(octets)], seconds);
  const after = await deliveredOf(lab, pair, octets);
  const { sum_received: got, sum_sent: sent } = result.end;
  // the count of packets in the answer is the sender's when all are lost
  const received = got.bytes / octets;
  const name = `udp${octets}`;
  return {
    [`${name}.kpps`]: received / got.seconds / 1e3,
    [`${name}.foreign`]: foreign,
    [`${name}.sentKpps`]: sent.packets / sent.seconds / 1e3,
    ...(before === undefined || after === undefined ? {} : {
      [`${name}.delivered`]: (after - before) / got.seconds / 1e3,
      [`${name}.cpuMicroseconds`]: (cpuSeconds / Math.max(1, after - before)) * 1e6,
    }),
  };
}

const UDP_HEADERS = 28;

/** Datagrams that the tunnel gave to the kernel of b; its device counts several that were merged as one packet. */
async function deliveredOf(lab: Lab, { device }: Pair, octets: number): Promise<number | undefined> {
  if (device === undefined) return undefined;
  const { stdout } = await lab.run("b", ["cat", "/proc/self/net/dev"]);
  const [bytes, packets] = (new RegExp(`^\\s*${device}:\\s*(\\d+)\\s+(\\d+)`, "m").exec(stdout) ?? []).slice(1).map(
    Number,
  );
  return bytes === undefined || packets === undefined ? undefined : (bytes - UDP_HEADERS * packets) / octets;
}

/**
 * Round trips in microseconds, one after the other, with pauses in which `ping` itself keeps a core awake: nobody else has anything
 * to do. How long a core that sleeps takes to wake differs by a factor of two from one minute to the next, so look more than once.
 */
export async function ping(lab: Lab, pair: Pair): Promise<readonly number[]> {
  const argv = ["ping", "-n", "-c", String(PINGS), "-i", PING_INTERVAL_S, "-W", "1", pair.target];
  const done = await lab.run("a", argv, { timeoutMs: 15_000 });
  mustRun(pair);
  const microseconds = [...done.stdout.matchAll(/time=([\d.]+) ms/g)].map(([, text]) => Number(text) * 1e3);
  if (microseconds.length < PINGS / 2) throw new Error(`ping: ${microseconds.length} of ${PINGS} answered`);
  return microseconds;
}

/** Waits until the machine has next to nothing to do, or `seconds` are over. Returns how many milliseconds it had to. */
export async function atRest(seconds: number): Promise<number> {
  const start = performance.now();
  let waitedMs = 0;
  do {
    const before = busyOf();
    await pause(REST_MS);
    const after = busyOf();
    const total = after.total - before.total;
    if (total > 0 && (after.busy - before.busy) / total < REST_SHARE) break;
    waitedMs = performance.now() - start;
  } while (waitedMs < seconds * 1e3);
  return waitedMs;
}

/** Ticks of all cores since the start, in all and without idling. */
function busyOf(): { readonly total: number; readonly busy: number } {
  const fields = readFileSync("/proc/stat", "utf8").split("\n", 1)[0]!.trim().split(/\s+/).slice(1, 9).map(Number);
  const total = sumOf(fields);
  return { total, busy: total - fields[3]! - fields[4]! };
}

/** The larger of both ends, in megabytes. @throws EndedUnderLoad */
export function memory(pair: Pair): { readonly anonymous: number; readonly resident: number } {
  mustRun(pair);
  const both = pair.programs.map(({ pid }) => memoryOf(pid));
  return {
    anonymous: Math.max(...both.map(({ anonymousBytes }) => anonymousBytes)) / MEGABYTE,
    resident: Math.max(...both.map(({ residentBytes }) => residentBytes)) / MEGABYTE,
  };
}

/** Looks at memory while something else goes on, until then or until one of the pair ends. */
export class MemoryWatch {
  anonymous = 0;
  resident = 0;
  private isOn = true;
  private readonly watching: Promise<void>;

  constructor(pair: Pair) {
    this.watching = this.watch(pair);
  }

  private async watch(pair: Pair): Promise<void> {
    while (this.isOn && pair.programs.length > 0) {
      let now;
      try {
        now = memory(pair);
      } catch {
        return; // it ended: the load that it ended under says so
      }
      this.anonymous = Math.max(this.anonymous, now.anonymous);
      this.resident = Math.max(this.resident, now.resident);
      await pause(SAMPLE_MS);
    }
  }

  async stop(): Promise<void> {
    this.isOn = false;
    await this.watching;
  }
}

/**
 * One client on a against one server on b. A flood can drown iperf3's own connection: it is tried twice.
 * @returns what iperf3 says, CPU time of the pair, and the part of all cores' time that neither the pair nor iperf3 used
 */
async function iperf(
  lab: Lab,
  pair: Pair,
  args: readonly string[],
  seconds: number,
  // deno-lint-ignore no-explicit-any
): Promise<{ readonly result: any; readonly cpuSeconds: number; readonly foreign: number }> {
  for (let isLast = false;; isLast = true) {
    const server = lab.start("b", "iperf3-server", ["iperf3", "-s", "-1", "-p", String(PORT)]);
    try {
      const found = await iperfOnce(lab, pair, args, seconds);
      if (!("error" in found)) return found;
      if (isLast) throw new Error(`iperf3 ${args.join(" ")}: ${found.error}`);
    } finally {
      await server.stop(); // it would wait for its one client for ever, and everybody after it for the port
    }
  }
}

/** A program of the pair ended, which it should not: nothing more can be measured of the pair. */
export class EndedUnderLoad extends Error {
  override readonly name = "EndedUnderLoad";
}

function mustRun({ programs }: Pair): void {
  const dead = programs.find(({ exitCode }) => exitCode !== undefined);
  if (dead) throw new EndedUnderLoad(`${dead.name} ended with ${dead.exitCode}`);
}

async function iperfOnce(lab: Lab, pair: Pair, args: readonly string[], seconds: number) {
  await until(
    "iperf3 listens",
    async () => (await lab.run("b", ["ss", "-Hltn", `sport = :${PORT}`])).stdout !== "",
    5_000,
  );
  const [before, machineBefore] = [cpuOf(pair), busyOf()];
  const argv = ["iperf3", "-c", pair.target, "-p", String(PORT), "-t", String(seconds), "-J", ...args];
  const client = lab.start("a", "iperf3-client", argv);
  try {
    await Promise.race([client, ...pair.programs].map(({ ended }) => ended).concat(timeUp(seconds + SPARE_SECONDS)));
  } finally {
    await client.stop();
  }
  mustRun(pair);
  const [cpuSeconds, machineAfter] = [cpuOf(pair) - before, busyOf()];
  const result = answerOf(client.log());
  if (result === undefined) return { error: `ended with ${client.exitCode}` };
  if (result.error) return { error: String(result.error) };
  const { host_total: here, remote_total: there } = result.end.cpu_utilization_percent;
  const iperfSeconds = ((here + there) / 100) * (seconds + (args.includes("-O") ? WARM_SECONDS : 0));
  const busySeconds = (machineAfter.busy - machineBefore.busy) / TICKS;
  const allSeconds = (machineAfter.total - machineBefore.total) / TICKS;
  return { result, cpuSeconds, foreign: Math.max(0, (busySeconds - cpuSeconds - iperfSeconds) / allSeconds) };
}

/** What iperf3 printed; undefined for nothing, or for a part of it. */
// deno-lint-ignore no-explicit-any
function answerOf(output: string): any {
  try {
    return JSON.parse(output.slice(output.indexOf("{")));
  } catch {
    return undefined;
  }
}

async function timeUp(seconds: number): Promise<number> {
  await pause(seconds * 1_000);
  return 0;
}

function cpuOf(pair: Pair): number {
  return sumOf(pair.programs.map(({ pid, exitCode }) => exitCode === undefined ? cpuSecondsOf(pid) : 0));
}

function sumOf(of: readonly number[]): number {
  return of.reduce((sum, value) => sum + value, 0);
}
