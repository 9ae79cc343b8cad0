/**
 * One suite over every implementation of `Ciphers` and `PacketCipher`. Vectors: `test/vectors/ciphers.json`.
 */
import { createCipheriv } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import sodium from "libsodium-wrappers";
import { beforeAll, describe, expect, it } from "vitest";
import { fromHex, toHex } from "../../src/bytes/text.ts";
import type { AeadName, Ciphers, PacketCipher } from "../../src/ports.ts";

interface AeadVector {
  readonly source: string;
  readonly key: string;
  readonly nonce: string;
  readonly associated: string;
  readonly plaintext: string;
  readonly sealed: string;
}

interface Vectors {
  readonly chacha20poly1305: readonly AeadVector[];
  readonly xchacha20poly1305: readonly AeadVector[];
  readonly aegis128l: readonly AeadVector[];
  readonly aes256gcm: readonly AeadVector[];
  readonly x25519: readonly { source: string; secret: string; public: string; shared: string }[];
  readonly x25519Base: readonly { source: string; secret: string; public: string }[];
  readonly x25519LowOrder: readonly string[];
  readonly ed25519: readonly { source: string; seed: string; public: string; message: string; signature: string }[];
}

export const vectors = JSON.parse(readFileSync(new URL("../vectors/ciphers.json", import.meta.url), "utf8")) as Vectors;

export function bytesOf(hex: string): Uint8Array {
  const bytes = fromHex(hex);
  if (bytes === undefined) throw new SyntaxError(`Vector is not hexadecimal: ${hex}`);
  return bytes;
}

const none = new Uint8Array(0);
const key = Uint8Array.from({ length: 32 }, (_, i) => i);

/** Every copy of `bytes` with one bit flipped, for as many bits as there are octets. */
function* flipped(bytes: Uint8Array): Generator<Uint8Array> {
  for (let i = 0; i < bytes.length; i++) {
    const copy = bytes.slice();
    copy[i] = copy[i]! ^ (1 << (i % 8));
    yield copy;
  }
}

/**
 * @param arenaOf makes the arena that the implementation's packet cipher works in
 * @param lacks   what no machine has of this implementation
 */
