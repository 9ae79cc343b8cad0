import fc from "fast-check";
import { expect, it } from "vitest";
import { PathMtus } from "../../../src/datapath/path_mtu.ts";
import { parseUnderlayAddr, writeUnderlayAddr } from "../../../src/ip/underlay_addr.ts";
import { Peer } from "../../../src/tunnel/peer.ts";

const padded = (bytes: number) => (bytes + 15) & ~15;

/** One peer, whose session seals with tags of that size, and the octets on the wire of a packet to it: what `egress.ts` makes. */
function make(mtu: number, isV6: boolean, tagBytes: number) {
  const arena = new Uint8Array(64);
  writeUnderlayAddr(arena, 0, parseUnderlayAddr(isV6 ? "[2001:db8::1]:51871" : "192.0.2.1:51871")!);
  const peer = new Peer(0, 0, "p", {} as Peer["keys"]);
  peer.current = { sendTagBytes: tagBytes } as NonNullable<Peer["current"]>;
  const maxPlaintext = padded(mtu + 50);
  const paths = new PathMtus(arena, 1, mtu, maxPlaintext);
  const wire = (packet: number, envelope: number) => {
    const plaintext = packet + envelope;
    const padding = Math.max(0, Math.min(padded(plaintext) - plaintext, maxPlaintext - (tagBytes - 16) - plaintext));
    return (isV6 ? 48 : 28) + 16 + plaintext + padding + tagBytes;
  };
  return { paths, peer, wire };
}

it("limits packets to what fits the way when sealed, and no lower than need be", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1135, max: 8855 }),
    fc.boolean(),
    fc.constantFrom(16, 32),
    fc.constantFrom(0, 50, 70),
    fc.integer({ min: 600, max: 9000 }),
    (mtu, isV6, tagBytes, envelope, path) => {
      const { paths, peer, wire } = make(mtu, isV6, tagBytes);
      paths.setPath(peer, path, envelope);
      const limit = paths.limitOf(0, 4);
      const most = limit === 65535 ? mtu : limit;
      expect(wire(most, envelope)).toBeLessThanOrEqual(path);
      for (let packet = most; packet > most - 40; packet--) expect(wire(packet, envelope)).toBeLessThanOrEqual(path);
      if (limit !== 65535) expect(wire(limit + 16, envelope)).toBeGreaterThan(path - 1);
      expect(paths.largestTcpOf(0)).toBe(Math.min(mtu, most));
      expect(paths.limitOf(0, 6)).toBeGreaterThanOrEqual(1280);
      expect(paths.isSqueezed(0, most)).toBe(false);
      expect(paths.isSqueezed(0, most + 1)).toBe(isV6 && limit !== 65535);
    },
  ));
});

it("limits nothing while the way is not known, or when it is forgotten", () => {
  const { paths, peer } = make(1355, false, 16);
  paths.refresh(peer, 50);
  expect([paths.pathOf(0), paths.limitOf(0, 4), paths.largestTcpOf(0)]).toEqual([0, 65535, 1355]);
  paths.setPath(peer, 1280, 50);
  expect([paths.pathOf(0), paths.limitOf(0, 4), paths.largestTcpOf(0)]).toEqual([1280, 1166, 1166]);
  paths.remove(0);
  expect([paths.pathOf(0), paths.limitOf(0, 4), paths.largestTcpOf(0)]).toEqual([0, 65535, 1355]);
});

it("takes a way narrower than any IPv4 host's for one that is as wide", () => {
  const { paths, peer } = make(1355, false, 16);
  paths.setPath(peer, 100, 50);
  expect([paths.pathOf(0), paths.limitOf(0, 4)]).toEqual([100, 462]);
});
