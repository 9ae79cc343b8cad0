/** `edgemesh hub token create|list|revoke` */
import { API_VERSION } from "../agent/documents.ts";
import * as values from "../config_values.ts";
import { EdgeError, EXIT_OK, messageOf } from "../errors.ts";
import type { TokenRequest } from "../sync/admin_messages.ts";
import { type CommandContext, optionOf } from "./context.ts";
import { hubClient } from "./hub_client.ts";
import { ageText, clean, labelText, printDocument, table } from "./output.ts";

export async function tokenCreate(context: CommandContext): Promise<number> {
  const request = requestOf(context);
  const { config } = context.loaded;
  const { id, token } = await hubClient(config).createToken(request);
  const document = { apiVersion: API_VERSION, kind: "Token", id, token };
  if (await printDocument(context.terminal, config.output, document)) return EXIT_OK;
  // the token alone on standard output: TOKEN=$(edgemesh hub token create)
  context.terminal.out(`${token}\n`);
  context.terminal.err(`token ${id}: ${usesText(request)}, ${lifeText(request)}; it is shown only here\n`);
  return EXIT_OK;
}

export async function tokenList(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const tokens = await hubClient(config).tokens();
  if (await printDocument(context.terminal, config.output, { apiVersion: API_VERSION, kind: "TokenList", tokens })) {
    return EXIT_OK;
  }
  const nowMs = Date.now();
  const rows = tokens.map((token) =>
    [
      token.id,
      token.state,
      `${token.used}/${token.uses ?? "unlimited"}`,
      token.notAfter === null ? "never" : token.notAfter <= nowMs ? "expired" : `in ${ageText(token.notAfter - nowMs)}`,
      token.approve,
      token.name === "" ? "-" : token.name,
      token.namespace === "" ? "-" : token.namespace,
      labelText(token.labels),
      token.lastUsedBy === "" ? "-" : token.lastUsedBy,
    ].map(clean)
  );
  const headings = ["ID", "STATE", "USED", "EXPIRES", "APPROVE", "NAME", "NAMESPACE", "LABELS", "LAST USED BY"];
  context.terminal.out(rows.length === 0 ? "no tokens\n" : table(headings, rows));
  return EXIT_OK;
}

export async function tokenRevoke(context: CommandContext): Promise<number> {
  const id = context.args[0]!;
  if (!/^[0-9a-f]{16}$/.test(id)) {
    throw new EdgeError("EDGE_USAGE", "Cannot revoke the token: its id has 16 hexadecimal digits", {
      fix: 'See "edgemesh hub token list" for ids.',
    });
  }
  await hubClient(context.loaded.config).revokeToken(id);
  context.terminal.err(`token ${id} is revoked; members that joined with it stay\n`);
  return EXIT_OK;
}

function requestOf(context: CommandContext): TokenRequest {
  const read = <T>(flag: string, parse: (text: string) => T): T | undefined => {
    const text = optionOf(context, flag);
    return text === undefined ? undefined : parseOption(flag, text, parse);
  };
  const all = <T>(flag: string, parse: (text: string) => T): readonly T[] =>
    (context.options.get(flag) ?? []).map((text) => parseOption(flag, text, parse));
  const uses = read("uses", (text) => text === "unlimited" ? null : values.integer(1, 1_000_000)(text));
  const ttlMs = read("ttl", (text) => text === "never" ? null : values.durationMs(text));
  const labels = all("label", values.label);
  const namespace = read("namespace", values.dnsLabel);
  const name = read("name", values.dnsLabel);
  const approve = read("approve", values.choice("auto", "manual"));
  const endpoints = all("endpoint", values.hostPort);
  return {
    ...(uses !== undefined && { uses }),
    ...(ttlMs !== undefined && { ttlMs }),
    ...(labels.length > 0 && { labels: Object.fromEntries(labels) }),
    ...(namespace !== undefined && { namespace }),
    ...(name !== undefined && { name }),
    ...(approve !== undefined && { approve }),
    ...(endpoints.length > 0 && { endpoints }),
  };
}

function parseOption<T>(flag: string, text: string, parse: (text: string) => T): T {
  try {
    return parse(text);
  } catch (error) {
    throw new EdgeError("EDGE_USAGE", `Cannot read "--${flag} ${text}": ${messageOf(error)}`);
  }
}

function usesText({ uses = 1 }: TokenRequest): string {
  return uses === null ? "any number of uses" : uses === 1 ? "one use" : `${uses} uses`;
}

function lifeText({ ttlMs = 86_400_000 }: TokenRequest): string {
  return ttlMs === null ? "good for ever" : `good for ${ageText(ttlMs)}`;
}
