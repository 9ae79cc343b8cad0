/** What keeps strangers from using the hub's memory and patience: failures per address, and challenges that are answered once. */
import { randomBytes } from "node:crypto";
import { toBase64 } from "../../src/bytes/text.ts";

/** Addresses that are remembered; the oldest are forgotten first. */
const MAX_SOURCES = 10_000;

/** A bucket of failures per source address: `burst` at once, then one every `refillMs`. */
export class FailureLimiter {
  readonly #burst: number;
  readonly #refillMs: number;
  readonly #sources = new Map<string, { left: number; atMs: number }>();

  constructor(burst: number, refillMs: number) {
    this.#burst = burst;
    this.#refillMs = refillMs;
  }

  /**
   * Notes a failure.
   * @param nowMs monotonic
   * @returns false when this source has failed too often of late
   */
  fail(address: string, nowMs: number): boolean {
    const source = sourceOf(address);
    const known = this.#sources.get(source);
    const refilled = known === undefined
      ? this.#burst
      : Math.min(this.#burst, known.left + (nowMs - known.atMs) / this.#refillMs);
    this.#sources.delete(source);
    this.#sources.set(source, { left: refilled >= 1 ? refilled - 1 : refilled, atMs: nowMs });
    if (this.#sources.size > MAX_SOURCES) this.#sources.delete(this.#sources.keys().next().value!);
    return refilled >= 1;
  }
}

/** One source is one IPv4 address, or the /64 that a single IPv6 machine has for itself. */
function sourceOf(address: string): string {
  if (!address.includes(":")) return address;
  const head = address.split("::")[0]!.split(":");
  return `${head.slice(0, 4).join(":")}/64`;
}

/** Challenges that were given out: each is good once, for a while. Bounded: the oldest give way. */
export class ChallengeBook {
  readonly #lifetimeMs: number;
  readonly #capacity: number;
  readonly #open = new Map<string, number>();

  constructor(lifetimeMs: number, capacity: number) {
    this.#lifetimeMs = lifetimeMs;
    this.#capacity = capacity;
  }

  /** A fresh one, 32 octets. @param nowMs monotonic */
  give(nowMs: number): Uint8Array {
    const challenge = new Uint8Array(randomBytes(32));
    this.#open.set(toBase64(challenge), nowMs + this.#lifetimeMs);
    if (this.#open.size > this.#capacity) this.#open.delete(this.#open.keys().next().value!);
    return challenge;
  }

  /** Whether it was given out, is still good, and was not taken before. */
  take(challenge: Uint8Array, nowMs: number): boolean {
    const key = toBase64(challenge);
    const untilMs = this.#open.get(key);
    this.#open.delete(key);
    return untilMs !== undefined && nowMs <= untilMs;
  }
}
