/**
 * `edgemesh hub run`: the hub, and its own agent, until a signal ends it. The hub is a member of its mesh like any other, fed in
 * process (`local_source.ts`); where the machine gives it no TUN device it serves all the same, and says so.
 */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { hostname, networkInterfaces } from "node:os";
import { equalConstantTime } from "../../src/bytes/compare.ts";
import { nodeDurableDir } from "../agent/durable_dir.ts";
import { makeDeviceKeys, x25519PublicKey } from "../agent/device_keys.ts";
import type { RoutingSettings } from "../../src/mesh/entries.ts";
import { routingFault } from "../../src/mesh/routing.ts";
import type { RunningMember } from "../agent/member.ts";
import type { RunContext } from "../agent/run.ts";
import { type Identity, MemberStore } from "../agent/store.ts";
import { type Config, readSurroundings } from "../config.ts";
import { EdgeError, EXIT_OK, messageOf } from "../errors.ts";
import { createLog, type EdgeLog } from "../log.ts";
import { TrustedClock } from "../sync/clock.ts";
import { makeSigner, verifyEd25519 } from "../sync/ed25519.ts";
import { isMeshAddress } from "../../src/hub/allocate.ts";
import { formatEndpoint, parseEndpoint } from "../sync/endpoint.ts";
import { decodeMsgpack } from "../sync/msgpack.ts";
import { VERSION } from "../version.ts";
import { type Hub, openHub } from "./hub.ts";
import { serveHealth } from "./hub_health.ts";
import { LocalSource } from "./local_source.ts";
import { policySettingsOf } from "./policy_settings.ts";
import type { Member } from "./state.ts";

/** Longest that a stop may take before the process ends anyway. */
const STOP_LIMIT_MS = 1800;
/** Names in --advertise are looked up again, and addresses of the machine: WireGuard's endpoint in the hub's record. */
const RENEW_MEMBER_MS = 300_000;
const MAX_ENDPOINTS = 8;
/** What an agent may fail with and the hub still be of use. */
const MEMBER_FAULT = /^EDGE_(TUN|FFI|DATAPATH|NETWORK|UDP|CIDR)_/;

/** Runs until stopped. @returns the exit code @throws EdgeError when it cannot start */
export async function runHub(context: RunContext): Promise<number> {
  const { config, warnings } = context.loaded;
  const surroundings = readSurroundings(context.env, process.pid);
  const log = createLog({ level: config.logLevel, format: config.logFormat, isJournal: surroundings.isJournal });
  for (const warning of warnings) log.warn("setting-unknown", { warning });
  const notify = await makeNotify(surroundings.notifySocket, log);
  let end: () => void = () => {};
  const ended = new Promise<void>((resolve) => end = resolve);
  process.on("SIGTERM", end);
  process.on("SIGINT", end);
  let own: RunningMember | undefined;
  process.on("SIGHUP", () => void reload(context, log, own));

  const store = new MemberStore(nodeDurableDir(config.stateDir));
  const identity = openIdentity(store);
  let memberState = "starting";
  const hub = await openHub({ ...hubOptionsOf(config), log, memberState: () => memberState });
  const stops: (() => Promise<void> | void)[] = [() => hub.close()];
  try {
    const self = await putSelf(hub, identity, config);
    const renewing = setInterval(() => {
      putSelf(hub, identity, config).catch((error: unknown) => log.error("hub-member", { reason: messageOf(error) }));
    }, RENEW_MEMBER_MS);
    stops.unshift(() => clearInterval(renewing));
    const member = await startOwnMember({
      hub,
      self,
      identity,
      config,
      store,
      log,
      notify,
      watchdogMs: surroundings.watchdogMs,
    });
    if (typeof member === "string") {
      memberState = member;
      log.warn("hub-member-off", { reason: member });
      stops.unshift(await serveAlone(hub, config, notify, surroundings.watchdogMs));
    } else {
      memberState = "running";
      own = member;
      stops.unshift(() => member.stop());
    }
    printStart(hub, self, config, memberState);
    if (config.encryption === "none") {
      log.warn("hub-unencrypted", {
        reason: "--encryption none: traffic between members can be read and forged on the network below",
      });
    }
    notify("READY=1");
    await ended;
  } catch (error) {
    await stopAll(stops, log);
    throw error;
  }
  process.once("SIGTERM", () => process.exit(EXIT_OK));
  log.info("stopping", {});
  // a kernel or a disk that hangs must not keep the process
  const limit = setTimeout(() => process.exit(EXIT_OK), STOP_LIMIT_MS);
  await stopAll(stops, log);
  clearTimeout(limit);
  return EXIT_OK;
}

