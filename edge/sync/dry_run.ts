/**
 * A dry run of policies: what a member says when it is asked which of its recent flows a change would newly drop. The shapes that
 * travel from member to hub and from hub to administrator; all of it is plain data.
 */
import type { EntryValue } from "../../src/mesh/entries.ts";

/** Flows that one member names; `total` tells how many there are. */
export const MAX_DRY_RUN_FLOWS = 200;
const MAX_TEXT_CHARS = 700;

/** Asks a member; rejects, or answers with a `fault`, where it cannot say. */
export type Evaluate = (
  puts: readonly (readonly [key: string, value: EntryValue])[],
  deletes: readonly string[],
) => Promise<DryRunResult>;

/** One member's answer. */
export interface DryRunResult {
  /** flows that pass now and would not, the most frequent first, at most `MAX_DRY_RUN_FLOWS`; equal ones are one */
  readonly flows: readonly DryRunFlow[];
  /** how many there are in all, equal ones as one */
  readonly total: number;
  /** recent flows that were judged */
  readonly lookedAt: number;
  /** flows that pass as they are now, and that a proxy would judge request by request */
  readonly toProxy: number;
  /** why it could not be said; all else is empty then */
  readonly fault?: string;
}

/** A flow that would newly be dropped. */
export interface DryRunFlow {
  /** as the member sees it */
  readonly direction: "ingress" | "egress";
  readonly source: string;
  readonly destination: string;
  /** "<cluster>/<name>" of the member on the other side; null: none */
  readonly peer: string | null;
  /** "TCP", or a number that has no name */
  readonly protocol: string;
  /** destination port, or ICMP type */
  readonly port: number;
  /** recent flows of this kind */
  readonly count: number;
  readonly before: DryRunVerdict;
  readonly after: DryRunVerdict;
  /** policy is in audit mode: it would be reported, not dropped */
  readonly isAudited: boolean;
}

export interface DryRunVerdict {
  /** printed name of a verdict, e.g. "FORWARD" */
  readonly verdict: string;
  /** "<policy> <path>" of the rule that decides; null: no rule does */
  readonly rule: string | null;
}

/** What the hub tells the administrator. */
export interface DryRunReport {
  readonly members: readonly DryRunMember[];
}

export interface DryRunMember {
  readonly name: string;
  /** not-asked: not connected, or of a release that cannot say; no-answer: not in time */
  readonly state: "answered" | "not-asked" | "no-answer";
  /** why there is no result, or why it says nothing; null: it says something */
  readonly reason: string | null;
  readonly result: DryRunResult | null;
}

export const NO_FLOWS: DryRunResult = { flows: [], total: 0, lookedAt: 0, toProxy: 0 };

/** The result with as many flows as fit into so many octets of JSON. */
export function fitResult(result: DryRunResult, maxBytes: number): DryRunResult {
  const size = (value: DryRunResult) => new TextEncoder().encode(JSON.stringify(value)).length;
  const fault = result.fault === undefined ? {} : { fault: cut(result.fault) };
  let fitting = { ...result, ...fault, flows: result.flows.slice(0, MAX_DRY_RUN_FLOWS) };
  while (fitting.flows.length > 0 && size(fitting) > maxBytes) {
    fitting = { ...fitting, flows: fitting.flows.slice(0, Math.floor(fitting.flows.length / 2)) };
  }
  return fitting;
}

/** Reads what a member says; `undefined` for anything that is not exactly that. Texts that are too long are cut. */
export function readDryRunResult(value: unknown): DryRunResult | undefined {
  if (!isMap(value)) return undefined;
  const { flows, total, lookedAt, toProxy, fault } = value;
  if (!Array.isArray(flows) || flows.length > MAX_DRY_RUN_FLOWS) return undefined;
  if (!isCount(total) || !isCount(lookedAt) || !isCount(toProxy)) return undefined;
  if (fault !== undefined && typeof fault !== "string") return undefined;
  const read = flows.map(readFlow);
  if (!read.every((flow) => flow !== undefined)) return undefined;
  return { flows: read, total, lookedAt, toProxy, ...(fault !== undefined && { fault: cut(fault) }) };
}

function readFlow(value: unknown): DryRunFlow | undefined {
  if (!isMap(value)) return undefined;
  const { direction, source, destination, peer, protocol, port, count, isAudited } = value;
  const before = readVerdict(value["before"]);
  const after = readVerdict(value["after"]);
  if ((direction !== "ingress" && direction !== "egress") || typeof source !== "string") return undefined;
  if (typeof destination !== "string" || (peer !== null && typeof peer !== "string")) return undefined;
  if (typeof protocol !== "string" || !isCount(port) || !isCount(count) || typeof isAudited !== "boolean") {
    return undefined;
  }
  if (before === undefined || after === undefined) return undefined;
  return {
    direction,
    source: cut(source),
    destination: cut(destination),
    peer: peer === null ? null : cut(peer),
    protocol: cut(protocol),
    port,
    count,
    before,
    after,
    isAudited,
  };
}

function readVerdict(value: unknown): DryRunVerdict | undefined {
  if (!isMap(value)) return undefined;
  const { verdict, rule } = value;
  if (typeof verdict !== "string" || (rule !== null && typeof rule !== "string")) return undefined;
  return { verdict: cut(verdict), rule: rule === null ? null : cut(rule) };
}

function cut(text: string): string {
  return text.slice(0, MAX_TEXT_CHARS);
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
