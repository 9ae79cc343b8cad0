/**
 * Receives batches of datagrams into slots of the arena (bench: `scripts/bench/ffi.ts`). All headers are made once; a call
 * only resets what the kernel wrote over, walks the control messages, and fills records that exist.
 */
import type { ReceivedRun } from "../src/ports.ts";
import { OWN_ADDRESS_AT, UNDERLAY_ADDR_BYTES } from "../src/ip/underlay_addr.ts";
import * as C from "./constants.ts";
import { EAGAIN, EINTR } from "./errno.ts";
import { alignCmsg, CMSGHDR, IN6_PKTINFO, IN_PKTINFO, IOVEC, MMSGHDR, MSGHDR, SOCKADDR_IN6 } from "./layout.ts";
import { type Libc, libc } from "./libc.ts";
import { allocate, type Memory, writeAddress } from "./memory.ts";
import { runtime } from "./runtime/index.ts";

/** One slot. A merged run is up to 65535 octets, and the kernel cuts off what does not fit. */
export const SLOT_BYTES = 65536;
/** Room for control messages: UDP_GRO 24, TOS or traffic class 24, PKTINFO 40, and whatever a later kernel adds. */
const CONTROL_BYTES = 128;

// word offsets inside a header
const HEADER_WORDS = MMSGHDR.size / 4;
const NAMELEN = MSGHDR.namelen / 4;
const CONTROLLEN = MSGHDR.controllen / 4;
const FLAGS = MSGHDR.flags / 4;
const LENGTH = MMSGHDR.length / 4;

/** Octets of the arena that `slots` slots take: the slots, then one address record for each. */
export function receiveBytes(slots: number): number {
  return slots * (SLOT_BYTES + UNDERLAY_ADDR_BYTES);
}

/** Slots, headers and the records of what was received. Belongs to one thread. */
export class Receiver {
  readonly received: readonly ReceivedRun[];
  readonly #c: Libc;
  readonly #arena: Uint8Array;
  readonly #slots: number;
  readonly #slotsAt: number;
  readonly #recordsAt: number;
  readonly #headers: Memory;
  readonly #controls: Memory;
  /** kept, as the headers point to it */
  readonly #iovecs: Memory;

  /** @param at offset of the first slot; a multiple of 8 */
  constructor(arena: Uint8Array, at: number, slots: number) {
    if (!(Number.isInteger(slots) && slots >= 1 && slots <= 1024)) {
      throw new RangeError(`Cannot receive into ${slots} slots: not 1 to 1024`);
    }
    if (!(at >= 0 && at % 8 === 0 && at + receiveBytes(slots) <= arena.length)) {
      throw new RangeError(`Cannot receive into ${slots} slots at ${at}: outside of the arena, or not a multiple of 8`);
    }
    this.#c = libc();
    this.#arena = arena;
    this.#slots = slots;
    this.#slotsAt = at;
    this.#recordsAt = at + slots * SLOT_BYTES;
    this.#headers = allocate(slots * MMSGHDR.size);
    this.#controls = allocate(slots * CONTROL_BYTES);
    this.#iovecs = allocate(slots * IOVEC.size);
    this.received = Array.from({ length: slots }, () => ({
      at: 0,
      end: 0,
      segmentBytes: 0,
      fromAt: 0,
      ecn: 0,
      isTruncated: false,
    }));
    this.#prefill(runtime().pointerOf(arena));
  }

