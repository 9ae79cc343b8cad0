/**
 * The way in: the cipher Worker receives batches into regions of the arena, opens in place what it has a key for, and leaves a
 * receipt for each datagram; the main Worker takes batch after batch, and gives each back when it takes the next.
 *
 * Receipts stand in the descriptor, never among the packet's octets: what a stranger sends cannot be taken for one. A receipt is
 * 0 (not tried: the octets are what came), a key's id (opened with that key) or its negative (does not open with that key). After
 * either of the last two the octets are no longer what came, so nobody may try again, whatever key they would have wanted.
 */
import { readU32LE } from "../bytes/integers.ts";
import type { PacketCipher, ReceivedRun, Underlay } from "../ports.ts";
import { findIndex } from "./index_cache.ts";
import type { KeyCopies } from "./key_table.ts";
import {
  AT_BATCHES,
  BATCH_RUN_WORDS,
  BATCH_RUNS,
  BATCH_WORDS,
  IS_ARMED,
  IS_STALLED,
  MAX_BATCH_RUNS,
  MAX_RECEIPTS,
  type PairMemory,
  RECEIPTS,
  RECEIVE_BATCHES,
  RECEIVED,
  RETURNED,
} from "./memory.ts";
import type { PairDoors } from "./send_ring.ts";

// of a transport message (WireGuard paper §5.4.6)
const MESSAGE_TRANSPORT = 4;
const RECEIVER_AT = 4;
const COUNTER_AT = 8;
const SEALED_AT = 16;
const MIN_BYTES = 32;

/** Not tried. */
export const NOT_TRIED = 0;

function descriptorOf(number: number): number {
  return AT_BATCHES + (number & (RECEIVE_BATCHES - 1)) * BATCH_WORDS;
}

/** Where a batch is received into: the sockets, with a region of its own. */
export type BatchDoor = Pick<Underlay, "receive" | "received">;

/** The cipher Worker's end. */
export class ReceiveFill {
  readonly #memory: PairMemory;
  readonly #arena: Uint8Array;
  readonly #keys: KeyCopies;
  readonly #cipher: PacketCipher;
  readonly #batches: readonly BatchDoor[];
  readonly #tell: () => void;
  #number = 0;

  /**
   * @param batches RECEIVE_BATCHES, of MAX_BATCH_RUNS runs at most
   * @param tell    tells the main Worker that there is a batch
   */
  constructor(
    memory: PairMemory,
    arena: Uint8Array,
    keys: KeyCopies,
    cipher: PacketCipher,
    batches: readonly BatchDoor[],
    tell: () => void,
  ) {
    if (batches.length !== RECEIVE_BATCHES || batches.some(({ received }) => received.length > MAX_BATCH_RUNS)) {
      throw new RangeError(`Cannot receive: ${RECEIVE_BATCHES} batches of up to ${MAX_BATCH_RUNS} runs are expected`);
    }
    this.#memory = memory;
    this.#arena = arena;
    this.#keys = keys;
    this.#cipher = cipher;
    this.#batches = batches;
    this.#tell = tell;
  }

