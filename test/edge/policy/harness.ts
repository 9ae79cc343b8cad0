/** Scenarios as data, and commands with a terminal that only remembers. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CommandContext, Handler } from "../../../edge/cli/context.ts";
import type { LoadedConfig } from "../../../edge/config.ts";
import { readManifest } from "../../../edge/manifest.ts";
import { type ReadScenario, readScenarios } from "../../../edge/policy/read_scenario.ts";
import type { Scenario } from "../../../edge/policy/scenario.ts";

export const ENDPOINTS = [
  { ref: "shop/web", labels: { app: "web" }, ips: ["10.1.0.1"] },
  { ref: "shop/db", labels: { app: "db" }, ips: ["10.1.0.2", "fd00::2"] },
];

export function cnp(spec: Record<string, unknown>, name = "p") {
  return {
    apiVersion: "cilium.io/v2",
    kind: "CiliumNetworkPolicy",
    metadata: { name, namespace: "shop" },
    spec: { endpointSelector: { matchLabels: { app: "db" } }, ...spec },
  };
}

/** A scenario of two pods. */
export function scenario(more: Record<string, unknown>): Record<string, unknown> {
  return { id: "case", endpoints: ENDPOINTS, ...more };
}

export function readText(text: string): ReadScenario[] {
  const manifest = readManifest(text);
  if ("errors" in manifest) throw new Error(manifest.errors[0]!.message);
  return readScenarios(manifest.documents);
}

/** Reads data that must be one good scenario. */
export function readGood(data: unknown): Scenario {
  const [read] = readText(JSON.stringify(data));
  if (read === undefined || "bad" in read) throw new Error(JSON.stringify(read));
  return read.scenario;
}

/** What is wrong with a scenario, as "path: message". */
export function errorsOf(data: unknown): string[] {
  return readText(JSON.stringify(data)).flatMap((read) =>
    "bad" in read ? read.bad.errors.map(({ path, message }) => `${path}: ${message}`) : []
  );
}

/** Writes files into a new folder. @returns their paths */
export function writeFiles(files: Readonly<Record<string, string>>): string[] {
  const folder = mkdtempSync(join(tmpdir(), "edgemesh-policy-"));
  return Object.entries(files).map(([name, text]) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  });
}

/** Runs a command's handler. What it throws comes through. */
export async function run(
  handler: Handler,
  args: readonly string[],
  options: Readonly<Record<string, string>> = {},
  output = "text",
): Promise<{ code: number; out: string; err: string }> {
  const said = { out: "", err: "" };
  const context: CommandContext = {
    args,
    options: new Map(Object.entries(options).map(([flag, value]) => [flag, [value]])),
    loaded: { config: { output, socket: "/nonexistent/edgemesh.sock", timeoutMs: 1000 } } as unknown as LoadedConfig,
    env: {},
    terminal: {
      out: (text) => void (said.out += text),
      err: (text) => void (said.err += text),
      readInput: () => Promise.resolve(""),
      hasColor: false,
      interrupted: new AbortController().signal,
    },
    reload: () => Promise.reject(new Error("not here")),
  };
  return { code: await handler(context), ...said };
}
