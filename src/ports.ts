/**
 * What the core needs from outside, as small interfaces. `src/` never does IO, reads no clock and makes no random bytes:
 * time comes in as an argument (`nowMs`, monotonic, counting suspend; `unixMs`, the wall clock), the rest through these.
 * `ffi/` and `edge/` implement them, `test/fakes/` has doubles of equal rank.
 *
 * Bytes of the packet path live in one arena; a range is `(at, end)`, `end` exclusive.
 */

/** Fills `into` with bytes that nobody can predict. */
export type RandomBytes = (into: Uint8Array) => void;

/**
 * An AEAD that transport data may be sealed with. WireGuard has only the first; the others are spoken between two members that
 * both announce them (`src/tunnel/aead.ts`).
 */
export type AeadName = "chacha20poly1305" | "aegis128l" | "aes256gcm";

/** A symmetric key held where its cipher can use it. Made and destroyed by the `Ciphers` that it came from. */
export interface TransportKey {
  readonly aead: AeadName;
  /** octets that sealing adds: 16, of AEGIS-128L 32 */
  readonly tagBytes: number;
  /** Overwrites the key. It must not be used afterwards. */
  wipe(): void;
}

/**
 * Seals and opens inside one arena, without allocating, with the AEAD of the key: ChaCha20-Poly1305 (RFC 8439) with WireGuard's
 * nonce (four zero octets, then the 64-bit counter, little endian) and no associated data. The others likewise: the counter is
 * the nonce's last 8 octets, what is before it is zero (4 octets of AES-256-GCM's nonce, 8 of AEGIS-128L's).
 */
export interface PacketCipher {
  /**
   * Seals `[at, end)` and writes ciphertext and tag from `to` on: `[to, to + (end - at) + key.tagBytes)`.
   * `to === at` seals in place; otherwise the two ranges must not overlap.
   *
   * @param counter 0 to 2^53 - 1
   */
  seal(key: TransportKey, counter: number, at: number, end: number, to: number): void;
  /**
   * Opens `[at, end)`, whose last octets are the tag, in place: plaintext is then `[at, end - key.tagBytes)`.
   *
   * @param counterAt where the message's 8-octet little-endian counter stands
   * @returns false when the tag does not verify; the range is then unspecified
   */
  open(key: TransportKey, counterAt: number, at: number, end: number): boolean;
}

/**
 * The cryptographic functions of the handshake and of the packet path. libsodium through FFI (`ffi/sodium.ts`), or the same
 * library as WebAssembly where there is no FFI (`src`-independent, `test/` and offline tools).
 */
