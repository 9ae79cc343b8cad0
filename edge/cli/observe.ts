/**
 * `edgemesh observe`: flows, dropped packets, and requests that a proxy judged, with the words of `hubble observe`: one line each,
 * `-o wide` with the rule, `-o json` as Hubble's JSON. What it shows is what the agent's rings have.
 */
import type { FlowDocument, FlowsDocument } from "../agent/documents.ts";
import { FLOW_FILTERS } from "../agent/flow_filter.ts";
import { integer } from "../config_values.ts";
import { EdgeError, EXIT_OK, messageOf } from "../errors.ts";
import { nameOfReserved } from "../../src/identity/reserved.ts";
import { pause } from "../sync/backoff.ts";
import { AgentClient } from "./agent_client.ts";
import { type CommandContext, optionOf } from "./context.ts";
import { clean } from "./output.ts";

const POLL_MS = 250;
const DEFAULT_LAST = 20;

export async function observe(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const { terminal } = context;
  const client = new AgentClient(config.socket, config.timeoutMs);
  const isFollowing = context.options.has("follow");
  const filters = filtersOf(context);
  const print = (document: FlowsDocument) => {
    for (const flow of document.flows) {
      const isJson = config.output === "json" || config.output === "yaml";
      terminal.out(`${isJson ? jsonLine(flow, document.member) : flowLine(flow, config.output === "wide")}\n`);
    }
  };
  const ask = (more: Readonly<Record<string, string>>) =>
    client.get<FlowsDocument>(`/v1/flows?${new URLSearchParams([...filters, ...Object.entries(more)])}`);
  const last = lastOf(context) ?? (isFollowing ? 0 : DEFAULT_LAST);
  let document = await ask(last === Infinity ? {} : { last: String(last) });
  print(document);
  while (isFollowing && !terminal.interrupted.aborted) {
    await pause(POLL_MS, terminal.interrupted);
    if (terminal.interrupted.aborted) break;
    document = await ask({ since: String(document.newest) });
    if (document.lost > 0) terminal.err(`${document.lost} flows came too fast to be shown\n`);
    print(document);
  }
  return EXIT_OK;
}

function filtersOf(context: CommandContext): [string, string][] {
  return Object.keys(FLOW_FILTERS).flatMap((name) =>
    (context.options.get(name) ?? []).map((text): [string, string] => [name, text])
  );
}

/** @throws EdgeError EDGE_USAGE */
function lastOf(context: CommandContext): number | undefined {
  if (context.options.has("all")) return Infinity;
  const text = optionOf(context, "last");
  if (text === undefined) return undefined;
  try {
    return integer(0, 1_000_000)(text);
  } catch (error) {
    throw new EdgeError("EDGE_USAGE", `Cannot read "--last ${text}": ${messageOf(error)}`);
  }
}

/** Hubble's compact line: time, ends with their identities, what it is, verdict, summary. */
export function flowLine(flow: FlowDocument, isWide: boolean): string {
  const rule = !isWide || flow.rule === null ? "" : ` by ${flow.rule.policy} ${flow.rule.path}`;
  const [from, to] = [endText(flow.source), endText(flow.destination)];
  return clean(`${flow.at}: ${from} -> ${to} ${kindOf(flow)} ${flow.verdict} (${summaryOf(flow)})${rule}`);
}

function endText(end: FlowDocument["source"]): string {
  if (end === null) return "?";
  const host = end.name ?? (end.address.includes(":") && end.port > 0 ? `[${end.address}]` : end.address);
  const reserved = nameOfReserved(end.identity);
  const identity = reserved === undefined ? `ID:${end.identity}` : reserved;
  return `${host}${end.port > 0 ? `:${end.port}` : ""} (${identity})`;
}

