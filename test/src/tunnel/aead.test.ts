/** AEADs between members: keys, what each side seals with, how the other finds out, and what happens when records change. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { loadSodiumWasm } from "../../../edge/ciphers_wasm.ts";
import { readU32LE, writeU32LE } from "../../../src/bytes/integers.ts";
import { parsePrefix } from "../../../src/ip/address.ts";
import { toHex } from "../../../src/bytes/text.ts";
import type { AeadName, Ciphers, TransportKey } from "../../../src/ports.ts";
import { deriveAeadKey, factsOf, makeAeadKey } from "../../../src/tunnel/aead.ts";
import { ReceiveKeys } from "../../../src/tunnel/receive_keys.ts";
import { isUsable } from "../../../src/tunnel/sending.ts";
import { Session } from "../../../src/tunnel/session.ts";
import { DROP_BAD_TAG, DROP_COUNTER_RANGE, FORWARD } from "../../../src/verdict.ts";
import { AT_TRANSPORT_COUNTER, AT_TRANSPORT_RECEIVER, MESSAGE_TRANSPORT } from "../../../src/wire/wg_message.ts";
import { type FakeNode, WireGuardPair } from "../../fakes/wireguard_pair.ts";

const AEGIS = { aead: "aegis128l" } as const;
/** of a keepalive, and of a packet of 16 octets */
const CHACHA_SIZES = [16 + 16, 16 + 16 + 16];
const AEGIS_SIZES = [16 + 32, 16 + 16 + 32];

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadSodiumWasm();
});

/** Two members that both announce AEGIS-128L, unless the records are told to differ. */
function makePair(options: ConstructorParameters<typeof WireGuardPair>[1] = {}): WireGuardPair {
  const pair = new WireGuardPair(ciphers, { a: AEGIS, b: AEGIS, sendAeads: ["aegis128l"], ...options });
  pair.a.keepsData = true;
  pair.b.keepsData = true;
  return pair;
}

/** The different sizes of the transport messages that nodes have sent. */
function sizesOf(...nodes: FakeNode[]): number[] {
  const sent = nodes.flatMap((node) => node.sent).filter(({ type }) => type === MESSAGE_TRANSPORT);
  return [...new Set(sent.map(({ size }) => size))].sort((x, y) => x - y);
}

function noDrops(pair: WireGuardPair): void {
  expect([...pair.a.drops, ...pair.b.drops]).toEqual([]);
}

/** Ciphers of a release, or a CPU, that knows ChaCha20-Poly1305 only. */
function oldCiphers(): Ciphers {
  const old = Object.create(ciphers) as { aeads: readonly AeadName[] };
  Object.defineProperty(old, "aeads", { value: ["chacha20poly1305"] });
  return old as unknown as Ciphers;
}

describe("keys", () => {
  const secret = Uint8Array.from({ length: 32 }, (_, i) => i);

  it("are KDF1 of the direction's transport key with a label that names the AEAD", () => {
    // computed with another implementation: HMAC-BLAKE2s of Python's hashlib
    expect(toHex(deriveAeadKey(secret, "aegis128l"))).toBe(
      "8a39fff6124ac4f4b5059c99b8dd4633994f89b85eedd397d5c11217a28ddce4",
    );
    expect(toHex(deriveAeadKey(secret, "aes256gcm"))).toBe(
      "b6087ea828b7a7e0f2a66cf283bf9ee3db2dc9b65156175a7a44d27ee2372bfa",
    );
  });

  it("of ChaCha20-Poly1305 is the transport key itself, as WireGuard has it; AEGIS-128L's are the first 16 octets of its own", () => {
    const made: { aead: string; key: string }[] = [];
    const noting = Object.create(ciphers) as Ciphers;
    noting.makeTransportKey = (key, aead = "chacha20poly1305") => {
      made.push({ aead, key: toHex(key) });
      return ciphers.makeTransportKey(key, aead);
    };
    makeAeadKey(noting, secret, "chacha20poly1305");
    makeAeadKey(noting, secret, "aegis128l");
    expect(made).toEqual([
      { aead: "chacha20poly1305", key: toHex(secret) },
      { aead: "aegis128l", key: "8a39fff6124ac4f4b5059c99b8dd4633" },
    ]);
  });

  it("of the two directions differ, and no octets serve two ciphers", () => {
    const pair = makePair();
    const seen = new Map<string, string>();
    // both ends of one session together hold four keys: two directions, each sealed at one end and opened at the other
    pair.connect();
    const sessions = [pair.toB.current!, pair.toA.current!];
    const arena = new Uint8Array(64);
    const cipher = ciphers.packetCipher(arena);
    for (const [i, session] of sessions.entries()) {
      arena.fill(0);
      cipher.seal(session.sendKey, 0, 0, 16, 0);
      seen.set(toHex(arena.subarray(0, 48)), `end ${i}`);
    }
    expect(seen.size).toBe(2);
  });
});

