/**
 * `edgemesh run`: an enrolled member, or one of a mesh file, until a signal ends it. Loads neither command line nor YAML nor hub
 * unless they are needed.
 *
 *     SIGTERM, SIGINT   stop; SIGHUP   read mesh file, log level, network and offloads again; a second SIGTERM ends at once
 */
import type { MemberRecord } from "../../src/mesh/entries.ts";
import type { RecordTrust } from "../../src/mesh/entry_set.ts";
import type { PeerOptions } from "../../src/mesh/tables.ts";
import { type Config, type LoadedConfig, readSurroundings, type Surroundings } from "../config.ts";
import { EdgeError, EXIT_OK, messageOf } from "../errors.ts";
import { createLog, type EdgeLog } from "../log.ts";
import { HubClient } from "../sync/client.ts";
import { TrustedClock } from "../sync/clock.ts";
import { verifyEd25519 } from "../sync/ed25519.ts";
import { decodeMsgpack } from "../sync/msgpack.ts";
import { VERSION } from "../version.ts";
import { x25519PublicKey } from "./device_keys.ts";
import { nodeDurableDir } from "./durable_dir.ts";
import { HUB_KEEPALIVE_SECONDS, type MemberOptions, startMember } from "./member.ts";
import type { MeshFile } from "./mesh_file.ts";
import { MeshFileSource } from "./mesh_source.ts";
import { type Identity, type Membership, MemberStore } from "./store.ts";

/** Longest that a stop may take before the process ends anyway. */
const STOP_LIMIT_MS = 1800;

/** By then the member is up, and what starting it took is garbage. */
const COLLECT_AFTER_MS = 3000;

/** What `run` is given by the dispatcher. */
export interface RunContext {
  readonly loaded: LoadedConfig;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** reads the settings again, for SIGHUP */
  readonly reload: () => Promise<LoadedConfig>;
}

/** Runs until stopped. @returns the exit code @throws EdgeError when it cannot start */
export async function runMember(context: RunContext): Promise<number> {
  const { config, warnings } = context.loaded;
  const surroundings = readSurroundings(context.env, process.pid);
  const log = createLog({ level: config.logLevel, format: config.logFormat, isJournal: surroundings.isJournal });
  for (const warning of warnings) log.warn("setting-unknown", { warning });
  const store = new MemberStore(nodeDurableDir(config.stateDir));
  const notify = await makeNotify(surroundings, log);
  let end: (code: number) => void = () => {};
  const ended = new Promise<number>((resolve) => end = resolve);
  const common = { store, log, notify, watchdogMs: surroundings.watchdogMs };
  const prepared = config.mesh === undefined
    ? prepareJoined(config, store, log, () => end(EXIT_OK))
    : await prepareFromFile(config, context.loaded, config.mesh);
  const member = await startMember({ ...common, ...prepared.options });
  setTimeout(collectStartGarbage, COLLECT_AFTER_MS).unref();
  const reload = () =>
    void reloadAll(context, log, async (config) => {
      await prepared.reload(config);
      member.agent.switchOffload(config.offload);
    });
  const stop = () => end(EXIT_OK);
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.on("SIGHUP", reload);
  const code = await ended;
  process.once("SIGTERM", () => process.exit(code));
  log.info("stopping", {});
  // a kernel or a disk that hangs must not keep the process
  const limit = setTimeout(() => process.exit(code), STOP_LIMIT_MS);
  await member.stop();
  clearTimeout(limit);
  return code;
}

/** Bun collects when it allocates, and an idle member allocates nothing: 1.7 of 24.5 MB anonymous memory stayed otherwise. */
function collectStartGarbage(): void {
  (globalThis as unknown as { Bun?: { gc(force: boolean): void } }).Bun?.gc(true);
}

/** Options of `startMember` that depend on where the mesh comes from, and what SIGHUP does there. */
interface Prepared {
  readonly options: Omit<MemberOptions, "store" | "log" | "notify" | "watchdogMs">;
  readonly reload: (config: Config) => Promise<void>;
}

