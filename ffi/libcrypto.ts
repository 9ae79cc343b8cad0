/**
 * ChaCha20-Poly1305 of the host's OpenSSL 3 (`libcrypto.so.3`) as a `PacketCipher`, for transport data only: OpenSSL has code for
 * CPUs for which libsodium has none. `ffi/aead.ts` decides whether it is used (bench: `scripts/bench/datapath.ts --aead`).
 *
 * A context of EVP is made, and given its key, once per key and direction; a packet costs four calls to seal and three to open.
 * See EVP_EncryptInit(3) and OSSL_PARAM(3).
 */
import type { PacketCipher, TransportKey } from "../src/ports.ts";
import { allocate, cText, type Memory, writeAddress } from "./memory.ts";
import { runtime } from "./runtime/index.ts";
import type { Symbols } from "./runtime/types.ts";

/** The name is the same under glibc and musl. */
const LIBRARY = "libcrypto.so.3";

// (context, no other cipher, no other key, nonce, parameters)
const INIT = { args: ["ptr", "null", "null", "ptr", "ptr"], result: "i32" } as const;
// (context, to, octets written, from, bytes)
const UPDATE = { args: ["ptr", "ptr", "ptr", "ptr", "i32"], result: "i32" } as const;
// (context, to, octets written)
const FINAL = { args: ["ptr", "ptr", "ptr"], result: "i32" } as const;
const CIPHER_SIZE = { args: ["ptr"], result: "i32" } as const;

const SIGNATURES = {
  OPENSSL_init_crypto: { args: ["size", "null"], result: "i32" },
  OpenSSL_version: { args: ["i32"], result: "ptr" },
  OPENSSL_cleanse: { args: ["ptr", "size"], result: "void" },
  EVP_CIPHER_fetch: { args: ["null", "ptr", "null"], result: "ptr" },
  EVP_CIPHER_get_key_length: CIPHER_SIZE,
  EVP_CIPHER_get_iv_length: CIPHER_SIZE,
  EVP_CIPHER_CTX_new: { args: [], result: "ptr" },
  EVP_CIPHER_CTX_free: { args: ["ptr"], result: "void" },
  EVP_CIPHER_CTX_get_params: { args: ["ptr", "ptr"], result: "i32" },
  // (context, cipher, key, no nonce yet, 1 seals and 0 opens, no parameters)
  EVP_CipherInit_ex2: { args: ["ptr", "ptr", "ptr", "null", "i32", "null"], result: "i32" },
  EVP_EncryptInit_ex2: INIT,
  EVP_EncryptUpdate: UPDATE,
  EVP_EncryptFinal_ex: FINAL,
  EVP_DecryptInit_ex2: INIT,
  EVP_DecryptUpdate: UPDATE,
  EVP_DecryptFinal_ex: FINAL,
} as const;

const KEY_BYTES = 32;
const TAG_BYTES = 16;
const NONCE_BYTES = 12;

/**
 * What is left out: error texts and lists of names that nobody asks for; the host's configuration, which may bring in providers
 * and engines; and freeing at exit, as the control thread ends the process while the datapath's thread may be inside a call.
 */
const INIT_NO_LOAD_CRYPTO_STRINGS = 0x1;
const INIT_NO_ADD_ALL_CIPHERS = 0x10;
const INIT_NO_ADD_ALL_DIGESTS = 0x20;
const INIT_NO_LOAD_CONFIG = 0x80;
const INIT_NO_ATEXIT = 0x80000;
const INIT_OPTIONS = INIT_NO_LOAD_CRYPTO_STRINGS | INIT_NO_ADD_ALL_CIPHERS | INIT_NO_ADD_ALL_DIGESTS |
  INIT_NO_LOAD_CONFIG | INIT_NO_ATEXIT;
/** asks OpenSSL_version(3) for "3.0.19" */
const VERSION_STRING = 6;

/**
 * `OSSL_PARAM`, openssl/core.h, on LP64. Stands here and not in `layout.ts`, as compilers seldom have its header: what proves it
 * is that the tag of RFC 8439 comes out.
 */
const OSSL_PARAM = { size: 40, key: 0, dataType: 8, data: 16, dataSize: 24 } as const;
const OSSL_PARAM_OCTET_STRING = 5;

/** A loaded libcrypto with its ChaCha20-Poly1305. */
interface Libcrypto {
  readonly c: Symbols<typeof SIGNATURES>;
  /** EVP_CIPHER, never freed */
  readonly cipher: number;
  readonly version: string;
}

