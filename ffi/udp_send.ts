/**
 * Sends queued datagrams and runs of them through one socket (bench: `scripts/bench/ffi.ts`). Headers, vectors and control
 * messages are made once; queueing writes a dozen integers.
 *
 * What the kernel refuses is counted and never stops the rest. A run that it refuses as a run is sent again one by one; what it
 * refuses to send from the address that the peer spoke to (`underlay_addr.ts`) goes again from any.
 * @see linux/udp.h UDP_SEGMENT
 */
import * as C from "./constants.ts";
import * as E from "./errno.ts";
import { forgetOwnAddress, hasOwnAddress, OWN_ADDRESS_AT } from "../src/ip/underlay_addr.ts";
import {
  CMSGHDR,
  IN6_PKTINFO,
  IN_PKTINFO,
  IOVEC,
  MMSGHDR,
  MSGHDR,
  POLLFD,
  SOCKADDR_IN,
  SOCKADDR_IN6,
} from "./layout.ts";
import { type Libc, libc } from "./libc.ts";
import { allocate, type Memory, writeAddress } from "./memory.ts";

/** Entries before the queue flushes itself. */
const QUEUE = 64;
/** One more header, for sending single datagrams of a refused run. */
const SINGLE = QUEUE;
/** Kernels before 6.9 take 64 segments; a run that ours fills is about 45 of 1400 octets anyway. */
export const MAX_SEGMENTS = 64;
/** Largest UDP payload over IPv4, with room for a filler; IPv6 would take 20 more. */
const MAX_RUN_BYTES = 65506;
/**
 * Kernels with a fault (`hasBrokenSegmentation`) damage runs whose datagrams are all equal. Such a run gets one datagram more, of
 * this one octet, which the receiver drops (`src/datapath/ingress.ts`); runs of fewer than so many go one by one.
 */
const FILLER = 0x07;
const MIN_FILLED_SEGMENTS = 8;
/** Tries after the first, when buffers are full. */
const RETRIES = 3;
/** How long to wait for room in the socket's buffer, each time. */
const ROOM_WAIT_MS = 1;

/**
 * Control of an entry: the segment size (CMSG_SPACE of a u16), TOS or traffic class (CMSG_SPACE of an int), and what to send from
 * (CMSG_SPACE of an in6_pktinfo). An entry shows the kernel a range of them: the second is always there when the third is.
 */
const CMSG_BYTES = 24;
const PKTINFO_BYTES = 40;
const CONTROL_BYTES = 2 * CMSG_BYTES + PKTINFO_BYTES;

const HEADER_WORDS = MMSGHDR.size / 4;
const CONTROL_WORDS = CONTROL_BYTES / 4;
const CMSG_WORDS = CMSG_BYTES / 4;
const DATA_WORDS = CMSGHDR.size / 4;
/** Two vectors for each entry: the datagrams, and the filler. */
const IOVECS_BYTES = 2 * IOVEC.size;
const IOVECS_WORDS = IOVECS_BYTES / 4;
const ENTRY_INTS = 5;

/** Destinations of datagrams that were too big, until somebody asks; more are forgotten. */
const TOO_BIG_KEPT = 16;

/** Datagrams that the kernel refused since start. */
export class SendErrors {
  readonly byErrno = new Map<number, number>();
  total = 0;
  readonly #tooBig = new Int32Array(TOO_BIG_KEPT);
  #tooBigCount = 0;

  /** A run or a datagram to the address at `toAt` was refused with EMSGSIZE. */
  noteTooBig(toAt: number): void {
    if (this.#tooBigCount < TOO_BIG_KEPT && this.#tooBig[this.#tooBigCount - 1] !== toAt) {
      this.#tooBig[this.#tooBigCount++] = toAt;
    }
  }

  /** One of them, or -1. */
  takeTooBig(): number {
    return this.#tooBigCount === 0 ? -1 : this.#tooBig[--this.#tooBigCount]!;
  }

  /** @param errno with either sign */
  add(errno: number, datagrams: number): void {
    const positive = Math.abs(errno);
    this.byErrno.set(positive, (this.byErrno.get(positive) ?? 0) + datagrams);
    this.total += datagrams;
  }
}

