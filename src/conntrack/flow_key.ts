/**
 * The key of a flow: the same words for both of its directions, so that one look-up finds a packet and its replies.
 *
 *     word 0       version, kind, protocol
 *     word 1       port of side a, port of side b
 *     word 2, 3    address of a, address of b: first 32 bits of each
 *     word 4 to 9  the rest of both, IPv6 only
 *
 * Three kinds, because which side is a must not depend on who sent the packet at hand:
 * - PORTS (TCP, UDP, SCTP): a is the side that sorts first by address, then port. Either side may have opened the flow.
 * - ECHO (ICMP echo): a is the side that asks. A request is never a reply, so being pinged is not allowed by pinging.
 * - ONE_WAY (all other ICMP): a is the sender. Nothing is a reply to it.
 *
 * Hot file (bench: `scripts/bench/micro.ts`, stage "conntrack").
 */
import { readI32, readU16, readU8, writeU32 } from "../bytes/integers.ts";
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  PROTOCOL_ICMP,
  PROTOCOL_ICMP6,
  PROTOCOL_SCTP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "../wire/numbers.ts";
import {
  ICMP6_ECHO_REPLY,
  ICMP6_ECHO_REQUEST,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  type PacketInfo,
} from "../wire/packet.ts";

/** Words of a key: the stride of a table of keys. An IPv4 key uses the first 4. */
export const KEY_WORDS = 10;
const KEY_WORDS_4 = 4;

export const KIND_PORTS = 0;
export const KIND_ECHO = 1;
export const KIND_ONE_WAY = 2;

/** Octets of a transport header that an ICMP error carries at least (RFC 792): the ports, or type and identifier. */
const QUOTED_TRANSPORT_BYTES = 8;

/** One key, reused. Written by `set...`; read by the table. */
export class FlowKey {
  readonly words: Int32Array = new Int32Array(KEY_WORDS);
  /** words in use: 4 or 10 */
  wordCount = 0;
  kind = KIND_PORTS;
  /** the packet that the key was made from was sent by side a */
  isFromA = true;
  /** seeded; the table takes its bucket from the upper bits */
  hash = 0;

  readonly #seedA: number;
  readonly #seedB: number;

  /** @param seed at least 8 random octets, secret: who knows them can choose ports that collide */
  constructor(seed: Uint8Array) {
    if (seed.length < 8) throw new RangeError(`Cannot seed a flow table with ${seed.length} octets: 8 are needed`);
    this.#seedA = readI32(seed, 0);
    this.#seedB = readI32(seed, 4);
  }

  /** Another key of the same seed, for another table. */
  another(): FlowKey {
    const seed = new Uint8Array(8);
    writeU32(seed, 0, this.#seedA);
    writeU32(seed, 4, this.#seedB);
    return new FlowKey(seed);
  }

  /** Makes the key of a packet that `readPacket` accepted. */
  setPacket(bytes: Uint8Array, packet: PacketInfo): void {
    this.#set(
      bytes,
      packet.version,
      packet.protocol,
      packet.sourceAt,
      packet.destinationAt,
      packet.sourcePort,
      packet.destinationPort,
      packet.icmpType,
    );
  }

  /** Makes the ONE_WAY key of an ICMP packet, whatever its type: an echo reply that answers no request of ours is one. */
  setOneWay(bytes: Uint8Array, packet: PacketInfo): void {
    this.#fill(
      bytes,
      packet.version,
      packet.protocol,
      KIND_ONE_WAY,
      packet.sourceAt,
      packet.destinationAt,
      packet.icmpType,
      packet.icmpType,
    );
    this.isFromA = true;
  }

  /**
   * Makes the key of the packet that an ICMP error quotes, which may be cut short after 8 octets of transport header.
   * @param at  first octet of the quoted IP header
   * @param end one past the quotation
   * @returns false when it is no packet that can belong to a flow: a fragment, another version, cut too short
   */
  setQuoted(bytes: Uint8Array, at: number, end: number, version: number): boolean {
    if (end - at < IPV4_HEADER_BYTES || readU8(bytes, at) >> 4 !== version) return false;
    if (version === 4) {
      const headerBytes = (readU8(bytes, at) & 0x0f) * 4;
      if (headerBytes < IPV4_HEADER_BYTES || readU16(bytes, at + 2) < headerBytes + QUOTED_TRANSPORT_BYTES) {
        return false;
      }
      if ((readU16(bytes, at + 6) & 0x1fff) !== 0) return false;
      return this.#setQuotedTransport(bytes, at + headerBytes, end, 4, readU8(bytes, at + 9), at + 12, at + 16);
    }
    if (end - at < IPV6_HEADER_BYTES) return false;
    return this.#setQuotedTransport(bytes, at + IPV6_HEADER_BYTES, end, 6, readU8(bytes, at + 6), at + 8, at + 24);
  }

