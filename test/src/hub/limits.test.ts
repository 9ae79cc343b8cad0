import { describe, expect, it } from "vitest";
import { CHALLENGE_MS, Challenges } from "../../../src/hub/challenges.ts";
import { RateLimiter, sourceOf } from "../../../src/hub/rate_limit.ts";

describe("RateLimiter", () => {
  it("lets a burst of failures pass, then one for each refill", () => {
    const limiter = new RateLimiter({ burst: 3, refillMs: 1000 });
    for (let i = 0; i < 3; i++) {
      expect(limiter.waitMs("a", 0)).toBe(0);
      limiter.fail("a", 0);
    }
    expect(limiter.waitMs("a", 0)).toBe(1000);
    expect(limiter.waitMs("a", 400)).toBe(600);
    expect(limiter.waitMs("b", 0)).toBe(0);
    expect(limiter.waitMs("a", 1000)).toBe(0);
    limiter.fail("a", 1000);
    expect(limiter.waitMs("a", 1000)).toBe(1000);
    expect(limiter.waitMs("a", 10_000)).toBe(0);
  });

  it("forgives, survives a clock that goes back, and remembers a bounded number", () => {
    const limiter = new RateLimiter({ burst: 1, refillMs: 1000 });
    limiter.fail("a", 5000);
    expect(limiter.waitMs("a", 0)).toBe(1000);
    limiter.forgive("a");
    expect(limiter.waitMs("a", 0)).toBe(0);
    limiter.fail("first", 0);
    for (let i = 0; i < 5000; i++) limiter.fail(`x${i}`, 0);
    expect(limiter.waitMs("first", 0)).toBe(0);
    expect(limiter.waitMs("x4999", 0)).toBe(1000);
  });

  it("takes an IPv4 address, also mapped, and the /64 of an IPv6 address as one source", () => {
    expect(sourceOf("192.0.2.1")).toBe("192.0.2.1");
    expect(sourceOf("::ffff:192.0.2.1")).toBe("192.0.2.1");
    expect(sourceOf("2001:db8:1:2:3:4:5:6")).toBe(sourceOf("2001:db8:1:2::9"));
    expect(sourceOf("2001:db8:1:2::9")).not.toBe(sourceOf("2001:db8:1:3::9"));
    expect(sourceOf("unknown")).toBe("unknown");
  });
});

describe("Challenges", () => {
  const makeChallenges = () => {
    let next = 1;
    return new Challenges((into) => void into.fill(next++));
  };
  const NOW = 1_800_000_000_000;

  it("a challenge is fresh once, for two minutes", () => {
    const challenges = makeChallenges();
    const challenge = challenges.make(NOW);
    expect(challenge).toHaveLength(32);
    expect(challenges.judge(challenge, NOW + CHALLENGE_MS)).toBe("fresh");
    expect(challenges.judge(challenge, NOW + CHALLENGE_MS + 1)).toBe("stale");
    challenges.use(challenge, NOW);
    expect(challenges.judge(challenge, NOW + 1)).toBe("used");
    expect(challenges.judge(challenges.make(NOW), NOW)).toBe("fresh");
  });

  it("a challenge that was changed, made by another process, or made up is stale", () => {
    const challenges = makeChallenges();
    const challenge = challenges.make(NOW);
    for (let i = 0; i < 32; i++) expect(challenges.judge(challenge.with(i, challenge[i]! ^ 1), NOW)).toBe("stale");
    expect(challenges.judge(new Uint8Array(32), NOW)).toBe("stale");
    expect(challenges.judge(challenge.slice(1), NOW)).toBe("stale");
    const other = new Challenges((into) => void into.fill(99));
    expect(other.judge(challenge, NOW)).toBe("stale");
  });

  it("two are never alike, and a used one stays used while others are made and used", () => {
    const challenges = makeChallenges();
    const first = challenges.make(NOW);
    challenges.use(first, NOW);
    for (let i = 0; i < 200; i++) challenges.use(challenges.make(NOW + i), NOW + i);
    expect(challenges.judge(first, NOW + 200)).toBe("used");
  });
});
