/**
 * Chooses who seals transport data: libsodium, or the host's libcrypto where it gives the same answers and is faster (design
 * decision D5). Asked once, when the datapath starts; handshakes stay with libsodium either way.
 */
import { toHex } from "../src/bytes/text.ts";
import type { AeadName, Ciphers, PacketCipher, TransportKey } from "../src/ports.ts";
import { makeBootClock } from "./clock.ts";
import { loadLibcrypto, type TransportAead } from "./libcrypto.ts";
import { makeArena } from "./memory.ts";
import { runtime } from "./runtime/index.ts";
import { loadSodium, sodiumVersion } from "./sodium.ts";

/** What was chosen, and why, for the log and for status. */
export interface ChosenAead {
  readonly aead: TransportAead;
  /** "1.32x libsodium 1.0.22", "libcrypto.so.3 not found", ... */
  readonly reason: string;
}

/** Where the candidates and the time come from; tests put fakes here. */
export interface AeadDoors {
  /** The reference, always usable. */
  readonly libsodium: Ciphers;
  /** "libsodium 1.0.22" */
  readonly libsodiumName: string;
  /** @throws Error whose message is the reason */
  loadLibcrypto(): TransportAead;
  /** Milliseconds with fractions. */
  nowMs(): number;
  /** Packets for each library to warm up with. */
  readonly warmUpPackets: number;
}

/** What a full packet of the default MTU seals: 1355 octets and their envelope, padded (`Node.maxPlaintextBytes`). */
const MEASURED_BYTES = 1408;
/**
 * Packets of one octet that each library gets before anything counts, until the runtime has compiled the calls: V8 takes its
 * time with them. On a slow machine it ends after WARM_UP_MS; then the one with more calls seems slower than it is.
 */
const WARM_UP_PACKETS = { bun: 4_000, deno: 16_000 } as const;
const WARM_UP_MS = 150;
const WARM_UP_BYTES = 1;
const WARM_UP_ROUND_PACKETS = 200;
/** The two take turns, so that whatever else the machine does meets both; medians leave the worst of it out. */
const ROUNDS = 25;
const PACKETS_PER_ROUND = 8;
/** Below this another library is not worth its memory (4 MB resident, 2 of them anonymous), and measuring errs by some percent. */
const LEAST_GAIN = 1.1;

/** Lengths around the blocks of both parts of the cipher, a packet's, and the longest that may be asked for. */
const TESTED_BYTES: readonly number[] = [0, 1, 15, 16, 17, 64, 1405, 1408, 65535];
const TAG_BYTES = 16;

/** The second block of key stream under an all-zero key and nonce, which is what 64 zero octets seal to. RFC 8439 A.1, vector 2. */
const RFC_BLOCK = "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed" +
  "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f";

function hostDoors(): AeadDoors {
  return {
    libsodium: loadSodium(),
    libsodiumName: `libsodium ${sodiumVersion()}`,
    loadLibcrypto,
    nowMs: makeBootClock(),
    warmUpPackets: WARM_UP_PACKETS[runtime().name],
  };
}

/**
 * Chooses. With "auto" it takes some milliseconds: libcrypto must load, pass `findFault` and be faster by a tenth, sealing and
 * opening together. Whatever keeps it from that becomes the reason; only a missing libsodium throws.
 */
export function chooseAead(setting: "auto" | "libsodium", doors: AeadDoors = hostDoors()): ChosenAead {
  const { libsodium, libsodiumName } = doors;
  const reference: TransportAead = {
    name: libsodiumName,
    makeTransportKey: (key) => libsodium.makeTransportKey(key),
    packetCipher: (arena) => libsodium.packetCipher(arena),
  };
  if (setting === "libsodium") return { aead: reference, reason: "as set" };
  try {
    const candidate = doors.loadLibcrypto();
    const fault = findFault(candidate, reference);
    if (fault !== undefined) return { aead: reference, reason: `${candidate.name} failed its self-test: ${fault}` };
    const gain = measureGain(candidate, reference, doors);
    return gain >= LEAST_GAIN
      ? { aead: candidate, reason: `${gain.toFixed(2)}x ${libsodiumName}` }
      : { aead: reference, reason: `${candidate.name} is only ${(Math.floor(gain * 100) / 100).toFixed(2)}x` };
  } catch (error) {
    return { aead: reference, reason: error instanceof Error ? error.message : String(error) };
  }
}

/** "libcrypto 3.0.19 (1.32x libsodium 1.0.22)" */
export function describeAead({ aead, reason }: ChosenAead): string {
  return `${aead.name} (${reason})`;
}