/** A request that was refused is one of its kind, else what came back is shown. */
function kindOf(flow: FlowDocument): string {
  const isAnswered = flow.verdict === "FORWARDED";
  if (flow.http !== null) return isAnswered ? "http-response" : "http-request";
  if (flow.dns !== null) return `dns-${isAnswered ? "response" : "request"} proxy`;
  if (flow.reason !== null) return flow.reason;
  if (flow.verdict === "REDIRECTED") return "to-proxy";
  return flow.direction === "ingress" ? "to-endpoint" : "to-network";
}

function summaryOf(flow: FlowDocument): string {
  const reason = flow.reason === null || flow.type !== "L7" ? "" : `; ${flow.reason}`;
  if (flow.http !== null) {
    const { status, method } = flow.http;
    if (method === "") return `HTTP${status > 0 ? ` ${status}` : ""}${reason}`;
    return `HTTP/1.1 ${status > 0 ? `${status} ` : ""}(${method} ${urlOf(flow.http)})${reason}`;
  }
  if (flow.dns !== null) {
    const { name, type, rcode, addresses } = flow.dns;
    if (flow.verdict !== "FORWARDED") return `DNS Query ${name} ${type}${reason}`;
    const answer = addresses.length > 0 ? `"${addresses.join(",")}"` : rcode;
    return `DNS Answer ${answer} (Query ${name} ${type})${reason}`;
  }
  return flow.protocol;
}

function urlOf({ host, path }: NonNullable<FlowDocument["http"]>): string {
  return path.startsWith("/") ? `http://${host}${path}` : path;
}

/** Hubble's JSON (`-o jsonpb`): one object on a line, names of `flow.proto`. */
export function jsonLine(flow: FlowDocument, member: string): string {
  return JSON.stringify({ flow: flowObject(flow, member), node_name: member, time: flow.at });
}

function flowObject(flow: FlowDocument, member: string): Record<string, unknown> {
  const { source, destination, http, dns } = flow;
  const isIpv6 = (source ?? destination)?.address.includes(":") ?? false;
  return {
    time: flow.at,
    verdict: flow.verdict,
    ...(flow.drop === null ? {} : { drop_reason_desc: flow.drop }),
    ...(source === null || destination === null
      ? {}
      : { IP: { source: source.address, destination: destination.address, ipVersion: isIpv6 ? "IPv6" : "IPv4" } }),
    ...l4Of(flow),
    source: endObject(source),
    destination: endObject(destination),
    Type: flow.type,
    node_name: member,
    traffic_direction: flow.direction.toUpperCase(),
    ...(http === null && dns === null ? {} : {
      l7: {
        type: flow.verdict === "FORWARDED" ? "RESPONSE" : "REQUEST",
        ...(http === null
          ? {}
          : { http: { code: http.status, method: http.method, url: urlOf(http), protocol: "HTTP/1.1" } }),
        ...(dns === null ? {} : { dns: { query: dns.name, qtypes: [dns.type], ips: dns.addresses } }),
      },
    }),
    ...(flow.rule === null ? {} : rulesObject(flow)),
    Summary: summaryOf(flow),
  };
}

function l4Of({ protocol, source, destination }: FlowDocument): Record<string, unknown> {
  if (source === null || destination === null) return {};
  if (protocol === "ICMP" || protocol === "ICMPv6") {
    return { l4: { [protocol === "ICMP" ? "ICMPv4" : protocol]: { type: destination.port } } };
  }
  if (!["TCP", "UDP", "SCTP"].includes(protocol)) return {};
  return { l4: { [protocol]: { source_port: source.port, destination_port: destination.port } } };
}

function endObject(end: FlowDocument["source"]): Record<string, unknown> {
  return end === null ? {} : { identity: end.identity, ...(end.name === null ? {} : { pod_name: end.name }) };
}

/** Who allowed it, as Hubble names policies. */
function rulesObject({ rule, direction, verdict }: FlowDocument): Record<string, unknown> {
  const [kind, namespace, name] = rule!.policy.split("/");
  const by = [{ kind, ...(namespace === "" ? {} : { namespace }), name }];
  return { [`${direction}_${verdict === "DROPPED" ? "denied" : "allowed"}_by`]: by };
}
