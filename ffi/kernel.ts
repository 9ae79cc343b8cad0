/** The kernel's version, for the few faults that no probe can find. Where a probe works, it decides, not this. */
import { readFileSync } from "node:fs";

/** Version of the running kernel as one number, 6.18.44 as 6_018_044; 0 when it cannot be read. */
export function kernelVersion(): number {
  try {
    return parseKernelVersion(readFileSync("/proc/sys/kernel/osrelease", "utf8"));
  } catch {
    return 0;
  }
}

/** Reads "6.18.44-rpi-v8" as 6_018_044, "7.1-rc3" as 7_001_000; 0 for anything else. */
export function parseKernelVersion(release: string): number {
  const match = /^(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?/.exec(release);
  if (!match) return 0;
  return Number(match[1]) * 1_000_000 + Number(match[2]) * 1000 + Number(match[3] ?? 0);
}

/**
 * Whether UDP_SEGMENT damages headers or checksums when all segments are equal: Linux 7.0 to 7.1.4
 * (broken by commit b10b446, mended by 78effd8 and 5f17ae0).
 */
export function hasBrokenSegmentation(version: number): boolean {
  return version >= 7_000_000 && version <= 7_001_004;
}
