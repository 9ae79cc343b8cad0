import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { ReplayWindow } from "../../../src/tunnel/replay_window.ts";
import { vectors } from "../../fakes/wireguard_vectors.ts";

const WINDOW = 8128n;
const LIMIT = 2n ** 64n - 2n ** 13n - 1n;

const accept = (window: ReplayWindow, counter: bigint) =>
  window.accept(Number(counter >> 32n), Number(counter & 0xffff_ffffn));

/** The rule in plain words: below the limit, not seen, not more than 8128 behind the highest. */
class NaiveWindow {
  readonly #seen = new Set<bigint>();
  #highest = 0n;

  accept(counter: bigint): boolean {
    if (counter >= LIMIT || this.#seen.has(counter) || counter + WINDOW < this.#highest) return false;
    this.#seen.add(counter);
    if (counter > this.#highest) this.#highest = counter;
    return true;
  }
}

describe("ReplayWindow", () => {
  it("passes the sequence of the kernel's self-test, up to 2^64 - 2^13 - 2", () => {
    const window = new ReplayWindow();
    expect(vectors.replay.sequence).toHaveLength(34);
    for (const [counter, isAccepted] of vectors.replay.sequence) {
      expect(accept(window, BigInt(counter as string)), String(counter)).toBe(isAccepted);
    }
  });

  it.each(vectors.replay.runs)("passes the run from $from to $to", ({ from, to, then }) => {
    const window = new ReplayWindow();
    const step = Number(from) < Number(to) ? 1n : -1n;
    for (let counter = BigInt(from); counter !== BigInt(to) + step; counter += step) {
      expect(accept(window, counter)).toBe(true);
    }
    for (const [counter, isAccepted] of then) {
      expect(accept(window, BigInt(counter as string)), String(counter)).toBe(isAccepted);
    }
  });

  it("agrees with the rule in plain words for any sequence, near 0, 2^32, 2^53 and the limit", () => {
    const base = fc.constantFrom(0n, 2n ** 32n - 9000n, 2n ** 53n - 9000n, 2n ** 63n, LIMIT - 20_000n);
    const offsets = fc.array(
      fc.oneof(
        fc.bigInt({ min: 0n, max: 40n }),
        fc.bigInt({ min: 0n, max: 21_000n }),
        fc.bigInt({ min: 8100n, max: 8300n }),
      ),
      { minLength: 1, maxLength: 200 },
    );
    fc.assert(fc.property(fc.array(fc.tuple(base, offsets), { maxLength: 3 }), (parts) => {
      const window = new ReplayWindow();
      const naive = new NaiveWindow();
      for (const [start, each] of parts) {
        for (const offset of each) expect(accept(window, start + offset)).toBe(naive.accept(start + offset));
      }
    }));
  });
});
