/** Peers of a device and how they change, counters, key log, wiping. The protocol's rules are in `paper_*.test.ts`. */
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { loadSodiumWasm } from "../../../edge/ciphers_wasm.ts";
import { readI32 } from "../../../src/bytes/integers.ts";
import { toBase64, toHex } from "../../../src/bytes/text.ts";
import { parseAddress, parsePrefix } from "../../../src/ip/address.ts";
import { readUnderlayAddr } from "../../../src/ip/underlay_addr.ts";
import type { Ciphers } from "../../../src/ports.ts";
import type { Peer } from "../../../src/tunnel/peer.ts";
import { addressRoomBytes, WireGuard, type WireGuardOptions } from "../../../src/tunnel/wireguard.ts";
import { DROP_BAD_HANDSHAKE, DROP_NO_SESSION, FORWARD } from "../../../src/verdict.ts";
import { type FakeNode, UNIX_START_MS, WireGuardPair } from "../../fakes/wireguard_pair.ts";
import { transcript } from "../../fakes/wireguard_vectors.ts";

const PSK_1 = new Uint8Array(32).fill(1);
const PSK_2 = new Uint8Array(32).fill(2);

let ciphers: Ciphers;
let pair: WireGuardPair;
let a: FakeNode;
let b: FakeNode;
let toA: Peer;
let toB: Peer;

function use(made: WireGuardPair): void {
  pair = made;
  ({ a, b, toA, toB } = made);
}

beforeAll(async () => {
  ciphers = await loadSodiumWasm();
});
beforeEach(() => use(new WireGuardPair(ciphers)));

const spec = (node: FakeNode) => ({
  name: "x",
  publicKey: node.wireguard.publicKey,
  keepaliveSeconds: 0,
  allowedIps: [parsePrefix("10.0.0.0/8")!],
});

/** A device with nobody around. @param draws what the random source gives, in order; 0xaa... when they are used up */
function makeDevice(changes: Partial<WireGuardOptions> = {}, draws: Uint8Array[] = []): WireGuard {
  return new WireGuard({
    privateKey: transcript("Spriv_i"),
    ciphers,
    random: (into) => into.set(draws.shift() ?? new Uint8Array(into.length).fill(0xaa)),
    arena: new Uint8Array(4096),
    addressesAt: 0,
    maxPeers: 4,
    nowMs: 0,
    unixMs: UNIX_START_MS,
    ...changes,
  });
}

describe("counters", () => {
  it("count whole UDP payloads, as the kernel's test expects them", () => {
    // Ten exchanges of an 84-octet ping, padded to 96: 128 each; here packets of 16: 48 each.
    for (let i = 0; i < 10; i++) {
      a.send(toB, i);
      pair.run(100);
      b.send(toA, i);
      pair.run(100);
    }
    expect([toB.txBytes, toB.rxBytes]).toEqual([148 + 10 * 48, 92 + 10 * 48]);
    expect([toA.txBytes, toA.rxBytes]).toEqual([92 + 10 * 48, 148 + 10 * 48]);
    pair.run(15_000);
    expect([toB.txBytes, toA.rxBytes]).toEqual([148 + 10 * 48 + 32, 148 + 10 * 48 + 32]);
  });

  it("tell the wall clock of the last handshake, on each side when it was complete", () => {
    expect(toB.lastHandshakeUnixMs).toBe(0);
    pair.run(1000);
    pair.connect();
    expect(toB.lastHandshakeUnixMs).toBe(UNIX_START_MS + 1020);
    expect(toA.lastHandshakeUnixMs).toBe(UNIX_START_MS + 1030);
  });
});