export function cipherSuite(
  name: string,
  make: () => Promise<Ciphers>,
  arenaOf: (bytes: number) => Uint8Array,
  lacks: readonly AeadName[] = [],
): void {
  describe(name, () => {
    let ciphers: Ciphers;
    beforeAll(async () => {
      ciphers = await make();
    });

    for (const kind of ["chacha20poly1305", "xchacha20poly1305"] as const) {
      for (const vector of vectors[kind]) {
        it(`${kind} gives the answer of ${vector.source}, and opens it`, () => {
          const seal = kind === "chacha20poly1305" ? "seal" : "sealX";
          const open = kind === "chacha20poly1305" ? "open" : "openX";
          const [k, n, a, p] = [vector.key, vector.nonce, vector.associated, vector.plaintext].map(bytesOf);
          const sealed = ciphers[seal](k!, n!, p!, a!);
          expect(toHex(sealed)).toBe(vector.sealed);
          expect(ciphers[open](k!, n!, sealed, a!)).toEqual(p);
        });
        it(`${kind} refuses ${vector.source} with any octet of it damaged`, () => {
          const open = kind === "chacha20poly1305" ? "open" : "openX";
          const [k, n, a, s] = [vector.key, vector.nonce, vector.associated, vector.sealed].map(bytesOf);
          for (const bad of flipped(s!)) expect(ciphers[open](k!, n!, bad, a!)).toBeUndefined();
          for (const bad of flipped(a!)) expect(ciphers[open](k!, n!, s!, bad)).toBeUndefined();
          for (const bad of flipped(n!)) expect(ciphers[open](k!, bad, s!, a!)).toBeUndefined();
          for (const bad of flipped(k!)) expect(ciphers[open](bad, n!, s!, a!)).toBeUndefined();
        });
      }
    }

    it("an empty plaintext seals to a tag that opens to nothing, and less than a tag does not open", () => {
      const nonce = new Uint8Array(12);
      const sealed = ciphers.seal(key, nonce, none, none);
      expect(sealed.length).toBe(16);
      expect(ciphers.open(key, nonce, sealed, none)).toEqual(none);
      expect(ciphers.open(key, nonce, sealed.subarray(0, 15), none)).toBeUndefined();
      expect(ciphers.openX(key, new Uint8Array(24), none, none)).toBeUndefined();
    });

    it("arguments may be views into the middle of a larger array, and are not changed", () => {
      const room = Uint8Array.from({ length: 200 }, (_, i) => i);
      const before = room.slice();
      const nonce = room.subarray(3, 15);
      const sealed = ciphers.seal(room.subarray(40, 72), nonce, room.subarray(100, 151), room.subarray(160, 167));
      expect(room).toEqual(before);
      expect(sealed).toEqual(
        ciphers.seal(room.slice(40, 72), room.slice(3, 15), room.slice(100, 151), room.slice(160, 167)),
      );
      expect(ciphers.open(room.subarray(40, 72), nonce, sealed, room.subarray(160, 167))).toEqual(room.slice(100, 151));
    });

    it("keys and nonces of another length are refused with a RangeError", () => {
      expect(() => ciphers.seal(key.subarray(1), new Uint8Array(12), none, none)).toThrow(RangeError);
      expect(() => ciphers.seal(key, new Uint8Array(11), none, none)).toThrow(RangeError);
      expect(() => ciphers.openX(key, new Uint8Array(12), new Uint8Array(16), none)).toThrow(RangeError);
      expect(() => ciphers.dh(key.subarray(1), key)).toThrow(RangeError);
      expect(() => ciphers.publicKeyOf(new Uint8Array(33))).toThrow(RangeError);
      expect(() => ciphers.makeTransportKey(new Uint8Array(16))).toThrow(RangeError);
      expect(() => ciphers.sign(new Uint8Array(63), none)).toThrow(RangeError);
    });

    for (const vector of vectors.x25519) {
      it(`dh gives the answer of ${vector.source}`, () => {
        expect(toHex(ciphers.dh(bytesOf(vector.secret), bytesOf(vector.public)) ?? none)).toBe(vector.shared);
      });
    }
    for (const vector of vectors.x25519Base) {
      it(`publicKeyOf gives the answer of ${vector.source}`, () => {
        expect(toHex(ciphers.publicKeyOf(bytesOf(vector.secret)))).toBe(vector.public);
      });
    }
    it.each(vectors.x25519LowOrder)("dh with the low-order point %s gives nothing", (point) => {
      expect(ciphers.dh(key, bytesOf(point))).toBeUndefined();
    });

    for (const vector of vectors.ed25519) {
      it(`sign and verify give the answers of ${vector.source}, from seed and from whole key`, () => {
        const [seed, publicKey, message] = [vector.seed, vector.public, vector.message].map(bytesOf);
        const signature = ciphers.sign(seed!, message!);
        expect(toHex(signature)).toBe(vector.signature);
        expect(ciphers.sign(bytesOf(vector.seed + vector.public), message!)).toEqual(signature);
        expect(ciphers.verify(publicKey!, message!, signature)).toBe(true);
        for (const bad of flipped(signature)) expect(ciphers.verify(publicKey!, message!, bad)).toBe(false);
        expect(ciphers.verify(publicKey!, Uint8Array.of(...message!, 0), signature)).toBe(false);
        expect(ciphers.verify(publicKey!, message!, signature.subarray(0, 63))).toBe(false);
        expect(ciphers.verify(publicKey!.subarray(0, 31), message!, signature)).toBe(false);
      });
    }

    it("wipe overwrites exactly the octets it is given", () => {
      const bytes = new Uint8Array(40).fill(7);
      ciphers.wipe(bytes.subarray(4, 36));
      expect([...bytes]).toEqual([7, 7, 7, 7, ...new Array(32).fill(0), 7, 7, 7, 7]);
    });

    packetCipherCases(() => ciphers, arenaOf);
    for (const aead of ["aegis128l", "aes256gcm"] as const) {
      if (!lacks.includes(aead)) memberAeadCases(aead, () => ciphers, arenaOf);
      else it(`has no ${aead}, and says so`, () => expect(ciphers.aeads).not.toContain(aead));
    }
  });
}

