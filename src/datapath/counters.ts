/**
 * The datapath's counters, in memory that both threads see: the Worker adds, the control thread reads at any moment.
 *
 * Numbers are doubles (exact below 2^53), one writer each; a reader may be one batch behind, never torn (8-octet aligned).
 */
import { REASONS, type Verdict } from "../verdict.ts";

export const INGRESS = 0;
export const EGRESS = 1;
export type Direction = typeof INGRESS | typeof EGRESS;

/** Counters other than drops, in the order in which they stand. */
export const COUNTER_NAMES = [
  "fromTunPackets",
  "fromTunBytes",
  "fromTunReads",
  "toTunPackets",
  "toTunBytes",
  "toTunWrites",
  "fromUnderlayDatagrams",
  "fromUnderlayBytes",
  "fromUnderlayRuns",
  "toUnderlayDatagrams",
  "toUnderlayBytes",
  "toUnderlayRuns",
  "handshakesSent",
  "handshakesReceived",
  "flowsCreated",
  "stagedPackets",
  "fillerDatagrams",
  "probeAnswerPieces",
] as const;
export type CounterName = (typeof COUNTER_NAMES)[number];

/** Slot 0 is the heartbeat; then the named counters; then a drop counter per direction and reason, the last for unlisted ones. */
const AT_COUNTERS = 1;
const AT_DROPS = AT_COUNTERS + COUNTER_NAMES.length;
const REASON_LIST = [...REASONS.keys()];
const REASON_SLOTS = REASON_LIST.length + 1;
const REASON_LIMIT = 512;

export class DatapathCounters {
  static readonly bytes = (AT_DROPS + 2 * REASON_SLOTS) * 8;

  readonly #slots: Float64Array;
  readonly #slotOfReason = new Uint16Array(REASON_LIMIT).fill(REASON_LIST.length);

  /** @param buffer `DatapathCounters.bytes` octets, shared between the threads */
  constructor(buffer: SharedArrayBuffer | ArrayBuffer) {
    this.#slots = new Float64Array(buffer);
    REASON_LIST.forEach((reason, slot) => this.#slotOfReason[reason] = slot);
  }

  /** @param counter position in COUNTER_NAMES (`counterOf`) */
  add(counter: number, amount: number): void {
    this.#slots[AT_COUNTERS + counter] = this.#slots[AT_COUNTERS + counter]! + amount;
  }

  addDrop(direction: Direction, reason: Verdict): void {
    const slot = AT_DROPS + direction * REASON_SLOTS +
      (reason < REASON_LIMIT ? this.#slotOfReason[reason]! : REASON_LIST.length);
    this.#slots[slot] = this.#slots[slot]! + 1;
  }

  /** Monotonic milliseconds at which the Worker last went round its loop. */
  get heartbeatMs(): number {
    return this.#slots[0]!;
  }

  set heartbeatMs(nowMs: number) {
    this.#slots[0] = nowMs;
  }

  read(name: CounterName): number {
    return this.#slots[AT_COUNTERS + COUNTER_NAMES.indexOf(name)]!;
  }

  drops(direction: Direction, reason: Verdict): number {
    const index = REASON_LIST.indexOf(reason);
    return this.#slots[AT_DROPS + direction * REASON_SLOTS + (index < 0 ? REASON_LIST.length : index)]!;
  }

  /** Every reason that was counted at least once. Allocates: for the control thread. */
  dropsByReason(direction: Direction): Map<Verdict, number> {
    const found = new Map<Verdict, number>();
    for (const reason of REASON_LIST) {
      const count = this.drops(direction, reason);
      if (count > 0) found.set(reason, count);
    }
    return found;
  }

  /** Drops of a direction, all reasons together, unlisted ones included. */
  totalDrops(direction: Direction): number {
    let total = 0;
    for (let i = 0; i < REASON_SLOTS; i++) total += this.#slots[AT_DROPS + direction * REASON_SLOTS + i]!;
    return total;
  }
}

/** The position of a counter for `add`: looked up once, at start. */
export function counterOf(name: CounterName): number {
  return COUNTER_NAMES.indexOf(name);
}
