import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConntrackTable } from "../../../src/conntrack/table.ts";
import { EGRESS, INGRESS } from "../../../src/datapath/counters.ts";
import { LEG_OPENER, MAX_INGRESS, NO_SLOT, RedirectTable } from "../../../src/datapath/redirect_table.ts";
import { MAX_REDIRECTED, RedirectView } from "../../../src/datapath/redirect_view.ts";
import { KIND_HTTP } from "../../../src/policy/decision.ts";
import { FORWARD } from "../../../src/verdict.ts";
import { PacketInfo, readPacket } from "../../../src/wire/packet.ts";
import { makePacket } from "../../fakes/packets.ts";

const SYN = 2, SYN_ACK = 18, ACK = 16;

/** A table that peers open TCP connections in. */
class Bench {
  readonly table = new RedirectTable(
    new ConntrackTable(64, new Uint8Array(16)).makeKey(),
    new RedirectView(new ArrayBuffer(RedirectView.bytes)),
    0,
  );
  seconds = 0;
  /** handles of flows that were opened, by peer */
  readonly opened = new Map<number, Set<number>>();
  readonly #packet = new PacketInfo();
  readonly #ports = new Map<number, number>();

  /** @returns whether there was room. A handshake is done unless it is only begun. */
  open(peer: number, isBegunOnly = false, direction: 0 | 1 = INGRESS): boolean {
    const sourcePort = (this.#ports.get(peer) ?? 1024) + 1;
    this.#ports.set(peer, sourcePort);
    const source = `10.9.${peer >> 8}.${peer & 255}`;
    const bytes = makePacket({ protocol: "tcp", source, destination: "10.8.0.1", sourcePort, flags: SYN });
    const packet = this.#packet;
    expect(readPacket(bytes, 0, bytes.length, packet)).toBe(FORWARD);
    const nowMs = this.seconds * 1000;
    const slot = this.table.insert(bytes, packet, direction, 65_538, 1, KIND_HTTP, 8080, nowMs, peer);
    if (slot === NO_SLOT) return false;
    for (const [i, flags] of (isBegunOnly ? [SYN] : [SYN, SYN_ACK, ACK]).entries()) {
      packet.tcpFlags = flags;
      this.table.touch(slot, LEG_OPENER, i === 1, packet, nowMs);
    }
    const handles = this.opened.get(peer) ?? new Set();
    this.opened.set(peer, handles.add(this.table.handles[slot]!));
    return true;
  }

  /** How many of the flows that a peer opened are still there. */
  alive(peer: number): number {
    return [...this.opened.get(peer) ?? []].filter((handle) => this.table.findHandle(handle, this.seconds * 1000) >= 0)
      .length;
  }

  fill(peer: number): void {
    for (let i = 0; i < MAX_INGRESS; i++) this.open(peer);
  }
}

describe("a peer that has filled the table", () => {
  it("keeps no other peer out: its flow that was silent longest goes, of those met", () => {
    const bench = new Bench();
    for (let i = 0; i < MAX_INGRESS; i++) {
      bench.seconds = i % 100 === 0 ? 0 : 1;
      bench.open(1);
    }
    const silent = [...bench.opened.get(1)!].filter((_, i) => i % 100 === 0);
    const isThere = (handle: number) => bench.table.findHandle(handle, 1000) !== NO_SLOT;
    expect(bench.open(1)).toBe(false);
    expect(bench.open(2)).toBe(true);
    expect(silent.filter(isThere).length).toBe(silent.length - 1);
    expect([bench.alive(1), bench.alive(2)]).toEqual([MAX_INGRESS - 1, 1]);
    for (let peer = 3; peer < 50; peer++) for (let i = 0; i < 8; i++) expect(bench.open(peer)).toBe(true);
    for (let peer = 3; peer < 50; peer++) expect(bench.alive(peer)).toBe(8);
  });

  it("loses no more to each other peer than a few", () => {
    const bench = new Bench();
    bench.fill(1);
    for (let i = 0; i < 500; i++) bench.open(2);
    expect([bench.alive(1), bench.alive(2)]).toEqual([MAX_INGRESS - 48, 48]);
  });

  it("keeps our own programs out neither", () => {
    const bench = new Bench();
    bench.fill(1);
    for (let i = MAX_INGRESS; i < MAX_REDIRECTED; i++) expect(bench.open(9, false, EGRESS)).toBe(true);
    expect(bench.table.size).toBe(MAX_REDIRECTED);
    expect(bench.open(2)).toBe(true);
    expect(bench.alive(9)).toBe(MAX_REDIRECTED - MAX_INGRESS);
  });
});

it("whatever greedy peers do, one that opens a few connections gets them and keeps them", () => {
  const step = fc.record({
    greedy: fc.integer({ min: 1, max: 4 }),
    opens: fc.nat(2000),
    isBegunOnly: fc.boolean(),
    waits: fc.nat(3),
    modest: fc.integer({ min: 5, max: 9 }),
    asks: fc.nat(3),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      const bench = new Bench();
      const asked = new Map<number, number>();
      for (const { greedy, opens, isBegunOnly, waits, modest, asks } of steps) {
        for (let i = 0; i < opens; i++) bench.open(greedy, isBegunOnly);
        for (let i = 0; i < asks; i++) expect(bench.open(modest)).toBe(true);
        asked.set(modest, (asked.get(modest) ?? 0) + asks);
        bench.seconds += waits;
        expect(bench.table.size).toBeLessThanOrEqual(MAX_INGRESS);
        for (const [peer, count] of asked) expect(bench.alive(peer)).toBe(count);
      }
    }),
    { numRuns: 15 },
  );
});
