/**
 * Transport messages (type 4), both ways. Timers, endpoint and rekeying are settled once per batch and peer, in `finishBatch`.
 *
 * Hot file (bench: `scripts/bench/micro.ts`): `open` and `write` run once per packet, and allocate nothing.
 * @see WireGuard paper §5.4.6
 */
import { readU32LE } from "../bytes/integers.ts";
import { copyUnderlayAddr } from "../ip/underlay_addr.ts";
import type { PacketCipher } from "../ports.ts";
import {
  DROP_BAD_TAG,
  DROP_COUNTER_RANGE,
  DROP_INVALID_PACKET,
  DROP_NO_SESSION,
  DROP_REPLAYED,
  DROP_SESSION_EXPIRED,
  FORWARD,
  type Verdict,
} from "../verdict.ts";
import {
  AT_TRANSPORT_COUNTER,
  AT_TRANSPORT_RECEIVER,
  TRANSPORT_HEADER_BYTES,
  TRANSPORT_MIN_BYTES,
  writeTransportHeader,
} from "../wire/wg_message.ts";
import { COUNTER_HIGH_LIMIT, REJECT_AFTER_MS } from "./constants.ts";
import type { Core } from "./core.ts";
import type { Peer } from "./peer.ts";
import { keepFreshOnReceive } from "./sending.ts";
import type { Session } from "./session.ts";
import { forgetPending, promoteNext } from "./slots.ts";
import { noteDataHeard, noteHandshakeComplete, noteHeard } from "./timers.ts";

export class Transport {
  readonly #core: Core;
  /** peers that the running batch has brought something of */
  readonly #touched: Peer[] = [];
  #touchedCount = 0;

  // What `open` found. Valid after FORWARD, until the next call.
  openedAt = 0;
  openedEnd = 0;
  openedPeer: Peer | undefined = undefined;

  constructor(core: Core) {
    this.#core = core;
  }

  /** See `WireGuard.open`. */
  open(
    cipher: PacketCipher,
    bytes: Uint8Array,
    at: number,
    end: number,
    fromAt: number,
    nowMs: number,
  ): Verdict {
    if (end - at < TRANSPORT_MIN_BYTES) return DROP_INVALID_PACKET;
    const session = this.#core.sessions.find(readU32LE(bytes, at + AT_TRANSPORT_RECEIVER));
    if (session === undefined) return DROP_NO_SESSION;
    if (nowMs - session.createdAtMs >= REJECT_AFTER_MS) return DROP_SESSION_EXPIRED;
    const counterAt = at + AT_TRANSPORT_COUNTER;
    const high = readU32LE(bytes, counterAt + 4);
    // A forged header can carry any 64 bits. No session of three minutes gets near 2^53, so this drops earlier than the
    // paper's limit of 2^64 - 2^13 - 1.
    if (high >= COUNTER_HIGH_LIMIT) return DROP_COUNTER_RANGE;
    const sealedAt = at + TRANSPORT_HEADER_BYTES;
    const key = session.receiveKey;
    const isGood = key === undefined
      ? findReceiveKey(session, cipher, bytes, counterAt, sealedAt, end)
      : cipher.open(key, counterAt, sealedAt, end);
    if (!isGood) return DROP_BAD_TAG;
    if (!session.window.accept(high, readU32LE(bytes, counterAt))) return DROP_REPLAYED;

    const peer = session.peer;
    this.openedAt = sealedAt;
    this.openedEnd = end - session.receiveKey!.tagBytes;
    this.openedPeer = peer;
    peer.rxBytes += end - at;
    peer.heardFromAt = fromAt;
    if (this.openedEnd > sealedAt) peer.hasHeardData = true;
    if (!peer.isTouched) this.#touch(peer);
    if (session === peer.next) this.#confirm(peer, nowMs);
    return FORWARD;
  }

  /** See `WireGuard.writeTransport`. */
  write(
    session: Session,
    cipher: PacketCipher,
    bytes: Uint8Array,
    headerAt: number,
    plainEnd: number,
    outAt: number,
  ): number {
    const counter = session.sendCounter;
    session.sendCounter = counter + 1;
    const plainAt = headerAt + TRANSPORT_HEADER_BYTES;
    const sealedAt = outAt + TRANSPORT_HEADER_BYTES;
    writeTransportHeader(bytes, outAt, session.remoteIndex, counter);
    cipher.seal(session.sendKey, counter, plainAt, plainEnd, sealedAt);
    const end = sealedAt + (plainEnd - plainAt) + session.sendTagBytes;
    session.peer.txBytes += end - outAt;
    return end;
  }

  /** See `WireGuard.finishReceiveBatch`. */
  finishBatch(nowMs: number): void {
    for (let i = 0; i < this.#touchedCount; i++) {
      this.#settle(this.#touched[i]!, nowMs);
    }
    this.#touchedCount = 0;
  }

  #touch(peer: Peer): void {
    peer.isTouched = true;
    this.#touched[this.#touchedCount++] = peer;
  }

  #settle(peer: Peer, nowMs: number): void {
    const core = this.#core;
    peer.isTouched = false;
    if (peer.isRemoved) return;
    if (peer.heardFromAt >= 0) copyUnderlayAddr(core.arena, peer.heardFromAt, core.arena, peer.endpointAt);
    peer.heardFromAt = -1;
    noteHeard(core, peer, nowMs);
    if (peer.hasHeardData) noteDataHeard(core, peer, nowMs);
    peer.hasHeardData = false;
    keepFreshOnReceive(core, peer, nowMs);
  }

  /** The initiator has shown that it has the keys: `next` becomes current, and what is staged may go. */
  #confirm(peer: Peer, nowMs: number): void {
    const core = this.#core;
    promoteNext(core, peer);
    forgetPending(core, peer);
    noteHandshakeComplete(core, peer, nowMs);
    core.ready.push(peer);
  }
}

/** The first message of a session: whatever opens it is what the other side seals with. */
function findReceiveKey(
  session: Session,
  cipher: PacketCipher,
  bytes: Uint8Array,
  counterAt: number,
  at: number,
  end: number,
): boolean {
  const key = session.receiveKeys?.open(cipher, bytes, counterAt, at, end);
  if (key === undefined) return false;
  session.settleReceive(key);
  return true;
}
