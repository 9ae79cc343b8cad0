/**
 * What the device knows of one peer: a record. The rules that change it are in `slots.ts` (sessions), `timers.ts` and
 * `handshaking.ts`.
 */
import type { UnderlayAddr } from "../ip/underlay_addr.ts";
import { CookieJar } from "../noise/cookie.ts";
import type { SentInitiation } from "../noise/handshake.ts";
import type { RemoteKeys } from "../noise/keys.ts";
import { STAMP_BYTES } from "../wire/wg_message.ts";
import type { AeadName } from "../ports.ts";
import type { Session } from "./session.ts";

/** A timer that is not armed. */
export const NEVER = Infinity;

export class Peer {
  /** 0 to `maxPeers` - 1; given to another peer after this one is removed. The value in the allowed IPs table. */
  readonly slot: number;
  /** arena offset of its underlay address record; family 0 while none is known */
  readonly endpointAt: number;
  /** for logs */
  name: string;
  /** replaced as a whole when the preshared key changes */
  keys: RemoteKeys;
  keepaliveMs = 0;
  /** what the records of both sides say, and what our next session with it seals with: the same, unless we may not */
  agreedAead: AeadName = "chacha20poly1305";
  sendAead: AeadName = "chacha20poly1305";
  /** the endpoint that was last given from outside; roaming does not change it */
  configuredEndpoint: UnderlayAddr | undefined = undefined;

  // Counters, whole UDP payloads, as `wg` shows them
  rxBytes = 0;
  txBytes = 0;
  /** wall clock of the last finished handshake, 0 = never */
  lastHandshakeUnixMs = 0;

  /** Packets that wait in the datapath for a session of this peer. Kept by the datapath, read here. */
  stagedCount = 0;

  // Sessions. Sending always uses `current`; `next` only receives.
  previous: Session | undefined = undefined;
  current: Session | undefined = undefined;
  next: Session | undefined = undefined;

  // Handshake
  /** our initiation that waits for its response; its index is in the device's `handshakes` table */
  pending: SentInitiation | undefined = undefined;
  /** greatest timestamp accepted from the peer */
  readonly greatestStamp = new Uint8Array(STAMP_BYTES);
  initiationAcceptedAtMs = -Infinity;
  /** when the last initiation or response was sent to it */
  handshakeSentAtMs = -Infinity;
  /** retries of the running attempt */
  retries = 0;
  hasRekeyedOnReceive = false;
  readonly cookies = new CookieJar();

  // Timers: when they fire, `NEVER` when not armed
  retransmitAtMs = NEVER;
  keepaliveAtMs = NEVER;
  newHandshakeAtMs = NEVER;
  zeroKeysAtMs = NEVER;
  persistentAtMs = NEVER;
  /** more data came while `keepaliveAtMs` was armed */
  needsAnotherKeepalive = false;

  // What the running receive batch brought; `finishReceiveBatch` acts on it
  isTouched = false;
  hasHeardData = false;
  /** arena offset of the source of the last valid message, -1 = none */
  heardFromAt = -1;

  // Whether it stands in the device's lists
  isReady = false;
  isAbandoned = false;
  isRemoved = false;

  constructor(slot: number, endpointAt: number, name: string, keys: RemoteKeys) {
    this.slot = slot;
    this.endpointAt = endpointAt;
    this.name = name;
    this.keys = keys;
  }

  /** 32 octets; treat as immutable. */
  get publicKey(): Uint8Array {
    return this.keys.publicKey;
  }
}
