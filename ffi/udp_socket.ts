/**
 * Makes the two UDP sockets of the underlay, IPv4 and IPv6 on one port, and asks the kernel what they can do. `ffi/udp.ts`
 * moves packets with them.
 */
import { formatAddress, type IpAddress } from "../src/ip/address.ts";
import { SOCKADDR_IN, SOCKADDR_IN6 } from "./layout.ts";
import * as C from "./constants.ts";
import * as E from "./errno.ts";
import { hasBrokenSegmentation, kernelVersion } from "./kernel.ts";
import { libc } from "./libc.ts";
import { allocate } from "./memory.ts";
import { getIntOption, setIntOption } from "./socket_option.ts";

/** Why an offload is off that nobody wants. */
export const BY_CONFIGURATION = "by configuration";
/** How often to look for a port that is free in both families. */
const PORT_TRIES = 100;

export interface SocketOptions {
  /** 0: any that is free in both families */
  readonly port: number;
  /** asked for in each direction; the kernel may give less */
  readonly bufferBytes: number;
  /** UDP_SEGMENT wanted */
  readonly segmentation: boolean;
  /** UDP_GRO wanted */
  readonly gro: boolean;
  /** SO_MARK, for a policy rule that keeps the tunnel's own packets out of the tunnel */
  readonly mark?: number;
  /** bind to this address: one socket, of its family; absent: to any address, in both families */
  readonly address?: IpAddress;
}

/** One bound socket and what it can do; `undefined` reasons mean "on". */
export interface UdpSocket {
  readonly fd: number;
  readonly family: number;
  readonly segmentOff: string | undefined;
  /** runs of equal datagrams need a shorter one behind them */
  readonly needsFiller: boolean;
  readonly groOff: string | undefined;
  readonly receiveBufferBytes: number;
  readonly sendBufferBytes: number;
}

export interface UdpSockets {
  readonly port: number;
  /** absent for sockets that are bound to an IPv6 address */
  readonly v4: UdpSocket | undefined;
  /** absent where the machine has no IPv6, and for sockets that are bound to an IPv4 address */
  readonly v6: UdpSocket | undefined;
}

/**
 * Opens, configures and binds both sockets; non-blocking.
 * @throws FfiError EDGE_UDP_IN_USE when the port is taken in either family, EDGE_UDP_DENIED for a mark without the
 *         capability, EDGE_UDP_FAILED; RangeError for a port that is none
 */
export function openUdpSockets(options: SocketOptions): UdpSockets {
  const { port } = options;
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw new RangeError(`Cannot open UDP port ${port}: not 0 to 65535`);
  }
  if (options.address !== undefined) return openBound(options, options.address);
  for (let tries = 1;; tries++) {
    const v4 = openOne(C.AF_INET, options);
    if (v4 === undefined) throw failed("EDGE_UDP_FAILED", port, "the machine has no IPv4", E.EAFNOSUPPORT);
    let v6: number | undefined;
    try {
      bindTo(v4, C.AF_INET, port);
      const bound = portOf(v4);
      v6 = openOne(C.AF_INET6, options);
      if (v6 !== undefined) bindTo(v6, C.AF_INET6, bound);
      return {
        port: bound,
        v4: configure(v4, C.AF_INET, options),
        v6: v6 === undefined ? undefined : configure(v6, C.AF_INET6, options),
      };
    } catch (error) {
      libc().close(v4);
      if (v6 !== undefined) libc().close(v6);
      const isTaken = error instanceof E.FfiError && error.errno === E.EADDRINUSE;
      if (!isTaken || port !== 0 || tries >= PORT_TRIES) throw error;
    }
  }
}

