/**
 * Received control messages (types 1 to 3): the checks in order of their cost, and what an accepted one changes. Nothing is
 * changed before a message has passed all of them. Start at `receiveControl`.
 * @see WireGuard paper §5.4.2 to §5.4.7
 */
import { readU32LE } from "../bytes/integers.ts";
import { copyUnderlayAddr, FAMILY_IPV4, familyOf, UNDERLAY_ADDR_BYTES } from "../ip/underlay_addr.ts";
import { isMac1Valid } from "../noise/cookie.ts";
import { type OpenedInitiation, openInitiation, openInitiationStamp } from "../noise/handshake.ts";
import { readResponse, writeResponse } from "../noise/handshake.ts";
import { isLaterStamp } from "../noise/tai64n.ts";
import {
  DROP_BAD_COOKIE,
  DROP_BAD_HANDSHAKE,
  DROP_BAD_MAC1,
  DROP_RATE_LIMITED,
  DROP_STALE_HANDSHAKE,
  DROP_UNDER_LOAD,
  DROP_UNKNOWN_MESSAGE,
  DROP_UNKNOWN_PEER,
  FORWARD,
  type Verdict,
} from "../verdict.ts";
import {
  AT_COOKIE_RECEIVER,
  AT_RESPONSE_RECEIVER,
  AT_SENDER,
  COOKIE_BYTES,
  KEY_BYTES,
  MESSAGE_COOKIE,
  MESSAGE_INITIATION,
  MESSAGE_RESPONSE,
  readMessageType,
  RESPONSE_BYTES,
} from "../wire/wg_message.ts";
import { INITIATION_GAP_MS, SPARE_ADDRESSES } from "./constants.ts";
import type { Core } from "./core.ts";
import { pickIndex } from "./index_table.ts";
import type { Peer } from "./peer.ts";
import type { PeerTable } from "./peer_table.ts";
import { logKeys, sendKeepalive } from "./sending.ts";
import { forgetPending, installAsInitiator, installAsResponder, makeSession } from "./slots.ts";
import { armZeroKeys, noteHandshakeComplete, noteHeard, noteSent } from "./timers.ts";

/** Handles a control message. @param fromAt arena offset of the source's address record */
export function receiveControl(
  core: Core,
  peers: PeerTable,
  bytes: Uint8Array,
  at: number,
  end: number,
  fromAt: number,
  nowMs: number,
): Verdict {
  const type = readMessageType(bytes, at, end);
  const message = bytes.subarray(at, end);
  if (type === MESSAGE_COOKIE) return receiveCookie(core, message, nowMs);
  if (type !== MESSAGE_INITIATION && type !== MESSAGE_RESPONSE) return DROP_UNKNOWN_MESSAGE;
  if (!isMac1Valid(core.local.mac1Key, message)) return DROP_BAD_MAC1;
  return type === MESSAGE_INITIATION
    ? receiveInitiation(core, peers, message, fromAt, nowMs)
    : receiveResponse(core, message, fromAt, nowMs);
}

function receiveInitiation(core: Core, peers: PeerTable, message: Uint8Array, fromAt: number, nowMs: number): Verdict {
  const admission = admit(core, message, fromAt, nowMs);
  if (admission !== FORWARD) return admission;
  const opened = openInitiation(core.ciphers, core.local, message);
  if (opened === undefined) return DROP_BAD_HANDSHAKE;
  const peer = peers.find(opened.remotePublicKey);
  const verdict = peer === undefined ? DROP_UNKNOWN_PEER : acceptInitiation(core, peer, opened, message, fromAt, nowMs);
  opened.transcript.wipe();
  return verdict;
}

/** Checks the timestamp, and answers. */
function acceptInitiation(
  core: Core,
  peer: Peer,
  opened: OpenedInitiation,
  message: Uint8Array,
  fromAt: number,
  nowMs: number,
): Verdict {
  const stamp = openInitiationStamp(opened, peer.keys, message);
  if (stamp === undefined) return DROP_BAD_HANDSHAKE;
  if (!isLaterStamp(stamp, peer.greatestStamp)) return DROP_STALE_HANDSHAKE;
  if (nowMs - peer.initiationAcceptedAtMs < INITIATION_GAP_MS) return DROP_RATE_LIMITED;
  if (!respond(core, peer, opened, nowMs)) return DROP_BAD_HANDSHAKE;
  peer.greatestStamp.set(stamp);
  peer.initiationAcceptedAtMs = nowMs;
  peer.rxBytes += message.length;
  learnEndpoint(core, peer, fromAt);
  noteHeard(core, peer, nowMs);
  return FORWARD;
}

