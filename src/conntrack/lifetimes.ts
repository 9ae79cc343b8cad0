/**
 * How long a flow may be silent, and what its TCP flags say about that. Values are Cilium's defaults (`bpf-ct-timeout-*`), but a
 * TCP flow gets its long life only after the opener has acknowledged the answer: a SYN alone, answered or not, is cheap to send.
 */
import { PROTOCOL_TCP } from "../wire/numbers.ts";

/** Seconds without a packet after which a flow is forgotten. */
export const TCP_LIFETIME_S = 21_600;
export const TCP_OPENING_LIFETIME_S = 60;
export const TCP_CLOSING_LIFETIME_S = 10;
export const OTHER_LIFETIME_S = 60;

// State bits of a flow
/** a packet came back */
export const STATE_REPLIED = 1;
/** TCP: the opener went on after the answer, so the handshake is done */
export const STATE_ASSURED = 2;
export const STATE_OPENER_FIN = 4;
export const STATE_REPLIER_FIN = 8;
export const STATE_RESET = 16;

const TCP_FIN = 1;
const TCP_SYN = 2;
const TCP_RST = 4;
const TCP_ACK = 16;

/** A SYN that opens: without ACK. */
export function isOpeningSyn(protocol: number, tcpFlags: number): boolean {
  return protocol === PROTOCOL_TCP && (tcpFlags & (TCP_SYN | TCP_ACK)) === TCP_SYN;
}

/** Both sides said FIN, or one said RST. */
export function isClosing(state: number): boolean {
  return (state & STATE_RESET) !== 0 ||
    (state & (STATE_OPENER_FIN | STATE_REPLIER_FIN)) === (STATE_OPENER_FIN | STATE_REPLIER_FIN);
}

/** The state after one more packet. @param isReply it travels against the flow's opening direction */
export function nextState(state: number, protocol: number, tcpFlags: number, isReply: boolean): number {
  if (protocol !== PROTOCOL_TCP) return isReply ? state | STATE_REPLIED : state;
  let next = state;
  if (!isReply && isOpeningSyn(protocol, tcpFlags) && isClosing(state)) next = 0; // same ports used again
  if (isReply) next |= STATE_REPLIED;
  else if ((next & STATE_REPLIED) !== 0 && (tcpFlags & (TCP_SYN | TCP_RST)) === 0) next |= STATE_ASSURED;
  if ((tcpFlags & TCP_RST) !== 0) next |= STATE_RESET;
  if ((tcpFlags & TCP_FIN) !== 0) next |= isReply ? STATE_REPLIER_FIN : STATE_OPENER_FIN;
  return next;
}

/** Seconds that a flow in this state may be silent. */
export function lifetimeOf(state: number, protocol: number): number {
  if (protocol !== PROTOCOL_TCP) return OTHER_LIFETIME_S;
  if (isClosing(state)) return TCP_CLOSING_LIFETIME_S;
  return (state & STATE_ASSURED) !== 0 ? TCP_LIFETIME_S : TCP_OPENING_LIFETIME_S;
}
