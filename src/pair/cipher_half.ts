/**
 * The cipher Worker's half of a pair: seals and sends what the main Worker has prepared, receives and opens what comes. It knows
 * no peer and no session, and decides nothing (`memory.ts` draws the two).
 *
 * It does no waiting of its own: `step` until it says that there is nothing to do, then `mayRest`, then sleep.
 */
import type { Ciphers, Underlay } from "../ports.ts";
import { KeyCopies } from "./key_table.ts";
import {
  ASLEEP,
  AT_ERRNOS,
  ENDED,
  ERRNOS,
  IS_STALLED,
  MAX_SEGMENTS,
  OFFLOAD_CHANGES,
  type PairMemory,
  type PairRoom,
  RUNNING,
  SEND_ERRORS,
  STATE,
  SWITCH_BITS,
  SWITCHED,
  SWITCHES,
  WAKE_FD,
  WANTS_END,
} from "./memory.ts";
import { type BatchDoor, ReceiveFill } from "./receive_ring.ts";
import { SendDrain } from "./send_ring.ts";
import { unpackSwitches } from "./switches.ts";

export interface CipherHalfOptions {
  readonly memory: PairMemory;
  readonly arena: Uint8Array;
  readonly room: PairRoom;
  readonly ciphers: Ciphers;
  /** the sockets, for sending */
  readonly underlay: Underlay;
  /** the sockets, for receiving: one for each batch */
  readonly batches: readonly BatchDoor[];
  /** tells the main Worker that a batch is there */
  readonly tell: () => void;
  /** offloads went on or off; called before the main Worker can see that they did */
  readonly onOffloadChange: () => void;
  /** what it is woken through */
  readonly wakeFd: number;
}

export class CipherHalf {
  readonly keys: KeyCopies;
  readonly #memory: PairMemory;
  readonly #underlay: Underlay;
  readonly #sends: SendDrain;
  readonly #receives: ReceiveFill;
  readonly #onOffloadChange: () => void;
  #errors = 0;
  #changes: number;

  constructor(options: CipherHalfOptions) {
    const { memory, arena, room, ciphers, underlay } = options;
    this.#memory = memory;
    this.#underlay = underlay;
    this.#onOffloadChange = options.onOffloadChange;
    this.keys = new KeyCopies(memory, ciphers);
    const cipher = ciphers.packetCipher(arena);
    this.#sends = new SendDrain(memory, arena, room, this.keys, cipher, underlay);
    this.#receives = new ReceiveFill(memory, arena, this.keys, cipher, options.batches, options.tell);
    this.#changes = underlay.offloadChanges;
    Atomics.store(memory.words, MAX_SEGMENTS, underlay.maxSegments);
    Atomics.store(memory.words, WAKE_FD, options.wakeFd);
    Atomics.store(memory.words, STATE, RUNNING);
    Atomics.notify(memory.words, STATE);
  }

  /** The main Worker wants it to end. */
  get wantsEnd(): boolean {
    return Atomics.load(this.#memory.words, WANTS_END) === 1;
  }

  /** There is a batch to receive into: the sockets are worth watching. */
  get hasRoom(): boolean {
    return this.#receives.hasRoom;
  }

  /** One part out and one batch in. False when there was nothing to do. @throws Error as `SendDrain.step` */
  step(): boolean {
    if (this.keys.isStale) this.keys.sweep();
    this.#switchOffload();
    const hasSent = this.#sends.step();
    if (hasSent) this.#noteTroubles();
    return this.#receives.step() || hasSent;
  }

  /**
   * Says that it is going to sleep, until an event or, if it watches the sockets, a packet.
   * @param isWatching false: only a batch that is given back lets it receive again
   * @returns false when there is something to do after all; `wokeUp` must be called either way
   */
  mayRest(isWatching: boolean): boolean {
    const { words } = this.#memory;
    Atomics.store(words, IS_STALLED, isWatching ? 0 : 1);
    Atomics.store(words, ASLEEP, 1);
    return !(this.#sends.hasPart || this.wantsEnd || this.keys.isStale ||
      Atomics.load(words, SWITCHES) !== Atomics.load(words, SWITCHED) ||
      !isWatching && this.hasRoom);
  }

  wokeUp(): void {
    Atomics.store(this.#memory.words, ASLEEP, 0);
    Atomics.store(this.#memory.words, IS_STALLED, 0);
  }

  /** Its keys go, and whoever waits for it hears that it is over. */
  end(): void {
    this.keys.wipe();
    Atomics.store(this.#memory.words, STATE, ENDED);
    Atomics.notify(this.#memory.words, STATE);
    Atomics.notify(this.#memory.words, SWITCHED);
  }

  #switchOffload(): void {
    const { words } = this.#memory;
    const wanted = Atomics.load(words, SWITCHES);
    if (wanted === Atomics.load(words, SWITCHED)) return;
    this.#underlay.switchOffload(unpackSwitches(Atomics.load(words, SWITCH_BITS)));
    this.#noteOffload();
    Atomics.store(words, SWITCHED, wanted);
    Atomics.notify(words, SWITCHED);
  }

  /** What sending has brought to light. */
  #noteTroubles(): void {
    if (this.#underlay.offloadChanges !== this.#changes) this.#noteOffload();
    if (this.#underlay.sendErrorCount === this.#errors) return;
    this.#errors = this.#underlay.sendErrorCount;
    const { words } = this.#memory;
    for (const [errno, count] of this.#underlay.sendErrors) {
      Atomics.store(words, AT_ERRNOS + Math.min(errno, ERRNOS - 1), count);
    }
    Atomics.store(words, SEND_ERRORS, this.#errors);
  }

  #noteOffload(): void {
    const { words } = this.#memory;
    this.#changes = this.#underlay.offloadChanges;
    this.#onOffloadChange();
    Atomics.store(words, MAX_SEGMENTS, this.#underlay.maxSegments);
    Atomics.store(words, OFFLOAD_CHANGES, this.#changes);
  }
}
