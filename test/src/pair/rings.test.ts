/** The two rings and the tables between the Workers, step by step: what happens in between what the other one does. */
import fc from "fast-check";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { writeU32LE } from "../../../src/bytes/integers.ts";
import { hasOwnAddress, OWN_ADDRESS_AT, parseUnderlayAddr, writeUnderlayAddr } from "../../../src/ip/underlay_addr.ts";
import { findIndex, putIndex, removeIndex } from "../../../src/pair/index_cache.ts";
import { KeyCopies, KeyTable } from "../../../src/pair/key_table.ts";
import type { PairKey } from "../../../src/pair/main_half.ts";
import {
  AT_KEYS,
  INDEX_SETS,
  INDEX_WAYS,
  IS_ARMED,
  KEY_SLOTS,
  KEY_WORDS,
  MAX_JOBS,
  MAX_RUNS,
  PAIR_BYTES,
  type PairMemory,
  pairMemory,
  RECEIVE_BATCHES,
  SEND_PARTS,
} from "../../../src/pair/memory.ts";
import { pairAddressBytes } from "../../../src/pair/send_ring.ts";
import { packSwitches, unpackSwitches } from "../../../src/pair/switches.ts";
import type { Ciphers, OffloadSwitches, PacketCipher } from "../../../src/ports.ts";
import { FakeUnderlay } from "../../fakes/doors.ts";
import { loadTestCiphers } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { FakePair } from "../../fakes/pair.ts";

const HERE = "192.0.2.1:51871";
const THERE = "192.0.2.2:51871";
const SLOTS = 4;
const SLOT_BYTES = 65536 + 64;
const PART_BYTES = 128 * 1024;
const PLAIN_AT = 1024;
const SEND_AT = 128 * 1024;
const ADDRESSES_AT = SEND_AT + SEND_PARTS * PART_BYTES;
const SOCKET_AT = ADDRESSES_AT + Math.ceil(pairAddressBytes() / 64) * 64;
const BATCHES_AT = SOCKET_AT + SLOTS * SLOT_BYTES;
const ARENA_BYTES = BATCHES_AT + RECEIVE_BATCHES * SLOTS * SLOT_BYTES;
const HEADER_BYTES = 16;

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

/** A pair, a destination at 0, and a peer who opens and seals on paper. */
class Scene {
  readonly network = new FakeNetwork({ seed: 1, delayMs: 0 });
  readonly arena = new Uint8Array(ARENA_BYTES);
  readonly socket = new FakeUnderlay(this.arena, this.network, HERE, SOCKET_AT, SLOTS);
  readonly pair = new FakePair({
    arena: this.arena,
    room: { sendAt: SEND_AT, sendEnd: ADDRESSES_AT, addressesAt: ADDRESSES_AT },
    ciphers,
    socket: this.socket,
    batchesAt: BATCHES_AT,
    batchBytes: SLOTS * SLOT_BYTES,
  });
  readonly cipher: PacketCipher;
  counter = 0;
  part = 0;

  constructor() {
    writeUnderlayAddr(this.arena, 0, parseUnderlayAddr(THERE)!);
    this.cipher = this.pair.ciphers.packetCipher(this.arena);
  }

  key(fill: number): PairKey {
    return this.pair.ciphers.makeTransportKey(new Uint8Array(32).fill(fill)) as PairKey;
  }

  /** Seals 32 octets of a number into the part at hand. */
  seal(key: PairKey, value: number, i = 0): void {
    const to = this.placeOf(i) + HEADER_BYTES;
    this.arena.fill(value, PLAIN_AT, PLAIN_AT + 32);
    this.cipher.seal(key, this.counter++, PLAIN_AT, PLAIN_AT + 32, to);
  }

  placeOf(i: number): number {
    return SEND_AT + this.part * PART_BYTES + i * 64;
  }

  queue(i = 0): void {
    this.pair.underlay.queue(this.placeOf(i), this.placeOf(i) + 64, 64, 0, 0);
  }

