import { describe, expect, it } from "vitest";
import { ChallengeBook, FailureLimiter } from "../../../edge/hub/limits.ts";

describe("FailureLimiter", () => {
  it("allows a burst, then one failure for every refill", () => {
    const limiter = new FailureLimiter(3, 1000);
    const tries = [0, 0, 0, 0, 500, 1000, 1100].map((nowMs) => limiter.fail("192.0.2.1", nowMs));
    expect(tries).toEqual([true, true, true, false, false, true, false]);
  });

  it("counts each IPv4 address and each IPv6 /64 by itself", () => {
    const limiter = new FailureLimiter(1, 1000);
    expect(limiter.fail("192.0.2.1", 0)).toBe(true);
    expect(limiter.fail("192.0.2.2", 0)).toBe(true);
    expect(limiter.fail("2001:db8:1:2::1", 0)).toBe(true);
    expect(limiter.fail("2001:db8:1:2:ffff::9", 0)).toBe(false);
    expect(limiter.fail("2001:db8:1:3::1", 0)).toBe(true);
  });

  it("remembers a bounded number of sources", () => {
    const limiter = new FailureLimiter(1, 1e9);
    limiter.fail("first", 0);
    for (let i = 0; i < 10_000; i++) limiter.fail(`other-${i}`, 0);
    expect(limiter.fail("first", 0)).toBe(true); // forgotten
    expect(limiter.fail("other-9999", 0)).toBe(false);
  });
});

describe("ChallengeBook", () => {
  it("takes each challenge once", () => {
    const book = new ChallengeBook(1000, 10);
    const challenge = book.give(0);
    expect(challenge.length).toBe(32);
    expect(book.take(challenge, 1000)).toBe(true);
    expect(book.take(challenge, 1000)).toBe(false);
  });

  it("takes none that it did not give, that is too old, or that gave way to newer ones", () => {
    const book = new ChallengeBook(1000, 2);
    expect(book.take(new Uint8Array(32), 0)).toBe(false);
    const old = book.give(0);
    expect(book.take(old, 1001)).toBe(false);
    const [first, second, third] = [book.give(0), book.give(0), book.give(0)];
    expect([first, second, third].map((challenge) => book.take(challenge, 0))).toEqual([false, true, true]);
  });
});
