/** What the files of this room share: one device's keys, tables and lists. Built by `WireGuard`; holds no rules. */
import { readU16 } from "../bytes/integers.ts";
import { CookieMaker } from "../noise/cookie.ts";
import { type LocalKeys, makeLocalKeys } from "../noise/keys.ts";
import { StampClock } from "../noise/tai64n.ts";
import type { AeadName, Ciphers, RandomBytes } from "../ports.ts";
import { REKEY_JITTER_MS } from "./constants.ts";
import { Deadlines } from "./deadlines.ts";
import { IndexTable } from "./index_table.ts";
import { LoadMeter, RateLimiter } from "./load.ts";
import { Outbox } from "./outbox.ts";
import type { Peer } from "./peer.ts";
import { PeerQueue } from "./peer_queue.ts";
import type { Session } from "./session.ts";

export class Core {
  readonly ciphers: Ciphers;
  /** what may be sealed with beside ChaCha20-Poly1305 */
  readonly sendAeads: readonly AeadName[];
  readonly random: RandomBytes;
  /** the packet arena; address records are in it */
  readonly arena: Uint8Array;
  /** arena offset of the address records for cookie replies */
  readonly sparesAt: number;
  readonly local: LocalKeys;
  readonly stamps: StampClock;
  readonly cookies: CookieMaker;
  readonly load = new LoadMeter();
  readonly limiter = new RateLimiter();
  /** receiver index -> session */
  readonly sessions = new IndexTable<Session>();
  /** receiver index -> peer whose `pending` initiation has it */
  readonly handshakes = new IndexTable<Peer>();
  readonly outbox = new Outbox();
  readonly ready = new PeerQueue("isReady");
  readonly abandoned = new PeerQueue("isAbandoned");
  readonly deadlines: Deadlines;
  /** wall clock minus monotonic clock, as last told */
  unixOffsetMs = 0;
  onKeys: ((line: string) => void) | undefined = undefined;
  /** random octets that jitters are taken from, two at a time: one is asked for with nearly every answer that data gets */
  readonly #jitters = new Uint8Array(512);
  #jitterAt = this.#jitters.length;

  constructor(
    ciphers: Ciphers,
    random: RandomBytes,
    secretKey: Uint8Array,
    arena: Uint8Array,
    sparesAt: number,
    maxPeers: number,
    stampFloor: Uint8Array | undefined,
    sendAeads: readonly AeadName[],
  ) {
    this.ciphers = ciphers;
    this.random = random;
    this.sendAeads = sendAeads.filter((aead) => ciphers.aeads.includes(aead));
    this.arena = arena;
    this.sparesAt = sparesAt;
    this.local = makeLocalKeys(ciphers, secretKey);
    this.stamps = new StampClock(stampFloor);
    this.cookies = new CookieMaker(ciphers, random, this.local);
    this.deadlines = new Deadlines(maxPeers);
  }

  /** 0 to 333, by chance, so that two ends do not stay in step. */
  jitterMs(): number {
    if (this.#jitterAt === this.#jitters.length) {
      this.random(this.#jitters);
      this.#jitterAt = 0;
    }
    const jitter = readU16(this.#jitters, this.#jitterAt) % REKEY_JITTER_MS;
    this.#jitterAt += 2;
    return jitter;
  }
}
