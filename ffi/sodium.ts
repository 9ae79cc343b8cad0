/**
 * libsodium through FFI: the `Ciphers` of the handshake and the `PacketCipher` of the packet path (bench:
 * `scripts/bench/ffi.ts`). The library comes from `ffi/native.ts`.
 *
 * The packet cipher hands C an address inside the arena and allocates nothing. Everything else copies its arguments into memory
 * whose address is known, and wipes that afterwards: asking for the address of each small array would cost more.
 */
import type { Ciphers, PacketCipher, RandomBytes, TransportKey } from "../src/ports.ts";
import { FfiError } from "./errno.ts";
import { allocate, type Memory } from "./memory.ts";
import { loadFromMemory, readNativeLibrary } from "./native.ts";
import { runtime } from "./runtime/index.ts";
import type { Symbols } from "./runtime/types.ts";

export { makeArena } from "./memory.ts";

// (to, no length wanted, from, bytes, associated, its bytes, no secret nonce, nonce, key)
const SEAL = {
  args: ["ptr", "null", "ptr", "size", "ptr", "size", "null", "ptr", "ptr"],
  result: "i32",
} as const;
// (to, no length wanted, no secret nonce, from, bytes, associated, its bytes, nonce, key)
const OPEN = {
  args: ["ptr", "null", "null", "ptr", "size", "ptr", "size", "ptr", "ptr"],
  result: "i32",
} as const;
const SIZE = { args: [], result: "size" } as const;

const SIGNATURES = {
  sodium_init: { args: [], result: "i32" },
  sodium_version_string: { args: [], result: "ptr" },
  sodium_memzero: { args: ["ptr", "size"], result: "void" },
  randombytes_buf: { args: ["ptr", "size"], result: "void" },
  crypto_scalarmult: { args: ["ptr", "ptr", "ptr"], result: "i32" },
  crypto_scalarmult_base: { args: ["ptr", "ptr"], result: "i32" },
  crypto_aead_chacha20poly1305_ietf_encrypt: SEAL,
  crypto_aead_chacha20poly1305_ietf_decrypt: OPEN,
  crypto_aead_xchacha20poly1305_ietf_encrypt: SEAL,
  crypto_aead_xchacha20poly1305_ietf_decrypt: OPEN,
  crypto_sign_ed25519_detached: { args: ["ptr", "ptr", "ptr", "size", "ptr"], result: "i32" },
  crypto_sign_ed25519_verify_detached: { args: ["ptr", "ptr", "size", "ptr"], result: "i32" },
  crypto_sign_ed25519_seed_keypair: { args: ["ptr", "ptr", "ptr"], result: "i32" },
  crypto_scalarmult_bytes: SIZE,
  crypto_scalarmult_scalarbytes: SIZE,
  crypto_aead_chacha20poly1305_ietf_keybytes: SIZE,
  crypto_aead_chacha20poly1305_ietf_npubbytes: SIZE,
  crypto_aead_chacha20poly1305_ietf_abytes: SIZE,
  crypto_aead_xchacha20poly1305_ietf_keybytes: SIZE,
  crypto_aead_xchacha20poly1305_ietf_npubbytes: SIZE,
  crypto_aead_xchacha20poly1305_ietf_abytes: SIZE,
  crypto_sign_ed25519_bytes: SIZE,
  crypto_sign_ed25519_seedbytes: SIZE,
  crypto_sign_ed25519_publickeybytes: SIZE,
  crypto_sign_ed25519_secretkeybytes: SIZE,
} as const;

type Sodium = Symbols<typeof SIGNATURES>;

const KEY_BYTES = 32;
const TAG_BYTES = 16;
const NONCE_BYTES = 12;
const XNONCE_BYTES = 24;
const SIGNATURE_BYTES = 64;
const SECRET_BYTES = 64;
const SEED_BYTES = 32;

