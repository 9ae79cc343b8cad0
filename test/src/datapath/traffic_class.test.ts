import { beforeAll, describe, expect, it } from "vitest";
import type { Ciphers } from "../../../src/ports.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { makePacket } from "../../fakes/packets.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

/** The classes of the datagrams that carry packets of these classes, and how those arrive. */
function send(copiesDscp: boolean, from: string, to: string, classes: readonly number[]) {
  const network = new FakeNetwork({ seed: 1 });
  const make = (name: string, number: number) =>
    new MeshNode(network, ciphers, {
      name,
      addresses: [`10.9.0.${number}`, `fd09::${number}`],
      underlay: `192.0.2.${number}`,
      identity: 65536 + number,
      copiesDscp,
    });
  const [a, b] = [make("a", 1), make("b", 2)];
  a.learn(b);
  b.learn(a);
  for (const node of [a, b]) node.setPolicy(policyOf(1));
  a.send(makePacket({ source: from, destination: to }));
  runUntil([a, b], 10);
  b.takeDelivered();
  a.underlay.classes.length = 0;
  const packets = classes.map((trafficClass) => makePacket({ source: from, destination: to, trafficClass }));
  for (const packet of packets) a.send(packet);
  runUntil([a, b], 20);
  expect(b.takeDelivered()).toEqual(packets);
  return a.underlay.classes;
}

describe.each([["10.9.0.1", "10.9.0.2"], ["fd09::1", "fd09::2"]])("from %s, the outer header", (from, to) => {
  it("gets the ECN of what is inside and no DSCP, which is as it was when it arrives (RFC 6040)", () => {
    expect(send(false, from, to, [0xb8, 0x02, 0x89, 0x03])).toEqual([0, 2, 1, 3]);
  });

  it("gets the DSCP, too, where that is asked for", () => {
    expect(send(true, from, to, [0xb8, 0x02, 0x89, 0x00])).toEqual([0xb8, 2, 0x89, 0]);
  });
});
