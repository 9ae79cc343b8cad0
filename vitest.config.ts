/**
 * Which tests run on which runtime.
 *
 * On Node, the pure part: everything that needs neither FFI nor `node:sqlite`. On Bun and on Deno, everything but the
 * namespaces. `test/netns` and `test/interop` start real programs; their scripts name them, so nothing else runs them.
 *
 * Unit tests share processes and loaded modules: with a process a file, half of the time went into starting and importing. A file
 * must not lean on what another has left behind: `--isolate` runs each alone, as `scripts/test --all` does.
 */
import { defineConfig } from "vitest/config";

const onNode = !("Bun" in globalThis) && !("Deno" in globalThis);
const named = process.env["EDGEMESH_SUITE"] ?? "unit";
const report = process.env["EDGEMESH_TEST_REPORT"];

/** Suites that drive processes are slow and take turns; the others share the cores. */
const suites: Record<string, { include: string[]; exclude: string[] }> = {
  unit: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/netns/**", "test/interop/**", ...(onNode ? ["test/ffi/**"] : ["test/architecture.test.ts"])],
  },
  netns: {
    include: ["test/netns/**/*.test.ts"],
    exclude: ["test/netns/policy_packets.test.ts", "test/netns/path_mtu.test.ts"],
  },
  "policy-packets": { include: ["test/netns/policy_packets.test.ts"], exclude: [] },
  "path-mtu": { include: ["test/netns/path_mtu.test.ts"], exclude: [] },
  interop: { include: ["test/interop/**/*.test.ts"], exclude: [] },
};
const suite = suites[named];
if (!suite) throw new RangeError(`Cannot run suite "${named}": expected ${Object.keys(suites).join(", ")}`);

export default defineConfig({
  test: {
    include: suite.include,
    exclude: suite.exclude,
    pool: "forks",
    isolate: named !== "unit",
    fileParallelism: named === "unit",
    maxWorkers: named === "unit" ? "100%" : 1, // vitest would leave a core to itself, which has little to do
    testTimeout: named === "unit" ? 20_000 : 120_000,
    hookTimeout: named === "unit" ? 20_000 : 120_000,
    reporters: report ? ["default", ["json", { outputFile: report }]] : ["default"],
  },
});
