/**
 * The WireGuard paper's rules (§5.3, §6) and the kernel's tables of timers and sessions, one test per statement. Two devices
 * in one process, a clock that the test moves, one-way delay of 10 ms.
 */
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { loadSodiumWasm } from "../../../edge/ciphers_wasm.ts";
import { formatUnderlayAddr, hasOwnAddress, OWN_ADDRESS_AT, readUnderlayAddr } from "../../../src/ip/underlay_addr.ts";
import { isLaterStamp } from "../../../src/noise/tai64n.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { LOAD_QUEUE_THRESHOLD, REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES } from "../../../src/tunnel/constants.ts";
import type { Peer } from "../../../src/tunnel/peer.ts";
import {
  DROP_BAD_COOKIE,
  DROP_NO_SESSION,
  DROP_RATE_LIMITED,
  DROP_REPLAYED,
  DROP_SESSION_EXPIRED,
  DROP_STALE_HANDSHAKE,
  DROP_UNDER_LOAD,
  FORWARD,
} from "../../../src/verdict.ts";
import { type FakeNode, WireGuardPair } from "../../fakes/wireguard_pair.ts";

const INITIATION = 1;
const RESPONSE = 2;
const COOKIE = 3;
const KEEPALIVE = 4;
const SECOND = 1000;

let ciphers: Ciphers;
let pair: WireGuardPair;
let a: FakeNode;
let b: FakeNode;
let toA: Peer;
let toB: Peer;

beforeAll(async () => {
  ciphers = await loadSodiumWasm();
});
beforeEach(() => use(new WireGuardPair(ciphers)));

function use(made: WireGuardPair): void {
  pair = made;
  ({ a, b, toA, toB } = made);
}

/** From here on nothing that a node sends arrives. */
function cut(...nodes: FakeNode[]): void {
  pair.network.tap = (datagram) => !nodes.some((node) => node.address === datagram.from);
}

const join = () => pair.network.tap = () => true;
const endpointOf = (node: FakeNode, peer: Peer) => formatUnderlayAddr(readUnderlayAddr(node.arena, peer.endpointAt)!);
const gaps = (times: number[]) => times.slice(1).map((time, i) => time - times[i]!);

/** A data message of the node, as it would arrive, that the network does not carry. */
function capture(node: FakeNode, peer: Peer, value: number): Uint8Array {
  const tap = pair.network.tap;
  let captured: Uint8Array | undefined;
  pair.network.tap = (datagram) => {
    captured = datagram.bytes;
    return false;
  };
  node.send(peer, value);
  pair.network.tap = tap;
  return captured!;
}

describe("§6.1 sending without a session", () => {
  it("stages the packet, makes a handshake, and then sends it with no keepalive of its own", () => {
    a.send(toB, 7);
    expect(toB.stagedCount).toBe(1);
    pair.run(100);
    expect(b.got).toEqual([7]);
    expect(b.keepalives).toBe(0);
    expect([a.timesOf(INITIATION), b.timesOf(RESPONSE)]).toEqual([[0], [10]]);
  });

  it("lets the responder send only after the initiator's first message", () => {
    cut(b);
    a.send(toB, 1);
    pair.run(20);
    join();
    b.send(toA, 9); // it has `next`, but may not send with it
    expect(toA.stagedCount).toBe(1);
    expect(toA.next).toBeDefined();
    expect(b.wireguard.hasSession(toA, pair.nowMs)).toBe(false);
  });

  it("sends what the responder had staged as soon as the initiator has confirmed", () => {
    a.send(toB, 1);
    pair.run(15);
    b.send(toA, 9);
    pair.run(100);
    expect(a.got).toEqual([9]);
    expect(b.timesOf(INITIATION)).toEqual([]);
  });

  it("sends the initiator's keepalive as key confirmation when nothing is staged", () => {
    a.wireguard.startHandshake(toB, 0);
    a.tick();
    pair.run(100);
    expect(b.keepalives).toBe(1);
    expect(b.wireguard.hasSession(toA, pair.nowMs)).toBe(true);
  });
});