  flush(): void {
    this.pair.underlay.flush();
    this.part = (this.part + 1) % SEND_PARTS;
  }

  /** What has left, opened with a key; undefined where it does not open. */
  takeSent(secret: number): (number | undefined)[] {
    const key = ciphers.makeTransportKey(new Uint8Array(32).fill(secret));
    const scratch = new Uint8Array(64);
    const own = ciphers.packetCipher(scratch);
    return this.network.take(THERE).map(({ bytes }, i) => {
      scratch.set(bytes);
      writeU32LE(scratch, 8, i);
      writeU32LE(scratch, 12, 0);
      return own.open(key, 8, HEADER_BYTES, 64) ? scratch[HEADER_BYTES] : undefined;
    });
  }

  /** A transport message from there. */
  message(secret: number, index: number, counter: number, value: number): Uint8Array {
    const bytes = new Uint8Array(64);
    const own = ciphers.packetCipher(bytes);
    writeU32LE(bytes, 0, 4);
    writeU32LE(bytes, 4, index);
    writeU32LE(bytes, 8, counter);
    bytes.fill(value, HEADER_BYTES, 48);
    own.seal(ciphers.makeTransportKey(new Uint8Array(32).fill(secret)), counter, HEADER_BYTES, 48, HEADER_BYTES);
    return bytes;
  }

  /** What comes of a message that arrives: its value, or false. */
  open(key: PairKey, at: number): number | false {
    return this.cipher.open(key, at + 8, at + HEADER_BYTES, at + 64) && this.arena[at + HEADER_BYTES]!;
  }

  receive(...messages: Uint8Array[]): number[] {
    for (const bytes of messages) this.socket.inject(THERE, bytes);
    this.pair.run();
    return this.taken();
  }

  /** Where the datagrams of the next batch begin. */
  taken(): number[] {
    const places: number[] = [];
    const count = this.pair.underlay.receive();
    for (const { at, end, segmentBytes } of this.pair.underlay.received.slice(0, count)) {
      for (let from = at; from < end; from += segmentBytes) places.push(from);
    }
    return places;
  }
}

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});

