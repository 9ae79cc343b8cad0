import { afterEach, describe, expect, it } from "vitest";
import { EINVAL, EIO } from "../../ffi/errno.ts";
import { type Netlink, openNetlink } from "../../ffi/netlink.ts";
import { READY_TUN, Waiter } from "../../ffi/poll.ts";
import { makeArena } from "../../ffi/sodium.ts";
import { openTun, type TunDevice } from "../../ffi/tun.ts";
import { complement, sumOctets } from "../../src/bytes/checksum.ts";
import { readU16, writeU16 } from "../../src/bytes/integers.ts";
import { parsePrefix } from "../../src/ip/address.ts";
import { ALL_OFFLOADS, NO_OFFLOADS } from "../../src/offload/switches.ts";
import { hasIpv6, noNetwork, runtimeName } from "./harness.ts";

const NAME = "edgemesh-t0";
const VIRTIO_BYTES = 10;

/** An ICMP echo request 10.77.0.2 -> 10.77.0.1, 28 octets. */
function writeEcho(bytes: Uint8Array, at: number): number {
  bytes.set([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1, 8, 0, 0, 0, 0x12, 0x34, 0, 1], at);
  writeU16(bytes, at + 10, complement(sumOctets(bytes, at, at + 20)));
  writeU16(bytes, at + 22, complement(sumOctets(bytes, at + 20, at + 28)));
  return at + 28;
}

