/**
 * One WireGuard device, without sockets, clock or chance: messages and ticks in, messages out. The whole protocol, so that it
 * speaks with Linux' own WireGuard and with wireguard-go.
 *
 * How the loop uses it:
 *
 *     for each datagram:   readMessageType: 1 to 3 -> receiveControl, 4 -> open (then the inner packet)
 *     after the batch:     finishReceiveBatch, then drain `ready`, `abandoned` and the outbox
 *     to send a packet:    sealing -> writeTransport for each, then afterSend once; `undefined` -> stage it
 *     every round:         tick (a comparison when nothing is due), then drain again
 *
 * What to read next: `handshaking.ts` (control messages), `transport.ts` (hot path), `slots.ts` and `timers.ts` (the rules).
 * The packet path's part of this file is hot: `findSession`, `open`, `sealing`, `writeTransport`.
 * @see WireGuard paper (Donenfeld, NDSS 2017, revised 2020)
 */
import { forgetOwnAddress, UNDERLAY_ADDR_BYTES } from "../ip/underlay_addr.ts";
import type { AeadName, Ciphers, PacketCipher, RandomBytes } from "../ports.ts";
import type { Verdict } from "../verdict.ts";
import { KEY_BYTES } from "../wire/wg_message.ts";
import type { AllowedIps } from "./allowed_ips.ts";
import { MAX_HANDSHAKE_RETRIES, SPARE_ADDRESSES } from "./constants.ts";
import { Core } from "./core.ts";
import { receiveControl } from "./handshaking.ts";
import { LostSessions } from "./lost_sessions.ts";
import type { Outbox, OutgoingMessage } from "./outbox.ts";
import { NEVER, type Peer } from "./peer.ts";
import type { PeerQueue } from "./peer_queue.ts";
import { type PeerSpec, PeerTable } from "./peer_table.ts";
import { findSealing, isUsable, noteTransportSent, requestHandshake, sendKeepalive } from "./sending.ts";
import type { Session } from "./session.ts";
import { wipePeer } from "./slots.ts";
import { armKeepalive, armZeroKeys, earliestTimer, noteTraversal } from "./timers.ts";
import { Transport } from "./transport.ts";

export interface WireGuardOptions {
  /** 32 octets; copied */
  readonly privateKey: Uint8Array;
  readonly ciphers: Ciphers;
  readonly random: RandomBytes;
  /** the packet arena; also holds the address records */
  readonly arena: Uint8Array;
  /** arena offset of `addressRoomBytes(maxPeers)` octets that belong to the device */
  readonly addressesAt: number;
  readonly maxPeers: number;
  /** greatest timestamp that an earlier life of this key may have sent: `stampFloor` as it was saved */
  readonly stampFloor?: Uint8Array | undefined;
  /** what data may be sealed with where a peer's spec says so, beside ChaCha20-Poly1305; absent: nothing else */
  readonly sendAeads?: readonly AeadName[];
  /** both clocks now; `tick` and `receiveControl` keep them in step */
  readonly nowMs: number;
  readonly unixMs: number;
}

/** Octets of the arena that a device needs for address records. */
export function addressRoomBytes(maxPeers: number): number {
  return (maxPeers + SPARE_ADDRESSES) * UNDERLAY_ADDR_BYTES;
}

export class WireGuard {
  readonly publicKey: Uint8Array;
  /** which peer an address is behind; values are peer slots */
  readonly allowedIps: AllowedIps;
  /** what the device wants sent */
  readonly outbox: Outbox;
  /** peers that can be sent to now, and perhaps have staged packets: the datapath takes them and sends those */
  readonly ready: PeerQueue;
  /** peers that could not be reached: the datapath takes them and drops what it has staged */
  readonly abandoned: PeerQueue;
  readonly #core: Core;
  readonly #peers: PeerTable;
  readonly #transport: Transport;
  readonly #lost: LostSessions;

  /** @throws RangeError when the key, the room or the floor is not what it must be */
  constructor(options: WireGuardOptions) {
    const { privateKey, arena, addressesAt, maxPeers } = options;
    if (privateKey.length !== KEY_BYTES) throw new RangeError("Private key is not 32 octets");
    if (addressesAt < 0 || addressesAt + addressRoomBytes(maxPeers) > arena.length) {
      throw new RangeError(`Arena has no room for ${maxPeers} address records at ${addressesAt}`);
    }
    const sparesAt = addressesAt + maxPeers * UNDERLAY_ADDR_BYTES;
    const core = new Core(
      options.ciphers,
      options.random,
      privateKey,
      arena,
      sparesAt,
      maxPeers,
      options.stampFloor,
      options.sendAeads ?? [],
    );
    core.unixOffsetMs = options.unixMs - options.nowMs;
    this.#core = core;
    this.#peers = new PeerTable(core, addressesAt, maxPeers);
    this.#transport = new Transport(core);
    this.#lost = new LostSessions(core, this.#peers, maxPeers);
    this.publicKey = core.local.publicKey;
    this.allowedIps = this.#peers.allowedIps;
    this.outbox = core.outbox;
    this.ready = core.ready;
    this.abandoned = core.abandoned;
  }

