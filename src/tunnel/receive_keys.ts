/**
 * Finding out which AEAD the other side of a session seals with, without a word on the wire.
 *
 * The sender decides alone, from the signed records that it has (`src/mesh/agreed_aead.ts`); the receiver may have older ones or
 * newer ones. So the first message is tried with what the receiver's own records say, then with whatever else can be opened here;
 * the first tag that verifies settles it for the life of the session. That is safe: every AEAD has a key of its own from the
 * transport key of the direction (`aead.ts`), so what one of them made tells nothing about the others, and who can make a tag that
 * verifies under any of them has the transport key. A stranger gains one try per AEAD instead of one, 2^-126 for three, and costs
 * us three openings per forged message, of a session of which nothing true was heard yet and whose random index he must have seen.
 *
 * Both ends may so seal differently for a while: each direction is its own. With the next handshake both have both records.
 */
import type { AeadName, Ciphers, PacketCipher, TransportKey } from "../ports.ts";
import { makeAeadKey } from "./aead.ts";

export class ReceiveKeys {
  readonly #ciphers: Ciphers;
  /** transport key of the direction, gone when the AEAD is known */
  readonly #secret: Uint8Array;
  /** to be tried in this order */
  readonly #aeads: readonly AeadName[];
  /** made when first tried */
  readonly #keys: TransportKey[] = [];
  #isOver = false;

  /**
   * @param secret   32 octets; owned, and overwritten when it is over
   * @param expected what the records at hand say
   */
  constructor(ciphers: Ciphers, secret: Uint8Array, expected: AeadName) {
    this.#ciphers = ciphers;
    this.#secret = secret;
    const others = ciphers.aeads.filter((aead) => aead !== expected);
    this.#aeads = ciphers.aeads.includes(expected) ? [expected, ...others] : others;
  }

  /**
   * Opens a message in place with whatever opens it. On success the key is the caller's, all others are wiped, and this object is
   * at its end. On failure the message is what it was.
   */
  open(cipher: PacketCipher, bytes: Uint8Array, counterAt: number, at: number, end: number): TransportKey | undefined {
    if (this.#isOver) return undefined;
    const message = bytes.slice(at, end); // an attempt that fails spoils what it opens in place
    for (let i = 0; i < this.#aeads.length; i++) {
      const key = this.#keys[i] ??= makeAeadKey(this.#ciphers, this.#secret, this.#aeads[i]!);
      if (cipher.open(key, counterAt, at, end)) {
        this.#keys.splice(i, 1);
        this.wipe();
        return key;
      }
      bytes.set(message, at);
    }
    return undefined;
  }

  /** Overwrites the transport key and all that was derived from it. */
  wipe(): void {
    this.#isOver = true;
    this.#ciphers.wipe(this.#secret);
    for (const key of this.#keys) key.wipe();
    this.#keys.length = 0;
  }
}
