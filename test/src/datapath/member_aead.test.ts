/** The AEADs of members through the whole datapath: sizes, runs, padding, and peers of both kinds side by side. */
import { beforeAll, describe, expect, it } from "vitest";
import { EGRESS, INGRESS } from "../../../src/datapath/counters.ts";
import type { AeadName, Ciphers } from "../../../src/ports.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { makePacket } from "../../fakes/packets.ts";

const A = { name: "a", addresses: ["10.9.0.1", "fd09::1"], underlay: "192.0.2.1", identity: 65537 };
const B = { name: "b", addresses: ["10.9.0.2", "fd09::2"], underlay: "192.0.2.2", identity: 65538 };
const C = { name: "c", addresses: ["10.9.0.3", "fd09::3"], underlay: "192.0.2.3", identity: 65539 };
const IPV4_UDP_BYTES = 20 + 8;
/** what a UDP message may have over IPv6 with an MTU of 1500 */
const IPV6_ROOM_BYTES = 1500 - 40 - 8;

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

interface MeetOptions {
  readonly aead?: AeadName;
  readonly underlays?: readonly [string, string];
  readonly loss?: number;
  readonly jitterMs?: number;
  readonly seed?: number;
}

function meet({ aead, underlays, loss = 0, jitterMs = 0, seed = 1 }: MeetOptions) {
  const network = new FakeNetwork({ seed, loss, jitterMs });
  const sizes: number[] = [];
  network.tap = ({ bytes }) => {
    if (bytes[0] === 4) sizes.push(bytes.length);
    return true;
  };
  const [underlayA, underlayB] = underlays ?? [A.underlay, B.underlay];
  const sendAeads: AeadName[] = aead === undefined ? [] : [aead];
  const a = new MeshNode(network, ciphers, { ...A, underlay: underlayA, sendAeads });
  const b = new MeshNode(network, ciphers, { ...B, underlay: underlayB, sendAeads });
  a.learn(b, { ...(aead && { aead }) });
  b.learn(a, { ...(aead && { aead }) });
  for (const node of [a, b]) node.setPolicy(policyOf(1));
  return { network, a, b, sizes };
}

/** A packet of exactly so many octets. */
function packetOf(bytes: number): Uint8Array {
  return makePacket({
    source: "10.9.0.1",
    destination: "10.9.0.2",
    payload: new Uint8Array(bytes - IPV4_UDP_BYTES).fill(7),
  });
}

describe("AEGIS-128L in the datapath", () => {
  it.each(
    [
      ["IPv4", 1354, undefined],
      ["IPv6", 1334, ["2001:db8::1", "2001:db8::2"]],
    ] as const,
  )("a full packet of its MTU fits whole over any underlay, with envelopes of %s", (_, mtu, underlays) => {
    const { a, b, sizes } = meet({ aead: "aegis128l", ...(underlays && { underlays }) });
    const packets = [mtu, mtu - 1, mtu - 15, mtu - 16, mtu - 17, 100, 28].map(packetOf);
    for (const packet of packets) a.send(packet);
    runUntil([a, b], 100);
    expect(b.takeDelivered()).toEqual(packets);
    expect(Math.max(...sizes)).toBe(IPV6_ROOM_BYTES);
  });

  it("pads to 16 like everything else, where there is room for it", () => {
    const { a, b, sizes } = meet({ aead: "aegis128l" });
    for (const bytes of [28, 29, 44, 100, 1300]) a.send(packetOf(bytes));
    runUntil([a, b], 100);
    expect(b.takeDelivered().length).toBe(5);
    for (const size of sizes) expect((size - 16 - 32) % 16).toBe(0);
  });

  it("costs nothing where WireGuard's own AEAD is spoken: its full packets are as large as ever", () => {
    const { a, b, sizes } = meet({});
    a.send(packetOf(1355));
    runUntil([a, b], 100);
    expect(b.takeDelivered()).toEqual([packetOf(1355)]);
    expect(Math.max(...sizes)).toBe(16 + 1408 + 16);
  });

  it("delivers every packet once where the network reorders and loses, but for what was lost", () => {
    for (let seed = 1; seed <= 4; seed++) {
      const { a, b } = meet({ aead: "aegis128l", seed, loss: 0.05, jitterMs: 20 });
      const sent = 200;
      for (let i = 0; i < sent; i++) {
        a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2", payload: Uint8Array.of(i >> 8, i & 255) }));
        runUntil([a, b], (i + 1) * 1000); // through rekeys
      }
      const numbers = b.takeDelivered().map((bytes) => (bytes[28]! << 8) | bytes[29]!);
      expect(new Set(numbers).size).toBe(numbers.length);
      expect(numbers.length).toBeGreaterThan(sent * 0.85);
    }
  });

  it("is spoken with one peer while another gets WireGuard's own, and both see it in the snapshot", () => {
    const { network, a, b } = meet({ aead: "aegis128l" });
    const c = new MeshNode(network, ciphers, C); // an older release
    a.learn(c);
    c.learn(a);
    c.setPolicy(policyOf(1));
    const toC = makePacket({ source: "10.9.0.1", destination: "10.9.0.3", payload: new Uint8Array(33) });
    a.send(packetOf(500));
    a.send(toC);
    runUntil([a, b, c], 100);
    expect(b.takeDelivered()).toEqual([packetOf(500)]);
    expect(c.takeDelivered()).toEqual([toC]);
    const aeads = a.datapath.snapshot(network.nowMs).peers.map(({ name, aead }) => [name, aead]);
    expect(aeads).toEqual([["b", "aegis128l"], ["c", "chacha20poly1305"]]);
    for (const node of [a, b, c]) expect(node.counters.totalDrops(INGRESS) + node.counters.totalDrops(EGRESS)).toBe(0);
  });
});