function hubOptionsOf(config: Config) {
  return {
    stateDir: config.stateDir,
    store: config.store,
    clusterName: config.clusterName,
    clusterId: config.clusterId,
    listen: config.listen,
    advertise: config.advertise,
    memberCidrs: config.memberCidrs,
    routing: routingOf(config),
    policy: policySettingsOf(config),
    version: VERSION,
  };
}

/** @throws EdgeError EDGE_CONFIG_INVALID for settings that do not fit together */
function routingOf({ routingMode, tunnelProtocol, encryption }: Config): RoutingSettings {
  const routing = { mode: routingMode, tunnelProtocol, encryption };
  const fault = routingFault(routing);
  if (fault === undefined) return routing;
  throw new EdgeError("EDGE_CONFIG_INVALID", `Cannot run a mesh with these settings: ${fault}`, {
    fix: "Use --routing-mode tunnel with --encryption none, or leave --encryption out.",
  });
}

/** The hub's keys as a member; not those that it signs with. */
function openIdentity(store: MemberStore): Identity {
  const known = store.loadIdentity();
  if (known?.membership !== undefined) {
    throw new EdgeError("EDGE_ALREADY_JOINED", `Cannot run a hub in "${store.path}": it is a member's state`, {
      fix: "Give the hub its own --state-dir.",
    });
  }
  const identity = known ?? { ...makeDeviceKeys(), membership: undefined };
  if (known === undefined) store.saveIdentity(identity);
  return identity;
}

/** Writes the hub's own member record. */
async function putSelf(hub: Hub, identity: Identity, config: Config): Promise<Member> {
  const deviceKey = makeSigner(identity.deviceSeed).publicKey;
  const known = hub.state.members().find((member) => member.isHub && equalConstantTime(member.deviceKey, deviceKey));
  const endpoints = await endpointsOf(config);
  // without encryption packets really go to the address in outer headers
  const isPlain = config.encryption === "none";
  return await hub.state.putHubMember({
    name: known?.name ?? config.name ?? nodeName(),
    deviceKey,
    publicKey: x25519PublicKey(identity.wireguardKey),
    underlay: isPlain ? parseEndpoint(endpoints[0] ?? "")?.host ?? "" : "",
    endpoints,
    namespace: config.namespace ?? "default",
    labels: Object.fromEntries(config.labels),
    namedPorts: [],
    ...(config.network !== undefined && { network: config.network }),
  });
}

/** The first label of the machine's name, if it can be a node's name. */
function nodeName(): string {
  const label = hostname().toLowerCase().split(".")[0]!.replace(/[^a-z0-9-]/g, "-").replace(/^-+|-+$/g, "");
  return label === "" || label === "localhost" ? "hub" : label.slice(0, 63);
}

/** Where members reach the hub's WireGuard: the advertised hosts, else the machine's own addresses. */
async function endpointsOf({ advertise, listen, wireguardPort, memberCidrs }: Config): Promise<readonly string[]> {
  // the API may be advertised inside the mesh too; WireGuard cannot be reached there
  const hosts = [...advertise, listen].map((text) => parseEndpoint(text)?.host ?? "")
    .filter((host) => host !== "" && host !== "::" && host !== "0.0.0.0" && !isMeshAddress(host, memberCidrs));
  const found = (await Promise.all(hosts.map(addressesOf))).flat();
  const addresses = found.length > 0 ? found : ownAddresses();
  const texts = addresses.map((host) => formatEndpoint({ host, port: wireguardPort }));
  return [...new Set(texts)].slice(0, MAX_ENDPOINTS);
}

async function addressesOf(host: string): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [host];
  try {
    return (await lookup(host, { all: true, verbatim: true })).map(({ address }) => address);
  } catch {
    return []; // looked up again later
  }
}

