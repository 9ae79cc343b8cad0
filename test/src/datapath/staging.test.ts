import { describe, expect, it } from "vitest";
import { MAX_STAGED_BYTES, MAX_STAGED_PER_PEER, Staging } from "../../../src/datapath/staging.ts";

describe("Staging", () => {
  it("hands packets back in order, as copies", () => {
    const staging = new Staging();
    const bytes = Uint8Array.of(1, 2, 3, 4);
    staging.add(7, bytes, 0, 2);
    staging.add(7, bytes, 2, 4);
    bytes.fill(0);
    expect(staging.take(7)).toEqual([Uint8Array.of(1, 2), Uint8Array.of(3, 4)]);
    expect(staging.take(7)).toEqual([]);
    expect(staging.bytes).toBe(0);
  });

  it("drops a peer's oldest beyond 128, and leaves other peers alone", () => {
    const staging = new Staging();
    staging.add(1, Uint8Array.of(99), 0, 1);
    for (let i = 0; i < MAX_STAGED_PER_PEER + 2; i++) staging.add(2, Uint8Array.of(i), 0, 1);
    expect(staging.take(2)[0]).toEqual(Uint8Array.of(2));
    expect(staging.overflows).toBe(2);
    expect(staging.take(1)).toEqual([Uint8Array.of(99)]);
  });

  it("holds a bounded number of octets for all peers together", () => {
    const staging = new Staging();
    const big = new Uint8Array(65535);
    let refused = 0;
    for (let peer = 0; peer < 64; peer++) if (!staging.add(peer, big, 0, big.length)) refused++;
    expect(refused).toBeGreaterThan(0);
    expect(staging.bytes).toBeLessThanOrEqual(MAX_STAGED_BYTES);
  });

  it("lets a peer that took all the room give some up for others, but never its last packet", () => {
    const staging = new Staging();
    const big = new Uint8Array(60_000);
    for (let i = 0; i < MAX_STAGED_PER_PEER; i++) expect(staging.add(1, big, 0, big.length)).toBe(true);
    const before = staging.countOf(1);
    for (let i = 0; i < 10; i++) expect(staging.add(2, big, 0, big.length)).toBe(true);
    expect(staging.countOf(2)).toBe(10);
    expect(staging.countOf(1)).toBe(before - 10);
    for (let peer = 3; peer < 60; peer++) staging.add(peer, big, 0, big.length);
    for (let peer = 1; peer <= 2; peer++) expect(staging.countOf(peer)).toBeGreaterThan(0);
    expect(staging.bytes).toBeLessThanOrEqual(MAX_STAGED_BYTES);
    for (let peer = 1; peer < 60; peer++) staging.take(peer);
    expect(staging.bytes).toBe(0);
  });
});
