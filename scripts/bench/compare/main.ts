/**
 * The benchmark behind the README's figures: `scripts/bench/run compare`. Everybody takes turns within each round, and the next
 * round starts with another one; medians over the rounds are compared. Both ends of a tunnel and the load run on this machine
 * and share its cores, so the numbers are for comparing what was measured in one run, not for quoting alone.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { Lab } from "../../lab/lab.ts";
import { makeEnd } from "../../lab/peers.ts";
import { commandOf, type Form, FORMS } from "../../lab/program.ts";
import { chartOf } from "./chart.ts";
import { type Contender, contenders } from "./contenders.ts";
import { DEFAULT_ID } from "./goals.ts";
import { captionOf, type Flat, goalsOf, markdownReportOf, panelsOf, reportOf, type Run } from "./report.ts";
import type { Round } from "./samples.ts";
import { type Measure, MEASURES, messageOf, type Plan, Turns } from "./turns.ts";

const QUICK = { rounds: "1", seconds: "2", warm: "2", measures: "ping,tcp1,udp", udp: "64" } as const;
const FULL = { rounds: "3", seconds: "4", warm: "4", measures: MEASURES.join(","), udp: "64,1400" } as const;
/** who is not one of the main contenders takes part in every so many rounds, with the measures of the quick run */
const SIDE_EVERY = 2;
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
  const faults: string[] = [];
  const turns = new Turns({
    lab,
    a: await makeEnd(lab, "a", 1),
    b: await makeEnd(lab, "b", 2),
    settings: values,
    waitSeconds: Number(options.wait),
    onFault: (text) => {
      faults.push(text);
      console.error(`bench: ${text}`);
    },
  });
  const rounds = new Map<string, Round[]>(present.map(({ id }) => [id, []]));
  const mtus = new Map<string, number>();
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
    turns.startRound();
    for (const contender of [...inTurn]) {
      const isSide = isAside(contender);
      if (isSide && (round - 1) % SIDE_EVERY !== 0) continue;
      const measured = await turns.take(contender, isSide ? SIDE_PLAN : FULL_PLAN, round);
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
  const minutes = Number(options.minutes);
  const watched = present.find(({ id }) => id === DEFAULT_ID) ?? present.find(({ kind }) => kind === "edgemesh");
  if (minutes > 0 && watched !== undefined) {
    try {
      later.flat = await turns.watchFlat(watched, minutes);
    } catch (error) {
      faults.push(`the long stream: ${messageOf(error)}`);
    }
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

function save(run: Run): void {
  if (options.json === undefined) return;
  writeFileSync(options.json, `${JSON.stringify({ ...run, goals: goalsOf(run) }, null, 2)}\n`);
}

function show(run: Run): void {
  console.log(options.markdown ? markdownReportOf(run) : reportOf(run));
  save(run);
  if (options.svg !== undefined) writeFileSync(options.svg, chartOf(panelsOf(run.contenders), captionOf(run)));
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
