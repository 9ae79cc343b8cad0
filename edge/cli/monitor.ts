/** `edgemesh monitor --drops`: one line for each dropped packet, until interrupted. */
import type { DropDocument, DropsDocument } from "../agent/documents.ts";
import { newerOf } from "../agent/flow_log.ts";
import { EXIT_OK } from "../errors.ts";
import { pause } from "../sync/backoff.ts";
import { AgentClient } from "./agent_client.ts";
import type { CommandContext } from "./context.ts";
import { clean } from "./output.ts";

const POLL_MS = 250;

export async function monitor(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const { terminal } = context;
  const client = new AgentClient(config.socket, config.timeoutMs);
  let before = (await client.get<DropsDocument>("/v1/drops")).recent;
  if (config.output === "text" || config.output === "wide") terminal.err("watching for dropped packets\n");
  while (!terminal.interrupted.aborted) {
    await pause(POLL_MS, terminal.interrupted);
    if (terminal.interrupted.aborted) break;
    const { recent } = await client.get<DropsDocument>("/v1/drops");
    for (const drop of newerOf(before, recent)) {
      terminal.out(
        config.output === "json" || config.output === "yaml" ? `${JSON.stringify(drop)}\n` : `${dropLine(drop)}\n`,
      );
    }
    before = recent;
  }
  return EXIT_OK;
}

/** `xx drop POLICY_DENIED ingress identity 65540 10.9.0.1:4000 -> 10.9.0.2:8081 TCP (Policy denied ...)` */
export function dropLine(drop: DropDocument): string {
  const from = placeText(drop.source, drop.sourcePort);
  const to = placeText(drop.destination, drop.destinationPort);
  return clean(
    `${drop.at} xx drop ${drop.reason} ${drop.direction} identity ${drop.identity} ${from} -> ${to} ${drop.protocol} (${drop.text})`,
  );
}

function placeText(address: string | null, port: number): string {
  if (address === null) return "?";
  if (port === 0) return address;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