/** A counter at the front of a scratch arena, then messages, each with a margin to watch. */
const COUNTER_AT = 0;
const MARGIN_BYTES = 32;
const HERE_AT = MARGIN_BYTES;
const SCRATCH_BYTES = HERE_AT + 2 * (Math.max(...TESTED_BYTES) + MARGIN_BYTES) + TAG_BYTES;

/** A library at work in an arena of its own. */
interface Trial {
  readonly arena: Uint8Array;
  readonly cipher: PacketCipher;
  readonly key: TransportKey;
}

function makeTrial(library: TransportAead, octets: Uint8Array, arenaBytes: number): Trial {
  const arena = makeArena(arenaBytes);
  return { arena, cipher: library.packetCipher(arena), key: library.makeTransportKey(octets) };
}

/**
 * Compares a library with another that is right: the same octets sealed, in place and elsewhere, and none written beside them;
 * what was sealed opens; what was damaged, or comes under another counter, does not. Works in two arenas and makes no garbage: a
 * datapath that starts is to stay small.
 *
 * @returns what is wrong, undefined when nothing is
 */
export function findFault(candidate: TransportAead, reference: TransportAead): string | undefined {
  const octets = Uint8Array.from({ length: 32 }, (_, i) => 251 * i + 7);
  const mine = makeTrial(candidate, octets, SCRATCH_BYTES);
  const theirs = makeTrial(reference, octets, SCRATCH_BYTES);
  let fault = tryRfcBlock(candidate, mine);
  for (const [i, bytes] of TESTED_BYTES.entries()) {
    const counter = i * 0x1_2345_6789; // beyond 32 bits from the second on
    fault ??= tryLength(mine, theirs, bytes, counter, true) ?? tryLength(mine, theirs, bytes, counter, false);
  }
  mine.key.wipe();
  theirs.key.wipe();
  return fault;
}

function tryRfcBlock(candidate: TransportAead, { arena, cipher }: Trial): string | undefined {
  const key = candidate.makeTransportKey(new Uint8Array(32));
  cipher.seal(key, 0, HERE_AT, HERE_AT + 64, HERE_AT);
  key.wipe();
  return toHex(arena.subarray(HERE_AT, HERE_AT + 64)) === RFC_BLOCK ? undefined : "not the key stream of RFC 8439";
}

function tryLength(mine: Trial, theirs: Trial, bytes: number, counter: number, isInPlace: boolean): string | undefined {
  const { arena, cipher, key } = mine;
  const end = HERE_AT + bytes;
  const to = isInPlace ? HERE_AT : end + MARGIN_BYTES;
  const sealedEnd = to + bytes + TAG_BYTES;
  const watchedEnd = Math.min(sealedEnd + MARGIN_BYTES, SCRATCH_BYTES);
  const where = `${bytes} octets ${isInPlace ? "in place" : "to another place"}`;
  for (const trial of [mine, theirs]) {
    for (let at = 0; at < watchedEnd; at++) trial.arena[at] = 31 * at + (at >> 8);
    writeCounter(trial.arena, counter);
    trial.cipher.seal(trial.key, counter, HERE_AT, end, to);
  }
  if (!isSame(arena, theirs.arena, watchedEnd)) return `${where} are sealed differently`;

  // the first octet, one in the middle, both ends of the tag, the counter
  for (const at of [to, to + (bytes >> 1), to + bytes, sealedEnd - 1, COUNTER_AT + 1]) {
    arena[at] = arena[at]! ^ 0x10;
    if (cipher.open(key, COUNTER_AT, to, sealedEnd)) return `${where} open although damaged`;
    arena.set(theirs.arena);
  }
  for (const trial of [mine, theirs]) {
    if (!trial.cipher.open(trial.key, COUNTER_AT, to, sealedEnd)) return `${where} do not open`;
  }
  return isSame(arena, theirs.arena, watchedEnd) ? undefined : `${where} are opened differently`;
}

function writeCounter(arena: Uint8Array, counter: number): void {
  for (let i = 0, rest = counter; i < 8; i++, rest = Math.floor(rest / 256)) arena[COUNTER_AT + i] = rest % 256;
}

function isSame(a: Uint8Array, b: Uint8Array, end: number): boolean {
  for (let at = 0; at < end; at++) if (a[at] !== b[at]) return false;
  return true;
}

/**
 * How much faster one library is than another, sealing and opening a packet: 1.5 means half as many packets again in the same
 * time. 1 when the clock is too coarse to say.
 */
