/** What a peer is sent on the device's own account: initiations and keepalives, and when a new session is due. */
import { toBase64 } from "../bytes/text.ts";
import { FAMILY_NONE, familyOf } from "../ip/underlay_addr.ts";
import { writeInitiation } from "../noise/handshake.ts";
import { INITIATION_BYTES, KEY_BYTES } from "../wire/wg_message.ts";
import { REJECT_AFTER_MS, REKEY_AFTER_MS, REKEY_ON_RECEIVE_MS, REKEY_TIMEOUT_MS } from "./constants.ts";
import type { Core } from "./core.ts";
import { pickIndex } from "./index_table.ts";
import { NEVER, type Peer } from "./peer.ts";
import type { Session } from "./session.ts";
import { forgetPending } from "./slots.ts";
import { armRetransmit, noteDataSent, noteSent } from "./timers.ts";

/** The session to seal with now; when there is none, a handshake is asked for. Hot. */
export function findSealing(core: Core, peer: Peer, nowMs: number): Session | undefined {
  const session = peer.current;
  if (session !== undefined && isUsable(session, nowMs)) return session;
  requestHandshake(core, peer, nowMs, false);
  return undefined;
}

/** Whether something may still be sealed with a session. */
export function isUsable(session: Session, nowMs: number): boolean {
  return nowMs - session.createdAtMs < REJECT_AFTER_MS && session.sendCounter < session.rejectAfterMessages;
}

/**
 * Queues an initiation, at most one per 5 s and peer, whoever asks. One that comes too early is sent when the time is over,
 * unless a handshake is complete before.
 *
 * @param isRetry no answer came to the last one. A fresh reason starts the count of retries anew, a retry does not.
 */
export function requestHandshake(core: Core, peer: Peer, nowMs: number, isRetry: boolean): void {
  if (!isRetry) peer.retries = 0;
  if (nowMs - peer.handshakeSentAtMs < REKEY_TIMEOUT_MS) {
    if (peer.retransmitAtMs === NEVER) armRetransmit(core, peer, peer.handshakeSentAtMs);
    return;
  }
  if (familyOf(core.arena, peer.endpointAt) !== FAMILY_NONE) sendInitiation(core, peer, nowMs);
}

function sendInitiation(core: Core, peer: Peer, nowMs: number): void {
  const { ciphers, local } = core;
  const ephemeralSecret = new Uint8Array(KEY_BYTES);
  core.random(ephemeralSecret);
  const localIndex = pickIndex(core.random, core.handshakes, core.sessions);
  const stamp = core.stamps.next(nowMs + core.unixOffsetMs);
  const message = core.outbox.add(peer, peer.endpointAt);
  const bytes = message.bytes.subarray(0, INITIATION_BYTES);
  const initiation = writeInitiation(ciphers, local, peer.keys, localIndex, ephemeralSecret, stamp, bytes);
  if (initiation === undefined) { // a low-order public key: this peer can never be reached
    core.outbox.dropLast();
    return;
  }
  message.size = INITIATION_BYTES;
  peer.cookies.writeMacs(peer.keys, bytes, nowMs);
  forgetPending(core, peer);
  peer.pending = initiation;
  core.handshakes.add(localIndex, peer);
  if (core.onKeys !== undefined) logKeys(core, peer, ephemeralSecret);
  peer.handshakeSentAtMs = nowMs;
  noteSent(core, peer, nowMs);
  armRetransmit(core, peer, nowMs);
}

/**
 * Queues a keepalive, or lets the datapath send what waits for a session, which says as much. Without a session a handshake
 * is asked for instead.
 */
export function sendKeepalive(core: Core, peer: Peer, nowMs: number): void {
  const session = findSealing(core, peer, nowMs);
  if (session === undefined) return;
  if (peer.stagedCount > 0) {
    core.ready.push(peer);
    return;
  }
  core.outbox.add(peer, peer.endpointAt).session = session;
  noteTransportSent(core, peer, nowMs, false);
}

/** Transport messages went out with the current session: timers, and a new session when this one is getting old. */
export function noteTransportSent(core: Core, peer: Peer, nowMs: number, isData: boolean): void {
  noteSent(core, peer, nowMs);
  if (isData) noteDataSent(core, peer, nowMs);
  const session = peer.current;
  if (session === undefined) return;
  const isOld = session.isInitiator && nowMs - session.createdAtMs >= REKEY_AFTER_MS;
  if (isOld || session.sendCounter > session.rekeyAfterMessages) requestHandshake(core, peer, nowMs, false);
}

/** Messages came in: the initiator of a session that is about to be refused makes a new one, even if it has nothing to say. */
export function keepFreshOnReceive(core: Core, peer: Peer, nowMs: number): void {
  const session = peer.current;
  if (session === undefined || peer.hasRekeyedOnReceive || !session.isInitiator) return;
  if (nowMs - session.createdAtMs < REKEY_ON_RECEIVE_MS) return;
  peer.hasRekeyedOnReceive = true;
  requestHandshake(core, peer, nowMs, false);
}

/** Tells the debug key log what tshark needs to decrypt this handshake; its four lines in this order. */
export function logKeys(core: Core, peer: Peer, ephemeralSecret: Uint8Array): void {
  core.onKeys?.(`REMOTE_STATIC_PUBLIC_KEY = ${toBase64(peer.publicKey)}`);
  core.onKeys?.(`LOCAL_STATIC_PRIVATE_KEY = ${toBase64(core.local.secretKey)}`);
  core.onKeys?.(`LOCAL_EPHEMERAL_PRIVATE_KEY = ${toBase64(ephemeralSecret)}`);
  core.onKeys?.(`PRESHARED_KEY = ${toBase64(peer.keys.presharedKey)}`);
}
