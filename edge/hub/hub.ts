/**
 * A hub put together: store, keys, state, TLS server. `run.ts` adds the hub's own agent; the benchmark and the tests use this.
 *
 *     <state-dir>/hub/       keys (ca.ts)
 *     <state-dir>/hub.db     the mesh, unless --store names another file
 */
import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { formatAddress } from "../../src/ip/address.ts";
import type { MeshSettings, PolicySettings, RoutingSettings } from "../../src/mesh/entries.ts";
import type { Log } from "../../src/ports.ts";
import { EdgeError, messageOf } from "../errors.ts";
import { parseEndpoint } from "../sync/endpoint.ts";
import { type HubKeys, openHubKeys } from "./ca.ts";
import { HubServer } from "./server.ts";
import { makeSignatures, randomBytes, secretKeyOf } from "./signatures.ts";
import { HubState, type HubStateOptions } from "./state.ts";
import { SqliteStore } from "./store_sqlite.ts";
import type { Store } from "./store.ts";

/** Members' IPv4 addresses unless --member-cidr says otherwise; away from the defaults of Kubernetes, Cilium, k3s and Docker. */
const DEFAULT_MEMBER_CIDR = "10.219.0.0/16";

export interface HubOptions {
  readonly stateDir: string;
  /** `sqlite:PATH`; default: `hub.db` in the state directory */
  readonly store?: string | undefined;
  readonly clusterName: string;
  readonly clusterId: number;
  /** `host:port` */
  readonly listen: string;
  readonly advertise: readonly string[];
  /** at most one of each family; none: defaults of this file */
  readonly memberCidrs: readonly string[];
  readonly routing: RoutingSettings;
  /** how members read policies; default: as Cilium without flags */
  readonly policy?: PolicySettings;
  readonly version: string;
  readonly log: Log;
  /** what the hub's own agent says; for status */
  readonly memberState?: () => string;
}

const DEFAULT_POLICY: PolicySettings = {
  enforcementMode: "default",
  defaultLocalCluster: true,
  allowLocalhost: "always",
};

/** A running hub. */
export interface Hub {
  readonly state: HubState;
  readonly server: HubServer;
  readonly keys: HubKeys;
  /** Stops serving and closes the store. */
  close(): Promise<void>;
}

/** Where the keys of a hub with this state directory are; `adminTokenPath` and `caPath` of ca.ts name the files. */
export function hubKeyDir(stateDir: string): string {
  return resolve(stateDir, "hub");
}

/**
 * Opens everything and starts to serve.
 * @throws EdgeError EDGE_STATE_INVALID, EDGE_STATE_UNWRITABLE, EDGE_CONFIG_INVALID, EDGE_PORT_BUSY, EDGE_NETWORK_FAILED
 */
export async function openHub(options: HubOptions): Promise<Hub> {
  const listen = parseEndpoint(options.listen) ?? listenAnywhere(options.listen);
  if (listen === undefined) {
    throw new EdgeError("EDGE_CONFIG_INVALID", `Cannot listen on "${options.listen}": not HOST:PORT`);
  }
  const keys = await openKeys(options.stateDir);
  const store = openStore(options);
  try {
    const state = await openState({
      store,
      settings: settingsOf(options, keys.caPin),
      recordKey: {
        publicKey: keys.signer.publicKey,
        secretKey: secretKeyOf(keys.signSeed, keys.signer.publicKey),
      },
      ciphers: makeSignatures(),
      random: randomBytes,
      now: () => Date.now(),
      log: options.log,
    });
    try {
      const server = await HubServer.start({
        state,
        keys,
        listen,
        advertise: options.advertise,
        log: options.log,
        random: randomBytes,
        version: options.version,
        ...(options.memberState && { memberState: options.memberState }),
      });
      return { state, server, keys, close: () => closeAll(server, state, store) };
    } catch (error) {
      state.close();
      throw error;
    }
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** What a store or prefixes that do not fit say is for whoever chose the settings. */
async function openState(options: HubStateOptions): Promise<HubState> {
  try {
    return await HubState.open(options);
  } catch (error) {
    if (error instanceof EdgeError) throw error;
    throw new EdgeError("EDGE_CONFIG_INVALID", messageOf(error), {
      cause: error,
      fix:
        "Use the --cluster-name, --cluster-id and --member-cidr that this store was made with, or another --state-dir.",
    });
  }
}

async function closeAll(server: HubServer, state: HubState, store: Store): Promise<void> {
  await server.close();
  state.close();
  await store.close();
}

async function openKeys(stateDir: string): Promise<HubKeys> {
  const dir = hubKeyDir(stateDir);
  try {
    return await openHubKeys(dir);
  } catch (error) {
    if (error instanceof EdgeError) throw error;
    throw new EdgeError("EDGE_STATE_UNWRITABLE", `Cannot use the hub's keys in "${dir}": ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function openStore({ stateDir, store, log }: HubOptions): SqliteStore {
  const path = store === undefined ? resolve(stateDir, "hub.db") : store.replace(/^sqlite:/, "");
  let opened: SqliteStore;
  try {
    opened = SqliteStore.open({
      path,
      nowMs: () => performance.now(),
      now: () => Date.now(),
      makeEpoch: () => randomUUID(),
    });
  } catch (error) {
    throw new EdgeError("EDGE_STATE_UNWRITABLE", `Cannot open the hub's store "${path}": ${messageOf(error)}`, {
      cause: error,
      fix: "Stop the other hub that uses it, or name a file that this user can write with --store.",
    });
  }
  if (opened.setAside !== undefined) {
    log.error("hub-store-set-aside", { path, savedAs: opened.setAside.path, reason: opened.setAside.reason });
  }
  return opened;
}

function settingsOf(options: HubOptions, caPin: Uint8Array): MeshSettings {
  return {
    cluster: { name: options.clusterName, id: options.clusterId },
    routing: options.routing,
    policy: options.policy ?? DEFAULT_POLICY,
    memberCidrs: options.memberCidrs.length > 0 ? options.memberCidrs : [DEFAULT_MEMBER_CIDR, uniqueLocalCidr(caPin)],
  };
}

/** An IPv6 /64 of this hub's own: fd, then 40 bits that come from its key, subnet 0 (RFC 4193 §3.1). */
function uniqueLocalCidr(caPin: Uint8Array): string {
  const address = new Uint8Array(16);
  address[0] = 0xfd;
  address.set(caPin.subarray(0, 5), 1);
  return `${formatAddress(address)}/64`;
}

/** `host:0` lets the kernel choose a port: for tests. */
function listenAnywhere(text: string): { host: string; port: number } | undefined {
  const parsed = text.endsWith(":0") ? parseEndpoint(`${text.slice(0, -1)}1`) : undefined;
  return parsed && { host: parsed.host, port: 0 };
}
