/** The clock of the packet path: monotonic, and counting while the machine is suspended. */
import { CLOCK_BOOTTIME } from "./constants.ts";
import { FfiError } from "./errno.ts";
import { TIMESPEC } from "./layout.ts";
import { libc } from "./libc.ts";
import { allocate } from "./memory.ts";

/**
 * Makes a function that gives milliseconds since boot (CLOCK_BOOTTIME), with fractions; it allocates nothing per call.
 * Boot time counts suspend: after a night asleep every session is past its limits, as WireGuard's timers want it.
 */
export function makeBootClock(): () => number {
  const c = libc();
  const time = allocate(TIMESPEC.size);
  const words = time.words;
  return () => {
    const result = c.clockGettime(CLOCK_BOOTTIME, time.address);
    if (result < 0) throw new FfiError("EDGE_CLOCK", "Cannot read CLOCK_BOOTTIME", result);
    return words[TIMESPEC.seconds / 4]! * 1000 + words[TIMESPEC.nanoseconds / 4]! / 1e6;
  };
}
