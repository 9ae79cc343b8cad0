/** The two doors of the datapath, as doubles: a TUN that is two queues, and an underlay on a FakeNetwork. */
import {
  formatUnderlayAddr,
  parseUnderlayAddr,
  readUnderlayAddr,
  writeUnderlayAddr,
} from "../../src/ip/underlay_addr.ts";
import type { OffloadSwitches, ReceivedRun, Tun, Underlay } from "../../src/ports.ts";
import type { FakeNetwork } from "./network.ts";

export class FakeTun implements Tun {
  readonly name = "fake0";
  readonly hasOffload: boolean;
  mergesTcp: boolean;
  mergesUdp: boolean;
  offloadChanges = 0;
  /** superpackets are refused with this, 0 = accepted */
  mergedErrno = 0;
  /** packets that the machine sends: virtio header first when `hasOffload` */
  readonly toRead: Uint8Array[] = [];
  /** packets that were delivered to the machine, whole */
  readonly written: Uint8Array[] = [];
  /** answer for the next writes, 0 = accept */
  errno = 0;
  readonly #arena: Uint8Array;

  constructor(arena: Uint8Array, offload = false) {
    this.#arena = arena;
    this.hasOffload = offload;
    this.mergesTcp = offload;
    this.mergesUdp = offload;
  }

  read(at: number, end: number): number {
    const packet = this.toRead.shift();
    if (packet === undefined) return 0;
    const octets = Math.min(packet.length, end - at);
    this.#arena.set(packet.subarray(0, octets), at);
    return octets;
  }

  write(pieces: Int32Array, count: number): number {
    if (this.errno !== 0) return -this.errno;
    if (this.mergedErrno !== 0 && count > 1) return -this.mergedErrno;
    const parts: number[] = [];
    for (let i = 0; i < count; i++) parts.push(...this.#arena.slice(pieces[2 * i], pieces[2 * i + 1]));
    this.written.push(Uint8Array.from(parts));
    return parts.length;
  }

  switchOffload({ tcpMerge, udpMerge }: OffloadSwitches): void {
    this.mergesTcp = tcpMerge && this.hasOffload;
    this.mergesUdp = udpMerge && this.hasOffload;
    this.offloadChanges++;
  }

  refuseMerged(isUdp: boolean): void {
    if (isUdp) this.mergesUdp = false;
    else this.mergesTcp = false;
    this.offloadChanges++;
  }

  close(): void {}
}

const RECORD_BYTES = 64;
const SLOT_BYTES = 65536;

export class FakeUnderlay implements Underlay {
  readonly port = 51871;
  readonly hasSegmentation: boolean;
  readonly maxSegments: number;
  readonly received: ReceivedRun[];
  readonly sendErrors = new Map<number, number>();
  readonly sendErrorCount = 0;
  /** this node's underlay address, `a.b.c.d:port` */
  address: string;
  readonly #arena: Uint8Array;
  readonly #network: FakeNetwork;
  readonly #receiveAt: number;
  #queued: { at: number; end: number; segmentBytes: number; to: string }[] = [];
  #backlog: { bytes: Uint8Array; from: string }[] = [];

  constructor(
    arena: Uint8Array,
    network: FakeNetwork,
    address: string,
    receiveAt: number,
    slots: number,
    maxSegments = 64,
  ) {
    this.#arena = arena;
    this.#network = network;
    this.address = address;
    this.#receiveAt = receiveAt;
    this.maxSegments = maxSegments;
    this.hasSegmentation = maxSegments > 1;
    this.received = Array.from(
      { length: slots },
      () => ({ at: 0, end: 0, segmentBytes: 0, fromAt: 0, ecn: 0, isTruncated: false }),
    );
  }

  /** Puts a datagram into the receive queue as if it came from `from`. */
  inject(from: string, bytes: Uint8Array): void {
    this.#backlog.push({ bytes, from });
  }

  /** Whether `receive` would find something. */
  get isReadable(): boolean {
    this.#collect();
    return this.#backlog.length > 0;
  }

  /** Datagrams of one size from one source that follow each other come as one run, as UDP GRO gives them. */
  receive(): number {
    this.#collect();
    let count = 0;
    while (count < this.received.length && this.#backlog.length > 0) {
      const first = this.#backlog.shift()!;
      const at = this.#receiveAt + count * (SLOT_BYTES + RECORD_BYTES);
      this.#arena.set(first.bytes, at);
      let end = at + first.bytes.length;
      for (let isOpen = this.hasSegmentation; isOpen && this.#backlog.length > 0;) {
        const next = this.#backlog[0]!;
        isOpen = next.from === first.from && next.bytes.length <= first.bytes.length &&
          end + next.bytes.length <= at + SLOT_BYTES;
        if (!isOpen) break;
        this.#backlog.shift();
        this.#arena.set(next.bytes, end);
        end += next.bytes.length;
        isOpen = next.bytes.length === first.bytes.length;
      }
      const fromAt = at + SLOT_BYTES;
      writeUnderlayAddr(this.#arena, fromAt, parseUnderlayAddr(first.from)!);
      Object.assign(this.received[count]!, {
        at,
        end,
        segmentBytes: first.bytes.length,
        fromAt,
        ecn: 0,
        isTruncated: false,
      });
      count++;
    }
    return count;
  }

  /** traffic class of each run that was queued */
  readonly classes: number[] = [];

  queue(at: number, end: number, segmentBytes: number, toAt: number, trafficClass: number): void {
    this.classes.push(trafficClass);
    const to = readUnderlayAddr(this.#arena, toAt);
    if (to === undefined) throw new Error("queued to a record without an address");
    if (end - at > segmentBytes * this.maxSegments) throw new Error("queued more segments than the socket takes");
    this.#queued.push({ at, end, segmentBytes, to: formatUnderlayAddr(to) });
  }

  /** arena offsets that `takeTooBig` gives */
  readonly tooBig: number[] = [];
  /** errno of the next whole sends that are longer than this allows */
  deviceBytes = 65535;

  sendWhole(at: number, end: number, toAt: number): number {
    const to = readUnderlayAddr(this.#arena, toAt);
    if (to === undefined) return -97; // EAFNOSUPPORT
    if (end - at + (to.address.length === 4 ? 28 : 48) > this.deviceBytes) return -90; // EMSGSIZE
    this.#network.send(this.address, formatUnderlayAddr(to), this.#arena.slice(at, end), true);
    return 0;
  }

  offloadChanges = 0;
  /** what it was told last */
  switches: OffloadSwitches | undefined;

  switchOffload(switches: OffloadSwitches): void {
    this.switches = switches;
    this.offloadChanges++;
  }

  takeTooBig(): number {
    return this.tooBig.pop() ?? -1;
  }

  flush(): void {
    for (const { at, end, segmentBytes, to } of this.#queued) {
      for (let from = at; from < end; from += segmentBytes) {
        this.#network.send(this.address, to, this.#arena.slice(from, Math.min(end, from + segmentBytes)));
      }
    }
    this.#queued = [];
  }

  close(): void {}

  #collect(): void {
    for (const { bytes, from } of this.#network.take(this.address)) this.#backlog.push({ bytes, from });
  }
}
