/** What is said of a run: text for the terminal, and what the chart shows. */
import type { Panel } from "./chart.ts";
import { judge, type Judged } from "./goals.ts";
import { median, medianOf, metricsOf, ONE_STREAM } from "./samples.ts";
import { goalLines, type Row, tableOf } from "./table.ts";

/** what memory may grow by, in megabytes, and still be called flat */
const FLAT_MEGABYTES = 2;
/** part of the machine; less is the benchmark itself and the kernel */
const DISTURBING = 0.1;

/** Everything that a run leaves: what `--json` writes, with the goals beside it, and `--from` reads. */
export interface Run {
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
    /** of load before, in each direction, that does not count */
    readonly warmSeconds: number;
    readonly measures: readonly string[];
    readonly udpSizes: readonly number[];
  };
  readonly contenders: readonly (Row & { readonly version: string; readonly mtuBytes: number })[];
  readonly left: readonly { readonly id: string; readonly why: string }[];
  readonly faults: readonly string[];
  readonly flat?: Flat;
}

/** Memory of edgemesh over a long stream: seconds since its start, then megabytes. */
export interface Flat {
  readonly minutes: number;
  readonly gbps: number;
  readonly samples: readonly { readonly second: number; readonly anonymous: number; readonly resident: number }[];
}

/** Every goal that the run says something about. */
export function goalsOf(run: Run): readonly Judged[] {
  return [...judge(run.contenders), ...(run.flat ? [judgeFlat(run.flat)] : [])];
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

/** Where, when and how it was measured, in one line. */
export function captionOf({ machine, settings, date }: Run): string {
  const { rounds, seconds } = settings;
  return `${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}, ${date.slice(0, 10)}; ` +
    `medians of ${rounds} round${rounds === 1 ? "" : "s"}, ${seconds} s each; both ends on this machine`;
}

/** What others on this machine did meanwhile, when it was enough to matter. */
function disturbanceOf(rows: readonly Row[]): readonly string[] {
  const parts = rows.flatMap(({ rounds }) =>
    rounds.flatMap((round) => Object.entries(round).filter(([key]) => key.endsWith(".foreign")).map(([, part]) => part))
  );
  const middle = median(parts);
  if (middle === undefined || middle <= DISTURBING) return [];
  return [
    `DISTURBED: others used ${(100 * middle).toFixed(0)} % of the machine (median over all loads): measure again`,
  ];
}

/** The whole text. */
export function reportOf(run: Run): string {
  const { contenders: rows } = run;
  return [
    "",
    `${run.edgemesh.version} (${run.edgemesh.form}); ${captionOf(run)}`,
    "",
    tableOf(rows, metricsOf(run.settings.udpSizes)),
    "",
    "below each figure: against the best peer",
    "",
    ...rows.map(({ title, version, mtuBytes }) => `${title.padEnd(24)} MTU ${mtuBytes}  ${version}`.trimEnd()),
    ...run.left.map(({ id, why }) => `left out: ${id}: ${why}`),
    ...disturbanceOf(rows),
    ...run.faults.map((fault) => `fault: ${fault}`),
    "",
    goalLines(goalsOf(run)),
  ].join("\n");
}

/** The bars of the README's chart, best first. */
export function panelsOf(rows: readonly Row[]): readonly Panel[] {
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
