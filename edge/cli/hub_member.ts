/** `edgemesh hub member list|approve|revoke` */
import { API_VERSION } from "../agent/documents.ts";
import { EXIT_OK } from "../errors.ts";
import type { AdminMember } from "../sync/admin_messages.ts";
import type { CommandContext } from "./context.ts";
import { hubClient } from "./hub_client.ts";
import { ageText, byteText, clean, labelText, printDocument, table } from "./output.ts";

export async function memberList(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const members = await hubClient(config).members();
  if (await printDocument(context.terminal, config.output, { apiVersion: API_VERSION, kind: "MemberList", members })) {
    return EXIT_OK;
  }
  const isWide = config.output === "wide";
  const headings = ["NAME", "STATE", "CONNECTED", "ADDRESSES", "NAMESPACE", "IDENTITY", "LABELS"];
  if (isWide) headings.push("FROM", "VERSION", "REVISION", "SENT", "TOKEN", "KEY");
  const nowMs = Date.now();
  const rows = members.map((member) => {
    const { connection } = member;
    const row = [
      `${member.name}${member.isHub ? " (hub)" : ""}`,
      member.state,
      connectedText(member, nowMs),
      member.addresses.join(","),
      member.namespace,
      String(member.identity),
      labelText(member.labels),
    ];
    if (isWide) {
      row.push(
        connection?.from ?? "-",
        connection?.version ?? "-",
        String(connection?.appliedRevision ?? "-"),
        connection === null ? "-" : byteText(connection.sentBytes),
        member.tokenId === "" ? "-" : member.tokenId,
        member.publicKey,
      );
    }
    return row.map(clean);
  });
  context.terminal.out(rows.length === 0 ? "no members\n" : table(headings, rows));
  return EXIT_OK;
}

/** The hub is no client of its own: "no" would look like a fault. */
export function connectedText(
  { connection, isHub }: Pick<AdminMember, "connection" | "isHub">,
  unixMs: number,
): string {
  if (connection === null) return isHub ? "-" : "no";
  return `for ${ageText(unixMs - connection.since)}`;
}

export async function memberApprove(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const member = await hubClient(config).approveMember(context.args[0]!);
  if (await printDocument(context.terminal, config.output, { apiVersion: API_VERSION, kind: "Member", ...member })) {
    return EXIT_OK;
  }
  context.terminal.out(`${clean(member.name)} is approved: ${member.addresses.join(", ")}\n`);
  return EXIT_OK;
}

export async function memberRevoke(context: CommandContext): Promise<number> {
  const name = context.args[0]!;
  await hubClient(context.loaded.config).revokeMember(name);
  context.terminal.err(`${clean(name)} is revoked; its peers drop it now\n`);
  return EXIT_OK;
}
