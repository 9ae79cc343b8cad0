import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ALL_OFFLOADS, NO_OFFLOADS, OFFLOAD_WORDS, parseOffloads } from "../../../src/offload/switches.ts";

describe("words for offloads", () => {
  it.each([
    ["auto", ALL_OFFLOADS],
    ["on", ALL_OFFLOADS],
    ["none", NO_OFFLOADS],
    ["off", NO_OFFLOADS],
    ["tso", { ...NO_OFFLOADS, tso: true }],
    ["tso, uso ,udp-gso", { ...NO_OFFLOADS, tso: true, uso: true, udpGso: true }],
    ["udp-gro,tcp-merge,udp-merge,tcp-merge", { ...NO_OFFLOADS, udpGro: true, tcpMerge: true, udpMerge: true }],
    ["no-udp-gso", { ...ALL_OFFLOADS, udpGso: false }],
    ["no-udp-gso,no-tso", { ...ALL_OFFLOADS, udpGso: false, tso: false }],
  ])("%j is understood", (text, expected) => expect(parseOffloads(text)).toEqual(expected));

  it.each(["", ",", "tso,", "TSO", "lro", "tso,no-uso", "no-uso,tso", "no-", "auto,tso", "none,tso", "no-auto"])(
    "%j is refused",
    (text) => expect(parseOffloads(text)).toBeUndefined(),
  );

  it("each switch one thing on, and off with a no-", () => {
    fc.assert(fc.property(fc.subarray([...OFFLOAD_WORDS], { minLength: 1 }), (words) => {
      const on = parseOffloads(words.join(","))!;
      expect(Object.values(on).filter(Boolean).length).toBe(words.length);
      const off = parseOffloads(words.map((word) => `no-${word}`).join(","))!;
      for (const key of Object.keys(on) as (keyof typeof on)[]) expect(off[key]).toBe(!on[key]);
    }));
  });
});
