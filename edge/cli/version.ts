/** `edgemesh version`: the release, and with `--verbose` what this machine offers. */
import { existsSync, readFileSync } from "node:fs";
import { arch, release } from "node:os";
import { API_VERSION } from "../agent/documents.ts";
import { EXIT_OK } from "../errors.ts";
import { COMMIT, VERSION } from "../version.ts";
import type { CommandContext } from "./context.ts";
import { printDocument } from "./output.ts";

export async function version(context: CommandContext): Promise<number> {
  const isVerbose = context.options.has("verbose");
  const facts = isVerbose ? environmentFacts() : {};
  const document = { apiVersion: API_VERSION, kind: "Version", version: VERSION, commit: COMMIT, ...facts };
  if (await printDocument(context.terminal, context.loaded.config.output, document)) return EXIT_OK;
  const lines = [
    `edgemesh ${VERSION} (${COMMIT})`,
    ...Object.entries(facts).map(([name, value]) => `  ${name}: ${value}`),
  ];
  context.terminal.out(`${lines.join("\n")}\n`);
  return EXIT_OK;
}

/** What decides how, and whether, edgemesh runs here. */
export function environmentFacts(): Readonly<Record<string, string | boolean>> {
  const { bun, deno, node } = process.versions as Readonly<Record<string, string | undefined>>;
  return {
    runtime: bun !== undefined ? `Bun ${bun}` : deno !== undefined ? `Deno ${deno}` : `Node ${node}`,
    cpu: arch(),
    kernel: release(),
    libc: existsSync("/lib/ld-musl-x86_64.so.1") || existsSync("/lib/ld-musl-aarch64.so.1") ? "musl" : "glibc",
    tunDevice: existsSync("/dev/net/tun"),
    netAdmin: hasNetAdmin(),
    aesInstructions: / aes /.test(` ${cpuFlags()} `),
  };
}

/** CAP_NET_ADMIN among the effective capabilities: bit 12 (capabilities(7)). */
function hasNetAdmin(): boolean {
  const match = /^CapEff:\s*([0-9a-f]+)$/m.exec(readText("/proc/self/status"));
  return match !== null && (BigInt(`0x${match[1]}`) >> 12n & 1n) === 1n;
}

function cpuFlags(): string {
  return /^(?:flags|Features)\s*:(.*)$/m.exec(readText("/proc/cpuinfo"))?.[1] ?? "";
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
