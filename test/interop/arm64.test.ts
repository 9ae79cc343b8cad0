/**
 * The arm64 programs, run by qemu's user mode: they start, their C calls and their ciphers work, and the parts that need no
 * network device give the same answers as on x64. What needs a kernel is in `kernel.test.ts`.
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";

const ROOT = join(import.meta.dirname, "..", "..");
let sysroot: string;

beforeAll(() => {
  sysroot = execFileSync(join(ROOT, "test/interop/kernel/machine"), ["sysroot"], { encoding: "utf8" }).trim();
});

function onArm64(...args: string[]): string {
  return execFileSync("qemu-aarch64-static", ["-L", sysroot, join(ROOT, "dist/edgemesh-linux-arm64"), ...args], {
    encoding: "utf8",
    timeout: 60_000,
    env: { PATH: process.env["PATH"] ?? "", HOME: "/nonexistent" },
  });
}

describe("the arm64 program", () => {
  it("says its version and that it is an arm64 program", () => {
    const version = JSON.parse(onArm64("version", "-o", "json"));
    expect(version.version).toBe(
      JSON.parse(execFileSync("cat", [join(ROOT, "package.json")], { encoding: "utf8" })).version,
    );
    expect(JSON.stringify(version)).toMatch(/arm64|aarch64/);
  });

  it("passes its own test of C calls, struct layouts and ciphers", () => {
    const report = JSON.parse(onArm64("self-test", "-o", "json"));
    expect(report.failed).toBe(0);
    expect(report.passed).toBeGreaterThan(5);
  });
});