/** The sizes that this file relies on, by the function that tells the library's. */
const SIZES: readonly (readonly [name: keyof typeof SIGNATURES, bytes: number])[] = [
  ["crypto_scalarmult_bytes", KEY_BYTES],
  ["crypto_scalarmult_scalarbytes", KEY_BYTES],
  ["crypto_aead_chacha20poly1305_ietf_keybytes", KEY_BYTES],
  ["crypto_aead_chacha20poly1305_ietf_npubbytes", NONCE_BYTES],
  ["crypto_aead_chacha20poly1305_ietf_abytes", TAG_BYTES],
  ["crypto_aead_xchacha20poly1305_ietf_keybytes", KEY_BYTES],
  ["crypto_aead_xchacha20poly1305_ietf_npubbytes", XNONCE_BYTES],
  ["crypto_aead_xchacha20poly1305_ietf_abytes", TAG_BYTES],
  ["crypto_sign_ed25519_bytes", SIGNATURE_BYTES],
  ["crypto_sign_ed25519_seedbytes", SEED_BYTES],
  ["crypto_sign_ed25519_publickeybytes", KEY_BYTES],
  ["crypto_sign_ed25519_secretkeybytes", SECRET_BYTES],
];

let loaded: Sodium | undefined;

function sodium(): Sodium {
  if (loaded !== undefined) return loaded;
  const library = loadFromMemory("libsodium", readNativeLibrary(), SIGNATURES);
  if (library.sodium_init() < 0) throw new FfiError("EDGE_SODIUM", "Cannot use libsodium: sodium_init failed");
  for (const [name, bytes] of SIZES) {
    const found = (library[name] as () => number)();
    if (found !== bytes) {
      throw new FfiError("EDGE_SODIUM", `Cannot use libsodium: ${name} is ${found}, expected ${bytes}`);
    }
  }
  loaded = library;
  return library;
}

/** "1.0.22" */
export function sodiumVersion(): string {
  return runtime().readText(sodium().sodium_version_string());
}

/**
 * Memory for the arguments of one call, laid out one after another, results included. Grows, never shrinks below what one call
 * needed; wiped after each call. Module-level scratch: nothing re-enters it.
 */
class Scratch {
  #memory: Memory = allocate(1024);
  #used = 0;