describe("§6.2 limits of a session", () => {
  it("makes its initiator start a new handshake when it sends after 120 s, and not before", () => {
    pair.connect();
    pair.run(119_000);
    a.send(toB, 1);
    expect(a.timesOf(INITIATION)).toHaveLength(1);
    pair.run(1_000);
    a.send(toB, 2);
    expect(a.timesOf(INITIATION)).toHaveLength(2);
    pair.run(100);
    expect(b.got).toEqual([0, 1, 2]);
  });

  it("never makes its responder start one because of its age", () => {
    pair.connect();
    b.send(toA, 1);
    pair.run(150 * SECOND);
    cut(a); // a's own keepalives would renew it
    b.send(toA, 2);
    expect(b.timesOf(INITIATION)).toEqual([]);
  });

  it("makes its initiator start a new one on receipt after 165 s, once", () => {
    pair.connect();
    const session = toB.current!;
    const count = a.timesOf(INITIATION).length;
    cut(a);
    pair.run(164_900 - (pair.nowMs - session.createdAtMs));
    b.send(toA, 1);
    pair.run(50);
    expect(a.timesOf(INITIATION)).toHaveLength(count);
    pair.run(1_000);
    b.send(toA, 2);
    pair.run(50);
    expect(a.timesOf(INITIATION)).toHaveLength(count + 1);
    toB.retransmitAtMs = Infinity; // leave out the retries: is there a second reason?
    pair.run(6_000);
    b.send(toA, 3);
    pair.run(50);
    expect(a.timesOf(INITIATION)).toHaveLength(count + 1);
  });

  it("refuses to send at 180 s: the packet is staged and a handshake made", () => {
    pair.connect();
    const bornMs = toB.current!.createdAtMs;
    expect(a.wireguard.hasSession(toB, bornMs + 179_999)).toBe(true);
    expect(a.wireguard.hasSession(toB, bornMs + 180_000)).toBe(false);
    pair.run(bornMs + 180_000 - pair.nowMs);
    a.send(toB, 5);
    expect(toB.stagedCount).toBe(1);
    pair.run(100);
    expect(b.got).toEqual([0, 5]);
  });

  it("refuses to receive at 180 s", () => {
    pair.connect();
    const message = capture(a, toB, 5);
    const bornMs = toA.current!.createdAtMs;
    pair.network.nowMs = bornMs + 180_000;
    expect(b.receive(message, a.address)).toBe(DROP_SESSION_EXPIRED);
    pair.network.nowMs = bornMs + 179_999;
    expect(b.receive(message, a.address)).toBe(FORWARD);
  });

  it("is renewed by either side when it has sent too many messages", () => {
    for (const name of ["a", "b"] as const) {
      use(new WireGuardPair(ciphers));
      pair.connect();
      pair.run(10 * SECOND);
      const [node, peer] = name === "a" ? [a, toB] : [b, toA];
      const before = node.timesOf(INITIATION).length;
      peer.current!.sendCounter = REKEY_AFTER_MESSAGES;
      node.send(peer, 1);
      expect(node.timesOf(INITIATION)).toHaveLength(before + 1);
    }
  });

  it("refuses to send when its counter is used up", () => {
    pair.connect();
    pair.run(10 * SECOND);
    toB.current!.sendCounter = REJECT_AFTER_MESSAGES;
    a.send(toB, 1);
    expect(toB.stagedCount).toBe(1);
    pair.run(100);
    expect(b.got).toEqual([0, 1]);
  });
});

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

describe("§6.2 zeroing of keys", () => {
  it("overwrites all sessions 540 s after the last one was made", () => {
    pair.connect();
    const session = toB.current!;
    pair.run(539 * SECOND);
    expect(toB.current).toBe(session);
    expect(session.isWiped).toBe(false);
    pair.run(2 * SECOND);
    expect(toB.current).toBeUndefined();
    expect(toA.current).toBeUndefined();
    expect(session.isWiped).toBe(true);
    expect(a.wireguard.findSession(session.localIndex)).toBeUndefined();
    expect(a.dueMs).toBe(Infinity);
  });

  it("also after a handshake that was given up", () => {
    cut(a);
    a.send(toB, 1);
    pair.run(120 * SECOND);
    expect(toB.pending).toBeDefined();
    pair.run(540 * SECOND);
    expect(toB.pending).toBeUndefined();
  });

  it("does not end a handshake that is still being tried", () => {
    pair.connect();
    cut(a, b);
    pair.after(0, () => a.send(toB, 1), 3_000);
    pair.run(600 * SECOND);
    const before = a.timesOf(INITIATION).length;
    pair.run(20 * SECOND);
    expect(a.timesOf(INITIATION).length).toBeGreaterThan(before + 2);
  });
});

