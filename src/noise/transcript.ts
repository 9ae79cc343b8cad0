/**
 * Chaining key and hash of one Noise handshake (`Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`): what has been said so far.
 * Every step replaces both values, so a copy is a save point. @see WireGuard paper §5.4.2, §5.4.3
 */
import type { Ciphers } from "../ports.ts";
import { hash, kdf } from "./hashes.ts";

const CONSTRUCTION = new TextEncoder().encode("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s");
const IDENTIFIER = new TextEncoder().encode("WireGuard v1 zx2c4 Jason@zx2c4.com");
const ZERO_NONCE = new Uint8Array(12);
const EMPTY = new Uint8Array(0);

const INITIAL_CHAINING_KEY = hash(CONSTRUCTION);
const INITIAL_HASH = hash(INITIAL_CHAINING_KEY, IDENTIFIER);

/** Both directions' keys of a finished handshake, as the side that holds it uses them. Owned by the holder, who wipes them. */
export interface SessionSecrets {
  readonly send: Uint8Array;
  readonly receive: Uint8Array;
}

export class Transcript {
  readonly #ciphers: Ciphers;
  #chainingKey: Uint8Array;
  #hash: Uint8Array;

  private constructor(ciphers: Ciphers, chainingKey: Uint8Array, hashValue: Uint8Array) {
    this.#ciphers = ciphers;
    this.#chainingKey = chainingKey;
    this.#hash = hashValue;
  }

  /** `ck = H(CONSTRUCTION)`, `h = H(H(ck || IDENTIFIER) || S_r.pub)`. */
  static start(ciphers: Ciphers, responderPublicKey: Uint8Array): Transcript {
    return new Transcript(ciphers, INITIAL_CHAINING_KEY.slice(), hash(INITIAL_HASH, responderPublicKey));
  }

  /** A save point that shares no bytes with this one. */
  copy(): Transcript {
    return new Transcript(this.#ciphers, this.#chainingKey.slice(), this.#hash.slice());
  }

  /** For tests against published transcripts. Borrowed, and replaced by the next step. */
  get chainingKey(): Uint8Array {
    return this.#chainingKey;
  }

  get hash(): Uint8Array {
    return this.#hash;
  }

  /** `h = H(h || data)`. */
  mixHash(data: Uint8Array): void {
    this.#hash = hash(this.#hash, data);
  }

  /** `ck = KDF1(ck, E.pub)`, `h = H(h || E.pub)`. */
  mixEphemeral(publicKey: Uint8Array): void {
    this.mixSecret(publicKey);
    this.mixHash(publicKey);
  }

  /** `ck = KDF1(ck, input)`. */
  mixSecret(input: Uint8Array): void {
    this.#replaceChainingKey(kdf(1, this.#chainingKey, input)[0]!);
  }

  /** `(ck, k) = KDF2(ck, input)`; the caller wipes `k`. */
  mixSecretForKey(input: Uint8Array): Uint8Array {
    const [chainingKey, key] = kdf(2, this.#chainingKey, input);
    this.#replaceChainingKey(chainingKey!);
    return key!;
  }

  /** `(ck, tau, k) = KDF3(ck, psk)`, `h = H(h || tau)`; the caller wipes `k`. */
  mixPresharedKey(presharedKey: Uint8Array): Uint8Array {
    const [chainingKey, tau, key] = kdf(3, this.#chainingKey, presharedKey);
    this.#replaceChainingKey(chainingKey!);
    this.mixHash(tau!);
    this.#ciphers.wipe(tau!);
    return key!;
  }

  /** `c = AEAD(key, 0, plaintext, h)`, `h = H(h || c)`; wipes `key`. */
  seal(key: Uint8Array, plaintext: Uint8Array): Uint8Array {
    const sealed = this.#ciphers.seal(key, ZERO_NONCE, plaintext, this.#hash);
    this.#ciphers.wipe(key);
    this.mixHash(sealed);
    return sealed;
  }

  /** The reverse; `undefined`, and the hash as it was, when the tag does not verify. Wipes `key`. */
  open(key: Uint8Array, sealed: Uint8Array): Uint8Array | undefined {
    const plaintext = this.#ciphers.open(key, ZERO_NONCE, sealed, this.#hash);
    this.#ciphers.wipe(key);
    if (plaintext !== undefined) this.mixHash(sealed);
    return plaintext;
  }

  /** `(T1, T2) = KDF2(ck, empty)`: the initiator sends with T1, the responder with T2. */
  split(isInitiator: boolean): SessionSecrets {
    const [first, second] = kdf(2, this.#chainingKey, EMPTY);
    return isInitiator ? { send: first!, receive: second! } : { send: second!, receive: first! };
  }

  wipe(): void {
    this.#ciphers.wipe(this.#chainingKey);
    this.#ciphers.wipe(this.#hash);
  }

  #replaceChainingKey(chainingKey: Uint8Array): void {
    this.#ciphers.wipe(this.#chainingKey);
    this.#chainingKey = chainingKey;
  }
}
