/**
 * `/metrics` for Prometheus. `prom-client` is imported at the first scrape; numbers are read from the datapath's shared memory
 * when they are asked for, so a scrape costs what it prints. Few series: none per peer.
 */
import type { Registry } from "prom-client";
import { EGRESS, INGRESS } from "../../src/datapath/counters.ts";
import { nameOfVerdict } from "../../src/verdict.ts";
import type { Agent } from "./agent.ts";
import { snapshotOf } from "./views.ts";

/** The text of a scrape and its content type. */
export interface Scrape {
  readonly contentType: string;
  readonly body: string;
}

/** one per agent: a registry cannot take a metric twice */
const registries = new WeakMap<Agent, Promise<Registry>>();

/** Answers one scrape. */
export async function scrape(agent: Agent): Promise<Scrape> {
  let registry = registries.get(agent);
  if (registry === undefined) registries.set(agent, registry = makeRegistry(agent));
  const made = await registry;
  return { contentType: made.contentType, body: await made.metrics() };
}

async function makeRegistry(agent: Agent): Promise<Registry> {
  const { Counter, Gauge, Registry } = await import("prom-client");
  const registry = new Registry();
  const registers = [registry];

  /** A counter whose value is kept elsewhere: set to it at each scrape. */
  const counter = (name: string, help: string, read: () => number) => {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  };
  const gauge = (name: string, help: string, read: () => number) => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  };
  const datapath = (name: Parameters<NonNullable<Agent["link"]>["counters"]["read"]>[0]) => () =>
    agent.link?.counters.read(name) ?? 0;

  counter("edgemesh_tun_received_packets_total", "Packets read from the TUN device", datapath("fromTunPackets"));
  counter("edgemesh_tun_received_bytes_total", "Octets read from the TUN device", datapath("fromTunBytes"));
  counter("edgemesh_tun_sent_packets_total", "Packets written to the TUN device", datapath("toTunPackets"));
  counter("edgemesh_tun_sent_bytes_total", "Octets written to the TUN device", datapath("toTunBytes"));
  counter("edgemesh_inbound_datagrams_total", "UDP datagrams received", datapath("fromUnderlayDatagrams"));
  counter("edgemesh_inbound_bytes_total", "UDP octets received", datapath("fromUnderlayBytes"));
  counter("edgemesh_outbound_datagrams_total", "UDP datagrams sent", datapath("toUnderlayDatagrams"));
  counter("edgemesh_outbound_bytes_total", "UDP octets sent", datapath("toUnderlayBytes"));
  counter("edgemesh_handshakes_sent_total", "WireGuard handshake messages sent", datapath("handshakesSent"));
  counter(
    "edgemesh_handshakes_received_total",
    "WireGuard handshake messages accepted",
    datapath("handshakesReceived"),
  );
  counter(
    "edgemesh_filler_datagrams_total",
    "Datagrams of one octet that senders on Linux 7.0 to 7.1.4 put behind others",
    datapath("fillerDatagrams"),
  );
  counter(
    "edgemesh_probe_answer_pieces_total",
    "Later fragments of answers that foreign peers gave to probes of the path MTU",
    datapath("probeAnswerPieces"),
  );
  counter("edgemesh_flows_created_total", "Connections entered into the flow table", datapath("flowsCreated"));
  new Counter({
    name: "edgemesh_dropped_packets_total",
    help: "Packets dropped, by direction and reason",
    labelNames: ["direction", "reason"],
    registers,
    collect() {
      this.reset();
      for (const [direction, name] of [[INGRESS, "ingress"], [EGRESS, "egress"]] as const) {
        for (const [verdict, count] of agent.link?.counters.dropsByReason(direction) ?? []) {
          this.inc({ direction: name, reason: nameOfVerdict(verdict) }, count);
        }
      }
    },
  });
  counter("edgemesh_state_writes_total", "State files written", () => agent.doors.store.writes);
  counter("edgemesh_entries_refused_total", "Entries of the mesh state refused", () => agent.mesh.refusedTotal);
  counter("edgemesh_datapath_starts_total", "Starts of the datapath", () => agent.datapathStarts);
  gauge("edgemesh_up", "1 while the datapath runs", () => agent.isDatapathAlive ? 1 : 0);
  if (!agent.options.isFromFile) {
    gauge("edgemesh_hub_connected", "1 while the hub's stream is open", () => agent.hub.state === "synced" ? 1 : 0);
  }
  gauge("edgemesh_state_revision", "Revision of the mesh state applied", () => agent.mesh.position?.revision ?? 0);
  gauge("edgemesh_policy_revision", "Revision of the policy table", () => agent.doors.policies.revision);
  gauge("edgemesh_members", "Members known, this one included", () => agent.mesh.members.size);
  gauge("edgemesh_start_time_seconds", "When the agent started, Unix seconds", () => agent.startedUnixMs / 1000);
  new Gauge({
    name: "edgemesh_peers_with_session",
    help: "Peers with a WireGuard session",
    registers,
    async collect() {
      this.set((await snapshotOf(agent)).peers.filter((peer) => peer.hasSession).length);
    },
  });
  new Gauge({
    name: "edgemesh_health_messages",
    help: "Health items by code and severity",
    labelNames: ["code", "severity"],
    registers,
    collect() {
      this.reset();
      for (const { code, severity } of agent.health.items()) this.set({ code, severity }, 1);
    },
  });
  new Gauge({
    name: "edgemesh_build_info",
    help: "1, with the version as label",
    labelNames: ["version"],
    registers,
    collect() {
      this.set({ version: agent.options.version }, 1);
    },
  });
  return registry;
}
