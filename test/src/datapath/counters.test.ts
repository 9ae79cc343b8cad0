import { describe, expect, it } from "vitest";
import { counterOf, DatapathCounters, EGRESS, INGRESS } from "../../../src/datapath/counters.ts";
import { DROP_BAD_TAG, DROP_POLICY_DENIED, REASONS } from "../../../src/verdict.ts";

describe("DatapathCounters", () => {
  it("shows a second view of the memory what the first one counted", () => {
    const memory = new SharedArrayBuffer(DatapathCounters.bytes);
    const writer = new DatapathCounters(memory);
    writer.add(counterOf("toTunBytes"), 1500);
    writer.add(counterOf("toTunBytes"), 2 ** 40);
    writer.addDrop(INGRESS, DROP_POLICY_DENIED);
    writer.heartbeatMs = 12.5;
    const reader = new DatapathCounters(memory);
    expect(reader.read("toTunBytes")).toBe(2 ** 40 + 1500);
    expect(reader.heartbeatMs).toBe(12.5);
    expect(reader.drops(INGRESS, DROP_POLICY_DENIED)).toBe(1);
    expect(reader.drops(EGRESS, DROP_POLICY_DENIED)).toBe(0);
  });

  it("keeps every reason apart, and counts an unlisted one in the total", () => {
    const counters = new DatapathCounters(new ArrayBuffer(DatapathCounters.bytes));
    let n = 0;
    for (const reason of REASONS.keys()) for (let i = 0; i <= n % 3; i++, n++) counters.addDrop(EGRESS, reason);
    counters.addDrop(EGRESS, 9999);
    const byReason = counters.dropsByReason(EGRESS);
    expect(byReason.size).toBe(REASONS.size);
    expect([...byReason.values()].reduce((a, b) => a + b) + 1).toBe(counters.totalDrops(EGRESS));
    expect(byReason.get(DROP_BAD_TAG)).toBe(counters.drops(EGRESS, DROP_BAD_TAG));
  });
});
