/** Merging towards the TUN when the kernel does not want it, and offloads that are switched while packets flow. */
import { beforeAll, describe, expect, it } from "vitest";
import { INGRESS } from "../../../src/datapath/counters.ts";
import { ALL_OFFLOADS, NO_OFFLOADS } from "../../../src/offload/switches.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { DROP_TUN_WRITE, DROP_UNKNOWN_MESSAGE } from "../../../src/verdict.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { makePacket } from "../../fakes/packets.ts";

const EINVAL = 22;
const ENOBUFS = 105;
const PAYLOAD = Uint8Array.from({ length: 5000 }, (_, i) => (i * 7) & 255);
/** TSO of TCP over IPv4 and USO, segments of 1000 octets */
const TCP_HEADER = [1, 1, 40, 0, 0xe8, 3, 20, 0, 16, 0];
const UDP_HEADER = [1, 5, 28, 0, 0xe8, 3, 20, 0, 6, 0];

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

function meet() {
  const network = new FakeNetwork({ seed: 1 });
  const node = (name: string, last: number) =>
    new MeshNode(network, ciphers, {
      name,
      addresses: [`10.9.0.${last}`],
      underlay: `192.0.2.${last}`,
      identity: 65536 + last,
      offload: true,
    });
  const a = node("a", 1), b = node("b", 2);
  a.learn(b);
  b.learn(a);
  for (const each of [a, b]) each.setPolicy(policyOf(1));
  return { network, a, b };
}

/** Sends one superpacket from a to b; the lengths of what b's machine gets, and all payload octets. */
function sendSuperpacket({ a, b, network }: ReturnType<typeof meet>, protocol: "tcp" | "udp", destinationPort = 80) {
  const packet = makePacket({
    source: "10.9.0.1",
    destination: "10.9.0.2",
    protocol,
    sourcePort: 4000,
    destinationPort,
    flags: 16,
    payload: PAYLOAD,
  });
  a.tun.toRead.push(Uint8Array.from([...(protocol === "tcp" ? TCP_HEADER : UDP_HEADER), ...packet]));
  runUntil([a, b], network.nowMs + 50);
  const delivered = b.takeDelivered();
  const headerBytes = protocol === "tcp" ? 40 : 28;
  return {
    lengths: delivered.map((bytes) => bytes.length),
    payload: delivered.flatMap((bytes) => [...bytes.slice(headerBytes)]),
  };
}

describe("a kernel that refuses superpackets", () => {
  it.each(["tcp", "udp"] as const)("gets the same %s packets one by one, and no more merged ones", (protocol) => {
    const mesh = meet();
    const { b } = mesh;
    const headerBytes = protocol === "tcp" ? 40 : 28;
    expect(sendSuperpacket(mesh, protocol).lengths).toEqual([headerBytes + 5000]);
    b.tun.mergedErrno = EINVAL;
    const refused = sendSuperpacket(mesh, protocol);
    expect(refused.lengths).toEqual(new Array(5).fill(headerBytes + 1000));
    expect(refused.payload).toEqual([...PAYLOAD]);
    expect([b.tun.mergesTcp, b.tun.mergesUdp]).toEqual([protocol === "udp", protocol === "tcp"]);
    const writes = b.counters.read("toTunWrites");
    expect(sendSuperpacket(mesh, protocol).lengths).toEqual(new Array(5).fill(headerBytes + 1000));
    expect(b.counters.read("toTunWrites")).toBe(writes + 5); // it was not even tried
    expect(b.counters.totalDrops(INGRESS)).toBe(0);
    // until somebody says that it be tried again
    b.tun.mergedErrno = 0;
    b.datapath.apply({ op: "offload", switches: ALL_OFFLOADS }, mesh.network.nowMs);
    expect(sendSuperpacket(mesh, protocol).lengths).toEqual([headerBytes + 5000]);
  });

  it("is not meant when the packets are refused alone as well, or for another reason", () => {
    const mesh = meet();
    const { b } = mesh;
    sendSuperpacket(mesh, "tcp");
    b.tun.errno = EINVAL;
    expect(sendSuperpacket(mesh, "tcp").lengths).toEqual([]);
    expect(b.counters.drops(INGRESS, DROP_TUN_WRITE)).toBe(5);
    b.tun.errno = ENOBUFS;
    expect(sendSuperpacket(mesh, "tcp").lengths).toEqual([]);
    expect(b.counters.drops(INGRESS, DROP_TUN_WRITE)).toBe(6);
    b.tun.errno = 0;
    expect(b.tun.mergesTcp).toBe(true);
    expect(sendSuperpacket(mesh, "tcp").lengths).toEqual([5040]);
  });
});

describe("offloads that are switched", () => {
  it("reach TUN, merger and underlay", () => {
    const mesh = meet();
    const { b, network } = mesh;
    expect(sendSuperpacket(mesh, "tcp").lengths).toEqual([5040]);
    const before = b.datapath.offloadChanges;
    b.datapath.apply({ op: "offload", switches: NO_OFFLOADS }, network.nowMs);
    expect(b.datapath.offloadChanges).toBe(before + 2);
    expect(b.underlay.switches).toEqual(NO_OFFLOADS);
    expect(sendSuperpacket(mesh, "tcp").lengths).toEqual(new Array(5).fill(1040));
    b.datapath.apply({ op: "offload", switches: { ...NO_OFFLOADS, udpMerge: true } }, network.nowMs);
    expect(sendSuperpacket(mesh, "tcp").lengths).toEqual(new Array(5).fill(1040));
    expect(sendSuperpacket(mesh, "udp").lengths).toEqual([5028]);
  });

  it.each([6081, 8472, 4789])("datagrams to the tunnel port %d are merged in no case", (port) => {
    expect(sendSuperpacket(meet(), "udp", port).lengths).toEqual(new Array(5).fill(1028));
  });
});

describe("a filler behind a run", () => {
  it("is counted as one, and is no drop; another short datagram is", () => {
    const { b, network } = meet();
    b.underlay.inject("192.0.2.1:51871", Uint8Array.of(7));
    runUntil([b], network.nowMs + 1);
    expect(b.counters.read("fillerDatagrams")).toBe(1);
    expect(b.counters.totalDrops(INGRESS)).toBe(0);
    for (const bytes of [[8], [7, 7], [0]]) b.underlay.inject("192.0.2.1:51871", Uint8Array.from(bytes));
    runUntil([b], network.nowMs + 1);
    expect(b.counters.read("fillerDatagrams")).toBe(1);
    expect(b.counters.drops(INGRESS, DROP_UNKNOWN_MESSAGE)).toBe(3);
  });
});
