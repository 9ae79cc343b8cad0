/**
 * An eventfd of our own: one thread signals, another polls the descriptor among others and clears it when it has seen to it.
 * `Waiter` (`poll.ts`) has one inside for its wake-ups; this one says what kind of work there is.
 */
import { EFD_CLOEXEC, EFD_NONBLOCK } from "./constants.ts";
import { describeErrno, FfiError } from "./errno.ts";
import { type Libc, libc } from "./libc.ts";
import { allocate, type Memory } from "./memory.ts";

/** Made by one thread of the process, which closes it. @see eventfd(2) */
export class EventFd {
  /** for `Waiter`, and for `new Waker(fd)` in the thread that signals */
  readonly fd: number;
  readonly #c: Libc;
  readonly #counter: Memory;

  /** @throws FfiError EDGE_POLL when the system gives none */
  constructor() {
    this.#c = libc();
    this.fd = this.#c.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (this.fd < 0) throw new FfiError("EDGE_POLL", `Cannot make an eventfd: ${describeErrno(this.fd)}`, this.fd);
    this.#counter = allocate(8);
  }

  /** Makes it readable, from the thread that it belongs to. */
  set(): void {
    this.#counter.words[0] = 1;
    this.#counter.words[1] = 0;
    this.#c.write(this.fd, this.#counter.address, 8);
  }

  /** Makes it unreadable until it is signalled again. */
  clear(): void {
    this.#c.read(this.fd, this.#counter.address, 8); // EAGAIN: it was clear
  }

  close(): void {
    this.#c.close(this.fd);
  }
}
