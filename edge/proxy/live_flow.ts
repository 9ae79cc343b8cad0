/** A flow that a proxy's connection stands for, as the datapath knows it now: who is at its other side may change while it lives. */
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import type { ProxyDoors } from "./doors.ts";

/** The flow with the identity of now; as it was known where the datapath has none any more, whose packets go nowhere then. */
export function liveFlow(doors: Pick<ProxyDoors, "flowOf">, handle: number, known: RedirectedFlow): RedirectedFlow {
  const now = doors.flowOf(handle);
  return now !== undefined && isSameFlow(now, known) ? now : known;
}

/** Whether a handle still stands for the same ends, whoever they are. */
export function isSameFlow(a: RedirectedFlow | undefined, b: RedirectedFlow): boolean {
  return a !== undefined && a.protocol === b.protocol && a.direction === b.direction &&
    a.from.port === b.from.port && a.to.port === b.to.port &&
    a.from.address === b.from.address && a.to.address === b.to.address;
}
