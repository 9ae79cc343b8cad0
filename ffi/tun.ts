/**
 * The TUN device: opening it with the offloads that the kernel gives, and moving packets (bench: `scripts/bench/ffi.ts`).
 * Opened by the datapath thread; addresses, MTU and routes are `ffi/netlink.ts`'.
 *
 * Where nothing is to be gained from a virtio header the device is opened without one: with it, packets are slower than without
 * (1.4 against 2.2 Gbit/s, Linux 6.18). So what needs it can be switched off and on again while the device is open, but not on
 * where it never was.
 *
 * @see Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h
 */
import type { OffloadSwitches, Tun } from "../src/ports.ts";
import * as C from "./constants.ts";
import * as E from "./errno.ts";
import { IFREQ, IOVEC } from "./layout.ts";
import { type Libc, libc } from "./libc.ts";
import { allocate, cText, type Memory, writeAddress } from "./memory.ts";
import { runtime } from "./runtime/index.ts";
import { BY_CONFIGURATION, negotiate, probeMerged, type ReadOffloads } from "./tun_offload.ts";

const DEVICE = "/dev/net/tun";
/** Most pieces of one write: IOV_MAX is 1024, and a superpacket has at most 128 segments with a header each. */
const MAX_PIECES = 256;

export interface TunOptions {
  /** 1 to 15 octets; must not exist yet */
  readonly name: string;
  /** from `makeArena`; all offsets are into it */
  readonly arena: Uint8Array;
  /** what is wanted of `tso`, `uso`, `tcpMerge` and `udpMerge` */
  readonly offload: OffloadSwitches;
}

/** What works and why not, for `OffloadFacts` of `src/datapath/control.ts`. */
export interface TunFacts extends ReadOffloads {
  readonly tcpMerge: string;
  readonly udpMerge: string;
}

/**
 * Makes the device; it goes away with `close` or the process. It is down and has no addresses.
 * @throws FfiError EDGE_TUN_MISSING (no device node, or no module behind it), EDGE_TUN_DENIED (node or capability),
 *         EDGE_TUN_BUSY (the name exists), EDGE_TUN_FAILED; RangeError for a name that is none
 */
export function openTun(options: TunOptions): TunDevice {
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(options.name) || /^\.\.?$/.test(options.name)) {
    throw new RangeError(
      `Cannot open TUN device "${options.name}": not a name of 1 to 15 letters, digits, "_", ".", "-"`,
    );
  }
  const { name, arena, offload } = options;
  if (!wantsHeader(offload)) return new TunDevice(attach(name, 0), arena, false, allOff(offload, ""));
  const device = attach(name, C.IFF_VNET_HDR);
  const read = negotiate(device.fd, offload);
  if (typeof read !== "number") {
    const tcpMerge = probeMerged(device.fd, false) ?? "on";
    const udpMerge = probeMerged(device.fd, true) ?? "on";
    return new TunDevice(
      device,
      arena,
      true,
      { ...read, ...mergeFacts(offload, tcpMerge, udpMerge) },
      tcpMerge,
      udpMerge,
    );
  }
  libc().close(device.fd);
  const why = `off, the kernel refuses offloads: ${E.describeErrno(read)}`;
  return new TunDevice(attach(name, 0), arena, false, allOff(offload, why));
}

function wantsHeader({ tso, uso, tcpMerge, udpMerge }: OffloadSwitches): boolean {
  return tso || uso || tcpMerge || udpMerge;
}

/** @param why for those that are wanted */
function allOff(wanted: OffloadSwitches, why: string): TunFacts {
  const of = (isWanted: boolean) => isWanted ? why : BY_CONFIGURATION;
  return { tunTso: of(wanted.tso), tunUso: of(wanted.uso), ...mergeFacts(wanted, why, why) };
}

function mergeFacts(
  wanted: OffloadSwitches,
  tcpMerge: string,
  udpMerge: string,
): Pick<TunFacts, "tcpMerge" | "udpMerge"> {
  return {
    tcpMerge: wanted.tcpMerge ? tcpMerge : BY_CONFIGURATION,
    udpMerge: wanted.udpMerge ? udpMerge : BY_CONFIGURATION,
  };
}

interface Attached {
  readonly fd: number;
  readonly name: string;
}

/** Opens the node and makes the device. */
function attach(name: string, extraFlags: number): Attached {
  const c = libc();
  const fd = c.open(cText(DEVICE).address, C.O_RDWR | C.O_NONBLOCK | C.O_CLOEXEC, 0);
  if (fd < 0) throw openError(name, fd);
  const request = allocate(IFREQ.size);
  request.bytes.set(new TextEncoder().encode(name));
  const flags = C.IFF_TUN | C.IFF_NO_PI | C.IFF_TUN_EXCL | extraFlags;
  request.bytes[IFREQ.flags] = flags;
  request.bytes[IFREQ.flags + 1] = flags >>> 8;
  const result = c.ioctl(fd, C.TUNSETIFF, request.address);
  if (result < 0) {
    c.close(fd);
    throw attachError(name, result);
  }
  return { fd, name: runtime().readText(request.address) };
}

