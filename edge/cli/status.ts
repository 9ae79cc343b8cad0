/** `edgemesh status`: a sentence, the parts, what is wrong and what to do about it. */
import type { RoutingDocument, StatusDocument } from "../agent/documents.ts";
import { EdgeError, EXIT_OK } from "../errors.ts";
import { pause } from "../sync/backoff.ts";
import { AgentClient } from "./agent_client.ts";
import type { CommandContext, Terminal } from "./context.ts";
import { ageText, byteText, clean, labelText, painter, printDocument } from "./output.ts";

const WAIT_MS = 300_000;
const WAIT_STEP_MS = 200;

export async function status(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const client = new AgentClient(config.socket, context.options.has("wait") ? undefined : config.timeoutMs);
  const document = context.options.has("wait")
    ? await waitFor(client, config.timeoutMs ?? WAIT_MS, context.terminal)
    : await client.get<StatusDocument>("/v1/status");
  if (!await printDocument(context.terminal, config.output, document)) {
    context.terminal.out(statusText(document, context.terminal, config.output === "wide"));
  }
  return EXIT_OK;
}

/** Whether there is nothing left to wait for: addresses, policies, and the hub where there is one. */
export function isSettled(document: StatusDocument): boolean {
  const isConnected = document.hub.state === "synced" || document.hub.state === "none";
  return document.member !== null && document.device.isUp && document.policy.isReady && isConnected &&
    document.state !== "starting" && document.state !== "failing";
}

async function waitFor(client: AgentClient, timeoutMs: number, terminal: Terminal): Promise<StatusDocument> {
  const deadline = performance.now() + timeoutMs;
  let last: StatusDocument | undefined;
  let failure: unknown;
  for (;;) {
    try {
      last = await client.get<StatusDocument>("/v1/status");
      if (isSettled(last)) return last;
      if (last.hub.state === "refused") {
        throw new EdgeError("EDGE_HUB_REFUSED", `Cannot wait for the member: the hub refused it (${last.hub.detail})`);
      }
    } catch (error) {
      if (error instanceof EdgeError && error.code !== "EDGE_AGENT_NOT_RUNNING" && error.code !== "EDGE_TIMEOUT") {
        throw error;
      }
      failure = error;
    }
    if (performance.now() >= deadline || terminal.interrupted.aborted) break;
    await pause(WAIT_STEP_MS, terminal.interrupted);
  }
  if (last === undefined && failure instanceof EdgeError) throw failure;
  const missing = last === undefined ? "it does not answer" : sentence(last);
  throw new EdgeError("EDGE_TIMEOUT", `Cannot wait longer for the member: ${clean(missing)}`);
}

/** The first line: what it is and whether it is well. */
function sentence(document: StatusDocument): string {
  const { member, hub, peers, health } = document;
  if (member === null) return hub.state === "none" ? "not in the mesh" : `waiting for the hub (${hub.state})`;
  const mesh = hub.state === "none" ? "from a mesh file" : `in mesh "${member.cluster.name}"`;
  const wrong = health.filter((item) => item.severity !== "info").length;
  const well = wrong === 0 ? "nothing wrong" : `${wrong} ${wrong === 1 ? "thing" : "things"} wrong`;
  const reach = document.routing?.encryption === "none"
    ? `${peers.total} peers, NOT ENCRYPTED`
    : `${peers.withSession} of ${peers.total} peers with a session`;
  return `"${member.name}" ${mesh}, ${reach}, ${well}`;
}

function statusText(document: StatusDocument, terminal: Terminal, isWide: boolean): string {
  const paint = painter(terminal);
  const { member, device, hub, mesh, policy, traffic } = document;
  const mark =
    { ready: paint.green, starting: paint.yellow, degraded: paint.yellow, failing: paint.red }[document.state];
  const lines = [`${mark(document.state)}: ${clean(sentence(document))}`, ""];
  const row = (name: string, text: string) => lines.push(`${paint.bold(`${name}:`.padEnd(10))} ${clean(text)}`);
  if (member !== null) {
    row("Member", `${member.addresses.join(", ")}; identity ${member.identity}, namespace ${member.namespace}`);
    if (Object.keys(member.labels).length > 0) row("Labels", labelText(member.labels));
  }
  row(
    "Device",
    `${device.tun} ${device.isUp ? "up" : "down"}, MTU ${device.mtuBytes}, WireGuard on UDP ${device.wireguardPort}${
      device.datapathWorkers > 1 ? `, ${device.datapathWorkers} datapath Workers` : ""
    }`,
  );
  const { withNarrowPath, leastPathMtuBytes } = document.peers;
  if (withNarrowPath > 0) {
    row(
      "Paths",
      `to ${withNarrowPath} of the peers narrower than the underlay MTU, ${leastPathMtuBytes} octets at least`,
    );
  }
  if (document.routing !== null) row("Routing", routingText(document.routing));
  if (hub.state !== "none") {
    const age = ageText(Date.now() - Date.parse(hub.since));
    row(
      "Hub",
      `${hub.state} for ${age}${hub.endpoint === null ? "" : ` (${hub.endpoint})`}${
        hub.detail ? `: ${hub.detail}` : ""
      }`,
    );
  }
  const stale = mesh.isStale ? ", stale" : "";
  row("Mesh", `revision ${mesh.revision ?? "none"}${stale}; ${mesh.members} members, ${mesh.identities} identities`);
  row("Policy", `${policy.isReady ? `revision ${policy.revision}` : "not ready: closed"}; ${mesh.policies} policies`);
  for (const { policy: name, reason } of policy.refused) row("", `refused ${name}: ${reason}`);
  const drops = sum(traffic.ingressDrops) + sum(traffic.egressDrops);
  row("Traffic", `${byteText(traffic.toTunBytes)} in, ${byteText(traffic.fromTunBytes)} out, ${drops} packets dropped`);
  if (isWide) {
    for (const [name, value] of Object.entries(device.offload)) row("", `${name}: ${value}`);
    for (const route of device.routes) row("", `route ${route}`);
    for (const [direction, counts] of [["ingress", traffic.ingressDrops], ["egress", traffic.egressDrops]] as const) {
      for (const [reason, count] of Object.entries(counts)) row("", `${direction} drops ${reason}: ${count}`);
    }
    for (const { key, reason } of mesh.refused) row("", `refused ${key}: ${reason}`);
  }
  if (document.health.length > 0) lines.push("", paint.bold("Health:"));
  for (const item of document.health) {
    const color = { error: paint.red, warning: paint.yellow, info: paint.dim }[item.severity];
    const age = ageText(Date.now() - Date.parse(item.since));
    lines.push(`  ${color(item.code)} (${item.severity}, for ${age}): ${clean(item.text)}`, `    ${clean(item.fix)}`);
  }
  return `${lines.join("\n")}\n`;
}

function routingText({ mode, tunnelProtocol, encryption, network }: RoutingDocument): string {
  const how = mode === "native" ? "native" : `${mode}, ${tunnelProtocol}`;
  const where = network === "" ? "" : `; network ${network}`;
  return `${how}, ${encryption === "none" ? "NOT ENCRYPTED" : "inside WireGuard"}${where}`;
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}
