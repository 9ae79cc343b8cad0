/** Sockets that are opened once and used twice: over loopback, in a network namespace of its own. */
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { openNetlink } from "../../ffi/netlink.ts";
import { READY_EXTRA, Waiter } from "../../ffi/poll.ts";
import { openUnderlay, receiveBytes, type UdpUnderlay } from "../../ffi/udp.ts";
import { shareUnderlay } from "../../ffi/udp_shared.ts";
import { makePacketMemory } from "../../src/bytes/packet_memory.ts";
import { parseUnderlayAddr, readUnderlayAddr, writeUnderlayAddr } from "../../src/ip/underlay_addr.ts";
import { hasIpv6, noNetwork, runtimeName } from "./harness.ts";

const SLOTS = 4;
const SEND_AT = 1024;
const OWN_AT = 1 << 16;
const FIRST_AT = OWN_AT + receiveBytes(SLOTS);
const SECOND_AT = FIRST_AT + receiveBytes(SLOTS);

describe.skipIf(noNetwork)(`shared underlay on ${runtimeName}${noNetwork}`, () => {
  let own: UdpUnderlay;
  beforeAll(() => {
    const links = openNetlink();
    links.setLinkUp(links.findLink("lo")!.index, 65536);
    links.close();
  });
  afterEach(() => own.close());

  it("sends through them and receives into each region in turn, in memory that threads share", () => {
    const arena = makePacketMemory(SECOND_AT + receiveBytes(SLOTS), true);
    const [port, bufferBytes] = [0, 1 << 20];
    own = openUnderlay({ port, arena, receiveAt: OWN_AT, slots: SLOTS, bufferBytes, segmentation: true });
    const copied = structuredClone(own.sockets); // as it goes to another thread
    const { underlay, batches } = shareUnderlay(copied, arena, [FIRST_AT, SECOND_AT], SLOTS);
    const waiter = new Waiter({ underlayFds: [] });
    waiter.watch(underlay.fds);
    const addresses = hasIpv6 ? ["127.0.0.1", "[::1]"] : ["127.0.0.1"];
    for (const [turn, batch] of batches.entries()) {
      for (const [i, address] of addresses.entries()) {
        writeUnderlayAddr(arena, 64 * i, parseUnderlayAddr(`${address}:${own.port}`)!);
        arena.fill(10 * turn + i, SEND_AT + 300 * i, SEND_AT + 300 * i + 250);
        underlay.queue(SEND_AT + 300 * i, SEND_AT + 300 * i + 250, 100, 64 * i, 0); // 100, 100, 50
      }
      underlay.flush();
      const octets: number[] = [];
      let bytes = 0;
      while (bytes < 250 * addresses.length) {
        expect(waiter.wait(2000)).toBe(READY_EXTRA);
        const count = batch.receive();
        for (const run of batch.received.slice(0, count)) {
          const regionAt = [FIRST_AT, SECOND_AT][turn]!;
          expect(run.at >= regionAt && run.end <= regionAt + receiveBytes(SLOTS)).toBe(true);
          expect(readUnderlayAddr(arena, run.fromAt)!.port).toBe(own.port);
          octets.push(...arena.subarray(run.at, run.end));
          bytes += run.end - run.at;
        }
      }
      expect(batch.receive()).toBe(0);
      expect(octets.sort()).toEqual(addresses.flatMap((_, i) => new Array(250).fill(10 * turn + i)).sort());
    }
    expect(underlay.sendErrorCount).toBe(0);
    expect(underlay.facts).toEqual(own.facts);
    waiter.close();
  });
});
