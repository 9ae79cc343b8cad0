/**
 * One contender's turn: started, warmed, measured and ended, or under one stream for minutes. With a time to wait, nothing is
 * measured while others are at work on this machine, unless they do not stop.
 */
import { type Lab, pause } from "../../lab/lab.ts";
import type { End } from "../../lab/peers.ts";
import { type Contender, free, type Pair } from "./contenders.ts";
import { atRest, EndedUnderLoad, memory, MemoryWatch, type Numbers, ping, tcp, udp } from "./measures.ts";
import { MemoryGroup } from "./memory_group.ts";
import type { Flat, Run } from "./report.ts";
import { median, quantile, type Round } from "./samples.ts";

export const MEASURES = ["idle", "ping", "tcp1", "tcp4", "udp", "limited"] as const;
export type Measure = (typeof MEASURES)[number];
/** What is measured of a contender. */
export type Plan = Pick<Run["settings"], "measures" | "udpSizes">;

/** edgemesh lets go of what starting needed after two seconds */
const IDLE_MS = 4_000;
const LIMIT_BYTES = 96 << 20;
/** what others disturbed by more than MAX_FOREIGN of the machine is measured so often */
const TRIES = 4;
const MAX_FOREIGN = 0.08;
/** what waiting and measuring again may take in a round, so that a run ends on a machine that is never at rest */
const MAX_EXTRA_MS = 50_000;
const FLAT_SAMPLE_MS = 2_000;

export interface TurnOptions {
  readonly lab: Lab;
  readonly a: End;
  readonly b: End;
  readonly settings: Run["settings"];
  /** before each load, up to so long until the machine has nothing else to do; 0: never */
  readonly waitSeconds: number;
  /** something could not be measured */
  readonly onFault: (text: string) => void;
}

type Fault = (what: string, error: unknown) => void;

/** See the head of the file. */
export class Turns {
  readonly #options: TurnOptions;
  /** of MAX_EXTRA_MS, so far in this round */
  #extraMs = 0;

  constructor(options: TurnOptions) {
    this.#options = options;
  }

  startRound(): void {
    this.#extraMs = 0;
  }

  /** @returns undefined when it cannot be started */
  async take(
    contender: Contender,
    plan: Plan,
    round: number,
  ): Promise<{ readonly numbers: Round; readonly mtuBytes: number } | undefined> {
    const { lab, a, b, settings, onFault } = this.#options;
    const fault: Fault = (what, error) => onFault(`${contender.id}, round ${round}, ${what}: ${messageOf(error)}`);
    let pair: Pair;
    try {
      pair = await contender.start({ lab, a, b, prefix: free });
    } catch (error) {
      fault("start", error);
      return undefined;
    }
    const numbers: Numbers = {};
    try {
      await this.#measure(pair, plan, numbers, fault);
    } finally {
      await stop(pair);
    }
    if (has(plan, "limited") && contender.kind !== "bare") await this.#measureLimited(contender, numbers, fault);
    console.error(`round ${round}/${settings.rounds}  ${contender.id.padEnd(30)}${shortOf(numbers)}`);
    return { numbers, mtuBytes: pair.mtuBytes };
  }

  async #measure(pair: Pair, plan: Plan, numbers: Numbers, fault: Fault): Promise<void> {
    const { lab, settings: { seconds } } = this.#options;
    let isOver = false;
    const attempt = async (what: string, measure: () => Promise<Numbers>): Promise<void> => {
      if (isOver) return; // it was said when it ended
      try {
        Object.assign(numbers, await measure());
      } catch (error) {
        isOver = error instanceof EndedUnderLoad;
        fault(what, error);
      }
    };
    const attemptLoad = (what: string, measure: () => Promise<Numbers>): Promise<void> =>
      attempt(what, () => this.#undisturbed(what, measure, fault));
    const roundTrips: number[] = [];
    const lookAtPing = async (): Promise<void> => {
      if (!has(plan, "ping")) return;
      await attemptLoad("ping", async () => {
        roundTrips.push(...await ping(lab, pair));
        return {};
      });
    };
    if (has(plan, "idle") && pair.programs.length > 0) {
      await attempt("idle", async () => {
        await pause(IDLE_MS);
        const { anonymous, resident } = memory(pair);
        return { "idle.anonymous": anonymous, "idle.resident": resident };
      });
    }
    await this.#warm(pair, plan);
    await lookAtPing();
    const watch = new MemoryWatch(pair);
    for (const streams of [1, 4] as const) {
      if (!has(plan, `tcp${streams}`)) continue;
      for (const direction of ["up", "down"] as const) {
        await attemptLoad(`TCP ${streams} ${direction}`, () => tcp(lab, pair, streams, direction, seconds));
      }
      await lookAtPing();
    }
    if (has(plan, "udp")) {
      for (const size of plan.udpSizes) await attemptLoad(`UDP ${size}`, () => udp(lab, pair, size, seconds));
    }
    await watch.stop();
    await lookAtPing();
    if (roundTrips.length > 0) {
      Object.assign(numbers, { "ping.us": median(roundTrips)!, "ping.p99us": quantile(roundTrips, 0.99)! });
    }
    const isLoaded = ["tcp", "udp"].some((load) => Object.keys(numbers).some((key) => key.startsWith(load)));
    if (isLoaded && watch.resident > 0) {
      Object.assign(numbers, { "load.anonymous": watch.anonymous, "load.resident": watch.resident });
    }
    const cpu = ["tcp1.up.cpu", "tcp1.down.cpu"].map((key) => numbers[key]).filter((value) => value !== undefined);
    if (cpu.length > 0) numbers["tcp1.cpu"] = median(cpu)!;
  }

