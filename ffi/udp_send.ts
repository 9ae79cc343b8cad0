/**
 * Sends queued datagrams and runs of them through one socket (bench: `scripts/bench/ffi.ts`). Headers, vectors and control
 * messages are made once; queueing writes a dozen integers.
 *
 * What the kernel refuses is counted and never stops the rest. A run that it refuses as a run is sent again one by one.
 * @see linux/udp.h UDP_SEGMENT
 */
import * as C from "./constants.ts";
import * as E from "./errno.ts";
import { CMSGHDR, IOVEC, MMSGHDR, MSGHDR, POLLFD, SOCKADDR_IN, SOCKADDR_IN6 } from "./layout.ts";
import { type Libc, libc } from "./libc.ts";
import { allocate, type Memory, writeAddress } from "./memory.ts";

/** Entries before the queue flushes itself. */
const QUEUE = 64;
/** One more header, for sending single datagrams of a refused run. */
const SINGLE = QUEUE;
/** Kernels before 6.9 take 64 segments; a run that ours fills is about 45 of 1400 octets anyway. */
export const MAX_SEGMENTS = 64;
/** Largest UDP payload over IPv4; IPv6 would take 20 more. */
const MAX_RUN_BYTES = 65507;
/** Tries after the first, when buffers are full. */
const RETRIES = 3;
/** How long to wait for room in the socket's buffer, each time. */
const ROOM_WAIT_MS = 1;

/** Control of an entry: the segment size (CMSG_SPACE of a u16), then TOS or traffic class (CMSG_SPACE of an int). */
const CMSG_BYTES = 24;
const CONTROL_BYTES = 2 * CMSG_BYTES;

const HEADER_WORDS = MMSGHDR.size / 4;
const CONTROL_WORDS = CONTROL_BYTES / 4;
const CMSG_WORDS = CMSG_BYTES / 4;
const DATA_WORDS = CMSGHDR.size / 4;
const IOVEC_WORDS = IOVEC.size / 4;
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

/** The queue of one socket. Belongs to one thread. */
export class SendQueue {
  /** why runs are sent one by one; `undefined`: they are not */
  segmentOff: string | undefined;
  readonly #c: Libc;
  readonly #fd: number;
  readonly #nameBytes: number;
  readonly #base: number;
  readonly #errors: SendErrors;
  readonly #headers: Memory;
  readonly #iovecs: Memory;
  readonly #controls: Memory;
  readonly #pollfd: Memory;
  /** per entry: at, end, segmentBytes, toAt, trafficClass */
  readonly #entries = new Int32Array(QUEUE * ENTRY_INTS);
  #count = 0;

  /**
   * @param base   address of the arena, which the caller keeps alive
   * @param errors where refused datagrams are counted
   */
  constructor(fd: number, family: number, base: number, segmentOff: string | undefined, errors: SendErrors) {
    const isV6 = family === C.AF_INET6;
    this.segmentOff = segmentOff;
    this.#c = libc();
    this.#fd = fd;
    this.#nameBytes = isV6 ? SOCKADDR_IN6.size : SOCKADDR_IN.size;
    this.#base = base;
    this.#errors = errors;
    this.#headers = allocate((QUEUE + 1) * MMSGHDR.size);
    this.#iovecs = allocate((QUEUE + 1) * IOVEC.size);
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
    writeAddress(words, header + MSGHDR.iov / 4, this.#iovecs.address + i * IOVEC.size);
    words[header + MSGHDR.iovlen / 4] = 1;
    const control = i * CONTROL_WORDS;
    this.#prefillCmsg(control, C.SOL_UDP, C.UDP_SEGMENT, 2);
    if (isV6) this.#prefillCmsg(control + CMSG_WORDS, C.IPPROTO_IPV6, C.IPV6_TCLASS, 4);
    else this.#prefillCmsg(control + CMSG_WORDS, C.IPPROTO_IP, C.IP_TOS, 4);
  }

  #prefillCmsg(at: number, level: number, type: number, dataBytes: number): void {
    const words = this.#controls.words;
    words[at] = CMSGHDR.size + dataBytes;
    words[at + CMSGHDR.level / 4] = level;
    words[at + CMSGHDR.type / 4] = type;
  }

  /** Queues a run as `Underlay.queue` has it; cut where the kernel's limits ask for it. The ranges were checked. */
  queue(at: number, end: number, segmentBytes: number, toAt: number, trafficClass: number): void {
    const step = this.segmentOff === undefined ? runBytes(segmentBytes) : segmentBytes;
    let from = at;
    do {
      const to = end - from > step ? from + step : end;
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

  /** Points header `i` at the octets and writes its control messages: none, one or both. */
  #fill(i: number, at: number, end: number, segmentBytes: number, toAt: number, trafficClass: number): void {
    const words = this.#headers.words;
    const header = i * HEADER_WORDS;
    const control = i * CONTROL_WORDS;
    const isRun = end - at > segmentBytes;
    writeAddress(words, header + MSGHDR.name / 4, this.#base + toAt);
    writeAddress(this.#iovecs.words, i * IOVEC_WORDS, this.#base + at);
    this.#iovecs.words[i * IOVEC_WORDS + IOVEC.length / 4] = end - at;
    if (isRun) this.#controls.words[control + DATA_WORDS] = segmentBytes;
    if (trafficClass !== 0) this.#controls.words[control + CMSG_WORDS + DATA_WORDS] = trafficClass;
    const controlAt = this.#controls.address + i * CONTROL_BYTES + (isRun ? 0 : CMSG_BYTES);
    const controlBytes = (isRun ? CMSG_BYTES : 0) + (trafficClass !== 0 ? CMSG_BYTES : 0);
    writeAddress(words, header + MSGHDR.control / 4, controlBytes === 0 ? 0 : controlAt);
    words[header + MSGHDR.controllen / 4] = controlBytes;
  }

  /** Sends one datagram now, before what is queued. @returns 0 or a negative errno */
  sendAlone(at: number, end: number, toAt: number): number {
    this.#fill(SINGLE, at, end, end - at, toAt, 0);
    const sent = this.#send(SINGLE, 1);
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
      } else if (!this.#isWorthRetry(sent, tries++)) {
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
    if (cannotSegment) this.segmentOff = `a send of several datagrams was refused: ${E.describeErrno(result)}`;
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
      while (sent < 0 && this.#isWorthRetry(sent, tries++)) sent = this.#send(SINGLE, 1);
      if (sent < 0) this.#errors.add(sent, 1);
    }
  }
}

/** Octets of the largest run of datagrams of one size. */
function runBytes(segmentBytes: number): number {
  const segments = Math.min(MAX_SEGMENTS, Math.floor(MAX_RUN_BYTES / segmentBytes));
  return Math.max(1, segments) * segmentBytes;
}