/** Queues the response and makes the session that waits for the initiator's first message. */
function respond(core: Core, peer: Peer, opened: OpenedInitiation, nowMs: number): boolean {
  const ephemeralSecret = new Uint8Array(KEY_BYTES);
  core.random(ephemeralSecret);
  const loggedSecret = core.onKeys === undefined ? undefined : ephemeralSecret.slice();
  const localIndex = pickIndex(core.random, core.handshakes, core.sessions);
  const reply = core.outbox.add(peer, peer.endpointAt);
  const bytes = reply.bytes.subarray(0, RESPONSE_BYTES);
  const secrets = writeResponse(core.ciphers, opened, peer.keys, localIndex, ephemeralSecret, bytes);
  if (secrets === undefined) {
    core.outbox.dropLast();
    return false;
  }
  reply.size = RESPONSE_BYTES;
  peer.cookies.writeMacs(peer.keys, bytes, nowMs);
  if (loggedSecret !== undefined) logKeys(core, peer, loggedSecret);
  const session = makeSession(core, peer, false, localIndex, opened.remoteIndex, secrets, nowMs);
  session.isContested = peer.pending !== undefined;
  installAsResponder(core, peer, session);
  peer.handshakeSentAtMs = nowMs;
  armZeroKeys(core, peer, nowMs);
  noteSent(core, peer, nowMs);
  return true;
}

function receiveResponse(core: Core, message: Uint8Array, fromAt: number, nowMs: number): Verdict {
  // The look-up first: it is cheaper than a cookie, and only the one who got our initiation knows its index.
  const peer = core.handshakes.find(readU32LE(message, AT_RESPONSE_RECEIVER));
  if (peer === undefined) return DROP_STALE_HANDSHAKE;
  const admission = admit(core, message, fromAt, nowMs);
  if (admission !== FORWARD) return admission;
  const pending = peer.pending!; // Invariant: whoever is in `handshakes` has one
  const secrets = readResponse(core.ciphers, core.local, peer.keys, pending, message);
  if (secrets === undefined) return DROP_BAD_HANDSHAKE;
  forgetPending(core, peer);
  const remoteIndex = readU32LE(message, AT_SENDER);
  installAsInitiator(core, peer, makeSession(core, peer, true, pending.localIndex, remoteIndex, secrets, nowMs));
  peer.rxBytes += message.length;
  learnEndpoint(core, peer, fromAt);
  noteHeard(core, peer, nowMs);
  armZeroKeys(core, peer, nowMs);
  noteHandshakeComplete(core, peer, nowMs);
  core.ready.push(peer);
  sendKeepalive(core, peer, nowMs); // the responder may not send before it has heard from us
  return FORWARD;
}

/** A cookie reply tells nothing about where the peer is, and answers a handshake that may still be running. */
function receiveCookie(core: Core, message: Uint8Array, nowMs: number): Verdict {
  const index = readU32LE(message, AT_COOKIE_RECEIVER);
  const peer = core.handshakes.find(index) ?? core.sessions.find(index)?.peer;
  if (peer === undefined) return DROP_STALE_HANDSHAKE;
  return peer.cookies.takeReply(core.ciphers, peer.keys, message, nowMs) ? FORWARD : DROP_BAD_COOKIE;
}

/**
 * Lets a handshake message with a right mac1 on to the costly part. Under load it must show our cookie, or gets one and no
 * more; then its source's share is asked, which nobody else can use up because the cookie proved the source.
 */
function admit(core: Core, message: Uint8Array, fromAt: number, nowMs: number): Verdict {
  if (!core.load.count(nowMs)) return FORWARD;
  const source = sourceBytes(core.arena, fromAt);
  if (core.cookies.isMac2Valid(message, source, nowMs)) {
    return core.limiter.allow(core.arena, fromAt, nowMs) ? FORWARD : DROP_RATE_LIMITED;
  }
  const replies = core.outbox.replies;
  if (replies < SPARE_ADDRESSES) {
    core.outbox.replies = replies + 1;
    const toAt = core.sparesAt + replies * UNDERLAY_ADDR_BYTES;
    copyUnderlayAddr(core.arena, fromAt, core.arena, toAt);
    const reply = core.outbox.add(undefined, toAt);
    reply.size = COOKIE_BYTES;
    const index = readU32LE(message, AT_SENDER);
    core.cookies.writeReply(message, index, source, nowMs, reply.bytes.subarray(0, COOKIE_BYTES));
  }
  return DROP_UNDER_LOAD;
}

/** Address octets, then the port's. */
function sourceBytes(bytes: Uint8Array, at: number): Uint8Array {
  const isIpv4 = familyOf(bytes, at) === FAMILY_IPV4;
  const addressAt = at + (isIpv4 ? 4 : 8);
  const size = isIpv4 ? 4 : 16;
  const source = new Uint8Array(size + 2);
  source.set(bytes.subarray(addressAt, addressAt + size));
  source.set(bytes.subarray(at + 2, at + 4), size);
  return source;
}

/** The peer is where its last authenticated message came from; what the running batch brought before is older. */
function learnEndpoint(core: Core, peer: Peer, fromAt: number): void {
  peer.heardFromAt = -1;
  copyUnderlayAddr(core.arena, fromAt, core.arena, peer.endpointAt);
}
