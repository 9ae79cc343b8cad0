/** Socket options that are one `int`: all that we set, and all that we read back. */
import { libc } from "./libc.ts";
import { allocate } from "./memory.ts";

/** setsockopt(2). @returns 0 or a negative errno */
export function setIntOption(fd: number, level: number, option: number, value: number): number {
  const memory = allocate(4);
  memory.words[0] = value;
  return libc().setsockopt(fd, level, option, memory.address, 4);
}

/** getsockopt(2). @returns the value (those that we read are never negative) or a negative errno */
export function getIntOption(fd: number, level: number, option: number): number {
  const value = allocate(4);
  const length = allocate(4);
  length.words[0] = 4;
  const result = libc().getsockopt(fd, level, option, value.address, length.address);
  return result < 0 ? result : value.words[0]!;
}
