/**
 * Error numbers of Linux with their names, and the error that set-up calls of `ffi/` throw. The packet path returns the number,
 * negative, and never throws.
 *
 * Numbers from asm-generic/errno-base.h and asm-generic/errno.h: the same on x86-64 and arm64.
 */

export const EPERM = 1;
export const ENOENT = 2;
export const EINTR = 4;
export const EIO = 5;
export const ENXIO = 6;
export const EBADF = 9;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EBUSY = 16;
export const EEXIST = 17;
export const ENODEV = 19;
export const EINVAL = 22;
export const ENOSYS = 38;
export const EBADFD = 77;
export const EMSGSIZE = 90;
export const ENOPROTOOPT = 92;
export const EPROTONOSUPPORT = 93;
export const EOPNOTSUPP = 95;
export const EAFNOSUPPORT = 97;
export const EADDRINUSE = 98;
export const EADDRNOTAVAIL = 99;
export const ENETDOWN = 100;
export const ENETUNREACH = 101;
export const ENOBUFS = 105;
export const ECONNREFUSED = 111;
export const EHOSTUNREACH = 113;

/** Name and the words that the C library has for it, for the numbers that our calls can meet. */
const ERRORS: ReadonlyMap<number, readonly [name: string, text: string]> = new Map([
  [EPERM, ["EPERM", "operation not permitted"]],
  [ENOENT, ["ENOENT", "no such file or directory"]],
  [3, ["ESRCH", "no such entry"]],
  [EINTR, ["EINTR", "interrupted"]],
  [EIO, ["EIO", "input/output error"]],
  [ENXIO, ["ENXIO", "no such device or address"]],
  [7, ["E2BIG", "argument list too long"]],
  [EBADF, ["EBADF", "bad file descriptor"]],
  [EAGAIN, ["EAGAIN", "resource temporarily unavailable"]],
  [ENOMEM, ["ENOMEM", "out of memory"]],
  [EACCES, ["EACCES", "permission denied"]],
  [14, ["EFAULT", "bad address"]],
  [EBUSY, ["EBUSY", "device or resource busy"]],
  [EEXIST, ["EEXIST", "exists already"]],
  [ENODEV, ["ENODEV", "no such device"]],
  [20, ["ENOTDIR", "not a directory"]],
  [EINVAL, ["EINVAL", "invalid argument"]],
  [23, ["ENFILE", "too many open files in the system"]],
  [24, ["EMFILE", "too many open files"]],
  [25, ["ENOTTY", "the device does not know this request"]],
  [28, ["ENOSPC", "no space left"]],
  [30, ["EROFS", "read-only file system"]],
  [32, ["EPIPE", "broken pipe"]],
  [33, ["EDOM", "outside the domain of the function"]],
  [34, ["ERANGE", "out of range"]],
  [ENOSYS, ["ENOSYS", "the kernel does not have this call"]],
  [EBADFD, ["EBADFD", "the device is gone"]],
  [88, ["ENOTSOCK", "not a socket"]],
  [89, ["EDESTADDRREQ", "destination address required"]],
  [EMSGSIZE, ["EMSGSIZE", "message too long"]],
  [91, ["EPROTOTYPE", "wrong protocol type"]],
  [ENOPROTOOPT, ["ENOPROTOOPT", "socket option not available"]],
  [EPROTONOSUPPORT, ["EPROTONOSUPPORT", "protocol not supported"]],
  [EOPNOTSUPP, ["EOPNOTSUPP", "operation not supported"]],
  [EAFNOSUPPORT, ["EAFNOSUPPORT", "address family not supported"]],
  [EADDRINUSE, ["EADDRINUSE", "address in use"]],
  [EADDRNOTAVAIL, ["EADDRNOTAVAIL", "address not available"]],
  [ENETDOWN, ["ENETDOWN", "network is down"]],
  [ENETUNREACH, ["ENETUNREACH", "network is unreachable"]],
  [104, ["ECONNRESET", "connection reset"]],
  [ENOBUFS, ["ENOBUFS", "no buffer space"]],
  [106, ["EISCONN", "connected already"]],
  [107, ["ENOTCONN", "not connected"]],
  [110, ["ETIMEDOUT", "timed out"]],
  [ECONNREFUSED, ["ECONNREFUSED", "connection refused"]],
  [112, ["EHOSTDOWN", "host is down"]],
  [EHOSTUNREACH, ["EHOSTUNREACH", "no route to host"]],
]);

/** "EPERM", or "errno 999" for a number that is not in the table. Takes the number with either sign. */
export function nameOfErrno(errno: number): string {
  const number = Math.abs(errno);
  return ERRORS.get(number)?.[0] ?? `errno ${number}`;
}

/** "permission denied (EACCES)": what an error message ends in. Takes the number with either sign. */
export function describeErrno(errno: number): string {
  const known = ERRORS.get(Math.abs(errno));
  return known ? `${known[1]} (${known[0]})` : `errno ${Math.abs(errno)}`;
}

/** What a set-up call throws. `code` is stable ("EDGE_TUN_DENIED"); `errno` is the kernel's number, 0 when it had no say. */
export class FfiError extends Error {
  readonly code: string;
  readonly errno: number;

  /**
   * @param code    stable, for programs
   * @param message for people: the action, the thing in quotes, a colon, the state; no final period
   * @param errno   with either sign
   */
  constructor(code: string, message: string, errno = 0) {
    super(message);
    this.name = "FfiError";
    this.code = code;
    this.errno = Math.abs(errno);
  }
}
