/** Which flows a change of policies would newly drop: the recent ones, judged by the engine as it is and as it would be. */
import type { IpAddress } from "../ip/address.ts";
import { FORWARD, REDIRECT, type Verdict } from "../verdict.ts";
import type { Explanation } from "./explain.ts";
import type { Direction } from "./model.ts";

/** A flow that was seen at the subject. */
export interface RecentFlow {
  /** seen from the subject */
  readonly direction: Direction;
  /** of the other side */
  readonly address: IpAddress;
  /** of the other side, where the mesh gives its address one; absent: outside of the mesh, each engine tells what it is */
  readonly identity?: number;
  /** IP protocol number */
  readonly protocol: number;
  /** destination port, or ICMP type */
  readonly port: number;
}

/** What is asked of an engine (`PolicyEngine`), whose updates must have been taken. */
export interface Judging {
  identityOfAddress(address: IpAddress): number;
  explain(direction: Direction, other: number, protocol: number, port: number): Explanation;
}

/** One flow and what both engines say. */
export interface Judged<F extends RecentFlow> {
  readonly flow: F;
  readonly before: Explanation;
  readonly after: Explanation;
}

export interface DroppedFlows<F extends RecentFlow> {
  /** they pass now, and would not; in audit mode: they would be reported */
  readonly dropped: readonly Judged<F>[];
  /** they pass now, and a proxy would judge each request */
  readonly toProxy: readonly Judged<F>[];
}

/** Judges every flow twice. In audit mode what is held back counts as dropped, so that people see it before they end the mode. */
export function newlyDropped<F extends RecentFlow>(
  flows: Iterable<F>,
  before: Judging,
  after: Judging,
): DroppedFlows<F> {
  const dropped: Judged<F>[] = [];
  const toProxy: Judged<F>[] = [];
  for (const flow of flows) {
    const judged = { flow, before: judge(before, flow), after: judge(after, flow) };
    const [now, then] = [strictVerdict(judged.before), strictVerdict(judged.after)];
    if (now !== FORWARD && now !== REDIRECT) continue;
    if (then === REDIRECT && now === FORWARD) toProxy.push(judged);
    else if (then !== FORWARD && then !== REDIRECT) dropped.push(judged);
  }
  return { dropped, toProxy };
}

function judge(engine: Judging, { direction, address, identity, protocol, port }: RecentFlow): Explanation {
  return engine.explain(direction, identity ?? engine.identityOfAddress(address), protocol, port);
}

/** The verdict without audit mode. */
export function strictVerdict({ verdict, audited }: Explanation): Verdict {
  return audited ?? verdict;
}
