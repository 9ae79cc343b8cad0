/**
 * The benchmark behind the README's figures: `scripts/bench/run compare`. Everybody takes turns within each round, and the next
 * round starts with another one; medians over the rounds are compared. Both ends of a tunnel and the load run on this machine
 * and share its cores, so the numbers are for comparing what was measured in one run, not for quoting alone.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { Lab, pause } from "../../lab/lab.ts";
import { type End, makeEnd } from "../../lab/peers.ts";
import { commandOf, type Form, FORMS } from "../../lab/program.ts";
import { chartOf } from "./chart.ts";
import { type Contender, contenders, free, type Pair, type Scene } from "./contenders.ts";
import { atRest, EndedUnderLoad, memory, MemoryWatch, type Numbers, ping, tcp, udp } from "./measures.ts";
import { MemoryGroup } from "./memory_group.ts";
import { DEFAULT_ID } from "./goals.ts";
import { captionOf, type Flat, goalsOf, markdownReportOf, panelsOf, reportOf, type Run } from "./report.ts";
import { median, quantile, type Round } from "./samples.ts";

const MEASURES = ["idle", "ping", "tcp1", "tcp4", "udp", "limited"] as const;
type Measure = (typeof MEASURES)[number];
/** What is measured of a contender. */
type Plan = Pick<Run["settings"], "measures" | "udpSizes">;

const QUICK = { rounds: "1", seconds: "2", warm: "2", measures: "ping,tcp1,udp", udp: "64" } as const;
const FULL = { rounds: "3", seconds: "4", warm: "4", measures: MEASURES.join(","), udp: "64,1400" } as const;
/** who is not one of the main contenders takes part in every so many rounds, with the measures of the quick run */
const SIDE_EVERY = 2;
/** edgemesh lets go of what starting needed after two seconds */
const IDLE_MS = 4_000;
const LIMIT_BYTES = 96 << 20;
/** with `--wait`: so often is measured what others disturbed by more than this part of the machine */
const TRIES = 4;
const MAX_FOREIGN = 0.08;
/** what waiting and measuring again may take in a round, so that a run ends on a machine that is never at rest */
const MAX_EXTRA_MS = 50_000;
const FLAT_SAMPLE_MS = 2_000;
/** more than this at the start, and somebody else is at work here */
const QUIET_LOAD = 0.5;

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    rounds: { type: "string" },
    seconds: { type: "string" },
    only: { type: "string" },
    measures: { type: "string" },
    udp: { type: "string" },
    minutes: { type: "string", default: "0" },
    wait: { type: "string", default: "0" },
    warm: { type: "string" },
    form: { type: "string", default: "binary" },
    json: { type: "string" },
    svg: { type: "string" },
    markdown: { type: "boolean", default: false },
    from: { type: "string" },
    list: { type: "boolean", default: false },
  },
});

if (options.from !== undefined) {
  show(JSON.parse(readFileSync(options.from, "utf8")));
  process.exit(0);
}
const values = settings();
const FULL_PLAN: Plan = values;
const SIDE_PLAN: Plan = { measures: list(QUICK.measures), udpSizes: list(QUICK.udp).map(Number) };
/** of MAX_EXTRA_MS, so far in this round */
let extraMs = 0;
process.env["EDGEMESH_FORM"] = options.form;

const lab = await Lab.create(["a", "b"]);
/** what is known so far */
let soFar: (() => Run) | undefined;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    if (soFar) show(soFar());
    void lab.close().then(() => process.exit(130));
  });
}
try {
  await main();
} finally {
  await lab.close();
}
process.exit(0);

