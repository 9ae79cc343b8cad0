/**
 * The two messages of the handshake, from both sides. Functions over values: nothing here remembers a peer, reads a clock or
 * changes an argument on failure, so a message that does not authenticate leaves everything as it was.
 *
 * Message buffers are whole messages of exact length (`readMessageType` has said so), with offset 0 at the type.
 * Called by `src/tunnel/handshaking.ts`. @see WireGuard paper §5.4.2 (initiation), §5.4.3 (response), §5.4.5 (keys)
 */
import { readU32LE, writeU32LE } from "../bytes/integers.ts";
import type { Ciphers } from "../ports.ts";
import {
  AT_INITIATION_EPHEMERAL,
  AT_INITIATION_STAMP,
  AT_INITIATION_STATIC,
  AT_RESPONSE_EMPTY,
  AT_RESPONSE_EPHEMERAL,
  AT_RESPONSE_RECEIVER,
  AT_SENDER,
  KEY_BYTES,
  MESSAGE_INITIATION,
  MESSAGE_RESPONSE,
  STAMP_BYTES,
  TAG_BYTES,
} from "../wire/wg_message.ts";
import type { LocalKeys, RemoteKeys } from "./keys.ts";
import { type SessionSecrets, Transcript } from "./transcript.ts";

const EMPTY = new Uint8Array(0);

/** An initiation that was sent and waits for its response. Holds secrets: `wipeInitiation` when done. */
export interface SentInitiation {
  readonly localIndex: number;
  readonly ephemeralSecret: Uint8Array;
  readonly transcript: Transcript;
}

/** An initiation whose sender is known but not yet proved. Holds secrets: wipe `transcript` when it is given up. */
export interface OpenedInitiation {
  readonly remoteIndex: number;
  readonly remotePublicKey: Uint8Array;
  readonly remoteEphemeral: Uint8Array;
  readonly transcript: Transcript;
}

/** Overwrites what an initiation holds. */
export function wipeInitiation(ciphers: Ciphers, initiation: SentInitiation): void {
  ciphers.wipe(initiation.ephemeralSecret);
  initiation.transcript.wipe();
}

/**
 * Writes message 1 without its macs.
 *
 * @param ephemeralSecret 32 fresh random octets; owned by the result
 * @param stamp TAI64N, 12 octets, greater than all sent to this peer before
 * @param into 148 octets; unspecified when the answer is `undefined`
 * @returns `undefined` when the peer's public key is of low order
 */
export function writeInitiation(
  ciphers: Ciphers,
  local: LocalKeys,
  remote: RemoteKeys,
  localIndex: number,
  ephemeralSecret: Uint8Array,
  stamp: Uint8Array,
  into: Uint8Array,
): SentInitiation | undefined {
  const shared = ciphers.dh(ephemeralSecret, remote.publicKey);
  if (shared === undefined || remote.staticShared === undefined) return undefined;
  const transcript = Transcript.start(ciphers, remote.publicKey);
  const ephemeral = ciphers.publicKeyOf(ephemeralSecret);
  writeU32LE(into, 0, MESSAGE_INITIATION);
  writeU32LE(into, AT_SENDER, localIndex);
  into.set(ephemeral, AT_INITIATION_EPHEMERAL);
  transcript.mixEphemeral(ephemeral);
  into.set(transcript.seal(transcript.mixSecretForKey(shared), local.publicKey), AT_INITIATION_STATIC);
  into.set(transcript.seal(transcript.mixSecretForKey(remote.staticShared), stamp), AT_INITIATION_STAMP);
  ciphers.wipe(shared);
  return { localIndex, ephemeralSecret, transcript };
}

/**
 * Opens the static key of a received message 1: who claims to speak. Proves nothing about the time it was made.
 *
 * @returns `undefined` when it was not made for our key, or the ephemeral is of low order
 */
export function openInitiation(ciphers: Ciphers, local: LocalKeys, message: Uint8Array): OpenedInitiation | undefined {
  const remoteEphemeral = message.slice(AT_INITIATION_EPHEMERAL, AT_INITIATION_EPHEMERAL + KEY_BYTES);
  const shared = ciphers.dh(local.secretKey, remoteEphemeral);
  if (shared === undefined) return undefined;
  const transcript = Transcript.start(ciphers, local.publicKey);
  transcript.mixEphemeral(remoteEphemeral);
  const sealed = message.subarray(AT_INITIATION_STATIC, AT_INITIATION_STATIC + KEY_BYTES + TAG_BYTES);
  const remotePublicKey = transcript.open(transcript.mixSecretForKey(shared), sealed);
  ciphers.wipe(shared);
  if (remotePublicKey === undefined) {
    transcript.wipe();
    return undefined;
  }
  return { remoteIndex: readU32LE(message, AT_SENDER), remotePublicKey, remoteEphemeral, transcript };
}

