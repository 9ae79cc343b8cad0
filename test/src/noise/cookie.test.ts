import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { loadSodiumWasm } from "../../../edge/ciphers_wasm.ts";
import { toHex } from "../../../src/bytes/text.ts";
import { COOKIE_LIFE_MS, CookieJar, CookieMaker, isMac1Valid } from "../../../src/noise/cookie.ts";
import { type LocalKeys, makeLocalKeys, makeRemoteKeys, type RemoteKeys } from "../../../src/noise/keys.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { octets, transcript } from "../../fakes/wireguard_vectors.ts";

const SENDER_INDEX = 0x01020304;
const OTHER_PORT = octets("c0000201ca6d");

let ciphers: Ciphers;
let responder: LocalKeys;
let remote: RemoteKeys;
let maker: CookieMaker;
let jar: CookieJar;
const source = () => transcript("cookie_src_bytes");

beforeAll(async () => {
  ciphers = await loadSodiumWasm();
  responder = makeLocalKeys(ciphers, transcript("Spriv_r"));
  remote = makeRemoteKeys(ciphers, makeLocalKeys(ciphers, transcript("Spriv_i")), responder.publicKey, undefined);
});
beforeEach(() => {
  const nonce = transcript("msg3_cookie_reply").subarray(8, 32);
  maker = new CookieMaker(
    ciphers,
    (into) => into.set(into.length === 24 ? nonce : transcript("cookie_secret_Rm")),
    responder,
  );
  jar = new CookieJar();
});

/** An initiation whose macs the jar has written. */
function send(nowMs = 0): Uint8Array {
  const message = transcript("msg1_initiation");
  message.fill(0xee, 116);
  jar.writeMacs(remote, message, nowMs);
  return message;
}

function reply(message: Uint8Array, nowMs = 0): Uint8Array {
  const into = new Uint8Array(64);
  maker.writeReply(message, SENDER_INDEX, source(), nowMs, into);
  return into;
}

const take = (cookie: Uint8Array, nowMs = 0) => jar.takeReply(ciphers, remote, cookie, nowMs);

describe("mac1", () => {
  it("is written as in the transcript, with a zero mac2 while there is no cookie", () => {
    expect(toHex(send())).toBe(toHex(transcript("msg1_initiation")));
  });

  it("holds for the genuine messages, and for none with a bit flipped before mac2", () => {
    expect(isMac1Valid(responder.mac1Key, transcript("msg1_initiation"))).toBe(true);
    for (let at = 0; at < 132; at++) {
      const message = transcript("msg1_initiation");
      message[at]! ^= 1;
      expect(isMac1Valid(responder.mac1Key, message)).toBe(false);
    }
  });

  it("does not hold for another receiver", () => {
    expect(isMac1Valid(remote.cookieKey, transcript("msg1_initiation"))).toBe(false);
  });
});

describe("cookie", () => {
  it("reply is the transcript's", () => {
    expect(toHex(reply(transcript("msg1_initiation")))).toBe(toHex(transcript("msg3_cookie_reply")));
  });

  it("taken from the reply makes the transcript's mac2, which the maker accepts", () => {
    send();
    expect(take(transcript("msg3_cookie_reply"))).toBe(true);
    const second = send();
    expect(toHex(second)).toBe(toHex(transcript("msg1_with_mac2")));
    expect(maker.isMac2Valid(second, source(), 0)).toBe(true);
  });

  it("of one source does not serve another address or port", () => {
    const message = transcript("msg1_with_mac2");
    expect(maker.isMac2Valid(message, OTHER_PORT, 0)).toBe(false);
    expect(maker.isMac2Valid(message, octets("c0000202ca6c"), 0)).toBe(false);
  });

  it("is not proved by mac2 of zeros, nor by one with a bit flipped", () => {
    expect(maker.isMac2Valid(transcript("msg1_initiation"), source(), 0)).toBe(false);
    const message = transcript("msg1_with_mac2");
    message[147]! ^= 1;
    expect(maker.isMac2Valid(message, source(), 0)).toBe(false);
  });

  it("reply to a message that is not the last one sent is refused", () => {
    const old = reply(send());
    const other = transcript("msg2_response");
    jar.writeMacs(remote, other, 0);
    expect(take(old)).toBe(false);
    expect(take(reply(other))).toBe(true);
  });

  it("reply is refused before anything was sent, and a second time", () => {
    expect(take(transcript("msg3_cookie_reply"))).toBe(false);
    const cookie = reply(send());
    expect(take(cookie)).toBe(true);
    expect(take(cookie)).toBe(false);
  });

  it("reply with any bit flipped from the nonce on is refused, and the genuine one still taken", () => {
    send();
    for (let at = 8; at < 64; at++) {
      const damaged = transcript("msg3_cookie_reply");
      damaged[at]! ^= 1;
      expect(take(damaged)).toBe(false);
    }
    expect(take(transcript("msg3_cookie_reply"))).toBe(true);
  });

  it("is used for 120 s and no longer", () => {
    take(reply(send()));
    expect(toHex(send(COOKIE_LIFE_MS - 1)).slice(-32)).not.toMatch(/^0+$/);
    expect(toHex(send(COOKIE_LIFE_MS)).slice(-32)).toMatch(/^0+$/);
  });

  it("changes with its secret every 120 s", () => {
    let draws = 0;
    const rotating = new CookieMaker(ciphers, (into) => into.fill(++draws), responder);
    const into = new Uint8Array(64);
    rotating.writeReply(send(), SENDER_INDEX, source(), 1000, into);
    expect(take(into, 1000)).toBe(true);
    const message = send(1000);
    expect(rotating.isMac2Valid(message, source(), 1000)).toBe(true);
    expect(rotating.isMac2Valid(message, source(), 1000 + COOKIE_LIFE_MS - 1)).toBe(true);
    expect(rotating.isMac2Valid(message, source(), 1000 + COOKIE_LIFE_MS)).toBe(false);
  });
});
