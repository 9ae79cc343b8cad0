/**
 * What the agent needs of a policy engine, so that it can be tested without one; `engine_policies.ts` is the real one.
 */
import type { DatapathCommand } from "../../src/datapath/control.ts";
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import type { IpAddress } from "../../src/ip/address.ts";
import type { MeshChange, MeshState } from "../../src/mesh/state.ts";
import type { RuleRef } from "../../src/policy/engine.ts";
import type { Direction } from "../../src/policy/model.ts";
import type { Judging } from "../../src/policy/newly_dropped.ts";
import type { Verdict } from "../../src/verdict.ts";
import type { L7RuleOf } from "../proxy/doors.ts";
import type { PolicyChange } from "./policy_trial.ts";
import type { ProxyKind } from "./proxies.ts";

/** Which proxies the rules in force for this member need. */
export type ProxyNeeds = Readonly<Record<ProxyKind, boolean>>;

/** Resolves the policies that the mesh state brings for this member. */
export interface Policies {
  /**
   * Takes what a frame changed.
   * @param mesh the state after the change
   * @returns all commands for the datapath, those of the change among them, in the order in which they must be applied
   */
  apply(change: MeshChange, mesh: MeshState): readonly DatapathCommand[];
  /** Everything, those of the mesh state among them, for a datapath that was started again. */
  full(mesh: MeshState): readonly DatapathCommand[];
  /** by "<kind>/<ns>/<name>": policies that cannot be enforced as written, with the reason */
  readonly refused: ReadonlyMap<string, string>;
  /** whether a policy selects this member */
  selectsSelf(policy: string): boolean;
  /** rules in force for this member, by index */
  rules(): readonly RuleRef[];
  readonly needs: ProxyNeeds;
  /** patterns of the names that rules in force mention, canonical */
  fqdnPatterns(): readonly string[];
  /** Puts other values into force than those of the mesh state, or those again. @returns commands for the datapath */
  override(change: PolicyChange): readonly DatapathCommand[];
  /** The engine in force, and one that has a change on top of the mesh state. Nothing is put into force. */
  tryChange(change: PolicyChange, mesh: MeshState): { readonly before: Judging; readonly after: Judging };
  /** Replaces the addresses of names. @returns commands for the datapath */
  putNames(names: ReadonlyMap<string, readonly string[]>): readonly DatapathCommand[];
  /** The identity that the datapath knows an address by. */
  identityOf(address: IpAddress): number;
  /** What the table in force says of a new flow: FORWARD, REDIRECT, or a reason. */
  judge(direction: Direction, identity: number, protocol: number, port: number): Verdict;
  /** See `ProxyDoors.l7RulesFor`. */
  l7RulesFor(kind: ProxyKind, flow: RedirectedFlow): readonly L7RuleOf[];
  /** 0 before the first update */
  readonly revision: number;
  readonly isEnforced: { readonly ingress: boolean; readonly egress: boolean };
}
