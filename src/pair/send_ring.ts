/**
 * The way out: the main Worker writes plaintext into a send part of the arena and notes what is to be sealed and where the runs
 * go; the cipher Worker seals and sends, part after part, each in the order in which it was noted.
 *
 * Jobs and runs of a part stand in its descriptor (`memory.ts`). A run without jobs is of complete octets: handshakes.
 */
import { copyUnderlayAddr, forgetOwnAddress, hasOwnAddress, UNDERLAY_ADDR_BYTES } from "../ip/underlay_addr.ts";
import type { PacketCipher, Underlay } from "../ports.ts";
import type { KeyCopies } from "./key_table.ts";
import {
  AT_SEND,
  DONE,
  ENDED,
  JOB_COUNT,
  JOB_WORDS,
  JOBS,
  MAX_JOBS,
  MAX_RUNS,
  OUTCOME_FORGOT_OWN,
  OUTCOME_TOO_BIG,
  OUTCOMES,
  type PairMemory,
  type PairRoom,
  RUN_COUNT,
  RUN_WORDS,
  RUNS,
  SEND_PARTS,
  SEND_WORDS,
  SENT,
  STATE,
} from "./memory.ts";

const HIGH = 4294967296;
/** So many parts under way are enough to do for a while. */
const BEHIND_PARTS = 2;
/** Destinations that were too big, until somebody asks. */
const TOO_BIG_KEPT = 16;
/** The cipher Worker is given up when it finishes no part for so many pauses: five seconds. */
export const PAUSE_MS = 100;
const MAX_PAUSES = 50;

/** Octets of the arena for copies of destinations. */
export function pairAddressBytes(): number {
  return SEND_PARTS * MAX_RUNS * UNDERLAY_ADDR_BYTES;
}

/** How the main Worker reaches the other one. */
export interface PairDoors {
  /** Wakes the cipher Worker from its sleep. */
  wake(): void;
  /** Waits until a word of the shared memory has another value than this, PAUSE_MS at most. False: it still has it. */
  pause(word: number, value: number): boolean;
  /** The event that tells of batches is over: the next one is told again. */
  clearReady(): void;
  /** Raises that event from this side. */
  setReady(): void;
}

function descriptorOf(number: number): number {
  return AT_SEND + (number & (SEND_PARTS - 1)) * SEND_WORDS;
}

function addressOf(room: PairRoom, number: number, run: number): number {
  return room.addressesAt + ((number & (SEND_PARTS - 1)) * MAX_RUNS + run) * UNDERLAY_ADDR_BYTES;
}

/** The main Worker's end. */
export class SendRing {
  readonly #memory: PairMemory;
  readonly #arena: Uint8Array;
  readonly #room: PairRoom;
  readonly #doors: PairDoors;
  /** number of the part that is being filled; all before it were published */
  #number = 0;
  #at = AT_SEND;
  #jobs = 0;
  #runs = 0;
  /** number of the first part whose outcomes were not looked at */
  #looked = 0;
  readonly #tooBig = new Int32Array(TOO_BIG_KEPT);
  #tooBigCount = 0;

  constructor(memory: PairMemory, arena: Uint8Array, room: PairRoom, doors: PairDoors) {
    this.#memory = memory;
    this.#arena = arena;
    this.#room = room;
    this.#doors = doors;
  }

  /** Number of the part being filled: `finish` waits for it. */
  get number(): number {
    return this.#number;
  }

