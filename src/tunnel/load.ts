/**
 * Under load: when the device asks for cookies, and how many handshakes each source then gets.
 * @see WireGuard paper §5.3 (cookies only under load); the kernel's `ratelimiter.c` for the rates
 */
import { readU16LE, readU32 } from "../bytes/integers.ts";
import { FAMILY_IPV4 } from "../ip/underlay_addr.ts";
import {
  LOAD_AFTER_MS,
  LOAD_DRAIN_PER_SECOND,
  LOAD_QUEUE_THRESHOLD,
  RATE_BURST,
  RATE_MAX_SOURCES,
  RATE_PER_SECOND,
} from "./constants.ts";

/** Tells load from the rate of handshake messages. */
export class LoadMeter {
  #waiting = 0;
  #countedAtMs = 0;
  #loadedUntilMs = -Infinity;

  /** Counts one handshake message. @returns whether the device is under load now */
  count(nowMs: number): boolean {
    const drained = ((nowMs - this.#countedAtMs) * LOAD_DRAIN_PER_SECOND) / 1000;
    this.#waiting = Math.max(0, this.#waiting - drained) + 1;
    this.#countedAtMs = nowMs;
    if (this.#waiting >= LOAD_QUEUE_THRESHOLD) this.#loadedUntilMs = nowMs + LOAD_AFTER_MS;
    return this.isUnderLoad(nowMs);
  }

  isUnderLoad(nowMs: number): boolean {
    return nowMs < this.#loadedUntilMs;
  }
}

/** A token bucket: `tokens` at `atMs`. */
interface Bucket {
  tokens: number;
  atMs: number;
}

/** From here on a bucket is full again whatever it held: forgetting it changes nothing. */
const BUCKET_FULL_MS = (RATE_BURST * 1000) / RATE_PER_SECOND;

/** Handshakes per source: an IPv4 address, or an IPv6 /64, which is what one site has at least. Ports do not matter. */
export class RateLimiter {
  readonly #buckets = new Map<number | string, Bucket>();
  #sweptAtMs = -Infinity;

  get sources(): number {
    return this.#buckets.size;
  }

  /**
   * Takes one token of a source.
   * @param addressAt underlay address record of the source
   * @returns false when it has none left, or when too many sources are known at once
   */
  allow(bytes: Uint8Array, addressAt: number, nowMs: number): boolean {
    this.#sweep(nowMs);
    const source = sourceOf(bytes, addressAt);
    const bucket = this.#buckets.get(source);
    if (bucket === undefined) {
      if (this.#buckets.size >= RATE_MAX_SOURCES) return false;
      this.#buckets.set(source, { tokens: RATE_BURST - 1, atMs: nowMs });
      return true;
    }
    bucket.tokens = Math.min(RATE_BURST, bucket.tokens + ((nowMs - bucket.atMs) * RATE_PER_SECOND) / 1000);
    bucket.atMs = nowMs;
    if (bucket.tokens < 1) return false;
    bucket.tokens--;
    return true;
  }

  /** Once a second, forgets the sources whose bucket is full again. */
  #sweep(nowMs: number): void {
    if (nowMs - this.#sweptAtMs < 1000) return;
    this.#sweptAtMs = nowMs;
    for (const [source, bucket] of this.#buckets) {
      if (nowMs - bucket.atMs >= BUCKET_FULL_MS) this.#buckets.delete(source);
    }
  }
}

function sourceOf(bytes: Uint8Array, at: number): number | string {
  if (readU16LE(bytes, at) === FAMILY_IPV4) return readU32(bytes, at + 4);
  return `${readU32(bytes, at + 8)}:${readU32(bytes, at + 12)}`;
}