/** One socket with one address: for a tunnel. */
function openBound(options: SocketOptions, address: IpAddress): UdpSockets {
  const family = address.length === 4 ? C.AF_INET : C.AF_INET6;
  const fd = openOne(family, options);
  if (fd === undefined) throw failed("EDGE_UDP_FAILED", options.port, "the machine lacks its family", E.EAFNOSUPPORT);
  try {
    bindTo(fd, family, options.port, address);
    const socket = configure(fd, family, options);
    // Linux' tunnel devices send none over IPv6 unless told to (RFC 6935, RFC 6936)
    if (family === C.AF_INET6) setIntOption(fd, C.SOL_UDP, C.UDP_NO_CHECK6_RX, 1);
    const isV4 = family === C.AF_INET;
    return { port: portOf(fd), v4: isV4 ? socket : undefined, v6: isV4 ? undefined : socket };
  } catch (error) {
    libc().close(fd);
    throw error;
  }
}

/** A socket of the family; `undefined` when the kernel was built or booted without it. */
function openOne(family: number, options: SocketOptions): number | undefined {
  const fd = libc().socket(family, C.SOCK_DGRAM | C.SOCK_NONBLOCK | C.SOCK_CLOEXEC, 0);
  if (fd === -E.EAFNOSUPPORT || fd === -E.EPROTONOSUPPORT) return undefined;
  if (fd < 0) throw failed("EDGE_UDP_FAILED", options.port, E.describeErrno(fd), fd);
  return fd;
}

function bindTo(fd: number, family: number, port: number, address?: IpAddress): void {
  const isV6 = family === C.AF_INET6;
  if (isV6) setIntOption(fd, C.IPPROTO_IPV6, C.IPV6_V6ONLY, 1);
  const sockaddr = allocate(isV6 ? SOCKADDR_IN6.size : SOCKADDR_IN.size);
  sockaddr.bytes[0] = family;
  sockaddr.bytes[SOCKADDR_IN.port] = port >>> 8;
  sockaddr.bytes[SOCKADDR_IN.port + 1] = port;
  if (address !== undefined) sockaddr.bytes.set(address, isV6 ? SOCKADDR_IN6.address : SOCKADDR_IN.address);
  const result = libc().bind(fd, sockaddr.address, isV6 ? SOCKADDR_IN6.size : SOCKADDR_IN.size);
  if (result === -E.EADDRINUSE) {
    throw failed("EDGE_UDP_IN_USE", port, `another process has it for ${isV6 ? "IPv6" : "IPv4"} (EADDRINUSE)`, result);
  }
  const at = address === undefined ? "" : ` to ${formatAddress(address)}`;
  if (result < 0) throw failed("EDGE_UDP_FAILED", port, `bind${at}: ${E.describeErrno(result)}`, result);
}

function portOf(fd: number): number {
  const sockaddr = allocate(SOCKADDR_IN6.size);
  const length = allocate(4);
  length.words[0] = SOCKADDR_IN6.size;
  const result = libc().getsockname(fd, sockaddr.address, length.address);
  if (result < 0) throw failed("EDGE_UDP_FAILED", 0, `getsockname: ${E.describeErrno(result)}`, result);
  return (sockaddr.bytes[SOCKADDR_IN.port]! << 8) | sockaddr.bytes[SOCKADDR_IN.port + 1]!;
}

function failed(code: string, port: number, why: string, errno: number): E.FfiError {
  return new E.FfiError(code, `Cannot open UDP port ${port}: ${why}`, errno);
}

function configure(fd: number, family: number, options: SocketOptions): UdpSocket {
  const isV6 = family === C.AF_INET6;
  const level = isV6 ? C.IPPROTO_IPV6 : C.IPPROTO_IP;
  // An ICMP error of one peer must not become the error of a send to another.
  setIntOption(fd, level, isV6 ? C.IPV6_RECVERR : C.IP_RECVERR, 0);
  setDiscovery(fd, family, false);
  setIntOption(fd, level, isV6 ? C.IPV6_RECVTCLASS : C.IP_RECVTOS, 1);
  // bound to one address there is nothing to learn
  if (options.address === undefined) setIntOption(fd, level, isV6 ? C.IPV6_RECVPKTINFO : C.IP_PKTINFO, 1);
  if (options.mark !== undefined) {
    const result = setIntOption(fd, C.SOL_SOCKET, C.SO_MARK, options.mark);
    if (result < 0) {
      const why = `the mark needs the capability CAP_NET_ADMIN: ${E.describeErrno(result)}`;
      throw failed(result === -E.EPERM ? "EDGE_UDP_DENIED" : "EDGE_UDP_FAILED", options.port, why, result);
    }
  }
  return {
    fd,
    family,
    segmentOff: switchSegmentation(fd, options.segmentation),
    needsFiller: hasBrokenSegmentation(kernelVersion()),
    groOff: switchGro(fd, options.gro),
    receiveBufferBytes: sizeBuffer(fd, C.SO_RCVBUF, C.SO_RCVBUFFORCE, options.bufferBytes),
    sendBufferBytes: sizeBuffer(fd, C.SO_SNDBUF, C.SO_SNDBUFFORCE, options.bufferBytes),
  };
}

