/** `edgemesh monitor --drops`: one line for each dropped packet, until interrupted. */
import type { DropDocument, DropsDocument } from "../agent/documents.ts";
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
    for (const drop of newDrops(before, recent)) {
      terminal.out(
        config.output === "json" || config.output === "yaml" ? `${JSON.stringify(drop)}\n` : `${dropLine(drop)}\n`,
      );
    }
    before = recent;
  }
  return EXIT_OK;
}

/**
 * What stands in a newer view of the ring and not in an older one. The newer begins with what is left of the older; where nothing
 * is left of it, all of the newer is new.
 */
export function newDrops(before: readonly DropDocument[], now: readonly DropDocument[]): readonly DropDocument[] {
  const olds = before.map((drop) => JSON.stringify(drop));
  const news = now.map((drop) => JSON.stringify(drop));
  for (let gone = 0; gone <= olds.length; gone++) {
    const left = olds.slice(gone);
    if (left.length <= news.length && left.every((drop, i) => drop === news[i])) return now.slice(left.length);
  }
  return now;
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
