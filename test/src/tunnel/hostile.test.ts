/**
 * Anything at all as a datagram: no throw, and a verdict other than FORWARD unless the message is genuine. What is refused
 * leaves handshakes, sessions, endpoints and counters as they were.
 */
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import fc from "fast-check";
import { loadSodiumWasm } from "../../../edge/ciphers_wasm.ts";
import { toHex } from "../../../src/bytes/text.ts";
import { UNDERLAY_ADDR_BYTES } from "../../../src/ip/underlay_addr.ts";
import type { Ciphers } from "../../../src/ports.ts";
import {
  DROP_BAD_MAC1,
  DROP_BAD_TAG,
  DROP_COUNTER_RANGE,
  DROP_NO_SESSION,
  DROP_STALE_HANDSHAKE,
  DROP_UNKNOWN_MESSAGE,
  DROP_UNKNOWN_PEER,
  FORWARD,
} from "../../../src/verdict.ts";
import { seeded } from "../../fakes/network.ts";
import { type FakeNode, WireGuardPair } from "../../fakes/wireguard_pair.ts";

const STRANGER = "203.0.113.7:7";

let ciphers: Ciphers;
let pair: WireGuardPair;
let a: FakeNode;
let b: FakeNode;
beforeAll(async () => {
  ciphers = await loadSodiumWasm();
});
beforeEach(() => {
  pair = new WireGuardPair(ciphers);
  ({ a, b } = pair);
});

/** All that a refused message must not change. */
function stateOf(node: FakeNode): string {
  const [peer] = node.wireguard.peers();
  const { previous, current, next, pending, rxBytes, txBytes, retransmitAtMs, keepaliveAtMs, newHandshakeAtMs } = peer!;
  const sessions = [previous, current, next].map((session) => session?.localIndex);
  const endpoint = toHex(node.arena.subarray(peer!.endpointAt, peer!.endpointAt + UNDERLAY_ADDR_BYTES));
  return JSON.stringify([
    sessions,
    pending?.localIndex,
    toHex(peer!.greatestStamp),
    rxBytes,
    txBytes,
    [retransmitAtMs, keepaliveAtMs, newHandshakeAtMs],
    endpoint,
  ]);
}

/** A data message and a response for b, not delivered; b would accept each, in this order. */
function genuineMessages(): Uint8Array[] {
  pair.connect();
  const held: Uint8Array[] = [];
  pair.network.tap = (datagram) => {
    if (datagram.to === b.address) held.push(datagram.bytes);
    return datagram.to !== b.address;
  };
  a.send(pair.toB, 77);
  pair.run(6000);
  b.wireguard.startHandshake(pair.toA, pair.nowMs);
  b.tick();
  pair.run(50); // a's response is held
  const response = held.find((bytes) => bytes[0] === 2)!;
  return [held.find((bytes) => bytes[0] === 4)!, response];
}

describe("a datagram of random octets", () => {
  it("is refused by name, whatever it begins with", () => {
    pair.connect();
    const before = stateOf(b);
    const draw = seeded(42);
    const index = pair.toA.current!.localIndex;
    for (let i = 0; i < 60_000; i++) {
      const size = [32, 64, 92, 148, Math.floor(draw() * 300)][i % 5]!;
      const bytes = Uint8Array.from({ length: size }, () => Math.floor(draw() * 256));
      if (i % 2 === 0 && size >= 4) bytes.set([(i >> 3) % 5, 0, 0, 0]);
      if (i % 4 === 0 && size >= 8) bytes.set([index, index >> 8, index >> 16, index >> 24], 4);
      expect(b.receiveInBatch(bytes, STRANGER)).not.toBe(FORWARD);
    }
    b.finishBatch();
    expect(stateOf(b)).toBe(before);
    expect(b.drops.size).toBeGreaterThanOrEqual(5);
  });

  it("never throws and never authenticates (shrinking search)", () => {
    pair.connect();
    fc.assert(fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.constantFrom(0, 1, 2, 3, 4),
      (bytes, type) => {
        if (type > 0 && bytes.length > 4) bytes.set([type, 0, 0, 0]);
        expect(b.receiveInBatch(bytes, STRANGER)).not.toBe(FORWARD);
      },
    ));
  });
});

