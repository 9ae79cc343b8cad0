import { describe, expect, it } from "vitest";
import { parseUnderlayAddr, writeUnderlayAddr } from "../../../src/ip/underlay_addr.ts";
import { LOAD_DRAIN_PER_SECOND, LOAD_QUEUE_THRESHOLD, RATE_MAX_SOURCES } from "../../../src/tunnel/constants.ts";
import { LoadMeter, RateLimiter } from "../../../src/tunnel/load.ts";

function record(text: string): Uint8Array {
  const bytes = new Uint8Array(32);
  writeUnderlayAddr(bytes, 0, parseUnderlayAddr(text)!);
  return bytes;
}

const countAllowed = (limiter: RateLimiter, source: Uint8Array, nowMs: number, tries: number) =>
  Array.from({ length: tries }, () => limiter.allow(source, 0, nowMs)).filter(Boolean).length;

describe("LoadMeter", () => {
  it("reports load from 128 handshakes at once, and for 1 s after", () => {
    const meter = new LoadMeter();
    for (let i = 1; i < LOAD_QUEUE_THRESHOLD; i++) expect(meter.count(0)).toBe(false);
    expect(meter.count(0)).toBe(true);
    expect(meter.isUnderLoad(999)).toBe(true);
    expect(meter.isUnderLoad(1000)).toBe(false);
  });

  it("never reports load at a rate that is worked off", () => {
    const meter = new LoadMeter();
    for (let i = 0; i < 5000; i++) expect(meter.count((i * 1000) / LOAD_DRAIN_PER_SECOND)).toBe(false);
  });

  it("reports load at twice that rate before long", () => {
    const meter = new LoadMeter();
    let isLoaded = false;
    for (let i = 0; i < 300; i++) isLoaded = meter.count((i * 500) / LOAD_DRAIN_PER_SECOND);
    expect(isLoaded).toBe(true);
  });
});

describe("RateLimiter", () => {
  it("gives a source five at once, then one each 50 ms", () => {
    const limiter = new RateLimiter();
    const source = record("192.0.2.1:1000");
    expect(countAllowed(limiter, source, 0, 9)).toBe(5);
    expect(countAllowed(limiter, source, 49, 3)).toBe(0);
    expect(countAllowed(limiter, source, 100, 3)).toBe(2);
    expect(countAllowed(limiter, source, 60_000, 9)).toBe(5);
  });

  it("does not let one source touch another's share", () => {
    const limiter = new RateLimiter();
    expect(countAllowed(limiter, record("192.0.2.1:1000"), 0, 100)).toBe(5);
    expect(countAllowed(limiter, record("192.0.2.2:1000"), 0, 5)).toBe(5);
  });

  it("counts all ports of an IPv4 address, and all addresses of an IPv6 /64, as one source", () => {
    const limiter = new RateLimiter();
    expect(countAllowed(limiter, record("192.0.2.1:1"), 0, 5)).toBe(5);
    expect(countAllowed(limiter, record("192.0.2.1:2"), 0, 1)).toBe(0);
    expect(countAllowed(limiter, record("[2001:db8:0:1::1]:1"), 0, 5)).toBe(5);
    expect(countAllowed(limiter, record("[2001:db8:0:1:ffff::2]:1"), 0, 1)).toBe(0);
    expect(countAllowed(limiter, record("[2001:db8:0:2::1]:1"), 0, 1)).toBe(1);
  });

  it("remembers a bounded number of sources, and forgets those whose share is whole again", () => {
    const limiter = new RateLimiter();
    const source = record("10.0.0.0:1");
    for (let i = 0; i < RATE_MAX_SOURCES + 10; i++) {
      source[5] = i >> 16;
      source[6] = i >> 8;
      source[7] = i;
      expect(limiter.allow(source, 0, 0)).toBe(i < RATE_MAX_SOURCES);
    }
    expect(limiter.sources).toBe(RATE_MAX_SOURCES);
    expect(limiter.allow(record("192.0.2.1:1"), 0, 1000)).toBe(true);
    expect(limiter.sources).toBe(1);
  });
});
