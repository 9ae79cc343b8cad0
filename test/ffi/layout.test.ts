/**
 * Asks C compilers whether the fields of structures stand where `ffi/layout.ts` says and whether constants are what
 * `ffi/constants.ts` and `ffi/errno.ts` say, as static assertions: nothing is linked or run. `gcc` answers for this machine,
 * zig or a cross compiler for arm64 and for musl.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as constants from "../../ffi/constants.ts";
import * as errno from "../../ffi/errno.ts";
import * as layout from "../../ffi/layout.ts";

/** our name -> C type, and our field -> its member (absent: the same name) */
const STRUCTS: Readonly<Record<string, { type: string; fields?: Readonly<Record<string, string>> }>> = {
  IOVEC: { type: "struct iovec", fields: { base: "iov_base", length: "iov_len" } },
  MSGHDR: {
    type: "struct msghdr",
    fields: {
      name: "msg_name",
      namelen: "msg_namelen",
      iov: "msg_iov",
      iovlen: "msg_iovlen",
      control: "msg_control",
      controllen: "msg_controllen",
      flags: "msg_flags",
    },
  },
  MMSGHDR: { type: "struct mmsghdr", fields: { length: "msg_len" } },
  CMSGHDR: { type: "struct cmsghdr", fields: { length: "cmsg_len", level: "cmsg_level", type: "cmsg_type" } },
  IN_PKTINFO: {
    type: "struct in_pktinfo",
    fields: { ifindex: "ipi_ifindex", specDst: "ipi_spec_dst", addr: "ipi_addr" },
  },
  IN6_PKTINFO: { type: "struct in6_pktinfo", fields: { addr: "ipi6_addr", ifindex: "ipi6_ifindex" } },
  SOCKADDR_IN: {
    type: "struct sockaddr_in",
    fields: { family: "sin_family", port: "sin_port", address: "sin_addr" },
  },
  SOCKADDR_IN6: {
    type: "struct sockaddr_in6",
    fields: {
      family: "sin6_family",
      port: "sin6_port",
      flowinfo: "sin6_flowinfo",
      address: "sin6_addr",
      scope: "sin6_scope_id",
    },
  },
  SOCKADDR_UN: { type: "struct sockaddr_un", fields: { family: "sun_family", path: "sun_path" } },
  SOCKADDR_NL: { type: "struct sockaddr_nl", fields: { family: "nl_family", pid: "nl_pid", groups: "nl_groups" } },
  IFREQ: { type: "struct ifreq", fields: { name: "ifr_name", flags: "ifr_flags" } },
  POLLFD: { type: "struct pollfd" },
  TIMESPEC: { type: "struct timespec", fields: { seconds: "tv_sec", nanoseconds: "tv_nsec" } },
  TIMEVAL: { type: "struct timeval", fields: { seconds: "tv_sec", microseconds: "tv_usec" } },
  NLMSGHDR: {
    type: "struct nlmsghdr",
    fields: {
      length: "nlmsg_len",
      type: "nlmsg_type",
      flags: "nlmsg_flags",
      sequence: "nlmsg_seq",
      pid: "nlmsg_pid",
    },
  },
  IFINFOMSG: {
    type: "struct ifinfomsg",
    fields: { family: "ifi_family", type: "ifi_type", index: "ifi_index", flags: "ifi_flags", change: "ifi_change" },
  },
  IFADDRMSG: {
    type: "struct ifaddrmsg",
    fields: {
      family: "ifa_family",
      prefixLength: "ifa_prefixlen",
      flags: "ifa_flags",
      scope: "ifa_scope",
      index: "ifa_index",
    },
  },
  RTMSG: {
    type: "struct rtmsg",
    fields: {
      family: "rtm_family",
      destinationLength: "rtm_dst_len",
      sourceLength: "rtm_src_len",
      tos: "rtm_tos",
      table: "rtm_table",
      protocol: "rtm_protocol",
      scope: "rtm_scope",
      type: "rtm_type",
      flags: "rtm_flags",
    },
  },
  RTATTR: { type: "struct rtattr", fields: { length: "rta_len", type: "rta_type" } },
};

const HEADERS = [
  "stddef.h",
  "errno.h",
  "fcntl.h",
  "poll.h",
  "time.h",
  "sys/eventfd.h",
  "sys/ioctl.h",
  "sys/mman.h",
  "sys/prctl.h",
  "sys/socket.h",
  "sys/time.h",
  "sys/uio.h",
  "sys/un.h",
  "netinet/in.h",
  "net/if.h",
  "linux/fib_rules.h",
  "linux/if_tun.h",
  "linux/netlink.h",
  "linux/rtnetlink.h",
  "linux/udp.h",
];

