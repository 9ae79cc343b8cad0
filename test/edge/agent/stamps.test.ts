import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { StampReservation } from "../../../edge/agent/stamps.ts";
import { isLaterStamp, StampClock } from "../../../src/noise/tai64n.ts";

const HOUR_MS = 3_600_000;

describe("StampReservation", () => {
  it("reserves an hour, and writes about once an hour", () => {
    const saved: number[] = [];
    const reservation = new StampReservation(0, (ms) => saved.push(ms));
    let unixMs = Date.UTC(2026, 0, 1);
    reservation.begin(unixMs);
    for (let i = 0; i < 24 * 3600; i++) reservation.note(unixMs += 1000, i);
    expect(saved.length).toBeLessThanOrEqual(28);
    expect(saved.at(-1)!).toBeGreaterThan(unixMs);
    reservation.end();
    expect(saved.at(-1)! - unixMs).toBeLessThan(HOUR_MS);
  });

  it("gives each life a floor above every stamp of the lives before, whatever the clocks say", () => {
    const life = fc.record({
      startMs: fc.integer({ min: 0, max: 2_000_000_000_000 }),
      /** how the clock moves between looks, and handshakes made in between */
      steps: fc.array(fc.tuple(fc.integer({ min: -HOUR_MS, max: HOUR_MS }), fc.integer({ min: 0, max: 50 })), {
        maxLength: 20,
      }),
      isClean: fc.boolean(),
    });
    fc.assert(fc.property(fc.array(life, { maxLength: 6 }), (lives) => {
      let saved = 0;
      let newest: Uint8Array | undefined;
      for (const { startMs, steps, isClean } of lives) {
        const reservation = new StampReservation(saved, (ms) => saved = ms);
        const clock = new StampClock(reservation.begin(startMs));
        let unixMs = startMs;
        let handshakes = 0;
        for (const [moveMs, count] of [[0, 1] as const, ...steps]) {
          unixMs = Math.max(0, unixMs + moveMs);
          reservation.note(unixMs, handshakes);
          for (let i = 0; i < count; i++) {
            const stamp = clock.next(unixMs);
            if (newest !== undefined) expect(isLaterStamp(stamp, newest)).toBe(true);
            newest = stamp;
            handshakes++;
          }
          reservation.note(unixMs, handshakes);
        }
        if (isClean) reservation.end();
      }
    }));
  });
});
