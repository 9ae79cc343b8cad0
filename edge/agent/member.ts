/**
 * Starts and stops a member in this process: the agent with its real doors, and the local HTTP interface. Used by `run.ts`, and by
 * the hub for its own membership (`edge/hub/run.ts`).
 */
import { makeBootClock } from "../../ffi/clock.ts";
import { releaseStartPages } from "../../ffi/start_pages.ts";
import { UNDERLAY_OVERHEAD_BYTES } from "../../src/datapath/path_mtu.ts";
import type { MeshStateOptions } from "../../src/mesh/state.ts";
import type { Config } from "../config.ts";
import { asEdgeError } from "../errors.ts";
import type { EdgeLog } from "../log.ts";
import type { TrustedClock } from "../sync/clock.ts";
import { VERSION } from "../version.ts";
import { Agent } from "./agent.ts";
import { makePolicies } from "./engine_policies.ts";
import { type HttpActions, type HttpServers, serveHttp } from "./http.ts";
import type { ProxyStarters } from "./l7_keeper.ts";
import { startDatapath } from "./link.ts";
import { netlinkDoor } from "./netlink_door.ts";
import { Network } from "./network.ts";
import type { StateSource } from "./source.ts";
import type { MemberStore } from "./store.ts";
import { SYSTEM_TIMERS } from "./timers.ts";

/** What differs between a hub's member, a joined one, and one of a mesh file. */
export interface MemberOptions {
  readonly config: Pick<
    Config,
    | "tun"
    | "underlayMtuBytes"
    | "wireguardPort"
    | "aead"
    | "memberAead"
    | "offload"
    | "pathMtuDiscovery"
    | "copyDscp"
    | "datapathWorkers"
    | "keyLogFile"
    | "underlayMark"
    | "socket"
    | "httpListen"
    | "policyConfirmTimeoutMs"
    | "dnsListen"
    | "dnsUpstreams"
  >;
  readonly mesh: MeshStateOptions;
  readonly isFromFile: boolean;
  /** X25519 secret key, 32 octets */
  readonly wireguardKey: Uint8Array;
  readonly source: StateSource;
  readonly store: MemberStore;
  readonly clock: TrustedClock;
  readonly log: EdgeLog;
  readonly actions: HttpActions;
  readonly notify: (line: string) => void;
  readonly watchdogMs: number | undefined;
  /** told when the stream from the hub has come up */
  readonly onSynced?: () => void;
}

/** A member that runs. */
export interface RunningMember {
  readonly agent: Agent;
  readonly http: HttpServers;
  /** Device, sockets and HTTP are gone when it resolves. */
  stop(): Promise<void>;
}

const RESOLV_CONF = "/etc/resolv.conf";

/** By then the first sync is through, and the code for it is not needed again soon. */
const START_IS_OVER_MS = 2_000;

/** Seconds between keepalives to the hub: less than any NAT forgets (RFC 4787 §4.3 asks for 120, the field has 30). */
export const HUB_KEEPALIVE_SECONDS = 25;

/**
 * Starts a member.
 * @throws EdgeError EDGE_AGENT_BUSY, EDGE_PORT_BUSY, EDGE_TUN_*, EDGE_UDP_*: nothing runs then
 */
export async function startMember(options: MemberOptions): Promise<RunningMember> {
  const { config, log } = options;
  const agent = new Agent({
    version: VERSION,
    mesh: options.mesh,
    isFromFile: options.isFromFile,
    policyConfirmMs: config.policyConfirmTimeoutMs,
    datapath: {
      tun: config.tun,
      mtu: config.underlayMtuBytes - UNDERLAY_OVERHEAD_BYTES,
      wireguardPort: config.wireguardPort,
      privateKey: options.wireguardKey,
      aead: config.aead,
      memberAead: config.keyLogFile === undefined ? config.memberAead : "off",
      offload: config.offload,
      probesPaths: config.pathMtuDiscovery,
      copiesDscp: config.copyDscp,
      workers: config.datapathWorkers,
      ...(config.keyLogFile === undefined ? {} : { keyLogFile: config.keyLogFile }),
      ...(config.underlayMark === undefined ? {} : { underlayMark: config.underlayMark }),
    },
  }, {
    startDatapath,
    network: new Network(netlinkDoor()),
    policies: makePolicies(),
    proxies: proxyStarters(config),
    store: options.store,
    source: options.source,
    clock: options.clock,
    unixMs: Date.now,
    nowMs: makeBootClock(),
    timers: SYSTEM_TIMERS,
    log,
    notify: options.notify,
    watchdogMs: options.watchdogMs,
    ...(options.onSynced && { onSynced: options.onSynced }),
  });
  // first the socket: it tells whether another agent runs, before a device is touched
  const http = await serveHttp(agent, { socket: config.socket, loopback: config.httpListen }, {
    ...options.actions,
    evaluate: (puts, deletes) => agent.evaluate(puts, deletes),
  });
  try {
    await agent.start();
  } catch (error) {
    await http.close();
    throw asEdgeError(error) ?? error;
  }
  const trimming = setTimeout(releaseStartPages, START_IS_OVER_MS);
  trimming.unref();
  return {
    agent,
    http,
    stop: async () => {
      clearTimeout(trimming);
      await Promise.all([http.close(), agent.stop()]);
    },
  };
}

/** The proxies' code is not loaded before a policy asks for it, or somebody for the resolver. */
function proxyStarters({ dnsListen, dnsUpstreams }: MemberOptions["config"]): ProxyStarters {
  return {
    http: async (addresses, doors) => (await import("../proxy/http_proxy.ts")).startHttpProxy(addresses, doors),
    dns: async (addresses, doors) => (await import("../proxy/dns_proxy.ts")).startDnsProxy(addresses, doors),
    ...(dnsListen && {
      resolver: async (doors) => {
        const [{ startDnsResolver }, servers] = await Promise.all([
          import("../proxy/dns_resolver.ts"),
          import("../proxy/dns_servers.ts"),
        ]);
        const upstreams = dnsUpstreams.length > 0
          ? servers.fixedServers(dnsUpstreams, dnsListen)
          : servers.systemServers(RESOLV_CONF, dnsListen);
        return startDnsResolver(dnsListen, upstreams, doors);
      },
    }),
  };
}