describe("session slots", () => {
  it("initiator got the response: previous = old current, current = new", () => {
    pair.connect();
    const old = toB.current;
    pair.run(125 * SECOND);
    a.send(toB, 1);
    pair.run(100);
    expect(toB.previous).toBe(old);
    expect(toB.current).not.toBe(old);
    expect(toB.current!.isInitiator).toBe(true);
    expect(toB.next).toBeUndefined();
  });

  it("initiator got the response while a next waited: previous = old next, old current is deleted", () => {
    pair.connect();
    pair.run(10 * SECOND);
    const old = toA.current!;
    // a asks, b answers, the answer is lost, a is silent: b has a next that waits
    cut(b);
    a.wireguard.startHandshake(toB, pair.nowMs);
    a.tick();
    pair.run(50);
    const waiting = toA.next!;
    a.wireguard.removePeer(b.wireguard.publicKey);
    use(Object.assign(pair, { toB: a.knows(b) }));
    join();
    pair.run(6 * SECOND);
    b.wireguard.startHandshake(toA, pair.nowMs);
    b.tick();
    pair.run(100);
    expect(toA.previous).toBe(waiting);
    expect(toA.current!.isInitiator).toBe(true);
    expect(toA.current).not.toBe(old);
    expect(old.isWiped).toBe(true);
    expect(b.wireguard.findSession(old.localIndex)).toBeUndefined();
    expect(toA.next).toBeUndefined();
  });

  it("responder sent the response: previous and old next are deleted, current stays", () => {
    pair.connect();
    pair.run(125 * SECOND);
    a.send(toB, 1);
    pair.run(100);
    const [previous, current] = [toA.previous!, toA.current!];
    pair.run(6 * SECOND);
    cut(b);
    a.wireguard.startHandshake(toB, pair.nowMs);
    a.tick();
    pair.run(50);
    const next = toA.next!;
    expect(toA.previous).toBeUndefined();
    expect(previous.isWiped).toBe(true);
    expect(toA.current).toBe(current);
    pair.run(6 * SECOND); // a repeats it
    expect(toA.next).not.toBe(next);
    expect(next.isWiped).toBe(true);
    expect(toA.current).toBe(current);
  });

  it("first valid data message on next: previous = old current, current = old next", () => {
    pair.connect();
    pair.run(125 * SECOND);
    const old = toA.current;
    a.send(toB, 1);
    pair.run(15);
    const next = toA.next;
    expect(next).toBeDefined();
    expect(toA.current).toBe(old);
    pair.run(100);
    expect([toA.previous, toA.current, toA.next]).toEqual([old, next, undefined]);
  });

  it("messages of the previous session are still taken", () => {
    pair.connect();
    pair.run(125 * SECOND);
    const late = capture(b, toA, 42);
    a.send(toB, 1);
    pair.run(100);
    expect(a.receive(late, b.address)).toBe(FORWARD);
    expect(a.got).toEqual([42]);
  });

  it("indices of a deleted session are unknown", () => {
    pair.connect();
    const late = capture(b, toA, 42);
    for (let i = 0; i < 2; i++) {
      pair.run(125 * SECOND);
      a.send(toB, 1);
      pair.run(100);
    }
    expect(a.receive(late, b.address)).toBe(DROP_NO_SESSION);
  });

  it("a counter is accepted once", () => {
    pair.connect();
    const message = capture(a, toB, 42);
    expect(b.receive(message, a.address)).toBe(FORWARD);
    expect(b.receive(message, a.address)).toBe(DROP_REPLAYED);
    expect(b.got).toEqual([0, 42]);
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

describe("§2.1 roaming", () => {
  it("follows an authenticated data message", () => {
    pair.connect();
    a.address = "198.51.100.1:1111";
    a.send(toB, 1);
    pair.run(50);
    expect(endpointOf(b, toA)).toBe("198.51.100.1:1111");
    b.send(toA, 2);
    pair.run(50);
    expect(a.got).toEqual([2]);
  });

  it("follows a keepalive, an initiation and a response", () => {
    pair.connect();
    expect(b.receive(captureKeepalive(), "198.51.100.2:2")).toBe(FORWARD);
    expect(endpointOf(b, toA)).toBe("198.51.100.2:2");
    pair.run(6 * SECOND);
    cut(a, b);
    a.wireguard.startHandshake(toB, pair.nowMs);
    a.tick();
    expect(b.receive(a.last(INITIATION)!.bytes, "198.51.100.3:3")).toBe(FORWARD);
    expect(endpointOf(b, toA)).toBe("198.51.100.3:3");
    expect(b.last(RESPONSE)!.to).toBe("198.51.100.3:3");
    expect(a.receive(b.last(RESPONSE)!.bytes, "198.51.100.4:4")).toBe(FORWARD);
    expect(endpointOf(a, toB)).toBe("198.51.100.4:4");
  });

  it("takes the last valid message of a batch", () => {
    pair.connect();
    const messages = [1, 2, 3].map((value) => capture(a, toB, value));
    const bad = messages[2]!.slice();
    bad[20]! ^= 1;
    b.receiveInBatch(messages[0]!, "198.51.100.1:1", 320);
    b.receiveInBatch(messages[1]!, "198.51.100.2:2", 352);
    b.receiveInBatch(bad, "198.51.100.3:3", 384);
    b.finishBatch();
    expect(endpointOf(b, toA)).toBe("198.51.100.2:2");
  });

  it("takes an initiation behind data in the same batch as the later one", () => {
    pair.connect();
    pair.run(6 * SECOND);
    const data = capture(a, toB, 1);
    cut(a);
    a.wireguard.startHandshake(toB, pair.nowMs);
    a.tick();
    b.receiveInBatch(data, "198.51.100.1:1", 320);
    b.receiveInBatch(a.last(INITIATION)!.bytes, "198.51.100.2:2", 352);
    b.finishBatch();
    expect(endpointOf(b, toA)).toBe("198.51.100.2:2");
  });

  it("does not follow what fails to authenticate, is replayed, or is a cookie reply", () => {
    pair.connect();
    const message = capture(a, toB, 1);
    const forged = message.slice();
    forged[31]! ^= 1;
    b.receive(forged, "198.51.100.1:1");
    b.receive(message, a.address);
    b.receive(message, "198.51.100.1:1");
    expect(endpointOf(b, toA)).toBe(a.address);
    load(b);
    cut(b);
    pair.run(6 * SECOND);
    load(b);
    a.wireguard.startHandshake(toB, pair.nowMs);
    a.tick();
    pair.run(20);
    const cookie = b.last(COOKIE)!.bytes;
    expect(a.receive(cookie, "198.51.100.1:1")).toBe(FORWARD);
    expect(endpointOf(a, toB)).toBe(b.address);
  });

  it("is not undone when the same endpoint is configured again, and is by another one", () => {
    pair.connect();
    b.address = "198.51.100.1:1111";
    b.send(toA, 1);
    pair.run(50);
    a.knows(b, { endpoint: { address: Uint8Array.of(192, 0, 2, 2), port: 51820, scope: 0 } });
    expect(endpointOf(a, toB)).toBe("198.51.100.1:1111");
    a.knows(b, { endpoint: { address: Uint8Array.of(192, 0, 2, 3), port: 51820, scope: 0 } });
    expect(endpointOf(a, toB)).toBe("192.0.2.3:51820");
  });

  /** A keepalive of a, which the network does not carry. */
  function captureKeepalive(): Uint8Array {
    b.send(toA, 1);
    cut(a);
    pair.run(11 * SECOND);
    join();
    return a.last(KEEPALIVE)!.bytes;
  }
});

/** Puts a node under load with initiations of strangers, whose mac1 is right. */
function load(node: FakeNode): void {
  const stranger = new WireGuardPair(ciphers, { seed: 99 });
  const peer = stranger.a.wireguard.putPeer({
    name: "target",
    publicKey: node.wireguard.publicKey,
    keepaliveSeconds: 0,
    allowedIps: [],
    endpoint: { address: Uint8Array.of(203, 0, 113, 1), port: 1, scope: 0 },
  }, 0);
  stranger.a.wireguard.startHandshake(peer, 0);
  stranger.a.tick();
  const message = stranger.a.last(INITIATION)!.bytes;
  for (let i = 0; i <= LOAD_QUEUE_THRESHOLD; i++) node.receive(message, "203.0.113.1:1");
}

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
