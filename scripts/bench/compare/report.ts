/** What is said of a run: text for the terminal, and what the chart shows. */
import type { Panel } from "./chart.ts";
import { DEFAULT_ID, judge, type Judged, type MemorySample } from "./goals.ts";
import { median, medianOf, metricsOf, ONE_STREAM } from "./samples.ts";
import { goalLines, markdownOf, type Row, tableOf } from "./table.ts";

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
  readonly contenders: readonly Measured[];
  readonly left: readonly { readonly id: string; readonly why: string }[];
  readonly faults: readonly string[];
  readonly flat?: Flat;
}

/** A contender with all that was measured of it. */
export interface Measured extends Row {
  readonly isMain: boolean;
  readonly version: string;
  readonly mtuBytes: number;
}

/** Memory of an edgemesh over a long stream: seconds since the stream's start, then megabytes. */
export interface Flat {
  readonly id: string;
  readonly minutes: number;
  readonly gbps: number;
  readonly samples: readonly (MemorySample & { readonly second: number })[];
}

/** Every goal that the run says something about. */
export function goalsOf({ contenders, flat }: Run): readonly Judged[] {
  const settled = flat?.id === DEFAULT_ID ? flat.samples.slice(Math.ceil(flat.samples.length / 5)) : [];
  return [...judge(contenders, settled), ...(flat && flat.samples.length > 0 ? [judgeFlat(flat)] : [])];
}

/**
 * Median of anonymous memory in the second fifth against the last one. What starting leaves behind is given back in the first;
 * of what is lost steadily, three fifths of the time show.
 */
function judgeFlat({ id, minutes, gbps, samples }: Flat): Judged {
  const part = (from: number, to: number): number =>
    median(samples.slice(Math.floor(samples.length * from), Math.ceil(samples.length * to)).map((s) => s.anonymous))!;
  const growth = part(0.8, 1) - part(0.2, 0.4);
  const [anonymous, resident] = [samples.map((s) => s.anonymous), samples.map((s) => s.resident)];
  return {
    what: `memory flat over ${minutes} minutes${id === DEFAULT_ID ? "" : `, ${id}`}`,
    wanted: `at most ${FLAT_MEGABYTES} MB more`,
    found: `${growth.toFixed(1)} MB more; at most ${Math.max(...anonymous).toFixed(1)} MB anonymous, ` +
      `${Math.max(...resident).toFixed(1)} MB resident; ${gbps.toFixed(2)} Gbit/s`,
    isReached: growth <= FLAT_MEGABYTES,
  };
}

/** Where and when, and how it was measured: two lines. */
export function captionOf({ machine, settings, date, edgemesh, contenders }: Run): readonly [string, string] {
  const { seconds } = settings;
  const counts = contenders.map(({ rounds }) => rounds.length);
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  const rounds = `${least === most ? "" : `${least} to `}${most} round${most === 1 ? "" : "s"}`;
  return [
    `${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}, ${date.slice(0, 10)}, ${edgemesh.version}`,
    `medians of ${rounds}, ${seconds} s each; both ends on this machine`,
  ];
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
    ...captionOf(run),
    `edgemesh as ${run.edgemesh.form}`,
    "",
    tableOf(rows, metricsOf(run.settings.udpSizes)),
    "",
    "below each figure: against the best peer",
    "",
    ...rows.map(({ title, version, mtuBytes, rounds }) =>
      `${title.padEnd(24)} MTU ${mtuBytes}  rounds ${rounds.length}  ${version}`.trimEnd()
    ),
    ...run.left.map(({ id, why }) => `left out: ${id}: ${why}`),
    ...disturbanceOf(rows),
    ...run.faults.map((fault) => `fault: ${fault}`),
    "",
    goalLines(goalsOf(run)),
  ].join("\n");
}

/** The table of the README. */
export function markdownReportOf(run: Run): string {
  return `${markdownOf(run.contenders, metricsOf(run.settings.udpSizes))}\n\n${captionOf(run).join("; ")}`;
}

/** The bars of the README's chart, best first: every peer, and edgemesh in its main modes, so that they can be taken in. */
export function panelsOf(measured: readonly Measured[]): readonly Panel[] {
  const rows = measured.filter(({ kind, isMain }) => kind === "peer" || kind === "edgemesh" && isMain);
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
    bars: rows.flatMap(({ title, kind, rounds }) => {
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
