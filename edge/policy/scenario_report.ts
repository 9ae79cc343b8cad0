/** Results of scenarios as totals, and as the text and the document of `policy test`. */
import type { BadScenario } from "./read_scenario.ts";
import type { CaseResult, Failure } from "./run_scenario.ts";

/** `policy test -o json` */
export interface ScenarioReport {
  /** contested ones are not among these totals */
  readonly cases: number;
  readonly passed: number;
  readonly failed: number;
  readonly unsupported: number;
  readonly contested: { readonly passed: number; readonly failed: number; readonly unsupported: number };
  readonly probes: { readonly total: number; readonly passed: number; readonly failed: number };
  readonly failures: readonly Omit<Failure, "probeText">[];
  readonly unsupportedCases: readonly { readonly id: string; readonly reason: string }[];
}

/** A file's scenarios: those that ran, and those that could not be read. */
export interface FileResult {
  readonly place: string;
  readonly results: readonly CaseResult[];
  readonly bad: readonly BadScenario[];
}

/** A scenario that cannot be read is a failed one. */
export function reportOf(files: readonly FileResult[]): ScenarioReport {
  const all = files.flatMap(({ results }) => results);
  const bad = files.flatMap(({ bad }) => bad);
  const counted = all.filter(({ isContested }) => !isContested);
  const contested = all.filter(({ isContested }) => isContested);
  const ran = counted.filter((result) => result.unsupported === undefined);
  const failures = ran.flatMap((result) => result.failures);
  const total = ran.reduce((sum, result) => sum + result.probes, 0);
  const failedProbes = failures.filter(({ probe }) => probe !== null).length;
  return {
    cases: counted.length + bad.length,
    ...outcomes(counted, bad.length),
    contested: outcomes(contested, 0),
    probes: { total, passed: total - failedProbes, failed: failedProbes },
    failures: [
      ...failures.map(({ id, probe, expected, got, decidedBy }) => ({ id, probe, expected, got, decidedBy })),
      ...bad.map(({ id, errors }) => ({
        id,
        probe: null,
        expected: "a scenario",
        got: errors.map(({ path, message }) => path === "" ? message : `${path}: ${message}`).join("; "),
        decidedBy: null,
      })),
    ],
    unsupportedCases: counted.flatMap(({ id, unsupported }) =>
      unsupported === undefined ? [] : [{ id, reason: unsupported }]
    ),
  };
}

function outcomes(results: readonly CaseResult[], bad: number) {
  const unsupported = results.filter((result) => result.unsupported !== undefined).length;
  const failed = results.filter(({ failures }) => failures.length > 0).length;
  return { passed: results.length - unsupported - failed, failed: failed + bad, unsupported };
}

/** A line for each failing probe, a line for each unsupported scenario, then totals. */
export function reportLines(files: readonly FileResult[]): string[] {
  const lines: string[] = [];
  for (const { results } of files) {
    for (const { failures, isContested } of results) {
      for (const failure of failures) lines.push(`${isContested ? "contested: " : ""}${failureText(failure)}`);
    }
  }
  for (const { results } of files) {
    for (const { id, unsupported, isContested } of results) {
      if (unsupported !== undefined) {
        lines.push(`${isContested ? "contested: " : ""}${id} · unsupported: ${unsupported}`);
      }
    }
  }
  return [...lines, ...totals(reportOf(files))];
}

function failureText({ id, probeText, expected, got, decidedBy }: Failure): string {
  const probe = probeText === "" ? "" : ` · ${probeText}`;
  const by = decidedBy === null ? (probeText === "" ? "" : " by no rule") : ` by ${decidedBy}`;
  return `${id}${probe}: expected ${expected}, got ${got}${by}`;
}

function totals({ cases, passed, failed, unsupported, contested, probes }: ScenarioReport): string[] {
  const lines = [
    `${cases} ${
      cases === 1 ? "scenario" : "scenarios"
    }: ${passed} passed, ${failed} failed, ${unsupported} unsupported`,
    `${probes.total} ${probes.total === 1 ? "probe" : "probes"}: ${probes.passed} passed, ${probes.failed} failed`,
  ];
  if (contested.passed + contested.failed + contested.unsupported > 0) {
    lines.push(
      `contested: ${contested.passed} passed, ${contested.failed} failed, ${contested.unsupported} unsupported`,
    );
  }
  return lines;
}
