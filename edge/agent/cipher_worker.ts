/**
 * The cipher Worker: with `--datapath-workers 2` it owns the reading and writing of the UDP sockets, and seals and opens what goes
 * through them (`src/pair/memory.ts`). Started by `link.ts`; everything it needs comes in `workerData`.
 */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { withTransportAead } from "../../ffi/aead.ts";
import { loadLibcrypto } from "../../ffi/libcrypto.ts";
import { Waiter, Waker } from "../../ffi/poll.ts";
import { loadSodium } from "../../ffi/sodium.ts";
import { shareUnderlay } from "../../ffi/udp_shared.ts";
import type { DatapathEvent } from "../../src/datapath/control.ts";
import { CipherHalf } from "../../src/pair/cipher_half.ts";
import { ENDED, pairMemory, STATE } from "../../src/pair/memory.ts";
import type { CipherStart } from "./pair.ts";

/** What `link.ts` gives. */
export interface CipherInit {
  readonly start: CipherStart;
  /** to the datapath's Worker: facts of the sockets, whenever they change */
  readonly offloads: MessagePort;
}

/** It looks for wiped keys at least this often. */
const MAX_WAIT_MS = 1000;

function main({ start, offloads }: CipherInit): void {
  const memory = pairMemory(start.memory);
  const arena = new Uint8Array(start.arena, 0, start.arenaBytes);
  const ciphers = start.usesLibcrypto ? withTransportAead(loadSodium(), loadLibcrypto()) : loadSodium();
  const { underlay, batches } = shareUnderlay(start.sockets, arena, start.receiveAts, start.slots);
  const waiter = new Waiter({ underlayFds: [] });
  const batchReady = new Waker(start.batchFd);
  const half = new CipherHalf({
    memory,
    arena,
    room: start.room,
    ciphers,
    underlay,
    batches,
    tell: () => batchReady.wake(),
    onOffloadChange: () => offloads.postMessage(underlay.facts),
    wakeFd: waiter.wakeFd,
  });
  try {
    run(half, waiter, underlay.fds);
  } finally {
    half.end();
  }
}

/** Until the datapath's Worker wants it to end. */
function run(half: CipherHalf, waiter: Waiter, fds: readonly number[]): void {
  let isWatching = false;
  while (!half.wantsEnd) {
    if (half.step()) continue;
    if (half.hasRoom !== isWatching) {
      isWatching = !isWatching;
      waiter.watch(isWatching ? fds : []); // what cannot be received must not keep it awake
    }
    waiter.wait(half.mayRest(isWatching) ? MAX_WAIT_MS : 0);
    half.wokeUp();
  }
}

try {
  main(workerData as CipherInit);
} catch (error) {
  const words = pairMemory((workerData as CipherInit).start.memory).words;
  Atomics.store(words, STATE, ENDED);
  Atomics.notify(words, STATE);
  const message = error instanceof Error ? error.message : String(error);
  const event: DatapathEvent = {
    op: "fatal",
    code: "EDGE_DATAPATH_CRASHED",
    message: `The datapath's cipher Worker: ${message}`,
  };
  parentPort!.postMessage(event);
}
