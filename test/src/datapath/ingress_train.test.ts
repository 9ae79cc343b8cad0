/** Packets that are like the one before them go a shorter way: what comes out must be what comes out of the long one. */
import fc from "fast-check";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { INGRESS } from "../../../src/datapath/counters.ts";
import { Merger } from "../../../src/offload/merge.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { loadTestCiphers, MeshNode, type MeshNodeOptions, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { tcpPacket, udpPacket } from "../../support/inner_packets.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});
afterEach(() => vi.restoreAllMocks());

const MODES: Readonly<Record<string, { self?: Partial<MeshNodeOptions>; peer?: object; isV6?: boolean }>> = {
  "Geneve over IPv4": {},
  "Geneve over IPv6": { isV6: true },
  "VXLAN": { self: { tunnelProtocol: "vxlan" } },
  "no envelope": { self: { acceptsNative: true }, peer: { mode: "native" } },
  "no encryption": { self: { encryption: "none" }, peer: { plain: true } },
};

/** Two members; the second has vector code in one world, and not in the other. */
function meet(mode: string, hasVectors: boolean) {
  const { self = {}, peer = {}, isV6 = false } = MODES[mode]!;
  const network = new FakeNetwork({ seed: 1 });
  const underlay = (last: number) => isV6 ? `2001:db8::${last}` : `192.0.2.${last}`;
  const node = (name: string, last: number, options: Partial<MeshNodeOptions>) =>
    new MeshNode(network, ciphers, {
      name,
      addresses: [`10.9.0.${last}`, `fd00:9::${last}`],
      underlay: underlay(last),
      identity: 65536 + last,
      ...self,
      ...options,
    });
  const a = node("a", 1, {}), b = node("b", 2, { offload: true, hasVectors });
  const plain = (other: number) => "plain" in peer ? { plain: underlay(other) } : {};
  a.learn(b, { ...peer, ...plain(2) } as object);
  b.learn(a, { ...peer, ...plain(1) } as object);
  for (const each of [a, b]) each.setPolicy(policyOf(1));
  return { network, a, b };
}

/** What one packet of a stream may be. Most are the next full segment. */
interface Step {
  readonly flow: number;
  readonly change:
    | "none"
    | "short"
    | "push"
    | "window"
    | "gap"
    | "again"
    | "fin"
    | "damaged"
    | "ttl"
    | "id"
    | "may be cut";
}

const FULL_BYTES = 600;

/** The packets of some streams over IPv4 and IPv6, TCP and UDP, as a sender's kernel would make them, or nearly. */
function packetsOf(steps: readonly Step[]): Uint8Array[] {
  const next = new Map<number, number>();
  return steps.map(({ flow, change }, i) => {
    const bytes = change === "short" ? 111 : FULL_BYTES;
    const sequence = (next.get(flow) ?? 0xffff_f000) + (change === "gap" ? 5000 : change === "again" ? -bytes : 0);
    const isV6 = flow % 2 === 1;
    const make = flow < 4 ? tcpPacket : udpPacket;
    const packet = make({
      source: isV6 ? [0xfd, 0, 0, 9, ...new Array(11).fill(0), 1] : [10, 9, 0, 1],
      destination: isV6 ? [0xfd, 0, 0, 9, ...new Array(11).fill(0), 2] : [10, 9, 0, 2],
      sourcePort: 4000 + flow,
      destinationPort: 80,
      flags: 16 | (change === "push" ? 8 : 0) | (change === "fin" ? 1 : 0),
      payload: Uint8Array.from({ length: bytes }, (_, at) => at * 7 + i),
      sequence: sequence >>> 0,
      window: change === "window" ? 77 : 1000,
      ttl: change === "ttl" ? 9 : 64,
      id: change === "id" ? 500 + i : 1,
      fragment: change === "may be cut" ? 0 : 0x4000,
    });
    next.set(flow, sequence + bytes);
    if (change === "damaged") packet[packet.length - 1] = packet.at(-1)! ^ 4;
    return packet;
  });
}

/** Sends a batch; everything that can be seen of what came of it. */
function send({ network, a, b }: ReturnType<typeof meet>, steps: readonly Step[]) {
  for (const packet of packetsOf(steps)) a.send(packet);
  runUntil([a, b], network.nowMs + 20);
  const flows = b.datapath.flows(network.nowMs, 0, 100).map((flow) => JSON.stringify(flow)).sort();
  return {
    delivered: b.tun.written.splice(0).map((bytes) => Buffer.from(bytes).toString("latin1")),
    flows,
    counters: (["toTunPackets", "toTunBytes", "toTunWrites"] as const).map((name) => b.counters.read(name)),
    drops: b.counters.totalDrops(INGRESS),
    rxBytes: b.datapath.snapshot(network.nowMs).peers[0]!.rxBytes,
  };
}

/** With load before, so that vector code is made. */
function loaded(mode: string, hasVectors: boolean) {
  const mesh = meet(mode, hasVectors);
  for (let i = 0; i < 40; i++) send(mesh, full(0, 30));
  return mesh;
}

const full = (flow: number, count: number): Step[] => new Array(count).fill({ flow, change: "none" });
const step = fc.record({
  flow: fc.integer({ min: 0, max: 5 }),
  change: fc.constantFrom<Step["change"]>(
    ...["none", "short", "push", "window", "gap", "again", "fin", "damaged", "ttl", "id", "may be cut"] as const,
  ),
});
/** runs of full segments with something else between */
const stream = fc.array(fc.tuple(step, fc.integer({ min: 0, max: 9 })), { minLength: 1, maxLength: 12 })
  .map((parts) => parts.flatMap(([odd, count]) => [...full(odd.flow, count), odd, ...full(odd.flow, count >> 1)]));

describe.each(Object.keys(MODES))("a train of packets with %s", (mode) => {
  it("comes out as it does without vector code, whatever is in it", () => {
    const [here, there] = [loaded(mode, true), loaded(mode, false)];
    fc.assert(
      fc.property(stream, (steps) => {
        expect(send(here, steps)).toEqual(send(there, steps));
      }),
      { numRuns: 60, endOnFailure: true }, // what came before stays: shrinking would meet another state
    );
  });

  it("is taken as one: all but the first of a run continue it", () => {
    const mesh = loaded(mode, true);
    const extended = vi.spyOn(Merger.prototype, "extend");
    const { delivered } = send(mesh, full(2, 30));
    expect(delivered.map((packet) => packet.length)).toEqual([10 + 40 + 30 * FULL_BYTES]);
    expect(extended.mock.results.map(({ value }) => value)).toEqual(new Array(29).fill(true));
  });
});

describe("packets that are like the one before them", () => {
  it("are dropped one by one where that one was", () => {
    const mesh = loaded("Geneve over IPv4", true);
    mesh.b.setPolicy(policyOf(2, [])); // nothing is allowed any more: a new flow is refused, an old one is not
    const before = mesh.b.counters.totalDrops(INGRESS);
    expect(send(mesh, full(2, 20))).toMatchObject({ delivered: [], drops: before + 20 });
  });
});
