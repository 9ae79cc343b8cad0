/**
 * The underlay: what the datapath sends sealed datagrams through. Two sockets behind one door, in batches, with the kernel's
 * segmentation (UDP_SEGMENT) and merging (UDP_GRO) where it has them.
 *
 * Read `udp_socket.ts` for how the sockets are made, `udp_receive.ts` and `udp_send.ts` for the two directions.
 */
import type { IpAddress } from "../src/ip/address.ts";
import { FAMILY_IPV4, FAMILY_IPV6, familyOf, UNDERLAY_ADDR_BYTES } from "../src/ip/underlay_addr.ts";
import type { OffloadSwitches, ReceivedRun, Underlay } from "../src/ports.ts";
import { EAFNOSUPPORT } from "./errno.ts";
import { type Libc, libc } from "./libc.ts";
import { runtime } from "./runtime/index.ts";
import { Receiver } from "./udp_receive.ts";
import { MAX_SEGMENTS, SendErrors, SendQueue } from "./udp_send.ts";
import {
  BY_CONFIGURATION,
  hasWaiting,
  openUdpSockets,
  setDiscovery,
  switchGro,
  switchSegmentation,
  type UdpSocket,
  type UdpSockets,
} from "./udp_socket.ts";

export { receiveBytes, SLOT_BYTES } from "./udp_receive.ts";

export interface UnderlayOptions {
  /** 0: any that is free in both families */
  readonly port: number;
  /** from `makeArena`; all offsets are into it */
  readonly arena: Uint8Array;
  /** where the `receiveBytes(slots)` octets start that are received into; a multiple of 8 */
  readonly receiveAt: number;
  /** most runs of one `receive`, each of up to 64 KiB */
  readonly slots: number;
  /** socket buffer asked for in each direction and family */
  readonly bufferBytes: number;
  /** use UDP_SEGMENT where it works */
  readonly segmentation: boolean;
  /** use UDP_GRO where it works; as `segmentation` when absent */
  readonly gro?: boolean;
  /** SO_MARK of all packets; needs CAP_NET_ADMIN */
  readonly mark?: number;
  /** bind to this address, and have one family only; absent: any address of both */
  readonly address?: IpAddress;
}

/** What the sockets can do and why not, for `OffloadFacts` of `src/datapath/control.ts`. */
export interface UnderlayFacts {
  readonly udpSegment: string;
  readonly udpGro: string;
  /** of the smaller socket, as the kernel counts: twice what packets may fill */
  readonly receiveBufferBytes: number;
  readonly sendBufferBytes: number;
  readonly ipv6: boolean;
}

/**
 * Opens the underlay.
 * @throws FfiError as `openUdpSockets` does; RangeError for slots that do not fit the arena
 */
export function openUnderlay(options: UnderlayOptions): UdpUnderlay {
  const receiver = new Receiver(options.arena, options.receiveAt, options.slots);
  const sockets = openUdpSockets({
    port: options.port,
    bufferBytes: options.bufferBytes,
    segmentation: options.segmentation,
    gro: options.gro ?? options.segmentation,
    ...(options.mark === undefined ? {} : { mark: options.mark }),
    ...(options.address === undefined ? {} : { address: options.address }),
  });
  return new UdpUnderlay(sockets, receiver, options.arena);
}

/** The open sockets. Belongs to one thread. */
export class UdpUnderlay implements Underlay {
  readonly port: number;
  readonly received: readonly ReceivedRun[];
  readonly sendErrors: ReadonlyMap<number, number>;
  /** for `Waiter` */
  readonly fds: readonly number[];
  readonly #c: Libc;
  readonly #arena: Uint8Array;
  /** for another thread of the process (`udp_shared.ts`); they stay this one's to close */
  readonly sockets: UdpSockets;
  readonly #receiver: Receiver;
  readonly #errors = new SendErrors();
  readonly #v4: SendQueue | undefined;
  readonly #v6: SendQueue | undefined;
  /** why GRO is off, by family */
  #groOff4: string | undefined;
  #groOff6: string | undefined;
  /** sockets whose GRO goes off as soon as nothing waits on them: without it what was merged could not be told apart */
  #lateGro: readonly UdpSocket[] = [];
  #switches = 0;
  /** which socket is asked first, in turns: a busy one must not starve the other */
  #isV6First = false;

