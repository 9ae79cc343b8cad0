/**
 * Roaming as the WireGuard paper has it (§2.1): a peer is where its last authenticated message came from. One test
 * per statement.
 */
import { describe, expect, it } from "vitest";
import { FORWARD } from "../../../src/verdict.ts";
import {
  a,
  b,
  capture,
  COOKIE,
  cut,
  endpointOf,
  INITIATION,
  join,
  KEEPALIVE,
  load,
  makePairs,
  pair,
  RESPONSE,
  SECOND,
  toA,
  toB,
} from "./paper.ts";

makePairs();

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
