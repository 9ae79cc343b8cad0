import { beforeAll, describe, expect, it } from "vitest";
import { EGRESS, INGRESS } from "../../../src/datapath/counters.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { DROP_NO_SESSION, DROP_UNDER_LOAD } from "../../../src/verdict.ts";
import { loadTestCiphers, MeshNode, policyOf, runUntil } from "../../fakes/mesh_node.ts";
import { FakeNetwork } from "../../fakes/network.ts";
import { makePacket } from "../../fakes/packets.ts";

let ciphers: Ciphers;
beforeAll(async () => {
  ciphers = await loadTestCiphers();
});

function make(network: FakeNetwork, number: number, seed = number): MeshNode {
  const node = new MeshNode(network, ciphers, {
    name: `n${number}`,
    addresses: [`10.9.0.${number}`],
    underlay: `192.0.2.${number}`,
    identity: 65536 + number,
    seed,
  });
  node.setPolicy(policyOf(1));
  return node;
}

const packet = (from: number, to: number, fields: { sourcePort?: number; payload?: Uint8Array } = {}) =>
  makePacket({ source: `10.9.0.${from}`, destination: `10.9.0.${to}`, sourcePort: 7, destinationPort: 7, ...fields });

describe("a dead peer", () => {
  it("does not keep what is for others from waiting or from going, however much it is sent", () => {
    const network = new FakeNetwork({ seed: 1 });
    const [a, b, c] = [1, 2, 3].map((number) => make(network, number)) as [MeshNode, MeshNode, MeshNode];
    for (const other of [b, c]) {
      a.learn(other);
      other.learn(a);
    }
    network.tap = ({ to }) => !to.startsWith("192.0.2.2:"); // b is gone
    for (let i = 0; i < 200; i++) a.send(packet(1, 2, { payload: new Uint8Array(60_000) }));
    a.send(packet(1, 3));
    runUntil([a, c], 100);
    expect(c.takeDelivered().length).toBe(1);
    for (let second = 1; second <= 150; second++) {
      a.send(packet(1, 2, { payload: new Uint8Array(1000) }));
      a.send(packet(1, 3));
      runUntil([a, c], 100 + second * 1000);
      expect(c.takeDelivered().length, `second ${second}`).toBe(1);
    }
  });
});

describe("a flood of handshakes", () => {
  it("leaves a session that is alive alone, and lets it be renewed", () => {
    const network = new FakeNetwork({ seed: 1 });
    const [a, b] = [1, 2].map((number) => make(network, number)) as [MeshNode, MeshNode];
    a.learn(b);
    b.learn(a);
    const stranger = make(network, 9);
    stranger.learn(b);
    const initiations: Uint8Array[] = [];
    network.tap = ({ from, to, bytes }) => {
      if (from.startsWith("192.0.2.9:") && bytes.length === 148) initiations.push(bytes.slice());
      return !from.startsWith("192.0.2.9:") && !to.startsWith("198.51.100.");
    };
    stranger.send(packet(9, 2));
    runUntil([stranger], 10);
    expect(initiations.length).toBe(1);
    let delivered = 0;
    for (let second = 0; second < 140; second++) { // past the age at which a session is renewed
      const isFlooded = second < 3 || (second > 117 && second < 124);
      for (let i = 0; i < (isFlooded ? 600 : 0); i++) {
        b.underlay.inject(`198.51.100.${i % 250}:${1000 + second}`, initiations[0]!);
      }
      a.send(packet(1, 2));
      runUntil([a, b], 10 + (second + 1) * 1000);
      delivered += b.takeDelivered().length;
    }
    expect(b.counters.drops(INGRESS, DROP_UNDER_LOAD)).toBeGreaterThan(3_000);
    expect(delivered).toBe(140);
    expect(a.wireguard.findPeer(b.wireguard.publicKey)!.lastHandshakeUnixMs).toBeGreaterThan(
      1_790_000_000_000 + 100_000,
    );
    expect(a.counters.totalDrops(EGRESS)).toBe(0);
  });
});

describe("a member that starts anew", () => {
  /** b talks to a, which forgets everything but its key. */
  function restart() {
    const network = new FakeNetwork({ seed: 1 });
    const [old, b] = [make(network, 1, 77), make(network, 2)] as [MeshNode, MeshNode];
    old.learn(b);
    b.learn(old);
    b.send(packet(2, 1));
    runUntil([old, b], 1000);
    expect(old.takeDelivered().length).toBe(1);
    const a = make(network, 1, 77);
    const initiations = { count: 0 };
    network.tap = ({ from, bytes }) => {
      if (from.startsWith("192.0.2.1:") && bytes.length === 148) initiations.count++;
      return true;
    };
    return { network, a, b, initiations };
  }

  it("asks a peer that still uses the old session for a new one, so that its second packet arrives", () => {
    const { a, b, initiations } = restart();
    a.learn(b);
    b.send(packet(2, 1));
    runUntil([a, b], 1100);
    expect(a.takeDelivered()).toEqual([]);
    expect(a.counters.drops(INGRESS, DROP_NO_SESSION)).toBe(1);
    expect(initiations.count).toBe(1);
    b.send(packet(2, 1));
    runUntil([a, b], 1200);
    expect(a.takeDelivered().length).toBe(1);
  });

  it("sends nothing to an address that is no peer's", () => {
    const { a, b, network, initiations } = restart();
    const message = new Uint8Array(64).fill(1);
    message.set([4, 0, 0, 0]);
    a.learn(b);
    for (const from of ["203.0.113.5:51871", "192.0.2.2:51872"]) a.underlay.inject(from, message);
    network.tap = () => {
      throw new Error("something was sent");
    };
    runUntil([a], 60_000);
    expect(initiations.count).toBe(0);
    expect(a.counters.drops(INGRESS, DROP_NO_SESSION)).toBe(2);
  });

  it("sends a peer that is not there no more than a handshake every five seconds, whoever forges its messages", () => {
    const { a, b, initiations } = restart();
    const message = new Uint8Array(64).fill(1);
    message.set([4, 0, 0, 0]);
    a.learn(b);
    for (let i = 0; i < 600; i++) {
      for (let n = 0; n < 10; n++) a.underlay.inject("192.0.2.2:51871", message);
      runUntil([a], 1000 + (i + 1) * 100);
    }
    expect(initiations.count).toBeGreaterThan(5);
    expect(initiations.count).toBeLessThanOrEqual(13);
  });

  it("starts no handshake for forged messages while there is a session", () => {
    const { a, b, initiations } = restart();
    a.learn(b);
    a.send(packet(1, 2));
    runUntil([a, b], 1200);
    const before = initiations.count;
    const message = new Uint8Array(64).fill(1);
    message.set([4, 0, 0, 0]);
    for (let i = 0; i < 100; i++) {
      a.underlay.inject("192.0.2.2:51871", message);
      runUntil([a, b], 1200 + (i + 1) * 1000);
    }
    expect(initiations.count).toBe(before);
  });
});
