/**
 * libsodium's AEADs on packets in one arena (bench: `scripts/bench/ffi.ts`): ChaCha20-Poly1305 for everybody, AEGIS-128L and
 * AES-256-GCM between members. Nonces are as `PacketCipher` says. Made by `ffi/sodium.ts`.
 *
 * An AEAD is a small number here, and each has its own call site: a runtime compiles a call for the one function that it finds.
 */
import type { AeadName, PacketCipher, TransportKey } from "../src/ports.ts";
import { ChachaSweep } from "./chacha_sweep.ts";
import { allocate, type Memory } from "./memory.ts";
import { runtime } from "./runtime/index.ts";
import type { Sodium } from "./sodium.ts";

const CHACHA = 0;
const AEGIS = 1;
const GCM = 2;
const KINDS = { chacha20poly1305: CHACHA, aegis128l: AEGIS, aes256gcm: GCM } as const;
type Kind = typeof KINDS[AeadName];

/** by kind */
const KEY_BYTES = [32, 16, 32] as const;
const TAG_BYTES = [16, 32, 16] as const;
/** ChaCha20-Poly1305's and AES-256-GCM's; AEGIS-128L's */
const SHORT_NONCE_BYTES = 12;
const LONG_NONCE_BYTES = 16;
/** what `crypto_aead_aes256gcm_beforenm` makes of a key, and where it must begin (`CRYPTO_ALIGN(16)`) */
export const GCM_STATE_BYTES = 512;
const GCM_STATE_ALIGN = 16;
const HIGH = 4294967296;

/** A key at a fixed address, AES-256-GCM's as its expanded state; the address is 0 after `wipe`. */
export class SodiumKey implements TransportKey {
  readonly aead: AeadName;
  readonly tagBytes: number;
  readonly kind: Kind;
  address: number;
  readonly #library: Sodium;
  readonly #memory: Memory;

  /** @throws RangeError when the key has another length than the AEAD's */
  constructor(library: Sodium, key: Uint8Array, aead: AeadName) {
    this.aead = aead;
    this.kind = KINDS[aead];
    this.tagBytes = TAG_BYTES[this.kind];
    const bytes = KEY_BYTES[this.kind];
    if (key.length !== bytes) throw new RangeError(`Cannot use a key of ${key.length} octets: expected ${bytes}`);
    this.#library = library;
    this.#memory = allocate(this.kind === GCM ? GCM_STATE_BYTES + GCM_STATE_ALIGN : bytes);
    this.address = this.#memory.address;
    if (this.kind === GCM) this.#expand(key);
    else this.#memory.bytes.set(key);
  }

  wipe(): void {
    this.#library.sodium_memzero(this.#memory.address, this.#memory.bytes.length);
    this.address = 0;
  }

  #expand(key: Uint8Array): void {
    const plain = allocate(key.length);
    plain.bytes.set(key);
    this.address = Math.ceil(this.address / GCM_STATE_ALIGN) * GCM_STATE_ALIGN;
    this.#library.crypto_aead_aes256gcm_beforenm(this.address, plain.address);
    this.#library.sodium_memzero(plain.address, key.length);
  }
}

/** A key of ours that was not wiped; anything else would let C read wherever it is told to. */
function ourKey(key: TransportKey): SodiumKey {
  if (!((key as SodiumKey).address > 0)) throw new Error("Transport key is wiped, or of other ciphers");
  return key as SodiumKey;
}

/** Seals and opens in one arena, whose address is known once and for all. */
export class SodiumPacketCipher implements PacketCipher {
  readonly #sealChacha: Sodium["crypto_aead_chacha20poly1305_ietf_encrypt"];
  readonly #openChacha: Sodium["crypto_aead_chacha20poly1305_ietf_decrypt"];
  readonly #sealAegis: Sodium["crypto_aead_aegis128l_encrypt"];
  readonly #openAegis: Sodium["crypto_aead_aegis128l_decrypt"];
  readonly #sealGcm: Sodium["crypto_aead_aes256gcm_encrypt_afternm"];
  readonly #openGcm: Sodium["crypto_aead_aes256gcm_decrypt_afternm"];
  /** where it is faster than the AEAD in one call */
  readonly #sweep: ChachaSweep | undefined;
  readonly #arena: Uint8Array;
  readonly #base: number;
  readonly #size: number;
  /** zeros, then the counter: the nonce of 16 octets, the last 12 of which are the short one */
  readonly #nonce: Memory;
  readonly #longNonceAt: number;
  readonly #shortNonceAt: number;

