/**
 * Which flow a handle stands for, in memory that both threads see: the datapath writes a record before the first packet of the flow
 * reaches the proxy, the proxies on the control thread read it when they accept.
 *
 * One record of 16 words for each of the 4096 flows that may be redirected at a time:
 *
 *     0       odd while it is being written; counts up otherwise
 *     1       handle, 0 = no flow
 *     2       direction | version | protocol
 *     3       port of the opener | port of the other side
 *     4       identity of the other side
 *     5 to 8  address of the opener; IPv4 in the first word
 *     9 to 12 address of the other side
 *
 * A handle is a port number: its lower 12 bits are the record, the upper 4, never 0, tell the uses of a record apart.
 */
import { readI32 } from "../bytes/integers.ts";
import { formatAddress } from "../ip/address.ts";

/** Flows that may be redirected at a time. */
export const MAX_REDIRECTED = 4096;
/** Handles are FIRST_HANDLE to 65535: each record has 15. */
export const FIRST_HANDLE = MAX_REDIRECTED;
export const GENERATIONS = 15;

const RECORD_WORDS = 16;
const READ_TRIES = 16;

/** A flow that was handed to a proxy, by its real addresses. */
export interface RedirectedFlow {
  /** who opened it */
  readonly from: { readonly address: string; readonly port: number };
  readonly to: { readonly address: string; readonly port: number };
  readonly protocol: 6 | 17;
  /** direction that opened it, seen from this node: INGRESS 0 or EGRESS 1 */
  readonly direction: 0 | 1;
  /** what policy judges the other side by */
  readonly identity: number;
}

/** The slot that a handle belongs to; any number gives one, whose handle has to be compared. */
export function slotOfHandle(handle: number): number {
  return handle & (MAX_REDIRECTED - 1);
}

export class RedirectView {
  static readonly bytes = MAX_REDIRECTED * RECORD_WORDS * 4;

  readonly #words: Int32Array;

  /** @param buffer `RedirectView.bytes` octets, zero at first, shared between the threads */
  constructor(buffer: SharedArrayBuffer | ArrayBuffer) {
    this.#words = new Int32Array(buffer, 0, MAX_REDIRECTED * RECORD_WORDS);
  }

  /** The flow that a proxy's client port stands for now; undefined for any other number. Allocates. */
  read(handle: number): RedirectedFlow | undefined {
    if (!Number.isInteger(handle) || handle < FIRST_HANDLE || handle > 0xffff) return undefined;
    const words = this.#words;
    const at = slotOfHandle(handle) * RECORD_WORDS;
    for (let i = 0; i < READ_TRIES; i++) {
      const before = Atomics.load(words, at);
      if ((before & 1) !== 0) continue;
      const copy = words.slice(at, at + RECORD_WORDS);
      if (Atomics.load(words, at) === before) return copy[1] === handle ? flowOf(copy) : undefined;
    }
    return undefined; // written over and over: not the flow that was asked for
  }

  /**
   * Writes the record of a flow. The datapath's only.
   * @param addresses opener's at `fromAt`, the other side's at `toAt`: 4 or 16 octets by `version`
   */
  write(
    handle: number,
    direction: number,
    version: number,
    protocol: number,
    identity: number,
    addresses: Uint8Array,
    fromAt: number,
    toAt: number,
    fromPort: number,
    toPort: number,
  ): void {
    const words = this.#words;
    const at = slotOfHandle(handle) * RECORD_WORDS;
    Atomics.add(words, at, 1);
    words[at + 1] = handle;
    words[at + 2] = (direction << 16) | (version << 8) | protocol;
    words[at + 3] = (fromPort << 16) | toPort;
    words[at + 4] = identity;
    const octets = version === 4 ? 4 : 16;
    for (let i = 0; i < octets; i += 4) {
      words[at + 5 + (i >> 2)] = readI32(addresses, fromAt + i);
      words[at + 9 + (i >> 2)] = readI32(addresses, toAt + i);
    }
    Atomics.add(words, at, 1);
  }

  /** The flow of a slot is over. The datapath's only. */
  clear(slot: number): void {
    const at = slot * RECORD_WORDS;
    Atomics.add(this.#words, at, 1);
    this.#words[at + 1] = 0;
    Atomics.add(this.#words, at, 1);
  }

  /** No flow any more. The datapath's only. */
  clearAll(): void {
    for (let slot = 0; slot < MAX_REDIRECTED; slot++) if (this.#words[slot * RECORD_WORDS + 1] !== 0) this.clear(slot);
  }
}

function flowOf(words: Int32Array): RedirectedFlow {
  const head = words[2]!, ports = words[3]!;
  const octets = ((head >> 8) & 0xff) === 4 ? 4 : 16;
  return {
    from: { address: formatAddress(addressOf(words, 5, octets)), port: ports >>> 16 },
    to: { address: formatAddress(addressOf(words, 9, octets)), port: ports & 0xffff },
    protocol: (head & 0xff) as 6 | 17,
    direction: (head >> 16) as 0 | 1,
    identity: words[4]! >>> 0,
  };
}

function addressOf(words: Int32Array, word: number, octets: number): Uint8Array {
  const address = new Uint8Array(octets);
  for (let i = 0; i < octets; i++) address[i] = words[word + (i >> 2)]! >> (24 - 8 * (i & 3));
  return address;
}
