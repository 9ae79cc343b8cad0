/**
 * Keepalives as the WireGuard paper has them (§6.5, §6.6), and the peer that answers nothing. One test per statement.
 */
import { describe, expect, it } from "vitest";
import { hasOwnAddress, OWN_ADDRESS_AT } from "../../../src/ip/underlay_addr.ts";
import { WireGuardPair } from "../../fakes/wireguard_pair.ts";
import { a, b, ciphers, cut, INITIATION, join, KEEPALIVE, makePairs, pair, SECOND, toA, toB, use } from "./paper.ts";

makePairs();

describe("§6.5 passive keepalive", () => {
  it("answers data that got no answer within 10 s", () => {
    pair.connect();
    pair.run(30 * SECOND);
    expect(b.timesOf(KEEPALIVE)).toEqual([30 + 10_000]);
    expect(a.keepalives).toBe(1);
  });

  it("is not sent when data went back meanwhile", () => {
    pair.connect();
    pair.run(5 * SECOND);
    b.send(toA, 1);
    cut(a, b);
    pair.run(10 * SECOND);
    expect(b.timesOf(KEEPALIVE)).toEqual([]);
  });

  it("is sent once more when more data came while it was due", () => {
    pair.connect();
    pair.run(5 * SECOND);
    a.send(toB, 1);
    pair.run(40 * SECOND);
    expect(b.timesOf(KEEPALIVE)).toEqual([10_030, 20_030]);
  });

  it("is never an answer to a keepalive", () => {
    a.wireguard.startHandshake(toB, 0);
    a.tick();
    pair.run(500 * SECOND);
    expect(a.timesOf(KEEPALIVE)).toHaveLength(1); // the key confirmation
    expect(b.timesOf(KEEPALIVE)).toEqual([]);
  });
});

describe("§6.5 dead peer", () => {
  it("starts a handshake when data got nothing back for 15 s plus up to 333 ms", () => {
    pair.connect();
    pair.run(20 * SECOND);
    cut(b);
    const sentMs = pair.nowMs;
    a.send(toB, 1);
    pair.run(5 * SECOND);
    a.send(toB, 2); // must not put it off
    a.arena[toB.endpointAt + OWN_ADDRESS_AT] = 10;
    pair.run(9 * SECOND);
    expect(hasOwnAddress(a.arena, toB.endpointAt)).toBe(true);
    pair.run(2 * SECOND);
    expect(hasOwnAddress(a.arena, toB.endpointAt)).toBe(false); // the machine may know a better one
    pair.run(9 * SECOND);
    const first = a.timesOf(INITIATION)[1]! - sentMs;
    expect(first).toBeGreaterThanOrEqual(15_000);
    expect(first).toBeLessThanOrEqual(15_333);
  });

  it("is not suspected when anything authenticated came back", () => {
    pair.connect();
    pair.run(20 * SECOND);
    cut(b);
    a.send(toB, 1);
    pair.run(5 * SECOND);
    join();
    b.send(toA, 1);
    pair.run(100);
    cut(b);
    pair.run(40 * SECOND);
    expect(a.timesOf(INITIATION)).toHaveLength(1);
  });

  it("is not suspected because of keepalives that were sent", () => {
    pair.connect();
    pair.run(50);
    b.send(toA, 1);
    pair.run(50);
    cut(b);
    pair.run(60 * SECOND); // a has sent a keepalive, and heard nothing
    expect(a.timesOf(KEEPALIVE)).toHaveLength(1);
    expect(a.timesOf(INITIATION)).toHaveLength(1);
  });
});

describe("§6.6 persistent keepalive", () => {
  const withKeepalive = () => use(new WireGuardPair(ciphers, { a: { keepaliveSeconds: 25 } }));

  it("opens the session when it is switched on, and keeps it for ever", () => {
    withKeepalive();
    pair.run(100);
    expect(b.wireguard.hasSession(toA, pair.nowMs)).toBe(true);
    pair.run(1000 * SECOND);
    expect(b.keepalives).toBeGreaterThanOrEqual(40);
    expect(b.wireguard.hasSession(toA, pair.nowMs)).toBe(true);
  });

  it("comes n seconds after the last authenticated message, either way", () => {
    withKeepalive();
    pair.run(100);
    const count = b.keepalives;
    pair.after(0, () => b.send(toA, 1), 20_000);
    pair.run(9 * SECOND);
    expect(b.keepalives).toBe(count);
    const persistent = a.timesOf(KEEPALIVE).length;
    pair.run(120 * SECOND); // passive ones answer b; none more than those
    expect(a.timesOf(KEEPALIVE).length - persistent).toBe(6);
  });

  it("goes on trying for ever when the peer is away", () => {
    withKeepalive();
    cut(a);
    pair.run(1000 * SECOND);
    expect(a.timesOf(INITIATION).length).toBeGreaterThan(100);
  });

  it("comes again when one could not be sent, for want of an address", () => {
    use(new WireGuardPair(ciphers, { a: { keepaliveSeconds: 25, endpoint: undefined } }));
    pair.run(60 * SECOND);
    expect(a.sent).toEqual([]);
    a.knows(b, { keepaliveSeconds: 25 });
    pair.run(25 * SECOND);
    expect(b.wireguard.hasSession(toA, pair.nowMs)).toBe(true);
  });

  it("stops when it is switched off", () => {
    withKeepalive();
    pair.run(100);
    a.knows(b, { keepaliveSeconds: 0 });
    const count = b.keepalives;
    pair.run(100 * SECOND);
    expect(b.keepalives).toBe(count);
    expect(a.dueMs).toBeGreaterThan(500 * SECOND); // only the keys are left to be zeroed
  });
});
