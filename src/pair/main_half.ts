/**
 * The main Worker's half of a pair: ciphers and an underlay that hand the work over (`memory.ts` draws the two). Behind the doors
 * of `src/ports.ts`, so that neither tunnel nor datapath knows how many Workers there are.
 *
 * What the other Worker cannot or need not do is done here, with the same ciphers and sockets: the first message of a session
 * (`receive_ring.ts`), probes of a path, whatever the tables have no room for.
 */
import { readU32LE } from "../bytes/integers.ts";
import type {
  AeadName,
  Ciphers,
  OffloadSwitches,
  PacketCipher,
  ReceivedRun,
  TransportKey,
  Underlay,
} from "../ports.ts";
import { putIndex, removeIndex } from "./index_cache.ts";
import { KeyTable } from "./key_table.ts";
import {
  ASLEEP,
  AT_ERRNOS,
  ENDED,
  ERRNOS,
  MAX_SEGMENTS,
  OFFLOAD_CHANGES,
  type PairMemory,
  type PairRoom,
  SEND_ERRORS,
  STARTING,
  STATE,
  SWITCH_BITS,
  SWITCHED,
  SWITCHES,
  WANTS_END,
} from "./memory.ts";
import { NOT_TRIED, ReceiveTake } from "./receive_ring.ts";
import { type PairDoors, SendRing } from "./send_ring.ts";
import { packSwitches } from "./switches.ts";

/** Pauses that the cipher Worker gets to end, or to switch offloads. */
const END_PAUSES = 4;
const SWITCH_PAUSES = 50;
const SEALED_AT = 16;
/** a message's receiver index stands before its counter */
const INDEX_BEFORE_COUNTER = 4;

/** What both halves of the main Worker's side share. */
export class MainHalf {
  readonly memory: PairMemory;
  readonly room: PairRoom;
  readonly doors: PairDoors;
  readonly keys: KeyTable;
  readonly sends: SendRing;
  readonly receives: ReceiveTake;
  readonly arena: Uint8Array;
  /** set with the first packet cipher: it seals what a key's wipe finds */
  cipher: PacketCipher | undefined = undefined;

  /** @param slots most runs of a receive batch */
  constructor(memory: PairMemory, arena: Uint8Array, room: PairRoom, slots: number, doors: PairDoors) {
    this.memory = memory;
    this.arena = arena;
    this.room = room;
    const wake = () => {
      if (Atomics.load(memory.words, ASLEEP) === 1 && Atomics.exchange(memory.words, ASLEEP, 0) === 1) doors.wake();
    };
    this.doors = { wake, pause: doors.pause, clearReady: doors.clearReady, setReady: doors.setReady };
    this.keys = new KeyTable(memory);
    this.sends = new SendRing(memory, arena, room, this.doors);
    this.receives = new ReceiveTake(memory, slots, this.doors);
  }
}

/** A key that both Workers can use. */
export class PairKey implements TransportKey {
  readonly aead: AeadName;
  readonly tagBytes: number;
  /** what this Worker uses */
  readonly own: TransportKey;
  /** in the key table; 0: the other Worker does not have it */
  id: number;
  /** part in which it was last used for sealing */
  lastPart = 0;
  hasJobs = false;
  /** the index under which the other Worker finds it */
  index = 0;
  hasIndex = false;
  readonly #half: MainHalf;

  constructor(half: MainHalf, own: TransportKey, octets: Uint8Array) {
    this.#half = half;
    this.own = own;
    this.aead = own.aead;
    this.tagBytes = own.tagBytes;
    this.id = half.keys.put(octets, own.aead);
  }

  /** @throws Error when messages sealed with it cannot be finished, as the other Worker has ended */
  wipe(): void {
    const { sends, keys, memory, cipher, doors } = this.#half;
    const id = this.id;
    this.id = 0;
    try {
      if (id !== 0 && this.hasJobs) {
        sends.finish(id, this.lastPart, (counter, at, end) => cipher!.seal(this.own, counter, at, end, at));
      }
    } finally {
      if (this.hasIndex) removeIndex(memory, this.index, id);
      if (id !== 0) keys.wipe(id);
      this.own.wipe();
      doors.wake(); // so that the copy does not outlive it
    }
  }
}

class PairPacketCipher implements PacketCipher {
  readonly #half: MainHalf;
  readonly #own: PacketCipher;

  constructor(half: MainHalf, own: PacketCipher) {
    this.#half = half;
    this.#own = own;
  }

  seal(key: TransportKey, counter: number, at: number, end: number, to: number): void {
    const pairKey = key as PairKey;
    const { sends, arena } = this.#half;
    if (pairKey.id === 0 || !sends.takes(to)) return this.#own.seal(pairKey.own, counter, at, end, to);
    if (to !== at) arena.copyWithin(to, at, end);
    sends.noteJob(pairKey.id, counter, to, to + (end - at));
    pairKey.lastPart = sends.number;
    pairKey.hasJobs = true;
  }

