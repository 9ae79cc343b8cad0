/** What a process tells the kernel about itself. */
import { PR_GET_DUMPABLE, PR_SET_DUMPABLE } from "./constants.ts";
import { describeErrno, FfiError } from "./errno.ts";
import { libc } from "./libc.ts";

/**
 * Keeps keys out of core dumps, and other processes of the same user out of our memory (ptrace, /proc/self/mem).
 * A debugger cannot attach afterwards, and files of /proc/self belong to root.
 * @throws FfiError EDGE_PROCESS
 * @see PR_SET_DUMPABLE(2const)
 */
export function disableDump(): void {
  const result = libc().prctl(PR_SET_DUMPABLE, 0);
  if (result < 0) throw new FfiError("EDGE_PROCESS", `Cannot switch core dumps off: ${describeErrno(result)}`, result);
}

/** Whether core dumps and attaching are possible. */
export function isDumpable(): boolean {
  return libc().prctl(PR_GET_DUMPABLE, 0) !== 0;
}
