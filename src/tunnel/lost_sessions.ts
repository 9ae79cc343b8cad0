/**
 * A data message of a session that is not ours comes from where a peer is: one of us has started anew, and the peer seals with
 * keys that are gone. It would find out by itself, 15 seconds after its first unanswered packet; we can ask for a new session at once.
 *
 * The message proves nothing: anybody can send it, with the peer's address as its source. So it only starts what a packet of
 * our own to that peer would start, only where there is no session to lose, and never more often than handshakes are sent anyway.
 * Nothing goes to an address that is not known to be a peer's.
 * @see WireGuard paper §6.5 (the peer's own way of finding out)
 */
import { equalUnderlayAddr } from "../ip/underlay_addr.ts";
import { REKEY_TIMEOUT_MS } from "./constants.ts";
import type { Core } from "./core.ts";
import type { Peer } from "./peer.ts";
import type { PeerTable } from "./peer_table.ts";
import { isUsable, requestHandshake } from "./sending.ts";

/** Looking through all peers is not free, so a flood is not looked at one by one. */
const LOOKS_PER_SECOND = 100;

export class LostSessions {
  readonly #core: Core;
  readonly #peers: PeerTable;
  /** by peer slot; 0: never */
  readonly #askedAtMs: Float64Array;
  #looks = 0;
  #secondAtMs = -Infinity;

  constructor(core: Core, peers: PeerTable, maxPeers: number) {
    this.#core = core;
    this.#peers = peers;
    this.#askedAtMs = new Float64Array(maxPeers);
  }

  /** Takes note of a message without a session. @param fromAt arena offset of its source's address record */
  note(fromAt: number, nowMs: number): void {
    if (nowMs - this.#secondAtMs >= 1000) {
      this.#secondAtMs = nowMs;
      this.#looks = 0;
    }
    if (this.#looks++ >= LOOKS_PER_SECOND) return;
    const peer = this.#findAt(fromAt);
    if (peer === undefined) return;
    const askedAtMs = this.#askedAtMs[peer.slot]!;
    if (askedAtMs !== 0 && nowMs - askedAtMs < REKEY_TIMEOUT_MS) return;
    if (peer.next !== undefined || (peer.current !== undefined && isUsable(peer.current, nowMs))) return;
    this.#askedAtMs[peer.slot] = nowMs;
    requestHandshake(this.#core, peer, nowMs, false);
  }

  #findAt(fromAt: number): Peer | undefined {
    const { arena } = this.#core;
    for (const peer of this.#peers.values()) if (equalUnderlayAddr(arena, fromAt, arena, peer.endpointAt)) return peer;
    return undefined;
  }
}