  /**
   * Load that does not count, the same for everybody: compilers that work while a program runs, heaps, and congestion windows come
   * to rest. A daemon runs for months.
   */
  async #warm(pair: Pair, plan: Plan): Promise<void> {
    const { lab, settings: { warmSeconds } } = this.#options;
    if (warmSeconds === 0 || pair.programs.length === 0) return;
    try {
      for (const direction of ["up", "down"] as const) await tcp(lab, pair, 1, direction, warmSeconds);
      if (has(plan, "udp")) await udp(lab, pair, 64, Math.ceil(warmSeconds / 4));
    } catch {
      // it will be said by the measures that count
    }
  }

  /** What others disturbed all the same is measured again, as long as there is time for that. The least disturbed one counts. */
  async #undisturbed(what: string, measure: () => Promise<Numbers>, fault: Fault): Promise<Numbers> {
    const { waitSeconds } = this.#options;
    if (waitSeconds === 0) return await measure();
    const rest = (): Promise<number> => atRest(this.#extraMs < MAX_EXTRA_MS ? waitSeconds : 0);
    this.#extraMs += await rest();
    let found = await measure();
    for (let left = TRIES - 1; left > 0 && foreignOf(found) > MAX_FOREIGN && this.#extraMs < MAX_EXTRA_MS; left--) {
      const start = performance.now();
      await rest();
      const again = await measure();
      this.#extraMs += performance.now() - start;
      if (foreignOf(again) < foreignOf(found)) found = again;
    }
    if (foreignOf(found) > MAX_FOREIGN) {
      fault(what, `others used ${(100 * foreignOf(found)).toFixed(0)} % of the machine meanwhile`);
    }
    return found;
  }

  /** One stream again, each end in a memory cgroup of its own. */
  async #measureLimited(contender: Contender, numbers: Numbers, fault: Fault): Promise<void> {
    const { lab, a, b, settings: { seconds, warmSeconds } } = this.#options;
    const groups = { a: MemoryGroup.make("a", LIMIT_BYTES), b: MemoryGroup.make("b", LIMIT_BYTES) };
    let pair: Pair | undefined;
    try {
      if (!groups.a || !groups.b) throw new Error("a memory cgroup cannot be made here");
      pair = await contender.start({ lab, a, b, prefix: (node) => groups[node]!.prefix });
      const started = pair;
      if (warmSeconds > 0) await tcp(lab, started, 1, "up", warmSeconds);
      const found = await this.#undisturbed("in 96 MB", () => tcp(lab, started, 1, "up", seconds), fault);
      numbers["limited.gbps"] = found["tcp1.up.gbps"]!;
      numbers["limited.foreign"] = found["tcp1.up.foreign"]!;
    } catch (error) {
      const isKilled = [groups.a, groups.b].some((group) => group && group.kills > 0);
      if (isKilled) numbers["limited.killed"] = 1;
      fault("in 96 MB", isKilled ? `${contender.title} was killed: it wanted more` : error);
    } finally {
      if (pair !== undefined) await stop(pair);
      try {
        await Promise.all([groups.a?.remove(), groups.b?.remove()]);
      } catch (error) {
        fault("the memory cgroup", error);
      }
    }
  }

  /** Its memory under one stream, looked at all the while. */
  async watchFlat(contender: Contender, minutes: number): Promise<Flat> {
    const { lab, a, b } = this.#options;
    console.error(`${contender.id} under one stream for ${minutes} minutes`);
    const pair = await contender.start({ lab, a, b, prefix: free });
    try {
      const samples: { second: number; anonymous: number; resident: number }[] = [];
      const start = performance.now();
      let isDone = false;
      const watch = async (): Promise<void> => {
        while (!isDone) {
          samples.push({ second: Math.round((performance.now() - start) / 1e3), ...memory(pair) });
          await pause(FLAT_SAMPLE_MS);
        }
      };
      const load = tcp(lab, pair, 1, "up", minutes * 60).finally(() => isDone = true);
      const [found] = await Promise.all([load, watch()]);
      return { id: contender.id, minutes, gbps: found["tcp1.up.gbps"]!, samples };
    } finally {
      await stop(pair);
    }
  }
}

async function stop({ programs }: Pair): Promise<void> {
  await Promise.all(programs.map((program) => program.stop()));
}

function has({ measures }: Plan, measure: Measure): boolean {
  return measures.includes(measure);
}

function foreignOf(numbers: Numbers): number {
  return Math.max(0, ...Object.entries(numbers).filter(([key]) => key.endsWith(".foreign")).map(([, value]) => value));
}

/** First line of what went wrong. */
export function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0]!;
}

function shortOf(numbers: Numbers): string {
  const parts = [
    ["tcp1.up.gbps", "Gbit/s"],
    ["tcp1.down.gbps", "down"],
    ["udp64.kpps", "kpps"],
    ["ping.us", "us"],
    ["tcp1.cpu", "s/GB"],
    ["load.anonymous", "MB"],
    ["limited.gbps", "in 96 MB"],
  ] as const;
  return parts.flatMap(([key, unit]) => numbers[key] === undefined ? [] : [`${numbers[key].toFixed(2)} ${unit}`])
    .join("  ");
}
