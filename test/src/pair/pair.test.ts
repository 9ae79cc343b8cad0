/** Two members, one or both of two Workers, through handshakes, traffic and rekeying: nobody can tell how many Workers there are. */
import { beforeAll, describe, expect, it } from "vitest";
import { INGRESS } from "../../../src/datapath/counters.ts";
import { AT_INDEXES, AT_KEYS, INDEX_SETS, INDEX_WAYS, KEY_SLOTS, KEY_WORDS } from "../../../src/pair/memory.ts";
import type { AeadName, Ciphers } from "../../../src/ports.ts";
import { DROP_BAD_TAG, DROP_REPLAYED } from "../../../src/verdict.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { makePacket } from "../../fakes/packets.ts";

const A = { name: "a", addresses: ["10.9.0.1", "fd09::1"], underlay: "192.0.2.1", identity: 65537 };
const B = { name: "b", addresses: ["10.9.0.2", "fd09::2"], underlay: "192.0.2.2", identity: 65538 };

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

interface Meeting {
  readonly aead?: AeadName;
  readonly pairs?: readonly [boolean, boolean];
  readonly loss?: number;
  readonly jitterMs?: number;
}

function meet({ aead, pairs: [isPairA, isPairB] = [true, true], loss = 0, jitterMs = 0 }: Meeting) {
  const network = new FakeNetwork({ seed: 3, loss, jitterMs });
  const datagrams: Uint8Array[] = [];
  network.tap = ({ bytes }) => {
    datagrams.push(bytes);
    return true;
  };
  const sendAeads: AeadName[] = aead === undefined ? [] : [aead];
  const a = new MeshNode(network, ciphers, { ...A, sendAeads, isPair: isPairA });
  const b = new MeshNode(network, ciphers, { ...B, sendAeads, isPair: isPairB });
  for (const [node, other] of [[a, b], [b, a]] as const) {
    node.learn(other, { ...(aead && { aead }) });
    node.setPolicy(policyOf(1));
  }
  return { network, a, b, datagrams };
}

function packetOf(number: number, isBack = false, octets = 40): Uint8Array {
  const [source, destination] = isBack ? ["10.9.0.2", "10.9.0.1"] : ["10.9.0.1", "10.9.0.2"];
  const payload = new Uint8Array(octets).fill(number);
  return makePacket({ source: source!, destination: destination!, payload });
}

/** Sends packets there, then as many back; what arrived. */
function exchange({ network, a, b }: ReturnType<typeof meet>, count: number): Uint8Array[][] {
  const there = Array.from({ length: count }, (_, i) => packetOf(i, false, i * 131 % 1200));
  for (const packet of there) a.send(packet);
  runUntil([a, b], network.nowMs + 50);
  const back = there.map((_, i) => packetOf(i, true, i * 77 % 1200));
  for (const packet of back) b.send(packet);
  runUntil([a, b], network.nowMs + 50);
  return [b.takeDelivered(), a.takeDelivered(), there, back];
}

const AEADS = ["chacha20poly1305", "aegis128l", "aes256gcm"] as const;

describe("a pair of Workers", () => {
  it.each(
    AEADS.flatMap((aead) => [[true, true], [true, false], [false, true]].map((pairs) => [aead, pairs] as const)),
  )("delivers every packet once and in order, sealed with %s, pairs at %j", (aead, pairs) => {
    if (!ciphers.aeads.includes(aead)) return; // this build of the library has no such cipher
    const meeting = meet({ ...(aead !== "chacha20poly1305" && { aead }), pairs: [pairs[0]!, pairs[1]!] });
    const [atB, atA, there, back] = exchange(meeting, 100);
    expect(atB).toEqual(there);
    expect(atA).toEqual(back);
    expect(meeting.a.counters.totalDrops(INGRESS) + meeting.b.counters.totalDrops(INGRESS)).toBe(0);
  });

  it("sends octet for octet what one Worker sends", () => {
    const [one, two] = [meet({ pairs: [false, false] }), meet({ pairs: [true, true] })];
    for (const meeting of [one, two]) exchange(meeting, 60);
    expect(two.datagrams).toEqual(one.datagrams);
  });

  it("lets the other Worker open all but the first message of a session", () => {
    const meeting = meet({ pairs: [false, true] });
    exchange(meeting, 40);
    const { pair } = meeting.b;
    let own = 0;
    const open = pair!.main.cipher!.open;
    pair!.main.cipher!.open = (...args) => {
      own++;
      return open.apply(pair!.main.cipher, args);
    };
    const [atB, , there] = exchange(meeting, 40);
    expect(atB).toEqual(there);
    expect(own).toBe(0);
    expect(pair!.cipher.keys.count).toBeGreaterThan(0);
  });

  it("goes on through sessions that replace each other, with loss and reordering, and keeps no key that is over", () => {
    const meeting = meet({ loss: 0.05, jitterMs: 4 });
    const { network, a, b } = meeting;
    let delivered = 0;
    for (let minute = 0; minute < 12; minute++) {
      const [atB, atA] = exchange(meeting, 20);
      delivered += atB!.length + atA!.length;
      runUntil([a, b], network.nowMs + 60_000);
    }
    expect(delivered).toBeGreaterThan(12 * 40 * 0.8);
    for (const node of [a, b]) {
      expect(node.counters.drops(INGRESS, DROP_BAD_TAG)).toBe(0);
      runUntil([a, b], network.nowMs + 600_000); // all sessions end
      const { words } = node.pair!.main.memory;
      for (let slot = 0; slot < KEY_SLOTS; slot++) {
        const at = AT_KEYS + slot * KEY_WORDS;
        if (words[at] === 0) expect(words.slice(at + 4, at + KEY_WORDS).every((word) => word === 0)).toBe(true);
      }
    }
  });

  it("wipes keys, their copies and their indexes when a peer is removed", () => {
    const meeting = meet({});
    exchange(meeting, 5);
    const { a, b, network } = meeting;
    const { main, cipher } = b.pair!;
    expect(cipher.keys.count).toBeGreaterThan(0);
    b.datapath.apply({ op: "removePeer", publicKey: a.wireguard.publicKey }, network.nowMs);
    b.pair!.run();
    expect(cipher.keys.count).toBe(0);
    const { words } = main.memory;
    expect(words.slice(AT_KEYS).some((word, i) => i % KEY_WORDS !== 1 && word !== 0)).toBe(false);
    const indexes = words.slice(AT_INDEXES, AT_INDEXES + INDEX_SETS * INDEX_WAYS * 2);
    expect(indexes.some((word, i) => i % 2 === 1 && word !== 0)).toBe(false);
  });

  it("drops what is replayed or forged like one Worker, and goes on", () => {
    const meeting = meet({ pairs: [false, true] });
    const { network, b, datagrams } = meeting;
    exchange(meeting, 10);
    const sealed = datagrams.filter((bytes) => bytes[0] === 4 && bytes.length > 100);
    const from = meeting.a.underlay.address;
    const own = sealed.find((bytes) => bytes.length === sealed[0]!.length)!;
    b.underlay.inject(from, own);
    const forged = own.slice();
    forged[8] = 200; // a counter that was not seen
    b.underlay.inject(from, forged);
    runUntil([meeting.a, b], network.nowMs + 10);
    expect(b.counters.drops(INGRESS, DROP_REPLAYED)).toBe(1);
    expect(b.counters.drops(INGRESS, DROP_BAD_TAG)).toBe(1);
    const [atB, , there] = exchange(meeting, 10);
    expect(atB).toEqual(there);
  });
});
