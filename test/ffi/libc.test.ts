import { beforeAll, describe, expect, it } from "vitest";
import {
  CLOCK_BOOTTIME,
  EFD_NONBLOCK,
  MFD_CLOEXEC,
  O_CLOEXEC,
  O_RDONLY,
  POLLIN,
  PR_GET_DUMPABLE,
} from "../../ffi/constants.ts";
import { AF_INET, MSG_DONTWAIT, SO_RCVBUF, SOCK_DGRAM, SOL_SOCKET } from "../../ffi/constants.ts";
import { EADDRINUSE, EAGAIN, EBADF, ENOENT, nameOfErrno } from "../../ffi/errno.ts";
import { IOVEC, MMSGHDR, MSGHDR, SOCKADDR_IN } from "../../ffi/layout.ts";
import { libc } from "../../ffi/libc.ts";
import { allocate, cText, makeArena, writeAddress } from "../../ffi/memory.ts";
import { openNetlink } from "../../ffi/netlink.ts";
import { runtime } from "../../ffi/runtime/index.ts";
import { noFfi, noNetwork, runtimeName } from "./harness.ts";

describe.skipIf(noFfi)(`libc on ${runtimeName}${noFfi}`, () => {
  beforeAll(() => {
    if (noNetwork) return; // the machine's own loopback, which is up
    const links = openNetlink();
    const loopback = links.findLink("lo")!;
    if (!loopback.isUp) links.setLinkUp(loopback.index, loopback.mtu);
    links.close();
  });

  it("open of a missing file gives -ENOENT, close of a closed descriptor -EBADF", () => {
    const c = libc();
    const path = cText("/nonexistent/file");
    expect(c.open(path.address, O_RDONLY | O_CLOEXEC, 0)).toBe(-ENOENT);
    expect(c.close(-1)).toBe(-EBADF);
  });

  it("errno is right each time among many calls that fail in turn", () => {
    const c = libc();
    const path = cText("/nonexistent/file");
    const eventFd = c.eventfd(0, EFD_NONBLOCK);
    const into = allocate(8);
    let wrong = 0;
    for (let i = 0; i < 20_000; i++) {
      if (c.open(path.address, O_RDONLY, 0) !== -ENOENT) wrong++;
      if (c.read(eventFd, into.address, 8) !== -EAGAIN) wrong++;
      if (c.close(-1) !== -EBADF) wrong++;
    }
    c.close(eventFd);
    expect(wrong).toBe(0);
  });

  it("write and read of a memory file carry octets at any offset, readv and writev in pieces", () => {
    const c = libc();
    const name = cText("edgemesh-test");
    const fd = c.memfdCreate(name.address, MFD_CLOEXEC);
    expect(fd).toBeGreaterThanOrEqual(0);
    const memory = allocate(64);
    for (let i = 0; i < 64; i++) memory.bytes[i] = i;
    expect(c.write(fd, memory.address + 10, 5)).toBe(5);

    const vectors = allocate(2 * IOVEC.size);
    writeAddress(vectors.words, 0, memory.address + 20);
    writeAddress(vectors.words, 2, 3);
    writeAddress(vectors.words, 4, memory.address + 40);
    writeAddress(vectors.words, 6, 2);
    expect(c.writev(fd, vectors.address, 2)).toBe(5);

    const again = cText(`/proc/self/fd/${fd}`);
    const reader = c.open(again.address, O_RDONLY | O_CLOEXEC, 0);
    const into = allocate(16);
    expect(c.read(reader, into.address + 1, 5)).toBe(5);
    expect([...into.bytes.subarray(0, 7)]).toEqual([0, 10, 11, 12, 13, 14, 0]);
    writeAddress(vectors.words, 0, into.address + 8);
    writeAddress(vectors.words, 2, 1);
    writeAddress(vectors.words, 4, into.address + 10);
    writeAddress(vectors.words, 6, 6);
    expect(c.readv(reader, vectors.address, 2)).toBe(5);
    expect([...into.bytes.subarray(8)]).toEqual([20, 0, 21, 22, 40, 41, 0, 0]);
    c.close(reader);
    c.close(fd);
  });

  it("poll tells a readable descriptor from one with nothing to read", () => {
    const c = libc();
    const fd = c.eventfd(0, EFD_NONBLOCK);
    const entry = allocate(8);
    entry.words[0] = fd;
    entry.words[1] = POLLIN;
    expect(c.poll(entry.address, 1, 0)).toBe(0);
    const one = allocate(8);
    one.words[0] = 3;
    expect(c.write(fd, one.address, 8)).toBe(8);
    expect(c.poll(entry.address, 1, 0)).toBe(1);
    expect(entry.words[1]! >>> 16).toBe(POLLIN);
    expect(c.read(fd, one.address, 8)).toBe(8);
    expect(one.words[0]).toBe(3);
    c.close(fd);
  });

  it("clock_gettime moves on and agrees with /proc/uptime", async () => {
    const c = libc();
    const time = allocate(16);
    expect(c.clockGettime(CLOCK_BOOTTIME, time.address)).toBe(0);
    const { readFileSync } = await import("node:fs");
    const uptime = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]);
    expect(Math.abs(time.words[0]! - uptime)).toBeLessThan(60);
  });

  it("prctl and getsockopt answer in their ways", () => {
    const c = libc();
    expect(c.prctl(PR_GET_DUMPABLE, 0)).toBeGreaterThanOrEqual(0);
    expect(nameOfErrno(c.prctl(123_456, 0))).toBe("EINVAL");
    const fd = c.socket(AF_INET, SOCK_DGRAM, 0);
    const value = allocate(4);
    const length = allocate(4);
    value.words[0] = 100_000;
    expect(c.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, value.address, 4)).toBe(0);
    length.words[0] = 4;
    expect(c.getsockopt(fd, SOL_SOCKET, SO_RCVBUF, value.address, length.address)).toBe(0);
    expect(length.words[0]).toBe(4);
    expect(value.words[0]).toBeGreaterThanOrEqual(100_000);
    c.close(fd);
  });

  it("datagrams go over loopback by sendto, sendmsg and sendmmsg, and come by recvmsg and recvmmsg", () => {
    const c = libc();
    const receiver = c.socket(AF_INET, SOCK_DGRAM, 0);
    const sockaddr = allocate(SOCKADDR_IN.size);
    sockaddr.bytes.set([AF_INET, 0, 0, 0, 127, 0, 0, 1]);
    expect(c.bind(receiver, sockaddr.address, 16)).toBe(0);
    const length = allocate(4);
    length.words[0] = 16;
    expect(c.getsockname(receiver, sockaddr.address, length.address)).toBe(0);
    expect(c.bind(c.socket(AF_INET, SOCK_DGRAM, 0), sockaddr.address, 16)).toBe(-EADDRINUSE);

    const sender = c.socket(AF_INET, SOCK_DGRAM, 0);
    const data = allocate(64);
    for (let i = 0; i < 64; i++) data.bytes[i] = 100 + i;
    expect(c.sendto(sender, data.address, 3, 0, sockaddr.address, 16)).toBe(3);
    expect(c.connect(sender, sockaddr.address, 16)).toBe(0);

    const iovec = allocate(IOVEC.size);
    writeAddress(iovec.words, 0, data.address + 10);
    iovec.words[IOVEC.length / 4] = 4;
    const headers = allocate(2 * MMSGHDR.size);
    for (const at of [0, MMSGHDR.size]) {
      writeAddress(headers.words, (at + MSGHDR.iov) / 4, iovec.address);
      headers.words[(at + MSGHDR.iovlen) / 4] = 1;
    }
    expect(c.sendmsg(sender, headers.address, 0)).toBe(4);
    expect(c.sendmmsg(sender, headers.address, 2, 0)).toBe(2);

    const into = allocate(64);
    writeAddress(iovec.words, 0, into.address);
    iovec.words[IOVEC.length / 4] = 64;
    expect(c.recvmsg(receiver, headers.address, MSG_DONTWAIT)).toBe(3);
    expect([...into.bytes.subarray(0, 4)]).toEqual([100, 101, 102, 0]);
    expect(c.recvmmsg(receiver, headers.address, 2, MSG_DONTWAIT)).toBe(2);
    expect(headers.words[MMSGHDR.length / 4]).toBe(4);
    expect([...into.bytes.subarray(0, 5)]).toEqual([110, 111, 112, 113, 0]);
    expect(c.recvmsg(receiver, headers.address, MSG_DONTWAIT)).toBe(4);
    expect(c.recvmsg(receiver, headers.address, MSG_DONTWAIT)).toBe(-EAGAIN);
    c.close(sender);
    c.close(receiver);
  });

  it("text for C ends in a zero octet, comes back whole, and may hold none inside", () => {
    const text = cText("grüße");
    expect(runtime().readText(text.address)).toBe("grüße");
    expect(() => cText("a\0b")).toThrow(RangeError);
  });

  it("an arena is zeroed, keeps its address, and refuses sizes that are none", () => {
    const arena = makeArena(1 << 20);
    const address = runtime().pointerOf(arena);
    expect(arena.every((octet) => octet === 0)).toBe(true);
    expect(arena.length % 4).toBe(0);
    arena[5] = 7;
    expect(runtime().pointerOf(arena)).toBe(address);
    expect((runtime().readI32(address + 4) >>> 8) & 0xff).toBe(7);
    for (const bad of [0, -1, 1.5, NaN, 2 ** 31]) expect(() => makeArena(bad)).toThrow(RangeError);
  });
});
