/** The table that is printed: a line per contender with medians, and below each how it compares with the best peer. */
import { best, type Judged, type Result } from "./goals.ts";
import { killedIn, medianOf, type Metric, type Round } from "./samples.ts";

/** A contender as the table names it. */
export interface Row extends Result {
  readonly title: string;
}

/** Lines of equal columns; a column that nobody has a number for is left out. */
export function tableOf(rows: readonly Row[], metrics: readonly Metric[]): string {
  const shown = shownOf(rows, metrics);
  const references = shown.map(({ key, better }) => {
    const peer = better && best(rows.filter(({ kind }) => kind === "peer"), better, key);
    return peer && medianOf(peer.rounds, key);
  });
  const cells: string[][] = [["", ...shown.map(({ title }) => title[0])], ["", ...shown.map(({ title }) => title[1])]];
  for (const { title, rounds } of rows) {
    const values = shown.map(({ key }) => medianOf(rounds, key));
    cells.push([title, ...shown.map((metric) => cellOf(rounds, metric))]);
    const ratios = values.map((value, i) => {
      const reference = references[i];
      return value === undefined || !reference ? "" : `${(value / reference).toFixed(2)} x`;
    });
    if (ratios.some((text) => text !== "")) cells.push(["", ...ratios]);
  }
  return columns(cells);
}

const NOTHING = "-";

function cellOf(rounds: readonly Round[], { key, digits, killed }: Metric): string {
  return (killed && killedIn(rounds, killed)) ?? medianOf(rounds, key)?.toFixed(digits) ?? NOTHING;
}

/** The same as a table of Markdown, without the comparisons. */
export function markdownOf(rows: readonly Row[], metrics: readonly Metric[]): string {
  const shown = shownOf(rows, metrics);
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [
    line(["", ...shown.map(({ title }) => title.join(" "))]),
    line(["---", ...shown.map(() => "---:")]),
    ...rows.map(({ title, rounds }) => line([title, ...shown.map((metric) => cellOf(rounds, metric))])),
  ].join("\n");
}

/** Metrics that somebody has a number for. */
function shownOf(rows: readonly Row[], metrics: readonly Metric[]): readonly Metric[] {
  return metrics.filter((metric) => rows.some(({ rounds }) => cellOf(rounds, metric) !== NOTHING));
}

/** The goals, one a line. */
export function goalLines(judged: readonly Judged[]): string {
  const word = (isReached: boolean | undefined): string =>
    isReached === undefined ? "?" : isReached ? "reached" : "NOT reached";
  const cells = judged.map(({ what, wanted, found, isReached }) => [what, wanted, word(isReached), found]);
  return columns(cells, "left");
}

function columns(cells: readonly (readonly string[])[], align: "left" | "right" = "right"): string {
  const widths = cells[0]!.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  return cells.map((row) =>
    row.map((text, i) => align === "left" || i === 0 ? text.padEnd(widths[i]!) : text.padStart(widths[i]!)).join("  ")
      .trimEnd()
  ).join("\n");
}