function settings(): Run["settings"] {
  const base = options.quick ? QUICK : FULL;
  const measures = list(options.measures ?? base.measures);
  for (const name of measures) {
    if (!MEASURES.includes(name as Measure)) refuse("--measures", name, MEASURES.join(", "));
  }
  if (!FORMS.includes(options.form as Form)) refuse("--form", options.form, FORMS.join(", "));
  number("--minutes", options.minutes, 0, 10_000);
  number("--wait", options.wait, 0, 3_600);
  return {
    rounds: number("--rounds", options.rounds ?? base.rounds, 1, 1000),
    seconds: number("--seconds", options.seconds ?? base.seconds, 1, 3600),
    warmSeconds: number("--warm", options.warm ?? base.warm, 0, 3600),
    measures,
    udpSizes: list(options.udp ?? base.udp).map((text) => number("--udp", text, 16, 65000)),
  };
}

function list(text: string): readonly string[] {
  return text.split(",").map((name) => name.trim()).filter((name) => name !== "");
}

function number(option: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= least && value <= most)) refuse(option, text, `${least} to ${most}`);
  return value;
}

function refuse(option: string, text: string, expected: string): never {
  console.error(`bench: cannot use ${option} "${text}": expected ${expected}`);
  process.exit(2);
}

async function main(): Promise<void> {
  const tools = { ...await toolVersions() };
  const all = contenders(process.env["EDGEMESH_BENCH_PEER_LIST"] ?? "", tools["edgemesh"] ?? "");
  const wanted = chosen(all);
  const left = wanted.filter(({ missing }) => missing !== undefined).map(({ id, missing }) => ({ id, why: missing! }));
  const present = wanted.filter(({ missing }) => missing === undefined);
  for (const { id, why } of left) console.log(`without ${id}: ${why}`);
  if (options.list) return void present.forEach(({ id, version }) => console.log(`${id}\t${version}`));
  const machine = machineFacts();
  if (machine.loadBefore > QUIET_LOAD) {
    console.log(
      `the load average is ${machine.loadBefore.toFixed(2)}: others are at work here, and the figures will say so`,
    );
  }
  const [a, b] = [await makeEnd(lab, "a", 1), await makeEnd(lab, "b", 2)];
  const rounds = new Map<string, Round[]>(present.map(({ id }) => [id, []]));
  const mtus = new Map<string, number>();
  const faults: string[] = [];
  const later: { flat?: Flat } = {};
  const date = new Date().toISOString();
  const run = (): Run => ({
    date,
    machine,
    edgemesh: { version: tools["edgemesh"] ?? "", form: options.form },
    tools,
    settings: values,
    contenders: present.filter(({ id }) => rounds.get(id)!.length > 0).map((
      { id, title, kind, isNewest, isMain, version },
    ) => ({ id, title, kind, isNewest, isMain, version, mtuBytes: mtus.get(id)!, rounds: rounds.get(id)! })),
    left,
    faults,
    ...later,
  });
  soFar = run;
  let inTurn = [...present];
  for (let round = 1; round <= values.rounds; round++) {
    extraMs = 0;
    for (const contender of [...inTurn]) {
      const isSide = isAside(contender);
      if (isSide && (round - 1) % SIDE_EVERY !== 0) continue;
      const measured = await runOne(contender, isSide ? SIDE_PLAN : FULL_PLAN, a, b, faults, round);
      if (measured === undefined) {
        // it could not be started: it will not be in the next round either
        inTurn = inTurn.filter((other) => other !== contender);
        left.push({ id: contender.id, why: faults.at(-1)! });
        continue;
      }
      rounds.get(contender.id)!.push(measured.numbers);
      mtus.set(contender.id, measured.mtuBytes);
    }
    inTurn.push(...inTurn.splice(0, 1));
    save(run());
  }
  try {
    const flat = await watchFlat(present, a, b);
    if (flat) later.flat = flat;
  } catch (error) {
    faults.push(`the long stream: ${messageOf(error)}`);
  }
  show(run());
}

function chosen(all: readonly Contender[]): readonly Contender[] {
  if (options.only === undefined) return all.filter(({ isMain }) => isMain || !options.quick);
  const names = list(options.only);
  for (const name of names) {
    if (!all.some(({ id }) => id === name)) refuse("--only", name, all.map(({ id }) => id).join(", "));
  }
  return all.filter(({ id }) => names.includes(id));
}