  /**
   * The last timestamp sent, 12 octets. To be saved, and given back as `stampFloor` after a restart; `stampAfter` makes one
   * that covers what is sent until the next save.
   */
  get stampFloor(): Uint8Array {
    return this.#core.stamps.floor;
  }

  /** Debug key log in tshark's format (`wg.keylog_file`), one call per line. Holds secret keys. Off when undefined. */
  set onKeys(log: ((line: string) => void) | undefined) {
    this.#core.onKeys = log;
  }

  // --- peers

  /**
   * Adds a peer, or changes it live into what `spec` says. The same again changes nothing; a changed preshared key ends its
   * sessions; keepalive switched on speaks at the next `tick`. A changed AEAD is the next session's; one that the peer has taken
   * back asks for that session at once, as the peer may be an older program now that cannot open the other.
   *
   * @throws RangeError, and nothing has changed, when a value is out of range, the key is our own, or there is no room
   */
  putPeer(spec: PeerSpec, nowMs: number): Peer {
    const peer = this.#peers.put(spec, nowMs);
    const current = peer.current?.sendKey.aead ?? "chacha20poly1305";
    if (current !== "chacha20poly1305" && current !== peer.sendAead) requestHandshake(this.#core, peer, nowMs, false);
    return peer;
  }

  /** Forgets a peer and its keys; whether there was one. */
  removePeer(publicKey: Uint8Array): boolean {
    return this.#peers.remove(publicKey);
  }

  findPeer(publicKey: Uint8Array): Peer | undefined {
    return this.#peers.find(publicKey);
  }

  /** The peer of a slot, as the allowed IPs table names it. */
  peerAt(slot: number): Peer | undefined {
    return this.#peers.at(slot);
  }

  peers(): IterableIterator<Peer> {
    return this.#peers.values();
  }

  /** Starts a handshake for a reason outside of the protocol, as when both sides were told to open their NATs. */
  startHandshake(peer: Peer, nowMs: number): void {
    requestHandshake(this.#core, peer, nowMs, false);
  }

  /** Whether packets to the peer can be sealed now. Starts nothing. */
  hasSession(peer: Peer, nowMs: number): boolean {
    return peer.current !== undefined && isUsable(peer.current, nowMs);
  }

  // --- control messages

  /**
   * Handles a message of type 1 to 3; its answers are in the outbox.
   *
   * @param bytes holds the message at `[at, end)`; borrowed for this call
   * @param fromAt arena offset of the source's address record; borrowed for this call
   * @returns FORWARD when it was accepted; else a drop reason, and no handshake, session or endpoint has changed
   */
  receiveControl(
    bytes: Uint8Array,
    at: number,
    end: number,
    fromAt: number,
    nowMs: number,
    unixMs: number,
  ): Verdict {
    this.#core.unixOffsetMs = unixMs - nowMs;
    return receiveControl(this.#core, this.#peers, bytes, at, end, fromAt, nowMs);
  }

  // --- transport

  /** The session of a receiver index (any 32 bits), in whatever slot. */
  findSession(receiverIndex: number): Session | undefined {
    return this.#core.sessions.find(receiverIndex);
  }

  /**
   * Opens a message of type 4 in place. On FORWARD the plaintext is `[openedAt, openedEnd)` and came from `openedPeer`; it is
   * padded with zeros, and empty for a keepalive. The caller checks that its source is among the peer's allowed IPs.
   *
   * @param bytes the arena of `cipher`
   * @param fromAt arena offset of the source's address record, which must stay until `finishReceiveBatch`
   * @returns FORWARD or a drop reason; never throws
   */
  open(
    cipher: PacketCipher,
    bytes: Uint8Array,
    at: number,
    end: number,
    fromAt: number,
    nowMs: number,
  ): Verdict {
    return this.#transport.open(cipher, bytes, at, end, fromAt, nowMs);
  }

  /**
   * A message was answered DROP_NO_SESSION: if it came from where a peer without a session is, that peer is asked for a new one.
   * @param fromAt as for `open`
   */
  noteLostSession(fromAt: number, nowMs: number): void {
    this.#lost.note(fromAt, nowMs);
  }

  get openedAt(): number {
    return this.#transport.openedAt;
  }

  get openedEnd(): number {
    return this.#transport.openedEnd;
  }

  get openedPeer(): Peer | undefined {
    return this.#transport.openedPeer;
  }

  /** Settles what the messages opened since the last call mean for timers, endpoints and rekeying. Once per batch. */
  finishReceiveBatch(nowMs: number): void {
    this.#transport.finishBatch(nowMs);
  }

  /**
   * The session to seal packets to a peer with, for this batch. `undefined`: stage the packet (and count it in
   * `peer.stagedCount`); a handshake was asked for, and the peer comes up in `ready` or `abandoned`. A peer without a known
   * endpoint (family 0 at `endpointAt`) cannot be asked: drop instead.
   */
  sealing(peer: Peer, nowMs: number): Session | undefined {
    return findSealing(this.#core, peer, nowMs);
  }

  /**
   * Seals one packet: header at `outAt`, then ciphertext of `[headerAt + 16, plainEnd)` and tag.
   *
   * @param session from `sealing`, in the same batch
   * @param bytes the arena of `cipher`
   * @param plainEnd end of the plaintext, padded already; the message ends 16 octets and the session's tag behind it
   * @param outAt `headerAt` to seal in place; else a range that does not overlap the plaintext
   * @returns the end of the message
   */
  writeTransport(
    session: Session,
    cipher: PacketCipher,
    bytes: Uint8Array,
    headerAt: number,
    plainEnd: number,
    outAt: number,
  ): number {
    return this.#transport.write(session, cipher, bytes, headerAt, plainEnd, outAt);
  }

  /** After packets were sealed to a peer, once per batch. @param isData false when all of them were keepalives */
  afterSend(peer: Peer, nowMs: number, isData: boolean): void {
    noteTransportSent(this.#core, peer, nowMs, isData);
  }

  // --- what goes out by itself

  /**
   * Writes a message of the outbox into the arena, and counts it. The caller then sends `[at, result)` to `message.toAt`.
   *
   * @param at where 148 octets are free
   * @returns the end of the message; `at` when there is nothing to send any more
   */
  writeOutgoing(message: OutgoingMessage, cipher: PacketCipher, at: number): number {
    const { arena } = this.#core;
    const session = message.session;
    if (session !== undefined) {
      return session.isWiped ? at : this.#transport.write(session, cipher, arena, at, at + 16, at);
    }
    for (let i = 0; i < message.size; i++) arena[at + i] = message.bytes[i]!;
    if (message.peer !== undefined) message.peer.txBytes += message.size;
    return at + message.size;
  }

  /**
   * Runs the timers that are due.
   *
   * @param nowMs monotonic, counting suspend
   * @param unixMs the wall clock, for timestamps
   * @returns when to call again at the latest, `Infinity` when no timer is armed
   */
  tick(nowMs: number, unixMs: number): number {
    const { deadlines } = this.#core;
    this.#core.unixOffsetMs = unixMs - nowMs;
    if (nowMs < deadlines.nextAtMs) return deadlines.nextAtMs;
    let nextAtMs = NEVER;
    for (const peer of this.#peers.values()) {
      if (deadlines.dueAtMs(peer.slot) <= nowMs) {
        this.#runTimers(peer, nowMs);
        deadlines.set(peer.slot, earliestTimer(peer));
      }
      nextAtMs = Math.min(nextAtMs, deadlines.dueAtMs(peer.slot));
    }
    deadlines.nextAtMs = nextAtMs;
    return nextAtMs;
  }

  /** Overwrites all keys. The device must not be used afterwards. */
  wipe(): void {
    for (const peer of [...this.#peers.values()]) this.#peers.remove(peer.publicKey);
    this.#core.ciphers.wipe(this.#core.local.secretKey);
  }

  #runTimers(peer: Peer, nowMs: number): void {
    if (peer.zeroKeysAtMs <= nowMs) this.#zeroKeys(peer);
    if (peer.retransmitAtMs <= nowMs) this.#retransmit(peer, nowMs);
    if (peer.newHandshakeAtMs <= nowMs) {
      peer.newHandshakeAtMs = NEVER;
      forgetOwnAddress(this.#core.arena, peer.endpointAt); // nothing comes back: perhaps because of it
      requestHandshake(this.#core, peer, nowMs, false);
    }
    if (peer.keepaliveAtMs <= nowMs) this.#answer(peer, nowMs);
    if (peer.persistentAtMs <= nowMs) {
      noteTraversal(this.#core, peer, nowMs); // the next one comes even if this one cannot be sent
      sendKeepalive(this.#core, peer, nowMs);
    }
  }

  /** No response came. After 20 initiations the peer is given up, until there is a fresh reason. */
  #retransmit(peer: Peer, nowMs: number): void {
    const core = this.#core;
    peer.retransmitAtMs = NEVER;
    if (peer.retries <= MAX_HANDSHAKE_RETRIES) {
      peer.retries++;
      forgetOwnAddress(core.arena, peer.endpointAt);
      requestHandshake(core, peer, nowMs, true);
      return;
    }
    peer.keepaliveAtMs = NEVER;
    core.abandoned.push(peer);
    if (peer.zeroKeysAtMs === NEVER) armZeroKeys(core, peer, nowMs);
  }

  /** Data came, and nothing of ours went: say that we are here. */
  #answer(peer: Peer, nowMs: number): void {
    const isAnotherDue = peer.needsAnotherKeepalive;
    peer.keepaliveAtMs = NEVER;
    sendKeepalive(this.#core, peer, nowMs);
    if (isAnotherDue) armKeepalive(this.#core, peer, nowMs);
  }

  /** No session for nine minutes. A handshake that is being tried goes on trying. */
  #zeroKeys(peer: Peer): void {
    peer.zeroKeysAtMs = NEVER;
    wipePeer(this.#core, peer);
    this.#core.abandoned.push(peer);
  }
}
