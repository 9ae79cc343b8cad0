/** `edgemesh wg show`: the text of `wg show`, and with `dump` its lines for programs. Private and preshared keys stay hidden. */
import type { PeerDocument, PeersDocument } from "../agent/documents.ts";
import { EdgeError, EXIT_OK } from "../errors.ts";
import { AgentClient } from "./agent_client.ts";
import type { CommandContext } from "./context.ts";
import { byteText, printDocument } from "./output.ts";

export async function wgShow(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const [what] = context.args;
  if (what !== undefined && what !== "dump") {
    throw new EdgeError("EDGE_USAGE", `Cannot show "${what}": only "dump" is known`);
  }
  const document = await new AgentClient(config.socket, config.timeoutMs).get<PeersDocument>("/v1/peers");
  if (await printDocument(context.terminal, config.output, document)) return EXIT_OK;
  context.terminal.out(what === "dump" ? dumpText(document) : showText(document, Date.now()));
  return EXIT_OK;
}

/** Outer packets carry the underlay address; the prefixes are what is inside. */
function allowedIps(peer: PeerDocument): string[] {
  return [`${peer.underlay}/${peer.underlay.includes(":") ? 128 : 32}`, ...peer.prefixes];
}

/** As wg(8) prints it. */
export function showText(document: PeersDocument, nowMs: number): string {
  const lines = [
    `interface: ${document.tun}`,
    `  public key: ${document.publicKey ?? "(none)"}`,
    "  private key: (hidden)",
    `  listening port: ${document.wireguardPort}`,
  ];
  for (const peer of document.peers) {
    lines.push("", `peer: ${peer.publicKey}`);
    if (peer.hasPresharedKey) lines.push("  preshared key: (hidden)");
    if (peer.underlayAddr !== null) lines.push(`  endpoint: ${peer.underlayAddr}`);
    lines.push(`  allowed ips: ${allowedIps(peer).join(", ")}`);
    if (peer.lastHandshake !== null) {
      lines.push(`  latest handshake: ${agoText(nowMs - Date.parse(peer.lastHandshake))}`);
    }
    if (peer.rxBytes > 0 || peer.txBytes > 0) {
      lines.push(`  transfer: ${byteText(peer.rxBytes)} received, ${byteText(peer.txBytes)} sent`);
    }
    if (peer.keepaliveSeconds > 0) lines.push(`  persistent keepalive: every ${peer.keepaliveSeconds} seconds`);
  }
  return `${lines.join("\n")}\n`;
}

/** As `wg show <interface> dump` prints it: fields apart by tabs, the interface first. */
export function dumpText(document: PeersDocument): string {
  const lines = [["(hidden)", document.publicKey ?? "(none)", String(document.wireguardPort), "off"]];
  for (const peer of document.peers) {
    lines.push([
      peer.publicKey,
      peer.hasPresharedKey ? "(hidden)" : "(none)",
      peer.underlayAddr ?? "(none)",
      allowedIps(peer).join(","),
      peer.lastHandshake === null ? "0" : String(Math.floor(Date.parse(peer.lastHandshake) / 1000)),
      String(peer.rxBytes),
      String(peer.txBytes),
      peer.keepaliveSeconds === 0 ? "off" : String(peer.keepaliveSeconds),
    ]);
  }
  return `${lines.map((fields) => fields.join("\t")).join("\n")}\n`;
}

function agoText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds === 0) return "Now";
  const parts: string[] = [];
  let left = seconds;
  for (const [name, size] of [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]] as const) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count > 0) parts.push(`${count} ${name}${count === 1 ? "" : "s"}`);
  }
  return `${parts.join(", ")} ago`;
}
