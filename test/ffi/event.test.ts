import { describe, expect, it } from "vitest";
import { EventFd } from "../../ffi/event.ts";
import { READY_UNDERLAY, Waiter, Waker } from "../../ffi/poll.ts";
import { noFfi, runtimeName } from "./harness.ts";

describe.skipIf(noFfi)(`EventFd on ${runtimeName}${noFfi}`, () => {
  it("is readable from when somebody raises it until it is cleared, however often", () => {
    const event = new EventFd();
    const waiter = new Waiter({ underlayFds: [event.fd] });
    event.clear(); // of no effect, and it does not wait
    expect(waiter.wait(0)).toBe(0);
    for (const raise of [() => event.set(), () => new Waker(event.fd).wake()]) {
      raise();
      raise();
      expect(waiter.wait(0)).toBe(READY_UNDERLAY);
      expect(waiter.wait(0)).toBe(READY_UNDERLAY);
      event.clear();
      expect(waiter.wait(0)).toBe(0);
    }
    waiter.close();
    event.close();
  });
});
