/**
 * Where the datapath thread sleeps: poll(2) over the TUN, the UDP sockets and an eventfd, through which any other thread wakes
 * it. Nothing else may block that thread.
 */
import { EFD_CLOEXEC, EFD_NONBLOCK, POLLIN } from "./constants.ts";
import { describeErrno, EAGAIN, EINTR, FfiError } from "./errno.ts";
import { POLLFD } from "./layout.ts";
import { type Libc, libc } from "./libc.ts";
import { allocate, type Memory } from "./memory.ts";

/** Bits of what `Waiter.wait` answers. */
export const READY_TUN = 1;
export const READY_UNDERLAY = 2;
export const READY_WAKE = 4;
/** a descriptor that was given to `watch` */
export const READY_EXTRA = 8;

/** Descriptors that `watch` takes at a time. */
const MAX_EXTRA = 2;

/** What a `Waiter` watches. The descriptors stay the caller's. */
export interface WaiterOptions {
  /** absent: none */
  readonly tunFd?: number;
  readonly underlayFds: readonly number[];
}

/** Waits for packets or for a wake-up. Belongs to one thread; the descriptor `wakeFd` may be handed to others. */
export class Waiter {
  /** the eventfd, for `new Waker(fd)` in another thread of this process */
  readonly wakeFd: number;
  readonly #c: Libc;
  readonly #fds: Memory;
  readonly #bits: readonly number[];
  #count: number;
  readonly #counter: Memory;

  /** @throws FfiError EDGE_POLL when the system gives no eventfd */
  constructor(options: WaiterOptions) {
    this.#c = libc();
    this.wakeFd = this.#c.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (this.wakeFd < 0) {
      throw new FfiError("EDGE_POLL", `Cannot make an eventfd: ${describeErrno(this.wakeFd)}`, this.wakeFd);
    }
    const watched: [fd: number, bit: number][] = options.underlayFds.map((fd) => [fd, READY_UNDERLAY]);
    if (options.tunFd !== undefined) watched.unshift([options.tunFd, READY_TUN]);
    watched.push([this.wakeFd, READY_WAKE]);
    this.#count = watched.length;
    this.#bits = [...watched.map(([, bit]) => bit), ...new Array<number>(MAX_EXTRA).fill(READY_EXTRA)];
    this.#fds = allocate((watched.length + MAX_EXTRA) * POLLFD.size);
    // two words an entry: the descriptor; events in the low half, revents in the high one
    watched.forEach(([fd], i) => {
      this.#fds.words[2 * i] = fd;
      this.#fds.words[2 * i + 1] = POLLIN;
    });
    this.#counter = allocate(8);
  }

  /** Watches these too, in place of those of the last call. @throws RangeError for more than two */
  watch(fds: readonly number[]): void {
    if (fds.length > MAX_EXTRA) throw new RangeError(`Cannot watch ${fds.length} more descriptors`);
    const first = this.#bits.length - MAX_EXTRA;
    fds.forEach((fd, i) => {
      this.#fds.words[2 * (first + i)] = fd;
      this.#fds.words[2 * (first + i) + 1] = POLLIN;
    });
    this.#count = first + fds.length;
  }

  /**
   * Waits until something is ready or `timeoutMs` have passed; -1 waits for ever, 0 only looks. A signal counts as time-out.
   * An error or hang-up of a descriptor counts as ready: the read that follows tells which.
   * @returns READY_ bits, 0 on time-out, or a negative errno
   */
  wait(timeoutMs: number): number {
    const bits = this.#bits;
    const words = this.#fds.words;
    const watched = this.#count;
    const count = this.#c.poll(this.#fds.address, watched, Math.ceil(timeoutMs));
    if (count <= 0) return count === -EINTR || count === -EAGAIN ? 0 : count;
    let ready = 0;
    for (let i = 0; i < watched; i++) if (words[2 * i + 1]! >>> 16 !== 0) ready |= bits[i]!;
    if ((ready & READY_WAKE) !== 0) this.#c.read(this.wakeFd, this.#counter.address, 8); // back to 0
    return ready;
  }

  /** Closes the eventfd. Wakers must not be used afterwards. */
  close(): void {
    this.#c.close(this.wakeFd);
  }
}

/** Wakes a `Waiter` from any thread of the process. */
export class Waker {
  readonly #c: Libc;
  readonly #fd: number;
  readonly #one: Memory;

  /** @param fd a living waiter's `wakeFd` */
  constructor(fd: number) {
    this.#c = libc();
    this.#fd = fd;
    this.#one = allocate(8);
    this.#one.words[0] = 1;
  }

  /** Makes the waiter's present or next `wait` return READY_WAKE. Many calls before that count as one. */
  wake(): void {
    this.#c.write(this.#fd, this.#one.address, 8); // EAGAIN: the counter is full, so it is awake anyway
  }
}
