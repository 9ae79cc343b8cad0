/**
 * What was measured: numbers by contender and metric, a list of them over the rounds. Everything that is printed comes from
 * here, and the JSON holds all of it.
 */

/** One round of one contender: numbers by the keys of METRICS. What could not be measured is absent. */
export type Round = Readonly<Record<string, number>>;

/** What a number is and how it is written. */
export interface Metric {
  readonly key: string;
  /** head of the table's column, two lines */
  readonly title: readonly [string, string];
  readonly digits: number;
  /** which of two numbers is the better one; absent: neither */
  readonly better?: "more" | "less";
  /** of a number that is there in the rounds where the kernel killed the program instead */
  readonly killed?: string;
}

/** All that are shown in the table; the keys of UDP depend on the sizes asked for. */
export function metricsOf(udpSizes: readonly number[]): readonly Metric[] {
  return [
    { key: "tcp1.up.gbps", title: ["TCP 1 up", "Gbit/s"], digits: 2, better: "more" },
    { key: "tcp1.down.gbps", title: ["TCP 1 down", "Gbit/s"], digits: 2, better: "more" },
    { key: "tcp4.up.gbps", title: ["TCP 4 up", "Gbit/s"], digits: 2, better: "more" },
    { key: "tcp4.down.gbps", title: ["TCP 4 down", "Gbit/s"], digits: 2, better: "more" },
    ...udpSizes.flatMap((size): Metric[] => [
      { key: `udp${size}.kpps`, title: [`UDP ${size}`, "got k/s"], digits: 1, better: "more" },
      { key: `udp${size}.delivered`, title: [`UDP ${size}`, "deliv."], digits: 1, better: "more" },
    ]),
    { key: "ping.us", title: ["ping", "us"], digits: 0, better: "less" },
    { key: "tcp1.cpu", title: ["CPU", "s/GB"], digits: 2, better: "less" },
    { key: "idle.anonymous", title: ["idle", "anon MB"], digits: 1 },
    { key: "idle.resident", title: ["idle", "res. MB"], digits: 1 },
    { key: "load.anonymous", title: ["load", "anon MB"], digits: 1, better: "less" },
    { key: "load.resident", title: ["load", "res. MB"], digits: 1 },
    { key: "limited.gbps", title: ["in 96 MB", "Gbit/s"], digits: 2, killed: "limited.killed" },
  ];
}

/** The middle one, or the mean of the two in the middle; undefined for none. */
export function median(of: readonly number[]): number | undefined {
  if (of.length === 0) return undefined;
  const sorted = [...of].sort((x, y) => x - y);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Smallest number that at least `part` of them do not exceed; undefined for none. */
export function quantile(of: readonly number[], part: number): number | undefined {
  const sorted = [...of].sort((x, y) => x - y);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(part * sorted.length) - 1))];
}

/** All numbers of these keys in all rounds. */
export function pool(rounds: readonly Round[], ...keys: readonly string[]): number[] {
  return rounds.flatMap((round) => keys.map((key) => round[key]).filter((value) => value !== undefined));
}

/** Median of all numbers of these keys in all rounds. */
export function medianOf(rounds: readonly Round[], ...keys: readonly string[]): number | undefined {
  return median(pool(rounds, ...keys));
}

/** "killed", "killed 1/3"; undefined when it lived in all rounds. */
export function killedIn(rounds: readonly Round[], killedKey: string): string | undefined {
  const { length } = pool(rounds, killedKey);
  if (length === 0) return undefined;
  return length === rounds.length ? "killed" : `killed ${length}/${rounds.length}`;
}

/** One stream in either direction; what a claim about "one stream" is judged by. */
export const ONE_STREAM = ["tcp1.up.gbps", "tcp1.down.gbps"] as const;
