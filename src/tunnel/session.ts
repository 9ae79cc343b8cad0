/** Transport keys of one finished handshake, with the counters of both directions. */
import type { TransportKey } from "../ports.ts";
import { factsOf } from "./aead.ts";
import type { Peer } from "./peer.ts";
import type { ReceiveKeys } from "./receive_keys.ts";
import { ReplayWindow } from "./replay_window.ts";

export class Session {
  readonly peer: Peer;
  /** whether we sent the initiation: only that side makes a new session when this one gets old */
  readonly isInitiator: boolean;
  /** names this session in what we receive; unsigned */
  readonly localIndex: number;
  /** names it in what we send; unsigned */
  readonly remoteIndex: number;
  /** of the AEAD that this session seals with until it ends */
  readonly sendKey: TransportKey;
  /** octets of its tag */
  readonly sendTagBytes: number;
  /** after so many messages a new session is asked for, and after so many nothing more is sealed */
  readonly rekeyAfterMessages: number;
  readonly rejectAfterMessages: number;
  /** of the AEAD that the other side seals with; undefined until its first message */
  receiveKey: TransportKey | undefined = undefined;
  /** finds `receiveKey`. Invariant: exactly one of the two is there, until the session is wiped. */
  receiveKeys: ReceiveKeys | undefined;
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
    receiveKeys: ReceiveKeys,
    createdAtMs: number,
  ) {
    const { rekeyAfterMessages, rejectAfterMessages } = factsOf(sendKey.aead);
    this.peer = peer;
    this.isInitiator = isInitiator;
    this.localIndex = localIndex;
    this.remoteIndex = remoteIndex;
    this.sendKey = sendKey;
    this.sendTagBytes = sendKey.tagBytes;
    this.rekeyAfterMessages = rekeyAfterMessages;
    this.rejectAfterMessages = rejectAfterMessages;
    this.receiveKeys = receiveKeys;
    this.createdAtMs = createdAtMs;
  }

  /** The other side's AEAD is known: it seals with this one until the session ends. */
  settleReceive(key: TransportKey): void {
    this.receiveKey = key;
    this.receiveKeys = undefined;
  }

  /** Overwrites the keys. */
  wipe(): void {
    this.isWiped = true;
    this.sendKey.wipe();
    this.receiveKey?.wipe();
    this.receiveKeys?.wipe();
  }
}