  #prefill(base: number): void {
    for (let i = 0; i < this.#slots; i++) {
      const header = i * HEADER_WORDS;
      const words = this.#headers.words;
      writeAddress(words, header + MSGHDR.name / 4, base + this.#recordsAt + i * UNDERLAY_ADDR_BYTES);
      writeAddress(words, header + MSGHDR.iov / 4, this.#iovecs.address + i * IOVEC.size);
      words[header + MSGHDR.iovlen / 4] = 1;
      writeAddress(words, header + MSGHDR.control / 4, this.#controls.address + i * CONTROL_BYTES);
      writeAddress(this.#iovecs.words, (i * IOVEC.size) / 4, base + this.#slotsAt + i * SLOT_BYTES);
      this.#iovecs.words[(i * IOVEC.size + IOVEC.length) / 4] = SLOT_BYTES;
      this.#reset(header);
    }
  }

  /** What the kernel reads as room and writes as use. */
  #reset(header: number): void {
    const words = this.#headers.words;
    words[header + NAMELEN] = SOCKADDR_IN6.size;
    words[header + CONTROLLEN] = CONTROL_BYTES;
    words[header + FLAGS] = 0;
  }

  /**
   * Receives from a socket into the slots from `from` on.
   * @returns how many slots were filled, or a negative errno; 0 also when `from` is past the last slot
   */
  receive(fd: number, from: number): number {
    const free = this.#slots - from;
    if (free <= 0) return 0;
    const count = this.#c.recvmmsg(fd, this.#headers.address + from * MMSGHDR.size, free, C.MSG_DONTWAIT);
    if (count < 0) return count === -EAGAIN || count === -EINTR ? 0 : count;
    for (let i = from; i < from + count; i++) this.#record(i);
    return count;
  }

  #record(i: number): void {
    const words = this.#headers.words;
    const header = i * HEADER_WORDS;
    const run = this.received[i]!;
    const bytes = words[header + LENGTH]!;
    const flags = words[header + FLAGS]!;
    const at = this.#slotsAt + i * SLOT_BYTES;
    run.at = at;
    run.end = at + bytes;
    run.segmentBytes = bytes;
    run.fromAt = this.#recordsAt + i * UNDERLAY_ADDR_BYTES;
    run.ecn = 0;
    // without the segment size a run cannot be told from one datagram
    run.isTruncated = (flags & (C.MSG_TRUNC | C.MSG_CTRUNC)) !== 0;
    this.#clearTail(run.fromAt);
    this.#readControl(i * CONTROL_BYTES, words[header + CONTROLLEN]!, run);
    this.#reset(header);
  }

  /** Takes what is known from the control messages, in whatever order; a length that makes no sense ends the walk. */
  #readControl(at: number, bytes: number, run: ReceivedRun): void {
    const words = this.#controls.words;
    const octets = this.#controls.bytes;
    const end = at + bytes;
    while (at + CMSGHDR.size <= end) {
      const length = words[at >> 2]!;
      if (length <= CMSGHDR.size || at + length > end) return;
      const level = words[(at + CMSGHDR.level) >> 2]!;
      const type = words[(at + CMSGHDR.type) >> 2]!;
      const data = at + CMSGHDR.size;
      if (level === C.SOL_UDP && type === C.UDP_GRO) {
        const size = words[data >> 2]! & 0xffff;
        if (size > 0 && size < run.segmentBytes) run.segmentBytes = size;
      } else if (
        // IPv4 gives one octet, IPv6 an int: the low octet is first in both
        (level === C.IPPROTO_IP && type === C.IP_TOS) || (level === C.IPPROTO_IPV6 && type === C.IPV6_TCLASS)
      ) run.ecn = octets[data]! & 3;
      else if (level === C.IPPROTO_IP && type === C.IP_PKTINFO) this.#noteOwn(run.fromAt, data + IN_PKTINFO.specDst, 4);
      else if (level === C.IPPROTO_IPV6 && type === C.IPV6_PKTINFO) {
        this.#noteOwn(run.fromAt, data + IN6_PKTINFO.addr, 16);
      }
      at += alignCmsg(length);
    }
  }

  /** Copies the address that was spoken to, from the control messages to the record. */
  #noteOwn(recordAt: number, from: number, bytes: number): void {
    const to = recordAt + OWN_ADDRESS_AT;
    for (let i = 0; i < bytes; i++) this.#arena[to + i] = this.#controls.bytes[from + i]!;
  }

  /** The kernel fills 16 or 28 octets; records are compared whole, and flow labels and padding say nothing about a peer. */
  #clearTail(at: number): void {
    const arena = this.#arena;
    if (arena[at] === C.AF_INET) { for (let i = 8; i < UNDERLAY_ADDR_BYTES; i++) arena[at + i] = 0; }
    else {
      for (let i = 4; i < 8; i++) arena[at + i] = 0;
      for (let i = 28; i < UNDERLAY_ADDR_BYTES; i++) arena[at + i] = 0;
    }
  }
}