function ownAddresses(): readonly string[] {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return all.filter(({ internal, address }) => !internal && !/^fe80:|^169\.254\./i.test(address))
    .map(({ address }) => address);
}

interface OwnMember {
  readonly hub: Hub;
  readonly self: Member;
  readonly identity: Identity;
  readonly config: Config;
  readonly store: MemberStore;
  readonly log: EdgeLog;
  readonly notify: (line: string) => void;
  readonly watchdogMs: number | undefined;
}

/** @returns the running agent, or why there is none */
async function startOwnMember(own: OwnMember): Promise<RunningMember | string> {
  const { hub, self, identity, config, store, log, notify, watchdogMs } = own;
  if (config.tun === "none") return "off: --tun none";
  try {
    const { startMember } = await import("../agent/member.ts");
    return await startMember({
      config,
      isFromFile: false,
      wireguardKey: identity.wireguardKey,
      source: new LocalSource({
        state: hub.state,
        name: self.name,
        unixMs: Date.now,
        log,
        dryRuns: hub.server.sync.dryRuns,
      }),
      store,
      clock: new TrustedClock([store.loadClock()?.trustedUnixMs ?? 0]),
      log,
      mesh: {
        selfName: `${config.clusterName}/${self.name}`,
        publicKey: self.publicKey,
        trust: {
          kind: "signed",
          keys: [hub.keys.signer.publicKey],
          ciphers: { verify: verifyEd25519 },
          decode: decodeMsgpack,
        },
        // members keep their NAT open towards the hub, not the other way
        peerOptions: () => ({ keepaliveSeconds: 0 }),
      },
      actions: { leave: () => Promise.reject(new EdgeError("EDGE_USAGE", "Cannot leave: this is the hub")) },
      notify,
      watchdogMs,
    });
  } catch (error) {
    if (!(error instanceof EdgeError) || !MEMBER_FAULT.test(error.code)) throw error;
    return `off: ${error.message}. ${error.fix}`;
  }
}

/** What the agent would do for the service manager and for probes. */
async function serveAlone(
  hub: Hub,
  config: Config,
  notify: (line: string) => void,
  watchdogMs: number | undefined,
): Promise<() => Promise<void>> {
  const health = config.httpListen && await serveHealth(config.httpListen, () => hub.server.status());
  const beat = watchdogMs === undefined ? undefined : setInterval(() => notify("WATCHDOG=1"), watchdogMs / 3);
  return async () => {
    clearInterval(beat);
    await health?.close();
  };
}

/** One line on standard output, for people and for scripts that wait for it. */
function printStart(hub: Hub, self: Member, config: Config, memberState: string): void {
  const { listen, advertise, caPin } = hub.server.status();
  const where = advertise.length > 0 ? `, reached at ${advertise.join(", ")}` : "";
  const hint = advertise.length > 0 ? "" : "; tokens need --advertise HOST:PORT or endpoints of their own";
  console.log(
    `edgemesh hub: cluster "${config.clusterName}" (${config.clusterId}) listens on ${listen}${where}, CA ${
      caPin.slice(0, 16)
    }, member "${self.name}" ${self.addresses.join(" ")} ${memberState}${hint}`,
  );
}

async function stopAll(stops: readonly (() => Promise<void> | void)[], log: EdgeLog): Promise<void> {
  for (const stop of stops) {
    try {
      await stop();
    } catch (error) {
      log.error("stop-failed", { reason: messageOf(error) });
    }
  }
}

/** @param own the hub's member, when it runs */
async function reload(context: RunContext, log: EdgeLog, own: RunningMember | undefined): Promise<void> {
  try {
    const { config } = await context.reload();
    log.setLevel(config.logLevel);
    own?.agent.switchOffload(config.offload);
    log.info("reloaded", {});
  } catch (error) {
    log.error("reload-failed", { reason: messageOf(error) });
  }
}

async function makeNotify(path: string | undefined, log: EdgeLog): Promise<(line: string) => void> {
  if (path === undefined) return () => {};
  try {
    const { notify } = await import("../../ffi/notify.ts");
    return (line) => {
      try {
        notify(path, line);
      } catch (error) {
        log.warn("notify-failed", { reason: messageOf(error) });
      }
    };
  } catch (error) {
    log.warn("notify-failed", { reason: messageOf(error) });
    return () => {};
  }
}