/** Whether it gets only part of the measures and rounds; who is asked for by name, or with measures by name, gets all. */
function isAside({ isMain }: Contender): boolean {
  return !isMain && options.only === undefined && options.measures === undefined;
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0]!;
}

/** One contender in one round; undefined when it cannot be started. */
async function runOne(
  contender: Contender,
  plan: Plan,
  a: End,
  b: End,
  faults: string[],
  round: number,
): Promise<{ readonly numbers: Round; readonly mtuBytes: number } | undefined> {
  const fault = (what: string, error: unknown): void => {
    faults.push(`${contender.id}, round ${round}, ${what}: ${messageOf(error)}`);
    console.error(`bench: ${faults.at(-1)}`);
  };
  let pair: Pair;
  try {
    pair = await contender.start({ lab, a, b, prefix: free });
  } catch (error) {
    fault("start", error);
    return undefined;
  }
  const numbers: Numbers = {};
  try {
    await measurePair(pair, plan, numbers, fault);
  } finally {
    await Promise.all(pair.programs.map((program) => program.stop()));
  }
  if (has(plan, "limited") && contender.kind !== "bare") await measureLimited(contender, a, b, numbers, fault);
  console.error(`round ${round}/${values.rounds}  ${contender.id.padEnd(30)}${shortOf(numbers)}`);
  return { numbers, mtuBytes: pair.mtuBytes };
}

function has({ measures }: Plan, measure: Measure): boolean {
  return measures.includes(measure);
}

type Fault = (what: string, error: unknown) => void;

