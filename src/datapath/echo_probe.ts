/**
 * Our own ping: an ICMP echo request that enters the egress path like a packet of the machine, so that it meets the same policy,
 * session and peer; the reply is taken out of the ingress path before the TUN. It needs no raw socket and no capability.
 */
import { complement, sumOctets } from "../bytes/checksum.ts";
import { readU16, writeU16, writeU32, writeU8 } from "../bytes/integers.ts";
import type { IpAddress } from "../ip/address.ts";
import { DROP_UNROUTABLE, FORWARD, type Verdict } from "../verdict.ts";
import {
  ICMP_HEADER_BYTES,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  PROTOCOL_ICMP,
  PROTOCOL_ICMP6,
} from "../wire/numbers.ts";
import {
  ICMP6_ECHO_REPLY,
  ICMP6_ECHO_REQUEST,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  type PacketInfo,
} from "../wire/packet.ts";
import type { Egress } from "./egress.ts";
import type { Node } from "./node.ts";

/** Requests that may wait for a reply at a time; older ones are forgotten. */
const MAX_PENDING = 64;
const PAYLOAD_BYTES = 56; // as `ping` sends

interface Pending {
  readonly id: number;
  readonly sequence: number;
  readonly to: IpAddress;
  readonly sentMs: number;
}

export class EchoProbe {
  readonly #node: Node;
  readonly #answer: (id: number, sequence: number, roundTripMs: number, verdict: Verdict) => void;
  #pending: Pending[] = [];
  #nowMs: () => number;

  /**
   * @param nowMs  a clock finer than the batch's, for the round trip only
   * @param answer told of each reply, and of each request that our own datapath dropped
   */
  constructor(
    node: Node,
    nowMs: () => number,
    answer: (id: number, sequence: number, roundTripMs: number, verdict: Verdict) => void,
  ) {
    this.#node = node;
    this.#nowMs = nowMs;
    this.#answer = answer;
  }

  /** Sends one request. Uses the arena's room for packets from the TUN, so not while one is being handled. */
  send(egress: Egress, id: number, sequence: number, to: IpAddress, nowMs: number): void {
    const at = this.#node.parts.layout.fromTunAt;
    const end = this.#writeRequest(at, id, sequence, to);
    const verdict = end < 0 ? DROP_UNROUTABLE : egress.run(at, end, nowMs);
    if (verdict !== FORWARD) {
      this.#answer(id, sequence, 0, verdict);
      return;
    }
    if (this.#pending.length === MAX_PENDING) this.#pending.shift();
    this.#pending.push({ id, sequence, to, sentMs: this.#nowMs() });
  }

  /** Whether the packet is the reply to one of our requests: then it goes no further. */
  takeReply(bytes: Uint8Array, packet: PacketInfo): boolean {
    if (this.#pending.length === 0) return false;
    const isReply = packet.protocol === PROTOCOL_ICMP
      ? packet.icmpType === ICMP_ECHO_REPLY
      : packet.protocol === PROTOCOL_ICMP6 && packet.icmpType === ICMP6_ECHO_REPLY;
    if (!isReply) return false;
    const id = readU16(bytes, packet.transportAt + 4);
    const sequence = readU16(bytes, packet.transportAt + 6);
    const index = this.#find(id, sequence, bytes, packet.sourceAt);
    if (index < 0) return false;
    const [pending] = this.#pending.splice(index, 1);
    this.#answer(id, sequence, this.#nowMs() - pending!.sentMs, FORWARD);
    return true;
  }

  /** Apart from `takeReply`, whom every packet asks: a function that holds a closure allocates what that closes over at each call. */
  #find(id: number, sequence: number, bytes: Uint8Array, sourceAt: number): number {
    return this.#pending.findIndex((request) =>
      request.id === id && request.sequence === sequence &&
      request.to.every((octet, i) => octet === bytes[sourceAt + i])
    );
  }

  /** Writes virtio header (zero), IP and ICMP; returns the end, or -1 when we have no address of that family. */
  #writeRequest(at: number, id: number, sequence: number, to: IpAddress): number {
    const bytes = this.#node.parts.arena;
    const ipAt = at + this.#node.virtioBytes;
    const isV4 = to.length === 4;
    const icmpAt = ipAt + (isV4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
    const end = icmpAt + ICMP_HEADER_BYTES + PAYLOAD_BYTES;
    bytes.fill(0, at, end);
    const sourceAt = ipAt + (isV4 ? 12 : 8);
    const destinationAt = ipAt + (isV4 ? 16 : 24);
    if (!this.#node.writeOwnAddress(sourceAt, isV4 ? 4 : 6)) return -1;
    bytes.set(to, destinationAt);
    for (let i = icmpAt + ICMP_HEADER_BYTES; i < end; i++) bytes[i] = i - icmpAt;
    writeU8(bytes, icmpAt, isV4 ? ICMP_ECHO_REQUEST : ICMP6_ECHO_REQUEST);
    writeU16(bytes, icmpAt + 4, id);
    writeU16(bytes, icmpAt + 6, sequence);
    if (isV4) {
      writeU16(bytes, ipAt, 0x4500);
      writeU16(bytes, ipAt + 2, end - ipAt);
      writeU16(bytes, ipAt + 6, 0x4000);
      writeU16(bytes, ipAt + 8, (64 << 8) | PROTOCOL_ICMP);
      writeU16(bytes, ipAt + 10, complement(sumOctets(bytes, ipAt, icmpAt)));
      writeU16(bytes, icmpAt + 2, complement(sumOctets(bytes, icmpAt, end)));
    } else {
      writeU32(bytes, ipAt, 0x6000_0000);
      writeU16(bytes, ipAt + 4, end - icmpAt);
      writeU16(bytes, ipAt + 6, (PROTOCOL_ICMP6 << 8) | 64);
      const pseudo = sumOctets(bytes, sourceAt, icmpAt) + (end - icmpAt) + PROTOCOL_ICMP6;
      writeU16(bytes, icmpAt + 2, complement(pseudo + sumOctets(bytes, icmpAt, end)));
    }
    return end;
  }
}
