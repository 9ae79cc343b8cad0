/**
 * Slows down whoever guesses: a bucket of tries for each subject (a source address, a token id), filled again with time. Only
 * failures are counted, so a thousand devices that join behind one address pass, and one that guesses does not.
 */
import { formatAddress, parseAddress } from "../ip/address.ts";

export interface RateLimit {
  /** failures in a row before the first refusal */
  readonly burst: number;
  /** after which one more is forgiven, milliseconds */
  readonly refillMs: number;
}

interface Bucket {
  /** time until every failure is forgiven, as of `atMs` */
  debtMs: number;
  atMs: number;
}

/** Subjects that are remembered; the longest silent one is forgotten first. */
const MAX_SUBJECTS = 4096;

export class RateLimiter {
  readonly #limit: RateLimit;
  readonly #buckets = new Map<string, Bucket>();

  constructor(limit: RateLimit) {
    this.#limit = limit;
  }

  /** Milliseconds that the subject has to wait before its next try; 0 = it may try now. */
  waitMs(subject: string, nowMs: number): number {
    const bucket = this.#buckets.get(subject);
    if (bucket === undefined) return 0;
    const { burst, refillMs } = this.#limit;
    return Math.max(0, this.#debtAt(bucket, nowMs) - (burst - 1) * refillMs);
  }

  /** Counts a failure. */
  fail(subject: string, nowMs: number): void {
    const { burst, refillMs } = this.#limit;
    const bucket = this.#buckets.get(subject) ?? { debtMs: 0, atMs: nowMs };
    const debtMs = Math.min(burst * refillMs, this.#debtAt(bucket, nowMs) + refillMs);
    this.#buckets.delete(subject);
    this.#buckets.set(subject, { debtMs, atMs: nowMs });
    if (this.#buckets.size > MAX_SUBJECTS) this.#buckets.delete(this.#buckets.keys().next().value!);
  }

  /** The subject has shown that it is no guesser. */
  forgive(subject: string): void {
    this.#buckets.delete(subject);
  }

  #debtAt(bucket: Bucket, nowMs: number): number {
    return Math.max(0, bucket.debtMs - Math.max(0, nowMs - bucket.atMs));
  }
}

/** What counts as one source: an IPv4 address, the /64 of an IPv6 address (a host has all of it). */
export function sourceOf(remoteAddress: string): string {
  const address = parseAddress(remoteAddress);
  if (address === undefined) return remoteAddress;
  const mapped = /^::ffff:([0-9.]+)$/.exec(formatAddress(address));
  if (mapped) return mapped[1]!;
  return address.length === 4
    ? formatAddress(address)
    : formatAddress(new Uint8Array([...address.slice(0, 8), 0, 0, 0, 0, 0, 0, 0, 0]));
}
