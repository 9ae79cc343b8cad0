import { beforeAll, expect, it } from "vitest";
import { Checksummer } from "../../../src/bytes/checksum.ts";
import { INGRESS } from "../../../src/datapath/counters.ts";
import { PATH_REQUEST, smallestMessageBytes, writePathMessage } from "../../../src/datapath/path_message.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { addressOctets, makePacket } from "../../fakes/packets.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

/** What b does with a probe between these addresses that a sends inside WireGuard. */
function probe(from: string, to: string, octets = 200) {
  const network = new FakeNetwork({ seed: 1 });
  const make = (name: string, number: number) =>
    new MeshNode(network, ciphers, {
      name,
      addresses: [`10.9.0.${number}`],
      underlay: `192.0.2.${number}`,
      identity: 65536 + number,
    });
  const [a, b] = [make("a", 1), make("b", 2)];
  a.learn(b);
  b.learn(a);
  for (const node of [a, b]) node.setPolicy(policyOf(1));
  a.send(makePacket({ source: "10.9.0.1", destination: "10.9.0.2" }));
  runUntil([a, b], 100);
  b.takeDelivered();
  const answers: number[] = [];
  network.tap = (datagram) => (datagram.from.startsWith("192.0.2.2") && answers.push(datagram.bytes.length), true);

  const peer = a.wireguard.findPeer(b.wireguard.publicKey)!;
  const session = a.wireguard.sealing(peer, 100)!;
  const { fromTunAt } = a.datapath.node.parts.layout;
  const at = fromTunAt + 16;
  a.arena.set([...addressOctets(from), ...addressOctets(to)], at + 12);
  writePathMessage(a.arena, at, at + octets, 4, PATH_REQUEST, 5, new Checksummer(a.arena));
  const cipher = ciphers.packetCipher(a.arena);
  const end = a.wireguard.writeTransport(session, cipher, a.arena, fromTunAt, at + octets, fromTunAt);
  b.underlay.inject(a.underlay.address, a.arena.slice(fromTunAt, end));
  runUntil([a, b], 200);
  expect(b.takeDelivered()).toEqual([]);
  return { answers, drops: b.counters.totalDrops(INGRESS) };
}

it("a probe of any size has a small answer, and never reaches the machine", () => {
  for (const octets of [smallestMessageBytes(4), 200, 1400]) {
    expect(probe("192.0.2.1", "192.0.2.2", octets)).toEqual({ answers: [16 + 36 + 16], drops: 0 });
  }
});

it("one that is not from the peer's own address, or not to ours, is dropped like anything else", () => {
  expect(probe("192.0.2.3", "192.0.2.2")).toEqual({ answers: [], drops: 1 });
  expect(probe("192.0.2.1", "192.0.2.3")).toEqual({ answers: [], drops: 1 });
  expect(probe("192.0.2.2", "192.0.2.2")).toEqual({ answers: [], drops: 1 });
});
