/**
 * What the tests of `ffi/` share: which of them can run here, and the reason for those that cannot.
 *
 * They run on Bun and on Deno (`deno task test:bun`, `deno task test:deno`). Those that make devices, addresses or sockets run
 * only in a network namespace of their own, so that nothing of the machine is touched: start the whole test process in one with
 * `unshare -n` (root) or `unshare -Urn` (anybody).
 */
import { existsSync, readFileSync } from "node:fs";
import { hasFfi } from "../../ffi/runtime/index.ts";

const versions = process.versions as Readonly<Record<string, string | undefined>>;

/** The runtime, for the name of a suite: the same tests are reported once for each. */
export const runtimeName: string = versions["bun"] ? "Bun" : versions["deno"] ? "Deno" : "Node";

/** Whether the kernel has IPv6. */
export const hasIpv6: boolean = existsSync("/proc/net/if_inet6");

/** Empty when C can be called; else the reason, for the name of a skipped test. */
export const noFfi: string = hasFfi ? "" : " (skipped: Node has no FFI; run on Bun and on Deno)";

/** Empty in a network namespace where we may make devices; else the reason. */
export const noNetwork: string = noFfi || reasonAgainstNetwork();

function reasonAgainstNetwork(): string {
  // a fresh namespace has lo and perhaps tunnel templates that the kernel puts into each one, but nothing that leads outside
  const inside = networkDevices().filter((name) => !isHarmless(name));
  if (inside.length > 0) {
    return ` (skipped: not in a network namespace of its own, has ${inside.join(", ")}; use unshare -n)`;
  }
  if (!hasNetAdmin()) return " (skipped: no CAP_NET_ADMIN)";
  return "";
}

/** /sys/class/net shows the namespace of whoever mounted /sys; /proc/self/net shows ours. */
function networkDevices(): string[] {
  const lines = readFileSync("/proc/self/net/dev", "utf8").trim().split("\n").slice(2);
  return lines.map((line) => line.slice(0, line.indexOf(":")).trim());
}

function isHarmless(name: string): boolean {
  return /^(lo|edgemesh-t\d*|sit0|tunl0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|ip6tnl0|ip6gre0)$/.test(name);
}

function hasNetAdmin(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
  return (BigInt(`0x${effective}`) >> 12n & 1n) === 1n;
}
