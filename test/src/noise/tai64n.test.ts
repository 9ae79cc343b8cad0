import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { isLaterStamp, stampAfter, StampClock } from "../../../src/noise/tai64n.ts";
import { toHex } from "../../../src/bytes/text.ts";
import { octets, transcript } from "../../fakes/wireguard_vectors.ts";

const NOW = 1_700_000_000_560;

describe("StampClock", () => {
  it("writes the transcript's timestamp for its time", () => {
    expect(toHex(new StampClock().next(NOW))).toBe(toHex(transcript("timestamp")));
  });

  it("clears the low 24 bits of the nanoseconds, so the precise clock is not told", () => {
    fc.assert(fc.property(fc.double({ min: 0, max: 4e12, noNaN: true }), (unixMs) => {
      const stamp = new StampClock().next(unixMs);
      expect(toHex(stamp).slice(18)).toBe("000000");
    }));
  });

  it("grows with every stamp, whatever the clock does", () => {
    const clock = fc.array(fc.oneof(fc.double({ noNaN: true, min: -1e12, max: 4e12 }), fc.constant(NOW)), {
      minLength: 2,
    });
    fc.assert(fc.property(clock, (times) => {
      const stamps = new StampClock();
      let last = stamps.floor;
      for (const unixMs of times) {
        const next = stamps.next(unixMs);
        expect(isLaterStamp(next, last)).toBe(true);
        last = next;
      }
      expect(toHex(stamps.floor)).toBe(toHex(last));
    }));
  });

  it("steps over the end of a second", () => {
    const stamps = new StampClock();
    const first = stamps.next(NOW);
    let last = first;
    for (let i = 0; i < 100; i++) last = stamps.next(NOW);
    expect(toHex(last).slice(0, 16)).not.toBe(toHex(first).slice(0, 16));
    expect(parseInt(toHex(last).slice(16), 16)).toBeLessThan(1e9);
  });

  it("goes on from a saved floor when the clock starts in 1970", () => {
    const before = new StampClock();
    const sent = before.next(NOW);
    const after = new StampClock(before.floor).next(0);
    expect(isLaterStamp(after, sent)).toBe(true);
    const real = new StampClock(before.floor).next(NOW + 60_000);
    expect(toHex(real)).toBe(toHex(new StampClock().next(NOW + 60_000)));
  });

  it.each([
    ["too short", "400000006553f10a2100"],
    ["before 1970", "400000000000000900000000"],
    ["no TAI64", "ff0000006553f10a21000000"],
    ["a second of more than 10^9 ns", "400000006553f10a3b9aca00"],
  ])("refuses a floor that is %s", (_, floor) => {
    expect(() => new StampClock(octets(floor))).toThrow(RangeError);
  });
});

describe("stampAfter", () => {
  it("is that many seconds later, over the end of 32 bits as well", () => {
    expect(toHex(stampAfter(octets("400000006553f10a21000000"), 3600))).toBe("400000006553ff1a21000000");
    expect(toHex(stampAfter(octets("40000000ffffffff21000000"), 1))).toBe("400000010000000021000000");
  });
});

describe("isLaterStamp", () => {
  it("compares as big-endian numbers, and equal is not later", () => {
    const stamp = transcript("timestamp");
    expect(isLaterStamp(stamp, stamp)).toBe(false);
    for (let at = 0; at < 12; at++) {
      const later = stamp.slice();
      later[at]!++;
      expect(isLaterStamp(later, stamp)).toBe(true);
      expect(isLaterStamp(stamp, later)).toBe(false);
    }
  });
});