describe("limits", () => {
  const key = (aead: AeadName): TransportKey => ({ aead, tagBytes: 16, wipe: () => undefined });
  const sessionWith = (aead: AeadName, pair: WireGuardPair): Session =>
    new Session(pair.toB, true, 1, 2, key(aead), new ReceiveKeys(ciphers, new Uint8Array(32), aead), 0);

  it.each(
    [["chacha20poly1305", 2 ** 50, 2 ** 53 - 2 ** 13 - 1], ["aegis128l", 2 ** 50, 2 ** 53 - 2 ** 13 - 1], [
      "aes256gcm",
      2 ** 26,
      2 ** 27,
    ]] as const,
  )("%s asks for another session after %d messages and seals none after %d", (aead, rekey, reject) => {
    const session = sessionWith(aead, makePair());
    expect(session.rekeyAfterMessages).toBe(rekey);
    session.sendCounter = reject - 1;
    expect(isUsable(session, 1)).toBe(true);
    session.sendCounter = reject;
    expect(isUsable(session, 1)).toBe(false);
    expect(reject).toBeLessThanOrEqual(2 ** 60); // the paper's
  });

  it("a session past its AEAD's limit asks for a new one with its next message", () => {
    const pair = makePair();
    pair.connect();
    pair.run(10_000);
    const session = pair.toB.current!;
    (session as { rekeyAfterMessages: number }).rekeyAfterMessages = 5;
    for (let i = 1; i <= 8; i++) pair.a.send(pair.toB, i);
    pair.run(1000);
    expect(pair.toB.current).not.toBe(session);
    expect(pair.b.got).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });
});

describe("between two members", () => {
  it("that both announce AEGIS-128L data and keepalives are sealed with it, both ways", () => {
    const pair = makePair();
    pair.connect();
    for (let i = 1; i < 20; i++) {
      pair.a.send(pair.toB, i);
      pair.b.send(pair.toA, 100 + i);
    }
    pair.run(15_000); // long enough for a keepalive
    expect(pair.b.got).toEqual(Array.from({ length: 20 }, (_, i) => i));
    expect(pair.a.got).toEqual(Array.from({ length: 19 }, (_, i) => 101 + i));
    expect(pair.toB.current?.sendKey.aead).toBe("aegis128l");
    expect(pair.toA.current?.receiveKey?.aead).toBe("aegis128l");
    const before = pair.a.keepalives;
    pair.a.send(pair.toB, 99);
    pair.run(12_000);
    expect(pair.a.keepalives).toBe(before + 1);
    expect(sizesOf(pair.a)).toEqual(AEGIS_SIZES);
    expect(sizesOf(pair.b)).toEqual(AEGIS_SIZES);
    noDrops(pair);
  });

  it("of which one must not seal with it, each direction has its own, and all arrives", () => {
    const pair = makePair();
    pair.a.wireguard.putPeer({ ...specOf(pair.b), aead: undefined }, pair.nowMs); // a's records say nothing of AEGIS-128L
    pair.connect();
    pair.b.send(pair.toA, 7);
    pair.run(100);
    expect(pair.toB.current?.sendKey.aead).toBe("chacha20poly1305");
    expect(pair.toA.current?.sendKey.aead).toBe("aegis128l");
    expect([pair.b.got, pair.a.got]).toEqual([[0], [7]]);
    noDrops(pair);
  });

  it("a setting that forbids it is stronger than the records", () => {
    const pair = makePair({ sendAeads: [] });
    pair.connect();
    pair.b.send(pair.toA, 1);
    pair.run(100);
    expect(pair.toB.current?.sendKey.aead).toBe("chacha20poly1305");
    pair.run(12_000);
    expect(sizesOf(pair.a, pair.b)).toEqual(CHACHA_SIZES);
    noDrops(pair);
  });

  it("a member is WireGuard, octet for octet, to a peer whose record announces nothing", () => {
    const pair = makePair({ a: {}, b: {}, ciphersOfB: oldCiphers() });
    pair.connect();
    pair.b.send(pair.toA, 1);
    pair.run(100);
    expect([pair.b.got, pair.a.got]).toEqual([[0], [1]]);
    pair.run(12_000);
    expect(sizesOf(pair.a, pair.b)).toEqual(CHACHA_SIZES);
    noDrops(pair);
  });

  it("no counter is used twice under one key, keepalives included, and none is left out", () => {
    const pair = makePair({ loss: 0.1, seed: 5 });
    pair.connect();
    for (let i = 1; i < 400; i++) {
      pair.a.send(pair.toB, i);
      if (i % 7 === 0) pair.b.send(pair.toA, i);
      pair.run(i % 50 === 0 ? 15_000 : 200);
    }
    for (const node of [pair.a, pair.b]) {
      const next = new Map<number, number>();
      for (const { type, bytes } of node.sent) {
        if (type !== MESSAGE_TRANSPORT) continue;
        const index = readU32LE(bytes, AT_TRANSPORT_RECEIVER);
        const counter = readU32LE(bytes, AT_TRANSPORT_COUNTER);
        expect(counter).toBe(next.get(index) ?? 0);
        next.set(index, counter + 1);
      }
      expect(next.size).toBeGreaterThan(0);
    }
  });

  it("a message sent back to its sender does not open, though the index is right", () => {
    const pair = makePair();
    pair.connect();
    pair.b.send(pair.toA, 5);
    pair.run(50);
    pair.a.send(pair.toB, 6);
    const { bytes } = pair.a.last(MESSAGE_TRANSPORT)!;
    const back = bytes.slice();
    writeU32LE(back, AT_TRANSPORT_RECEIVER, pair.toB.current!.localIndex);
    expect(pair.a.receive(back, pair.b.address)).toBe(DROP_BAD_TAG);
  });
});