  constructor(sockets: UdpSockets, receiver: Receiver, arena: Uint8Array) {
    this.#c = libc();
    this.#arena = arena;
    this.sockets = sockets;
    this.#receiver = receiver;
    const base = runtime().pointerOf(arena);
    const queueOf = (socket: UdpSocket) => new SendQueue(socket, arena, base, this.#errors);
    this.#groOff4 = sockets.v4?.groOff;
    this.#groOff6 = sockets.v6?.groOff;
    this.#v4 = sockets.v4 && queueOf(sockets.v4);
    this.#v6 = sockets.v6 && queueOf(sockets.v6);
    this.port = sockets.port;
    this.received = receiver.received;
    this.sendErrors = this.#errors.byErrno;
    this.fds = [sockets.v4, sockets.v6].filter((socket) => socket !== undefined).map((socket) => socket.fd);
  }

  /** Runs are taken all the same when this turns false, and sent one by one. */
  get hasSegmentation(): boolean {
    return (this.#v4 !== undefined && this.#v4.segmentOff === undefined) ||
      (this.#v6 !== undefined && this.#v6.segmentOff === undefined);
  }

  get maxSegments(): number {
    return this.hasSegmentation ? MAX_SEGMENTS : 1;
  }

  get sendErrorCount(): number {
    return this.#errors.total;
  }

  /** As of now: a run that the kernel refuses switches `udpSegment` off. */
  get facts(): UnderlayFacts {
    const { v4, v6 } = this.sockets;
    const smaller = (of: (socket: UdpSocket) => number) => Math.min(v4 ? of(v4) : Infinity, v6 ? of(v6) : Infinity);
    const segment = factOf(v4, this.#v4?.segmentOff, v6, this.#v6?.segmentOff);
    const isFilled = segment === "on" && (v4 ?? v6)!.needsFiller;
    return {
      udpSegment: isFilled ? "on, with a filler behind equal datagrams: Linux 7.0 to 7.1.4 damages such runs" : segment,
      udpGro: factOf(v4, this.#groOff4, v6, this.#groOff6),
      receiveBufferBytes: smaller((socket) => socket.receiveBufferBytes),
      sendBufferBytes: smaller((socket) => socket.sendBufferBytes),
      ipv6: v6 !== undefined,
    };
  }

  receive(): number {
    if (this.#lateGro.length > 0) this.#endGro();
    const { v4, v6 } = this.sockets;
    if (v6 === undefined || v4 === undefined) return this.#receiver.receive((v4 ?? v6)!.fd, 0);
    const isV6First = this.#isV6First;
    this.#isV6First = !isV6First;
    const first = this.#receiver.receive(isV6First ? v6.fd : v4.fd, 0);
    const second = this.#receiver.receive(isV6First ? v4.fd : v6.fd, first > 0 ? first : 0);
    if (first < 0) return second > 0 ? second : first;
    return second < 0 && first === 0 ? second : first + (second > 0 ? second : 0);
  }

  queue(at: number, end: number, segmentBytes: number, toAt: number, trafficClass: number): void {
    this.#checkRange(at, end, toAt);
    if (!(segmentBytes > 0 && segmentBytes <= 65535 || end === at)) {
      throw new RangeError(`Cannot send datagrams of ${segmentBytes} octets`);
    }
    const family = familyOf(this.#arena, toAt);
    const queue = family === FAMILY_IPV4 ? this.#v4 : family === FAMILY_IPV6 ? this.#v6 : undefined;
    if (queue !== undefined) queue.queue(at, end, segmentBytes, toAt, trafficClass & 0xff);
    else {
      const datagrams = Math.max(1, Math.ceil((end - at) / segmentBytes));
      this.#errors.add(EAFNOSUPPORT, datagrams);
    }
  }

  sendWhole(at: number, end: number, toAt: number): number {
    this.#checkRange(at, end, toAt);
    const isV6 = familyOf(this.#arena, toAt) === FAMILY_IPV6;
    const socket = isV6 ? this.sockets.v6 : this.sockets.v4;
    const queue = isV6 ? this.#v6 : this.#v4;
    if (socket === undefined || queue === undefined) return -EAFNOSUPPORT;
    setDiscovery(socket.fd, socket.family, true);
    const result = queue.sendAlone(at, end, toAt);
    setDiscovery(socket.fd, socket.family, false);
    return result;
  }

  /** What was merged and waits is still received as what it is. */
  switchOffload({ udpGso, udpGro }: OffloadSwitches): void {
    const { v4, v6 } = this.sockets;
    this.#switches++;
    if (this.#v4 !== undefined) this.#v4.segmentOff = switchSegmentation(v4!.fd, udpGso);
    if (this.#v6 !== undefined) this.#v6.segmentOff = switchSegmentation(v6!.fd, udpGso);
    this.#lateGro = udpGro ? [] : [v4, v6].filter((socket) => socket !== undefined);
    if (v4 !== undefined) this.#groOff4 = udpGro ? switchGro(v4.fd, true) : BY_CONFIGURATION;
    if (v6 !== undefined) this.#groOff6 = udpGro ? switchGro(v6.fd, true) : BY_CONFIGURATION;
    this.#endGro();
  }

  #endGro(): void {
    this.#lateGro = this.#lateGro.filter((socket) => {
      const isLate = hasWaiting(socket.fd);
      if (!isLate) switchGro(socket.fd, false);
      return isLate;
    });
  }

  get offloadChanges(): number {
    return this.#switches + (this.#v4?.changes ?? 0) + (this.#v6?.changes ?? 0);
  }

  takeTooBig(): number {
    return this.#errors.takeTooBig();
  }

  /** C trusts us: a range outside of the arena would be memory that is not ours. */
  #checkRange(at: number, end: number, toAt: number): void {
    const size = this.#arena.length;
    if (at >= 0 && end >= at && end <= size && toAt >= 0 && toAt + UNDERLAY_ADDR_BYTES <= size) return;
    throw new RangeError(
      `Cannot send [${at}, ${end}) to the address at ${toAt}: outside of the arena of ${size} octets`,
    );
  }

  flush(): void {
    if (this.#lateGro.length > 0) this.#endGro(); // there may be somebody else who receives (`udp_shared.ts`)
    if (this.#v4 !== undefined) this.#v4.flush();
    if (this.#v6 !== undefined) this.#v6.flush();
  }

  close(): void {
    for (const fd of this.fds) this.#c.close(fd);
  }
}

/** @param off4 why it is off for the IPv4 socket, if there is one; undefined: on */
function factOf(
  v4: UdpSocket | undefined,
  off4: string | undefined,
  v6: UdpSocket | undefined,
  off6: string | undefined,
): string {
  if (v4 === undefined || v6 === undefined || (off4 === undefined) === (off6 === undefined)) {
    const off = off4 ?? off6;
    return off === undefined ? "on" : `off, ${off}`;
  }
  return off4 === undefined ? `on for IPv4; off for IPv6, ${off6}` : `on for IPv6; off for IPv4, ${off4}`;
}
