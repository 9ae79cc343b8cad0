/**
 * The last dropped packets, for `monitor --drops`: who, to whom, why. A fixed ring of numbers, so that a flood of drops costs
 * nothing but itself; text is made when somebody asks.
 */
import { formatAddress, type IpAddress } from "../ip/address.ts";
import type { Verdict } from "../verdict.ts";
import type { PacketInfo } from "../wire/packet.ts";
import type { DropRecord } from "./control.ts";
import { type Direction, INGRESS } from "./counters.ts";

const CAPACITY = 256;
const ADDRESS_BYTES = 16;
const FIELDS = 7;

export class DropRing {
  readonly #addresses = new Uint8Array(CAPACITY * 2 * ADDRESS_BYTES);
  readonly #unixMs = new Float64Array(CAPACITY);
  /** direction, verdict, version (0: no packet was read), protocol, source port, destination port, identity */
  readonly #fields = new Int32Array(CAPACITY * FIELDS);
  #count = 0;

  /**
   * @param packet what was read of it, or `undefined` when it could not be read
   * @param identity of the other side, 0 when unknown
   */
  add(
    unixMs: number,
    direction: Direction,
    verdict: Verdict,
    bytes: Uint8Array,
    packet: PacketInfo | undefined,
    identity: number,
  ): void {
    const slot = this.#count++ % CAPACITY;
    const fields = this.#fields;
    let at = slot * FIELDS;
    this.#unixMs[slot] = unixMs;
    fields[at++] = direction;
    fields[at++] = verdict;
    fields[at++] = packet === undefined ? 0 : packet.version;
    if (packet === undefined) {
      fields.fill(0, at, at + 4);
      return;
    }
    const isIcmp = packet.protocol === 1 || packet.protocol === 58;
    fields[at++] = packet.protocol;
    fields[at++] = packet.sourcePort;
    fields[at++] = isIcmp ? packet.icmpType : packet.destinationPort;
    fields[at++] = identity;
    const octets = packet.version === 4 ? 4 : 16;
    const to = slot * 2 * ADDRESS_BYTES;
    for (let i = 0; i < octets; i++) {
      this.#addresses[to + i] = bytes[packet.sourceAt + i]!;
      this.#addresses[to + ADDRESS_BYTES + i] = bytes[packet.destinationAt + i]!;
    }
  }

  /** The records kept, oldest first. Allocates: for the control thread's questions. */
  list(): DropRecord[] {
    const records: DropRecord[] = [];
    for (let n = Math.max(0, this.#count - CAPACITY); n < this.#count; n++) records.push(this.#read(n % CAPACITY));
    return records;
  }

  #read(slot: number): DropRecord {
    const [direction, verdict, version, protocol, sourcePort, destinationPort, identity] = this.#fields.subarray(
      slot * FIELDS,
      (slot + 1) * FIELDS,
    ) as unknown as number[];
    const record: DropRecord = {
      unixMs: this.#unixMs[slot]!,
      direction: direction === INGRESS ? "ingress" : "egress",
      verdict: verdict!,
      protocol: protocol!,
      sourcePort: sourcePort!,
      destinationPort: destinationPort!,
      identity: identity!,
    };
    if (version === 0) return record;
    const octets = version === 4 ? 4 : 16;
    const at = slot * 2 * ADDRESS_BYTES;
    const address = (from: number): IpAddress => this.#addresses.slice(from, from + octets);
    return { ...record, source: formatAddress(address(at)), destination: formatAddress(address(at + ADDRESS_BYTES)) };
  }
}