describe("records that reach the ends at different moments", () => {
  it("do not interrupt anything; with both ends' records the next session has AEGIS-128L both ways", () => {
    const pair = makePair({ a: {}, b: {} });
    let sent = 0;
    const talk = (ms: number) => {
      for (const end = pair.nowMs + ms; pair.nowMs < end;) {
        pair.a.send(pair.toB, sent);
        pair.b.send(pair.toA, sent++);
        pair.run(500);
      }
    };
    pair.connect();
    sent = 1;
    talk(10_000);
    pair.a.wireguard.putPeer({ ...specOf(pair.b), ...AEGIS }, pair.nowMs); // a hears first
    talk(130_000); // a session of a's making, which seals with AEGIS-128L; b's answers are ChaCha20-Poly1305
    expect(pair.toB.current?.sendKey.aead).toBe("aegis128l");
    expect(pair.toA.current?.sendKey.aead).toBe("chacha20poly1305");
    pair.b.wireguard.putPeer({ ...specOf(pair.a), ...AEGIS }, pair.nowMs);
    expect(pair.toA.current?.sendKey.aead).toBe("chacha20poly1305"); // this session keeps its own
    talk(130_000);
    expect(pair.toB.current?.sendKey.aead).toBe("aegis128l");
    expect(pair.toA.current?.sendKey.aead).toBe("aegis128l");
    pair.run(1000);
    expect(pair.b.got.length).toBe(sent);
    expect(pair.a.got.length).toBe(sent - 1);
    noDrops(pair);
  });

  it("one that takes AEGIS-128L back gets another session at once, and nothing is lost", () => {
    const pair = makePair();
    pair.connect();
    pair.run(10_000);
    const before = pair.toB.current;
    pair.a.wireguard.putPeer(specOf(pair.b), pair.nowMs);
    pair.a.tick();
    pair.a.send(pair.toB, 1);
    pair.run(100);
    pair.a.send(pair.toB, 2);
    pair.run(100);
    expect(pair.toB.current).not.toBe(before);
    expect(pair.toB.current?.sendKey.aead).toBe("chacha20poly1305");
    expect(pair.b.got).toEqual([0, 1, 2]);
    noDrops(pair);
  });

  it("a peer that became an older program is deaf to AEGIS-128L only until its record says so", () => {
    const pair = makePair({ ciphersOfB: oldCiphers(), b: {} });
    pair.connect();
    expect(pair.b.got).toEqual([]);
    expect(pair.b.dropsOf(DROP_BAD_TAG)).toBeGreaterThan(0);
    pair.run(6_000);
    pair.a.wireguard.putPeer(specOf(pair.b), pair.nowMs);
    pair.a.tick();
    pair.run(100);
    pair.a.send(pair.toB, 1);
    pair.b.send(pair.toA, 2);
    pair.run(100);
    expect(pair.b.got).toEqual([1]);
    expect(pair.a.got).toEqual([2]);
  });
});