/** Constants that headers of some distributions lack: those have a value here for the compiler that does not know them. */
const NEWER: Readonly<Record<string, number>> = { SOL_UDP: 17, TUN_F_USO4: 0x20, TUN_F_USO6: 0x40 };

/** Every number of ours as [name, C expression, value]. */
function claims(): [name: string, expression: string, value: number][] {
  const found: [string, string, number][] = [];
  for (const [name, { type, fields }] of Object.entries(STRUCTS)) {
    for (const [field, at] of Object.entries((layout as unknown as Record<string, Record<string, number>>)[name]!)) {
      const member = fields ? fields[field] : field;
      if (field === "size") found.push([`${name}.size`, `sizeof(${type})`, at]);
      else if (member !== undefined) found.push([`${name}.${field}`, `offsetof(${type}, ${member})`, at]);
      else throw new Error(`Field ${name}.${field} has no C name in this test`);
    }
  }
  for (const room of [constants, errno]) {
    for (const [name, value] of Object.entries(room)) {
      if (typeof value === "number") found.push([name, `(unsigned) ${name}`, value]);
    }
  }
  return found;
}

function program(wrong?: string): string {
  const defaults = Object.entries(NEWER).map(([name, value]) => `#ifndef ${name}\n#define ${name} ${value}\n#endif`);
  const includes = HEADERS.map((header) => `#include <${header}>`);
  const asserts = claims().map(([name, expression, value]) =>
    `_Static_assert((unsigned long long) (${expression}) == ${value + (name === wrong ? 1 : 0)}ull, "${name}");`
  );
  return ["#define _GNU_SOURCE 1", ...includes, ...defaults, ...asserts, ""].join("\n");
}

function hasProgram(name: string): boolean {
  return (process.env["PATH"] ?? "").split(":").some((folder) => existsSync(join(folder, name)));
}

/** zig as scripts/libsodium/build keeps it */
function zigPath(): string | undefined {
  if (hasProgram("zig")) return "zig";
  const cache = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  const python = join(cache, "edgemesh/libsodium/venv/bin/python");
  if (!existsSync(python)) return undefined;
  const script = "import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), 'zig'))";
  return execFileSync(python, ["-c", script], { encoding: "utf8" }).trim();
}

const zig = zigPath();
const zigFor = (target: string) => zig ? [zig, "cc", "-target", target] : undefined;
const gcc = hasProgram("gcc") ? ["gcc"] : undefined;
const crossGcc = hasProgram("aarch64-linux-gnu-gcc") ? ["aarch64-linux-gnu-gcc"] : undefined;

const COMPILERS: readonly { target: string; command: readonly string[] | undefined; lacks: string }[] = [
  { target: "this machine", command: gcc ?? zigFor("native"), lacks: "gcc" },
  {
    target: "arm64 with glibc",
    command: crossGcc ?? zigFor("aarch64-linux-gnu"),
    lacks: "aarch64-linux-gnu-gcc or zig",
  },
  { target: "arm64 with musl", command: zigFor("aarch64-linux-musl"), lacks: "zig" },
  { target: "x86-64 with musl", command: zigFor("x86_64-linux-musl"), lacks: "zig" },
];

describe("layout.ts, constants.ts and errno.ts", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "edgemesh-layout-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  for (const { target, command, lacks } of COMPILERS) {
    const skipped = command ? "" : ` (skipped: no ${lacks})`;
    /** what the compiler complains of */
    const complaints = (text: string) => {
      const [first, ...rest] = command!;
      writeFileSync(join(folder, "claims.c"), text);
      const args = [...rest, "-std=gnu11", "-c", "claims.c", "-o", "claims.o"];
      const zigCache = { ZIG_LOCAL_CACHE_DIR: join(folder, "zig"), ZIG_GLOBAL_CACHE_DIR: join(folder, "zig") };
      const run = spawnSync(first!, args, { cwd: folder, encoding: "utf8", env: { ...process.env, ...zigCache } });
      return run.status === 0 ? "" : run.stderr || `exit ${run.status}`;
    };
    it.skipIf(skipped)(`agree with the C compiler for ${target}${skipped}`, () => {
      expect(complaints(program())).toBe("");
    });
    it.skipIf(skipped)(`would not, were a single number wrong, for ${target}${skipped}`, () => {
      expect(complaints(program("MSGHDR.controllen"))).toContain("MSGHDR.controllen");
      expect(complaints(program("UDP_GRO"))).toContain("UDP_GRO");
    });
  }
});
