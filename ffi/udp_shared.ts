/**
 * Sockets that another thread of the process has opened (`UdpUnderlay.sockets`): sending through them, and receiving into several
 * regions in turn. Descriptors are the process's; closing them stays with who opened them.
 */
import type { ReceivedRun } from "../src/ports.ts";
import { UdpUnderlay } from "./udp.ts";
import { Receiver } from "./udp_receive.ts";
import type { UdpSockets } from "./udp_socket.ts";

/** Receives what waits on both sockets into one region. Belongs to one thread. */
export class BatchReceiver {
  readonly received: readonly ReceivedRun[];
  readonly #receiver: Receiver;
  readonly #first: number;
  readonly #second: number | undefined;

  /** @param isV6First which socket is asked first: regions that take turns should differ, so that none starves */
  constructor({ v4, v6 }: UdpSockets, receiver: Receiver, isV6First: boolean) {
    this.received = receiver.received;
    this.#receiver = receiver;
    const [first, second] = isV6First ? [v6, v4] : [v4, v6];
    this.#first = (first ?? second)!.fd;
    this.#second = first === undefined ? undefined : second?.fd;
  }

  /** As `Underlay.receive`. */
  receive(): number {
    const first = this.#receiver.receive(this.#first, 0);
    if (this.#second === undefined) return first;
    const second = this.#receiver.receive(this.#second, first > 0 ? first : 0);
    if (first < 0) return second > 0 ? second : first;
    return second < 0 && first === 0 ? second : first + (second > 0 ? second : 0);
  }
}

/**
 * Takes part in open sockets.
 * @param receiveAts a region of `receiveBytes(slots)` octets for each batch
 * @returns the underlay, for sending only, and who receives into each region
 */
export function shareUnderlay(
  sockets: UdpSockets,
  arena: Uint8Array,
  receiveAts: readonly number[],
  slots: number,
): { readonly underlay: UdpUnderlay; readonly batches: readonly BatchReceiver[] } {
  const receivers = receiveAts.map((at) => new Receiver(arena, at, slots));
  return {
    underlay: new UdpUnderlay(sockets, receivers[0]!, arena),
    batches: receivers.map((receiver, i) => new BatchReceiver(sockets, receiver, i % 2 === 1)),
  };
}
