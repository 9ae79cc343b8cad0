/**
 * Handshakes as the WireGuard paper has them: when (§6.3), how often (§6.4), which timestamp (§5.1), and what two at
 * once come to. One test per statement.
 */
import { describe, expect, it } from "vitest";
import { hasOwnAddress, OWN_ADDRESS_AT } from "../../../src/ip/underlay_addr.ts";
import { isLaterStamp } from "../../../src/noise/tai64n.ts";
import { DROP_RATE_LIMITED, DROP_STALE_HANDSHAKE, FORWARD } from "../../../src/verdict.ts";
import { WireGuardPair } from "../../fakes/wireguard_pair.ts";
import {
  a,
  b,
  ciphers,
  cut,
  endpointOf,
  gaps,
  INITIATION,
  join,
  KEEPALIVE,
  makePairs,
  pair,
  RESPONSE,
  SECOND,
  toA,
  toB,
  use,
} from "./paper.ts";

makePairs();

describe("§6.3 opportunities for a handshake", () => {
  it("come at most once in 5 s, whoever asks", () => {
    cut(b);
    for (let i = 0; i < 100; i++) {
      a.send(toB, i);
      a.wireguard.startHandshake(toB, pair.nowMs);
      pair.run(100);
    }
    for (const gap of gaps(a.timesOf(INITIATION))) expect(gap).toBeGreaterThanOrEqual(5000);
    expect(a.timesOf(INITIATION)).toHaveLength(2);
  });

  it("also for the side that has just answered one, which then asks when the time is over", () => {
    cut(b); // b's response is lost, and a is gone after that
    a.send(toB, 1);
    pair.run(20);
    cut(a);
    b.send(toA, 2);
    expect(b.timesOf(INITIATION)).toEqual([]);
    pair.run(6 * SECOND);
    const [sentMs] = b.timesOf(INITIATION);
    expect(sentMs).toBeGreaterThanOrEqual(5010);
    expect(sentMs).toBeLessThan(5350);
  });
});

describe("§6.4 retransmission", () => {
  it("comes 5 s plus up to 333 ms after the last one", () => {
    cut(a);
    a.send(toB, 1);
    pair.run(60 * SECOND);
    const seen = gaps(a.timesOf(INITIATION));
    expect(seen.length).toBeGreaterThan(9);
    for (const gap of seen) {
      expect(gap).toBeGreaterThanOrEqual(5000);
      expect(gap).toBeLessThanOrEqual(5333);
    }
    expect(new Set(seen).size).toBeGreaterThan(3);
  });

  it("lets the machine choose the source address again", () => {
    a.arena[toB.endpointAt + OWN_ADDRESS_AT] = 10;
    cut(a);
    a.send(toB, 1);
    pair.run(4 * SECOND);
    expect(hasOwnAddress(a.arena, toB.endpointAt)).toBe(true);
    pair.run(2 * SECOND);
    expect(a.timesOf(INITIATION)).toHaveLength(2);
    expect(hasOwnAddress(a.arena, toB.endpointAt)).toBe(false);
  });

  it("gives up after 20 initiations, and what was staged is dropped", () => {
    cut(a);
    a.send(toB, 1);
    a.send(toB, 2);
    pair.run(300 * SECOND);
    expect(a.timesOf(INITIATION)).toHaveLength(20);
    expect(a.flushed).toEqual([1, 2]);
    expect(toB.stagedCount).toBe(0);
  });

  it("starts anew with the next packet after that", () => {
    cut(a);
    a.send(toB, 1);
    pair.run(300 * SECOND);
    a.send(toB, 2);
    pair.run(300 * SECOND);
    expect(a.timesOf(INITIATION)).toHaveLength(40);
    join();
    a.send(toB, 3);
    pair.run(100);
    expect(b.got).toEqual([3]);
  });

  it("does not give up while there are fresh reasons", () => {
    cut(a);
    pair.after(0, () => a.send(toB, 1), 1000);
    pair.run(200 * SECOND);
    expect(a.timesOf(INITIATION).length).toBeGreaterThan(30);
    expect(a.flushed).toEqual([]);
  });

  it("ends with the response", () => {
    pair.connect();
    pair.run(60 * SECOND);
    expect(a.timesOf(INITIATION)).toHaveLength(1);
  });

  it("uses fresh keys, index and timestamp each time, and the response to an older one is not taken", () => {
    cut(a);
    a.send(toB, 1);
    pair.run(6 * SECOND);
    const [first, second] = a.sent.filter((message) => message.type === INITIATION).map((message) => message.bytes);
    expect(first!.subarray(4, 8)).not.toEqual(second!.subarray(4, 8));
    expect(first!.subarray(8, 40)).not.toEqual(second!.subarray(8, 40));
    cut(b);
    expect(b.receive(first!, a.address)).toBe(FORWARD);
    expect(a.receive(b.last(RESPONSE)!.bytes, b.address)).toBe(DROP_STALE_HANDSHAKE);
  });
});

