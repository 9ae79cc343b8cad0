/**
 * Join challenges that cost the hub no memory: each carries its time and a mac of the hub's own, so anybody may ask for as many
 * as he likes. Only those are remembered that were answered with a valid proof, for as long as they could be used again.
 *
 *     0   6   Unix milliseconds when it was made
 *     6   10  random
 *     16  16  HMAC-SHA256 over the octets before, by a key that dies with the process; cut to 16
 */
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { equalConstantTime } from "../bytes/compare.ts";
import { toHex } from "../bytes/text.ts";
import type { RandomBytes } from "../ports.ts";
import { CHALLENGE_BYTES } from "./join.ts";

export const CHALLENGE_MS = 120_000;
const MAC_AT = 16;
const MAX_USED = 65_536;

/** What a challenge in a request is worth. */
export type ChallengeState = "fresh" | "used" | "stale";

export class Challenges {
  readonly #key = new Uint8Array(32);
  readonly #random: RandomBytes;
  readonly #used = new Map<string, number>();

  constructor(random: RandomBytes) {
    this.#random = random;
    random(this.#key);
  }

  /** A new one, 32 octets. */
  make(nowUnixMs: number): Uint8Array {
    const challenge = new Uint8Array(CHALLENGE_BYTES);
    this.#random(challenge);
    for (let i = 5, rest = nowUnixMs; i >= 0; i--, rest = Math.floor(rest / 256)) challenge[i] = rest % 256;
    challenge.set(this.#macOf(challenge), MAC_AT);
    return challenge;
  }

  /** "stale": not of this process, or too old. */
  judge(challenge: Uint8Array, nowUnixMs: number): ChallengeState {
    if (challenge.length !== CHALLENGE_BYTES) return "stale";
    if (!equalConstantTime(this.#macOf(challenge), challenge.subarray(MAC_AT))) return "stale";
    if (Math.abs(nowUnixMs - timeOf(challenge)) > CHALLENGE_MS) return "stale";
    return this.#used.has(toHex(challenge)) ? "used" : "fresh";
  }

  /** It was answered with a valid proof: no second time. */
  use(challenge: Uint8Array, nowUnixMs: number): void {
    for (const [key, time] of this.#used) {
      if (nowUnixMs - time <= CHALLENGE_MS && this.#used.size < MAX_USED) break;
      this.#used.delete(key);
    }
    this.#used.set(toHex(challenge), timeOf(challenge));
  }

  #macOf(challenge: Uint8Array): Uint8Array {
    return hmac(sha256, this.#key, challenge.subarray(0, MAC_AT)).subarray(0, CHALLENGE_BYTES - MAC_AT);
  }
}

function timeOf(challenge: Uint8Array): number {
  let time = 0;
  for (let i = 0; i < 6; i++) time = time * 256 + challenge[i]!;
  return time;
}
