/** The handshake against a transcript made from the paper, step by step, and everything that must not authenticate. */
import { beforeAll, describe, expect, it } from "vitest";
import { loadSodiumWasm } from "../../../edge/ciphers_wasm.ts";
import { toHex } from "../../../src/bytes/text.ts";
import {
  type OpenedInitiation,
  openInitiation,
  openInitiationStamp,
  readResponse,
  type SentInitiation,
  wipeInitiation,
  writeInitiation,
  writeResponse,
} from "../../../src/noise/handshake.ts";
import { CookieJar } from "../../../src/noise/cookie.ts";
import { type LocalKeys, makeLocalKeys, makeRemoteKeys, type RemoteKeys } from "../../../src/noise/keys.ts";
import type { SessionSecrets } from "../../../src/noise/transcript.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { transcript } from "../../fakes/wireguard_vectors.ts";

const INDEX_I = 0x01020304;
const INDEX_R = 0x0a0b0c0d;

let ciphers: Ciphers;
let initiator: LocalKeys;
let responder: LocalKeys;
let responderOfInitiator: RemoteKeys;
let initiatorOfResponder: RemoteKeys;

beforeAll(async () => {
  ciphers = await loadSodiumWasm();
  initiator = makeLocalKeys(ciphers, transcript("Spriv_i"));
  responder = makeLocalKeys(ciphers, transcript("Spriv_r"));
  responderOfInitiator = makeRemoteKeys(ciphers, initiator, responder.publicKey, transcript("psk"));
  initiatorOfResponder = makeRemoteKeys(ciphers, responder, initiator.publicKey, transcript("psk"));
});

function initiate(): { message: Uint8Array; sent: SentInitiation } {
  const message = new Uint8Array(148);
  const sent = writeInitiation(
    ciphers,
    initiator,
    responderOfInitiator,
    INDEX_I,
    transcript("Epriv_i"),
    transcript("timestamp"),
    message,
  );
  new CookieJar().writeMacs(responderOfInitiator, message, 0);
  return { message, sent: sent! };
}

function open(message: Uint8Array): OpenedInitiation | undefined {
  const opened = openInitiation(ciphers, responder, message);
  if (opened === undefined || openInitiationStamp(opened, initiatorOfResponder, message) === undefined) {
    return undefined;
  }
  return opened;
}

function respond(
  message: Uint8Array,
  remote = initiatorOfResponder,
): { response: Uint8Array; secrets: SessionSecrets } {
  const response = new Uint8Array(92);
  const secrets = writeResponse(ciphers, open(message)!, remote, INDEX_R, transcript("Epriv_r"), response)!;
  new CookieJar().writeMacs(remote, response, 0);
  return { response, secrets };
}

const read = (sent: SentInitiation, response: Uint8Array, remote = responderOfInitiator) =>
  readResponse(ciphers, initiator, remote, sent, response);

const isWhole = (at: number, holes: readonly (readonly [number, number])[]) =>
  !holes.some(([from, to]) => at >= from && at < to);

describe("keys", () => {
  it("are those of the transcript", () => {
    expect(toHex(initiator.publicKey)).toBe(toHex(transcript("Spub_i")));
    expect(toHex(responder.publicKey)).toBe(toHex(transcript("Spub_r")));
    expect(toHex(responder.mac1Key)).toBe(toHex(transcript("mac1_key_r")));
    expect(toHex(responderOfInitiator.mac1Key)).toBe(toHex(transcript("mac1_key_r")));
    expect(toHex(responder.cookieKey)).toBe(toHex(transcript("cookie_key")));
    expect(toHex(responderOfInitiator.staticShared!)).toBe(toHex(initiatorOfResponder.staticShared!));
  });
});

describe("initiation", () => {
  it("is the transcript's, octet by octet, with its chaining key and hash", () => {
    const { message, sent } = initiate();
    expect(toHex(message)).toBe(toHex(transcript("msg1_initiation")));
    expect(toHex(sent.transcript.chainingKey)).toBe(toHex(transcript("ck_after_ss")));
    expect(toHex(sent.transcript.hash)).toBe(toHex(transcript("h_after_initiation")));
  });

  it("is opened to static key, index and timestamp, and both sides have the same transcript", () => {
    const message = transcript("msg1_initiation");
    const opened = openInitiation(ciphers, responder, message)!;
    expect(toHex(opened.transcript.chainingKey)).toBe(toHex(transcript("ck_after_es")));
    expect(toHex(opened.remotePublicKey)).toBe(toHex(transcript("Spub_i")));
    expect(opened.remoteIndex).toBe(INDEX_I);
    expect(toHex(openInitiationStamp(opened, initiatorOfResponder, message)!)).toBe(toHex(transcript("timestamp")));
    expect(toHex(opened.transcript.chainingKey)).toBe(toHex(transcript("ck_after_ss")));
    expect(toHex(opened.transcript.hash)).toBe(toHex(transcript("h_after_initiation")));
  });

  it("does not authenticate with any bit flipped in what is sealed or mixed", () => {
    // Type and index are covered by mac1 alone, the top bit of a point is not part of it.
    for (let at = 8; at < 116; at++) {
      for (const bit of [0x01, 0x40]) {
        const message = transcript("msg1_initiation");
        message[at]! ^= bit;
        expect(open(message), `bit ${bit} of octet ${at}`).toBeUndefined();
      }
    }
  });

  it("is not opened by another responder", () => {
    const other = makeLocalKeys(ciphers, transcript("Epriv_r"));
    expect(openInitiation(ciphers, other, transcript("msg1_initiation"))).toBeUndefined();
  });

  it("with a low-order ephemeral is refused", () => {
    const message = transcript("msg1_initiation").fill(0, 8, 40);
    expect(openInitiation(ciphers, responder, message)).toBeUndefined();
  });

  it("cannot be made for a peer whose public key is of low order", () => {
    const weak = makeRemoteKeys(ciphers, initiator, new Uint8Array(32), undefined);
    expect(weak.staticShared).toBeUndefined();
    const into = new Uint8Array(148);
    expect(writeInitiation(ciphers, initiator, weak, 1, transcript("Epriv_i"), transcript("timestamp"), into))
      .toBeUndefined();
  });
});

