/** A hub on loopback with its state in memory, for tests on every runtime, and a TCP relay in front of it that can cut lines. */
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { randomFillSync } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HubKeys, openHubKeys } from "../../edge/hub/ca.ts";
import { HubServer } from "../../edge/hub/server.ts";
import { makeSignatures, secretKeyOf } from "../../edge/hub/signatures.ts";
import { HubState } from "../../edge/hub/state.ts";
import { MemoryStore } from "./store_memory.ts";
import { AdminClient } from "../../edge/sync/admin_client.ts";
import type { Log } from "../../src/ports.ts";

export interface TestHub {
  readonly server: HubServer;
  readonly state: HubState;
  readonly keys: HubKeys;
  readonly endpoint: string;
  readonly admin: AdminClient;
  /** the hub's wall clock, Unix milliseconds; may be moved */
  readonly clock: { unixMs: number };
  /** every line that was logged, as JSON */
  readonly lines: string[];
  readonly log: Log;
  close(): Promise<void>;
}

/** A log that keeps its lines. */
export function makeLog(lines: string[]): Log {
  const at = (level: string) => (event: string, fields?: unknown) =>
    void lines.push(JSON.stringify({ level, event, fields }));
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** @param around stands between the server and the state, to fail or delay what it does */
export async function startTestHub(around: (state: HubState) => HubState = (state) => state): Promise<TestHub> {
  const dir = mkdtempSync(join(tmpdir(), "edgemesh-hub-"));
  const keys = await openHubKeys(dir);
  const clock = { unixMs: Date.now() };
  const lines: string[] = [];
  const log = makeLog(lines);
  const store = new MemoryStore({ epoch: "test-epoch", nowMs: () => performance.now() });
  const random = (into: Uint8Array) => void randomFillSync(into);
  const state = await HubState.open({
    store,
    settings: {
      cluster: { name: "lab", id: 7 },
      routing: { mode: "tunnel", tunnelProtocol: "geneve", encryption: "wireguard" },
      policy: { enforcementMode: "default", defaultLocalCluster: true, allowLocalhost: "always" },
      memberCidrs: ["10.219.0.0/16", "fd00:1::/64"],
    },
    recordKey: { publicKey: keys.signer.publicKey, secretKey: secretKeyOf(keys.signSeed, keys.signer.publicKey) },
    ciphers: makeSignatures(),
    random,
    now: () => clock.unixMs,
    log,
  });
  const server = await HubServer.start({
    state: around(state),
    keys,
    listen: { host: "127.0.0.1", port: 0 },
    advertise: [],
    log,
    random,
    version: "test",
    unixMs: () => clock.unixMs,
  });
  const endpoint = `127.0.0.1:${server.port}`;
  return {
    server,
    state,
    keys,
    endpoint,
    admin: new AdminClient({ endpoint, caPem: keys.caPem, credential: keys.adminToken }),
    clock,
    lines,
    log,
    async close() {
      await server.close();
      state.close();
      await store.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Forwards TCP to a port of loopback, byte by byte, until it is cut. */
export interface Relay {
  readonly endpoint: string;
  /** connections taken since start */
  readonly connections: number;
  /** ends every connection at once, both ways */
  cut(): void;
  /** until it is up again, connections are closed as they come */
  isDown: boolean;
  close(): Promise<void>;
}

export async function startRelay(port: number): Promise<Relay> {
  const open = new Set<Socket>();
  const relay = { connections: 0, isDown: false };
  const server: Server = createServer((near) => {
    relay.connections++;
    near.on("error", () => near.destroy());
    if (relay.isDown) return void near.destroy();
    const far = connect(port, "127.0.0.1");
    for (const [from, to] of [[near, far], [far, near]] as const) {
      open.add(from);
      from.on("data", (chunk) => void to.write(chunk));
      from.on("end", () => to.end());
      from.on("error", () => to.destroy());
      from.on("close", () => {
        open.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => {
    for (const socket of open) socket.destroy();
  };
  return Object.assign(relay, {
    endpoint: `127.0.0.1:${(server.address() as { port: number }).port}`,
    cut,
    close: () => {
      cut();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  });
}