/** Sealed by somebody else: libsodium as WebAssembly, and the runtime's own AES-GCM. */
function sealedElsewhere(
  aead: AeadName,
  octets: Uint8Array,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  associated: Uint8Array,
): Uint8Array {
  if (aead === "aegis128l") return sodium.crypto_aead_aegis128l_encrypt(plaintext, associated, null, nonce, octets);
  const cipher = createCipheriv("aes-256-gcm", octets, nonce);
  cipher.setAAD(associated);
  return new Uint8Array(Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]));
}

/** The AEADs of members, on packets. Where the implementation has one not, it must say so. */
function memberAeadCases(
  aead: "aegis128l" | "aes256gcm",
  of: () => Ciphers,
  arenaOf: (bytes: number) => Uint8Array,
): void {
  const octets = key.subarray(0, aead === "aegis128l" ? 16 : 32);
  const tagBytes = aead === "aegis128l" ? 32 : 16;
  const nonceBytes = aead === "aegis128l" ? 16 : 12;
  const make = () => of().makeTransportKey(octets, aead);

  /** The counter is the nonce's last 8 octets, little endian; zeros before. */
  function nonceOf(counter: number): Uint8Array {
    const nonce = new Uint8Array(nonceBytes);
    new DataView(nonce.buffer).setBigUint64(nonceBytes - 8, BigInt(counter), true);
    return nonce;
  }

  function withPattern(bytes: number): { arena: Uint8Array; cipher: PacketCipher } {
    const arena = arenaOf(bytes);
    for (let i = 0; i < arena.length; i++) arena[i] = 7 * i + 3;
    return { arena, cipher: of().packetCipher(arena) };
  }

  it(`${aead}: what seals it elsewhere gives the standard's answers`, async () => {
    await sodium.ready;
    for (const vector of vectors[aead]) {
      const [k, n, p, a] = [vector.key, vector.nonce, vector.plaintext, vector.associated].map(bytesOf);
      expect(toHex(sealedElsewhere(aead, k!, n!, p!, a!))).toBe(vector.sealed);
    }
  });

  it(`${aead} on packets: the same octets as elsewhere under every counter, and they open`, (context) => {
    if (!of().aeads.includes(aead)) return context.skip("not to be had here");
    for (const counter of [0, 1, 255, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1]) {
      for (const bytes of [0, 1, 31, 32, 33, 1404, 1408]) {
        for (const to of [101, 2000]) {
          const { arena, cipher } = withPattern(4096);
          const before = arena.slice();
          const transportKey = make();
          cipher.seal(transportKey, counter, 101, 101 + bytes, to);
          const expected = sealedElsewhere(aead, octets, nonceOf(counter), before.slice(101, 101 + bytes), none);
          expect(arena.subarray(to, to + bytes + tagBytes)).toEqual(expected);
          expect(arena.subarray(0, 101)).toEqual(before.subarray(0, 101));
          expect(arena.subarray(to + bytes + tagBytes)).toEqual(before.subarray(to + bytes + tagBytes));
          new DataView(arena.buffer, arena.byteOffset).setBigUint64(3901, BigInt(counter), true);
          expect(cipher.open(transportKey, 3901, to, to + bytes + tagBytes)).toBe(true);
          expect(arena.subarray(to, to + bytes)).toEqual(before.subarray(101, 101 + bytes));
        }
      }
    }
  });

  it(`${aead} on packets refuses any damage, another counter, another cipher's key and less than a tag`, (context) => {
    if (!of().aeads.includes(aead)) return context.skip("not to be had here");
    const { arena, cipher } = withPattern(512);
    const transportKey = make();
    expect(transportKey).toMatchObject({ aead, tagBytes });
    arena.fill(0, 0, 8);
    arena[0] = 9;
    cipher.seal(transportKey, 9, 16, 80, 16);
    const end = 80 + tagBytes;
    const sealed = arena.slice(16, end);
    for (const bad of flipped(sealed)) {
      arena.set(bad, 16);
      expect(cipher.open(transportKey, 0, 16, end)).toBe(false);
    }
    for (let at = 0; at < 8; at++) {
      arena.set(sealed, 16);
      arena[at] = arena[at]! ^ 0x40;
      expect(cipher.open(transportKey, 0, 16, end)).toBe(false);
      arena[at] = arena[at]! ^ 0x40;
    }
    for (const other of of().aeads.filter((name) => name !== aead)) {
      arena.set(sealed, 16);
      const otherKey = of().makeTransportKey(other === "aegis128l" ? key.subarray(0, 16) : key, other);
      expect(cipher.open(otherKey, 0, 16, end)).toBe(false);
    }
    expect(cipher.open(transportKey, 0, 16, 16 + tagBytes - 1)).toBe(false);
    expect(cipher.open(transportKey, 0, 31, 16)).toBe(false);
    arena.set(sealed, 16);
    expect(cipher.open(transportKey, 0, 16, end)).toBe(true);
  });

  it(`${aead}: a key is a copy of the right length that a wipe ends, and the arena's end holds`, (context) => {
    if (!of().aeads.includes(aead)) {
      expect(() => make()).toThrow(`Cannot use ${aead}`);
      return context.skip("not to be had here");
    }
    const { arena, cipher } = withPattern(256);
    const original = octets.slice();
    const transportKey = of().makeTransportKey(original, aead);
    original.fill(0);
    const before = arena.slice(0, 32);
    cipher.seal(transportKey, 0, 0, 32, 0);
    expect(arena.slice(0, 32 + tagBytes)).toEqual(sealedElsewhere(aead, octets, nonceOf(0), before, none));
    cipher.seal(transportKey, 0, 100, 256 - tagBytes, 100);
    expect(() => cipher.seal(transportKey, 0, 100, 256 - tagBytes + 1, 100)).toThrow(RangeError);
    expect(() => cipher.open(transportKey, 0, 100, 257)).toThrow(RangeError);
    transportKey.wipe();
    expect(() => cipher.seal(transportKey, 0, 0, 32, 0)).toThrow("Transport key is wiped");
    expect(() => cipher.open(transportKey, 0, 0, 80)).toThrow("Transport key is wiped");
    expect(() => of().makeTransportKey(key.subarray(1), aead)).toThrow(RangeError);
    expect(() => of().makeTransportKey(new Uint8Array(aead === "aegis128l" ? 32 : 16), aead)).toThrow(RangeError);
  });
}

