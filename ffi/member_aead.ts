/**
 * Finds out what this machine can seal with for other members, beside WireGuard's ChaCha20-Poly1305 (design decision D5): an AEAD
 * of libsodium that stands on AES instructions, gives the standards' answers, and is measured clearly faster than what seals
 * ChaCha20-Poly1305 here. Asked once, when the datapath starts; takes some milliseconds. Keys and nonces: `src/tunnel/aead.ts`.
 */
import { fromHex, toHex } from "../src/bytes/text.ts";
import type { AeadName, Ciphers } from "../src/ports.ts";
import { makeBootClock } from "./clock.ts";
import { makeArena } from "./memory.ts";
import { hasAesInstructions, sealOnce } from "./sodium.ts";

/** What members may seal with for each other beside ChaCha20-Poly1305. */
export type MemberAead = Exclude<AeadName, "chacha20poly1305">;

/** What the operator allows: any, only that one, or none. */
export type MemberAeadSetting = "auto" | MemberAead | "off";

/** What was found, for the member's record, the log and status. */
export interface MemberAeads {
  /** may be announced, best first */
  readonly aeads: readonly MemberAead[];
  /** "aegis128l 6.8x, aes256gcm 2.9x chacha20poly1305", "off (as set)", "off (the CPU has no AES instructions)" */
  readonly text: string;
}

/** Where functions and time come from; tests put fakes here. */
export interface MemberAeadDoors {
  hasAesInstructions(): boolean;
  /** One call with any nonce and associated data. */
  sealOnce: typeof sealOnce;
  /** Milliseconds with fractions. */
  nowMs(): number;
}

interface KnownAnswer {
  readonly key: string;
  readonly nonce: string;
  readonly associated: string;
  readonly plaintext: string;
  readonly sealed: string;
}

/** draft-irtf-cfrg-aegis-aead A.2.4 (test vector 3, tag of 256 bits); the GCM specification's test case 15 (McGrew and Viega). */
const ANSWERS: Readonly<Record<MemberAead, KnownAnswer>> = {
  aegis128l: {
    key: "10010000000000000000000000000000",
    nonce: "10000200000000000000000000000000",
    associated: "0001020304050607",
    plaintext: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    sealed: "79d94593d8c2119d7e8fd9b8fc77845c5c077a05b2528b6ac54b563aed8efe84" +
      "022cb796fe7e0ae1197525ff67e309484cfbab6528ddef89f17d74ef8ecd82b3",
  },
  aes256gcm: {
    key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
    nonce: "cafebabefacedbaddecaf888",
    associated: "",
    plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" +
      "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
    sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" +
      "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad" +
      "b094dac5d93471bdec1a502270e3cc6c",
  },
};

const NAMES: readonly MemberAead[] = ["aegis128l", "aes256gcm"];
/**
 * Long messages, so that few show what the cipher takes, not what a call takes: nothing is to be compiled for this, which would stay
 * in an idle member's memory (0.4 MB with packets of 1408 octets and as many calls as those need).
 */
const MEASURED_BYTES = 16_384;
/** The ciphers take turns; the first rounds warm up, and medians leave out what the machine did besides. */
const WARM_UP_ROUNDS = 2;
const ROUNDS = 7;
const PACKETS_PER_ROUND = 2;
/** Below this a second cipher is not worth having. AES instructions give three to seven times. */
const LEAST_GAIN = 1.25;
const COUNTER_AT = 0;
const PLAIN_AT = 64;
const LARGEST_TAG_BYTES = 32;

/**
 * Looks. With "auto" both are tried, with one name that one alone. Whatever speaks against one stands in the text; nothing throws.
 * @param ciphers what the datapath seals with: a gain is against its ChaCha20-Poly1305
 */
export function findMemberAeads(
  setting: MemberAeadSetting,
  ciphers: Ciphers,
  doors: MemberAeadDoors = { hasAesInstructions, sealOnce, nowMs: makeBootClock() },
): MemberAeads {
  if (setting === "off") return { aeads: [], text: "off (as set)" };
  if (!doors.hasAesInstructions()) return { aeads: [], text: "off (the CPU has no AES instructions)" };
  const aeads: MemberAead[] = [];
  const texts: string[] = [];
  for (const aead of setting === "auto" ? NAMES : [setting]) {
    const found = tryAead(aead, ciphers, doors);
    if (found.isGood) aeads.push(aead);
    texts.push(`${aead} ${found.text}`);
  }
  return { aeads, text: aeads.length > 0 ? texts.join(", ") : `off (${texts.join(", ")})` };
}

function tryAead(aead: MemberAead, ciphers: Ciphers, doors: MemberAeadDoors): { isGood: boolean; text: string } {
  try {
    if (!givesKnownAnswer(aead, doors)) return { isGood: false, text: "failed its self-test" };
    const gain = measureGain(aead, ciphers, doors);
    const text = `${(Math.floor(gain * 10) / 10).toFixed(1)}x chacha20poly1305`;
    return gain >= LEAST_GAIN ? { isGood: true, text } : { isGood: false, text: `is only ${text}` };
  } catch (error) {
    return { isGood: false, text: `failed its self-test: ${error instanceof Error ? error.message : String(error)}` };
  }
}

function givesKnownAnswer(aead: MemberAead, doors: MemberAeadDoors): boolean {
  const { key, nonce, plaintext, associated, sealed } = ANSWERS[aead];
  const octets = [key, nonce, plaintext, associated].map((text) => fromHex(text)!);
  return toHex(doors.sealOnce(aead, octets[0]!, octets[1]!, octets[2]!, octets[3]!)) === sealed;
}

/** How many times as many packets, sealed and opened again, in the same time. 0 when the clock is too coarse to say. */
function measureGain(aead: MemberAead, ciphers: Ciphers, doors: MemberAeadDoors): number {
  const arena = makeArena(PLAIN_AT + MEASURED_BYTES + LARGEST_TAG_BYTES);
  const cipher = ciphers.packetCipher(arena);
  const secret = Uint8Array.from({ length: 32 }, (_, i) => 7 * i + 1);
  const keys = [
    ciphers.makeTransportKey(secret),
    ciphers.makeTransportKey(aead === "aegis128l" ? secret.subarray(0, 16) : secret, aead),
  ];
  const times: number[][] = [[], []];
  for (let round = 0; round < WARM_UP_ROUNDS + ROUNDS; round++) {
    for (const [i, key] of keys.entries()) {
      const startMs = doors.nowMs();
      for (let packet = 0; packet < PACKETS_PER_ROUND; packet++) {
        cipher.seal(key, 0, PLAIN_AT, PLAIN_AT + MEASURED_BYTES, PLAIN_AT);
        if (!cipher.open(key, COUNTER_AT, PLAIN_AT, PLAIN_AT + MEASURED_BYTES + key.tagBytes)) {
          throw new Error("it does not open");
        }
      }
      if (round >= WARM_UP_ROUNDS) times[i]!.push(doors.nowMs() - startMs);
    }
  }
  for (const key of keys) key.wipe();
  const [chachaMs, memberMs] = times.map(median);
  return chachaMs! > 0 && memberMs! > 0 ? chachaMs! / memberMs! : 0;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}
