/** A rule that is in force: its index, its parts, and the instances that classes are made of. */
import { type BoundRule, EVERYONE, keyRanges, resolveNames } from "./bind.ts";
import { type Instance, makeInstance } from "./classes.ts";
import type { BoundPeer, IdentityRecord, PeerEntry } from "./identity_index.ts";
import type { PortName } from "./model.ts";
import type { ExplainedRule, RuleRef } from "./explain.ts";

/** What one part does: the ports that are the same for every peer, or those that each destination resolves. */
export interface RulePart {
  readonly owner: ActiveRule;
  /** `undefined`: everybody, unknown identities too */
  readonly peers: readonly BoundPeer[] | undefined;
  /** filled while in use */
  entries: PeerEntry<RulePart>[];
  readonly names: readonly PortName[];
  /** by the text of their ranges; a part without names has one, under "" */
  readonly instances: Map<string, Instance>;
}

export class ActiveRule implements ExplainedRule {
  /** the path changes when the rule moves inside its object */
  ref: RuleRef;
  readonly bound: BoundRule;
  readonly parts: readonly RulePart[];

  constructor(index: number, policy: string, bound: BoundRule) {
    const { path, verdict, tier } = bound.rule;
    this.ref = { index, policy, path, verdict, tier };
    this.bound = bound;
    const parts: RulePart[] = [];
    if (bound.ranges.length > 0) parts.push(this.#part(bound.peers, [], [["", this.#instance(bound.ranges)]]));
    if (bound.names.length > 0) parts.push(this.#part(bound.peers ?? [EVERYONE], bound.names, []));
    this.parts = parts;
  }

  /** Takes it out of the classes at their next flush. */
  kill(): void {
    for (const part of this.parts) for (const instance of part.instances.values()) instance.isDead = true;
  }

  /** The instance for an identity; `undefined` where no name of the part is known there. */
  instanceFor(part: RulePart, record: IdentityRecord): Instance | undefined {
    if (part.names.length === 0) return part.instances.get("");
    const ranges = keyRanges(resolveNames(part.names, record.namedPorts, this.ref.verdict === "deny"));
    if (ranges.length === 0) return undefined;
    const text = ranges.join(",");
    let instance = part.instances.get(text);
    if (instance === undefined) part.instances.set(text, instance = this.#instance(ranges));
    return instance;
  }

  #part(peers: RulePart["peers"], names: readonly PortName[], instances: [string, Instance][]): RulePart {
    return { owner: this, peers, entries: [], names, instances: new Map(instances) };
  }

  #instance(ranges: Uint32Array): Instance {
    const { index, policy } = this.ref;
    return makeInstance({ index, policy, weight: this.bound.rule, content: this.bound.content }, ranges);
  }
}