  #setQuotedTransport(
    bytes: Uint8Array,
    at: number,
    end: number,
    version: number,
    protocol: number,
    sourceAt: number,
    destinationAt: number,
  ): boolean {
    if (end - at < QUOTED_TRANSPORT_BYTES) return false;
    if (protocol === (version === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMP6)) {
      const type = readU8(bytes, at);
      if (!isEcho(protocol, type)) return false; // errors about errors do not exist (RFC 1122 §3.2.2)
      const id = readU16(bytes, at + 4);
      this.#set(bytes, version, protocol, sourceAt, destinationAt, id, id, type);
      return true;
    }
    if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP && protocol !== PROTOCOL_SCTP) return false;
    this.#set(bytes, version, protocol, sourceAt, destinationAt, readU16(bytes, at), readU16(bytes, at + 2), 0);
    return true;
  }

  #set(
    bytes: Uint8Array,
    version: number,
    protocol: number,
    sourceAt: number,
    destinationAt: number,
    sourcePort: number,
    destinationPort: number,
    icmpType: number,
  ): void {
    let kind = KIND_PORTS;
    let isFromA: boolean;
    if (protocol !== PROTOCOL_ICMP && protocol !== PROTOCOL_ICMP6) {
      const order = compareAddresses(bytes, sourceAt, destinationAt, version);
      isFromA = order === 0 ? sourcePort <= destinationPort : order < 0;
    } else if (isEcho(protocol, icmpType)) {
      kind = KIND_ECHO;
      isFromA = icmpType === ICMP_ECHO_REQUEST || icmpType === ICMP6_ECHO_REQUEST;
    } else {
      kind = KIND_ONE_WAY;
      sourcePort = destinationPort = icmpType;
      isFromA = true;
    }
    if (isFromA) this.#fill(bytes, version, protocol, kind, sourceAt, destinationAt, sourcePort, destinationPort);
    else this.#fill(bytes, version, protocol, kind, destinationAt, sourceAt, destinationPort, sourcePort);
    this.isFromA = isFromA;
  }

  #fill(
    bytes: Uint8Array,
    version: number,
    protocol: number,
    kind: number,
    aAt: number,
    bAt: number,
    aPort: number,
    bPort: number,
  ): void {
    const words = this.words;
    const addressBytes = version === 4 ? 4 : 16;
    words[0] = (version << 16) | (kind << 8) | protocol;
    words[1] = (aPort << 16) | bPort;
    for (let i = 0, word = 2; i < addressBytes; i += 4, word += 2) {
      words[word] = readI32(bytes, aAt + i);
      words[word + 1] = readI32(bytes, bAt + i);
    }
    this.kind = kind;
    this.wordCount = version === 4 ? KEY_WORDS_4 : KEY_WORDS;
    this.hash = this.#hashOf(words, this.wordCount);
  }

  /** Mixes as MurmurHash3 does, from two secret words: offline, nobody can say which flows collide. */
  #hashOf(words: Int32Array, count: number): number {
    let hash = this.#seedA;
    for (let i = 0; i < count; i++) {
      const word = Math.imul(words[i]! ^ this.#seedB, 0xcc9e2d51 | 0);
      hash ^= Math.imul((word << 15) | (word >>> 17), 0x1b873593);
      hash = (Math.imul((hash << 13) | (hash >>> 19), 5) + (0xe6546b64 | 0)) | 0;
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b | 0);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35 | 0);
    return hash ^ (hash >>> 16);
  }
}

function isEcho(protocol: number, icmpType: number): boolean {
  return protocol === PROTOCOL_ICMP
    ? icmpType === ICMP_ECHO_REQUEST || icmpType === ICMP_ECHO_REPLY
    : icmpType === ICMP6_ECHO_REQUEST || icmpType === ICMP6_ECHO_REPLY;
}

/** Below 0, 0, or above 0: any total order will do, as long as both directions see the same one. */
function compareAddresses(bytes: Uint8Array, aAt: number, bAt: number, version: number): number {
  const octets = version === 4 ? 4 : 16;
  for (let i = 0; i < octets; i += 4) {
    const a = readI32(bytes, aAt + i), b = readI32(bytes, bAt + i);
    if (a !== b) return a < b ? -1 : 1;
  }
  return 0;
}