describe("the way out", () => {
  it("keeps the order while parts take turns, and waits when all are under way", () => {
    const key = scene.key(1);
    const expected: number[] = [];
    for (let i = 0; i < 3 * SEND_PARTS; i++) {
      scene.seal(key, i);
      scene.queue();
      scene.flush();
      expected.push(i);
    }
    expect(scene.pair.pauses).toBe(2 * SEND_PARTS + 1); // one part is always left to be filled
    scene.pair.run();
    expect(scene.takeSent(1)).toEqual(expected);
  });

  it("seals here while the other Worker is behind, and there again when it is not", () => {
    const key = scene.key(1);
    let own = 0;
    const cipher = scene.pair.main.cipher!;
    const seal = cipher.seal.bind(cipher);
    cipher.seal = (...args) => {
      own++;
      seal(...args);
    };
    for (let i = 0; i < SEND_PARTS - 1; i++) {
      scene.seal(key, i);
      scene.queue();
      scene.flush();
    }
    expect(own).toBe(SEND_PARTS - 3);
    scene.pair.run();
    scene.seal(key, 9);
    expect(own).toBe(SEND_PARTS - 3);
    scene.queue();
    scene.flush();
    scene.pair.run();
    expect(scene.takeSent(1)).toEqual([...Array.from({ length: SEND_PARTS - 1 }, (_, i) => i), 9]);
  });

  it("ends with a clear text when the other Worker has ended, or does not get on", () => {
    const fill = (from: Scene) => {
      const key = from.key(1);
      for (let i = 0; i <= SEND_PARTS; i++) {
        from.seal(key, i);
        from.queue();
        from.flush();
      }
    };
    scene.pair.isStuck = true;
    expect(() => fill(scene)).toThrow("The datapath's cipher Worker does not get on");
    const other = new Scene();
    other.pair.isStuck = true;
    other.pair.cipher.end();
    expect(() => fill(other)).toThrow("The datapath's cipher Worker has ended");
  });

  it("seals with a key that is wiped before the other Worker comes to it", () => {
    const key = scene.key(1);
    scene.seal(key, 10);
    scene.queue();
    scene.flush();
    scene.seal(key, 11);
    scene.queue();
    key.wipe(); // one part is published, another is being filled
    scene.flush();
    scene.pair.run();
    expect(scene.takeSent(1)).toEqual([10, 11]);
    expect(scene.pair.cipher.keys.count).toBe(0);
  });

  it("does not let a message leave whose key is gone", () => {
    const key = scene.key(1);
    scene.seal(key, 1);
    scene.queue();
    scene.pair.main.keys.wipe(key.id); // past the key's own wipe, which waits
    scene.flush();
    expect(() => scene.pair.run()).toThrow("Cannot seal a message: its key is gone");
    expect(scene.takeSent(1)).toEqual([]);
  });

  it("sends complete octets as they are, between what it seals", () => {
    const key = scene.key(1);
    scene.arena.fill(0xaa, scene.placeOf(0), scene.placeOf(0) + 64);
    scene.queue(0);
    scene.seal(key, 7, 1);
    scene.queue(1);
    scene.flush();
    scene.pair.run();
    const [plain, sealed] = scene.network.take(THERE);
    expect(plain!.bytes.every((octet) => octet === 0xaa)).toBe(true);
    expect(sealed!.bytes.subarray(HEADER_BYTES, 48).every((octet) => octet === 7)).toBe(false);
  });

  it("forgets a message that was written over before it was queued", () => {
    const key = scene.key(1);
    scene.seal(key, 1);
    scene.counter = 0;
    scene.seal(key, 2);
    scene.queue();
    scene.flush();
    scene.pair.run();
    expect(scene.takeSent(1)).toEqual([2]);
    scene.seal(key, 3);
    scene.flush(); // never queued: nothing to publish
    expect(scene.pair.step()).toBe(false);
  });

  it("takes more messages and runs than a descriptor holds", () => {
    const key = scene.key(1);
    const count = Math.max(MAX_JOBS, MAX_RUNS) + 20;
    for (let i = 0; i < count; i++) {
      scene.seal(key, i & 0xff, i);
      scene.queue(i);
    }
    scene.flush();
    scene.pair.run();
    expect(scene.takeSent(1)).toEqual(Array.from({ length: count }, (_, i) => i & 0xff));
  });

  it("has as many messages of one run as a part may hold, the last ones sealed here", () => {
    const key = scene.key(1);
    const count = MAX_JOBS + 20;
    for (let i = 0; i < count; i++) scene.seal(key, i & 0xff, i);
    scene.socket.queue = ((queue) => (at: number, end: number, ...rest: [number, number, number]) => {
      for (let from = at; from < end; from += 64) queue.call(scene.socket, from, from + 64, ...rest);
    })(scene.socket.queue);
    scene.pair.underlay.queue(scene.placeOf(0), scene.placeOf(count), 64, 0, 0);
    scene.flush();
    scene.pair.run();
    expect(scene.takeSent(1)).toEqual(Array.from({ length: count }, (_, i) => i & 0xff));
  });

  it("sends to where the peer was when the run was queued", () => {
    const key = scene.key(1);
    scene.seal(key, 1);
    scene.queue();
    scene.flush();
    writeUnderlayAddr(scene.arena, 0, parseUnderlayAddr("192.0.2.9:1")!);
    scene.pair.run();
    expect(scene.takeSent(1)).toEqual([1]);
  });

  it("tells back what was too big, and which own address was of no use", () => {
    const key = scene.key(1);
    scene.arena[OWN_ADDRESS_AT] = 192;
    scene.seal(key, 1);
    scene.queue();
    scene.flush();
    const flush = scene.socket.flush.bind(scene.socket);
    scene.socket.flush = () => {
      scene.arena.fill(0, ADDRESSES_AT + OWN_ADDRESS_AT, ADDRESSES_AT + 48); // as the kernel's refusal does
      scene.socket.tooBig.push(ADDRESSES_AT);
      flush();
    };
    expect(hasOwnAddress(scene.arena, 0)).toBe(true);
    scene.pair.run();
    expect([scene.pair.underlay.takeTooBig(), scene.pair.underlay.takeTooBig()]).toEqual([0, -1]);
    expect(hasOwnAddress(scene.arena, 0)).toBe(false);
  });

  it("sends a probe behind everything queued before", () => {
    const key = scene.key(1);
    scene.seal(key, 1);
    scene.queue();
    scene.flush();
    scene.arena.fill(0xbb, PLAIN_AT, PLAIN_AT + 64);
    expect(scene.pair.underlay.sendWhole(PLAIN_AT, PLAIN_AT + 64, 0)).toBe(0);
    expect(scene.network.take(THERE).map(({ bytes }) => bytes[0] === 0xbb)).toEqual([false, true]);
  });

  it("switches offloads in both Workers, and mirrors what came of it", () => {
    const switches: OffloadSwitches = {
      tso: true,
      uso: false,
      udpGso: false,
      udpGro: true,
      tcpMerge: false,
      udpMerge: true,
    };
    const changes = scene.pair.underlay.offloadChanges;
    scene.pair.underlay.switchOffload(switches);
    expect(scene.socket.switches).toEqual(switches);
    expect(scene.pair.underlay.offloadChanges).not.toBe(changes);
    expect(unpackSwitches(packSwitches(switches))).toEqual(switches);
  });

  it("mirrors send errors by errno", () => {
    const key = scene.key(1);
    const errors = scene.socket as unknown as { sendErrorCount: number };
    scene.socket.flush = () => {
      scene.socket.sendErrors.set(101, 3);
      errors.sendErrorCount = 3;
    };
    scene.seal(key, 1);
    scene.queue();
    scene.flush();
    scene.pair.run();
    expect(scene.pair.underlay.sendErrorCount).toBe(3);
    expect([...scene.pair.underlay.sendErrors]).toEqual([[101, 3]]);
  });
});

