/**
 * ICMP errors to the programs of this machine whose packets we cannot send: too big for the way to the peer, or nobody there. So a
 * program makes smaller packets, or fails at once instead of waiting for its time-out.
 *
 * What policy drops is not answered: Cilium does not either unless told to, and here there is no such setting.
 *
 * Never an answer to ICMP errors, to multicast or broadcast, or to a fragment other than the first (RFC 1122 §3.2.2, RFC 4443 §2.4);
 * and no more than a bucket of tokens gives, as a flood of packets to nowhere must not become a flood of answers.
 */
import { readU16 } from "../bytes/integers.ts";
import {
  DROP_NO_TUNNEL_ENDPOINT,
  DROP_NO_UNDERLAY_ADDRESS,
  DROP_PACKET_TOO_BIG,
  DROP_UNROUTABLE,
  type Verdict,
} from "../verdict.ts";
import {
  ICMP4_ERROR_HEADER_BYTES,
  ICMP6_CODE_ADDRESS_UNREACHABLE,
  ICMP6_CODE_NO_ROUTE,
  ICMP6_ERROR_HEADER_BYTES,
  ICMP6_PACKET_TOO_BIG,
  ICMP6_UNREACHABLE,
  ICMP_CODE_FRAGMENTATION_NEEDED,
  ICMP_CODE_HOST_UNREACHABLE,
  ICMP_UNREACHABLE,
  isErrorType,
  isManyAddress,
  writeError4,
  writeError6,
} from "../wire/icmp_error.ts";
import type { PacketInfo } from "../wire/packet.ts";
import { counterOf } from "./counters.ts";
import type { Node } from "./node.ts";

const TO_TUN_PACKETS = counterOf("toTunPackets");
const TO_TUN_BYTES = counterOf("toTunBytes");
const TO_TUN_WRITES = counterOf("toTunWrites");

/** Answers of each kind at once, and each second from then on. A machine has few programs, and each needs one. */
const BURST = 50;
const PER_SECOND = 100;
/** IPv4's bits of a fragment that is not the first */
const OFFSET_BITS = 0x1fff;

/** A token bucket on the batch's clock. */
export class TokenBucket {
  readonly #burst: number;
  readonly #perSecond: number;
  #tokens: number;
  #atMs = 0;

  constructor(burst: number, perSecond: number) {
    this.#burst = burst;
    this.#perSecond = perSecond;
    this.#tokens = burst;
  }

  /** Takes a token; false when there is none. */
  take(nowMs: number): boolean {
    this.#tokens = Math.min(this.#burst, this.#tokens + ((nowMs - this.#atMs) * this.#perSecond) / 1000);
    this.#atMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}

export class ErrorAnswers {
  readonly #node: Node;
  readonly #tooBig = new TokenBucket(BURST, PER_SECOND);
  readonly #unreachable = new TokenBucket(BURST, PER_SECOND);
  readonly #single = new Int32Array(2);

  constructor(node: Node) {
    this.#node = node;
  }

  /**
   * Answers a packet that was read from the TUN and is dropped; HEADROOM_BYTES before it are free, and are written over.
   *
   * @param verdict one that `isAnswered` says yes to
   * @param packet as `readPacket` read it, not changed since
   * @param end    one past the packet, or past the first segment of a superpacket
   * @param mtu    largest packet that would have gone, for DROP_PACKET_TOO_BIG
   */
  answer(verdict: Verdict, packet: PacketInfo, end: number, mtu: number, nowMs: number): void {
    const isTooBig = verdict === DROP_PACKET_TOO_BIG;
    const { arena } = this.#node.parts;
    if (isErrorType(packet.protocol, packet.icmpType)) return;
    if (isManyAddress(arena, packet.destinationAt, packet.version)) return;
    if (packet.version === 4 && (readU16(arena, packet.at + 6) & OFFSET_BITS) !== 0) return;
    if (!(isTooBig ? this.#tooBig : this.#unreachable).take(nowMs)) return;
    if (packet.version === 4) {
      const code = isTooBig ? ICMP_CODE_FRAGMENTATION_NEEDED : ICMP_CODE_HOST_UNREACHABLE;
      const errorEnd = writeError4(arena, packet.at, end, ICMP_UNREACHABLE, code, isTooBig ? mtu : 0);
      this.#write(packet.at - ICMP4_ERROR_HEADER_BYTES, errorEnd);
      return;
    }
    const type = isTooBig ? ICMP6_PACKET_TOO_BIG : ICMP6_UNREACHABLE;
    const unreachable = verdict === DROP_UNROUTABLE ? ICMP6_CODE_NO_ROUTE : ICMP6_CODE_ADDRESS_UNREACHABLE;
    const errorEnd = writeError6(arena, packet.at, end, type, isTooBig ? 0 : unreachable, isTooBig ? mtu : 0);
    this.#write(packet.at - ICMP6_ERROR_HEADER_BYTES, errorEnd);
  }

  #write(errorAt: number, end: number): void {
    const { arena, tun, counters } = this.#node.parts;
    const at = errorAt - this.#node.virtioBytes;
    arena.fill(0, at, errorAt);
    this.#single[0] = at;
    this.#single[1] = end;
    counters.add(TO_TUN_WRITES, 1);
    if (tun.write(this.#single, 1) < 0) return; // the packet was counted as dropped, and its sender will find out in time
    counters.add(TO_TUN_PACKETS, 1);
    counters.add(TO_TUN_BYTES, end - errorAt);
  }
}

/** Whether a drop is told to the packet's sender: it is too big, or nobody is there as far as this node knows. */
export function isAnswered(verdict: Verdict): boolean {
  return verdict === DROP_PACKET_TOO_BIG || verdict === DROP_UNROUTABLE || verdict === DROP_NO_TUNNEL_ENDPOINT ||
    verdict === DROP_NO_UNDERLAY_ADDRESS;
}