  /**
   * Whether a message at `to` is the other Worker's to seal: it is in the room of that, there is place for one more, and the other
   * one is not behind. Sealing and sending are more work than all the rest: who would only wait for it seals meanwhile.
   */
  takes(to: number): boolean {
    return to >= this.#room.sendAt && to < this.#room.sendEnd && this.#jobs < MAX_JOBS &&
      ((this.#number - Atomics.load(this.#memory.words, DONE)) | 0) < BEHIND_PARTS;
  }

  /** Notes that `[at, end)`, in a send part, is to be sealed in place. */
  noteJob(keyId: number, counter: number, at: number, end: number): void {
    const { words } = this.#memory;
    // what stood there was never queued, or its place would not be free
    while (this.#jobs > 0 && words[this.#at + JOBS + (this.#jobs - 1) * JOB_WORDS + 3]! >= at) this.#jobs--;
    const job = this.#at + JOBS + this.#jobs++ * JOB_WORDS;
    words[job] = keyId;
    words[job + 1] = counter;
    words[job + 2] = counter / HIGH;
    words[job + 3] = at;
    words[job + 4] = end;
  }

  /** Notes a run. The address is copied: its record may change before the run is sent. */
  noteRun(at: number, end: number, segmentBytes: number, toAt: number, trafficClass: number): void {
    if (this.#runs === MAX_RUNS) {
      this.publish();
      this.drain();
    }
    const { words } = this.#memory;
    const run = this.#at + RUNS + this.#runs * RUN_WORDS;
    copyUnderlayAddr(this.#arena, toAt, this.#arena, addressOf(this.#room, this.#number, this.#runs));
    this.#runs++;
    words[run] = at;
    words[run + 1] = end;
    words[run + 2] = segmentBytes;
    words[run + 3] = toAt;
    words[run + 4] = trafficClass;
    words[run + 5] = 0;
  }

  /**
   * Hands the part over, if there is something in it, and waits until there is another one to fill.
   * @throws Error when the cipher Worker has ended, or does not get on
   */
  publish(): void {
    if (this.#runs === 0) {
      this.#jobs = 0; // what was never queued never leaves
      return;
    }
    const { words } = this.#memory;
    words[this.#at + JOB_COUNT] = this.#jobs;
    words[this.#at + RUN_COUNT] = this.#runs;
    words[this.#at + OUTCOMES] = 0;
    this.#number = (this.#number + 1) | 0;
    Atomics.store(words, SENT, this.#number);
    this.#doors.wake();
    this.#at = descriptorOf(this.#number);
    this.#jobs = 0;
    this.#runs = 0;
    this.#waitFor((this.#number - SEND_PARTS + 1) | 0);
    this.#lookAtOutcomes();
  }

  /** Waits until everything published is sent. @throws Error as `publish` */
  drain(): void {
    this.#waitFor(this.#number);
    this.#lookAtOutcomes();
  }

  /**
   * A key goes: what is noted with it in the part being filled is sealed here and now, what is published is waited for.
   * @param last number of the part that it was last used in
   * @param seal seals `[at, end)` in place
   */
  finish(keyId: number, last: number, seal: (counter: number, at: number, end: number) => void): void {
    if (last !== this.#number) return this.#waitFor((last + 1) | 0);
    const { words } = this.#memory;
    for (let i = 0; i < this.#jobs; i++) {
      const job = this.#at + JOBS + i * JOB_WORDS;
      if (words[job] !== keyId) continue;
      words[job] = 0;
      seal((words[job + 1]! >>> 0) + words[job + 2]! * HIGH, words[job + 3]!, words[job + 4]!);
    }
    this.#waitFor(this.#number);
  }

  /** Address record of a destination to which a datagram was too big, or -1; each is given once. */
  takeTooBig(): number {
    this.#lookAtOutcomes();
    return this.#tooBigCount === 0 ? -1 : this.#tooBig[--this.#tooBigCount]!;
  }

  /** Waits until all parts before `number` are done. */
  #waitFor(number: number): void {
    const { words } = this.#memory;
    let pauses = 0;
    for (;;) {
      const done = Atomics.load(words, DONE);
      if (((done - number) | 0) >= 0) return;
      if (Atomics.load(words, STATE) === ENDED) throw new Error("The datapath's cipher Worker has ended");
      if (this.#doors.pause(DONE, done)) pauses = 0;
      else if (++pauses === MAX_PAUSES) throw new Error("The datapath's cipher Worker does not get on");
    }
  }

  #lookAtOutcomes(): void {
    const { words } = this.#memory;
    const done = Atomics.load(words, DONE);
    for (; this.#looked !== done; this.#looked = (this.#looked + 1) | 0) {
      const at = descriptorOf(this.#looked);
      if (words[at + OUTCOMES] === 0) continue;
      for (let i = 0; i < words[at + RUN_COUNT]!; i++) this.#lookAt(at + RUNS + i * RUN_WORDS, i);
    }
  }

  #lookAt(run: number, i: number): void {
    const outcome = this.#memory.words[run + 5]!;
    const toAt = this.#memory.words[run + 3]!;
    if ((outcome & OUTCOME_TOO_BIG) !== 0 && this.#tooBigCount < TOO_BIG_KEPT) this.#tooBig[this.#tooBigCount++] = toAt;
    // the record may be of another address by now: then the next datagram finds out again
    if ((outcome & OUTCOME_FORGOT_OWN) === 0) return;
    const copyAt = addressOf(this.#room, this.#looked, i);
    for (let k = 0; k < UNDERLAY_ADDR_BYTES; k++) {
      if (k < 32 && this.#arena[copyAt + k] !== this.#arena[toAt + k]) return;
    }
    forgetOwnAddress(this.#arena, toAt);
  }
}

/** The cipher Worker's end. */
export class SendDrain {
  readonly #memory: PairMemory;
  readonly #arena: Uint8Array;
  readonly #room: PairRoom;
  readonly #keys: KeyCopies;
  readonly #cipher: PacketCipher;
  readonly #underlay: Underlay;
  #number = 0;

  constructor(
    memory: PairMemory,
    arena: Uint8Array,
    room: PairRoom,
    keys: KeyCopies,
    cipher: PacketCipher,
    underlay: Underlay,
  ) {
    this.#memory = memory;
    this.#arena = arena;
    this.#room = room;
    this.#keys = keys;
    this.#cipher = cipher;
    this.#underlay = underlay;
  }

  get hasPart(): boolean {
    return Atomics.load(this.#memory.words, SENT) !== this.#number;
  }

  /**
   * Seals and sends one part. False when none waits.
   * @throws Error when a key is missing: nothing may leave that is not sealed
   */
  step(): boolean {
    if (!this.hasPart) return false;
    const { words } = this.#memory;
    const at = descriptorOf(this.#number);
    const jobs = words[at + JOB_COUNT]!;
    for (let i = 0; i < jobs; i++) this.#seal(at + JOBS + i * JOB_WORDS);
    const runs = words[at + RUN_COUNT]!;
    for (let i = 0; i < runs; i++) this.#queue(at + RUNS + i * RUN_WORDS, i);
    this.#underlay.flush();
    this.#noteOutcomes(at, runs);
    this.#number = (this.#number + 1) | 0;
    Atomics.store(words, DONE, this.#number);
    Atomics.notify(words, DONE);
    return true;
  }

  #seal(job: number): void {
    const { words } = this.#memory;
    const id = words[job]!;
    if (id === 0) return; // sealed by the main Worker
    const key = this.#keys.find(id);
    if (key === undefined) throw new Error("Cannot seal a message: its key is gone");
    const at = words[job + 3]!;
    this.#cipher.seal(key, (words[job + 1]! >>> 0) + words[job + 2]! * HIGH, at, words[job + 4]!, at);
  }

  #queue(run: number, i: number): void {
    const { words } = this.#memory;
    const toAt = addressOf(this.#room, this.#number, i);
    // noted before it is tried: what is gone of it afterwards was of no use
    if (hasOwnAddress(this.#arena, toAt)) words[run + 5] = OUTCOME_FORGOT_OWN;
    this.#underlay.queue(words[run]!, words[run + 1]!, words[run + 2]!, toAt, words[run + 4]!);
  }

  #noteOutcomes(at: number, runs: number): void {
    const { words } = this.#memory;
    let outcomes = 0;
    for (let i = 0; i < runs; i++) {
      const run = at + RUNS + i * RUN_WORDS;
      if (words[run + 5] === 0) continue;
      if (hasOwnAddress(this.#arena, addressOf(this.#room, this.#number, i))) words[run + 5] = 0;
      else outcomes++;
    }
    for (let toAt = this.#underlay.takeTooBig(); toAt >= 0; toAt = this.#underlay.takeTooBig()) {
      const i = (toAt - addressOf(this.#room, this.#number, 0)) / UNDERLAY_ADDR_BYTES;
      if (!(i >= 0 && i < runs)) continue;
      const run = at + RUNS + i * RUN_WORDS + 5;
      words[run] = words[run]! | OUTCOME_TOO_BIG;
      outcomes++;
    }
    words[at + OUTCOMES] = outcomes;
  }
}
