/**
 * Where the fields of C structures stand, in octets. LP64, little endian: the same on x86-64 and arm64, under glibc and musl.
 * `test/ffi/layout.test.ts` compares every number here with what a C compiler says, for both CPUs where it finds one.
 */

/** `struct iovec`, sys/uio.h */
export const IOVEC = { size: 16, base: 0, length: 8 } as const;

/** `struct msghdr`, sys/socket.h. `iovlen` and `controllen` are read and written as their low 32 bits (musl declares them so). */
export const MSGHDR = {
  size: 56,
  name: 0,
  namelen: 8,
  iov: 16,
  iovlen: 24,
  control: 32,
  controllen: 40,
  flags: 48,
} as const;

/** `struct mmsghdr`, sys/socket.h: a `msghdr`, then how many octets went or came */
export const MMSGHDR = { size: 64, length: 56 } as const;

/** `struct cmsghdr`, sys/socket.h; its data follow at `size` */
export const CMSGHDR = { size: 16, length: 0, level: 8, type: 12 } as const;

/** `struct in_pktinfo`, bits/in.h: the address that a datagram was sent to, and the one to send from */
export const IN_PKTINFO = { size: 12, ifindex: 0, specDst: 4, addr: 8 } as const;

/** `struct in6_pktinfo`, netinet/in.h */
export const IN6_PKTINFO = { size: 20, addr: 0, ifindex: 16 } as const;

/** `struct sockaddr_in`, netinet/in.h */
export const SOCKADDR_IN = { size: 16, family: 0, port: 2, address: 4 } as const;

/** `struct sockaddr_in6`, netinet/in.h */
export const SOCKADDR_IN6 = { size: 28, family: 0, port: 2, flowinfo: 4, address: 8, scope: 24 } as const;

/** `struct sockaddr_un`, sys/un.h */
export const SOCKADDR_UN = { size: 110, family: 0, path: 2 } as const;

/** `struct sockaddr_nl`, linux/netlink.h */
export const SOCKADDR_NL = { size: 12, family: 0, pid: 4, groups: 8 } as const;

/** `struct ifreq`, net/if.h */
export const IFREQ = { size: 40, name: 0, flags: 16 } as const;

/** `struct pollfd`, poll.h */
export const POLLFD = { size: 8, fd: 0, events: 4, revents: 6 } as const;

/** `struct timespec`, time.h */
export const TIMESPEC = { size: 16, seconds: 0, nanoseconds: 8 } as const;

/** `struct timeval`, sys/time.h */
export const TIMEVAL = { size: 16, seconds: 0, microseconds: 8 } as const;

/** `struct nlmsghdr`, linux/netlink.h */
export const NLMSGHDR = { size: 16, length: 0, type: 4, flags: 6, sequence: 8, pid: 12 } as const;

/** `struct ifinfomsg`, linux/rtnetlink.h */
export const IFINFOMSG = { size: 16, family: 0, type: 2, index: 4, flags: 8, change: 12 } as const;

/** `struct ifaddrmsg`, linux/if_addr.h */
export const IFADDRMSG = { size: 8, family: 0, prefixLength: 1, flags: 2, scope: 3, index: 4 } as const;

/** `struct rtmsg`, linux/rtnetlink.h */
export const RTMSG = {
  size: 12,
  family: 0,
  destinationLength: 1,
  sourceLength: 2,
  tos: 3,
  table: 4,
  protocol: 5,
  scope: 6,
  type: 7,
  flags: 8,
} as const;

/** `struct rtattr`, linux/rtnetlink.h; its data follow at `size` */
export const RTATTR = { size: 4, length: 0, type: 2 } as const;

/** Rounds up to the alignment of control messages on LP64 (CMSG_ALIGN). */
export function alignCmsg(bytes: number): number {
  return (bytes + 7) & ~7;
}

/** Rounds up to the alignment of netlink messages and attributes (NLMSG_ALIGN, RTA_ALIGN). */
export function alignNetlink(bytes: number): number {
  return (bytes + 3) & ~3;
}