describe("the first message of a session", () => {
  it("may come after forged ones, which are dropped and leave nothing behind", () => {
    const pair = makePair({ b: {} }); // b expects ChaCha20-Poly1305, and gets AEGIS-128L
    const forged: number[] = [];
    const receive = pair.b.receive.bind(pair.b);
    pair.b.receive = (bytes, from) => {
      if (readU32LE(bytes, 0) === MESSAGE_TRANSPORT && forged.length === 0) {
        for (const at of [16, 20, bytes.length - 1]) {
          const bad = bytes.slice();
          bad[at] = bad[at]! ^ 1;
          forged.push(receive(bad, from));
        }
        for (const size of [32, 33, 47, 48]) forged.push(receive(bytes.slice(0, size), from));
      }
      return receive(bytes, from);
    };
    pair.connect();
    expect(forged).toEqual(new Array(7).fill(DROP_BAD_TAG));
    expect(pair.b.got).toEqual([0]);
    expect(pair.toA.current?.receiveKey?.aead).toBe("aegis128l");
  });

  it("is found among anything at all under the right index, of any length", () => {
    const pair = makePair({ b: {} });
    const held: Uint8Array[] = [];
    pair.network.tap = ({ bytes }) => {
      const isData = readU32LE(bytes, 0) === MESSAGE_TRANSPORT;
      if (isData) held.push(bytes);
      return !isData;
    };
    pair.connect();
    const session = pair.toA.next!;
    expect(session.receiveKey).toBeUndefined();
    fc.assert(fc.property(fc.uint8Array({ minLength: 24, maxLength: 300 }), (rest) => {
      const bytes = new Uint8Array(8 + rest.length);
      writeU32LE(bytes, 0, MESSAGE_TRANSPORT);
      writeU32LE(bytes, AT_TRANSPORT_RECEIVER, session.localIndex);
      bytes.set(rest, 8);
      expect([DROP_BAD_TAG, DROP_COUNTER_RANGE]).toContain(pair.b.receive(bytes, pair.a.address));
      expect(pair.toA.next).toBe(session);
      expect(session.receiveKey).toBeUndefined();
    }));
    for (const bytes of held) expect(pair.b.receive(bytes, pair.a.address)).toBe(FORWARD);
    expect(pair.b.got).toEqual([0]);
  });

  it("settles the AEAD: what any other of the session's keys made is refused from then on", () => {
    const secret = new Uint8Array(32).fill(9);
    const arena = new Uint8Array(256);
    const cipher = ciphers.packetCipher(arena);
    const keys = new ReceiveKeys(ciphers, secret.slice(), "chacha20poly1305");
    const seal = (aead: AeadName): number => {
      arena.fill(0);
      cipher.seal(makeAeadKey(ciphers, secret, aead), 0, 16, 48, 16);
      return 48 + factsOf(aead).tagBytes;
    };
    const end = seal("aegis128l");
    const sealed = arena.slice(16, end);
    arena[20] = arena[20]! ^ 4;
    const damaged = arena.slice(16, end);
    expect(keys.open(cipher, arena, 0, 16, end)).toBeUndefined();
    expect(arena.slice(16, end)).toEqual(damaged); // as it came
    arena.set(sealed, 16);
    const key = keys.open(cipher, arena, 0, 16, end)!;
    expect(key.aead).toBe("aegis128l");
    const other = seal("chacha20poly1305");
    expect(cipher.open(key, 0, 16, other)).toBe(false);
    seal("chacha20poly1305");
    expect(keys.open(cipher, arena, 0, 16, other)).toBeUndefined(); // it is at its end
  });

  it("is tried with what the records say first", () => {
    const tried: string[] = [];
    const arena = new Uint8Array(128);
    const noting = { seal: () => undefined, open: (key: TransportKey) => tried.push(key.aead) > 9 };
    new ReceiveKeys(ciphers, new Uint8Array(32), "aegis128l").open(noting, arena, 0, 16, 96);
    expect(tried).toEqual(["aegis128l", "chacha20poly1305"]);
    tried.length = 0;
    new ReceiveKeys(ciphers, new Uint8Array(32), "aes256gcm").open(noting, arena, 0, 16, 96); // which cannot be had here
    expect(tried).toEqual(["chacha20poly1305", "aegis128l"]);
  });

  it("leaves no copy of the direction's transport key, nor does a session that ends without one", () => {
    const secret = new Uint8Array(32).fill(5);
    const keys = new ReceiveKeys(ciphers, secret, "aegis128l");
    keys.wipe();
    expect(secret).toEqual(new Uint8Array(32));
  });
});

function specOf(node: FakeNode) {
  return {
    name: node.address,
    publicKey: node.wireguard.publicKey,
    keepaliveSeconds: 0,
    allowedIps: [parsePrefix("10.0.0.0/8")!],
  };
}