async function measurePair(pair: Pair, plan: Plan, numbers: Numbers, fault: Fault): Promise<void> {
  const { seconds } = values;
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
  if (has(plan, "idle") && pair.programs.length > 0) {
    await attempt("idle", async () => {
      await pause(IDLE_MS);
      const { anonymous, resident } = memory(pair);
      return { "idle.anonymous": anonymous, "idle.resident": resident };
    });
  }
  await warm(pair, plan);
  const attemptLoad = (what: string, measure: () => Promise<Numbers>): Promise<void> =>
    attempt(what, () => undisturbed(what, measure, fault));
  const roundTrips: number[] = [];
  const lookAtPing = async (): Promise<void> => {
    if (!has(plan, "ping")) return;
    await attemptLoad("ping", async () => {
      roundTrips.push(...await ping(lab, pair));
      return {};
    });
  };
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
    for (const size of plan.udpSizes) {
      await attemptLoad(`UDP ${size}`, () => udp(lab, pair, size, seconds));
    }
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
async function warm(pair: Pair, plan: Plan): Promise<void> {
  const seconds = values.warmSeconds;
  if (seconds === 0 || pair.programs.length === 0) return;
  try {
    for (const direction of ["up", "down"] as const) await tcp(lab, pair, 1, direction, seconds);
    if (has(plan, "udp")) await udp(lab, pair, 64, Math.ceil(seconds / 4));
  } catch {
    // it will be said by the measures that count
  }
}

/**
 * With `--wait`: nothing is measured while others are at work here, unless they do not stop, and what they disturbed all the same
 * is measured again, as long as there is time for that. The least disturbed one counts.
 */
async function undisturbed(what: string, measure: () => Promise<Numbers>, fault: Fault): Promise<Numbers> {
  const wait = Number(options.wait);
  if (wait === 0) return await measure();
  const rest = (): Promise<number> => atRest(extraMs < MAX_EXTRA_MS ? wait : 0);
  extraMs += await rest();
  let found = await measure();
  for (let left = TRIES - 1; left > 0 && foreignOf(found) > MAX_FOREIGN && extraMs < MAX_EXTRA_MS; left--) {
    const start = performance.now();
    await rest();
    const again = await measure();
    extraMs += performance.now() - start;
    if (foreignOf(again) < foreignOf(found)) found = again;
  }
  if (foreignOf(found) > MAX_FOREIGN) {
    fault(what, `others used ${(100 * foreignOf(found)).toFixed(0)} % of the machine meanwhile`);
  }
  return found;
}

function foreignOf(numbers: Numbers): number {
  return Math.max(0, ...Object.entries(numbers).filter(([key]) => key.endsWith(".foreign")).map(([, value]) => value));
}

/** One stream again, each end in a memory cgroup of its own. */
async function measureLimited(contender: Contender, a: End, b: End, numbers: Numbers, fault: Fault): Promise<void> {
  const groups = { a: MemoryGroup.make("a", LIMIT_BYTES), b: MemoryGroup.make("b", LIMIT_BYTES) };
  let pair: Pair | undefined;
  try {
    if (!groups.a || !groups.b) throw new Error("a memory cgroup cannot be made here");
    pair = await contender.start({ lab, a, b, prefix: (node) => groups[node]!.prefix });
    const started = pair;
    if (values.warmSeconds > 0) await tcp(lab, started, 1, "up", values.warmSeconds);
    const found = await undisturbed("in 96 MB", () => tcp(lab, started, 1, "up", values.seconds), fault);
    numbers["limited.gbps"] = found["tcp1.up.gbps"]!;
    numbers["limited.foreign"] = found["tcp1.up.foreign"]!;
  } catch (error) {
    const isKilled = [groups.a, groups.b].some((group) => group && group.kills > 0);
    if (isKilled) numbers["limited.killed"] = 1;
    fault("in 96 MB", isKilled ? `${contender.title} was killed: it wanted more` : error);
  } finally {
    await Promise.all((pair?.programs ?? []).map((program) => program.stop()));
    try {
      await Promise.all([groups.a?.remove(), groups.b?.remove()]);
    } catch (error) {
      fault("the memory cgroup", error);
    }
  }
}

/** edgemesh under one stream for minutes, its memory looked at all the while. */
async function watchFlat(present: readonly Contender[], a: End, b: End): Promise<Flat | undefined> {
  const minutes = Number(options.minutes);
  const contender = present.find(({ id }) => id === DEFAULT_ID) ?? present.find(({ kind }) => kind === "edgemesh");
  if (minutes === 0 || contender === undefined) return undefined;
  console.error(`${contender.id} under one stream for ${minutes} minutes`);
  const scene: Scene = { lab, a, b, prefix: free };
  const pair = await contender.start(scene);
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
    await Promise.all(pair.programs.map((program) => program.stop()));
  }
}

function save(run: Run): void {
  if (options.json === undefined) return;
  writeFileSync(options.json, `${JSON.stringify({ ...run, goals: goalsOf(run) }, null, 2)}\n`);
}

function show(run: Run): void {
  console.log(options.markdown ? markdownReportOf(run) : reportOf(run));
  save(run);
  if (options.svg !== undefined) writeFileSync(options.svg, chartOf(panelsOf(run.contenders), captionOf(run)));
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
  return parts.flatMap(([key, unit]) => numbers[key] === undefined ? [] : [`${numbers[key].toFixed(2)} ${unit}`]).join(
    "  ",
  );
}

function machineFacts(): Run["machine"] {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown CPU",
    cores: cpus().length,
    memoryMegabytes: Math.round(totalmem() / (1 << 20)),
    kernel: release().split("-")[0]!,
    loadBefore: loadavg()[0]!,
  };
}

async function toolVersions(): Promise<Readonly<Record<string, string>>> {
  const ask = async (argv: readonly string[]): Promise<string> => {
    const done = await lab.run("a", argv);
    return (done.stdout || done.stderr).split("\n")[0]!.trim();
  };
  return {
    edgemesh: await ask([...commandOf(options.form as Form), "version"]),
    iperf3: await ask(["iperf3", "--version"]),
    ping: await ask(["ping", "-V"]),
  };
}
