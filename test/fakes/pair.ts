/**
 * Both halves of a pair of Workers on one thread: the test says when the cipher Worker gets on. Waiting for it lets it take a step,
 * as if it had run meanwhile.
 */
import { copyUnderlayAddr, UNDERLAY_ADDR_BYTES } from "../../src/ip/underlay_addr.ts";
import { CipherHalf } from "../../src/pair/cipher_half.ts";
import { MainHalf, PairCiphers, PairUnderlay } from "../../src/pair/main_half.ts";
import { PAIR_BYTES, pairMemory, type PairRoom, RECEIVE_BATCHES } from "../../src/pair/memory.ts";
import type { BatchDoor } from "../../src/pair/receive_ring.ts";
import type { Ciphers, Underlay } from "../../src/ports.ts";

export interface FakePairOptions {
  readonly arena: Uint8Array;
  readonly room: PairRoom;
  readonly ciphers: Ciphers;
  /** the sockets, both for sending and for receiving */
  readonly socket: Underlay;
  /** `RECEIVE_BATCHES * batchBytes` octets of the arena */
  readonly batchesAt: number;
  readonly batchBytes: number;
}

/** Receives through a socket into a region of its own. */
class BatchRegion implements BatchDoor {
  readonly received: BatchDoor["received"];
  readonly #options: FakePairOptions;
  readonly #at: number;

  constructor(options: FakePairOptions, at: number) {
    this.#options = options;
    this.#at = at;
    this.received = options.socket.received.map((run) => ({ ...run }));
  }

  receive(): number {
    const { arena, socket, batchBytes } = this.#options;
    const count = socket.receive();
    let at = this.#at;
    for (let i = 0; i < count; i++) {
      const run = socket.received[i]!;
      const end = at + run.end - run.at;
      if (end + UNDERLAY_ADDR_BYTES > this.#at + batchBytes) throw new Error("the test's batches are too small");
      arena.copyWithin(at, run.at, run.end);
      copyUnderlayAddr(arena, run.fromAt, arena, end);
      Object.assign(this.received[i]!, run, { at, end, fromAt: end });
      at = end + UNDERLAY_ADDR_BYTES;
    }
    return count;
  }
}

export class FakePair {
  readonly main: MainHalf;
  readonly cipher: CipherHalf;
  readonly ciphers: PairCiphers;
  readonly underlay: PairUnderlay;
  /** the cipher Worker does nothing, whatever waits for it */
  isStuck = false;
  /** batches that the main Worker was told of */
  told = 0;
  /** the event that the main Worker polls */
  isReady = false;
  /** the main Worker has just cleared it */
  onClear: () => void = () => {};
  wakes = 0;
  pauses = 0;

  constructor(options: FakePairOptions) {
    const { arena, room, ciphers, socket, batchesAt, batchBytes } = options;
    const memory = pairMemory(new SharedArrayBuffer(PAIR_BYTES));
    this.main = new MainHalf(memory, arena, room, socket.received.length, {
      wake: () => this.wakes++,
      pause: () => {
        this.pauses++;
        return this.step();
      },
      clearReady: () => {
        this.isReady = false;
        this.onClear();
      },
      setReady: () => this.isReady = true,
    });
    this.cipher = new CipherHalf({
      memory,
      arena,
      room,
      ciphers,
      underlay: socket,
      batches: Array.from({ length: RECEIVE_BATCHES }, (_, i) => new BatchRegion(options, batchesAt + i * batchBytes)),
      tell: () => {
        this.isReady = true;
        this.told++;
      },
      onOffloadChange: () => {},
      wakeFd: 1,
    });
    this.ciphers = new PairCiphers(this.main, ciphers);
    this.underlay = new PairUnderlay(this.main, socket);
  }

  /** The cipher Worker takes one step. */
  step(): boolean {
    return !this.isStuck && this.cipher.step();
  }

  /** The cipher Worker works until there is nothing to do. */
  run(): void {
    while (this.step());
  }
}
