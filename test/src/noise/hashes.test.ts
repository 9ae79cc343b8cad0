import { describe, expect, it } from "vitest";
import { hash, hmac, kdf, mac } from "../../../src/noise/hashes.ts";
import { toHex } from "../../../src/bytes/text.ts";
import { octets, vectors } from "../../fakes/wireguard_vectors.ts";

describe("hashes of WireGuard", () => {
  it("hashes as the vectors say, in one piece and in two", () => {
    expect(vectors.blake2s.hash).toHaveLength(6);
    for (const [input, result] of vectors.blake2s.hash) {
      const bytes = octets(input!);
      expect(toHex(hash(bytes))).toBe(result);
      const cut = bytes.length >> 1;
      expect(toHex(hash(bytes.subarray(0, cut), bytes.subarray(cut)))).toBe(result);
    }
  });

  it("makes 16 octets of keyed MAC as the vectors say", () => {
    for (const [key, message, result] of vectors.blake2s.mac) {
      expect(toHex(mac(octets(key!), octets(message!)))).toBe(result);
    }
  });

  it("makes an HMAC as the vectors say, with keys shorter than a block, equal to it, and none", () => {
    for (const [key, message, result] of vectors.blake2s.hmac) {
      expect(toHex(hmac(octets(key!), octets(message!)))).toBe(result);
    }
  });

  it("derives one, two and three keys as wireguard-go does", () => {
    for (const [key, input, ...results] of vectors.blake2s.kdf) {
      for (const count of [1, 2, 3] as const) {
        expect(kdf(count, octets(key!), octets(input!)).map(toHex)).toEqual(results.slice(0, count));
      }
    }
  });
});
