/**
 * What the packet path leaves on the heap before a compiler has seen it: optimised, many an allocation is gone, but by then it has
 * made the heap of a member grow. Only Bun says what cells there are.
 */
import { describe, expect, it } from "vitest";
import { loadSodium } from "../../ffi/sodium.ts";
import { LOOP_MSS, makeLoopPair, move, superpacket } from "../fakes/loop_members.ts";
import { noFfi, runtimeName } from "./harness.ts";

interface HeapStats {
  heapStats(): { readonly objectTypeCounts: Readonly<Record<string, number>> };
}

const jsc = runtimeName === "Bun" ? process.getBuiltinModule("bun:jsc") as unknown as HeapStats : undefined;
const skipped = noFfi ||
  (jsc === undefined ? " (skipped: needs counts of heap cells, which this runtime has not)" : "");

const SEGMENTS = 45;
const SUPERPACKETS = 40;
/** looking costs some; one a segment would be 1800 */
const MOST_CELLS = 600;

describe.skipIf(skipped)(`the packet path on ${runtimeName}${skipped}`, () => {
  it.each(["superpackets", "single packets"])("allocates nothing per packet before it is compiled: %s", (what) => {
    const pair = makeLoopPair({ ciphers: loadSodium() });
    const [a, b] = pair;
    const isSuper = what === "superpackets";
    a.tun.packet = superpacket(isSuper ? SEGMENTS : 1);
    move(pair, 4); // the handshake
    const before = jsc!.heapStats().objectTypeCounts;
    const octets = b.tun.octets;
    move(pair, isSuper ? SUPERPACKETS : SUPERPACKETS * SEGMENTS);
    const after = jsc!.heapStats().objectTypeCounts;
    expect(b.tun.octets - octets).toBeGreaterThan(SUPERPACKETS * SEGMENTS * (isSuper ? LOOP_MSS : 1));
    const grown = Object.entries(after).filter(([type, count]) => count - (before[type] ?? 0) > MOST_CELLS);
    expect(grown).toEqual([]);
  });
});