describe("the way in", () => {
  const INDEX = 0xfedcba98;

  /** The first message is opened by the main Worker, and tells the other one of the key. */
  function introduce(key: PairKey, secret: number, index = INDEX): void {
    const [at] = scene.receive(scene.message(secret, index, 0, 1));
    expect(scene.open(key, at!)).toBe(1);
    expect(findIndex(scene.pair.main.memory, index)).toBe(key.id);
  }

  it("opens the first message here and the next there", () => {
    const key = scene.key(1);
    introduce(key, 1);
    scene.pair.main.cipher!.open = () => {
      throw new Error("opened here");
    };
    const mine = scene.cipher;
    const places = scene.receive(scene.message(1, INDEX, 1, 5), scene.message(1, INDEX, 2, 6));
    expect(places.map((at) => [scene.arena[at + HEADER_BYTES], mine.open(key, at + 8, at + 16, at + 64)]))
      .toEqual([[5, true], [6, true]]);
  });

  it("answers false for a message that the other Worker could not open, and tries it no more", () => {
    const key = scene.key(1);
    introduce(key, 1);
    const forged = scene.message(1, INDEX, 1, 5);
    forged[20] = forged[20]! ^ 1;
    const [at] = scene.receive(forged);
    expect(scene.open(key, at!)).toBe(false);
    // what would open, had it not been tried, must not be opened either
    scene.arena.set(scene.message(1, INDEX, 1, 5), at!);
    expect(scene.open(key, at!)).toBe(false);
  });

  it("believes no octet of a packet: plaintext that is no message stays outside, whatever it says", () => {
    const key = scene.key(1);
    introduce(key, 1);
    fc.assert(fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), fc.boolean(), (tail, isMessage) => {
      const bytes = new Uint8Array(64);
      bytes.set(tail);
      if (isMessage) {
        writeU32LE(bytes, 0, 4);
        writeU32LE(bytes, 4, INDEX);
      }
      writeU32LE(bytes, 60, key.id);
      const [at] = scene.receive(bytes);
      expect(scene.open(key, at!)).toBe(false);
    }));
  });

  it("gives nobody what was opened with another key: an index that is used again", () => {
    const old = scene.key(1);
    introduce(old, 1);
    // opened with the old key, while the index is already another session's
    scene.socket.inject(THERE, scene.message(1, INDEX, 1, 5));
    scene.pair.run();
    old.wipe();
    const fresh = scene.key(2);
    const [at] = scene.taken();
    expect(scene.arena[at! + HEADER_BYTES]).toBe(5);
    expect(scene.open(fresh, at!)).toBe(false);
    expect(scene.open(old, at!)).toBe(false);
    // from now on the index is nobody's, until the new session has opened its first
    expect(findIndex(scene.pair.main.memory, INDEX)).toBe(0);
    introduce(fresh, 2);
    const [next] = scene.receive(scene.message(2, INDEX, 7, 9));
    expect(scene.open(fresh, next!)).toBe(9);
    const [stale] = scene.receive(scene.message(1, INDEX, 8, 9));
    expect(scene.open(fresh, stale!)).toBe(false);
  });

  it("tries with a later key what the other Worker had no key for", () => {
    const [first, second] = [scene.key(1), scene.key(2)];
    const [at] = scene.receive(scene.message(2, INDEX, 3, 4));
    const whole = scene.arena.slice(at, at! + 64);
    expect(scene.open(first, at!)).toBe(false);
    scene.arena.set(whole, at!); // as `ReceiveKeys` does between two tries
    expect(scene.open(second, at!)).toBe(4);
  });

  it("leaves to the main Worker whose key was wiped between look-up and use", () => {
    const key = scene.key(1);
    introduce(key, 1);
    scene.pair.main.keys.wipe(key.id); // the index is still there
    const [at] = scene.receive(scene.message(1, INDEX, 1, 5));
    expect(scene.arena[at! + HEADER_BYTES]).not.toBe(5);
  });

  it("holds back what there is no batch for, and goes on when one is given back", () => {
    const key = scene.key(1);
    introduce(key, 1); // and holds its batch
    let sent = 0;
    const arrive = () => {
      scene.socket.inject(THERE, scene.message(1, INDEX, ++sent, sent));
      scene.pair.run();
    };
    for (let i = 0; i < RECEIVE_BATCHES + 2; i++) arrive();
    expect(scene.pair.cipher.hasRoom).toBe(false);
    expect(scene.pair.cipher.mayRest(false)).toBe(true);
    const values: (number | false)[] = [];
    for (let places = scene.taken(); places.length > 0; places = scene.taken()) {
      values.push(...places.map((at) => scene.open(key, at)));
      scene.pair.cipher.wokeUp();
      scene.pair.run();
    }
    expect(values).toEqual(Array.from({ length: sent }, (_, i) => i + 1));
    expect(scene.pair.wakes).toBe(1); // told of the room, as it slept for want of it
  });

  it("keeps the event up while there is more, though it came while the event was cleared", () => {
    scene.receive();
    scene.pair.onClear = () => {
      scene.pair.onClear = () => {};
      for (let i = 0; i < RECEIVE_BATCHES; i++) {
        scene.socket.inject(THERE, new Uint8Array(5));
        scene.pair.run(); // untold: the main Worker is not yet waiting
      }
    };
    scene.pair.main.memory.words[IS_ARMED] = 0;
    expect(scene.taken().length).toBe(1);
    let rounds = 0;
    for (; scene.pair.isReady; rounds++) scene.taken();
    expect(rounds).toBe(RECEIVE_BATCHES);
    expect(scene.pair.cipher.hasRoom).toBe(true);
  });

  it("does not sleep without watching the sockets when a batch came back just before", () => {
    expect(scene.pair.cipher.hasRoom).toBe(true);
    expect(scene.pair.cipher.mayRest(false)).toBe(false);
  });

  it("tells the main Worker once of what waits", () => {
    scene.receive(scene.message(1, INDEX, 1, 1));
    expect(scene.pair.told).toBe(1);
    scene.socket.inject(THERE, new Uint8Array(5));
    scene.pair.run();
    expect(scene.pair.told).toBe(1); // it has not looked again
    scene.taken();
    expect(scene.taken()).toEqual([]);
    scene.socket.inject(THERE, new Uint8Array(5));
    scene.pair.run();
    expect(scene.pair.told).toBe(2);
  });
});