/** What a queue must know of its socket. */
export interface QueueSocket {
  readonly fd: number;
  readonly family: number;
  /** why runs are sent one by one */
  readonly segmentOff: string | undefined;
  /** the kernel damages runs of equal datagrams */
  readonly needsFiller: boolean;
}

/** The queue of one socket. Belongs to one thread. */
export class SendQueue {
  /** why runs are sent one by one; `undefined`: they are not */
  segmentOff: string | undefined;
  /** grows when an error switches runs off */
  changes = 0;
  readonly #needsFiller: boolean;
  readonly #arena: Uint8Array;
  readonly #isV6: boolean;
  /** octets of the control message that says what to send from */
  readonly #pktinfoBytes: number;
  readonly #c: Libc;
  readonly #fd: number;
  readonly #nameBytes: number;
  readonly #base: number;
  readonly #errors: SendErrors;
  readonly #headers: Memory;
  readonly #iovecs: Memory;
  readonly #controls: Memory;
  readonly #pollfd: Memory;
  /** kept, as the vectors point to it */
  readonly #filler: Memory;
  /** by header: it says what to send from */
  readonly #hasOwn = new Uint8Array(QUEUE + 1);
  /** per entry: at, end, segmentBytes, toAt, trafficClass */
  readonly #entries = new Int32Array(QUEUE * ENTRY_INTS);
  #count = 0;

  /**
   * @param socket its descriptor stays the caller's
   * @param base   address of the arena
   * @param errors where refused datagrams are counted
   */
  constructor(
    { fd, family, segmentOff, needsFiller }: QueueSocket,
    arena: Uint8Array,
    base: number,
    errors: SendErrors,
  ) {
    const isV6 = family === C.AF_INET6;
    this.segmentOff = segmentOff;
    this.#needsFiller = needsFiller;
    this.#arena = arena;
    this.#isV6 = isV6;
    this.#pktinfoBytes = isV6 ? PKTINFO_BYTES : 32;
    this.#c = libc();
    this.#fd = fd;
    this.#nameBytes = isV6 ? SOCKADDR_IN6.size : SOCKADDR_IN.size;
    this.#base = base;
    this.#errors = errors;
    this.#headers = allocate((QUEUE + 1) * MMSGHDR.size);
    this.#iovecs = allocate((QUEUE + 1) * IOVECS_BYTES);
    this.#filler = allocate(1);
    this.#filler.bytes[0] = FILLER;
    this.#controls = allocate((QUEUE + 1) * CONTROL_BYTES);
    this.#pollfd = allocate(POLLFD.size);
    this.#pollfd.words[0] = fd;
    this.#pollfd.words[1] = C.POLLOUT;
    for (let i = 0; i <= QUEUE; i++) this.#prefill(i, isV6);
  }

  #prefill(i: number, isV6: boolean): void {
    const header = i * HEADER_WORDS;
    const words = this.#headers.words;
    words[header + MSGHDR.namelen / 4] = this.#nameBytes;
    writeAddress(words, header + MSGHDR.iov / 4, this.#iovecs.address + i * IOVECS_BYTES);
    const filler = i * IOVECS_WORDS + IOVEC.size / 4;
    writeAddress(this.#iovecs.words, filler, this.#filler.address);
    this.#iovecs.words[filler + IOVEC.length / 4] = 1;
    const control = i * CONTROL_WORDS;
    this.#prefillCmsg(control, C.SOL_UDP, C.UDP_SEGMENT, 2);
    const pktinfo = control + 2 * CMSG_WORDS;
    if (isV6) {
      this.#prefillCmsg(control + CMSG_WORDS, C.IPPROTO_IPV6, C.IPV6_TCLASS, 4);
      this.#prefillCmsg(pktinfo, C.IPPROTO_IPV6, C.IPV6_PKTINFO, IN6_PKTINFO.size);
    } else {
      this.#prefillCmsg(control + CMSG_WORDS, C.IPPROTO_IP, C.IP_TOS, 4);
      this.#prefillCmsg(pktinfo, C.IPPROTO_IP, C.IP_PKTINFO, IN_PKTINFO.size);
    }
  }

  #prefillCmsg(at: number, level: number, type: number, dataBytes: number): void {
    const words = this.#controls.words;
    words[at] = CMSGHDR.size + dataBytes;
    words[at + CMSGHDR.level / 4] = level;
    words[at + CMSGHDR.type / 4] = type;
  }

