/**
 * libsodium through FFI: the `Ciphers` of the handshake; the `PacketCipher` of the packet path is in `ffi/sodium_packet.ts`. The
 * library comes from `ffi/native.ts`.
 *
 * The packet cipher hands C an address inside the arena and allocates nothing. Everything else copies its arguments into memory
 * whose address is known, and wipes that afterwards: asking for the address of each small array would cost more.
 */
import type { AeadName, Ciphers, PacketCipher, RandomBytes, TransportKey } from "../src/ports.ts";
import { FfiError } from "./errno.ts";
import { allocate, type Memory } from "./memory.ts";
import { loadFromMemory, readNativeLibrary } from "./native.ts";
import { runtime } from "./runtime/index.ts";
import type { Symbols } from "./runtime/types.ts";
import { GCM_STATE_BYTES, SodiumKey, SodiumPacketCipher } from "./sodium_packet.ts";

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
  // the two halves of ChaCha20-Poly1305: `ffi/chacha_sweep.ts`
  // (to, from, bytes, nonce, number of the first block, key)
  crypto_stream_chacha20_ietf_xor_ic: { args: ["ptr", "ptr", "size", "ptr", "u32", "ptr"], result: "i32" },
  // (tag, from, bytes, key)
  crypto_onetimeauth_poly1305: { args: ["ptr", "ptr", "size", "ptr"], result: "i32" },
  crypto_onetimeauth_poly1305_verify: { args: ["ptr", "ptr", "size", "ptr"], result: "i32" },
  sodium_runtime_has_ssse3: { args: [], result: "i32" },
  crypto_aead_xchacha20poly1305_ietf_encrypt: SEAL,
  crypto_aead_xchacha20poly1305_ietf_decrypt: OPEN,
  crypto_aead_aegis128l_encrypt: SEAL,
  crypto_aead_aegis128l_decrypt: OPEN,
  // with the state that beforenm made of a key, where the others take the key
  crypto_aead_aes256gcm_encrypt_afternm: SEAL,
  crypto_aead_aes256gcm_decrypt_afternm: OPEN,
  crypto_aead_aes256gcm_beforenm: { args: ["ptr", "ptr"], result: "i32" },
  crypto_aead_aes256gcm_is_available: { args: [], result: "i32" },
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
  crypto_aead_aegis128l_keybytes: SIZE,
  crypto_aead_aegis128l_npubbytes: SIZE,
  crypto_aead_aegis128l_abytes: SIZE,
  crypto_aead_aes256gcm_keybytes: SIZE,
  crypto_aead_aes256gcm_npubbytes: SIZE,
  crypto_aead_aes256gcm_abytes: SIZE,
  crypto_aead_aes256gcm_statebytes: SIZE,
  crypto_sign_ed25519_bytes: SIZE,
  crypto_sign_ed25519_seedbytes: SIZE,
  crypto_sign_ed25519_publickeybytes: SIZE,
  crypto_sign_ed25519_secretkeybytes: SIZE,
} as const;

/** The library's functions. */
export type Sodium = Symbols<typeof SIGNATURES>;

const KEY_BYTES = 32;
const TAG_BYTES = 16;
const NONCE_BYTES = 12;
const XNONCE_BYTES = 24;
const AEGIS_KEY_BYTES = 16;
const AEGIS_NONCE_BYTES = 16;
const AEGIS_TAG_BYTES = 32;
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
  ["crypto_aead_aegis128l_keybytes", AEGIS_KEY_BYTES],
  ["crypto_aead_aegis128l_npubbytes", AEGIS_NONCE_BYTES],
  ["crypto_aead_aegis128l_abytes", AEGIS_TAG_BYTES],
  ["crypto_aead_aes256gcm_keybytes", KEY_BYTES],
  ["crypto_aead_aes256gcm_npubbytes", NONCE_BYTES],
  ["crypto_aead_aes256gcm_abytes", TAG_BYTES],
  ["crypto_aead_aes256gcm_statebytes", GCM_STATE_BYTES],
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

/** Whether the CPU has instructions for AES: without them AES-256-GCM cannot be used, and AEGIS-128L is slow. */
export function hasAesInstructions(): boolean {
  return sodium().crypto_aead_aes256gcm_is_available() === 1;
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

  /** The same into the caller's octets; allocates nothing. */
  takeInto(into: Uint8Array, address: number): void {
    const { bytes } = this.#memory;
    const at = address - this.#memory.address;
    for (let i = 0; i < into.length; i++) into[i] = bytes[at + i]!;
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
  room.takeInto(into, at);
  room.wipe();
};

function mustBe(what: string, bytes: Uint8Array, count: number): void {
  if (bytes.length !== count) throw new RangeError(`Cannot use ${what} of ${bytes.length} octets: expected ${count}`);
}

type Aead = "crypto_aead_chacha20poly1305_ietf" | "crypto_aead_xchacha20poly1305_ietf";

/** One call with any nonce and associated data, as the vectors of the standards have them; for self-tests. */
export function sealOnce(
  aead: "aegis128l" | "aes256gcm",
  key: Uint8Array,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  associated: Uint8Array,
): Uint8Array {
  const isAegis = aead === "aegis128l";
  mustBe("a nonce", nonce, isAegis ? AEGIS_NONCE_BYTES : NONCE_BYTES);
  const library = sodium();
  const ready = new SodiumKey(library, key, aead);
  const sealedBytes = plaintext.length + ready.tagBytes;
  const room = scratch(sealedBytes + plaintext.length + associated.length + nonce.length);
  const to = room.skip(sealedBytes);
  const seal = isAegis ? library.crypto_aead_aegis128l_encrypt : library.crypto_aead_aes256gcm_encrypt_afternm;
  const from = room.place(plaintext);
  const associatedAt = room.place(associated);
  seal(to, 0, from, plaintext.length, associatedAt, associated.length, 0, room.place(nonce), ready.address);
  const sealed = room.take(to, sealedBytes);
  room.wipe();
  ready.wipe();
  return sealed;
}

class SodiumCiphers implements Ciphers {
  readonly #c: Sodium = sodium();
  readonly aeads: readonly AeadName[] = hasAesInstructions()
    ? ["chacha20poly1305", "aegis128l", "aes256gcm"]
    : ["chacha20poly1305", "aegis128l"];

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

  /** @throws Error for AES-256-GCM where the CPU has no AES instructions */
  makeTransportKey(key: Uint8Array, aead: AeadName = "chacha20poly1305"): TransportKey {
    if (!this.aeads.includes(aead)) throw new Error(`Cannot use ${aead}: the CPU has no AES instructions`);
    return new SodiumKey(this.#c, key, aead);
  }

  packetCipher(arena: Uint8Array): PacketCipher {
    return new SodiumPacketCipher(this.#c, arena);
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
