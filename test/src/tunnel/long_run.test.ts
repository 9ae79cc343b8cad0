/** Hours of simulated traffic: rekeying must not cost a packet, and a bad network must not cost the tunnel. */
import { beforeAll, describe, expect, it } from "vitest";
import { loadSodiumWasm } from "../../../edge/ciphers_wasm.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { DROP_STALE_HANDSHAKE } from "../../../src/verdict.ts";
import { WireGuardPair } from "../../fakes/wireguard_pair.ts";

const HOUR = 3_600_000;

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadSodiumWasm();
});

/** Numbers 1, 2, 3 ... from each side, every `everyMs`; returns how many each side has sent so far. */
function talk(pair: WireGuardPair, aEveryMs: number, bEveryMs: number): { a: number; b: number } {
  const count = { a: 0, b: 0 };
  if (aEveryMs > 0) pair.after(0, () => pair.a.send(pair.toB, ++count.a), aEveryMs);
  if (bEveryMs > 0) pair.after(3, () => pair.b.send(pair.toA, ++count.b), bEveryMs);
  return count;
}

const upTo = (count: number) => Array.from({ length: count }, (_, i) => i + 1);

describe("over two hours on a network without loss", () => {
  it.each([
    ["both ways", 500, 500],
    ["from the initiator alone", 500, 0],
    ["from the responder alone", 0, 500],
    ["seldom, both ways", 37_000, 41_000],
    ["every 200 s, so each packet needs a handshake", 200_000, 0],
  ])("traffic %s arrives whole, once and in order", (_, aEveryMs, bEveryMs) => {
    const pair = new WireGuardPair(ciphers, { seed: 7, delayMs: 30 });
    const count = talk(pair, aEveryMs, bEveryMs);
    pair.run(2 * HOUR);
    pair.run(100);
    const margin = 1; // the last one may still be on its way
    expect(pair.b.got).toEqual(upTo(pair.b.got.length));
    expect(pair.a.got).toEqual(upTo(pair.a.got.length));
    expect(count.a - pair.b.got.length).toBeLessThanOrEqual(margin);
    expect(count.b - pair.a.got.length).toBeLessThanOrEqual(margin);
    expect([...pair.a.drops, ...pair.b.drops]).toEqual([]);
  });

  it("a handshake is made every two minutes, by one side", () => {
    const pair = new WireGuardPair(ciphers, { seed: 3 });
    talk(pair, 1000, 1000);
    pair.run(HOUR);
    const [a, b] = [pair.a.timesOf(1).length, pair.b.timesOf(1).length];
    expect(Math.max(a, b)).toBe(30);
    expect(Math.min(a, b)).toBeLessThanOrEqual(1);
  });

  it("packets reordered by up to 300 ms all arrive, once", () => {
    const pair = new WireGuardPair(ciphers, { seed: 11, jitterMs: 300 });
    pair.connect();
    pair.run(1000);
    const count = talk(pair, 50, 70);
    pair.run(HOUR / 4);
    expect(new Set(pair.b.got).size).toBe(pair.b.got.length);
    expect(count.a - pair.b.got.length).toBeLessThanOrEqual(9);
    expect(count.b - pair.a.got.length).toBeLessThanOrEqual(7);
    expect([...pair.a.drops.keys(), ...pair.b.drops.keys()]).toEqual([]);
  });
});

describe("over an hour on a bad network", () => {
  it.each([1, 2, 3, 4])(
    "with a third of everything lost and reordering, what arrives is genuine, once, and it never ends (seed %i)",
    (seed) => {
      const pair = new WireGuardPair(ciphers, { seed, loss: 1 / 3, jitterMs: 200 });
      const count = talk(pair, 400, 600);
      let longestSilenceMs = 0;
      let before = 0;
      let silentSinceMs = 0;
      pair.after(0, () => {
        if (pair.b.got.length > before) silentSinceMs = pair.nowMs;
        before = pair.b.got.length;
        longestSilenceMs = Math.max(longestSilenceMs, pair.nowMs - silentSinceMs);
      }, 1000);
      pair.run(HOUR);
      for (const [got, sent] of [[pair.b.got, count.a], [pair.a.got, count.b]] as const) {
        expect(new Set(got).size).toBe(got.length);
        expect(Math.max(...got)).toBeLessThanOrEqual(sent);
        expect(got.length / sent).toBeGreaterThan(0.55);
      }
      expect(longestSilenceMs).toBeLessThan(60_000);
    },
  );

  it("a network that is gone for ten minutes is found again with the next retry", () => {
    const pair = new WireGuardPair(ciphers, { seed: 5 });
    talk(pair, 1000, 1000);
    pair.run(300_000);
    pair.network.tap = () => false;
    pair.run(600_000);
    pair.network.tap = () => true;
    const before = pair.b.got.length;
    pair.run(6_000);
    expect(pair.b.got.length).toBeGreaterThan(before);
    expect(pair.a.got.length).toBeGreaterThan(0);
  });

  it("every datagram twice changes nothing but the count of replays", () => {
    const pair = new WireGuardPair(ciphers, { seed: 6 });
    const doubled = new WeakSet<Uint8Array>();
    pair.network.tap = (datagram) => {
      if (!doubled.has(datagram.bytes)) {
        doubled.add(datagram.bytes);
        const node = datagram.to === pair.a.address ? pair.a : pair.b;
        pair.after(25, () => node.receive(datagram.bytes, datagram.from));
      }
      return true;
    };
    const count = talk(pair, 1000, 1000);
    pair.run(HOUR / 4);
    expect(pair.b.got).toEqual(upTo(pair.b.got.length));
    expect(count.a - pair.b.got.length).toBeLessThanOrEqual(1);
    expect(pair.b.dropsOf(DROP_STALE_HANDSHAKE) + pair.a.dropsOf(DROP_STALE_HANDSHAKE)).toBeGreaterThan(0);
  });
});