function openLibrary(): Symbols<typeof SIGNATURES> {
  try {
    return runtime().dlopen(LIBRARY, SIGNATURES);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    // of the loader: glibc "cannot open shared object file", musl "Error loading shared library NAME: No such file or directory"
    if (/cannot open shared object file|No such file/.test(text)) throw new Error(`${LIBRARY} not found`);
    throw new Error(`${LIBRARY} cannot be loaded: ${text}`);
  }
}

function open(): Libcrypto {
  const c = openLibrary();
  const version = runtime().readText(c.OpenSSL_version(VERSION_STRING));
  if (c.OPENSSL_init_crypto(INIT_OPTIONS, 0) !== 1) {
    throw new Error(`libcrypto ${version} does not start`);
  }
  const name = cText("ChaCha20-Poly1305");
  const cipher = c.EVP_CIPHER_fetch(0, name.address, 0);
  if (cipher === 0) throw new Error(`libcrypto ${version} has no ChaCha20-Poly1305`);
  const keyBytes = c.EVP_CIPHER_get_key_length(cipher);
  const nonceBytes = c.EVP_CIPHER_get_iv_length(cipher);
  if (keyBytes !== KEY_BYTES || nonceBytes !== NONCE_BYTES) {
    throw new Error(`libcrypto ${version} has other sizes: key ${keyBytes}, nonce ${nonceBytes}`);
  }
  return { c, cipher, version };
}

/** A key's octets and its contexts. Contexts are made by the first packet: WireGuard uses a key in one direction only. */
class LibcryptoKey implements TransportKey {
  readonly aead = "chacha20poly1305";
  readonly tagBytes = TAG_BYTES;
  /** EVP_CIPHER_CTX that seals; 0 before the first packet and after `wipe` */
  sealContext = 0;
  /** EVP_CIPHER_CTX that opens, likewise */
  openContext = 0;
  readonly #library: Libcrypto;
  readonly #key: Memory;
  #isWiped = false;

  constructor(library: Libcrypto, key: Uint8Array) {
    this.#library = library;
    this.#key = allocate(KEY_BYTES);
    this.#key.bytes.set(key);
  }

  makeSealContext(): number {
    return this.sealContext = this.#makeContext(1);
  }

  makeOpenContext(): number {
    return this.openContext = this.#makeContext(0);
  }

