/**
 * The AEADs that transport data may be sealed with, and the discipline of their keys and nonces.
 *
 * A handshake gives each direction of a session one transport key T (WireGuard paper §5.4.5). With ChaCha20-Poly1305 the data of
 * that direction is sealed under T itself, octet for octet WireGuard. Every other AEAD has a key of its own:
 *
 *     key = KDF1(T, label)       HMAC-BLAKE2s, cut to the AEAD's length; the label names the AEAD
 *
 * so the same octets never serve two ciphers, nor two directions. The nonce is the message's 64-bit counter, little endian, in its
 * last 8 octets, zeros before; the counter starts at 0, is raised by every message of the direction, and is in the header as ever,
 * where the replay window reads it. A direction is sealed with one AEAD for as long as the session lives. No associated data: the
 * header's index picks the key, its counter is the nonce, its type has one value.
 *
 * How many messages one key may seal, at most 9216 octets each (2^9.2 blocks of 16):
 *
 *     ChaCha20-Poly1305  far beyond any session; WireGuard's own limit is 2^60, ours is 2^50 (`constants.ts`)
 *     AEGIS-128L         no bound by blocks: the state has 1024 bits. The draft limits a message to 2^61 octets and asks for distinct
 *                        nonces, which counters are; ours is 2^50 likewise
 *     AES-256-GCM        the key stream differs from chance as the square of the blocks over 2^129. 2^27 messages of 9216 octets
 *                        are 2^36.2 blocks: 2^-56.6, what TLS and QUIC settle on (RFC 9001 §6.6, 2^-57); of 1500 octets, 2^-61.8
 *
 * So AES-256-GCM alone has lower numbers here: more than two minutes of full packets at 10 Gbit/s. A new session is asked for at half
 * of them. By time all three end after 180 s.
 * @see draft-irtf-cfrg-aegis-aead §4.2, NIST SP 800-38D §8.2.1, RFC 8645
 */
import { kdf } from "../noise/hashes.ts";
import type { AeadName, Ciphers, TransportKey } from "../ports.ts";
import { REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES } from "./constants.ts";

/** What the tunnel must know of an AEAD. */
export interface AeadFacts {
  readonly name: AeadName;
  /** of the key that is derived */
  readonly keyBytes: number;
  /** octets that sealing adds */
  readonly tagBytes: number;
  /** after so many messages a new session is asked for, and after so many nothing more is sealed */
  readonly rekeyAfterMessages: number;
  readonly rejectAfterMessages: number;
}

const GCM_REKEY_AFTER_MESSAGES = 2 ** 26;
const GCM_REJECT_AFTER_MESSAGES = 2 ** 27;

const FACTS: Readonly<Record<AeadName, AeadFacts>> = {
  chacha20poly1305: {
    name: "chacha20poly1305",
    keyBytes: 32,
    tagBytes: 16,
    rekeyAfterMessages: REKEY_AFTER_MESSAGES,
    rejectAfterMessages: REJECT_AFTER_MESSAGES,
  },
  aegis128l: {
    name: "aegis128l",
    keyBytes: 16,
    tagBytes: 32,
    rekeyAfterMessages: REKEY_AFTER_MESSAGES,
    rejectAfterMessages: REJECT_AFTER_MESSAGES,
  },
  aes256gcm: {
    name: "aes256gcm",
    keyBytes: 32,
    tagBytes: 16,
    rekeyAfterMessages: GCM_REKEY_AFTER_MESSAGES,
    rejectAfterMessages: GCM_REJECT_AFTER_MESSAGES,
  },
};

/** What both ends put before the AEAD's name: the version of this scheme. */
const LABEL = "edgemesh transport v1 ";

/** What is known of an AEAD. */
export function factsOf(aead: AeadName): AeadFacts {
  return FACTS[aead];
}

/**
 * The key of one direction for one AEAD.
 * @param secret transport key of the direction, 32 octets; borrowed
 */
export function makeAeadKey(ciphers: Ciphers, secret: Uint8Array, aead: AeadName): TransportKey {
  if (aead === "chacha20poly1305") return ciphers.makeTransportKey(secret);
  const whole = deriveAeadKey(secret, aead);
  const key = ciphers.makeTransportKey(whole.subarray(0, FACTS[aead].keyBytes), aead);
  ciphers.wipe(whole);
  return key;
}

/** `KDF1(secret, label)`, 32 octets, which the caller wipes. */
export function deriveAeadKey(secret: Uint8Array, aead: AeadName): Uint8Array {
  return kdf(1, secret, new TextEncoder().encode(LABEL + aead))[0]!;
}
