/** What the entries of a section of a Cilium policy depend on. */
import type { PolicyFeatures } from "./features.ts";
import type { Direction, RuleVerdict } from "./model.ts";

export interface Section {
  readonly direction: Direction;
  readonly verdict: RuleVerdict;
  /** the policy's; empty for a cluster-wide one */
  readonly namespace: string;
  /** the subject asks for `reserved:init` */
  readonly subjectIsInit: boolean;
  /** the subject is the host of nodes */
  readonly isForNodes: boolean;
  /** what no rule allows is dropped: `enableDefaultDeny` does not say otherwise */
  readonly closes: boolean;
  readonly features: PolicyFeatures;
}