describe("response", () => {
  it("is the transcript's, octet by octet, and gives the transcript's keys", () => {
    const { response, secrets } = respond(transcript("msg1_initiation"));
    expect(toHex(response)).toBe(toHex(transcript("msg2_response")));
    expect(toHex(secrets.send)).toBe(toHex(transcript("T_send_responder")));
    expect(toHex(secrets.receive)).toBe(toHex(transcript("T_send_initiator")));
  });

  it("gives the initiator the same keys the other way round", () => {
    const secrets = read(initiate().sent, transcript("msg2_response"))!;
    expect(toHex(secrets.send)).toBe(toHex(transcript("T_send_initiator")));
    expect(toHex(secrets.receive)).toBe(toHex(transcript("T_send_responder")));
  });

  it("with any bit flipped does not authenticate, and the waiting initiation still takes the right one", () => {
    const { sent } = initiate();
    const notCovered = [[0, 12], [60, 92]] as const; // indices and macs are checked elsewhere
    for (let at = 0; at < 92; at++) {
      if (!isWhole(at, notCovered)) continue;
      const response = transcript("msg2_response");
      response[at]! ^= 0x08;
      expect(read(sent, response), `octet ${at}`).toBeUndefined();
    }
    expect(read(sent, transcript("msg2_response"))).toBeDefined();
  });

  it("made with another preshared key, or none, does not authenticate", () => {
    const { sent } = initiate();
    for (const psk of [transcript("Epriv_i"), undefined]) {
      const remote = makeRemoteKeys(ciphers, responder, initiator.publicKey, psk);
      const { response } = respond(transcript("msg1_initiation"), remote);
      expect(read(sent, response)).toBeUndefined();
    }
  });

  it("to another initiation does not authenticate", () => {
    const { sent } = initiate();
    const message = new Uint8Array(148);
    writeInitiation(
      ciphers,
      initiator,
      responderOfInitiator,
      INDEX_I,
      transcript("psk"),
      transcript("timestamp"),
      message,
    );
    expect(read(sent, respond(message).response)).toBeUndefined();
  });

  it("with a low-order ephemeral is refused", () => {
    expect(read(initiate().sent, transcript("msg2_response").fill(0, 12, 44))).toBeUndefined();
  });

  it("without a preshared key is the same as with 32 zero octets", () => {
    const none = makeRemoteKeys(ciphers, responder, initiator.publicKey, undefined);
    const zero = makeRemoteKeys(ciphers, responder, initiator.publicKey, new Uint8Array(32));
    const a = respond(transcript("msg1_initiation"), none).response;
    const b = respond(transcript("msg1_initiation"), zero).response;
    expect(toHex(a)).toBe(toHex(b));
    const mine = makeRemoteKeys(ciphers, initiator, responder.publicKey, undefined);
    expect(read(initiate().sent, a, mine)).toBeDefined();
  });
});

describe("secrets", () => {
  it("of a finished handshake are overwritten on both sides", () => {
    const { sent } = initiate();
    wipeInitiation(ciphers, sent);
    expect(toHex(sent.ephemeralSecret)).toMatch(/^0+$/);
    expect(toHex(sent.transcript.chainingKey)).toMatch(/^0+$/);
    const opened = open(transcript("msg1_initiation"))!;
    const ephemeral = transcript("Epriv_r");
    writeResponse(ciphers, opened, initiatorOfResponder, INDEX_R, ephemeral, new Uint8Array(92));
    expect(toHex(ephemeral)).toMatch(/^0+$/);
    expect(toHex(opened.transcript.chainingKey)).toMatch(/^0+$/);
  });
});

describe("transport keys", () => {
  it("seal and open the transcript's messages", () => {
    const { secrets } = respond(transcript("msg1_initiation"));
    const arena = new Uint8Array(256);
    const cipher = ciphers.packetCipher(arena);
    const keys = { in: ciphers.makeTransportKey(secrets.receive), out: ciphers.makeTransportKey(secrets.send) };
    const data = transcript("msg4_data_i_ctr1");
    arena.set(data);
    expect(cipher.open(keys.in, 8, 16, data.length)).toBe(true);
    const inner = transcript("inner_packet");
    expect(toHex(arena.subarray(16, 16 + inner.length))).toBe(toHex(inner));
    cipher.seal(keys.out, 0, 16, 16 + 48, 16);
    expect(toHex(arena.subarray(16, 16 + 64))).toBe(toHex(transcript("msg4_data_r_ctr0").subarray(16)));
  });
});