function measureGain(candidate: TransportAead, reference: TransportAead, doors: AeadDoors): number {
  const octets = Uint8Array.from({ length: 32 }, (_, i) => i);
  const runners = [reference, candidate].map((library) => ({
    ...makeTrial(library, octets, 2048),
    times: [] as number[],
  }));
  const warmUpEndMs = doors.nowMs() + WARM_UP_MS;
  for (let done = 0; done < doors.warmUpPackets && doors.nowMs() < warmUpEndMs; done += WARM_UP_ROUND_PACKETS) {
    for (const runner of runners) sealAndOpen(runner, WARM_UP_BYTES, WARM_UP_ROUND_PACKETS);
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const runner of runners) {
      const startMs = doors.nowMs();
      sealAndOpen(runner, MEASURED_BYTES, PACKETS_PER_ROUND);
      runner.times.push(doors.nowMs() - startMs);
    }
    runners.reverse(); // who goes second finds warmer caches
  }
  for (const { key } of runners) key.wipe();
  if (ROUNDS % 2 === 1) runners.reverse();
  const [referenceMs, candidateMs] = runners.map(({ times }) => median(times));
  return referenceMs! > 0 && candidateMs! > 0 ? referenceMs! / candidateMs! : 1;
}

function sealAndOpen({ arena, cipher, key }: Trial, bytes: number, packets: number): void {
  for (let i = 0; i < packets; i++) {
    arena[COUNTER_AT] = i;
    cipher.seal(key, i & 0xff, HERE_AT, HERE_AT + bytes, HERE_AT);
    if (!cipher.open(key, COUNTER_AT, HERE_AT, HERE_AT + bytes + TAG_BYTES)) {
      throw new Error("it does not open");
    }
  }
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** ChaCha20-Poly1305 from one library, the AEADs that members speak among themselves from another. */
class RoutedPacketCipher implements PacketCipher {
  readonly #chacha: PacketCipher;
  readonly #others: PacketCipher;

  constructor(chacha: PacketCipher, others: PacketCipher) {
    this.#chacha = chacha;
    this.#others = others;
  }

  seal(key: TransportKey, counter: number, at: number, end: number, to: number): void {
    if (key.aead === "chacha20poly1305") this.#chacha.seal(key, counter, at, end, to);
    else this.#others.seal(key, counter, at, end, to);
  }

  open(key: TransportKey, counterAt: number, at: number, end: number): boolean {
    return key.aead === "chacha20poly1305"
      ? this.#chacha.open(key, counterAt, at, end)
      : this.#others.open(key, counterAt, at, end);
  }
}

/** A library's ChaCha20-Poly1305 for transport data, with everything else from another. */
class ComposedCiphers implements Ciphers {
  readonly aeads: readonly AeadName[];
  readonly #handshake: Ciphers;
  readonly #transport: TransportAead;

  constructor(handshake: Ciphers, transport: TransportAead) {
    this.aeads = handshake.aeads;
    this.#handshake = handshake;
    this.#transport = transport;
  }

  dh(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
    return this.#handshake.dh(secretKey, publicKey);
  }

  publicKeyOf(secretKey: Uint8Array): Uint8Array {
    return this.#handshake.publicKeyOf(secretKey);
  }

  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    return this.#handshake.seal(key, nonce, plaintext, associated);
  }

  open(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    return this.#handshake.open(key, nonce, sealed, associated);
  }

  sealX(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    return this.#handshake.sealX(key, nonce, plaintext, associated);
  }

  openX(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    return this.#handshake.openX(key, nonce, sealed, associated);
  }

  sign(secretKey: Uint8Array, message: Uint8Array): Uint8Array {
    return this.#handshake.sign(secretKey, message);
  }

  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    return this.#handshake.verify(publicKey, message, signature);
  }

  makeTransportKey(key: Uint8Array, aead: AeadName = "chacha20poly1305"): TransportKey {
    return aead === "chacha20poly1305"
      ? this.#transport.makeTransportKey(key)
      : this.#handshake.makeTransportKey(key, aead);
  }

  packetCipher(arena: Uint8Array): PacketCipher {
    return new RoutedPacketCipher(this.#transport.packetCipher(arena), this.#handshake.packetCipher(arena));
  }

  wipe(bytes: Uint8Array): void {
    this.#handshake.wipe(bytes);
  }
}

/**
 * Ciphers whose ChaCha20-Poly1305 of transport data is `transport`'s, and everything else (handshake, cookies, signatures, the
 * other AEADs) `handshake`'s.
 */
export function withTransportAead(handshake: Ciphers, transport: TransportAead): Ciphers {
  return new ComposedCiphers(handshake, transport);
}
