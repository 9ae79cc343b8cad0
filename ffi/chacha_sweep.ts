/**
 * ChaCha20-Poly1305 (RFC 8439) of libsodium in two calls, for CPUs on which its ChaCha20 is vector code. That code makes eight
 * blocks of 64 octets about as fast as it makes one alone: `crypto_aead_chacha20poly1305_ietf_encrypt` asks for a single block,
 * Poly1305's key, and then for a message of which some blocks are left over. Here one sweep makes block 0 and all others, up to
 * the next whole batch, and Poly1305 follows over the ciphertext.
 *
 *     arena        … 64 octets before … | plaintext           | whatever follows …
 *                          ⊕ key stream, from block 0
 *     own memory   | block 0: key of Poly1305 | ciphertext    | not looked at |
 *
 * What the octets before and behind were is of no matter: nothing outside of the message's range is written or sent. (1408 octets
 * on an AMD EPYC: 1030 ns in one call of the AEAD, ≈ 700 here. Bench: `scripts/bench/micro.ts`, stage "seal".)
 */
import { type Libc, libc } from "./libc.ts";
import { allocate, type Memory } from "./memory.ts";
import type { Sodium } from "./sodium.ts";

const BLOCK_BYTES = 64;
const TAG_BYTES = 16;
const POLY_KEY_BYTES = 32;
/** The smaller batch of vector code, which a short message fills, and the larger one. */
const SHORT_BATCH_BYTES = 256;
const BATCH_BYTES = 512;
/** Above this the rest of a batch is of no weight any more, and the memory would be. */
const MAX_MESSAGE_BYTES = 10_240;

/** Octets to make key stream for: block 0, the message, and up to the end of a batch. */
function sweepBytes(bytes: number): number {
  const wanted = BLOCK_BYTES + bytes;
  return wanted <= SHORT_BATCH_BYTES ? SHORT_BATCH_BYTES : (wanted + BATCH_BYTES - 1) & ~(BATCH_BYTES - 1);
}

/** Seals and opens in one arena. A range that it cannot take is the caller's, with the AEAD in one call. */
export class ChachaSweep {
  readonly #stream: Sodium["crypto_stream_chacha20_ietf_xor_ic"];
  readonly #authenticate: Sodium["crypto_onetimeauth_poly1305"];
  readonly #verify: Sodium["crypto_onetimeauth_poly1305_verify"];
  readonly #c: Libc;
  readonly #view: DataView;
  readonly #base: number;
  readonly #size: number;
  readonly #own: Memory;
  readonly #tag: Memory;
  readonly #tagAt: number;

  /** Whether this CPU has what makes it worth while. Elsewhere libsodium makes block after block, and this would only copy more. */
  static isFaster(library: Sodium): boolean {
    return library.sodium_runtime_has_ssse3() === 1;
  }

  /** @param base address of the arena */
  constructor(library: Sodium, arena: Uint8Array, base: number) {
    this.#stream = library.crypto_stream_chacha20_ietf_xor_ic;
    this.#authenticate = library.crypto_onetimeauth_poly1305;
    this.#verify = library.crypto_onetimeauth_poly1305_verify;
    this.#c = libc();
    this.#view = new DataView(arena.buffer, arena.byteOffset, arena.length);
    this.#base = base;
    this.#size = arena.length;
    this.#own = allocate(sweepBytes(MAX_MESSAGE_BYTES) + TAG_BYTES);
    this.#tag = allocate(TAG_BYTES);
    this.#tagAt = this.#tag.address;
  }

  /**
   * Seals `[at, at + bytes)` to `to`, which may be `at`. Both ranges are the arena's.
   * @param nonce, key addresses of 12 and of 32 octets
   * @returns false: nothing was done
   */
  seal(at: number, bytes: number, to: number, nonce: number, key: number): boolean {
    if (!this.#isInReach(at, bytes)) return false;
    const own = this.#own;
    this.#sweep(at, bytes, nonce, key);
    const sealed = own.address + BLOCK_BYTES;
    const padded = (bytes + 15) & ~15;
    for (let i = bytes; i < padded; i++) own.bytes[BLOCK_BYTES + i] = 0;
    this.#writeLengths(bytes, padded);
    this.#authenticate(this.#base + to + bytes, sealed, padded + TAG_BYTES, own.address);
    this.#c.memcpy(this.#base + to, sealed, bytes);
    return true;
  }

  /**
   * Opens `[at, at + bytes)` and the tag behind it in place.
   * @returns 1 when the tag verifies, 0 when it does not, -1 when nothing was done
   */
  open(at: number, bytes: number, nonce: number, key: number): number {
    // Poly1305 reads the ciphertext where it is, and the lengths where the tag was: there must be no padding between
    if ((bytes & 15) !== 0 || !this.#isInReach(at, bytes)) return -1;
    const view = this.#view;
    const tag = this.#tag.words;
    const end = at + bytes;
    for (let i = 0; i < 4; i++) tag[i] = view.getInt32(end + 4 * i, true);
    this.#sweep(at, bytes, nonce, key);
    view.setInt32(end, 0, true);
    view.setInt32(end + 4, 0, true);
    view.setInt32(end + 8, bytes, true);
    view.setInt32(end + 12, 0, true);
    const own = this.#own.address;
    if (this.#verify(this.#tagAt, this.#base + at, bytes + TAG_BYTES, own) !== 0) return 0;
    this.#c.memcpy(this.#base + at, own + BLOCK_BYTES, bytes);
    return 1;
  }

  /** The sweep reads a block before the message, and up to the end of its batch. */
  #isInReach(at: number, bytes: number): boolean {
    return bytes <= MAX_MESSAGE_BYTES && at >= BLOCK_BYTES && at - BLOCK_BYTES + sweepBytes(bytes) <= this.#size;
  }

  /** Leaves Poly1305's key and what the message becomes in our own memory. */
  #sweep(at: number, bytes: number, nonce: number, key: number): void {
    const own = this.#own;
    const from = at - BLOCK_BYTES;
    this.#stream(own.address, this.#base + from, sweepBytes(bytes), nonce, 0, key);
    const { words } = own;
    const view = this.#view;
    for (let i = 0; i < POLY_KEY_BYTES / 4; i++) words[i] = words[i]! ^ view.getInt32(from + 4 * i, true);
  }

  /** What Poly1305 ends with: no associated data, and so many octets of ciphertext (RFC 8439 §2.8). */
  #writeLengths(bytes: number, padded: number): void {
    const { words } = this.#own;
    const at = (BLOCK_BYTES + padded) / 4;
    words[at] = 0;
    words[at + 1] = 0;
    words[at + 2] = bytes;
    words[at + 3] = 0;
  }
}