describe("the tables", () => {
  let memory: PairMemory;
  beforeEach(() => {
    memory = pairMemory(new SharedArrayBuffer(PAIR_BYTES));
  });

  it("name no key twice, and leave no octet of a key that is wiped", () => {
    const table = new KeyTable(memory);
    const copies = new KeyCopies(memory, ciphers);
    const ids = new Set<number>();
    for (let i = 0; i < 3 * KEY_SLOTS; i++) {
      const id = table.put(new Uint8Array(32).fill(0xff), "chacha20poly1305");
      ids.add(id);
      if (i < 5) expect(copies.find(id)).toBeDefined();
      table.wipe(id);
    }
    expect(ids.size).toBe(3 * KEY_SLOTS);
    expect(Math.min(...ids)).toBeGreaterThan(0);
    copies.sweep();
    expect(copies.count).toBe(0);
    for (const id of [...ids].slice(0, 5)) expect(copies.find(id)).toBeUndefined();
    for (let at = AT_KEYS; at < AT_KEYS + KEY_SLOTS * KEY_WORDS; at++) {
      if (memory.words[at] !== 0) throw new Error(`a word is left at ${at}`);
    }
  });

  it("say so when they are full, and have room again", () => {
    const table = new KeyTable(memory);
    const key = new Uint8Array(32);
    const ids = Array.from({ length: KEY_SLOTS }, () => table.put(key, "chacha20poly1305"));
    expect(new Set(ids).size).toBe(KEY_SLOTS);
    expect(table.put(key, "chacha20poly1305")).toBe(0);
    table.wipe(ids[7]!);
    table.wipe(ids[7]!); // once is enough
    expect(table.put(key, "chacha20poly1305")).toBeGreaterThan(0);
    expect(table.put(key, "chacha20poly1305")).toBe(0);
  });

  it("seal and open here what finds no room in them", () => {
    const key = scene.key(1);
    scene.pair.main.keys.wipe(key.id);
    key.id = 0;
    scene.seal(key, 3);
    scene.queue();
    scene.flush();
    scene.pair.run();
    expect(scene.takeSent(1)).toEqual([3]);
    const [at] = scene.receive(scene.message(1, 77, 1, 5));
    expect(scene.open(key, at!)).toBe(5);
    expect(findIndex(scene.pair.main.memory, 77)).toBe(0);
  });

  it("find an index or nothing, never another's key, whatever was put and removed", () => {
    const indexes = fc.integer({ min: 0, max: INDEX_WAYS + 2 }).map((way) => (way * INDEX_SETS + 5) >>> 0);
    fc.assert(
      fc.property(fc.array(fc.tuple(indexes, fc.boolean()), { maxLength: 40 }), (steps) => {
        const own = memory;
        own.words.fill(0);
        const model = new Map<number, number>();
        steps.forEach(([index, isPut], i) => {
          if (isPut) {
            putIndex(own, index, i + 1);
            model.set(index, i + 1);
            expect(findIndex(own, index)).toBe(i + 1);
          } else {
            removeIndex(own, index, model.get(index) ?? 0x7fff);
            model.delete(index);
          }
          for (let way = 0; way < INDEX_WAYS + 3; way++) {
            const asked = (way * INDEX_SETS + 5) >>> 0;
            expect([0, model.get(asked) ?? 0]).toContain(findIndex(own, asked));
          }
        });
      }),
      { numRuns: 50 },
    );
  });
});
