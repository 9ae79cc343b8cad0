/** Packets in runs are judged as if each came alone: what is remembered of the packet before never lets another pass. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { INGRESS } from "../../../src/datapath/counters.ts";
import { FlowMemo } from "../../../src/datapath/flow_memo.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { PacketInfo, readPacket } from "../../../src/wire/packet.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { makePacket } from "../../fakes/packets.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

const ACK = 16, FIN = 1, RST = 4, SYN = 2;

interface Sent {
  readonly family: 4 | 6;
  readonly protocol: "tcp" | "udp";
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly flags: number;
}

const sent: fc.Arbitrary<Sent> = fc.record({
  family: fc.constantFrom(4, 6),
  protocol: fc.constantFrom("tcp", "udp"),
  sourcePort: fc.constantFrom(4000, 4001),
  destinationPort: fc.constantFrom(80, 81),
  flags: fc.constantFrom(ACK, ACK, ACK, ACK | FIN, RST, SYN),
});

/** Equal lengths for both families and protocols, so that all of them come in one run. */
function packetOf({ family, protocol, ...fields }: Sent, index: number): Uint8Array {
  const payload = new Uint8Array(200 - (family === 6 ? 20 : 0) + (protocol === "udp" ? 12 : 0)).fill(index);
  const addresses = family === 4
    ? { source: "10.9.0.1", destination: "10.9.0.2" }
    : { source: "fd09::1", destination: "fd09::2" };
  return makePacket({ ...addresses, protocol, ...fields, payload });
}

/** What b's machine got of the batches, and what b counted, by reason and by flow. */
function deliver(batches: readonly (readonly Sent[])[], inRuns: boolean) {
  const network = new FakeNetwork({ seed: 1 });
  const node = (name: string, last: number) =>
    new MeshNode(network, ciphers, {
      name,
      addresses: [`10.9.0.${last}`, `fd09::${last}`],
      underlay: `192.0.2.${last}`,
      identity: 65536 + last,
    });
  const a = node("a", 1), b = node("b", 2);
  a.learn(b);
  b.learn(a);
  a.setPolicy(policyOf(1));
  b.setPolicy(policyOf(1, [{ identity: 65537, protocol: 6, port: 80, verdict: "allow" }]));
  (b.underlay as { hasSegmentation: boolean }).hasSegmentation = inRuns;
  a.send(packetOf({ family: 4, protocol: "tcp", sourcePort: 1, destinationPort: 1, flags: ACK }, 0));
  runUntil([a, b], 50); // the handshake
  const runs = b.counters.read("fromUnderlayRuns");
  for (const batch of batches) {
    batch.forEach((packet, i) => a.send(packetOf(packet, i)));
    runUntil([a, b], network.nowMs + 50);
  }
  return {
    runs: b.counters.read("fromUnderlayRuns") - runs,
    result: {
      delivered: b.takeDelivered().map((bytes) => [...bytes].join(" ")),
      drops: [...b.counters.dropsByReason(INGRESS)],
      created: b.counters.read("flowsCreated"),
      flows: b.datapath.flows(network.nowMs, 0, 100).map((flow) => JSON.stringify(flow)).sort(),
    },
  };
}

describe("packets of many flows in one run", () => {
  it("are delivered, dropped and counted as if each came alone", () => {
    let saved = 0;
    fc.assert(
      fc.property(
        fc.array(fc.array(sent, { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 3 }),
        (batches) => {
          const together = deliver(batches, true);
          const alone = deliver(batches, false);
          expect(together.result).toEqual(alone.result);
          saved += alone.runs - together.runs;
        },
      ),
      { numRuns: 60 },
    );
    expect(saved).toBeGreaterThan(100);
  });
});

describe("the flow of the packet before", () => {
  it.each([4, 6] as const)("is that of a packet only when all that policy looks at is equal (IPv%d)", (family) => {
    const bytes = new Uint8Array(4096);
    const read = (change: Partial<Sent>, at: number, source?: string) => {
      const fields: Sent = { family, protocol: "tcp", sourcePort: 9, destinationPort: 80, flags: ACK, ...change };
      const addresses = family === 4
        ? { source: source ?? "10.9.0.1", destination: "10.9.0.2" }
        : { source: source ?? "fd09::1", destination: "fd09::2" };
      const packet = makePacket({ ...fields, ...addresses, payload: new Uint8Array(9) });
      bytes.set(packet, at);
      const info = new PacketInfo();
      expect(readPacket(bytes, at, at + packet.length, info)).toBe(0);
      return info;
    };
    const memo = new FlowMemo();
    const first = read({}, 0);
    expect(memo.isSame(bytes, first, 5, 1)).toBe(false);
    memo.note(bytes, first, 5, 1, 77);
    expect(memo.flow).toBe(77);
    expect(memo.isSame(bytes, read({}, 1024), 5, 1)).toBe(true);
    expect(memo.isSame(bytes, read({ flags: ACK | FIN }, 1024), 5, 1)).toBe(true);
    expect(memo.isSame(bytes, first, 6, 1)).toBe(false);
    expect(memo.isSame(bytes, first, 5, 2)).toBe(false);
    for (const change of [{ sourcePort: 10 }, { destinationPort: 81 }, { flags: SYN }, { protocol: "udp" }] as const) {
      expect(memo.isSame(bytes, read(change, 1024), 5, 1), JSON.stringify(change)).toBe(false);
    }
    expect(memo.isSame(bytes, read({}, 1024, family === 4 ? "10.9.0.3" : "fd09:1::1"), 5, 1)).toBe(false);
    memo.forget();
    expect(memo.isSame(bytes, first, 5, 1)).toBe(false);
  });
});