function openError(name: string, result: number): E.FfiError {
  const action = `Cannot open TUN device "${name}": ${DEVICE}`;
  const errno = -result;
  if (errno === E.ENOENT) {
    const hint = `in a container start it with --device ${DEVICE}, elsewhere load the module "tun"`;
    return new E.FfiError("EDGE_TUN_MISSING", `${action} does not exist (ENOENT); ${hint}`, errno);
  }
  if (errno === E.ENODEV || errno === E.ENXIO) {
    const what = `is there, but the kernel has no TUN driver: load the module "tun" (${E.nameOfErrno(errno)})`;
    return new E.FfiError("EDGE_TUN_MISSING", `${action} ${what}`, errno);
  }
  if (errno === E.EACCES || errno === E.EPERM) {
    const what = `may not be opened: ${
      E.describeErrno(errno)
    }; the node's mode, or the device rules of the container or unit`;
    return new E.FfiError("EDGE_TUN_DENIED", `${action} ${what}`, errno);
  }
  return new E.FfiError("EDGE_TUN_FAILED", `${action}: ${E.describeErrno(errno)}`, errno);
}

function attachError(name: string, result: number): E.FfiError {
  const action = `Cannot make TUN device "${name}"`;
  const errno = -result;
  if (errno === E.EPERM || errno === E.EACCES) {
    return new E.FfiError(
      "EDGE_TUN_DENIED",
      `${action}: no capability CAP_NET_ADMIN in this network namespace (${E.nameOfErrno(errno)})`,
      errno,
    );
  }
  if (errno === E.EBUSY) {
    return new E.FfiError(
      "EDGE_TUN_BUSY",
      `${action}: a device of that name exists, perhaps another agent's (EBUSY)`,
      errno,
    );
  }
  return new E.FfiError("EDGE_TUN_FAILED", `${action}: ${E.describeErrno(errno)}`, errno);
}

/** An open device. Belongs to one thread. */
export class TunDevice implements Tun {
  readonly name: string;
  /** for `Waiter` */
  readonly fd: number;
  readonly hasOffload: boolean;
  mergesTcp = false;
  mergesUdp = false;
  offloadChanges = 0;
  #facts: TunFacts;
  /** what the probes said when it was opened: "on", or why not */
  readonly #tcpMergeProbed: string;
  readonly #udpMergeProbed: string;
  readonly #c: Libc;
  /** kept, as C writes into it */
  readonly #arena: Uint8Array;
  readonly #base: number;
  readonly #size: number;
  readonly #iovecs: Memory;
  readonly #words: Int32Array;

  /** @param attached its descriptor is this object's from now on */
  constructor(
    attached: Attached,
    arena: Uint8Array,
    hasOffload: boolean,
    facts: TunFacts,
    tcpMergeProbed = "",
    udpMergeProbed = "",
  ) {
    this.name = attached.name;
    this.fd = attached.fd;
    this.hasOffload = hasOffload;
    this.#facts = facts;
    this.#tcpMergeProbed = tcpMergeProbed;
    this.#udpMergeProbed = udpMergeProbed;
    this.#setFacts(facts);
    this.#c = libc();
    this.#arena = arena;
    this.#base = runtime().pointerOf(arena);
    this.#size = arena.length;
    this.#iovecs = allocate(MAX_PIECES * IOVEC.size);
    this.#words = this.#iovecs.words;
  }

  read(at: number, end: number): number {
    this.#check(at, end);
    const result = this.#c.read(this.fd, this.#base + at, end - at);
    return result === -E.EAGAIN || result === -E.EINTR ? 0 : result;
  }

  write(pieces: Int32Array, count: number): number {
    const base = this.#base;
    if (count === 1) {
      const at = pieces[0]!;
      const end = pieces[1]!;
      this.#check(at, end);
      return this.#c.write(this.fd, base + at, end - at);
    }
    if (!(count > 1 && count <= MAX_PIECES && 2 * count <= pieces.length)) {
      throw new RangeError(`Cannot write ${count} pieces: not 1 to ${MAX_PIECES}`);
    }
    const words = this.#words;
    for (let i = 0; i < count; i++) {
      const at = pieces[2 * i]!;
      const end = pieces[2 * i + 1]!;
      this.#check(at, end);
      writeAddress(words, 4 * i, base + at);
      words[4 * i + 2] = end - at;
    }
    return this.#c.writev(this.fd, this.#iovecs.address, count);
  }

  /** As of now. */
  get facts(): TunFacts {
    return this.#facts;
  }

  switchOffload(switches: OffloadSwitches): void {
    if (!this.hasOffload) return this.#setFacts(allOff(switches, "off until a restart: the device was made without"));
    const read = negotiate(this.fd, switches);
    const why = typeof read === "number" ? `as before: ${E.describeErrno(read)}` : "";
    const merges = mergeFacts(switches, this.#tcpMergeProbed, this.#udpMergeProbed);
    this.#setFacts(typeof read === "number" ? { tunTso: why, tunUso: why, ...merges } : { ...read, ...merges });
  }

  refuseMerged(isUdp: boolean, errno: number): void {
    const why = `off, a merged write was refused: ${E.describeErrno(errno)}`;
    this.#setFacts({ ...this.#facts, ...(isUdp ? { udpMerge: why } : { tcpMerge: why }) });
  }

  #setFacts(facts: TunFacts): void {
    this.#facts = facts;
    this.mergesTcp = facts.tcpMerge === "on";
    this.mergesUdp = facts.udpMerge === "on";
    this.offloadChanges++;
  }

  close(): void {
    this.#c.close(this.fd);
  }

  /** C trusts us: a range outside of the arena would be memory that is not ours. */
  #check(at: number, end: number): void {
    if (!(at >= 0 && end >= at && end <= this.#size)) {
      throw new RangeError(`Cannot move [${at}, ${end}): outside of the arena of ${this.#arena.length} octets`);
    }
  }
}