describe("putPeer", () => {
  it("changes nothing when the same is said again", () => {
    pair.connect();
    const { current } = toB;
    const dueMs = a.dueMs;
    expect(a.knows(b)).toBe(toB);
    expect([toB.current, a.dueMs]).toEqual([current, dueMs]);
    expect([...a.wireguard.peers()]).toEqual([toB]);
  });

  it("changes allowed IPs live, and moves one that another peer had", () => {
    const other = new WireGuardPair(ciphers, { seed: 9 });
    const third = a.wireguard.putPeer({ ...spec(other.a), allowedIps: [parsePrefix("10.1.0.0/16")!] }, 0);
    const find = (text: string) => a.wireguard.allowedIps.find4(readI32(parseAddress(text)!, 0));
    expect([find("10.1.0.1"), find("10.2.0.1")]).toEqual([third.slot, toB.slot]);
    a.knows(b, { allowedIps: [parsePrefix("10.1.0.0/16")!] });
    expect([find("10.1.0.1"), find("10.2.0.1")]).toEqual([toB.slot, -1]);
    expect(a.wireguard.peerAt(toB.slot)).toBe(toB);
  });

  it("with a changed preshared key ends the sessions; the same key again does not", () => {
    use(new WireGuardPair(ciphers, { a: { presharedKey: PSK_1 }, b: { presharedKey: PSK_1 } }));
    pair.connect();
    expect(b.got).toEqual([0]);
    const session = toB.current!;
    a.knows(b, { presharedKey: PSK_1.slice() });
    expect(toB.current).toBe(session);
    a.knows(b, { presharedKey: PSK_2 });
    expect(toB.current).toBeUndefined();
    expect(session.isWiped).toBe(true);
    a.send(toB, 1);
    pair.run(7000);
    expect(a.dropsOf(DROP_BAD_HANDSHAKE)).toBeGreaterThan(0);
    expect(b.got).toEqual([0]);
    b.knows(a, { presharedKey: PSK_2 });
    pair.run(7000);
    expect(b.got).toEqual([0, 1]);
  });

  it("takes no preshared key and 32 zero octets as the same", () => {
    use(new WireGuardPair(ciphers, { a: { presharedKey: new Uint8Array(32) } }));
    pair.connect();
    a.knows(b, { presharedKey: undefined });
    expect(toB.current).toBeDefined();
    expect(b.got).toEqual([0]);
  });

  it("without an endpoint asks nobody, until the peer speaks or an endpoint is given", () => {
    use(new WireGuardPair(ciphers, { b: { endpoint: undefined } }));
    b.send(toA, 1);
    pair.run(60_000);
    expect(b.sent).toEqual([]);
    expect(readUnderlayAddr(b.arena, toA.endpointAt)).toBeUndefined();
    pair.connect();
    expect(readUnderlayAddr(b.arena, toA.endpointAt)).toMatchObject({ port: 51820 });
    expect(a.got).toEqual([1]);
  });

  it("refuses what is out of range, changing nothing", () => {
    const good = spec(b);
    const bad = [
      { ...good, publicKey: new Uint8Array(31) },
      { ...good, publicKey: a.wireguard.publicKey },
      { ...good, presharedKey: new Uint8Array(33) },
      { ...good, keepaliveSeconds: -1 },
      { ...good, keepaliveSeconds: 65536 },
      { ...good, keepaliveSeconds: NaN },
      { ...good, allowedIps: [{ address: new Uint8Array(5), length: 8 }] },
      { ...good, allowedIps: [parsePrefix("10.0.0.0/8")!, { address: new Uint8Array(4), length: 33 }] },
      { ...good, endpoint: { address: new Uint8Array(3), port: 1, scope: 0 } },
    ];
    for (const each of bad) expect(() => a.wireguard.putPeer({ ...each, name: "bad" }, 0)).toThrow(RangeError);
    expect(toB.name).not.toBe("bad");
    expect([...a.wireguard.peers()]).toHaveLength(1);
  });

  it("refuses more peers than there is room for, and takes one again when another is gone", () => {
    const device = makeDevice({ maxPeers: 2 });
    const keyOf = (n: number) => ciphers.publicKeyOf(new Uint8Array(32).fill(n));
    const put = (n: number) => device.putPeer({ ...spec(b), publicKey: keyOf(n) }, 0);
    put(1);
    put(2);
    expect(() => put(3)).toThrow(/Cannot add peer "x": all 2 places are taken/);
    expect(device.removePeer(keyOf(1))).toBe(true);
    expect(put(3).slot).toBe(0);
  });

  it("never makes a handshake with a public key of low order, and does not fail over it", () => {
    const device = makeDevice();
    const peer = device.putPeer({
      ...spec(b),
      publicKey: new Uint8Array(32),
      endpoint: { address: Uint8Array.of(192, 0, 2, 1), port: 1, scope: 0 },
    }, 0);
    expect(device.sealing(peer, 0)).toBeUndefined();
    expect(device.outbox.count).toBe(0);
  });
});

describe("removePeer", () => {
  it("ends its sessions at once, overwrites its secrets, and frees its address", () => {
    pair.connect();
    const { current, keys } = toB;
    b.send(toA, 5);
    expect(a.wireguard.removePeer(b.wireguard.publicKey)).toBe(true);
    pair.run(50);
    expect(a.dropsOf(DROP_NO_SESSION)).toBe(1);
    expect(current!.isWiped).toBe(true);
    expect(toHex(keys.staticShared!)).toMatch(/^0+$/);
    expect(a.wireguard.findPeer(b.wireguard.publicKey)).toBeUndefined();
    expect(a.wireguard.removePeer(b.wireguard.publicKey)).toBe(false);
    pair.run(1_000_000);
    expect(a.timesOf(1)).toHaveLength(1);
  });

  it("takes back what was queued to it", () => {
    a.wireguard.startHandshake(toB, 0);
    a.wireguard.removePeer(b.wireguard.publicKey);
    a.tick();
    expect(a.sent).toEqual([]);
  });
});

