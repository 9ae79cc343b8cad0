/** `edgemesh bugreport`: one JSON document of what helps to find a fault. Keys, tokens and labels' values stay out. */
import { API_VERSION } from "../agent/documents.ts";
import { EXIT_OK, messageOf } from "../errors.ts";
import { redact } from "../log.ts";
import { rowOf, type SettingKey } from "../settings.ts";
import { VERSION } from "../version.ts";
import { AgentClient } from "./agent_client.ts";
import type { CommandContext } from "./context.ts";
import { environmentFacts } from "./version.ts";

const PATHS = ["/v1/status", "/v1/peers", "/v1/drops", "/v1/identities", "/v1/policies"];
/** fields whose value is left out wherever they stand */
const HIDDEN = /^(publicKey|presharedKey|privateKey|token|adminCredential|labels)$/;

export async function bugreport(context: CommandContext): Promise<number> {
  const { config, origins, warnings } = context.loaded;
  const client = new AgentClient(config.socket, config.timeoutMs);
  const agent: Record<string, unknown> = {};
  for (const path of PATHS) {
    try {
      agent[path] = await client.get(path);
    } catch (error) {
      agent[path] = { error: messageOf(error) };
    }
  }
  const settings = Object.entries(config).filter(([key]) => origins[key as SettingKey] !== "default")
    .map(([key, value]) => [key, rowOf(key as SettingKey).isSecret ? "<hidden>" : value]);
  const report = {
    apiVersion: API_VERSION,
    kind: "BugReport",
    at: new Date().toISOString(),
    version: VERSION,
    machine: environmentFacts(),
    settings: Object.fromEntries(settings),
    warnings,
    agent,
  };
  context.terminal.out(`${redact(JSON.stringify(report, hide, 2))}\n`);
  return EXIT_OK;
}

function hide(key: string, value: unknown): unknown {
  return HIDDEN.test(key) && value !== null ? "<hidden>" : value;
}
