/** The list of flows that `observe` and a dry run ask for: plain ones, ICMP, and those that go through a proxy. */
import { beforeAll, describe, expect, it } from "vitest";
import type { Ciphers } from "../../../src/ports.ts";
import { EPOCH_UNIX_MS, loadTestCiphers } from "../../fakes/mesh_node.ts";
import { makePacket } from "../../fakes/packets.ts";
import { Proxied } from "../../fakes/proxied.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

const UDP = { direction: "egress", family: 4, protocol: "udp" } as const;

function flowsOf(mesh: Proxied, limit: number) {
  const { nowMs } = mesh.network;
  return mesh.a.datapath.flows(nowMs, EPOCH_UNIX_MS + nowMs, limit);
}

describe("the list of flows", () => {
  it("has each flow as its opener sees it, newest first, and says what goes through a proxy", () => {
    const mesh = new Proxied(ciphers, UDP);
    mesh.setVerdict("allow");
    mesh.run(10_000);
    mesh.fromOpener(mesh.flow({ payload: new Uint8Array(10) }));
    mesh.fromServer(mesh.flow({ payload: new Uint8Array(20) }, true));
    mesh.run(10_000);
    mesh.setVerdict("dns");
    const opener = { source: mesh.opener, destination: mesh.server };
    mesh.a.send(makePacket({ ...opener, sourcePort: 41_000, destinationPort: 80 }));
    mesh.run(1000);
    const flows = flowsOf(mesh, 10);
    expect(flows).toHaveLength(3);
    const nowUnixMs = EPOCH_UNIX_MS + mesh.network.nowMs;
    expect(flows.map(({ protocol, isRedirected, direction }) => [protocol, isRedirected, direction])).toEqual([
      [17, true, "egress"],
      [17, false, "egress"],
      [1, false, "ingress"],
    ]);
    expect(flows[0]).toMatchObject({
      source: mesh.opener,
      destination: mesh.server,
      sourcePort: 41_000,
      identity: 65538,
    });
    expect(flows[1]).toMatchObject({ packets: 1, bytes: 38, replyPackets: 1, replyBytes: 48, state: "established" });
    expect(flows[2]).toMatchObject({ source: "10.9.0.2", sourcePort: 7, destinationPort: 8, identity: 65538 });
    for (const { lastSeenUnixMs } of flows) {
      expect(lastSeenUnixMs).toBeLessThanOrEqual(nowUnixMs);
      expect(lastSeenUnixMs).toBeGreaterThan(nowUnixMs - 60_000);
    }
  });

  it("ends at its limit with the newest, and leaves out what is over", () => {
    const mesh = new Proxied(ciphers, UDP);
    mesh.setVerdict("allow");
    for (let i = 0; i < 40; i++) {
      const ports = { sourcePort: 1000 + i, destinationPort: 80 };
      mesh.a.send(makePacket({ source: mesh.opener, destination: mesh.server, ...ports }));
      mesh.run(1000);
    }
    expect(flowsOf(mesh, 5).map(({ sourcePort }) => sourcePort)).toEqual([1039, 1038, 1037, 1036, 1035]);
    expect(flowsOf(mesh, 0)).toEqual([]);
    expect(flowsOf(mesh, 1000).length).toBeGreaterThanOrEqual(40);
    mesh.run(90_000);
    expect(flowsOf(mesh, 1000)).toEqual([]);
  });
});