  constructor(library: Sodium, arena: Uint8Array) {
    this.#sealChacha = library.crypto_aead_chacha20poly1305_ietf_encrypt;
    this.#openChacha = library.crypto_aead_chacha20poly1305_ietf_decrypt;
    this.#sealAegis = library.crypto_aead_aegis128l_encrypt;
    this.#openAegis = library.crypto_aead_aegis128l_decrypt;
    this.#sealGcm = library.crypto_aead_aes256gcm_encrypt_afternm;
    this.#openGcm = library.crypto_aead_aes256gcm_decrypt_afternm;
    this.#arena = arena;
    this.#base = runtime().pointerOf(arena);
    this.#size = arena.length;
    if (ChachaSweep.isFaster(library)) this.#sweep = new ChachaSweep(library, arena, this.#base);
    this.#nonce = allocate(LONG_NONCE_BYTES);
    this.#longNonceAt = this.#nonce.address;
    this.#shortNonceAt = this.#nonce.address + LONG_NONCE_BYTES - SHORT_NONCE_BYTES;
  }

  seal(key: TransportKey, counter: number, at: number, end: number, to: number): void {
    const { kind, address, tagBytes } = ourKey(key);
    const bytes = end - at;
    // C trusts us: a range outside of the arena would be memory that is not ours
    if (!(at >= 0 && bytes >= 0 && end <= this.#size && to >= 0 && to + bytes + tagBytes <= this.#size)) {
      throw new RangeError(`Cannot seal [${at}, ${end}) to ${to}: outside of the arena of ${this.#size} octets`);
    }
    const nonce = this.#nonce.words;
    nonce[2] = counter;
    nonce[3] = counter / HIGH;
    const from = this.#base + at;
    const into = this.#base + to;
    if (kind === CHACHA) {
      if (this.#sweep?.seal(at, bytes, to, this.#shortNonceAt, address)) return;
      this.#sealChacha(into, 0, from, bytes, 0, 0, 0, this.#shortNonceAt, address);
    } else if (kind === AEGIS) this.#sealAegis(into, 0, from, bytes, 0, 0, 0, this.#longNonceAt, address);
    else this.#sealGcm(into, 0, from, bytes, 0, 0, 0, this.#shortNonceAt, address);
  }

  open(key: TransportKey, counterAt: number, at: number, end: number): boolean {
    const { kind, address, tagBytes } = ourKey(key);
    const bytes = end - at;
    if (!(at >= 0 && end <= this.#size && counterAt >= 0 && counterAt + 8 <= this.#size)) {
      throw new RangeError(`Cannot open [${at}, ${end}): outside of the arena of ${this.#size} octets`);
    }
    if (bytes < tagBytes) return false;
    const nonce = this.#nonce.bytes;
    const arena = this.#arena;
    for (let i = 0; i < 8; i++) nonce[8 + i] = arena[counterAt + i]!;
    const from = this.#base + at;
    if (kind === CHACHA) {
      const swept = this.#sweep?.open(at, bytes - tagBytes, this.#shortNonceAt, address) ?? -1;
      if (swept >= 0) return swept === 1;
      return this.#openChacha(from, 0, 0, from, bytes, 0, 0, this.#shortNonceAt, address) === 0;
    }
    if (kind === AEGIS) return this.#openAegis(from, 0, 0, from, bytes, 0, 0, this.#longNonceAt, address) === 0;
    return this.#openGcm(from, 0, 0, from, bytes, 0, 0, this.#shortNonceAt, address) === 0;
  }
}
