/**
 * The flow of the packet just before. A run of datagrams brings one packet of a flow after the other: what was looked up for the
 * first of them holds for those right behind it, within one run, as nothing changes a table meanwhile but a packet that is looked up.
 *
 * Hot file (bench: `scripts/bench/datapath.ts`).
 */
import { readI32 } from "../bytes/integers.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/numbers.ts";
import type { PacketInfo } from "../wire/packet.ts";
import { TCP_SYN } from "./mss.ts";

/** Source, destination, and both ports in one. */
const MAX_WORDS = 9;
/** No packet: of no version. */
const NOTHING = 0;

export class FlowMemo {
  /** index of the flow in the flow table */
  flow = -1;
  #version = NOTHING;
  #protocol = 0;
  #vni = 0;
  #peerSlot = -1;
  #words = 0;
  readonly #key = new Int32Array(MAX_WORDS);

  forget(): void {
    this.#version = NOTHING;
  }

  /** Whether a packet was noted since it forgot. */
  get isKnown(): boolean {
    return this.#version !== NOTHING;
  }

  /** Notes a packet that was let pass as part of a flow. Only TCP and UDP are remembered. */
  note(bytes: Uint8Array, packet: PacketInfo, vni: number, peerSlot: number, flow: number): void {
    const { protocol, version, sourceAt } = packet;
    if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) return;
    const words = version === 4 ? 2 : 8; // the destination stands right behind the source
    for (let i = 0; i < words; i++) this.#key[i] = readI32(bytes, sourceAt + 4 * i);
    this.#key[words] = readI32(bytes, packet.transportAt);
    this.#words = words;
    this.#version = version;
    this.#protocol = protocol;
    this.#vni = vni;
    this.#peerSlot = peerSlot;
    this.flow = flow;
  }

  /**
   * Whether a packet is of that flow, in the same direction, from the same peer and with the same claim of an identity. One that
   * opens a connection never is: it may begin another flow.
   */
  isSame(bytes: Uint8Array, packet: PacketInfo, vni: number, peerSlot: number): boolean {
    if (packet.version !== this.#version || packet.protocol !== this.#protocol) return false;
    if (vni !== this.#vni || peerSlot !== this.#peerSlot || (packet.tcpFlags & TCP_SYN) !== 0) return false;
    const { sourceAt } = packet;
    const key = this.#key;
    const words = this.#words;
    if (readI32(bytes, packet.transportAt) !== key[words]) return false;
    for (let i = 0; i < words; i++) if (readI32(bytes, sourceAt + 4 * i) !== key[i]) return false;
    return true;
  }
}
