/**
 * mac1, mac2 and cookies: what lets a device under load make a sender prove its source address before any costly step.
 *
 * `CookieMaker` is the loaded side, `CookieJar` the side that gets a cookie; a device has one maker, and one jar per peer.
 * @see WireGuard paper §5.3, §5.4.4, §5.4.7
 */
import { equalConstantTime } from "../bytes/compare.ts";
import { writeU32LE } from "../bytes/integers.ts";
import type { Ciphers, RandomBytes } from "../ports.ts";
import {
  AT_COOKIE_NONCE,
  AT_COOKIE_RECEIVER,
  AT_COOKIE_SEALED,
  COOKIE_BYTES,
  COOKIE_NONCE_BYTES,
  MAC1_FROM_END,
  MAC2_FROM_END,
  MAC_BYTES,
  MESSAGE_COOKIE,
} from "../wire/wg_message.ts";
import { mac } from "./hashes.ts";
import type { LocalKeys, RemoteKeys } from "./keys.ts";

/** A cookie is used for this long after it came, and the secret behind it changes as often. */
export const COOKIE_LIFE_MS = 120_000;

/** Whether mac1 of a whole message of type 1 or 2 is right for the key of its receiver. */
export function isMac1Valid(mac1Key: Uint8Array, message: Uint8Array): boolean {
  const at = message.length - MAC1_FROM_END;
  return equalConstantTime(mac(mac1Key, message.subarray(0, at)), message.subarray(at, at + MAC_BYTES));
}

/** The loaded side: makes cookies and checks mac2. */
export class CookieMaker {
  readonly #ciphers: Ciphers;
  readonly #random: RandomBytes;
  readonly #cookieKey: Uint8Array;
  readonly #secret = new Uint8Array(32);
  #secretUntilMs = -Infinity;

  constructor(ciphers: Ciphers, random: RandomBytes, local: LocalKeys) {
    this.#ciphers = ciphers;
    this.#random = random;
    this.#cookieKey = local.cookieKey;
  }

  /**
   * Whether mac2 of a message was made with the cookie of this source.
   * @param source address octets, then the port's, as `writeReply` got them
   */
  isMac2Valid(message: Uint8Array, source: Uint8Array, nowMs: number): boolean {
    const at = message.length - MAC2_FROM_END;
    const expected = mac(this.#cookieOf(source, nowMs), message.subarray(0, at));
    return equalConstantTime(expected, message.subarray(at));
  }

  /**
   * Writes the cookie reply to a message of type 1 or 2 whose mac1 is right.
   *
   * @param receiverIndex the sender index of that message
   * @param into 64 octets
   */
  writeReply(message: Uint8Array, receiverIndex: number, source: Uint8Array, nowMs: number, into: Uint8Array): void {
    const nonce = into.subarray(AT_COOKIE_NONCE, AT_COOKIE_NONCE + COOKIE_NONCE_BYTES);
    const mac1 = message.subarray(message.length - MAC1_FROM_END, message.length - MAC2_FROM_END);
    writeU32LE(into, 0, MESSAGE_COOKIE);
    writeU32LE(into, AT_COOKIE_RECEIVER, receiverIndex);
    this.#random(nonce);
    into.set(this.#ciphers.sealX(this.#cookieKey, nonce, this.#cookieOf(source, nowMs), mac1), AT_COOKIE_SEALED);
  }

  /** `tau = MAC(R, source)`. How an address is turned into octets is private to the side that makes the cookie. */
  #cookieOf(source: Uint8Array, nowMs: number): Uint8Array {
    if (nowMs >= this.#secretUntilMs) {
      this.#random(this.#secret);
      this.#secretUntilMs = nowMs + COOKIE_LIFE_MS;
    }
    return mac(this.#secret, source);
  }
}

/** The side that sends handshake messages to one peer: writes both macs, and keeps the cookie that the peer sent. */
export class CookieJar {
  readonly #lastMac1 = new Uint8Array(MAC_BYTES);
  readonly #cookie = new Uint8Array(MAC_BYTES);
  /** Whether `#lastMac1` was sent and no cookie reply has used it yet. */
  #isWaiting = false;
  #cookieUntilMs = -Infinity;

  /** Writes mac1, and mac2 (zero without a fresh cookie), at the end of a whole message of type 1 or 2. */
  writeMacs(remote: RemoteKeys, message: Uint8Array, nowMs: number): void {
    const mac1At = message.length - MAC1_FROM_END;
    const mac2At = message.length - MAC2_FROM_END;
    const mac1 = mac(remote.mac1Key, message.subarray(0, mac1At));
    message.set(mac1, mac1At);
    this.#lastMac1.set(mac1);
    this.#isWaiting = true;
    if (nowMs < this.#cookieUntilMs) message.set(mac(this.#cookie, message.subarray(0, mac2At)), mac2At);
    else message.fill(0, mac2At);
  }

  /**
   * Takes the cookie out of a whole message of type 3. Its associated data is the mac1 that we sent last, which counts once.
   *
   * @returns false, and nothing has changed, when it answers no message of ours or does not open
   */
  takeReply(ciphers: Ciphers, remote: RemoteKeys, message: Uint8Array, nowMs: number): boolean {
    if (!this.#isWaiting) return false;
    const nonce = message.subarray(AT_COOKIE_NONCE, AT_COOKIE_NONCE + COOKIE_NONCE_BYTES);
    const sealed = message.subarray(AT_COOKIE_SEALED, COOKIE_BYTES);
    const cookie = ciphers.openX(remote.cookieKey, nonce, sealed, this.#lastMac1);
    if (cookie === undefined) return false;
    this.#cookie.set(cookie);
    this.#cookieUntilMs = nowMs + COOKIE_LIFE_MS;
    this.#isWaiting = false;
    return true;
  }
}
