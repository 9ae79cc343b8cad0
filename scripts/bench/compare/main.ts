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
import { chartOf, type Panel } from "./chart.ts";
import { type Contender, contenders, free, type Pair, readPeerList, type Scene } from "./contenders.ts";
import { judge, type Judged } from "./goals.ts";
import { atRest, memory, MemoryWatch, type Numbers, ping, tcp, udp } from "./measures.ts";
import { MemoryGroup } from "./memory_group.ts";
import { median, medianOf, metricsOf, ONE_STREAM, type Round } from "./samples.ts";
import { goalsOf, type Row, tableOf } from "./table.ts";

const MEASURES = ["idle", "ping", "tcp1", "tcp4", "udp", "limited"] as const;
type Measure = (typeof MEASURES)[number];

const QUICK = { rounds: "2", seconds: "1", measures: "ping,tcp1,udp", udp: "64" } as const;
const FULL = { rounds: "3", seconds: "4", measures: MEASURES.join(","), udp: "64,1200,1400" } as const;
/** edgemesh lets go of what starting needed after two seconds */
const IDLE_MS = 4_000;
const LIMIT_BYTES = 96 << 20;
const FLAT_SAMPLE_MS = 2_000;
/** what memory may grow by, in megabytes, and still be called flat */
const FLAT_MEGABYTES = 2;
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
    form: { type: "string", default: "binary" },
    json: { type: "string" },
    svg: { type: "string" },
    from: { type: "string" },
    list: { type: "boolean", default: false },
  },
});

/** Everything that a run leaves: what `--json` writes and `--from` reads. */
interface Run {
  readonly date: string;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly memoryMegabytes: number;
    readonly kernel: string;
    readonly loadBefore: number;
  };
  readonly edgemesh: { readonly version: string; readonly form: string };
  readonly tools: Readonly<Record<string, string>>;
  readonly settings: {
    readonly rounds: number;
    readonly seconds: number;
    readonly measures: readonly string[];
    readonly udpSizes: readonly number[];
  };
  readonly contenders: readonly (Row & { readonly version: string; readonly mtuBytes: number })[];
  readonly left: readonly { readonly id: string; readonly why: string }[];
  readonly faults: readonly string[];
  readonly flat?: Flat;
  /** judged from the above; here for whoever reads the file */
  readonly goals: readonly Judged[];
}

/** Memory of edgemesh over a long stream: seconds since its start, then megabytes. */
interface Flat {
  readonly minutes: number;
  readonly gbps: number;
  readonly samples: readonly { readonly second: number; readonly anonymous: number; readonly resident: number }[];
}

if (options.from !== undefined) {
  show(JSON.parse(readFileSync(options.from, "utf8")));
  process.exit(0);
}
const values = settings();
process.env["EDGEMESH_FORM"] = options.form;

const lab = await Lab.create(["a", "b"]);
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => void lab.close().then(() => process.exit(130)));
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
  const all = contenders(readPeerList(), tools["edgemesh"] ?? "");
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
  let inTurn = [...present];
  for (let round = 1; round <= values.rounds; round++) {
    for (const contender of [...inTurn]) {
      const measured = await runOne(contender, a, b, faults, round);
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
  }
  const flat = await watchFlat(present, a, b);
  const run: Omit<Run, "goals"> = {
    date: new Date().toISOString(),
    machine,
    edgemesh: { version: tools["edgemesh"] ?? "", form: options.form },
    tools,
    settings: values,
    contenders: present.filter(({ id }) => rounds.get(id)!.length > 0).map((
      { id, title, kind, isNewest, version },
    ) => ({ id, title, kind, isNewest, version, mtuBytes: mtus.get(id) ?? NaN, rounds: rounds.get(id)! })),
    left,
    faults,
    ...(flat && { flat }),
  };
  show(run);
}

function chosen(all: readonly Contender[]): readonly Contender[] {
  if (options.only === undefined) return all.filter(({ isQuick }) => isQuick || !options.quick);
  const names = list(options.only);
  for (const name of names) {
    if (!all.some(({ id }) => id === name)) refuse("--only", name, all.map(({ id }) => id).join(", "));
  }
  return all.filter(({ id }) => names.includes(id));
}