  /** Makes room for all arguments of a call. To be called first: growing moves what was placed. */
  reserve(bytes: number): void {
    this.#used = 0;
    if (this.#memory.bytes.length < bytes) this.#memory = allocate(bytes);
  }

  /** Copies an argument; gives its address. */
  place(bytes: Uint8Array): number {
    this.#memory.bytes.set(bytes, this.#used);
    return this.skip(bytes.length);
  }

  /** Leaves room for a result; gives its address. */
  skip(bytes: number): number {
    const address = this.#memory.address + this.#used;
    this.#used += bytes;
    return address;
  }

  /** A copy of what C wrote at an address that `skip` gave. */
  take(address: number, bytes: number): Uint8Array {
    const at = address - this.#memory.address;
    return this.#memory.bytes.slice(at, at + bytes);
  }

  wipe(): void {
    sodium().sodium_memzero(this.#memory.address, this.#used);
  }
}

let scratchMade: Scratch | undefined;

function scratch(bytes: number): Scratch {
  scratchMade ??= new Scratch();
  scratchMade.reserve(bytes);
  return scratchMade;
}

/** Fills an array with unpredictable octets (libsodium's `randombytes_buf`: getrandom(2)). */
export const randomBytes: RandomBytes = (into) => {
  const room = scratch(into.length);
  const at = room.skip(into.length);
  sodium().randombytes_buf(at, into.length);
  into.set(room.take(at, into.length));
  room.wipe();
};

/** 32 octets at a fixed address; the address is 0 after `wipe`. */
class SodiumKey implements TransportKey {
  address: number;
  readonly #memory: Memory;

  constructor(key: Uint8Array) {
    this.#memory = allocate(KEY_BYTES);
    this.#memory.bytes.set(key);
    this.address = this.#memory.address;
  }

  wipe(): void {
    sodium().sodium_memzero(this.#memory.address, KEY_BYTES);
    this.address = 0;
  }
}

/** Seals and opens in one arena, whose address is known once and for all. */
class SodiumPacketCipher implements PacketCipher {
  readonly #encrypt: Sodium["crypto_aead_chacha20poly1305_ietf_encrypt"];
  readonly #decrypt: Sodium["crypto_aead_chacha20poly1305_ietf_decrypt"];
  readonly #arena: Uint8Array;
  readonly #base: number;
  readonly #size: number;
  /** four zero octets, then the counter */
  readonly #nonce: Memory;
  readonly #nonceAt: number;

  constructor(arena: Uint8Array) {
    const library = sodium();
    this.#encrypt = library.crypto_aead_chacha20poly1305_ietf_encrypt;
    this.#decrypt = library.crypto_aead_chacha20poly1305_ietf_decrypt;
    this.#arena = arena;
    this.#base = runtime().pointerOf(arena);
    this.#size = arena.length;
    this.#nonce = allocate(NONCE_BYTES);
    this.#nonceAt = this.#nonce.address;
  }

  seal(key: TransportKey, counter: number, at: number, end: number, to: number): void {
    const keyAt = addressOf(key);
    const bytes = end - at;
    // C trusts us: a range outside of the arena would be memory that is not ours
    if (!(at >= 0 && bytes >= 0 && end <= this.#size && to >= 0 && to + bytes + TAG_BYTES <= this.#size)) {
      throw new RangeError(`Cannot seal [${at}, ${end}) to ${to}: outside of the arena of ${this.#size} octets`);
    }
    const nonce = this.#nonce.words;
    nonce[1] = counter;
    nonce[2] = counter / 4294967296;
    const base = this.#base;
    this.#encrypt(base + to, 0, base + at, bytes, 0, 0, 0, this.#nonceAt, keyAt);
  }

  open(key: TransportKey, counterAt: number, at: number, end: number): boolean {
    const keyAt = addressOf(key);
    const bytes = end - at;
    if (!(at >= 0 && end <= this.#size && counterAt >= 0 && counterAt + 8 <= this.#size)) {
      throw new RangeError(`Cannot open [${at}, ${end}): outside of the arena of ${this.#size} octets`);
    }
    if (bytes < TAG_BYTES) return false;
    const nonce = this.#nonce.bytes;
    const arena = this.#arena;
    for (let i = 0; i < 8; i++) nonce[4 + i] = arena[counterAt + i]!;
    const start = this.#base + at;
    return this.#decrypt(start, 0, 0, start, bytes, 0, 0, this.#nonceAt, keyAt) === 0;
  }
}

/** The address of a key of ours that was not wiped; anything else would let C read wherever it is told to. */
function addressOf(key: TransportKey): number {
  const address = (key as SodiumKey).address;
  if (!(address > 0)) throw new Error("Transport key is wiped, or of other ciphers");
  return address;
}

function mustBe(what: string, bytes: Uint8Array, count: number): void {
  if (bytes.length !== count) throw new RangeError(`Cannot use ${what} of ${bytes.length} octets: expected ${count}`);
}

type Aead = "crypto_aead_chacha20poly1305_ietf" | "crypto_aead_xchacha20poly1305_ietf";

class SodiumCiphers implements Ciphers {
  readonly #c: Sodium = sodium();

  dh(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
    mustBe("a secret key", secretKey, KEY_BYTES);
    mustBe("a public key", publicKey, KEY_BYTES);
    const room = scratch(3 * KEY_BYTES);
    const to = room.skip(KEY_BYTES);
    const isGood = this.#c.crypto_scalarmult(to, room.place(secretKey), room.place(publicKey)) === 0;
    const shared = isGood ? room.take(to, KEY_BYTES) : undefined;
    room.wipe();
    return shared;
  }

  publicKeyOf(secretKey: Uint8Array): Uint8Array {
    mustBe("a secret key", secretKey, KEY_BYTES);
    const room = scratch(2 * KEY_BYTES);
    const to = room.skip(KEY_BYTES);
    this.#c.crypto_scalarmult_base(to, room.place(secretKey));
    const publicKey = room.take(to, KEY_BYTES);
    room.wipe();
    return publicKey;
  }

  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    mustBe("a nonce", nonce, NONCE_BYTES);
    return this.#seal("crypto_aead_chacha20poly1305_ietf", key, nonce, plaintext, associated);
  }

  open(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    mustBe("a nonce", nonce, NONCE_BYTES);
    return this.#open("crypto_aead_chacha20poly1305_ietf", key, nonce, sealed, associated);
  }

  sealX(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    mustBe("a nonce", nonce, XNONCE_BYTES);
    return this.#seal("crypto_aead_xchacha20poly1305_ietf", key, nonce, plaintext, associated);
  }

  openX(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    mustBe("a nonce", nonce, XNONCE_BYTES);
    return this.#open("crypto_aead_xchacha20poly1305_ietf", key, nonce, sealed, associated);
  }

  #seal(aead: Aead, key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    mustBe("a key", key, KEY_BYTES);
    const sealedBytes = plaintext.length + TAG_BYTES;
    const room = scratch(sealedBytes + plaintext.length + associated.length + nonce.length + KEY_BYTES);
    const to = room.skip(sealedBytes);
    const from = room.place(plaintext);
    const associatedAt = room.place(associated);
    const nonceAt = room.place(nonce);
    const keyAt = room.place(key);
    this.#c[`${aead}_encrypt`](to, 0, from, plaintext.length, associatedAt, associated.length, 0, nonceAt, keyAt);
    const sealed = room.take(to, sealedBytes);
    room.wipe();
    return sealed;
  }

  #open(
    aead: Aead,
    key: Uint8Array,
    nonce: Uint8Array,
    sealed: Uint8Array,
    associated: Uint8Array,
  ): Uint8Array | undefined {
    mustBe("a key", key, KEY_BYTES);
    if (sealed.length < TAG_BYTES) return undefined;
    const plainBytes = sealed.length - TAG_BYTES;
    const room = scratch(plainBytes + sealed.length + associated.length + nonce.length + KEY_BYTES);
    const to = room.skip(plainBytes);
    const from = room.place(sealed);
    const associatedAt = room.place(associated);
    const nonceAt = room.place(nonce);
    const keyAt = room.place(key);
    const decrypt = this.#c[`${aead}_decrypt`];
    const isGood = decrypt(to, 0, 0, from, sealed.length, associatedAt, associated.length, nonceAt, keyAt) === 0;
    const plaintext = isGood ? room.take(to, plainBytes) : undefined;
    room.wipe();
    return plaintext;
  }

  /** @param secretKey 64 octets (seed, then public key), or the seed of 32 alone, which costs one more multiplication */
  sign(secretKey: Uint8Array, message: Uint8Array): Uint8Array {
    if (secretKey.length !== SEED_BYTES) mustBe("a signing key", secretKey, SECRET_BYTES);
    const room = scratch(SIGNATURE_BYTES + message.length + SECRET_BYTES + SEED_BYTES + KEY_BYTES);
    const to = room.skip(SIGNATURE_BYTES);
    const messageAt = room.place(message);
    let secretAt: number;
    if (secretKey.length === SECRET_BYTES) secretAt = room.place(secretKey);
    else {
      secretAt = room.skip(SECRET_BYTES);
      this.#c.crypto_sign_ed25519_seed_keypair(room.skip(KEY_BYTES), secretAt, room.place(secretKey));
    }
    this.#c.crypto_sign_ed25519_detached(to, 0, messageAt, message.length, secretAt);
    const signature = room.take(to, SIGNATURE_BYTES);
    room.wipe();
    return signature;
  }

  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    if (publicKey.length !== KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false;
    const room = scratch(SIGNATURE_BYTES + message.length + KEY_BYTES);
    const signatureAt = room.place(signature);
    const messageAt = room.place(message);
    const publicAt = room.place(publicKey);
    return this.#c.crypto_sign_ed25519_verify_detached(signatureAt, messageAt, message.length, publicAt) === 0;
  }

  makeTransportKey(key: Uint8Array): TransportKey {
    mustBe("a key", key, KEY_BYTES);
    return new SodiumKey(key);
  }

  packetCipher(arena: Uint8Array): PacketCipher {
    return new SodiumPacketCipher(arena);
  }

  /** Here the array is the caller's, and may move: it is overwritten in JavaScript, which keeps stores to arrays that live on. */
  wipe(bytes: Uint8Array): void {
    bytes.fill(0);
  }
}

/**
 * Loads libsodium (once per thread) and checks its sizes.
 * @throws FfiError EDGE_SODIUM when it cannot be loaded or is not the library that it should be
 */
export function loadSodium(): Ciphers {
  return new SodiumCiphers();
}
