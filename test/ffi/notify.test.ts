import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM } from "../../ffi/constants.ts";
import { ECONNREFUSED, ENOENT } from "../../ffi/errno.ts";
import { IOVEC, MSGHDR, SOCKADDR_UN } from "../../ffi/layout.ts";
import { libc } from "../../ffi/libc.ts";
import { allocate, writeAddress } from "../../ffi/memory.ts";
import { notify } from "../../ffi/notify.ts";
import { noFfi, runtimeName } from "./harness.ts";

describe.skipIf(noFfi)(`notify on ${runtimeName}${noFfi}`, () => {
  function listen(path: Uint8Array): number {
    const c = libc();
    const fd = c.socket(AF_UNIX, SOCK_DGRAM, 0);
    const sockaddr = allocate(SOCKADDR_UN.size);
    sockaddr.bytes[0] = AF_UNIX;
    sockaddr.bytes.set(path, SOCKADDR_UN.path);
    expect(c.bind(fd, sockaddr.address, SOCKADDR_UN.path + path.length)).toBe(0);
    return fd;
  }

  function receive(fd: number): string {
    const into = allocate(256);
    const iovec = allocate(IOVEC.size);
    writeAddress(iovec.words, 0, into.address);
    iovec.words[IOVEC.length / 4] = 256;
    const header = allocate(MSGHDR.size);
    writeAddress(header.words, MSGHDR.iov / 4, iovec.address);
    header.words[MSGHDR.iovlen / 4] = 1;
    const count = libc().recvmsg(fd, header.address, MSG_DONTWAIT);
    return count < 0 ? `errno ${-count}` : new TextDecoder().decode(into.bytes.subarray(0, count));
  }

  it("sends to a path", () => {
    const folder = mkdtempSync(join(tmpdir(), "edgemesh-notify-"));
    const path = join(folder, "socket");
    const fd = listen(new TextEncoder().encode(path + "\0"));
    notify(path, "READY=1\nSTATUS=tunnels: 3");
    expect(receive(fd)).toBe("READY=1\nSTATUS=tunnels: 3");
    libc().close(fd);
    expect(() => notify(path, "READY=1")).toThrow(
      expect.objectContaining({ code: "EDGE_NOTIFY", errno: ECONNREFUSED }),
    );
    rmSync(folder, { recursive: true });
    expect(() => notify(path, "READY=1")).toThrow(expect.objectContaining({ code: "EDGE_NOTIFY", errno: ENOENT }));
  });

  it("sends to a name in the abstract name space", () => {
    const name = `edgemesh-test-${process.pid}`;
    const fd = listen(new TextEncoder().encode(`\0${name}`));
    notify(`@${name}`, "WATCHDOG=1");
    expect(receive(fd)).toBe("WATCHDOG=1");
    libc().close(fd);
  });

  it.each(["", "@", "relative/path", `/${"x".repeat(120)}`])("refuses %j, which is no address", (path) => {
    expect(() => notify(path, "READY=1")).toThrow(expect.objectContaining({ code: "EDGE_NOTIFY", errno: 0 }));
  });
});
