/**
 * What the agent needs of a policy engine, so that it can be tested without one; `engine_policies.ts` is the real one.
 */
import type { DatapathCommand } from "../../src/datapath/control.ts";
import type { RuleRef } from "../../src/policy/engine.ts";
import type { MeshChange, MeshState } from "../../src/mesh/state.ts";

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
  /** 0 before the first update */
  readonly revision: number;
  readonly isEnforced: { readonly ingress: boolean; readonly egress: boolean };
}
