/**
 * The `Ciphers` of `src/ports.ts` where there is no FFI: libsodium as WebAssembly. For Node under vitest and for offline tools;
 * the second implementation that `test/suites/ciphers.ts` compares `ffi/sodium.ts` with. Slow, and it allocates per packet.
 */
import sodium from "libsodium-wrappers";
import type { AeadName, Ciphers, PacketCipher, TransportKey } from "../src/ports.ts";

const KEY_BYTES = 32;
const TAG_BYTES = 16;
const NONCE_BYTES = 12;
const AEGIS_KEY_BYTES = 16;
const AEGIS_TAG_BYTES = 32;
const AEGIS_NONCE_BYTES = 16;
const XNONCE_BYTES = 24;
const SIGNATURE_BYTES = 64;
const SEED_BYTES = 32;

function mustBe(what: string, bytes: Uint8Array, count: number): void {
  if (bytes.length !== count) throw new RangeError(`Cannot use ${what} of ${bytes.length} octets: expected ${count}`);
}

/** What libsodium-wrappers throws when C says no, as `undefined`. */
function orUndefined(call: () => Uint8Array): Uint8Array | undefined {
  try {
    return call();
  } catch {
    return undefined;
  }
}

class WasmKey implements TransportKey {
  readonly aead: AeadName;
  readonly tagBytes: number;
  #key: Uint8Array | undefined;

  constructor(key: Uint8Array, aead: AeadName) {
    this.aead = aead;
    this.tagBytes = aead === "aegis128l" ? AEGIS_TAG_BYTES : TAG_BYTES;
    this.#key = key.slice();
  }

  static octetsOf(key: TransportKey): Uint8Array {
    const octets = key instanceof WasmKey ? key.#key : undefined;
    if (octets === undefined) throw new Error("Transport key is wiped, or of other ciphers");
    return octets;
  }

  wipe(): void {
    this.#key?.fill(0);
    this.#key = undefined;
  }
}

class WasmPacketCipher implements PacketCipher {
  readonly #arena: Uint8Array;

  constructor(arena: Uint8Array) {
    this.#arena = arena;
  }

  seal(key: TransportKey, counter: number, at: number, end: number, to: number): void {
    const octets = WasmKey.octetsOf(key);
    const size = this.#arena.length;
    if (!(at >= 0 && end >= at && end <= size && to >= 0 && to + (end - at) + key.tagBytes <= size)) {
      throw new RangeError(`Cannot seal [${at}, ${end}) to ${to}: outside of the arena of ${size} octets`);
    }
    const nonce = nonceOf(key);
    new DataView(nonce.buffer).setBigUint64(nonce.length - 8, BigInt(counter), true);
    const plaintext = this.#arena.slice(at, end);
    const sealed = key.aead === "aegis128l"
      ? sodium.crypto_aead_aegis128l_encrypt(plaintext, null, null, nonce, octets)
      : sodium.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, null, null, nonce, octets);
    this.#arena.set(sealed, to);
  }

  open(key: TransportKey, counterAt: number, at: number, end: number): boolean {
    const octets = WasmKey.octetsOf(key);
    const size = this.#arena.length;
    if (!(at >= 0 && end <= size && counterAt >= 0 && counterAt + 8 <= size)) {
      throw new RangeError(`Cannot open [${at}, ${end}): outside of the arena of ${size} octets`);
    }
    if (end - at < key.tagBytes) return false;
    const nonce = nonceOf(key);
    nonce.set(this.#arena.subarray(counterAt, counterAt + 8), nonce.length - 8);
    const sealed = this.#arena.slice(at, end);
    const opened = orUndefined(() =>
      key.aead === "aegis128l"
        ? sodium.crypto_aead_aegis128l_decrypt(null, sealed, null, nonce, octets)
        : sodium.crypto_aead_chacha20poly1305_ietf_decrypt(null, sealed, null, nonce, octets)
    );
    if (opened === undefined) this.#arena.fill(0, at, end - key.tagBytes); // as C leaves it
    else this.#arena.set(opened, at);
    return opened !== undefined;
  }
}

function nonceOf(key: TransportKey): Uint8Array<ArrayBuffer> {
  return new Uint8Array(key.aead === "aegis128l" ? AEGIS_NONCE_BYTES : NONCE_BYTES);
}

class WasmCiphers implements Ciphers {
  /** AES-256-GCM needs instructions that WebAssembly has not. */
  readonly aeads: readonly AeadName[] = ["chacha20poly1305", "aegis128l"];

  dh(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
    mustBe("a secret key", secretKey, KEY_BYTES);
    mustBe("a public key", publicKey, KEY_BYTES);
    return orUndefined(() => sodium.crypto_scalarmult(secretKey, publicKey));
  }

  publicKeyOf(secretKey: Uint8Array): Uint8Array {
    mustBe("a secret key", secretKey, KEY_BYTES);
    return sodium.crypto_scalarmult_base(secretKey);
  }

  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    mustBe("a nonce", nonce, NONCE_BYTES);
    mustBe("a key", key, KEY_BYTES);
    return sodium.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, associated, null, nonce, key);
  }

  open(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    mustBe("a nonce", nonce, NONCE_BYTES);
    mustBe("a key", key, KEY_BYTES);
    if (sealed.length < TAG_BYTES) return undefined;
    return orUndefined(() => sodium.crypto_aead_chacha20poly1305_ietf_decrypt(null, sealed, associated, nonce, key));
  }

  sealX(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
    mustBe("a nonce", nonce, XNONCE_BYTES);
    mustBe("a key", key, KEY_BYTES);
    return sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, associated, null, nonce, key);
  }

  openX(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
    mustBe("a nonce", nonce, XNONCE_BYTES);
    mustBe("a key", key, KEY_BYTES);
    if (sealed.length < TAG_BYTES) return undefined;
    return orUndefined(() => sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(null, sealed, associated, nonce, key));
  }

  /** @param secretKey 64 octets (seed, then public key), or the seed of 32 alone */
  sign(secretKey: Uint8Array, message: Uint8Array): Uint8Array {
    if (secretKey.length !== SEED_BYTES) {
      mustBe("a signing key", secretKey, 64);
      return sodium.crypto_sign_detached(message, secretKey);
    }
    return sodium.crypto_sign_detached(message, sodium.crypto_sign_seed_keypair(secretKey).privateKey);
  }

  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    if (publicKey.length !== KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false;
    return sodium.crypto_sign_verify_detached(signature, message, publicKey);
  }

  makeTransportKey(key: Uint8Array, aead: AeadName = "chacha20poly1305"): TransportKey {
    if (!this.aeads.includes(aead)) throw new Error(`Cannot use ${aead}: WebAssembly has no AES instructions`);
    mustBe("a key", key, aead === "aegis128l" ? AEGIS_KEY_BYTES : KEY_BYTES);
    return new WasmKey(key, aead);
  }

  packetCipher(arena: Uint8Array): PacketCipher {
    return new WasmPacketCipher(arena);
  }

  wipe(bytes: Uint8Array): void {
    sodium.memzero(bytes);
  }
}

/** Waits for the WebAssembly module, then gives the ciphers. */
export async function loadSodiumWasm(): Promise<Ciphers> {
  await sodium.ready;
  return new WasmCiphers();
}