describe("a genuine message with something changed", () => {
  it("is refused 40 000 times, and the genuine one is still accepted after that", () => {
    const messages = genuineMessages();
    expect(messages.map((bytes) => bytes[0])).toEqual([4, 2]);
    const draw = seeded(43);
    const pick = (below: number) => Math.floor(draw() * below);
    const before = stateOf(b);
    let tried = 0;
    for (let i = 0; i < 40_000; i++) {
      const genuine = messages[i % messages.length]!;
      const bytes = mutate(genuine, pick);
      if (toHex(bytes) === toHex(genuine)) continue;
      tried++;
      expect(b.receiveInBatch(bytes, STRANGER), toHex(bytes)).not.toBe(FORWARD);
    }
    b.finishBatch();
    expect(tried).toBeGreaterThan(39_000);
    expect(stateOf(b)).toBe(before);
    for (const genuine of messages) expect(b.receive(genuine, a.address)).toBe(FORWARD);
    expect(b.got).toContain(77);
  });

  /** Changes that spare mac2, which nobody looks at without load. */
  function mutate(genuine: Uint8Array, pick: (below: number) => number): Uint8Array {
    const bytes = genuine.slice();
    const covered = bytes[0] === 2 ? 76 : bytes.length;
    switch (pick(5)) {
      case 0:
        bytes[pick(covered)]! ^= 1 << pick(8);
        return bytes;
      case 1:
        return bytes.slice(0, pick(bytes.length));
      case 2: {
        const longer = new Uint8Array(bytes.length + 1 + pick(40));
        longer.set(bytes);
        return longer;
      }
      case 3: {
        const at = pick(covered);
        bytes.fill(pick(256), at, Math.min(covered, at + 1 + pick(16)));
        return bytes;
      }
      default:
        for (let i = 0; i < 4; i++) bytes[pick(covered)] = pick(256);
        return bytes;
    }
  }

  it("bit by bit: an initiation, on any bit that mac1 covers or is", () => {
    const messages: Uint8Array[] = [];
    pair.network.tap = (datagram) => {
      messages.push(datagram.bytes);
      return false;
    };
    a.send(pair.toB, 1);
    const before = stateOf(b);
    for (let at = 0; at < 132; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const bytes = messages[0]!.slice();
        bytes[at]! ^= 1 << bit;
        expect([DROP_UNKNOWN_MESSAGE, DROP_BAD_MAC1]).toContain(b.receive(bytes, STRANGER));
      }
    }
    expect(stateOf(b)).toBe(before);
    expect(b.sent).toEqual([]);
    expect(b.receive(messages[0]!, a.address)).toBe(FORWARD);
  });
});

describe("a data message", () => {
  it("with a counter of 2^53 or more is dropped before it is decrypted", () => {
    const [data] = genuineMessages();
    for (const high of [0x20_0000, 0x8000_0000, 0xffff_ffff]) {
      const bytes = data!.slice();
      bytes.set([high, high >>> 8, high >>> 16, high >>> 24], 12);
      expect(b.receive(bytes, a.address)).toBe(DROP_COUNTER_RANGE);
    }
    const bytes = data!.slice();
    bytes.set([0xff, 0xff, 0x1f, 0], 12);
    expect(b.receive(bytes, a.address)).toBe(DROP_BAD_TAG);
    expect(b.receive(data!, a.address)).toBe(FORWARD); // a forged counter did not move the window
  });

  it("for an unknown index, and a handshake message for one, are dropped", () => {
    const [data, response] = genuineMessages();
    data![4]! ^= 0x80;
    expect(b.receive(data!, a.address)).toBe(DROP_NO_SESSION);
    const stale = new WireGuardPair(ciphers, { seed: 1 }); // the same keys, but nothing was asked
    expect(stale.b.receive(response!, a.address)).toBe(DROP_STALE_HANDSHAKE);
  });

  it("cut to 31 octets is no message", () => {
    const [data] = genuineMessages();
    expect(b.receive(data!.subarray(0, 31), a.address)).toBe(DROP_UNKNOWN_MESSAGE);
  });
});

describe("an initiation", () => {
  it("of a key that is no peer is refused", () => {
    b.wireguard.removePeer(a.wireguard.publicKey);
    a.send(pair.toB, 1);
    pair.run(50);
    expect(b.dropsOf(DROP_UNKNOWN_PEER)).toBe(1);
    expect(b.sent).toEqual([]);
  });

  it("for another device is refused at mac1", () => {
    const other = new WireGuardPair(ciphers, { seed: 50 });
    a.send(pair.toB, 1);
    expect(other.b.receive(a.last(1)!.bytes, a.address)).toBe(DROP_BAD_MAC1);
  });
});
