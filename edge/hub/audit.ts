/**
 * Who tried to join, and what administrators did: a ring of records in the store. Each record is written in the transaction of
 * what it tells about, so there is no act without its record.
 */
import { AUDIT_PREFIX, objectOf, writeRow } from "../../src/hub/records.ts";
import { isCount } from "../../src/hub/json.ts";
import type { AuditRecord } from "./state_types.ts";
import type { Store, StoreOp } from "./store.ts";

/** Records that are kept. */
const AUDIT_SLOTS = 4096;

/** An act, before it has its number. */
export type AuditFacts = Omit<AuditRecord, "sequence">;

const NOBODY = { tokenId: "", member: "", device: "", from: "", repeated: 0 };

/** Facts with the empty ones filled in. */
export function auditFacts(facts: Partial<AuditFacts> & Pick<AuditFacts, "at" | "event" | "result">): AuditFacts {
  return { ...NOBODY, ...facts };
}

export class AuditTrail {
  readonly #store: Store;
  #next: number;

  private constructor(store: Store, next: number) {
    this.#store = store;
    this.#next = next;
  }

  static async open(store: Store): Promise<AuditTrail> {
    const { entries } = await store.list(AUDIT_PREFIX);
    const last = Math.max(-1, ...entries.map(({ value }) => readAudit(value)?.sequence ?? -1));
    return new AuditTrail(store, last + 1);
  }

  /** The operation that writes a record; takes the place of the oldest one when the ring is full. */
  record(facts: AuditFacts): StoreOp {
    const sequence = this.#next++;
    const slot = String(sequence % AUDIT_SLOTS).padStart(5, "0");
    return { op: "put", key: AUDIT_PREFIX + slot, value: writeRow({ sequence, ...facts }) };
  }

  /** Newest first. */
  async newest(limit: number): Promise<AuditRecord[]> {
    const { entries } = await this.#store.list(AUDIT_PREFIX);
    const records = entries.map(({ value }) => readAudit(value)).filter((record) => record !== undefined);
    return records.sort((a, b) => b.sequence - a.sequence).slice(0, Math.max(0, limit));
  }
}

function readAudit(value: Uint8Array): AuditRecord | undefined {
  const row = objectOf(value);
  return row !== undefined && isCount(row["sequence"]) && isCount(row["at"])
    ? row as unknown as AuditRecord
    : undefined;
}
