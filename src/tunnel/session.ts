/** Transport keys of one finished handshake, with the counters of both directions. */
import type { TransportKey } from "../ports.ts";
import type { Peer } from "./peer.ts";
import { ReplayWindow } from "./replay_window.ts";

export class Session {
  readonly peer: Peer;
  /** whether we sent the initiation: only that side makes a new session when this one gets old */
  readonly isInitiator: boolean;
  /** names this session in what we receive; unsigned */
  readonly localIndex: number;
  /** names it in what we send; unsigned */
  readonly remoteIndex: number;
  readonly sendKey: TransportKey;
  readonly receiveKey: TransportKey;
  /** when it was derived */
  readonly createdAtMs: number;
  readonly window = new ReplayWindow();
  /** counter of the next message that we send */
  sendCounter = 0;
  /**
   * Both sides had sent an initiation when we answered the other's with this session: two sessions come out, and both sides
   * must settle on the same one. See `installAsInitiator`.
   */
  isContested = false;
  /** its keys are gone; nothing may be sealed with it any more */
  isWiped = false;

  constructor(
    peer: Peer,
    isInitiator: boolean,
    localIndex: number,
    remoteIndex: number,
    sendKey: TransportKey,
    receiveKey: TransportKey,
    createdAtMs: number,
  ) {
    this.peer = peer;
    this.isInitiator = isInitiator;
    this.localIndex = localIndex;
    this.remoteIndex = remoteIndex;
    this.sendKey = sendKey;
    this.receiveKey = receiveKey;
    this.createdAtMs = createdAtMs;
  }

  /** Overwrites both keys. */
  wipe(): void {
    this.isWiped = true;
    this.sendKey.wipe();
    this.receiveKey.wipe();
  }
}
