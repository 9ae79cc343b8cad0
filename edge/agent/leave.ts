/** Leaving a mesh: the hub is told when it can be reached, and the membership is forgotten in any case. */
import { messageOf } from "../errors.ts";
import { TrustedClock } from "../sync/clock.ts";
import { leaveHub } from "../sync/leave_client.ts";
import type { MemberStore } from "./store.ts";

const LEAVE_TIMEOUT_MS = 5000;

/**
 * Leaves.
 * @returns why the hub could not be told; undefined: it was. Its operator may then remove the member there.
 * @throws EdgeError EDGE_STATE_UNWRITABLE when the membership cannot be removed from the disk
 */
export async function leaveMesh(store: MemberStore, clock = new TrustedClock()): Promise<string | undefined> {
  const identity = store.loadIdentity();
  let untold: string | undefined;
  if (identity?.membership !== undefined) {
    const { hubEndpoints, caPem } = identity.membership;
    try {
      await leaveHub({
        endpoints: hubEndpoints,
        caPem,
        deviceSecretKey: identity.deviceSeed,
        timeoutMs: LEAVE_TIMEOUT_MS,
        clock,
      });
    } catch (error) {
      untold = messageOf(error);
    }
  }
  store.leave();
  return untold;
}