describe("the transcript", () => {
  it("is spoken by the device, from initiation to data", () => {
    const arena = new Uint8Array(4096);
    const index = Uint8Array.of(4, 3, 2, 1);
    const device = makeDevice({ arena, unixMs: 1_700_000_000_560 }, [transcript("Epriv_i"), index]);
    const peer = device.putPeer({
      ...spec(b),
      publicKey: transcript("Spub_r"),
      presharedKey: transcript("psk"),
      endpoint: { address: Uint8Array.of(192, 0, 2, 9), port: 51820, scope: 0 },
    }, 0);
    const cipher = ciphers.packetCipher(arena);
    const at = addressRoomBytes(4);
    const out = () => {
      const end = device.writeOutgoing(device.outbox.at(0), cipher, at);
      device.outbox.clear();
      return toHex(arena.subarray(at, end));
    };
    const put = (name: "msg2_response" | "msg4_data_r_ctr0") => {
      const bytes = transcript(name);
      arena.set(bytes, at);
      return at + bytes.length;
    };
    expect(device.sealing(peer, 0)).toBeUndefined();
    expect(out()).toBe(toHex(transcript("msg1_initiation")));
    expect(device.receiveControl(arena, at, put("msg2_response"), peer.endpointAt, 10, 1_700_000_000_570)).toBe(
      FORWARD,
    );
    expect(out()).toBe(toHex(transcript("msg4_keepalive_i_ctr0")));

    const session = device.sealing(peer, 20)!;
    const inner = transcript("inner_packet");
    arena.fill(0, at, at + 128);
    arena.set(inner, at + 16);
    const end = device.writeTransport(session, cipher, arena, at, at + 16 + 48, at + 256);
    expect(toHex(arena.subarray(at + 256, end))).toBe(toHex(transcript("msg4_data_i_ctr1")));

    const dataEnd = put("msg4_data_r_ctr0");
    expect(device.open(cipher, arena, at, dataEnd, peer.endpointAt, 30)).toBe(FORWARD);
    expect(toHex(arena.subarray(device.openedAt, device.openedAt + inner.length))).toBe(toHex(inner));
    expect([device.openedAt, device.openedEnd, device.openedPeer]).toEqual([at + 16, dataEnd - 16, peer]);
  });
});

describe("key log", () => {
  it("has four lines per handshake in the order that tshark reads", () => {
    const lines: string[] = [];
    b.wireguard.onKeys = (line) => lines.push(line);
    pair.connect();
    expect(lines.map((line) => line.split(" = ")[0])).toEqual([
      "REMOTE_STATIC_PUBLIC_KEY",
      "LOCAL_STATIC_PRIVATE_KEY",
      "LOCAL_EPHEMERAL_PRIVATE_KEY",
      "PRESHARED_KEY",
    ]);
    expect(lines[0]).toBe(`REMOTE_STATIC_PUBLIC_KEY = ${toBase64(a.wireguard.publicKey)}`);
    const ephemeral = Uint8Array.from(atob(lines[2]!.split(" = ")[1]!), (c) => c.charCodeAt(0));
    expect(toHex(ciphers.publicKeyOf(ephemeral))).toBe(toHex(b.last(2)!.bytes.subarray(12, 44)));
  });
});

describe("the device", () => {
  it("refuses a key, a room or a floor that cannot be", () => {
    expect(() => makeDevice({ privateKey: new Uint8Array(31) })).toThrow(RangeError);
    expect(() => makeDevice({ maxPeers: 1000 })).toThrow(RangeError);
    expect(() => makeDevice({ addressesAt: -32 })).toThrow(RangeError);
    expect(() => makeDevice({ stampFloor: new Uint8Array(12) })).toThrow(RangeError);
  });

  it("overwrites everything when it is wiped", () => {
    pair.connect();
    const { current } = toB;
    a.wireguard.wipe();
    expect(current!.isWiped).toBe(true);
    expect([...a.wireguard.peers()]).toEqual([]);
  });

  it("has no timer while it has nothing to do", () => {
    expect(a.wireguard.tick(0, UNIX_START_MS)).toBe(Infinity);
  });

  it("may be asked for the next deadline again and again without losing one", () => {
    pair.connect();
    const dueMs = a.wireguard.tick(pair.nowMs, a.unixMs());
    expect(a.wireguard.tick(pair.nowMs, a.unixMs())).toBe(dueMs);
    expect(dueMs).toBeLessThan(pair.nowMs + 16_000);
  });
});
