/**
 * The datapath's own policy table: what may pass between this endpoint and an identity, in both directions.
 *
 * All precedence (tiers, deny before allow, default deny) was resolved when the control side compiled the classes, so a look-up is a
 * hash and a binary search. `PolicyEngine` makes the updates; one update is one consistent revision, applied between packets.
 *
 * Hot file (bench: `scripts/bench/policy.ts`): `lookup` does not allocate.
 */
import { DROP_NOT_READY, type Verdict } from "../verdict.ts";
import { KIND_BITS, KIND_MASK, KIND_NO_RULE, VERDICT_OF_KIND } from "./decision.ts";
import { DirectionTable, type DirectionUpdate, type TableSizes } from "./direction_table.ts";

export type { DirectionUpdate, TableSizes } from "./direction_table.ts";

/** A change from one revision to the next, or the whole table. */
export interface PolicyUpdate {
  /** counts up from 1 */
  readonly revision: number;
  /** what was there before is dropped; else the update follows the previous revision */
  readonly isFull: boolean;
  /** one past the highest rule index in use */
  readonly ruleCount: number;
  /** rule indices that mean another rule than before: their hits start at 0 */
  readonly freshRules: Int32Array;
  readonly ingress: DirectionUpdate;
  readonly egress: DirectionUpdate;
}

const VERDICTS = Int32Array.from(VERDICT_OF_KIND);

export class PolicyTable {
  /** 0 before the first update. */
  revision = 0;
  /** Rule index of the last look-up; -1 when no rule decided. */
  decidedBy = -1;
  /** KIND_... of the last look-up (decision.ts): tells what audit mode let through. */
  kind = KIND_NO_RULE;
  #ingress = new DirectionTable();
  #egress = new DirectionTable();
  /** look-ups that rule `i` decided, at `i + 1`; at 0 those that none did */
  #hits = new Float64Array(64);

  /**
   * The verdict for a packet that starts a flow, or for a flow that is judged again.
   *
   * @param direction 0 ingress, 1 egress, seen from this endpoint
   * @param identity  the other side's; any number, unknown ones get what everybody gets
   * @param protocol  IP protocol, 0 to 255
   * @param port      destination port; for ICMP and ICMPv6 the type; 0 for protocols without ports
   * @returns FORWARD, DROP_POLICY_DENIED, DROP_POLICY_DENY, or DROP_NOT_READY before the first update
   */
  lookup(direction: 0 | 1, identity: number, protocol: number, port: number): Verdict {
    if (this.revision === 0) {
      this.decidedBy = -1;
      this.kind = KIND_NO_RULE;
      return DROP_NOT_READY;
    }
    const table = direction === 0 ? this.#ingress : this.#egress;
    const decision = table.find(identity | 0, (protocol << 16) | port);
    const hit = decision >>> KIND_BITS;
    this.decidedBy = hit - 1;
    this.#hits[hit]!++;
    const kind = decision & KIND_MASK;
    this.kind = kind;
    return VERDICTS[kind]!;
  }

  /** Whether what no rule allows is dropped in a direction. True before the first update. */
  isEnforced(direction: 0 | 1): boolean {
    return this.revision === 0 || (direction === 0 ? this.#ingress : this.#egress).isEnforced;
  }

  /**
   * Applies an update. A full one may come at any time; another must follow the revision before it.
   * @throws RangeError when a revision is missing: the table would no longer be the one that the engine knows
   */
  apply(update: PolicyUpdate): void {
    if (!update.isFull && update.revision !== this.revision + 1) {
      throw new RangeError(`Policy update ${update.revision} does not follow revision ${this.revision}`);
    }
    if (update.isFull) {
      this.#ingress = new DirectionTable();
      this.#egress = new DirectionTable();
      this.#hits = new Float64Array(update.ruleCount + 1);
    } else if (this.#hits.length <= update.ruleCount) {
      const hits = new Float64Array(Math.max(update.ruleCount + 1, 2 * this.#hits.length));
      hits.set(this.#hits);
      this.#hits = hits;
    }
    for (let i = 0; i < update.freshRules.length; i++) this.#hits[update.freshRules[i]! + 1] = 0;
    this.#ingress.apply(update.ingress);
    this.#egress.apply(update.egress);
    this.revision = update.revision;
  }

  /** Look-ups that a rule decided since it came; -1 for those that no rule did. */
  hitsOf(rule: number): number {
    return this.#hits[rule + 1] ?? 0;
  }

  /** A copy of all hits: rule `i` at `i + 1`, none at 0. */
  copyHits(): Float64Array {
    return this.#hits.slice();
  }

  sizes(): { readonly ingress: TableSizes; readonly egress: TableSizes; readonly bytes: number } {
    const ingress = this.#ingress.sizes;
    const egress = this.#egress.sizes;
    return { ingress, egress, bytes: ingress.bytes + egress.bytes + this.#hits.byteLength };
  }
}
