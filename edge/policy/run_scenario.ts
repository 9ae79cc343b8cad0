/**
 * Runs scenarios: each probe is a look-up in the datapath's own table of the ends concerned. A scenario that needs what this release
 * does not have is unsupported, with the reason, and never passed.
 */
import { formatAddress } from "../../src/ip/address.ts";
import type { PolicyError } from "../../src/policy/errors.ts";
import { FORWARD } from "../../src/verdict.ts";
import {
  isUnsupported,
  makeWorld,
  type ReadPolicies,
  readScenarioPolicies,
  type RefusedPolicy,
  type ScenarioWorld,
} from "./make_world.ts";
import { ruleText, verdictText } from "./rule_text.ts";
import { type Probe, type ProbeEnd, probeText, PROTOCOL_NUMBERS, type Scenario } from "./scenario.ts";
import type { Judgement, Step } from "./world.ts";

/** One thing that is not as expected. */
export interface Failure {
  readonly id: string;
  /** as written in the scenario; the name that was checked; `null`: the scenario as a whole */
  readonly probe: unknown;
  /** "app/web -> app/db TCP/80"; empty for the scenario as a whole */
  readonly probeText: string;
  readonly expected: string;
  readonly got: string;
  /** the rule; `null` when none decided */
  readonly decidedBy: string | null;
}

export interface CaseResult {
  readonly id: string;
  readonly isContested: boolean;
  /** why it was not run */
  readonly unsupported: string | undefined;
  readonly probes: number;
  readonly failures: readonly Failure[];
}

/** Runs one scenario. Never throws for what its author wrote. */
export function runScenario(scenario: Scenario): CaseResult {
  const { id, isContested, question } = scenario;
  const read = readScenarioPolicies(scenario);
  const result = question.kind === "probes"
    ? runProbes(scenario, question.probes, read)
    : question.kind === "valid"
    ? runValid(scenario, question.valid, read.refused)
    : unsupported(`tables of ${question.field} are not supported yet`);
  return { id, isContested, ...result };
}

type Outcome = Pick<CaseResult, "unsupported" | "probes" | "failures">;

function unsupported(reason: string): Outcome {
  return { unsupported: reason, probes: 0, failures: [] };
}

// Are the objects accepted?

function runValid({ id }: Scenario, valid: boolean, refused: readonly RefusedPolicy[]): Outcome {
  const wrong = refused.filter(({ errors }) => errors.some((error) => !isUnsupported(error)));
  if (wrong.length === 0 && refused.length > 0) return unsupported(reasonOf(refused[0]!));
  if ((wrong.length === 0) === valid) return { unsupported: undefined, probes: 0, failures: [] };
  const expected = valid ? "accepted" : "refused";
  const got = valid ? `refused: ${refusalText(wrong[0]!)}` : "accepted";
  return {
    unsupported: undefined,
    probes: 0,
    failures: [{ id, probe: null, probeText: "", expected, got, decidedBy: null }],
  };
}

function reasonOf({ name, errors }: RefusedPolicy): string {
  return `${name}: ${errorText(errors.find(isUnsupported)!)}`;
}

function refusalText({ name, errors }: RefusedPolicy): string {
  return `${name}: ${errorText(errors.find((error) => !isUnsupported(error))!)}`;
}

function errorText({ path, message }: PolicyError): string {
  return path === "" ? message : `${path}: ${message}`;
}

// What passes?

function runProbes(
  scenario: Scenario,
  probes: readonly Probe[],
  { policies, refused }: ReadPolicies,
): Outcome {
  const wrong = refused.find(({ errors }) => errors.some((error) => !isUnsupported(error)));
  if (wrong !== undefined) return failAll(scenario, probes, `policy refused: ${refusalText(wrong)}`);
  if (refused.length > 0) return unsupported(reasonOf(refused[0]!));
  const l7 = probes.find(({ http, dns, sni }) => http !== undefined || dns !== undefined || sni !== undefined);
  if (l7 !== undefined) return unsupported("probes with http, dns or sni are not supported yet");
  const made = makeWorld(scenario, policies);
  if ("unsupported" in made) return unsupported(made.unsupported);
  const failures: Failure[] = [];
  for (const probe of probes) {
    const failure = runProbe(scenario.id, probe, made);
    if (failure !== undefined) failures.push(failure);
  }
  return { unsupported: undefined, probes: probes.length, failures };
}

/** A set of policies that is not accepted is not applied, and no probe was answered. */
function failAll({ id }: Scenario, probes: readonly Probe[], got: string): Outcome {
  const failures = probes.map((probe): Failure => ({
    id,
    probe: probe.given,
    probeText: probeText(probe, endText),
    expected: expectedText(probe),
    got,
    decidedBy: null,
  }));
  return { unsupported: undefined, probes: probes.length, failures };
}

function runProbe(id: string, probe: Probe, made: ScenarioWorld): Failure | undefined {
  const end = (one: ProbeEnd) => "ref" in one ? made.find(one.ref)! : made.world.endOf(one.address);
  const { port, side, isReply } = probe;
  const flow = { from: end(probe.from), to: end(probe.to), protocol: PROTOCOL_NUMBERS[probe.proto], port, side };
  // a reply belongs to a flow that was admitted: no rule is asked
  const judged = isReply ? ADMITTED : made.world.judge(flow);
  const { verdict, audited, steps } = judged;
  checkAgainstRules(steps);
  const isAsExpected = (verdict === FORWARD) === (probe.expect === "allow") &&
    (probe.dropReason === undefined || probe.dropReason === (verdict || audited)) &&
    (probe.verdict === undefined || probe.verdict === flowVerdict(judged));
  if (isAsExpected) return undefined;
  const deciding = steps.find((step) => step.verdict !== FORWARD || step.audited !== FORWARD) ??
    steps.find(({ decidedBy }) => decidedBy);
  return {
    id,
    probe: probe.given,
    probeText: probeText(probe, endText),
    expected: expectedText(probe),
    got: audited === FORWARD ? verdictText(verdict) : `${verdictText(verdict)} (AUDIT of ${audited})`,
    decidedBy: deciding?.decidedBy === undefined ? null : ruleText(deciding.decidedBy),
  };
}

const ADMITTED: Judgement = { verdict: FORWARD, audited: FORWARD, steps: [], isLoopback: false };

/** As flow records call it. */
function flowVerdict({ verdict, audited }: Judgement): string {
  return verdict !== FORWARD ? "DROPPED" : audited !== FORWARD ? "AUDIT" : "FORWARDED";
}

/** The compiled table and the rules one by one must say the same: if not, it is a bug of ours, and no answer is to be trusted. */
function checkAgainstRules(steps: readonly Step[]): void {
  for (const step of steps) {
    const explained = step.explain().verdict;
    if (explained === step.verdict) continue;
    throw new Error(`The table of "${step.subject.ref}" says ${step.verdict}, its rules say ${explained}`);
  }
}

function expectedText({ expect, dropReason, verdict }: Probe): string {
  const notes = [
    ...(dropReason === undefined ? [] : [String(dropReason)]),
    ...(verdict === undefined ? [] : [verdict]),
  ];
  return notes.length === 0 ? expect : `${expect} (${notes.join(" ")})`;
}

function endText(end: ProbeEnd): string {
  return "ref" in end ? end.ref : formatAddress(end.address);
}