  /** Queues a run as `Underlay.queue` has it; cut where the kernel's limits ask for it. The ranges were checked. */
  queue(at: number, end: number, segmentBytes: number, toAt: number, trafficClass: number): void {
    const most = this.segmentOff === undefined ? runBytes(segmentBytes) : segmentBytes;
    let from = at;
    do {
      let to = end - from > most ? from + most : end;
      if (this.#needsFiller && to - from < MIN_FILLED_SEGMENTS * segmentBytes && (to - from) % segmentBytes === 0) {
        to = Math.min(end, from + segmentBytes);
      }
      this.#add(from, to, segmentBytes, toAt, trafficClass);
      from = to;
    } while (from < end);
  }

  #add(at: number, end: number, segmentBytes: number, toAt: number, trafficClass: number): void {
    if (this.#count === QUEUE) this.flush();
    const i = this.#count++;
    const entry = i * ENTRY_INTS;
    const entries = this.#entries;
    entries[entry] = at;
    entries[entry + 1] = end;
    entries[entry + 2] = segmentBytes;
    entries[entry + 3] = toAt;
    entries[entry + 4] = trafficClass;
    this.#fill(i, at, end, segmentBytes, toAt, trafficClass);
  }

  /** Points header `i` at the octets and writes its control messages, those that it needs. */
  #fill(i: number, at: number, end: number, segmentBytes: number, toAt: number, trafficClass: number): void {
    const words = this.#headers.words;
    const header = i * HEADER_WORDS;
    const control = i * CONTROL_WORDS;
    const isRun = end - at > segmentBytes;
    writeAddress(words, header + MSGHDR.name / 4, this.#base + toAt);
    writeAddress(this.#iovecs.words, i * IOVECS_WORDS, this.#base + at);
    this.#iovecs.words[i * IOVECS_WORDS + IOVEC.length / 4] = end - at;
    words[header + MSGHDR.iovlen / 4] = isRun && this.#needsFiller && (end - at) % segmentBytes === 0 ? 2 : 1;
    const hasOwn = hasOwnAddress(this.#arena, toAt);
    this.#hasOwn[i] = hasOwn ? 1 : 0;
    if (isRun) this.#controls.words[control + DATA_WORDS] = segmentBytes;
    if (trafficClass !== 0 || hasOwn) this.#controls.words[control + CMSG_WORDS + DATA_WORDS] = trafficClass;
    if (hasOwn) this.#writeOwn(i, toAt);
    const controlAt = this.#controls.address + i * CONTROL_BYTES + (isRun ? 0 : CMSG_BYTES);
    const controlBytes = (isRun ? CMSG_BYTES : 0) +
      (hasOwn ? CMSG_BYTES + this.#pktinfoBytes : trafficClass !== 0 ? CMSG_BYTES : 0);
    writeAddress(words, header + MSGHDR.control / 4, controlBytes === 0 ? 0 : controlAt);
    words[header + MSGHDR.controllen / 4] = controlBytes;
  }

  /** The interface is left to the routes: when they change, the address is only where answers come from. */
  #writeOwn(i: number, toAt: number): void {
    const { bytes } = this.#controls;
    const data = i * CONTROL_BYTES + 2 * CMSG_BYTES + CMSGHDR.size;
    const to = data + (this.#isV6 ? IN6_PKTINFO.addr : IN_PKTINFO.specDst);
    const from = toAt + OWN_ADDRESS_AT;
    const octets = this.#isV6 ? 16 : 4;
    for (let k = 0; k < octets; k++) bytes[to + k] = this.#arena[from + k]!;
  }

  /**
   * Whether header `i` was refused for what it is sent from, perhaps; if so it says so no longer, nor does the address record, and
   * it may be tried again.
   */
  #dropsOwn(i: number, result: number, toAt: number): boolean {
    if (this.#hasOwn[i] === 0 || !isAboutAddress(result)) return false;
    this.#hasOwn[i] = 0;
    forgetOwnAddress(this.#arena, toAt);
    const controllen = i * HEADER_WORDS + MSGHDR.controllen / 4;
    this.#headers.words[controllen] = this.#headers.words[controllen]! - this.#pktinfoBytes;
    return true;
  }

  /** Sends one datagram now, before what is queued. @returns 0 or a negative errno */
  sendAlone(at: number, end: number, toAt: number): number {
    this.#fill(SINGLE, at, end, end - at, toAt, 0);
    let sent = this.#send(SINGLE, 1);
    if (sent < 0 && this.#dropsOwn(SINGLE, sent, toAt)) sent = this.#send(SINGLE, 1);
    return sent < 0 ? sent : 0;
  }

  /** Sends all that is queued. */
  flush(): void {
    const count = this.#count;
    let from = 0;
    let tries = 0;
    while (from < count) {
      const sent = this.#send(from, count - from);
      if (sent > 0) {
        from += sent;
        tries = 0;
      } else if (this.#dropsOwn(from, sent, this.#entries[from * ENTRY_INTS + 3]!)) tries = 0;
      else if (!this.#isWorthRetry(sent, tries++)) {
        this.#refused(from++, sent);
        tries = 0;
      }
    }
    this.#count = 0;
  }

  /** @returns how many headers from `from` on were sent, or a negative errno, which is that of header `from` */
  #send(from: number, count: number): number {
    const address = this.#headers.address + from * MMSGHDR.size;
    if (count > 1) {
      const sent = this.#c.sendmmsg(this.#fd, address, count, 0);
      return sent === 0 ? -E.EAGAIN : sent;
    }
    const result = this.#c.sendmsg(this.#fd, address, 0);
    return result < 0 ? result : 1;
  }

  #isWorthRetry(result: number, tries: number): boolean {
    if (tries >= RETRIES) return false;
    if (result === -E.EAGAIN) this.#c.poll(this.#pollfd.address, 1, ROOM_WAIT_MS);
    return result === -E.EAGAIN || result === -E.ENOBUFS || result === -E.ENOMEM || result === -E.EINTR;
  }

  /** Entry `i` cannot be sent as it is. */
  #refused(i: number, result: number): void {
    const entry = i * ENTRY_INTS;
    const entries = this.#entries;
    const at = entries[entry]!;
    const end = entries[entry + 1]!;
    const segmentBytes = entries[entry + 2]!;
    if (result === -E.EMSGSIZE) this.#errors.noteTooBig(entries[entry + 3]!);
    if (end - at <= segmentBytes) return this.#errors.add(result, 1);
    // EIO, EINVAL: this device or kernel cannot do runs. EMSGSIZE: too big for the path unless fragmented, which runs never are.
    const cannotSegment = result === -E.EIO || result === -E.EINVAL;
    if (cannotSegment && this.segmentOff === undefined) {
      this.segmentOff = `a send of several datagrams was refused: ${E.describeErrno(result)}`;
      this.changes++;
    }
    if (cannotSegment || result === -E.EMSGSIZE) this.#sendSingly(at, end, segmentBytes, entry);
    else this.#errors.add(result, Math.ceil((end - at) / segmentBytes));
  }

  #sendSingly(at: number, end: number, segmentBytes: number, entry: number): void {
    const toAt = this.#entries[entry + 3]!;
    const trafficClass = this.#entries[entry + 4]!;
    for (let from = at; from < end; from += segmentBytes) {
      const to = Math.min(end, from + segmentBytes);
      this.#fill(SINGLE, from, to, segmentBytes, toAt, trafficClass);
      let tries = 0;
      let sent = this.#send(SINGLE, 1);
      if (sent < 0 && this.#dropsOwn(SINGLE, sent, toAt)) sent = this.#send(SINGLE, 1);
      while (sent < 0 && this.#isWorthRetry(sent, tries++)) sent = this.#send(SINGLE, 1);
      if (sent < 0) this.#errors.add(sent, 1);
    }
  }
}

/** What the kernel says when a source address is none of the machine's, or of no use for the way there. */
function isAboutAddress(result: number): boolean {
  return result === -E.EINVAL || result === -E.EADDRNOTAVAIL || result === -E.ENETUNREACH ||
    result === -E.EHOSTUNREACH || result === -E.ENODEV;
}

/** Octets of the largest run of datagrams of one size. */
function runBytes(segmentBytes: number): number {
  const segments = Math.min(MAX_SEGMENTS, Math.floor(MAX_RUN_BYTES / segmentBytes));
  return Math.max(1, segments) * segmentBytes;
}
