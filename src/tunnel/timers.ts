/**
 * The five timers of a peer: what arms and disarms them. What they do when they fire is in `WireGuard.tick`.
 *
 *     retransmit    initiation sent            handshake complete            send it again
 *     keepalive     data received              anything authenticated sent   keepalive
 *     newHandshake  data sent, if not armed    anything authenticated heard  new initiation
 *     zeroKeys      session derived, give-up   -                             wipe sessions and handshake
 *     persistent    authenticated, either way  -                             keepalive
 *
 * Keepalives are no data: one that is received must not arm `keepalive`, or two idle ends would talk for ever.
 * @see WireGuard paper §6.1 to §6.6
 */
import { KEEPALIVE_TIMEOUT_MS, NEW_HANDSHAKE_MS, REKEY_TIMEOUT_MS, ZERO_KEYS_MS } from "./constants.ts";
import type { Core } from "./core.ts";
import { NEVER, type Peer } from "./peer.ts";

/** An authenticated message went either way. */
export function noteTraversal(core: Core, peer: Peer, nowMs: number): void {
  if (peer.keepaliveMs === 0) return;
  peer.persistentAtMs = nowMs + peer.keepaliveMs;
  core.deadlines.lower(peer.slot, peer.persistentAtMs);
}

/** Something authenticated was sent: whatever was heard has its answer. */
export function noteSent(core: Core, peer: Peer, nowMs: number): void {
  peer.keepaliveAtMs = NEVER;
  peer.needsAnotherKeepalive = false;
  noteTraversal(core, peer, nowMs);
}

/** Data was sent, which the peer has to answer within 10 s, if only with a keepalive. */
export function noteDataSent(core: Core, peer: Peer, nowMs: number): void {
  if (peer.newHandshakeAtMs !== NEVER) return;
  peer.newHandshakeAtMs = nowMs + NEW_HANDSHAKE_MS + core.jitterMs();
  core.deadlines.lower(peer.slot, peer.newHandshakeAtMs);
}

/** Something authenticated was heard: the peer is there. */
export function noteHeard(core: Core, peer: Peer, nowMs: number): void {
  peer.newHandshakeAtMs = NEVER;
  noteTraversal(core, peer, nowMs);
}

/** Data was received: it gets an answer within 10 s. */
export function noteDataHeard(core: Core, peer: Peer, nowMs: number): void {
  if (peer.keepaliveAtMs !== NEVER) {
    peer.needsAnotherKeepalive = true;
    return;
  }
  armKeepalive(core, peer, nowMs);
}

export function armKeepalive(core: Core, peer: Peer, nowMs: number): void {
  peer.keepaliveAtMs = nowMs + KEEPALIVE_TIMEOUT_MS;
  core.deadlines.lower(peer.slot, peer.keepaliveAtMs);
}

/** An initiation goes out no earlier than 5 s, and a jitter, after what was sent at `sentAtMs`. */
export function armRetransmit(core: Core, peer: Peer, sentAtMs: number): void {
  peer.retransmitAtMs = sentAtMs + REKEY_TIMEOUT_MS + core.jitterMs();
  core.deadlines.lower(peer.slot, peer.retransmitAtMs);
}

/** Both sides have the keys: the response came, or the first message on the session that we answered with. */
export function noteHandshakeComplete(core: Core, peer: Peer, nowMs: number): void {
  peer.retransmitAtMs = NEVER;
  peer.retries = 0;
  peer.hasRekeyedOnReceive = false;
  peer.lastHandshakeUnixMs = Math.round(nowMs + core.unixOffsetMs);
}

/** A session was derived, on either side: it is overwritten nine minutes later if no other follows. */
export function armZeroKeys(core: Core, peer: Peer, nowMs: number): void {
  peer.zeroKeysAtMs = nowMs + ZERO_KEYS_MS;
  core.deadlines.lower(peer.slot, peer.zeroKeysAtMs);
}

/** The earliest of the five, `NEVER` when none is armed. */
export function earliestTimer(peer: Peer): number {
  return Math.min(
    peer.retransmitAtMs,
    peer.keepaliveAtMs,
    peer.newHandshakeAtMs,
    peer.zeroKeysAtMs,
    peer.persistentAtMs,
  );
}

/** Disarms all but the persistent keepalive, which belongs to the configuration. */
export function disarmAll(peer: Peer): void {
  peer.retransmitAtMs = NEVER;
  peer.keepaliveAtMs = NEVER;
  peer.newHandshakeAtMs = NEVER;
  peer.zeroKeysAtMs = NEVER;
  peer.needsAnotherKeepalive = false;
}
