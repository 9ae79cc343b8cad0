/** `edgemesh ping`: echo requests through the mesh, each through every step of the packet path. */
import { API_VERSION, type PingDocument } from "../agent/documents.ts";
import { durationMs, integer } from "../config_values.ts";
import { EdgeError, EXIT_FAILED, EXIT_OK, messageOf } from "../errors.ts";
import { pause } from "../sync/backoff.ts";
import { AgentClient } from "./agent_client.ts";
import { type CommandContext, optionOf } from "./context.ts";
import { printDocument } from "./output.ts";

const DEFAULT_COUNT = 4;
const DEFAULT_INTERVAL_MS = 250;
const DEFAULT_TIMEOUT_MS = 2000;

export async function ping(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const { terminal } = context;
  const count = readOption(context, "count", integer(1, 65535)) ?? DEFAULT_COUNT;
  const intervalMs = readOption(context, "interval", durationMs) ?? DEFAULT_INTERVAL_MS;
  const timeoutMs = Math.max(1, Math.min(config.timeoutMs ?? DEFAULT_TIMEOUT_MS, 60_000));
  const isText = config.output === "text" || config.output === "wide";
  const client = new AgentClient(config.socket);
  const results: PingDocument[] = [];
  for (let sequence = 1; sequence <= count && !terminal.interrupted.aborted; sequence++) {
    if (sequence > 1) await pause(intervalMs, terminal.interrupted);
    const result = await client.post<PingDocument>("/v1/ping", { to: context.args[0], sequence, timeoutMs }, timeoutMs);
    results.push(result);
    if (isText) terminal.out(`${lineOf(result)}\n`);
  }
  const answered = results.filter((result) => result.result === "answered");
  if (isText) {
    const times = answered.map((result) => result.roundTripMs!);
    const fastest = times.length === 0 ? "" : `, fastest ${Math.min(...times).toFixed(2)} ms`;
    terminal.out(`${answered.length} of ${results.length} answered${fastest}\n`);
  } else await printDocument(terminal, config.output, { apiVersion: API_VERSION, kind: "PingList", results });
  return answered.length > 0 ? EXIT_OK : EXIT_FAILED;
}

function lineOf({ to, member, sequence, result, roundTripMs, reason }: PingDocument): string {
  const whom = member === null ? to : `${member} (${to})`;
  if (result === "answered") return `answer from ${whom}: sequence ${sequence}, ${roundTripMs!.toFixed(2)} ms`;
  return result === "dropped"
    ? `to ${whom}: sequence ${sequence} dropped here: ${reason}`
    : `no answer from ${whom}: sequence ${sequence}`;
}

/** @throws EdgeError EDGE_USAGE */
function readOption<T>(context: CommandContext, flag: string, parse: (text: string) => T): T | undefined {
  const text = optionOf(context, flag);
  if (text === undefined) return undefined;
  try {
    return parse(text);
  } catch (error) {
    throw new EdgeError("EDGE_USAGE", `Cannot read "--${flag} ${text}": ${messageOf(error)}`);
  }
}
