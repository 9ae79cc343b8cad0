/** `edgemesh peers`: the other members, how they are reached, and when they were last heard. */
import type { PeersDocument } from "../agent/documents.ts";
import { EXIT_OK } from "../errors.ts";
import { AgentClient } from "./agent_client.ts";
import type { CommandContext } from "./context.ts";
import { ageText, byteText, clean, labelText, printDocument, table } from "./output.ts";

export async function peers(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const document = await new AgentClient(config.socket, config.timeoutMs).get<PeersDocument>("/v1/peers");
  if (await printDocument(context.terminal, config.output, document)) return EXIT_OK;
  const isWide = config.output === "wide";
  const headings = ["NAME", "ADDRESSES", "STATE", "UNDERLAY", "HANDSHAKE", "RECEIVED", "SENT"];
  if (isWide) {
    headings.push("MODE", "NETWORK", "CLUSTER", "IDENTITY", "LABELS", "PREFIXES", "KEY", "CIPHER", "PATH MTU");
  }
  const rows = document.peers.map((peer) => {
    const row = [
      `${peer.name}${peer.isHub ? " (hub)" : ""}`,
      peer.addresses.join(","),
      peer.state,
      peer.underlayAddr ?? "-",
      peer.lastHandshake === null ? "never" : `${ageText(Date.now() - Date.parse(peer.lastHandshake))} ago`,
      byteText(peer.rxBytes),
      byteText(peer.txBytes),
    ];
    if (isWide) {
      const cluster = `${peer.cluster.name} (${peer.cluster.id})`;
      row.push(
        peer.mode,
        peer.network || "-",
        cluster,
        String(peer.identity),
        labelText(peer.labels),
        peer.prefixes.join(","),
        peer.publicKey,
      );
      row.push(peer.aead ?? "-", peer.pathMtuBytes === null ? "-" : String(peer.pathMtuBytes));
    }
    return row.map(clean);
  });
  context.terminal.out(rows.length === 0 ? "no peers\n" : table(headings, rows));
  return EXIT_OK;
}
