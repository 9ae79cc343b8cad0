/**
 * Writing and reading rtnetlink messages: headers, attributes, and walking what the kernel answers. `ffi/netlink.ts` says what
 * to ask. Netlink speaks the CPU's byte order, which is little endian on every CPU we run on; addresses are in network order.
 *
 * @see netlink(7), rtnetlink(7), include/uapi/linux/netlink.h
 */
import { readU16LE, readU32LE, writeU16LE, writeU32LE } from "../src/bytes/integers.ts";
import { alignNetlink, NLMSGHDR, RTATTR } from "./layout.ts";

/** One message being written. */
export class MessageWriter {
  readonly bytes: Uint8Array;
  #end = 0;

  /** @param bytes room for the message; from `allocate` where C is to read it */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** Octets written so far: the message's length. */
  get end(): number {
    return this.#end;
  }

  /** Starts the message anew: header, then `bodyBytes` of zeros, whose offset is given back. */
  start(type: number, flags: number, sequence: number, bodyBytes: number): number {
    this.bytes.fill(0);
    writeU16LE(this.bytes, NLMSGHDR.type, type);
    writeU16LE(this.bytes, NLMSGHDR.flags, flags);
    writeU32LE(this.bytes, NLMSGHDR.sequence, sequence);
    this.#setEnd(NLMSGHDR.size + bodyBytes);
    return NLMSGHDR.size;
  }

  attribute(type: number, value: Uint8Array): void {
    const at = this.#openAttribute(type);
    this.bytes.set(value, at + RTATTR.size);
    this.#closeAttribute(at, value.length);
  }

  attributeU32(type: number, value: number): void {
    const at = this.#openAttribute(type);
    writeU32LE(this.bytes, at + RTATTR.size, value);
    this.#closeAttribute(at, 4);
  }

  /** An attribute that holds the attributes that `write` adds. */
  nested(type: number, write: () => void): void {
    const at = this.#openAttribute(type);
    this.#setEnd(at + RTATTR.size);
    write();
    this.#closeAttribute(at, this.#end - at - RTATTR.size);
  }

  #openAttribute(type: number): number {
    const at = alignNetlink(this.#end);
    writeU16LE(this.bytes, at + RTATTR.type, type);
    return at;
  }

  #closeAttribute(at: number, valueBytes: number): void {
    writeU16LE(this.bytes, at + RTATTR.length, RTATTR.size + valueBytes);
    this.#setEnd(alignNetlink(at + RTATTR.size + valueBytes));
  }

  #setEnd(end: number): void {
    if (end > this.bytes.length) throw new RangeError(`Netlink message is longer than ${this.bytes.length} octets`);
    this.#end = end;
    writeU32LE(this.bytes, NLMSGHDR.length, end);
  }
}

/** A message as received; offsets into the buffer it came in, valid until the next receive. */
export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly bodyAt: number;
  readonly end: number;
}

/** Walks the messages in `[0, end)`. A length that makes no sense ends the walk. */
export function* messagesIn(bytes: Uint8Array, end: number): Generator<Message> {
  let at = 0;
  while (at + NLMSGHDR.size <= end) {
    const length = readU32LE(bytes, at + NLMSGHDR.length);
    if (length < NLMSGHDR.size || at + length > end) return;
    yield {
      type: readU16LE(bytes, at + NLMSGHDR.type),
      flags: readU16LE(bytes, at + NLMSGHDR.flags),
      sequence: readU32LE(bytes, at + NLMSGHDR.sequence),
      bodyAt: at + NLMSGHDR.size,
      end: at + length,
    };
    at += alignNetlink(length);
  }
}

/** Reads attributes in `[at, end)`: type -> copy of the value; a type that comes twice keeps the last. Bits for nesting are cleared. */
export function attributesIn(bytes: Uint8Array, at: number, end: number): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>();
  let position = at;
  while (position + RTATTR.size <= end) {
    const length = readU16LE(bytes, position + RTATTR.length);
    if (length < RTATTR.size || position + length > end) break;
    const type = readU16LE(bytes, position + RTATTR.type) & 0x3fff;
    found.set(type, bytes.slice(position + RTATTR.size, position + length));
    position += alignNetlink(length);
  }
  return found;
}

/** The u32 of an attribute; `undefined` when it is missing or of another size. */
export function u32Of(attributes: Map<number, Uint8Array>, type: number): number | undefined {
  const value = attributes.get(type);
  return value?.length === 4 ? readU32LE(value, 0) : undefined;
}
