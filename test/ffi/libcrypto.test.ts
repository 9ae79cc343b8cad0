import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { withTransportAead } from "../../ffi/aead.ts";
import { loadLibcrypto, type TransportAead } from "../../ffi/libcrypto.ts";
import { loadSodium, makeArena } from "../../ffi/sodium.ts";
import { cipherSuite } from "../suites/ciphers.ts";
import { noFfi, runtimeName } from "./harness.ts";

const skipped = noFfi || reasonAgainstLibcrypto();

function reasonAgainstLibcrypto(): string {
  try {
    loadLibcrypto();
    return "";
  } catch (error) {
    return ` (skipped: ${(error as Error).message})`;
  }
}

describe.skipIf(skipped)(`libcrypto on ${runtimeName}${skipped}`, () => {
  cipherSuite(
    "libsodium's ciphers with libcrypto for transport data",
    () => Promise.resolve(withTransportAead(loadSodium(), loadLibcrypto())),
    makeArena,
  );

  it("says which library it is", () => {
    expect(loadLibcrypto().name).toMatch(/^libcrypto 3\.\d+\.\d+/);
  });

  it("packets that one library seals the other opens, and both seal to the same octets", () => {
    const here = makeArena(8192);
    const there = makeArena(8192);
    const [libcrypto, libsodium] = [loadLibcrypto(), loadSodium()];
    const [cryptoCipher, sodiumCipher] = [libcrypto.packetCipher(here), libsodium.packetCipher(there)];
    const key32 = fc.uint8Array({ minLength: 32, maxLength: 32 });
    const counters = fc.nat({ max: 2 ** 53 - 1 });
    fc.assert(
      fc.property(key32, counters, fc.nat(1500), fc.nat(500), fc.boolean(), (octets, counter, bytes, at, isInPlace) => {
        const [cryptoKey, sodiumKey] = [libcrypto.makeTransportKey(octets), libsodium.makeTransportKey(octets)];
        for (let i = 0; i < bytes; i++) here[at + i] = i * 13 + at;
        there.set(here);
        const plain = here.slice(at, at + bytes);
        const to = isInPlace ? at : at + 3000;
        cryptoCipher.seal(cryptoKey, counter, at, at + bytes, to);
        sodiumCipher.seal(sodiumKey, counter, at, at + bytes, to);
        expect(here).toEqual(there);
        for (const arena of [here, there]) new DataView(arena.buffer).setBigUint64(8184, BigInt(counter), true);
        expect(cryptoCipher.open(cryptoKey, 8184, to, to + bytes + 16)).toBe(true);
        expect(sodiumCipher.open(sodiumKey, 8184, to, to + bytes + 16)).toBe(true);
        expect(here.slice(to, to + bytes)).toEqual(plain);
        expect(there.slice(to, to + bytes)).toEqual(plain);
        cryptoKey.wipe();
        sodiumKey.wipe();
      }),
    );
  });

  it("a key of one library is refused by the other", () => {
    const arena = makeArena(64);
    const libraries: readonly Omit<TransportAead, "name">[] = [loadLibcrypto(), loadSodium()];
    for (const [own, other] of [libraries, [...libraries].reverse()]) {
      const key = other!.makeTransportKey(new Uint8Array(32));
      expect(() => own!.packetCipher(arena).seal(key, 0, 0, 16, 0)).toThrow("of other ciphers");
      expect(() => own!.packetCipher(arena).open(key, 0, 8, 40)).toThrow("of other ciphers");
    }
  });

  it("one key serves both directions, several arenas, and in turns with another key", () => {
    const libcrypto = loadLibcrypto();
    const arenas = [makeArena(256), makeArena(256)];
    const ciphers = arenas.map((arena) => libcrypto.packetCipher(arena));
    const keys = [1, 2].map((octet) => libcrypto.makeTransportKey(new Uint8Array(32).fill(octet)));
    for (let round = 0; round < 8; round++) {
      const [arena, cipher] = [arenas[round & 1]!, ciphers[round & 1]!];
      const [key, otherKey] = round & 2 ? keys : [...keys].reverse();
      arena.fill(round, 8, 108);
      arena.fill(0, 0, 8);
      arena[0] = round;
      cipher.seal(key!, round, 8, 108, 8);
      const sealed = arena.slice(8, 124);
      expect(cipher.open(otherKey!, 0, 8, 124)).toBe(false);
      arena.set(sealed, 8);
      expect(cipher.open(key!, 0, 8, 124)).toBe(true);
      expect(arena.subarray(8, 108).every((octet) => octet === round)).toBe(true);
    }
  });

  it("a key that is wiped before its first packet makes no context any more", () => {
    const cipher = loadLibcrypto().packetCipher(makeArena(64));
    const key = loadLibcrypto().makeTransportKey(new Uint8Array(32));
    key.wipe();
    expect(() => cipher.seal(key, 0, 0, 16, 0)).toThrow("Transport key is wiped");
    expect(() => cipher.open(key, 0, 8, 40)).toThrow("Transport key is wiped");
  });
});
