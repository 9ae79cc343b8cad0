/**
 * Runs scenarios: each probe is a look-up in the datapath's own table of the ends concerned. A scenario that needs what this release
 * does not have is unsupported, with the reason, and never passed.
 */
import { canonicalName, matchesPattern, readPattern } from "../../src/fqdn/pattern.ts";
import { formatAddress } from "../../src/ip/address.ts";
import type { PolicyError } from "../../src/policy/errors.ts";
import { DROP_PROXY_REFUSED, FORWARD, REDIRECT } from "../../src/verdict.ts";
import { judgeRequest, type RequestOutcome } from "./judge_request.ts";
import {
  isUnsupported,
  makeWorld,
  readScenarioObjects,
  type RefusedPolicy,
  type ScenarioObjects,
  type ScenarioWorld,
} from "./make_world.ts";
import { ruleText, verdictText } from "./rule_text.ts";
import { type Probe, type ProbeEnd, probeText, PROTOCOL_NUMBERS, type Question, type Scenario } from "./scenario.ts";
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
  const objects = readScenarioObjects(scenario);
  const result = question.kind === "probes"
    ? runProbes(scenario, question.probes, objects)
    : question.kind === "valid"
    ? runValid(scenario, question.valid, objects.refused)
    : runNames(scenario, question);
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

// Which names does a pattern match?

function runNames({ id }: Scenario, { field, pattern, checks }: Extract<Question, { kind: "names" }>): Outcome {
  const read = readPattern(pattern);
  const error = "error" in read
    ? read.error
    : field === "matchName" && read.pattern.includes("*")
    ? "has a star, which is for matchPattern"
    : undefined;
  const failures: Failure[] = [];
  for (const { name, match } of checks) {
    const canonical = canonicalName(name);
    const isMatch = "pattern" in read && error === undefined && canonical !== undefined &&
      matchesPattern(read.pattern, canonical);
    if (isMatch === match && error === undefined) continue;
    failures.push({
      id,
      probe: name,
      probeText: name,
      expected: match ? "match" : "no match",
      got: error === undefined ? (isMatch ? "match" : "no match") : `"${pattern}" ${error}`,
      decidedBy: null,
    });
  }
  return { unsupported: undefined, probes: checks.length, failures };
}

// What passes?

function runProbes(
  scenario: Scenario,
  probes: readonly Probe[],
  objects: ScenarioObjects,
): Outcome {
  const { refused } = objects;
  const wrong = refused.find(({ errors }) => errors.some((error) => !isUnsupported(error)));
  if (wrong !== undefined) return failAll(scenario, probes, `policy refused: ${refusalText(wrong)}`);
  if (refused.length > 0) return unsupported(reasonOf(refused[0]!));
  if (probes.some(({ sni }) => sni !== undefined)) {
    return unsupported("probes with sni are not supported: TLS is not opened");
  }
  const made = makeWorld(scenario, objects);
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
  checkAgainstRules(judged.steps);
  const outcome = outcomeOf(probe, judged);
  if (isAsExpected(probe, outcome)) return undefined;
  return {
    id,
    probe: probe.given,
    probeText: probeText(probe, endText),
    expected: expectedText(probe),
    got: gotText(outcome),
    decidedBy: decidedBy(outcome),
  };
}

/** What became of a flow, and of the request in it. */
interface ProbeOutcome extends Judgement {
  /** `undefined`: the probe asks nothing, or the flow does not get so far */
  readonly request: RequestOutcome | undefined;
}

function outcomeOf(probe: Probe, judged: Judgement): ProbeOutcome {
  const passes = judged.verdict === FORWARD || judged.verdict === REDIRECT;
  const request = passes ? judgeRequest(probe, judged.steps) : undefined;
  if (request === undefined) return { ...judged, request };
  // what the proxy lets through is forwarded
  return { ...judged, verdict: request.refusedBy === undefined ? FORWARD : DROP_PROXY_REFUSED, request };
}

/** A probe that says which answer it expects has said all about its request; its connection is then open. */
function isAsExpected(probe: Probe, outcome: ProbeOutcome): boolean {
  const { verdict, audited, request } = outcome;
  const answers = [probe.httpStatus, rcodeOf(probe.dnsRcode)];
  const got = [request?.httpStatus, request?.dnsRcode];
  if (answers.some((answer, i) => answer !== undefined && answer !== got[i])) return false;
  const isOpen = verdict === FORWARD || verdict === REDIRECT;
  const isAnswered = request?.refusedBy !== undefined && answers.some((answer) => answer !== undefined);
  return (isOpen === (probe.expect === "allow") || isAnswered) &&
    (probe.dropReason === undefined || probe.dropReason === (isOpen ? audited : verdict)) &&
    (probe.verdict === undefined || probe.verdict === flowVerdict(outcome));
}

const RCODES: Readonly<Record<string, number>> = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 };

/** -1 for a word that is none. */
function rcodeOf(code: string | number | undefined): number | undefined {
  return typeof code === "string" ? RCODES[code.toUpperCase()] ?? -1 : code;
}

function gotText({ verdict, audited, request }: ProbeOutcome): string {
  const text = audited === FORWARD ? verdictText(verdict) : `${verdictText(verdict)} (AUDIT of ${audited})`;
  const answer = request?.httpStatus ?? request?.dnsRcode;
  return answer === undefined ? text : `${text}, answered with ${answer}`;
}

function decidedBy({ steps, request }: ProbeOutcome): string | null {
  const deciding = request?.refusedBy ??
    steps.find((step) => (step.verdict !== FORWARD && step.verdict !== REDIRECT) || step.audited !== FORWARD) ??
    steps.find((step) => step.decidedBy);
  return deciding?.decidedBy === undefined ? null : ruleText(deciding.decidedBy);
}

const ADMITTED: Judgement = { verdict: FORWARD, audited: FORWARD, steps: [], isLoopback: false };

/** As flow records call it. */
function flowVerdict({ verdict, audited }: Judgement): string {
  if (verdict === REDIRECT) return "REDIRECTED";
  return verdict !== FORWARD ? "DROPPED" : audited !== FORWARD ? "AUDIT" : "FORWARDED";
}

/** The compiled table and the rules one by one must say the same: if not, it is a bug of ours, and no answer is to be trusted. */
function checkAgainstRules(steps: readonly Step[]): void {
  for (const step of steps) {
    const { verdict, l7 } = step.explain();
    if (verdict === step.verdict && JSON.stringify(l7) === JSON.stringify(step.l7)) continue;
    throw new Error(`The table of "${step.subject.ref}" says ${step.verdict}, its rules say ${verdict}`);
  }
}

function expectedText({ expect, dropReason, verdict, httpStatus, dnsRcode }: Probe): string {
  const notes = [
    ...(httpStatus === undefined ? [] : [`HTTP ${httpStatus}`]),
    ...(dnsRcode === undefined ? [] : [`DNS ${dnsRcode}`]),
    ...(dropReason === undefined ? [] : [String(dropReason)]),
    ...(verdict === undefined ? [] : [verdict]),
  ];
  return notes.length === 0 ? expect : `${expect} (${notes.join(" ")})`;
}

function endText(end: ProbeEnd): string {
  return "ref" in end ? end.ref : formatAddress(end.address);
}
