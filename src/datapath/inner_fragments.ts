/**
 * Cuts an IPv4 packet that may be fragmented into fragments that fit the way to the peer, in place and one at a time: each is
 * sealed to somewhere else before the next is made, whose header is written over the end of the one before.
 *
 *     | header | data 1 | data 2 | data 3 |
 *     [ fragment 1      ]
 *               [ header | data 2 ]           written over the end of data 1
 *
 * So fragments are made by the sender's node, and put together by the machine that the packet is for: this works where the
 * fragments of the underlay get lost. IPv6 packets are never fragmented here (RFC 8200 §5): their sender is told.
 * Facts: RFC 791 §2.3 and §3.2; a fragment may be fragmented further.
 */
import { complement, sumOctets } from "../bytes/checksum.ts";
import { readU16, readU8, writeU16, writeU8 } from "../bytes/integers.ts";
import { IPV4_HEADER_BYTES } from "../wire/numbers.ts";

export const DONT_FRAGMENT = 0x4000;
const MORE_FRAGMENTS = 0x2000;
const OFFSET_BITS = 0x1fff;
const MAX_HEADER_BYTES = 60;
/** Set on options that every fragment carries (RFC 791 §3.1, "copied"). */
const OPTION_COPIED = 0x80;
const OPTION_NOTHING = 1;

export class InnerFragments {
  /** the fragment made last */
  fragmentAt = 0;
  fragmentEnd = 0;
  readonly #bytes: Uint8Array;
  readonly #header = new Uint8Array(MAX_HEADER_BYTES);
  #headerBytes = 0;
  #dataAt = 0;
  #packetEnd = 0;
  #dataBytes = 0;
  #next = 0;
  /** flags and offset of the packet itself */
  #field = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /**
   * Takes a whole IPv4 packet without DF, whose header was checked.
   * @param largest octets that a fragment may have
   * @returns false when not even 8 octets of data fit beside the header
   */
  begin(at: number, end: number, largest: number): boolean {
    const bytes = this.#bytes;
    const headerBytes = (readU8(bytes, at) & 0x0f) * 4;
    this.#dataBytes = (largest - headerBytes) & ~7;
    if (this.#dataBytes < 8) return false;
    for (let i = 0; i < headerBytes; i++) this.#header[i] = bytes[at + i]!;
    this.#headerBytes = headerBytes;
    this.#dataAt = at + headerBytes;
    this.#packetEnd = end;
    this.#field = readU16(bytes, at + 6);
    this.#next = 0;
    return true;
  }

  /** Makes the next fragment; false when there is none. */
  next(): boolean {
    const dataAt = this.#dataAt + this.#next * this.#dataBytes;
    if (dataAt >= this.#packetEnd) return false;
    const bytes = this.#bytes;
    const headerBytes = this.#headerBytes;
    const end = Math.min(dataAt + this.#dataBytes, this.#packetEnd);
    const at = dataAt - headerBytes;
    for (let i = 0; i < headerBytes; i++) bytes[at + i] = this.#header[i]!;
    const offset = (this.#field & OFFSET_BITS) + ((this.#next * this.#dataBytes) >>> 3);
    const more = end < this.#packetEnd ? MORE_FRAGMENTS : this.#field & MORE_FRAGMENTS;
    writeU16(bytes, at + 2, end - at);
    writeU16(bytes, at + 6, more | (offset & OFFSET_BITS));
    writeU16(bytes, at + 10, 0);
    writeU16(bytes, at + 10, complement(sumOctets(bytes, at, at + headerBytes)));
    if (this.#next++ === 0 && headerBytes > IPV4_HEADER_BYTES) this.#dropOptions();
    this.fragmentAt = at;
    this.fragmentEnd = end;
    return true;
  }

  /** Options that only the first fragment carries become no-operations in the rest. */
  #dropOptions(): void {
    const header = this.#header;
    const end = this.#headerBytes;
    for (let at = IPV4_HEADER_BYTES; at < end;) {
      const kind = header[at]!;
      if (kind === 0) return;
      const length = kind === OPTION_NOTHING ? 1 : at + 1 < end ? header[at + 1]! : 0;
      if (length < 1 || (length < 2 && kind !== OPTION_NOTHING) || at + length > end) return;
      if ((kind & OPTION_COPIED) === 0) { for (let i = 0; i < length; i++) writeU8(header, at + i, OPTION_NOTHING); }
      at += length;
    }
  }
}