/**
 * Opens the timestamp, which proves that the holder of the static key made the message. Advances the transcript of `opened`.
 *
 * @param remote keys of the peer that `opened.remotePublicKey` names
 * @returns 12 octets of TAI64N, or `undefined` when it does not authenticate
 */
export function openInitiationStamp(
  opened: OpenedInitiation,
  remote: RemoteKeys,
  message: Uint8Array,
): Uint8Array | undefined {
  if (remote.staticShared === undefined) return undefined;
  const sealed = message.subarray(AT_INITIATION_STAMP, AT_INITIATION_STAMP + STAMP_BYTES + TAG_BYTES);
  return opened.transcript.open(opened.transcript.mixSecretForKey(remote.staticShared), sealed);
}

/**
 * Writes message 2 without its macs, as the answer to an initiation whose timestamp was opened and accepted.
 * Wipes the ephemeral secret and the transcript: the handshake is over for this side.
 *
 * @param ephemeralSecret 32 fresh random octets
 * @param into 92 octets
 * @returns the session's keys; `undefined` when the initiator's ephemeral is of low order
 */
export function writeResponse(
  ciphers: Ciphers,
  opened: OpenedInitiation,
  remote: RemoteKeys,
  localIndex: number,
  ephemeralSecret: Uint8Array,
  into: Uint8Array,
): SessionSecrets | undefined {
  const transcript = opened.transcript;
  const ephemeral = ciphers.publicKeyOf(ephemeralSecret);
  const sharedEphemeral = ciphers.dh(ephemeralSecret, opened.remoteEphemeral);
  const sharedStatic = ciphers.dh(ephemeralSecret, remote.publicKey);
  ciphers.wipe(ephemeralSecret);
  let secrets: SessionSecrets | undefined;
  if (sharedEphemeral !== undefined && sharedStatic !== undefined) {
    writeU32LE(into, 0, MESSAGE_RESPONSE);
    writeU32LE(into, AT_SENDER, localIndex);
    writeU32LE(into, AT_RESPONSE_RECEIVER, opened.remoteIndex);
    into.set(ephemeral, AT_RESPONSE_EPHEMERAL);
    transcript.mixEphemeral(ephemeral);
    transcript.mixSecret(sharedEphemeral);
    transcript.mixSecret(sharedStatic);
    into.set(transcript.seal(transcript.mixPresharedKey(remote.presharedKey), EMPTY), AT_RESPONSE_EMPTY);
    secrets = transcript.split(false);
  }
  if (sharedEphemeral !== undefined) ciphers.wipe(sharedEphemeral);
  if (sharedStatic !== undefined) ciphers.wipe(sharedStatic);
  transcript.wipe();
  return secrets;
}

/**
 * Reads message 2. Works on a copy of the transcript, so a forged response does not spoil the waiting initiation.
 *
 * @param initiation the one that the message's receiver index names; not changed
 * @returns the session's keys, or `undefined` when it does not authenticate
 */
export function readResponse(
  ciphers: Ciphers,
  local: LocalKeys,
  remote: RemoteKeys,
  initiation: SentInitiation,
  message: Uint8Array,
): SessionSecrets | undefined {
  const ephemeral = message.subarray(AT_RESPONSE_EPHEMERAL, AT_RESPONSE_EPHEMERAL + KEY_BYTES);
  const sharedEphemeral = ciphers.dh(initiation.ephemeralSecret, ephemeral);
  const sharedStatic = ciphers.dh(local.secretKey, ephemeral);
  let secrets: SessionSecrets | undefined;
  if (sharedEphemeral !== undefined && sharedStatic !== undefined) {
    const transcript = initiation.transcript.copy();
    transcript.mixEphemeral(ephemeral);
    transcript.mixSecret(sharedEphemeral);
    transcript.mixSecret(sharedStatic);
    const key = transcript.mixPresharedKey(remote.presharedKey);
    const sealed = message.subarray(AT_RESPONSE_EMPTY, AT_RESPONSE_EMPTY + TAG_BYTES);
    if (transcript.open(key, sealed) !== undefined) secrets = transcript.split(true);
    transcript.wipe();
  }
  if (sharedEphemeral !== undefined) ciphers.wipe(sharedEphemeral);
  if (sharedStatic !== undefined) ciphers.wipe(sharedStatic);
  return secrets;
}
