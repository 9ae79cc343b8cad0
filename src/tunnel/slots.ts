/**
 * Which session a peer sends and receives with: `previous`, `current`, `next`, and the events that move them. The rules are
 * the kernel's and wireguard-go's:
 *
 *     event                                  previous     current       next
 *     initiator got the response, no next    old current  new           -
 *     initiator got it, a next was waiting   old next     new           -      (old current is deleted)
 *     responder sent the response            deleted      unchanged     new    (an old next is deleted)
 *     first valid data message on next       old current  old next      -
 *
 * One rule of our own, for two initiations that cross (both ends are told to start at the same moment, as when two NATs are
 * opened). The kernel lets both fail and waits five seconds. Here both handshakes finish, and the two sides agree which one
 * counts by their public keys: see `installAsInitiator`.
 */
import { wipeInitiation } from "../noise/handshake.ts";
import type { SessionSecrets } from "../noise/transcript.ts";
import type { Core } from "./core.ts";
import type { Peer } from "./peer.ts";
import { makeAeadKey } from "./aead.ts";
import { ReceiveKeys } from "./receive_keys.ts";
import { Session } from "./session.ts";

/** Makes a session from the keys of a handshake, which are its own then. It is in the index table, but in no slot yet. */
export function makeSession(
  core: Core,
  peer: Peer,
  isInitiator: boolean,
  localIndex: number,
  remoteIndex: number,
  secrets: SessionSecrets,
  nowMs: number,
): Session {
  const sendKey = makeAeadKey(core.ciphers, secrets.send, peer.sendAead);
  core.ciphers.wipe(secrets.send);
  const receiveKeys = new ReceiveKeys(core.ciphers, secrets.receive, peer.agreedAead);
  const session = new Session(peer, isInitiator, localIndex, remoteIndex, sendKey, receiveKeys, nowMs);
  core.sessions.add(localIndex, session);
  return session;
}

/**
 * The session of a response that we got.
 *
 * When `next` is contested, the other side has, or will have, a session of its own initiation as current, as we have one of
 * ours. The side with the smaller public key then gives way: it keeps `next` where it is, so that the first message on it
 * makes it current. The other side keeps its own, and both have the other one as previous. A peer that lets crossed
 * handshakes fail never sends on `next`, and all is as if it had not been.
 */
export function installAsInitiator(core: Core, peer: Peer, session: Session): void {
  const waiting = peer.next;
  if (waiting === undefined || (waiting.isContested && isSmaller(core.local.publicKey, peer.publicKey))) {
    discard(core, peer.previous);
    peer.previous = peer.current;
  } else {
    discard(core, peer.previous);
    discard(core, peer.current);
    peer.previous = waiting;
    peer.next = undefined;
  }
  peer.current = session;
}

/** The session of a response that we sent: it only receives until the initiator has shown that it has the keys. */
export function installAsResponder(core: Core, peer: Peer, session: Session): void {
  discard(core, peer.previous);
  discard(core, peer.next);
  peer.previous = undefined;
  peer.next = session;
}

/** The first valid message came on `next`. */
export function promoteNext(core: Core, peer: Peer): void {
  discard(core, peer.previous);
  peer.previous = peer.current;
  peer.current = peer.next;
  peer.next = undefined;
}

/** Wipes all sessions and the running handshake. */
export function wipePeer(core: Core, peer: Peer): void {
  discard(core, peer.previous);
  discard(core, peer.current);
  discard(core, peer.next);
  peer.previous = undefined;
  peer.current = undefined;
  peer.next = undefined;
  forgetPending(core, peer);
}

/** Gives up our initiation that waits for a response, if there is one. */
export function forgetPending(core: Core, peer: Peer): void {
  const pending = peer.pending;
  if (pending === undefined) return;
  core.handshakes.delete(pending.localIndex);
  wipeInitiation(core.ciphers, pending);
  peer.pending = undefined;
}

function discard(core: Core, session: Session | undefined): void {
  if (session === undefined) return;
  core.sessions.delete(session.localIndex);
  session.wipe();
}

function isSmaller(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i]! < b[i]!;
  return false;
}