function prepareJoined(config: Config, store: MemberStore, log: EdgeLog, end: () => void): Prepared {
  const identity = store.loadIdentity();
  const membership = identity?.membership;
  if (identity === undefined || membership === undefined) {
    throw new EdgeError("EDGE_NOT_JOINED", `Cannot run: no membership in "${config.stateDir}"`);
  }
  const clock = new TrustedClock([store.loadClock()?.trustedUnixMs ?? 0, membership.joinedUnixMs]);
  let { network } = config;
  const source = new HubClient({
    endpoints: membership.hubEndpoints,
    caPem: membership.caPem,
    deviceSecretKey: identity.deviceSeed,
    recordKey: membership.recordKey,
    report: () => ({
      endpoints: [],
      wireguardPort: config.wireguardPort,
      version: VERSION,
      ...(network !== undefined && { network }),
    }),
    clock,
    log,
  });
  return {
    options: {
      config,
      isFromFile: false,
      wireguardKey: identity.wireguardKey,
      source,
      clock,
      mesh: {
        selfName: `${membership.cluster}/${membership.name}`,
        publicKey: x25519PublicKey(identity.wireguardKey),
        trust: trustIn(membership),
        peerOptions: keepHubAwake,
      },
      onSynced: () => noteApproval(identity, membership, store, log),
      actions: { leave: () => leave({ identity, membership, store, clock, log, end }) },
    },
    reload: (changed) => {
      network = changed.network;
      source.reportNow();
      return Promise.resolve(source.retryNow());
    },
  };
}

/** The hub speaks to approved members only: from now on "join" knows that there is nothing to wait for. */
function noteApproval(identity: Identity, membership: Membership, store: MemberStore, log: EdgeLog): void {
  if (store.loadIdentity()?.membership?.isPending !== true) return;
  try {
    store.saveIdentity({ ...identity, membership: { ...membership, isPending: false } });
  } catch (error) {
    log.warn("approval-not-saved", { reason: messageOf(error) });
  }
}

function trustIn(membership: Membership): RecordTrust {
  return {
    kind: "signed",
    keys: [membership.recordKey],
    ciphers: { verify: verifyEd25519 },
    decode: decodeMsgpack,
  };
}

/** Behind a NAT the hub must be able to reach us at any time; to others we speak when there is something to say. */
function keepHubAwake(member: MemberRecord): PeerOptions {
  return { keepaliveSeconds: member.isHub ? HUB_KEEPALIVE_SECONDS : 0 };
}

async function leave(what: {
  identity: Identity;
  membership: Membership;
  store: MemberStore;
  clock: TrustedClock;
  log: EdgeLog;
  end: () => void;
}): Promise<string | undefined> {
  const { leaveMesh } = await import("./leave.ts");
  const untold = await leaveMesh(what.store, what.clock);
  what.log.info("left", { cluster: what.membership.cluster, name: what.membership.name });
  // after the answer has been sent
  setTimeout(what.end, 100);
  return untold;
}

async function prepareFromFile(config: Config, loaded: LoadedConfig, path: string): Promise<Prepared> {
  const { readMeshFile } = await import("./mesh_file.ts");
  let revision = 0;
  let file: MeshFile;
  const read = () => readMeshFile(path, { publicKeyOf: x25519PublicKey, revision: ++revision });
  file = read();
  const source = new MeshFileSource(file.frame);
  const isPortGiven = loaded.origins.wireguardPort !== "default";
  return {
    options: {
      config: {
        ...config,
        wireguardPort: isPortGiven ? config.wireguardPort : file.listenPort ?? config.wireguardPort,
      },
      isFromFile: true,
      wireguardKey: file.privateKey,
      source,
      clock: new TrustedClock(),
      mesh: {
        selfName: file.selfName,
        publicKey: x25519PublicKey(file.privateKey),
        trust: { kind: "local" },
        peerOptions: (member) =>
          file.peerOptions.get(`${member.cluster.name}/${member.name}`) ?? { keepaliveSeconds: 0 },
      },
      actions: { leave: () => Promise.resolve(undefined) },
    },
    reload: () => {
      const next = read();
      if (next.selfName !== file.selfName || toText(next.privateKey) !== toText(file.privateKey)) {
        throw new EdgeError("EDGE_MESH_FILE_INVALID", `Cannot reload "${path}": another name or key needs a restart`);
      }
      file = next;
      source.replace(next.frame);
      return Promise.resolve();
    },
  };
}

function toText(key: Uint8Array): string {
  return key.join(",");
}

async function reloadAll(context: RunContext, log: EdgeLog, reload: (config: Config) => Promise<void>): Promise<void> {
  try {
    const { config } = await context.reload();
    log.setLevel(config.logLevel);
    await reload(config);
    log.info("reloaded", {});
  } catch (error) {
    log.error("reload-failed", { reason: messageOf(error) });
  }
}

async function makeNotify(surroundings: Surroundings, log: EdgeLog): Promise<(line: string) => void> {
  const path = surroundings.notifySocket;
  if (path === undefined) return () => {};
  const { notify } = await import("../../ffi/notify.ts");
  return (line) => {
    try {
      notify(path, line);
    } catch (error) {
      log.warn("notify-failed", { reason: messageOf(error) });
    }
  };
}
