/**
 * The C library's functions that we call, one method each. Addresses, sizes and descriptors are plain integers; memory comes
 * from `ffi/memory.ts`.
 *
 * A call that C answers with -1 gives `-errno` here, read in the very next call. Everything else is what C gives. The packet
 * path calls these: no allocation, no exception (bench: `scripts/bench/ffi.ts`).
 */
import { EAGAIN, FfiError } from "./errno.ts";
import { runtime } from "./runtime/index.ts";
import type { Runtime, Symbols } from "./runtime/types.ts";

const SIGNATURES = {
  __errno_location: { args: [], result: "ptr" },
  open: { args: ["ptr", "i32", "u32"], result: "i32" },
  close: { args: ["i32"], result: "i32" },
  read: { args: ["i32", "ptr", "size"], result: "i32" },
  write: { args: ["i32", "ptr", "size"], result: "i32" },
  readv: { args: ["i32", "ptr", "i32"], result: "i32" },
  writev: { args: ["i32", "ptr", "i32"], result: "i32" },
  ioctl: { args: ["i32", "size", "ptr"], result: "i32" },
  poll: { args: ["ptr", "size", "i32"], result: "i32" },
  socket: { args: ["i32", "i32", "i32"], result: "i32" },
  bind: { args: ["i32", "ptr", "u32"], result: "i32" },
  connect: { args: ["i32", "ptr", "u32"], result: "i32" },
  getsockname: { args: ["i32", "ptr", "ptr"], result: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], result: "i32" },
  getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], result: "i32" },
  sendto: { args: ["i32", "ptr", "size", "i32", "ptr", "u32"], result: "i32" },
  sendmsg: { args: ["i32", "ptr", "i32"], result: "i32" },
  recvmsg: { args: ["i32", "ptr", "i32"], result: "i32" },
  sendmmsg: { args: ["i32", "ptr", "u32", "i32"], result: "i32" },
  recvmmsg: { args: ["i32", "ptr", "u32", "i32", "null"], result: "i32" },
  eventfd: { args: ["u32", "i32"], result: "i32" },
  memfd_create: { args: ["ptr", "u32"], result: "i32" },
  prctl: { args: ["i32", "size", "null", "null", "null"], result: "i32" },
  clock_gettime: { args: ["i32", "ptr"], result: "i32" },
  madvise: { args: ["ptr", "size", "i32"], result: "i32" },
  memcpy: { args: ["ptr", "ptr", "size"], result: "void" },
} as const;

/**
 * Names to try, in this order. glibc: the first. musl takes the first too, as it answers every name of "libc." with itself;
 * its own names follow in case that ends.
 */
const NAMES: readonly string[] = [
  "libc.so.6",
  process.arch === "arm64" ? "libc.musl-aarch64.so.1" : "libc.musl-x86_64.so.1",
  "libc.so",
];

/** The C library of this process. Make it with `libc()`. */
export class Libc {
  readonly #runtime: Runtime;
  readonly #c: Symbols<typeof SIGNATURES>;
  /** errno has one address per thread, and every thread has its own copy of this object */
  readonly #errnoAt: number;

  constructor(running: Runtime) {
    this.#runtime = running;
    this.#c = openFirst(running);
    this.#errnoAt = this.#c.__errno_location();
  }

