/**
 * What the tests of the WireGuard paper's rules (`paper_*.test.ts`) share: two devices in one process, a clock that the test
 * moves, one-way delay of 10 ms. Every test has a new pair.
 */
import { beforeAll, beforeEach } from "vitest";
import { loadSodiumWasm } from "../../../edge/ciphers_wasm.ts";
import { formatUnderlayAddr, readUnderlayAddr } from "../../../src/ip/underlay_addr.ts";
import type { Ciphers } from "../../../src/ports.ts";
import { LOAD_QUEUE_THRESHOLD } from "../../../src/tunnel/constants.ts";
import type { Peer } from "../../../src/tunnel/peer.ts";
import { type FakeNode, WireGuardPair } from "../../fakes/wireguard_pair.ts";

export const INITIATION = 1;
export const RESPONSE = 2;
export const COOKIE = 3;
export const KEEPALIVE = 4;
export const SECOND = 1000;

export let ciphers: Ciphers;
/** the pair of the test that runs, its devices, and each one's peer */
export let pair: WireGuardPair;
export let a: FakeNode;
export let b: FakeNode;
export let toA: Peer;
export let toB: Peer;

/** To be called once, at the top of each file. */
export function makePairs(): void {
  beforeAll(async () => {
    ciphers = await loadSodiumWasm();
  });
  beforeEach(() => use(new WireGuardPair(ciphers)));
}

/** Goes on with another pair. */
export function use(made: WireGuardPair): void {
  pair = made;
  ({ a, b, toA, toB } = made);
}

/** From here on nothing that a node sends arrives. */
export function cut(...nodes: FakeNode[]): void {
  pair.network.tap = (datagram) => !nodes.some((node) => node.address === datagram.from);
}

/** From here on everything arrives. */
export function join(): void {
  pair.network.tap = () => true;
}

/** Where a node sends what is for a peer. */
export function endpointOf(node: FakeNode, peer: Peer): string {
  return formatUnderlayAddr(readUnderlayAddr(node.arena, peer.endpointAt)!);
}

export function gaps(times: readonly number[]): readonly number[] {
  return times.slice(1).map((time, i) => time - times[i]!);
}

/** A data message of the node, as it would arrive, that the network does not carry. */
export function capture(node: FakeNode, peer: Peer, value: number): Uint8Array {
  const tap = pair.network.tap;
  let captured: Uint8Array | undefined;
  pair.network.tap = (datagram) => {
    captured = datagram.bytes;
    return false;
  };
  node.send(peer, value);
  pair.network.tap = tap;
  return captured!;
}

/** Puts a node under load with initiations of strangers, whose mac1 is right. */
export function load(node: FakeNode): void {
  const stranger = new WireGuardPair(ciphers, { seed: 99 });
  const peer = stranger.a.wireguard.putPeer({
    name: "target",
    publicKey: node.wireguard.publicKey,
    keepaliveSeconds: 0,
    allowedIps: [],
    endpoint: { address: Uint8Array.of(203, 0, 113, 1), port: 1, scope: 0 },
  }, 0);
  stranger.a.wireguard.startHandshake(peer, 0);
  stranger.a.tick();
  const message = stranger.a.last(INITIATION)!.bytes;
  for (let i = 0; i <= LOAD_QUEUE_THRESHOLD; i++) node.receive(message, "203.0.113.1:1");
}