export interface Ciphers {
  /** X25519. `undefined` for a low-order point: drop the message. */
  dh(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined;
  publicKeyOf(secretKey: Uint8Array): Uint8Array;
  /** ChaCha20-Poly1305, 12-octet nonce; returns ciphertext with its 16-octet tag. */
  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array;
  /** The reverse; `undefined` when the tag does not verify or the input is shorter than a tag. */
  open(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined;
  /** XChaCha20-Poly1305, 24-octet nonce. */
  sealX(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array;
  openX(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined;
  /** Ed25519, detached. */
  sign(secretKey: Uint8Array, message: Uint8Array): Uint8Array;
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
  /** What transport data can be opened with here, however slowly; ChaCha20-Poly1305 is always among them. */
  readonly aeads: readonly AeadName[];
  /**
   * Copies a key for `PacketCipher`.
   * @param key 32 octets, for AEGIS-128L 16
   * @param aead one of `aeads`; ChaCha20-Poly1305 when absent
   */
  makeTransportKey(key: Uint8Array, aead?: AeadName): TransportKey;
  /** A packet cipher for one arena (from `makeArena`). */
  packetCipher(arena: Uint8Array): PacketCipher;
  /** Overwrites bytes in a way that is not optimised out. */
  wipe(bytes: Uint8Array): void;
}

/** What a machine may do for many packets in one call. Each has a switch of its own, as kernels and devices have faults in them. */
export interface OffloadSwitches {
  /** TCP superpackets come from the TUN */
  readonly tso: boolean;
  /** UDP superpackets come from the TUN */
  readonly uso: boolean;
  /** runs of datagrams are sent in one call (UDP_SEGMENT) */
  readonly udpGso: boolean;
  /** runs of datagrams are received in one call (UDP_GRO) */
  readonly udpGro: boolean;
  /** TCP segments are merged before they are written to the TUN */
  readonly tcpMerge: boolean;
  /** datagrams of one flow are merged before they are written to the TUN */
  readonly udpMerge: boolean;
}

/** The TUN device. Offsets are into the arena that it was opened with. */
export interface Tun {
  readonly name: string;
  /** Every read and write starts with a 10-octet virtio header (`IFF_VNET_HDR`), superpackets may arrive. For its life. */
  readonly hasOffload: boolean;
  /** TCP superpackets may be written, now; implies `hasOffload` */
  readonly mergesTcp: boolean;
  /** UDP superpackets may be written, now; implies `hasOffload` */
  readonly mergesUdp: boolean;
  /** grows whenever one of the above, or the reason for it, changes */
  readonly offloadChanges: number;
  /**
   * Reads one packet to `at`; never more than `end - at` octets.
   * @returns octets read (virtio header included), 0 when none waits, or a negative errno
   */
  read(at: number, end: number): number;
  /**
   * Writes one packet gathered from pieces; the virtio header is part of the first piece when `hasOffload`.
   * @param pieces pairs of `at`, `end`
   * @param count  number of pairs, 1 to 256
   * @returns octets written or a negative errno; -22 (EINVAL) is also what a kernel says that does not want a superpacket
   */
  write(pieces: Int32Array, count: number): number;
  /** Switches what can be switched while it is open, and tries again what an error has switched off. */
  switchOffload(switches: OffloadSwitches): void;
  /** The kernel took the packets of a superpacket alone, but not together: merging is off from now on. @param errno positive */
  refuseMerged(isUdp: boolean, errno: number): void;
  close(): void;
}

/** One received run of datagrams of equal size from one source (UDP GRO), or a single datagram. Reused: valid until the next `receive`. */
export interface ReceivedRun {
  at: number;
  end: number;
  /** size of each datagram but the last; equals `end - at` for a single one */
  segmentBytes: number;
  /** arena offset of the source's underlay address record (`src/ip/underlay_addr.ts`) */
  fromAt: number;
  /** ECN bits of the outer header, 0 to 3 */
  ecn: number;
  /** the kernel cut it short: drop it whole */
  isTruncated: boolean;
}

/** The UDP sockets (IPv4 and, where the machine has it, IPv6, one port). Offsets are into the arena. */
export interface Underlay {
  readonly port: number;
  /** UDP_SEGMENT works: `queue` takes runs of more than one datagram */
  readonly hasSegmentation: boolean;
  /** Most datagrams that one queued run may hold, 1 without segmentation. */
  readonly maxSegments: number;
  /**
   * Receives what waits, up to a batch. Runs are `received[0 .. count)`.
   * @returns count, 0 when nothing waits, or a negative errno
   */
  receive(): number;
  readonly received: readonly ReceivedRun[];
  /**
   * Queues a run of datagrams of equal size (the last may be shorter) to one address; sent at the latest by `flush`.
   * The bytes, and the address record, must stay until then.
   * @param segmentBytes size of each datagram; `end - at` for one
   * @param toAt arena offset of the destination's underlay address record
   * @param trafficClass DSCP and ECN for the outer header, 0 to 255
   */
  queue(at: number, end: number, segmentBytes: number, toAt: number, trafficClass: number): void;
  /**
   * Sends one datagram at once that nobody may fragment, even where the machine believes that it is too big: a probe.
   * @returns 0, or the negative errno that the kernel gave; it is not counted as an error
   */
  sendWhole(at: number, end: number, toAt: number): number;
  /** Arena offset of an address to which a datagram was too big, or -1; each is given once. */
  takeTooBig(): number;
  /** Sends what is queued. Failures are counted per reason in `sendErrors`, and never stop the rest of the queue. */
  flush(): void;
  /** Datagrams that the kernel refused since start, by errno, and all together. */
  readonly sendErrors: ReadonlyMap<number, number>;
  readonly sendErrorCount: number;
  /** Switches segmentation and GRO, and tries again what an error has switched off. What GRO had merged by then may be lost. */
  switchOffload(switches: OffloadSwitches): void;
  /** grows whenever segmentation or GRO are switched, by an error too */
  readonly offloadChanges: number;
  close(): void;
}

/** A logger that takes an event name and fields. Never keys or tokens. Nothing is formatted when the level is off. */
export interface Log {
  debug(event: string, fields?: Readonly<Record<string, unknown>>): void;
  info(event: string, fields?: Readonly<Record<string, unknown>>): void;
  warn(event: string, fields?: Readonly<Record<string, unknown>>): void;
  error(event: string, fields?: Readonly<Record<string, unknown>>): void;
}