describe.skipIf(noNetwork)(`TUN on ${runtimeName}${noNetwork}`, () => {
  const open: { close(): void }[] = [];
  afterEach(() => {
    for (const each of open.splice(0)) each.close();
  });

  function device(arena: Uint8Array, offload: boolean): TunDevice {
    const tun = openTun({ name: NAME, arena, offload: offload ? ALL_OFFLOADS : NO_OFFLOADS });
    open.push(tun);
    return tun;
  }

  function netlink(): Netlink {
    const made = openNetlink();
    open.push(made);
    return made;
  }

  /** Reads until the kernel's answer to the echo is there, past what it says by itself (router solicitations and the like). */
  function readEchoReply(tun: TunDevice, arena: Uint8Array, headerBytes: number): { at: number; end: number } {
    const waiter = new Waiter({ tunFd: tun.fd, underlayFds: [] });
    open.push(waiter);
    for (let tries = 0; tries < 50; tries++) {
      const bytes = tun.read(70_000, 140_000);
      if (bytes === 0) {
        if (waiter.wait(1000) !== READY_TUN) break;
        continue;
      }
      const at = 70_000 + headerBytes;
      if (bytes > headerBytes + 20 && arena[at] === 0x45 && arena[at + 9] === 1) return { at, end: 70_000 + bytes };
    }
    throw new Error("No echo reply came");
  }

  it.each([true, false])(
    "packets go in whole and in pieces, and the kernel's answer comes out (offload %s)",
    (offload) => {
      const arena = makeArena(1 << 18);
      const tun = device(arena, offload);
      expect(tun.name).toBe(NAME);
      expect(tun.hasOffload).toBe(offload);
      const links = netlink();
      const link = links.findLink(NAME)!;
      expect(link.isUp).toBe(false);
      expect(tun.read(0, 70_000)).toBe(0);
      expect(tun.write(Int32Array.of(0, writeEcho(arena, 0)), 1)).toBe(offload ? -EINVAL : -EIO);

      links.addAddress(link.index, parsePrefix("10.77.0.1/24")!);
      links.setLinkUp(link.index, 1355);
      const headerBytes = offload ? VIRTIO_BYTES : 0;
      arena.fill(0, 0, 100);
      const end = writeEcho(arena, headerBytes);
      for (
        const pieces of [
          Int32Array.of(0, end),
          Int32Array.of(0, headerBytes + 20, headerBytes + 20, end),
          Int32Array.of(0, headerBytes + 1, headerBytes + 1, end - 3, end - 3, end - 3, end - 3, end),
        ]
      ) {
        expect(tun.write(pieces, pieces.length / 2)).toBe(end);
        const reply = readEchoReply(tun, arena, headerBytes);
        expect(reply.end - reply.at).toBe(28);
        expect([...arena.subarray(reply.at + 12, reply.at + 20)]).toEqual([10, 77, 0, 1, 10, 77, 0, 2]);
        expect(arena[reply.at + 20]).toBe(0);
        expect(readU16(arena, reply.at + 24)).toBe(0x1234);
      }
    },
  );

  it("says what was negotiated, and what was not asked for", () => {
    const arena = makeArena(4096);
    const tun = device(arena, true);
    // every kernel since 2.6.27 has TSO; USO is Linux 6.2's, and then says on
    expect(tun.facts.tunTso).toMatch(/^on/);
    expect(tun.facts.tunUso).toMatch(/^on$|^off, the kernel refuses it .*EINVAL/);
    expect(tun.facts.tcpMerge).toMatch(/^on$|^off, the kernel refuses a merged write: .*EINVAL/);
    expect(tun.facts.udpMerge).toMatch(/^on$|^off, the kernel refuses a merged write: .*EINVAL/);
    expect(tun.mergesTcp).toBe(tun.facts.tcpMerge === "on");
    expect(tun.mergesUdp).toBe(tun.facts.udpMerge === "on");
    tun.close();
    open.splice(0);
    const plain = device(arena, false);
    const off = "off, by configuration";
    expect(plain.facts).toEqual({ tunTso: off, tunUso: off, tcpMerge: off, udpMerge: off });
    expect([plain.mergesTcp, plain.mergesUdp]).toEqual([false, false]);
  });

  it("each offload has a switch, at the start and while the device is open", () => {
    const arena = makeArena(4096);
    const tun = openTun({ name: NAME, arena, offload: { ...NO_OFFLOADS, tcpMerge: true } });
    open.push(tun);
    const off = "off, by configuration";
    expect(tun.hasOffload).toBe(true);
    expect(tun.facts).toEqual({ tunTso: off, tunUso: off, tcpMerge: "on", udpMerge: off });
    const before = tun.offloadChanges;
    tun.switchOffload(ALL_OFFLOADS);
    expect(tun.facts).toMatchObject({ tcpMerge: "on", udpMerge: "on" });
    expect(tun.facts.tunTso).toMatch(/^on/);
    tun.refuseMerged(true, EINVAL);
    expect(tun.facts).toMatchObject({ tcpMerge: "on", udpMerge: expect.stringMatching(/^off, a merged .*EINVAL/) });
    expect([tun.mergesTcp, tun.mergesUdp]).toEqual([true, false]);
    tun.switchOffload(NO_OFFLOADS);
    expect(tun.facts).toEqual({ tunTso: off, tunUso: off, tcpMerge: off, udpMerge: off });
    tun.switchOffload(ALL_OFFLOADS); // tries again
    expect([tun.mergesTcp, tun.mergesUdp]).toEqual([true, true]);
    expect(tun.offloadChanges).toBe(before + 4);
  });

  it("a device that was made without offloads says that they need a restart", () => {
    const tun = device(makeArena(4096), false);
    tun.switchOffload({ ...NO_OFFLOADS, tso: true });
    expect(tun.facts.tunTso).toMatch(/^off until a restart/);
    expect(tun.facts.tcpMerge).toBe("off, by configuration");
  });

  it("a second device of the name is refused with EDGE_TUN_BUSY, and the name is free after close", () => {
    const arena = makeArena(4096);
    const first = device(arena, true);
    expect(() => openTun({ name: NAME, arena, offload: ALL_OFFLOADS })).toThrow(
      expect.objectContaining({ code: "EDGE_TUN_BUSY", message: expect.stringContaining(`"${NAME}"`) }),
    );
    first.close();
    open.splice(0);
    device(arena, true);
  });

  it("ranges outside of the arena are refused before C sees them", () => {
    const arena = makeArena(4096);
    const tun = device(arena, false);
    expect(() => tun.read(0, arena.length + 1)).toThrow(RangeError);
    expect(() => tun.read(-1, 100)).toThrow(RangeError);
    expect(() => tun.write(Int32Array.of(10, 5), 1)).toThrow(RangeError);
    expect(() => tun.write(Int32Array.of(0, 10, 0, arena.length + 1), 2)).toThrow(RangeError);
    expect(() => tun.write(new Int32Array(0), 0)).toThrow(RangeError);
    expect(() => tun.write(new Int32Array(514), 257)).toThrow(RangeError);
  });

  it("an IPv6 address is usable at once, without duplicate detection", { skip: !hasIpv6 }, () => {
    const tun = device(makeArena(4096), false);
    const links = netlink();
    const index = links.findLink(tun.name)!.index;
    links.setLinkUp(index, 1355);
    links.addAddress(index, parsePrefix("fd77::1/128")!);
    const addresses = links.listAddresses().filter((address) => address.index === index);
    expect(addresses.map((address) => address.prefix)).toContainEqual(parsePrefix("fd77::1/128"));
  });
});

describe("TUN names", () => {
  it.each(["", "sixteen-octets-x", "a/b", "a b", "..", "tun%d", "grün"])("%j is refused", (name) => {
    expect(() => openTun({ name, arena: new Uint8Array(8), offload: ALL_OFFLOADS })).toThrow(RangeError);
  });
});
