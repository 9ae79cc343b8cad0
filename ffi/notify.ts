/**
 * Tells the service manager how we are: "READY=1", "STATUS=...", "WATCHDOG=1", "STOPPING=1".
 * @see sd_notify(3)
 */
import { AF_UNIX, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_DGRAM } from "./constants.ts";
import { describeErrno, FfiError } from "./errno.ts";
import { SOCKADDR_UN } from "./layout.ts";
import { libc } from "./libc.ts";
import { allocate } from "./memory.ts";

/**
 * Sends one message to the service manager.
 *
 * @param socketPath what the manager put into NOTIFY_SOCKET: a path, or "@" and a name in the abstract name space
 * @param message    assignments, one a line
 * @throws FfiError EDGE_NOTIFY when the manager is not there or the path is none; a caller may well ignore it
 */
export function notify(socketPath: string, message: string): void {
  const path = new TextEncoder().encode(socketPath);
  const isAbstract = socketPath.startsWith("@");
  // a path needs its zero octet, an abstract name ends where the length says
  const addressBytes = SOCKADDR_UN.path + path.length + (isAbstract ? 0 : 1);
  if (!/^[/@]/.test(socketPath) || path.length < 2 || addressBytes > SOCKADDR_UN.size) {
    throw new FfiError("EDGE_NOTIFY", `Cannot notify "${socketPath}": not an absolute path or a name after "@"`);
  }
  const sockaddr = allocate(SOCKADDR_UN.size);
  sockaddr.bytes[SOCKADDR_UN.family] = AF_UNIX;
  sockaddr.bytes.set(path, SOCKADDR_UN.path);
  if (isAbstract) sockaddr.bytes[SOCKADDR_UN.path] = 0;
  const text = new TextEncoder().encode(message);
  const data = allocate(text.length);
  data.bytes.set(text);
  const c = libc();
  const fd = c.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new FfiError("EDGE_NOTIFY", `Cannot notify "${socketPath}": ${describeErrno(fd)}`, fd);
  const sent = c.sendto(fd, data.address, text.length, MSG_NOSIGNAL, sockaddr.address, addressBytes);
  c.close(fd);
  if (sent < 0) throw new FfiError("EDGE_NOTIFY", `Cannot notify "${socketPath}": ${describeErrno(sent)}`, sent);
}
