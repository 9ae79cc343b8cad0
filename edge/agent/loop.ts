/**
 * The datapath's loop: wait, move batches, run timers. It holds no logic of its own; every step is a call into `src/datapath/`.
 * Runs in the Worker, never returns to an event loop while it runs.
 */
import type { Waiter } from "../../ffi/poll.ts";
import { READY_EXTRA, READY_TUN, READY_UNDERLAY, READY_WAKE } from "../../ffi/poll.ts";
import type { DatapathCounters } from "../../src/datapath/counters.ts";
import type { Datapath } from "../../src/datapath/datapath.ts";

/** Longest wait: the heartbeat that the watchdog reads is never older than this and one batch. */
const MAX_WAIT_MS = 1000;
/** The TUN was deleted, or its file descriptor is no longer one (facts: reads and writes then answer EBADFD). */
const EBADFD = 77;
const EBADF = 9;

export interface LoopParts {
  readonly datapath: Datapath;
  readonly waiter: Waiter;
  readonly counters: DatapathCounters;
  /** monotonic milliseconds, counting suspend */
  readonly nowMs: () => number;
  readonly unixMs: () => number;
  /** applies what the control thread sent; false ends the loop */
  readonly drainCommands: (nowMs: number) => boolean;
  /** an offload went on or off */
  readonly onOffloadChange: () => void;
}

/**
 * Runs until the control thread says stop.
 * @returns undefined, or why it cannot go on
 */
export function runLoop(parts: LoopParts): string | undefined {
  const { datapath, waiter, counters } = parts;
  let deadlineMs = 0;
  let hasMore = false;
  let offloadChanges = datapath.offloadChanges;
  for (;;) {
    const beforeMs = parts.nowMs();
    const waitMs = hasMore ? 0 : Math.min(MAX_WAIT_MS, Math.max(0, Math.ceil(deadlineMs - beforeMs)));
    const ready = waiter.wait(waitMs);
    const nowMs = parts.nowMs();
    const unixMs = parts.unixMs();
    counters.heartbeatMs = nowMs;
    if ((ready & READY_WAKE) !== 0 && !parts.drainCommands(nowMs)) return undefined;
    hasMore = false;
    if ((ready & READY_UNDERLAY) !== 0) hasMore = datapath.receive(nowMs, unixMs);
    if ((ready & READY_EXTRA) !== 0 && datapath.receivePlain(nowMs, unixMs)) hasMore = true;
    if ((ready & READY_TUN) !== 0) {
      const status = datapath.readTun(nowMs, unixMs);
      if (status === -EBADFD || status === -EBADF) return "the TUN device was deleted";
      hasMore ||= status > 0;
    }
    if (datapath.node.tunError === EBADFD) return "the TUN device was deleted";
    if (datapath.offloadChanges !== offloadChanges) {
      offloadChanges = datapath.offloadChanges;
      parts.onOffloadChange();
    }
    deadlineMs = datapath.tick(nowMs, unixMs);
  }
}