/** One contender in one round; undefined when it cannot be started. */
async function runOne(
  contender: Contender,
  a: End,
  b: End,
  faults: string[],
  round: number,
): Promise<{ readonly numbers: Round; readonly mtuBytes: number } | undefined> {
  const fault = (what: string, error: unknown): void => {
    faults.push(`${contender.id}, round ${round}, ${what}: ${String(error).split("\n")[0]}`);
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
    await measurePair(pair, numbers, fault);
  } finally {
    await Promise.all(pair.programs.map((program) => program.stop()));
  }
  if (has("limited") && contender.kind !== "bare") await measureLimited(contender, a, b, numbers, fault);
  console.error(`round ${round}/${values.rounds}  ${contender.id.padEnd(26)}${shortOf(numbers)}`);
  return { numbers, mtuBytes: pair.mtuBytes };
}

function has(measure: Measure): boolean {
  return values.measures.includes(measure);
}

type Fault = (what: string, error: unknown) => void;

async function measurePair(pair: Pair, numbers: Numbers, fault: Fault): Promise<void> {
  const { seconds } = values;
  const attempt = async (what: string, measure: () => Promise<Numbers>): Promise<void> => {
    try {
      await rest(what, fault);
      Object.assign(numbers, await measure());
    } catch (error) {
      fault(what, error);
    }
  };
  if (has("idle") && pair.programs.length > 0) {
    await pause(IDLE_MS);
    const { anonymous, resident } = memory(pair);
    Object.assign(numbers, { "idle.anonymous": anonymous, "idle.resident": resident });
  }
  if (has("ping")) await attempt("ping", () => ping(lab, pair));
  const watch = new MemoryWatch(pair);
  for (const streams of [1, 4] as const) {
    if (!has(`tcp${streams}`)) continue;
    for (const direction of ["up", "down"] as const) {
      await attempt(`TCP ${streams} ${direction}`, () => tcp(lab, pair, streams, direction, seconds));
    }
  }
  if (has("udp")) {
    for (const size of values.udpSizes) {
      await attempt(`UDP ${size}`, () => udp(lab, pair, size, seconds));
    }
  }
  await watch.stop();
  if (watch.resident > 0) {
    Object.assign(numbers, { "load.anonymous": watch.anonymous, "load.resident": watch.resident });
  }
  const cpu = ["tcp1.up.cpu", "tcp1.down.cpu"].map((key) => numbers[key]).filter((value) => value !== undefined);
  if (cpu.length > 0) numbers["tcp1.cpu"] = median(cpu)!;
}

/** With `--wait`: nothing is measured while others are at work here, unless they do not stop. */
async function rest(what: string, fault: Fault): Promise<void> {
  if (Number(options.wait) > 0 && !await atRest(Number(options.wait))) {
    fault(what, `measured although others were at work for ${options.wait} s`);
  }
}

/** One stream again, each end in a memory cgroup of its own. */
async function measureLimited(contender: Contender, a: End, b: End, numbers: Numbers, fault: Fault): Promise<void> {
  const groups = { a: MemoryGroup.make("a", LIMIT_BYTES), b: MemoryGroup.make("b", LIMIT_BYTES) };
  let pair: Pair | undefined;
  try {
    if (!groups.a || !groups.b) throw new Error("a memory cgroup cannot be made here");
    pair = await contender.start({ lab, a, b, prefix: (node) => groups[node]!.prefix });
    await rest("in 96 MB", fault);
    numbers["limited.gbps"] = (await tcp(lab, pair, 1, "up", values.seconds))["tcp1.up.gbps"]!;
  } catch (error) {
    fault("in 96 MB", error);
  } finally {
    await Promise.all((pair?.programs ?? []).map((program) => program.stop()));
    for (const group of [groups.a, groups.b]) group?.remove();
  }
}

