/** Cookies under load as the WireGuard paper has them (§5.3). One test per statement. */
import { describe, expect, it } from "vitest";
import {
  DROP_BAD_COOKIE,
  DROP_RATE_LIMITED,
  DROP_STALE_HANDSHAKE,
  DROP_UNDER_LOAD,
  FORWARD,
} from "../../../src/verdict.ts";
import { a, b, COOKIE, cut, INITIATION, load, makePairs, pair, RESPONSE, SECOND, toA, toB } from "./paper.ts";

makePairs();

describe("§5.3 cookies under load", () => {
  it("a message with mac1 alone gets a cookie and nothing else", () => {
    load(b);
    const [before, responses] = [b.timesOf(COOKIE).length, b.timesOf(RESPONSE).length];
    a.send(toB, 1);
    pair.run(15);
    expect(b.timesOf(COOKIE)).toHaveLength(before + 1);
    expect(b.timesOf(RESPONSE)).toHaveLength(responses);
    expect(b.last(COOKIE)).toMatchObject({ size: 64, to: a.address });
    expect(b.dropsOf(DROP_UNDER_LOAD)).toBeGreaterThan(0);
    expect([toA.next, toA.rxBytes]).toEqual([undefined, 0]);
  });

  it("the next initiation carries mac2 and gets through", () => {
    pair.after(0, () => load(b), 500);
    a.send(toB, 1);
    pair.run(6 * SECOND);
    expect(a.timesOf(INITIATION)).toHaveLength(2);
    expect(b.got).toEqual([1]);
  });

  it("a cookie does not make the initiation go out sooner", () => {
    load(b);
    a.send(toB, 1);
    pair.run(4.9 * SECOND);
    expect(a.timesOf(INITIATION)).toHaveLength(1);
  });

  it("a response is held to the same rule", () => {
    cut(b);
    a.send(toB, 1);
    pair.run(20);
    load(a);
    const response = b.last(RESPONSE)!.bytes;
    expect(a.receive(response, b.address)).toBe(DROP_UNDER_LOAD);
    expect(a.last(COOKIE)!.to).toBe(b.address);
    expect(toB.pending).toBeDefined();
    pair.network.nowMs += 2000;
    expect(a.receive(response, b.address)).toBe(FORWARD);
  });

  it("a cookie reply that answers none of ours, or a second time, is refused", () => {
    load(b);
    a.send(toB, 1);
    pair.run(50);
    const cookie = b.last(COOKIE)!.bytes;
    expect(a.receive(cookie, b.address)).toBe(DROP_BAD_COOKIE);
    const other = cookie.slice();
    other[4]! ^= 1;
    expect(a.receive(other, b.address)).toBe(DROP_STALE_HANDSHAKE);
  });

  it("a valid mac2 is rate-limited per source: five at once", () => {
    // a's cookie, then many initiations with it
    load(b);
    a.send(toB, 1);
    pair.run(50);
    cut(a);
    const verdicts: number[] = [];
    for (let i = 0; i < 8; i++) {
      toB.handshakeSentAtMs = -Infinity;
      a.wireguard.startHandshake(toB, pair.nowMs);
      a.tick();
      verdicts.push(b.receive(a.last(INITIATION)!.bytes, a.address));
    }
    expect(verdicts[0]).toBe(FORWARD);
    const replaysLeft = b.dropsOf(DROP_RATE_LIMITED);
    expect(replaysLeft).toBe(7); // four by the gap of 20 ms, three by the source's share: then no cost at all
    pair.network.nowMs += 20;
    toB.handshakeSentAtMs = -Infinity;
    a.wireguard.startHandshake(toB, pair.nowMs);
    a.tick();
    expect(b.receive(a.last(INITIATION)!.bytes, a.address)).toBe(DROP_RATE_LIMITED);
  });

  it("a mac2 from another address is no proof", () => {
    load(b);
    a.send(toB, 1);
    pair.run(50);
    cut(a);
    toB.handshakeSentAtMs = -Infinity;
    a.wireguard.startHandshake(toB, pair.nowMs);
    a.tick();
    expect(b.receive(a.last(INITIATION)!.bytes, "192.0.2.1:51821")).toBe(DROP_UNDER_LOAD);
  });

  it("replies are bounded per batch, and never more octets than what they answer", () => {
    const stranger = a.last(INITIATION)?.bytes ?? (a.send(toB, 1), a.last(INITIATION)!.bytes);
    load(b);
    const before = b.timesOf(COOKIE).length;
    for (let i = 0; i < 100; i++) b.receiveInBatch(stranger, `198.51.100.${i}:1`);
    b.finishBatch();
    expect(b.timesOf(COOKIE).length - before).toBe(16);
  });

  it("ends one second after the load", () => {
    load(b);
    pair.network.nowMs += 1001;
    a.send(toB, 1);
    pair.run(100);
    expect(b.got).toEqual([1]);
  });
});