describe("two initiations that cross", () => {
  const settled = () =>
    toB.current !== undefined && toA.current !== undefined &&
    toB.current.localIndex === toA.current.remoteIndex && toB.current.remoteIndex === toA.current.localIndex;

  it("give both sides the same session within two round trips, and no packet is lost", () => {
    for (let seed = 1; seed <= 20; seed++) { // keys differ, so either side is the smaller one
      use(new WireGuardPair(ciphers, { seed, jitterMs: seed % 3 }));
      a.send(toB, 1);
      b.send(toA, 2);
      pair.run(100);
      expect([a.got, b.got]).toEqual([[2], [1]]);
      a.send(toB, 3);
      b.send(toA, 4);
      pair.run(100);
      expect([a.got, b.got]).toEqual([[2, 4], [1, 3]]);
      expect(settled(), `seed ${seed}`).toBe(true);
      expect(toB.current!.isInitiator).not.toBe(toA.current!.isInitiator);
      expect(a.drops.size + b.drops.size).toBe(0);
    }
  });

  it("have one initiator afterwards, so the next handshakes do not cross", () => {
    for (let seed = 1; seed <= 4; seed++) {
      use(new WireGuardPair(ciphers, { seed }));
      a.send(toB, 1);
      b.send(toA, 2);
      pair.after(50, () => a.send(toB, 3), 1_000);
      pair.after(50, () => b.send(toA, 4), 1_000);
      pair.run(600 * SECOND);
      const counts = [a.timesOf(INITIATION).length, b.timesOf(INITIATION).length].sort();
      expect(counts).toEqual([1, 5]);
      expect(a.drops.size + b.drops.size).toBe(0);
    }
  });

  it("end with the first session that is confirmed: a response that comes later is not taken", () => {
    cut(a); // a's initiation is late
    a.send(toB, 1);
    const late = a.last(INITIATION)!.bytes;
    join();
    b.send(toA, 2);
    pair.run(15); // a has answered b, and b will confirm
    expect(b.receive(late, a.address)).toBe(FORWARD);
    const response = b.last(RESPONSE)!.bytes;
    cut(b);
    expect(a.receive(captureConfirmation(), b.address)).toBe(FORWARD);
    expect(toB.pending).toBeUndefined();
    expect(a.receive(response, b.address)).toBe(DROP_STALE_HANDSHAKE);
    expect(toB.current!.isInitiator).toBe(false);

    /** b's first message on its own session: a's response has come. */
    function captureConfirmation(): Uint8Array {
      b.keepsData = true;
      b.receive(a.last(RESPONSE)!.bytes, a.address);
      return b.last(KEEPALIVE)!.bytes;
    }
  });

  it("recover when any one of the four messages is lost", () => {
    for (const [from, type] of [["a", INITIATION], ["b", INITIATION], ["a", RESPONSE], ["b", RESPONSE]] as const) {
      for (let seed = 1; seed <= 4; seed++) {
        use(new WireGuardPair(ciphers, { seed }));
        let hasLost = false;
        pair.network.tap = (datagram) => {
          const isIt = !hasLost && datagram.from === pair[from].address && datagram.bytes[0] === type;
          hasLost ||= isIt;
          return !isIt;
        };
        a.send(toB, 1);
        b.send(toA, 2);
        pair.run(6 * SECOND);
        expect([a.got, b.got], `${from} ${type} ${seed}`).toEqual([[2], [1]]);
        a.send(toB, 3);
        b.send(toA, 4);
        pair.run(100);
        expect([a.got, b.got]).toEqual([[2, 4], [1, 3]]);
      }
    }
  });
});

describe("§5.1 timestamps", () => {
  it("make a replayed initiation fail, and leave the peer as it was", () => {
    pair.connect();
    const initiation = a.last(INITIATION)!.bytes;
    pair.run(SECOND);
    const current = toA.current;
    expect(b.receive(initiation, "198.51.100.9:9")).toBe(DROP_STALE_HANDSHAKE);
    expect([toA.current, toA.next]).toEqual([current, undefined]);
    expect(endpointOf(b, toA)).toBe(a.address);
    expect(b.timesOf(RESPONSE)).toHaveLength(1);
  });

  it("go on after a restart from the saved floor, whatever the clock says", () => {
    pair.connect();
    const sent = a.wireguard.stampFloor;
    pair.run(SECOND);
    a.unixMs = () => 5_000; // no battery
    a.tick();
    pair.run(5 * SECOND);
    a.wireguard.startHandshake(toB, pair.nowMs);
    a.tick();
    pair.run(100);
    expect(b.timesOf(RESPONSE)).toHaveLength(2);
    expect(isLaterStamp(a.wireguard.stampFloor, sent)).toBe(true);
  });

  it("let in at most one initiation of a peer in 20 ms", () => {
    const messages: Uint8Array[] = [];
    cut(a);
    for (let i = 0; i < 3; i++) {
      toB.handshakeSentAtMs = -Infinity; // the sender's own limit left out
      a.wireguard.startHandshake(toB, pair.nowMs);
      a.tick();
      messages.push(a.last(INITIATION)!.bytes);
    }
    expect(b.receive(messages[0]!, a.address)).toBe(FORWARD);
    pair.network.nowMs += 19;
    expect(b.receive(messages[1]!, a.address)).toBe(DROP_RATE_LIMITED);
    pair.network.nowMs += 1;
    expect(b.receive(messages[2]!, a.address)).toBe(FORWARD);
  });
});