function packetCipherCases(of: () => Ciphers, arenaOf: (bytes: number) => Uint8Array): void {
  /** WireGuard's nonce */
  function nonceOf(counter: number): Uint8Array {
    const nonce = new Uint8Array(12);
    new DataView(nonce.buffer).setBigUint64(4, BigInt(counter), true);
    return nonce;
  }

  function arenaWithPattern(bytes: number): { arena: Uint8Array; cipher: PacketCipher } {
    const arena = arenaOf(bytes);
    for (let i = 0; i < arena.length; i++) arena[i] = 7 * i + 3;
    return { arena, cipher: of().packetCipher(arena) };
  }

  const counters = [0, 1, 255, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1];

  it.each(counters)("packet seal in place under counter %d is ChaCha20-Poly1305 under WireGuard's nonce", (counter) => {
    const { arena, cipher } = arenaWithPattern(4096);
    const before = arena.slice();
    const transportKey = of().makeTransportKey(key);
    cipher.seal(transportKey, counter, 101, 1501, 101);
    expect(arena.subarray(101, 1517)).toEqual(of().seal(key, nonceOf(counter), before.slice(101, 1501), none));
    expect(arena.subarray(0, 101)).toEqual(before.subarray(0, 101));
    expect(arena.subarray(1517)).toEqual(before.subarray(1517));

    new DataView(arena.buffer, arena.byteOffset).setBigUint64(3001, BigInt(counter), true);
    expect(cipher.open(transportKey, 3001, 101, 1517)).toBe(true);
    expect(arena.subarray(101, 1501)).toEqual(before.subarray(101, 1501));
  });

  it("packet seal to another place leaves the source as it was", () => {
    const { arena, cipher } = arenaWithPattern(4096);
    const before = arena.slice();
    cipher.seal(of().makeTransportKey(key), 5, 10, 600, 1000);
    expect(arena.subarray(1000, 1606)).toEqual(of().seal(key, nonceOf(5), before.slice(10, 600), none));
    expect(arena.subarray(0, 1000)).toEqual(before.subarray(0, 1000));
    expect(arena.subarray(1606)).toEqual(before.subarray(1606));
  });

  it("packet seal and open reach the last octet of the arena, and refuse to go beyond", () => {
    const { arena, cipher } = arenaWithPattern(256);
    const transportKey = of().makeTransportKey(key);
    arena.fill(0, 0, 8);
    cipher.seal(transportKey, 0, 100, 240, 100);
    expect(cipher.open(transportKey, 0, 100, 256)).toBe(true);
    for (
      const [at, end, to] of [[100, 241, 100], [-1, 20, 0], [30, 20, 0], [0, 257, 0], [0, 10, 231], [0, 10, -1], [
        NaN,
        10,
        0,
      ]] as const
    ) {
      expect(() => cipher.seal(transportKey, 0, at, end, to)).toThrow(RangeError);
    }
    expect(() => cipher.open(transportKey, 0, 100, 257)).toThrow(RangeError);
    expect(() => cipher.open(transportKey, 249, 100, 256)).toThrow(RangeError);
    expect(() => cipher.open(transportKey, -1, 100, 256)).toThrow(RangeError);
  });

  it("packet open refuses a damaged message, a wrong counter and less than a tag", () => {
    const { arena, cipher } = arenaWithPattern(512);
    const transportKey = of().makeTransportKey(key);
    arena.fill(0, 0, 8);
    arena[0] = 9;
    cipher.seal(transportKey, 9, 16, 80, 16);
    const sealed = arena.slice(16, 96);
    for (const bad of flipped(sealed)) {
      arena.set(bad, 16);
      expect(cipher.open(transportKey, 0, 16, 96)).toBe(false);
    }
    arena.set(sealed, 16);
    arena[7] = 1;
    expect(cipher.open(transportKey, 0, 16, 96)).toBe(false);
    arena[7] = 0;
    arena.set(sealed, 16);
    expect(cipher.open(transportKey, 0, 16, 31)).toBe(false);
    expect(cipher.open(transportKey, 0, 31, 16)).toBe(false);
    arena.set(sealed, 16);
    expect(cipher.open(transportKey, 0, 16, 96)).toBe(true);
  });

  it("an empty packet (keepalive) seals to a tag and opens", () => {
    const { arena, cipher } = arenaWithPattern(64);
    const transportKey = of().makeTransportKey(key);
    arena.fill(0, 0, 8);
    cipher.seal(transportKey, 0, 32, 32, 32);
    expect(arena.slice(32, 48)).toEqual(of().seal(key, nonceOf(0), none, none));
    expect(cipher.open(transportKey, 0, 32, 48)).toBe(true);
  });

  it("a transport key is a copy, and cannot be used after its wipe, nor can what is no key of ours", () => {
    const { arena, cipher } = arenaWithPattern(256);
    const original = key.slice();
    const transportKey = of().makeTransportKey(original);
    original.fill(0);
    const before = arena.slice(0, 32);
    cipher.seal(transportKey, 0, 0, 32, 0);
    expect(arena.slice(0, 48)).toEqual(of().seal(key, nonceOf(0), before, none));
    transportKey.wipe();
    expect(() => cipher.seal(transportKey, 0, 0, 32, 0)).toThrow("Transport key is wiped");
    expect(() => cipher.open(transportKey, 0, 0, 32)).toThrow("Transport key is wiped");
    expect(() => cipher.seal({ aead: "chacha20poly1305", tagBytes: 16, wipe: () => undefined }, 0, 0, 32, 0)).toThrow(
      "of other ciphers",
    );
    transportKey.wipe(); // twice does no harm
  });

  it("what is sealed opens to what it was, at any place and of any length", () => {
    const { arena, cipher } = arenaWithPattern(8192);
    const transportKey = of().makeTransportKey(key);
    fc.assert(fc.property(
      fc.nat(2000),
      fc.nat(1500),
      fc.nat({ max: 2 ** 53 - 1 }),
      fc.boolean(),
      (at, bytes, counter, isInPlace) => {
        const plain = arena.slice(at, at + bytes);
        const to = isInPlace ? at : 4000 + at;
        cipher.seal(transportKey, counter, at, at + bytes, to);
        new DataView(arena.buffer, arena.byteOffset).setBigUint64(8000, BigInt(counter), true);
        expect(cipher.open(transportKey, 8000, to, to + bytes + 16)).toBe(true);
        expect(arena.subarray(to, to + bytes)).toEqual(plain);
      },
    ));
  });
}
