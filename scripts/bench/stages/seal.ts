/** The stage "seal" of `micro.ts`: sealing and opening a message in place, with every AEAD and library that this machine has. */
import { loadLibcrypto, type TransportAead } from "../../../ffi/libcrypto.ts";
import { makeArena } from "../../../ffi/memory.ts";
import { loadSodium } from "../../../ffi/sodium.ts";
import type { PacketCipher, TransportKey } from "../../../src/ports.ts";
import type { Measure } from "./measure.ts";

/** a full message of a link with 1500, a small packet in Geneve */
const SIZES = [1408, 144] as const;
const SLOT = 2048;
const SLOTS = 32;

export function benchSeal(measure: Measure): void {
  const sodium = loadSodium();
  const arena = makeArena(SLOT * SLOTS);
  const cipher = sodium.packetCipher(arena);
  for (const aead of sodium.aeads) {
    const key = sodium.makeTransportKey(new Uint8Array(aead === "aegis128l" ? 16 : 32).fill(7), aead);
    benchKey(measure, `libsodium ${aead}`, arena, cipher, key);
  }
  let libcrypto: TransportAead;
  try {
    libcrypto = loadLibcrypto();
  } catch (error) {
    console.log(`seal without libcrypto: ${(error as Error).message}`);
    return;
  }
  const key = libcrypto.makeTransportKey(new Uint8Array(32).fill(7));
  benchKey(measure, `libcrypto ${key.aead}`, arena, libcrypto.packetCipher(arena), key);
}

function benchKey(measure: Measure, name: string, arena: Uint8Array, cipher: PacketCipher, key: TransportKey): void {
  // one slot keeps a sealed message, which is copied for each opening: that is in the figure, as a memory's move of it
  for (const size of SIZES) {
    measure(`seal ${size} octets, ${name}`, 100_000, (count) => {
      for (let i = 0; i < count; i++) {
        const at = (i & (SLOTS - 1)) * SLOT + 64;
        cipher.seal(key, i, at, at + size, at);
      }
      return arena[64]!;
    });
    const sealedAt = 64;
    arena.fill(0, 8, 16); // the counter that `open` reads
    cipher.seal(key, 0, sealedAt, sealedAt + size, sealedAt);
    const end = sealedAt + size + key.tagBytes;
    measure(`open ${size} octets, ${name} + copy`, 100_000, (count) => {
      let opened = 0;
      for (let i = 0; i < count; i++) {
        const at = (1 + (i % (SLOTS - 1))) * SLOT;
        arena.copyWithin(at, sealedAt, end);
        if (cipher.open(key, 8, at, at + end - sealedAt)) opened++;
      }
      if (opened !== count) throw new Error(`Cannot open what was sealed with ${name}`);
      return opened;
    });
  }
}
