import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { loadSodiumWasm } from "../../edge/ciphers_wasm.ts";
import { readNativeLibrary } from "../../ffi/native.ts";
import { toHex } from "../../src/bytes/text.ts";
import { loadSodium, makeArena, randomBytes, sealOnce, sodiumVersion } from "../../ffi/sodium.ts";
import type { Ciphers } from "../../src/ports.ts";
import { bytesOf, cipherSuite, vectors } from "../suites/ciphers.ts";
import { noFfi, runtimeName } from "./harness.ts";

describe.skipIf(noFfi)(`libsodium on ${runtimeName}${noFfi}`, () => {
  cipherSuite("ciphers through FFI", () => Promise.resolve(loadSodium()), makeArena);

  it("is the release that ffi/native/CHECKSUMS names, octet for octet", () => {
    const text = readFileSync(new URL("../../ffi/native/CHECKSUMS", import.meta.url), "utf8");
    expect(text).toContain(`# libsodium ${sodiumVersion()},`);
    for (const cpu of ["arm64", "x64"]) {
      const name = `libsodium-linux-${cpu}.so`;
      const library = readFileSync(new URL(`../../ffi/native/${name}`, import.meta.url));
      expect(text).toContain(`${createHash("sha256").update(library).digest("hex")}  ${name}\n`);
      // ELF, 64 bits, little endian; machine 183 is AArch64, 62 is x86-64
      expect([...library.subarray(0, 6)]).toEqual([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
      expect(library.readUInt16LE(18)).toBe(cpu === "arm64" ? 183 : 62);
      if (process.arch === cpu) expect(library.equals(readNativeLibrary())).toBe(true);
    }
  });

  for (const aead of ["aegis128l", "aes256gcm"] as const) {
    for (const vector of vectors[aead]) {
      it(`sealOnce gives the answer of ${vector.source}`, (context) => {
        if (!loadSodium().aeads.includes(aead)) return context.skip("the CPU has no AES instructions");
        const [k, n, p, a] = [vector.key, vector.nonce, vector.plaintext, vector.associated].map(bytesOf);
        expect(toHex(sealOnce(aead, k!, n!, p!, a!))).toBe(vector.sealed);
        expect(() => sealOnce(aead, k!, n!.subarray(1), p!, a!)).toThrow(RangeError);
      });
    }
  }

  it("randomBytes fills exactly what it is given, differently each time", () => {
    const bytes = new Uint8Array(96);
    randomBytes(bytes.subarray(16, 80));
    expect(bytes.subarray(0, 16).every((octet) => octet === 0)).toBe(true);
    expect(bytes.subarray(80).every((octet) => octet === 0)).toBe(true);
    const again = new Uint8Array(64);
    randomBytes(again);
    expect(again).not.toEqual(bytes.slice(16, 80));
    expect(new Set(again).size).toBeGreaterThan(16);
    randomBytes(new Uint8Array(0));
  });

  describe("against the same library as WebAssembly", () => {
    let native: Ciphers;
    let wasm: Ciphers;
    beforeAll(async () => {
      native = loadSodium();
      wasm = await loadSodiumWasm();
    });
    const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });

    it("both give the same public keys, shared secrets and signatures", () => {
      fc.assert(fc.property(bytes32, bytes32, fc.uint8Array({ maxLength: 300 }), (a, b, message) => {
        const publicKey = native.publicKeyOf(a);
        expect(publicKey).toEqual(wasm.publicKeyOf(a));
        expect(native.dh(b, publicKey)).toEqual(wasm.dh(b, publicKey));
        expect(native.dh(a, b)).toEqual(wasm.dh(a, b));
        const signature = native.sign(a, message);
        expect(signature).toEqual(wasm.sign(a, message));
        expect(native.verify(b, message, signature)).toBe(wasm.verify(b, message, signature));
      }));
    });

    it("what one seals the other opens", () => {
      const nonce = fc.uint8Array({ minLength: 12, maxLength: 12 });
      const nonceX = fc.uint8Array({ minLength: 24, maxLength: 24 });
      const data = fc.uint8Array({ maxLength: 3000 });
      fc.assert(fc.property(bytes32, nonce, nonceX, data, data, (key, n, nX, plain, associated) => {
        const sealed = native.seal(key, n, plain, associated);
        expect(sealed).toEqual(wasm.seal(key, n, plain, associated));
        expect(wasm.open(key, n, sealed, associated)).toEqual(plain);
        const sealedX = wasm.sealX(key, nX, plain, associated);
        expect(native.openX(key, nX, sealedX, associated)).toEqual(plain);
      }));
    });

    it("packets that one seals the other opens", () => {
      const here = makeArena(4096);
      const there = makeArena(4096);
      const [sealing, opening] = [native.packetCipher(here), wasm.packetCipher(there)];
      fc.assert(
        fc.property(bytes32, fc.nat({ max: 2 ** 53 - 1 }), fc.nat(1500), fc.nat(500), (key, counter, bytes, at) => {
          for (let i = 0; i < bytes; i++) here[at + i] = i * 13 + at;
          const plain = here.slice(at, at + bytes);
          sealing.seal(native.makeTransportKey(key), counter, at, at + bytes, at);
          there.set(here);
          new DataView(there.buffer).setBigUint64(4088, BigInt(counter), true);
          expect(opening.open(wasm.makeTransportKey(key), 4088, at, at + bytes + 16)).toBe(true);
          expect(there.slice(at, at + bytes)).toEqual(plain);
        }),
      );
    });
  });
});