  /** errno of the call before, negative. What no call leaves there (0, or beyond the table) becomes -EAGAIN. */
  #failure(): number {
    const errno = this.#runtime.readI32(this.#errnoAt);
    return errno > 0 && errno < 4096 ? -errno : -EAGAIN;
  }

  /** open(2). @param mode permission bits for O_CREAT, else 0 */
  open(path: number, flags: number, mode: number): number {
    const result = this.#c.open(path, flags, mode);
    return result < 0 ? this.#failure() : result;
  }

  /** close(2). Never to be repeated: the descriptor is gone even when this fails. */
  close(fd: number): number {
    const result = this.#c.close(fd);
    return result < 0 ? this.#failure() : result;
  }

  /** read(2), at most 2^31 - 1 octets */
  read(fd: number, address: number, bytes: number): number {
    const result = this.#c.read(fd, address, bytes);
    return result < 0 ? this.#failure() : result;
  }

  /** write(2), at most 2^31 - 1 octets */
  write(fd: number, address: number, bytes: number): number {
    const result = this.#c.write(fd, address, bytes);
    return result < 0 ? this.#failure() : result;
  }

  /** readv(2) */
  readv(fd: number, iovecs: number, count: number): number {
    const result = this.#c.readv(fd, iovecs, count);
    return result < 0 ? this.#failure() : result;
  }

  /** writev(2) */
  writev(fd: number, iovecs: number, count: number): number {
    const result = this.#c.writev(fd, iovecs, count);
    return result < 0 ? this.#failure() : result;
  }

  /** ioctl(2) whose third argument is an address or a number, below 2^53 either way */
  ioctl(fd: number, request: number, argument: number): number {
    const result = this.#c.ioctl(fd, request, argument);
    return result < 0 ? this.#failure() : result;
  }

  /** poll(2). @param timeoutMs -1 waits for ever */
  poll(pollfds: number, count: number, timeoutMs: number): number {
    const result = this.#c.poll(pollfds, count, timeoutMs);
    return result < 0 ? this.#failure() : result;
  }

  /** socket(2) */
  socket(family: number, type: number, protocol: number): number {
    const result = this.#c.socket(family, type, protocol);
    return result < 0 ? this.#failure() : result;
  }

  /** bind(2) */
  bind(fd: number, sockaddr: number, bytes: number): number {
    const result = this.#c.bind(fd, sockaddr, bytes);
    return result < 0 ? this.#failure() : result;
  }

  /** connect(2) */
  connect(fd: number, sockaddr: number, bytes: number): number {
    const result = this.#c.connect(fd, sockaddr, bytes);
    return result < 0 ? this.#failure() : result;
  }

  /** getsockname(2). @param length address of a u32: room on the way in, size on the way out */
  getsockname(fd: number, sockaddr: number, length: number): number {
    const result = this.#c.getsockname(fd, sockaddr, length);
    return result < 0 ? this.#failure() : result;
  }

  /** setsockopt(2) */
  setsockopt(fd: number, level: number, option: number, value: number, bytes: number): number {
    const result = this.#c.setsockopt(fd, level, option, value, bytes);
    return result < 0 ? this.#failure() : result;
  }

  /** getsockopt(2). @param length address of a u32: room on the way in, size on the way out */
  getsockopt(fd: number, level: number, option: number, value: number, length: number): number {
    const result = this.#c.getsockopt(fd, level, option, value, length);
    return result < 0 ? this.#failure() : result;
  }

  /** sendto(2) */
  sendto(fd: number, address: number, bytes: number, flags: number, sockaddr: number, sockaddrBytes: number): number {
    const result = this.#c.sendto(fd, address, bytes, flags, sockaddr, sockaddrBytes);
    return result < 0 ? this.#failure() : result;
  }

  /** sendmsg(2) */
  sendmsg(fd: number, msghdr: number, flags: number): number {
    const result = this.#c.sendmsg(fd, msghdr, flags);
    return result < 0 ? this.#failure() : result;
  }

  /** recvmsg(2) */
  recvmsg(fd: number, msghdr: number, flags: number): number {
    const result = this.#c.recvmsg(fd, msghdr, flags);
    return result < 0 ? this.#failure() : result;
  }

  /** sendmmsg(2). An error speaks of the first message; later ones were not tried. */
  sendmmsg(fd: number, mmsghdrs: number, count: number, flags: number): number {
    const result = this.#c.sendmmsg(fd, mmsghdrs, count, flags);
    return result < 0 ? this.#failure() : result;
  }

  /** recvmmsg(2), without its timeout, which does not do what one hopes */
  recvmmsg(fd: number, mmsghdrs: number, count: number, flags: number): number {
    const result = this.#c.recvmmsg(fd, mmsghdrs, count, flags, 0);
    return result < 0 ? this.#failure() : result;
  }

  /** eventfd(2) */
  eventfd(initial: number, flags: number): number {
    const result = this.#c.eventfd(initial, flags);
    return result < 0 ? this.#failure() : result;
  }

  /** memfd_create(2). @param name shown in /proc only */
  memfdCreate(name: number, flags: number): number {
    const result = this.#c.memfd_create(name, flags);
    return result < 0 ? this.#failure() : result;
  }

  /** madvise(2). @param from start of a page */
  madvise(from: number, bytes: number, advice: number): number {
    const result = this.#c.madvise(from, bytes, advice);
    return result < 0 ? this.#failure() : result;
  }

  /** prctl(2) with one argument, the others 0 */
  prctl(operation: number, argument: number): number {
    const result = this.#c.prctl(operation, argument, 0, 0, 0);
    return result < 0 ? this.#failure() : result;
  }

  /** clock_gettime(2) */
  clockGettime(clock: number, timespec: number): number {
    const result = this.#c.clock_gettime(clock, timespec);
    return result < 0 ? this.#failure() : result;
  }

  /** memcpy(3): the ranges must not overlap. */
  memcpy(to: number, from: number, bytes: number): void {
    this.#c.memcpy(to, from, bytes);
  }
}

function openFirst(running: Runtime): Symbols<typeof SIGNATURES> {
  let why = "";
  for (const name of NAMES) {
    try {
      return running.dlopen(name, SIGNATURES);
    } catch (error) {
      why ||= error instanceof Error ? error.message : String(error);
    }
  }
  // what Bun says where W^X is enforced; V8 does not even start there
  const isWithoutJit = /\bJIT\b/.test(why);
  const hint = isWithoutJit ? "; remove MemoryDenyWriteExecute= and LimitAS= from the unit" : "";
  throw new FfiError("EDGE_FFI_UNAVAILABLE", `Cannot load the C library: ${why}${hint}`);
}

let made: Libc | undefined;

/**
 * The C library, loaded on first use; one object per thread.
 * @throws FfiError EDGE_FFI_UNAVAILABLE on a runtime or a system that has none
 */
export function libc(): Libc {
  made ??= new Libc(runtime());
  return made;
}
