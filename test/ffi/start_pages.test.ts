/** Letting go of start-up code: which mappings, and that the process works afterwards with less resident memory. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { cleanFileMappings, releaseStartPages } from "../../ffi/start_pages.ts";

const hasFfi = "Bun" in globalThis || "Deno" in globalThis;

describe("cleanFileMappings", () => {
  const mapping = (head: string, anonymousKb: number): string =>
    `${head}\nSize: 8 kB\nRss: 8 kB\nAnonymous:             ${anonymousKb} kB\n`;

  it("takes code and constants of files", () => {
    const text = mapping("00400000-00402000 r-xp 00000000 fe:00 42    /usr/bin/edgemesh", 0) +
      mapping("00500000-00501000 r--p 00002000 fe:00 42    /usr/bin/edgemesh", 0);
    expect(cleanFileMappings(text)).toEqual([{ from: 0x400000, end: 0x402000 }, { from: 0x500000, end: 0x501000 }]);
  });

  it("leaves what can be written, has pages of its own, is shared or is no file", () => {
    const text = mapping("00400000-00402000 rw-p 00000000 fe:00 42    /usr/bin/edgemesh", 0) +
      mapping("00500000-00501000 r--p 00002000 fe:00 42    /usr/bin/edgemesh", 4) +
      mapping("00600000-00601000 r--s 00002000 fe:00 42    /usr/bin/edgemesh", 0) +
      mapping("00700000-00701000 r-xp 00000000 00:00 0     [vdso]", 0) +
      mapping("00800000-00801000 r--p 00000000 00:00 0 ", 0);
    expect(cleanFileMappings(text)).toEqual([]);
  });
});

describe.skipIf(!hasFfi)("releaseStartPages", () => {
  it("makes the process smaller, and it goes on", () => {
    const residentKb = (): number =>
      Number(/^Rss: +(\d+) kB/m.exec(readFileSync("/proc/self/smaps_rollup", "utf8"))![1]);
    const before = residentKb();
    expect(releaseStartPages()).toBeGreaterThan(10_000_000);
    expect(residentKb()).toBeLessThan(before);
    expect(JSON.stringify([1, { two: "three" }].map((x) => x))).toBe('[1,{"two":"three"}]');
  });
});
