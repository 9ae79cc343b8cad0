import { describe, expect, it } from "vitest";
import { makeArena } from "../../ffi/memory.ts";
import { loadSodium } from "../../ffi/sodium.ts";
import { noFfi, runtimeName } from "./harness.ts";

const KEY = Uint8Array.from({ length: 32 }, (_, i) => 13 * i + 5);
const NONE = new Uint8Array(0);
const COUNTER = 0x1_2345_6789;
const COUNTER_AT = 8;
const TAG_BYTES = 16;
const ARENA_BYTES = 24_576;

/** The reference is the AEAD in one call, which the handshake uses. */
function sealedInOneCall(plaintext: Uint8Array): Uint8Array {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setBigUint64(4, BigInt(COUNTER), true);
  return loadSodium().seal(KEY, nonce, plaintext, NONE);
}

function patterned() {
  const arena = makeArena(ARENA_BYTES);
  for (let i = 0; i < arena.length; i++) arena[i] = 31 * i + (i >> 8);
  new DataView(arena.buffer).setBigUint64(COUNTER_AT, BigInt(COUNTER), true);
  return { arena, cipher: loadSodium().packetCipher(arena), key: loadSodium().makeTransportKey(KEY) };
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

describe.skipIf(noFfi)(`ChaCha20-Poly1305 in a sweep on ${runtimeName}${noFfi}`, () => {
  it.each([
    ["of any short length", range(0, 530), 64],
    ["around a packet's", range(1340, 1490), 71],
    ["around the longest that it takes", range(10_230, 10_250), 500],
    ["too near the arena's start", [0, 15, 16, 192, 1408], 40],
  ])("gives and takes what the AEAD does for messages %s, and touches nothing else", (_, lengths, at) => {
    const { arena, cipher, key } = patterned();
    const before = arena.slice();
    for (const bytes of lengths) {
      const to = at + bytes + 7;
      const expected = before.slice();
      expected.set(sealedInOneCall(before.subarray(at, at + bytes)), to);
      cipher.seal(key, COUNTER, at, at + bytes, to);
      expect(Buffer.compare(arena, expected), `sealing ${bytes}`).toBe(0);
      expect(cipher.open(key, COUNTER_AT, to, to + bytes + TAG_BYTES), `opening ${bytes}`).toBe(true);
      arena.fill(0, to + bytes, to + bytes + TAG_BYTES);
      expected.set(before.subarray(at, at + bytes), to);
      expected.fill(0, to + bytes, to + bytes + TAG_BYTES);
      expect(Buffer.compare(arena, expected), `what ${bytes} open to`).toBe(0);
      arena.set(before);
    }
  });

  it("seals and opens up to the arena's last octet, and in place", () => {
    for (const bytes of [0, 16, 100, 192, 1408, 10_240]) {
      const { arena, cipher, key } = patterned();
      const end = ARENA_BYTES - TAG_BYTES;
      const at = end - bytes;
      const before = arena.slice();
      cipher.seal(key, COUNTER, at, end, at);
      expect(Buffer.compare(arena.subarray(at), sealedInOneCall(before.subarray(at, end)))).toBe(0);
      expect(Buffer.compare(arena.subarray(0, at), before.subarray(0, at))).toBe(0);
      expect(cipher.open(key, COUNTER_AT, at, ARENA_BYTES)).toBe(true);
      expect(Buffer.compare(arena.subarray(0, end), before.subarray(0, end))).toBe(0);
    }
  });

  it("refuses a message with any bit of its first and last octets, its tag or its counter turned", () => {
    const { arena, cipher, key } = patterned();
    const [at, bytes] = [640, 1408];
    cipher.seal(key, COUNTER, at, at + bytes, at);
    const sealed = arena.slice();
    const ends = [...range(at, at + 7), ...range(at + bytes - 8, at + bytes + TAG_BYTES - 1)];
    for (const octet of [...ends, COUNTER_AT, COUNTER_AT + 4]) {
      for (let bit = 0; bit < 8; bit++) {
        arena.set(sealed);
        arena[octet] = arena[octet]! ^ (1 << bit);
        expect(cipher.open(key, COUNTER_AT, at, at + bytes + TAG_BYTES)).toBe(false);
      }
    }
    arena.set(sealed);
    expect(cipher.open(key, COUNTER_AT, at, at + bytes + TAG_BYTES)).toBe(true);
  });
});