  /** There is a batch to receive into. */
  get hasRoom(): boolean {
    return ((this.#number - Atomics.load(this.#memory.words, RETURNED)) | 0) < RECEIVE_BATCHES;
  }

  /** Receives, opens and hands over a batch. False when nothing waits, or there is no room. */
  step(): boolean {
    if (!this.hasRoom) return false;
    const batch = this.#batches[this.#number & (RECEIVE_BATCHES - 1)]!;
    const count = batch.receive();
    if (count <= 0) return false;
    const { words } = this.#memory;
    const at = descriptorOf(this.#number);
    words[at] = count;
    for (let i = 0; i < count; i++) this.#take(batch.received[i]!, at + BATCH_RUNS + i * BATCH_RUN_WORDS);
    this.#number = (this.#number + 1) | 0;
    Atomics.store(words, RECEIVED, this.#number);
    if (Atomics.exchange(words, IS_ARMED, 0) === 1) this.#tell();
    return true;
  }

  #take(run: ReceivedRun, record: number): void {
    const { words } = this.#memory;
    words[record] = run.at;
    words[record + 1] = run.end;
    words[record + 2] = run.segmentBytes;
    words[record + 3] = run.fromAt;
    words[record + 4] = run.ecn;
    words[record + 5] = run.isTruncated ? 1 : 0;
    const isWhole = !run.isTruncated && run.segmentBytes > 0;
    for (let i = 0, at = run.at; i < MAX_RECEIPTS && at < run.end; i++, at += run.segmentBytes) {
      words[record + RECEIPTS + i] = isWhole ? this.#open(at, Math.min(at + run.segmentBytes, run.end)) : NOT_TRIED;
      if (!isWhole) return;
    }
  }

  /** @returns the datagram's receipt */
  #open(at: number, end: number): number {
    const arena = this.#arena;
    if (end - at < MIN_BYTES || readU32LE(arena, at) !== MESSAGE_TRANSPORT) return NOT_TRIED;
    const id = findIndex(this.#memory, readU32LE(arena, at + RECEIVER_AT));
    if (id === 0) return NOT_TRIED;
    const key = this.#keys.find(id);
    if (key === undefined) return NOT_TRIED;
    return this.#cipher.open(key, at + COUNTER_AT, at + SEALED_AT, end) ? id : -id;
  }
}

/** The main Worker's end. */
export class ReceiveTake {
  readonly received: readonly ReceivedRun[];
  readonly #memory: PairMemory;
  readonly #doors: PairDoors;
  /** number of the next batch */
  #number = 0;
  #isHeld = false;
  #count = 0;
  /** descriptor of the batch held */
  #at = AT_BATCHES;
  /** run in which the last receipt was found: datagrams are asked for in order */
  #last = 0;

  /** @param slots most runs of a batch */
  constructor(memory: PairMemory, slots: number, doors: PairDoors) {
    this.#memory = memory;
    this.#doors = doors;
    Atomics.store(memory.words, IS_ARMED, 1); // nobody asks before there is a first one
    this.received = Array.from(
      { length: slots },
      () => ({ at: 0, end: 0, segmentBytes: 0, fromAt: 0, ecn: 0, isTruncated: false }),
    );
  }

  /** As `Underlay.receive`: the batch before goes back. */
  receive(): number {
    const { words } = this.#memory;
    if (this.#isHeld) this.#giveBack();
    if (Atomics.load(words, RECEIVED) === this.#number) {
      this.#doors.clearReady();
      Atomics.store(words, IS_ARMED, 1);
      if (Atomics.load(words, RECEIVED) === this.#number) return 0;
      this.#doors.setReady(); // they came in between, untold: there may be more than the one that is taken now
    }
    this.#isHeld = true;
    this.#at = descriptorOf(this.#number);
    this.#count = Math.min(words[this.#at]!, this.received.length);
    this.#last = 0;
    for (let i = 0; i < this.#count; i++) this.#read(this.received[i]!, this.#at + BATCH_RUNS + i * BATCH_RUN_WORDS);
    return this.#count;
  }

  #read(run: ReceivedRun, record: number): void {
    const { words } = this.#memory;
    run.at = words[record]!;
    run.end = words[record + 1]!;
    run.segmentBytes = words[record + 2]!;
    run.fromAt = words[record + 3]!;
    run.ecn = words[record + 4]!;
    run.isTruncated = words[record + 5] === 1;
  }

  #giveBack(): void {
    const { words } = this.#memory;
    this.#isHeld = false;
    this.#count = 0;
    this.#number = (this.#number + 1) | 0;
    Atomics.store(words, RETURNED, this.#number);
    if (Atomics.load(words, IS_STALLED) === 1) this.#doors.wake();
  }

  /** The receipt of the datagram that begins at `at`; NOT_TRIED for what is not in the batch held. */
  receiptAt(at: number): number {
    for (let tried = 0; tried < this.#count; tried++) {
      const run = this.received[this.#last]!;
      if (at >= run.at && at < run.end) {
        const i = (at - run.at) / run.segmentBytes;
        const record = this.#at + BATCH_RUNS + this.#last * BATCH_RUN_WORDS;
        return i < MAX_RECEIPTS && Number.isInteger(i) ? this.#memory.words[record + RECEIPTS + i]! : NOT_TRIED;
      }
      this.#last = this.#last + 1 === this.#count ? 0 : this.#last + 1;
    }
    return NOT_TRIED;
  }
}