  open(key: TransportKey, counterAt: number, at: number, end: number): boolean {
    const pairKey = key as PairKey;
    const { receives, memory, arena } = this.#half;
    const receipt = receives.receiptAt(at - SEALED_AT);
    if (receipt !== NOT_TRIED) return receipt === pairKey.id; // opened with this very key, else spoilt
    if (!this.#own.open(pairKey.own, counterAt, at, end)) return false;
    if (pairKey.id === 0) return true;
    if (pairKey.hasIndex) removeIndex(memory, pairKey.index, pairKey.id);
    pairKey.index = readU32LE(arena, counterAt - INDEX_BEFORE_COUNTER);
    pairKey.hasIndex = true;
    putIndex(memory, pairKey.index, pairKey.id);
    return true;
  }
}

/** Ciphers whose transport keys the other Worker has too; everything else is `own`'s. */
export class PairCiphers implements Ciphers {
  readonly aeads: readonly AeadName[];
  readonly #half: MainHalf;
  readonly #own: Ciphers;

  constructor(half: MainHalf, own: Ciphers) {
    this.#half = half;
    this.#own = own;
    this.aeads = own.aeads;
  }

  dh(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
    return this.#own.dh(secretKey, publicKey);
  }

  publicKeyOf(secretKey: Uint8Array): Uint8Array {
    return this.#own.publicKeyOf(secretKey);
  }

  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    return this.#own.seal(key, nonce, plaintext, associated);
  }

  open(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    return this.#own.open(key, nonce, sealed, associated);
  }

  sealX(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    return this.#own.sealX(key, nonce, plaintext, associated);
  }

  openX(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    return this.#own.openX(key, nonce, sealed, associated);
  }

  sign(secretKey: Uint8Array, message: Uint8Array): Uint8Array {
    return this.#own.sign(secretKey, message);
  }

  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    return this.#own.verify(publicKey, message, signature);
  }

  makeTransportKey(key: Uint8Array, aead: AeadName = "chacha20poly1305"): TransportKey {
    return new PairKey(this.#half, this.#own.makeTransportKey(key, aead), key);
  }

  /** @param arena the pair's */
  packetCipher(arena: Uint8Array): PacketCipher {
    const own = this.#own.packetCipher(arena);
    this.#half.cipher = own;
    return new PairPacketCipher(this.#half, own);
  }

  wipe(bytes: Uint8Array): void {
    this.#own.wipe(bytes);
  }
}

/** The underlay of the main Worker: the sockets are open here too, but the other Worker reads and writes them. */
export class PairUnderlay implements Underlay {
  readonly port: number;
  readonly received: readonly ReceivedRun[];
  readonly #half: MainHalf;
  readonly #own: Underlay;
  readonly #mostSegments: number;

  /** @param own the same sockets: for what is sent while the other Worker rests, and to close them */
  constructor(half: MainHalf, own: Underlay) {
    this.#half = half;
    this.#own = own;
    this.port = own.port;
    this.received = half.receives.received;
    this.#mostSegments = own.maxSegments;
  }

  get hasSegmentation(): boolean {
    return this.maxSegments > 1;
  }

  get maxSegments(): number {
    const segments = Atomics.load(this.#half.memory.words, MAX_SEGMENTS);
    return segments === 0 ? this.#mostSegments : segments; // 0: it has not started
  }

  receive(): number {
    return this.#half.receives.receive();
  }

  queue(at: number, end: number, segmentBytes: number, toAt: number, trafficClass: number): void {
    this.#half.sends.noteRun(at, end, segmentBytes, toAt, trafficClass);
  }

  /** Behind everything that was queued before, as the other Worker would send it. */
  sendWhole(at: number, end: number, toAt: number): number {
    this.#half.sends.drain();
    return this.#own.sendWhole(at, end, toAt);
  }

  takeTooBig(): number {
    return this.#half.sends.takeTooBig();
  }

  flush(): void {
    this.#half.sends.publish();
  }

  /** A picture, made when asked for. */
  get sendErrors(): ReadonlyMap<number, number> {
    const { words } = this.#half.memory;
    const errors = new Map<number, number>();
    for (let errno = 0; errno < ERRNOS; errno++) {
      const count = Atomics.load(words, AT_ERRNOS + errno);
      if (count > 0) errors.set(errno, count);
    }
    return errors;
  }

  get sendErrorCount(): number {
    return Atomics.load(this.#half.memory.words, SEND_ERRORS);
  }

  switchOffload(switches: OffloadSwitches): void {
    const { sends, memory: { words }, doors } = this.#half;
    sends.drain();
    this.#own.switchOffload(switches);
    Atomics.store(words, SWITCH_BITS, packSwitches(switches));
    const wanted = (Atomics.load(words, SWITCHES) + 1) | 0;
    Atomics.store(words, SWITCHES, wanted);
    doors.wake();
    for (let i = 0; i < SWITCH_PAUSES; i++) {
      const switched = Atomics.load(words, SWITCHED);
      if (switched === wanted || Atomics.load(words, STATE) !== STARTING && hasEnded(words)) return;
      doors.pause(SWITCHED, switched);
    }
  }

  get offloadChanges(): number {
    return Atomics.load(this.#half.memory.words, OFFLOAD_CHANGES);
  }

  /** Ends the other Worker, then closes the sockets. */
  close(): void {
    const { memory: { words }, doors } = this.#half;
    Atomics.store(words, WANTS_END, 1);
    doors.wake();
    for (let i = 0; i < END_PAUSES && !hasEnded(words); i++) doors.pause(STATE, Atomics.load(words, STATE));
    this.#own.close();
  }
}

function hasEnded(words: Int32Array): boolean {
  return Atomics.load(words, STATE) === ENDED;
}
