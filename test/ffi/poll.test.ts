import { readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { makeBootClock } from "../../ffi/clock.ts";
import { EFD_NONBLOCK } from "../../ffi/constants.ts";
import { EBADF } from "../../ffi/errno.ts";
import { libc } from "../../ffi/libc.ts";
import { allocate } from "../../ffi/memory.ts";
import { READY_EXTRA, READY_TUN, READY_UNDERLAY, READY_WAKE, Waiter, Waker } from "../../ffi/poll.ts";
import { noFfi, runtimeName } from "./harness.ts";

describe.skipIf(noFfi)(`Waiter on ${runtimeName}${noFfi}`, () => {
  /** eventfds stand in for devices: readable after a write */
  function makeReadable(fd: number): void {
    const one = allocate(8);
    one.words[0] = 1;
    libc().write(fd, one.address, 8);
  }

  it("tells which of its descriptors are ready, and nothing when none is", () => {
    const c = libc();
    const [tun, v4, v6] = [c.eventfd(0, EFD_NONBLOCK), c.eventfd(0, EFD_NONBLOCK), c.eventfd(0, EFD_NONBLOCK)];
    const waiter = new Waiter({ tunFd: tun!, underlayFds: [v4!, v6!] });
    expect(waiter.wait(0)).toBe(0);
    makeReadable(v6!);
    expect(waiter.wait(0)).toBe(READY_UNDERLAY);
    expect(waiter.wait(-1)).toBe(READY_UNDERLAY);
    makeReadable(tun!);
    new Waker(waiter.wakeFd).wake();
    expect(waiter.wait(0)).toBe(READY_TUN | READY_UNDERLAY | READY_WAKE);
    expect(waiter.wait(0)).toBe(READY_TUN | READY_UNDERLAY);
    waiter.close();
    for (const fd of [tun!, v4!, v6!]) c.close(fd);
  });

  it("watches more descriptors when told to, and others in their place", () => {
    const c = libc();
    const [v4, first, second] = [c.eventfd(0, EFD_NONBLOCK), c.eventfd(0, EFD_NONBLOCK), c.eventfd(0, EFD_NONBLOCK)];
    const waiter = new Waiter({ underlayFds: [v4!] });
    makeReadable(first!);
    expect(waiter.wait(0)).toBe(0);
    waiter.watch([first!]);
    expect(waiter.wait(0)).toBe(READY_EXTRA);
    makeReadable(v4!);
    expect(waiter.wait(0)).toBe(READY_EXTRA | READY_UNDERLAY);
    waiter.watch([second!]);
    expect(waiter.wait(0)).toBe(READY_UNDERLAY);
    waiter.watch([]);
    makeReadable(second!);
    expect(waiter.wait(0)).toBe(READY_UNDERLAY);
    expect(() => waiter.watch([1, 2, 3])).toThrow(RangeError);
    waiter.close();
    for (const fd of [v4!, first!, second!]) c.close(fd);
  });

  it("takes many wake-ups for one, and a closed descriptor for ready", () => {
    const c = libc();
    const fd = c.eventfd(0, EFD_NONBLOCK);
    const waiter = new Waiter({ underlayFds: [fd] });
    const waker = new Waker(waiter.wakeFd);
    for (let i = 0; i < 1000; i++) waker.wake();
    expect(waiter.wait(-1)).toBe(READY_WAKE);
    expect(waiter.wait(0)).toBe(0);
    c.close(fd);
    expect(waiter.wait(0)).toBe(READY_UNDERLAY); // POLLNVAL; the read that follows gives -EBADF
    expect(c.read(fd, allocate(8).address, 8)).toBe(-EBADF);
    waiter.close();
  });

  it("a wake from another thread ends a wait without end", async () => {
    const waiter = new Waiter({ underlayFds: [] });
    const poll = new URL("../../ffi/poll.ts", import.meta.url).href;
    const text = `import { workerData } from "node:worker_threads";
      const { Waker } = await import(workerData.poll);
      new Waker(workerData.fd).wake();`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(text)}`), {
      workerData: { poll, fd: waiter.wakeFd },
    });
    // the worker may need this thread to start, so the wait must let it run: look, then let the event loop turn
    let ready = 0;
    const failed = new Promise<never>((_, reject) => worker.once("error", reject));
    const looked = (async () => {
      while ((ready = waiter.wait(1)) === 0) await new Promise((resolve) => setImmediate(resolve));
    })();
    await Promise.race([looked, failed]);
    expect(ready).toBe(READY_WAKE);
    await worker.terminate();
    waiter.close();
  });

  it("the boot clock runs with /proc/uptime and never goes back", () => {
    const nowMs = makeBootClock();
    const first = nowMs();
    let last = first;
    for (let i = 0; i < 1000; i++) {
      const now = nowMs();
      expect(now).toBeGreaterThanOrEqual(last);
      last = now;
    }
    const uptimeMs = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 1000;
    expect(Math.abs(uptimeMs - first)).toBeLessThan(60_000);
  });
});
