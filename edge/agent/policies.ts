/**
 * What the agent needs of a policy engine, so that it can be tested without one; `engine_policies.ts` is the real one.
 */
import type { MemberRecord, MeshSettings } from "../../src/mesh/entries.ts";
import type { MeshChange } from "../../src/mesh/state.ts";
import type { PolicyUpdate } from "../../src/policy/table.ts";

/** Resolves the policies that the mesh state brings for this member. */
export interface Policies {
  /**
   * Takes what a frame changed.
   * @returns the update for the datapath; undefined: nothing changed for it
   */
  apply(
    change: MeshChange,
    self: MemberRecord | undefined,
    settings: MeshSettings | undefined,
  ): PolicyUpdate | undefined;
  /** The whole table, for a datapath that was started again; undefined before the first update. */
  full(): PolicyUpdate | undefined;
  /** by "<kind>/<ns>/<name>": policies that cannot be enforced as written, with the reason */
  readonly refused: ReadonlyMap<string, string>;
  /** whether a policy selects this member */
  selectsSelf(policy: string): boolean;
  /** 0 before the first update */
  readonly revision: number;
  readonly isEnforced: { readonly ingress: boolean; readonly egress: boolean };
}