/** edgemesh under one stream for minutes, its memory looked at all the while. */
async function watchFlat(present: readonly Contender[], a: End, b: End): Promise<Flat | undefined> {
  const minutes = Number(options.minutes);
  const contender = present.find(({ kind }) => kind === "edgemesh");
  if (minutes === 0 || contender === undefined) return undefined;
  console.error(`${contender.id} under one stream for ${minutes} minutes`);
  const scene: Scene = { lab, a, b, prefix: free };
  const pair = await contender.start(scene);
  try {
    const samples: { second: number; anonymous: number; resident: number }[] = [];
    const start = performance.now();
    let isDone = false;
    const watching = (async () => {
      while (!isDone) {
        samples.push({ second: Math.round((performance.now() - start) / 1e3), ...memory(pair) });
        await pause(FLAT_SAMPLE_MS);
      }
    })();
    const found = await tcp(lab, pair, 1, "up", minutes * 60).finally(() => isDone = true);
    await watching;
    return { minutes, gbps: found["tcp1.up.gbps"]!, samples };
  } finally {
    await Promise.all(pair.programs.map((program) => program.stop()));
  }
}

/** The second fifth against the last: what starting leaves behind is given back in the first. */
function judgeFlat({ minutes, samples }: Flat): Judged {
  const part = (from: number, to: number): number =>
    median(samples.slice(Math.floor(samples.length * from), Math.ceil(samples.length * to)).map((s) => s.anonymous))!;
  const growth = part(0.8, 1) - part(0.2, 0.4);
  const [anonymous, resident] = [samples.map((s) => s.anonymous), samples.map((s) => s.resident)];
  return {
    what: `memory flat over ${minutes} minutes`,
    wanted: `at most ${FLAT_MEGABYTES} MB more`,
    found: `${growth.toFixed(1)} MB more; at most ${Math.max(...anonymous).toFixed(1)} MB anonymous, ` +
      `${Math.max(...resident).toFixed(1)} MB resident`,
    isReached: growth <= FLAT_MEGABYTES,
  };
}

function show(run: Omit<Run, "goals">): void {
  const { machine, contenders: rows } = run;
  const metrics = metricsOf(run.settings.udpSizes);
  const goals = [...judge(rows), ...(run.flat ? [judgeFlat(run.flat)] : [])];
  const { rounds, seconds } = run.settings;
  const words = `${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}, ${run.date.slice(0, 10)}; ` +
    `medians of ${rounds} round${rounds === 1 ? "" : "s"}, ${seconds} s each; both ends on this machine`;
  console.log(`\nedgemesh ${run.edgemesh.version} (${run.edgemesh.form}); ${words}\n`);
  console.log(tableOf(rows, metrics));
  console.log(`\nbelow each figure: against the best peer\n`);
  for (const { title, version, mtuBytes } of rows) console.log(`${title.padEnd(24)} MTU ${mtuBytes}  ${version}`);
  for (const { id, why } of run.left) console.log(`left out: ${id}: ${why}`);
  for (const fault of run.faults) console.log(`fault: ${fault}`);
  console.log(`\n${goalsOf(goals)}`);
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify({ ...run, goals }, null, 1)}\n`);
  if (options.svg !== undefined) writeFileSync(options.svg, chartOf(panelsOf(rows), words));
}

function panelsOf(rows: readonly Row[]): readonly Panel[] {
  const panel = (
    title: string,
    unit: string,
    digits: number,
    better: "more" | "less",
    keys: readonly string[],
  ): Panel => ({
    title,
    unit: `${unit}, ${better} is better`,
    digits,
    bars: rows.filter(({ kind }) => kind !== "bare").flatMap(({ title, kind, rounds }) => {
      const value = medianOf(rounds, ...keys);
      return value === undefined ? [] : [{ title, value, isOurs: kind === "edgemesh" }];
    }).sort((x, y) => better === "more" ? y.value - x.value : x.value - y.value),
  });
  return [
    panel("One TCP stream", "Gbit/s", 2, "more", ONE_STREAM),
    panel("UDP, 64 octets", "thousand datagrams received a second", 0, "more", ["udp64.kpps"]),
    panel("CPU time, both ends", "seconds per gigabyte", 1, "less", ["tcp1.cpu"]),
    panel("Memory under load", "MB, anonymous", 0, "less", ["load.anonymous"]),
  ];
}

function shortOf(numbers: Numbers): string {
  const parts = [
    ["tcp1.up.gbps", "Gbit/s"],
    ["tcp1.down.gbps", "down"],
    ["udp64.kpps", "kpps"],
    ["ping.us", "us"],
    ["tcp1.cpu", "s/GB"],
    ["load.anonymous", "MB"],
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
    kernel: release(),
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
