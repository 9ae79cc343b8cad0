/**
 * The second Worker of a datapath as the first one sees it (`src/pair/` says what the two do). The control thread starts it with
 * what is made here, and hears when it ends; the two Workers themselves meet in shared memory only.
 */
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import { EventFd } from "../../ffi/event.ts";
import { Waker } from "../../ffi/poll.ts";
import { receiveBytes, type UdpUnderlay, type UnderlayFacts } from "../../ffi/udp.ts";
import type { UdpSockets } from "../../ffi/udp_socket.ts";
import { type ArenaLayout, layoutArena, SEALED_SUPERPACKET_BYTES } from "../../src/datapath/arena.ts";
import { MainHalf, PairCiphers, PairUnderlay } from "../../src/pair/main_half.ts";
import {
  PAIR_BYTES,
  pairMemory,
  type PairRoom,
  RECEIVE_BATCHES,
  RUNNING,
  SEND_PARTS,
  STARTING,
  STATE,
  WAKE_FD,
} from "../../src/pair/memory.ts";
import { pairAddressBytes, type PairDoors, PAUSE_MS } from "../../src/pair/send_ring.ts";
import type { Ciphers } from "../../src/ports.ts";

/** What the cipher Worker is started with; `cipher_worker.ts` reads it. */
export interface CipherStart {
  readonly arena: ArrayBufferLike;
  readonly arenaBytes: number;
  readonly memory: SharedArrayBuffer;
  readonly room: PairRoom;
  readonly sockets: UdpSockets;
  readonly receiveAts: readonly number[];
  readonly slots: number;
  /** the eventfd that says that a batch is there */
  readonly batchFd: number;
  /** ChaCha20-Poly1305 is libcrypto's here, not libsodium's */
  readonly usesLibcrypto: boolean;
}

/** To the control thread: start the cipher Worker. */
export interface StartCipher {
  readonly op: "startCipher";
  readonly start: CipherStart;
}

/** Waits for the cipher Worker to run, at most so many pauses. */
const START_PAUSES = 100;

/** For each part of the send region: a superpacket or two, so that the other Worker has early what to do. */
const PART_BYTES = SEALED_SUPERPACKET_BYTES + 64 * 1024;

/** The arena of two Workers: receive batches, and behind them (`batchesBytes`) the slots of the first one alone. */
export function layoutPair(maxPeers: number, slots: number): ArenaLayout {
  const received = batchesBytes(slots) + receiveBytes(slots);
  return layoutArena(maxPeers, received, PART_BYTES, SEND_PARTS, pairAddressBytes());
}

/** Octets of all receive batches. */
export function batchesBytes(slots: number): number {
  return RECEIVE_BATCHES * receiveBytes(slots);
}

export class Pair {
  readonly half: MainHalf;
  readonly underlay: PairUnderlay;
  /** what the datapath's thread polls in place of the sockets */
  readonly batches = new EventFd();
  readonly start: CipherStart;
  readonly #own: UdpUnderlay;
  readonly #offloads: MessagePort;
  #facts: UnderlayFacts | undefined;

  /**
   * @param own      the open sockets, which stay this thread's to close
   * @param offloads where the cipher Worker says what it found out about them
   */
  constructor(
    arena: Uint8Array,
    layout: ArenaLayout,
    slots: number,
    own: UdpUnderlay,
    usesLibcrypto: boolean,
    offloads: MessagePort,
  ) {
    const buffer = new SharedArrayBuffer(PAIR_BYTES);
    const memory = pairMemory(buffer);
    const room = { sendAt: layout.toUnderlayAt, sendEnd: layout.toUnderlayEnd, addressesAt: layout.sendAddressesAt };
    let waker: Waker | undefined;
    const doors: PairDoors = {
      wake: () => (waker ??= new Waker(memory.words[WAKE_FD]!)).wake(), // it sleeps: so it has written its descriptor
      pause: (word, value) => Atomics.wait(memory.words, word, value, PAUSE_MS) !== "timed-out",
      clearReady: () => this.batches.clear(),
      setReady: () => this.batches.set(),
    };
    this.#own = own;
    this.#offloads = offloads;
    this.half = new MainHalf(memory, arena, room, slots, doors);
    this.underlay = new PairUnderlay(this.half, own);
    this.start = {
      arena: arena.buffer,
      arenaBytes: arena.length,
      memory: buffer,
      room,
      sockets: own.sockets,
      receiveAts: Array.from({ length: RECEIVE_BATCHES }, (_, i) => layout.receivedAt + i * receiveBytes(slots)),
      slots,
      batchFd: this.batches.fd,
      usesLibcrypto,
    };
  }

  /** Ciphers whose transport keys both Workers have. */
  share(own: Ciphers): Ciphers {
    return new PairCiphers(this.half, own);
  }

  /** Waits until the cipher Worker runs. @throws Error when it does not */
  awaitStart(): void {
    const { memory: { words }, doors } = this.half;
    for (let i = 0; i < START_PAUSES && Atomics.load(words, STATE) === STARTING; i++) doors.pause(STATE, STARTING);
    if (Atomics.load(words, STATE) !== RUNNING) throw new Error("Cannot start the datapath's cipher Worker");
  }

  /** What the sockets can do, as the Worker that uses them has found out. */
  get facts(): UnderlayFacts {
    for (;;) {
      const received = receiveMessageOnPort(this.#offloads) as { message: UnderlayFacts } | undefined;
      if (received === undefined) return this.#facts ?? this.#own.facts;
      this.#facts = received.message;
    }
  }

  /** Ends the cipher Worker and closes the sockets. */
  close(): void {
    this.underlay.close();
    this.batches.close();
  }
}