/**
 * What may be done to datagrams that are too big for the way.
 *
 * Ordinary ones: routers and ourselves may fragment them, like the kernel's WireGuard; and alike for single sends and for runs, which
 * by default differ in DF. Over IPv4 what the machine believes of the way is not asked (OMIT): routers see to it, and anybody
 * could forge the message that it believes. Over IPv6 only we can fragment, so it is (DONT); nobody can make it less than 1280.
 *
 * @param isWhole nobody may fragment what is sent now, and only the device's own MTU counts
 */
export function setDiscovery(fd: number, family: number, isWhole: boolean): void {
  const isV6 = family === C.AF_INET6;
  const level = isV6 ? C.IPPROTO_IPV6 : C.IPPROTO_IP;
  const option = isV6 ? C.IPV6_MTU_DISCOVER : C.IP_MTU_DISCOVER;
  if (isWhole) setIntOption(fd, level, option, C.IP_PMTUDISC_PROBE);
  else if (isV6 || setIntOption(fd, level, option, C.IP_PMTUDISC_OMIT) < 0) {
    setIntOption(fd, level, option, C.IP_PMTUDISC_DONT);
  }
}

/** @returns why runs cannot be sent, or shall not be */
export function switchSegmentation(fd: number, isWanted: boolean): string | undefined {
  if (!isWanted) return BY_CONFIGURATION;
  const result = setIntOption(fd, C.SOL_UDP, C.UDP_SEGMENT, 0);
  return result < 0 ? `the kernel does not know UDP_SEGMENT: ${E.describeErrno(result)}` : undefined;
}

/**
 * Kernels before 5.12 take the option but do not read it back, and their GRO had faults: so the reading back decides.
 * @returns why runs are not received, or shall not be
 */
export function switchGro(fd: number, isWanted: boolean): string | undefined {
  if (!isWanted) {
    setIntOption(fd, C.SOL_UDP, C.UDP_GRO, 0);
    return BY_CONFIGURATION;
  }
  const result = setIntOption(fd, C.SOL_UDP, C.UDP_GRO, 1);
  if (result < 0) return `the kernel does not know UDP_GRO: ${E.describeErrno(result)}`;
  const back = getIntOption(fd, C.SOL_UDP, C.UDP_GRO);
  if (back === 1) return undefined;
  setIntOption(fd, C.SOL_UDP, C.UDP_GRO, 0);
  return "the kernel is older than 5.12";
}

/** Whether a datagram waits on the socket. An empty one that is the first does not count. */
export function hasWaiting(fd: number): boolean {
  const octets = allocate(4);
  return libc().ioctl(fd, C.FIONREAD, octets.address) === 0 && octets.words[0]! > 0;
}

/** Asks as anybody may, then past the system's limit as root may; gives what is there, which the kernel counts twice over. */
function sizeBuffer(fd: number, option: number, forced: number, bytes: number): number {
  setIntOption(fd, C.SOL_SOCKET, option, bytes);
  if (getIntOption(fd, C.SOL_SOCKET, option) < 2 * bytes) setIntOption(fd, C.SOL_SOCKET, forced, bytes);
  return Math.max(0, getIntOption(fd, C.SOL_SOCKET, option));
}