  wipe(): void {
    const { c } = this.#library;
    this.#isWiped = true;
    c.OPENSSL_cleanse(this.#key.address, KEY_BYTES);
    // both take 0; the copies of the key inside are overwritten
    c.EVP_CIPHER_CTX_free(this.sealContext);
    c.EVP_CIPHER_CTX_free(this.openContext);
    this.sealContext = 0;
    this.openContext = 0;
  }

  #makeContext(direction: 0 | 1): number {
    if (this.#isWiped) throw badKey();
    const { c, cipher } = this.#library;
    const context = c.EVP_CIPHER_CTX_new();
    if (context === 0 || c.EVP_CipherInit_ex2(context, cipher, this.#key.address, 0, direction, 0) !== 1) {
      c.EVP_CIPHER_CTX_free(context);
      throw new Error("Cannot make a cipher context: libcrypto refuses");
    }
    return context;
  }
}

function badKey(): Error {
  return new Error("Transport key is wiped, or of other ciphers");
}

/** The context for a key's first packet. Anything but a key of ours would let C read wherever it is told to. */
function firstSealContext(key: TransportKey): number {
  if (!(key instanceof LibcryptoKey)) throw badKey();
  return key.makeSealContext();
}

function firstOpenContext(key: TransportKey): number {
  if (!(key instanceof LibcryptoKey)) throw badKey();
  return key.makeOpenContext();
}

/** Seals and opens in one arena, whose address is known once and for all. */
class LibcryptoPacketCipher implements PacketCipher {
  readonly #c: Symbols<typeof SIGNATURES>;
  readonly #arena: Uint8Array;
  readonly #base: number;
  readonly #size: number;
  /** four zero octets, then the counter */
  readonly #nonce: Memory = allocate(NONCE_BYTES);
  /** OSSL_PARAM twice: where the tag stands, and the end of the list */
  readonly #tag: Memory = allocate(2 * OSSL_PARAM.size);
  readonly #tagName: Memory = cText("tag");
  /** for what the calls tell besides: 16 octets that nobody reads, an int */
  readonly #spare: Memory = allocate(24);
  readonly #nonceAt: number;
  readonly #tagAt: number;
  readonly #spareAt: number;
  readonly #countAt: number;

  constructor(library: Libcrypto, arena: Uint8Array) {
    this.#c = library.c;
    this.#arena = arena;
    this.#base = runtime().pointerOf(arena);
    this.#size = arena.length;
    const words = this.#tag.words;
    writeAddress(words, OSSL_PARAM.key / 4, this.#tagName.address);
    words[OSSL_PARAM.dataType / 4] = OSSL_PARAM_OCTET_STRING;
    words[OSSL_PARAM.dataSize / 4] = TAG_BYTES;
    this.#nonceAt = this.#nonce.address;
    this.#tagAt = this.#tag.address;
    this.#spareAt = this.#spare.address;
    this.#countAt = this.#spareAt + 16;
  }

  seal(key: TransportKey, counter: number, at: number, end: number, to: number): void {
    let context = (key as LibcryptoKey).sealContext;
    if (!(context > 0)) context = firstSealContext(key);
    const bytes = end - at;
    // C trusts us: a range outside of the arena would be memory that is not ours
    if (!(at >= 0 && bytes >= 0 && end <= this.#size && to >= 0 && to + bytes + TAG_BYTES <= this.#size)) {
      throw new RangeError(`Cannot seal [${at}, ${end}) to ${to}: outside of the arena of ${this.#size} octets`);
    }
    const nonce = this.#nonce.words;
    nonce[1] = counter;
    nonce[2] = counter / 4294967296;
    const into = this.#base + to;
    writeAddress(this.#tag.words, OSSL_PARAM.data / 4, into + bytes);
    const c = this.#c;
    if (
      c.EVP_EncryptInit_ex2(context, 0, 0, this.#nonceAt, 0) !== 1 ||
      (bytes > 0 && c.EVP_EncryptUpdate(context, into, this.#countAt, this.#base + at, bytes) !== 1) ||
      c.EVP_EncryptFinal_ex(context, this.#spareAt, this.#countAt) !== 1 ||
      c.EVP_CIPHER_CTX_get_params(context, this.#tagAt) !== 1
    ) {
      // never happens; what is there may be plaintext, and must not go out
      throw new Error("Cannot seal: libcrypto refuses");
    }
  }

  open(key: TransportKey, counterAt: number, at: number, end: number): boolean {
    let context = (key as LibcryptoKey).openContext;
    if (!(context > 0)) context = firstOpenContext(key);
    if (!(at >= 0 && end <= this.#size && counterAt >= 0 && counterAt + 8 <= this.#size)) {
      throw new RangeError(`Cannot open [${at}, ${end}): outside of the arena of ${this.#size} octets`);
    }
    const bytes = end - at - TAG_BYTES;
    if (!(bytes >= 0)) return false;
    const nonce = this.#nonce.bytes;
    const arena = this.#arena;
    for (let i = 0; i < 8; i++) nonce[4 + i] = arena[counterAt + i]!;
    const start = this.#base + at;
    writeAddress(this.#tag.words, OSSL_PARAM.data / 4, start + bytes);
    const c = this.#c;
    return c.EVP_DecryptInit_ex2(context, 0, 0, this.#nonceAt, this.#tagAt) === 1 &&
      (bytes === 0 || c.EVP_DecryptUpdate(context, start, this.#countAt, start, bytes) === 1) &&
      c.EVP_DecryptFinal_ex(context, this.#spareAt, this.#countAt) === 1;
  }
}

/** What seals transport data: the part of `Ciphers` that may come from another library than the handshake's. */
export interface TransportAead {
  /** "libcrypto 3.0.19" */
  readonly name: string;
  /** Copies 32 octets into a key for a packet cipher of the same object. */
  makeTransportKey(key: Uint8Array): TransportKey;
  /** A packet cipher for one arena (from `makeArena`). */
  packetCipher(arena: Uint8Array): PacketCipher;
}

class LibcryptoAead implements TransportAead {
  readonly name: string;
  readonly #library: Libcrypto;

  constructor(library: Libcrypto) {
    this.#library = library;
    this.name = `libcrypto ${library.version}`;
  }

  makeTransportKey(key: Uint8Array): TransportKey {
    if (key.length !== KEY_BYTES) {
      throw new RangeError(`Cannot use a key of ${key.length} octets: expected ${KEY_BYTES}`);
    }
    return new LibcryptoKey(this.#library, key);
  }

  packetCipher(arena: Uint8Array): PacketCipher {
    return new LibcryptoPacketCipher(this.#library, arena);
  }
}

let opened: Libcrypto | undefined;

/**
 * Loads the host's libcrypto (once per thread), with the host's configuration of it left aside.
 * @throws Error with the bare reason as its message ("libcrypto.so.3 not found") when it cannot be used
 */
export function loadLibcrypto(): TransportAead {
  opened ??= open();
  return new LibcryptoAead(opened);
}
