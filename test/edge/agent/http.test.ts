import { existsSync, mkdtempSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { StatusDocument } from "../../../edge/agent/documents.ts";
import { type HttpServers, makeApp, serveHttp } from "../../../edge/agent/http.ts";
import { AgentClient } from "../../../edge/cli/agent_client.ts";
import { DROP_POLICY_DENIED } from "../../../src/verdict.ts";
import { INGRESS } from "../../../src/datapath/counters.ts";
import { entriesOf } from "../../src/mesh/fixtures.ts";
import { type FakeAgent, makeAgent } from "./fakes.ts";

let fake: FakeAgent;
let left: number;
const actions = { leave: () => Promise.resolve(left++ > 0 ? "again" : undefined) };

beforeEach(async () => {
  left = 0;
  fake = makeAgent();
  await fake.agent.start();
});

function sync(): void {
  fake.source.sink!.apply({ t: "snapshot", epoch: "e", revision: 5, entries: entriesOf(1, 2, 3) });
  fake.source.sink!.status({ state: "synced", hub: "hub:7443" });
}

const loopback = (path: string, init: RequestInit & { host?: string } = {}) =>
  makeApp(fake.agent, "loopback", actions).request(`http://x${path}`, {
    ...init,
    headers: { host: init.host ?? "127.0.0.1:9780", ...init.headers as Record<string, string> },
  });

describe("health", () => {
  it("is live before it is ready, and ready when traffic can flow", async () => {
    expect((await loopback("/livez")).status).toBe(200);
    const before = await loopback("/readyz");
    expect(before.status).toBe(503);
    const text = await before.text();
    expect(text).toContain("[+]datapath ok");
    expect(text).toContain("[-]policy failed: no policy state yet");
    sync();
    const after = await loopback("/readyz");
    expect([after.status, await after.text()]).toEqual([200, "ok"]);
    expect(await (await loopback("/readyz?verbose")).text()).toMatch(
      /^\[\+\]datapath ok\n\[\+\]network ok\n\[\+\]state ok\n\[\+\]policy ok\n\[\+\]session ok\nreadyz check passed\n$/,
    );
  });

  it("answers single checks, leaves out what is excluded, and knows no others", async () => {
    expect((await loopback("/readyz/datapath")).status).toBe(200);
    expect((await loopback("/readyz/policy")).status).toBe(503);
    expect((await loopback("/readyz/magic")).status).toBe(404);
    const all = "exclude=network&exclude=state&exclude=policy";
    expect((await loopback(`/readyz?${all}`)).status).toBe(200);
    expect(await (await loopback(`/readyz?${all}&verbose`)).text()).toContain("[+]policy excluded: ok");
  });

  it("never makes liveness depend on the hub, but on the datapath's loop", async () => {
    sync();
    fake.source.sink!.status({ state: "refused", detail: "revoked" });
    expect((await loopback("/livez")).status).toBe(200);
    fake.time.nowMs += 20_000;
    expect((await loopback("/livez")).status).toBe(503);
    expect((await loopback("/healthz")).status).toBe(503);
  });
});

describe("the entrances", () => {
  it.each(["evil.example", "evil.example:9780", "127.0.0.1.evil.example", "", "10.0.0.1:9780", "localhost:1x"])(
    "loopback refuses the host %j",
    async (host) => {
      expect((await loopback("/v1/status", { host })).status).toBe(403);
      expect((await loopback("/livez", { host })).status).toBe(403);
    },
  );

  it.each(["127.0.0.1:9780", "localhost:9780", "[::1]:9780", "localhost"])(
    "loopback takes the host %j",
    async (host) => {
      expect((await loopback("/livez", { host })).status).toBe(200);
    },
  );

  it("loopback refuses a foreign origin, in any form", async () => {
    for (
      const origin of ["http://evil.example", "null", "https://127.0.0.1:9780", "http://127.0.0.1:9780.evil.example"]
    ) {
      expect((await loopback("/v1/status", { headers: { origin } })).status, origin).toBe(403);
    }
    expect((await loopback("/v1/status", { headers: { origin: "http://127.0.0.1:9780" } })).status).toBe(200);
  });

  it("loopback changes nothing, and shows nobody what others asked for", async () => {
    for (const path of ["/v1/leave", "/v1/ping", "/v1/flows", "/v1/policy/dry-run"]) {
      for (const method of ["POST", "GET", "PUT"]) expect((await loopback(path, { method })).status).toBe(403);
    }
    expect(left).toBe(0);
  });

  it("answers an unknown path with an error document", async () => {
    const answer = await loopback("/v1/nothing");
    expect(answer.status).toBe(404);
    expect(await answer.json()).toMatchObject({ kind: "Error", code: "EDGE_NOT_FOUND" });
  });
});

describe("documents", () => {
  it("tell the whole of the member", async () => {
    sync();
    fake.link.counters.addDrop(INGRESS, DROP_POLICY_DENIED);
    fake.link.snapshot = {
      peers: [{
        name: "edge1/m3",
        publicKey: new Uint8Array(32).fill(3),
        endpoint: { address: new Uint8Array([192, 0, 2, 99]), port: 7, scope: 0 },
        lastHandshakeUnixMs: fake.unixMs - 1000,
        rxBytes: 10,
        txBytes: 20,
        hasSession: true,
        pathMtuBytes: 1376,
        aead: "aegis128l",
      }],
      flows: 0,
      policyRevision: 1,
      ruleHits: new Float64Array(),
      drops: [{
        unixMs: fake.unixMs,
        direction: "ingress",
        verdict: DROP_POLICY_DENIED,
        source: "10.9.0.3",
        destination: "10.9.0.2",
        protocol: 6,
        sourcePort: 4000,
        destinationPort: 8081,
        identity: 65795,
      }],
    };
    const status = await (await loopback("/v1/status")).json() as StatusDocument;
    expect(status).toMatchObject({
      apiVersion: "edgemesh/v1",
      kind: "Status",
      state: "ready",
      member: { name: "m2", addresses: ["10.9.0.2", "fd09::2"], identity: 65794, cluster: { name: "edge1", id: 1 } },
      hub: { state: "synced", endpoint: "hub:7443" },
      mesh: { revision: 5, isStale: false, members: 3 },
      peers: { total: 2, withSession: 1, withNarrowPath: 1, leastPathMtuBytes: 1376 },
      policy: { isReady: true, refused: [] },
      traffic: { ingressDrops: { POLICY_DENIED: 1 } },
      health: [],
    });
    const { peers } = await (await loopback("/v1/peers")).json();
    expect(peers[1]).toMatchObject({
      name: "m3",
      state: "active",
      underlayAddr: "192.0.2.99:7",
      rxBytes: 10,
      prefixes: ["10.9.0.3/32", "fd09::3/128"],
    });
    expect(peers[0]).toMatchObject({
      name: "m1",
      isHub: true,
      state: "new",
      lastHandshake: null,
      keepaliveSeconds: 25,
    });
    expect((await (await loopback("/v1/drops")).json()).recent).toEqual([
      expect.objectContaining({ reason: "POLICY_DENIED", protocol: "TCP", destinationPort: 8081, source: "10.9.0.3" }),
    ]);
    expect(await (await loopback("/v1/identities")).json()).toMatchObject({ kind: "Identities", identities: [] });
    expect(await (await loopback("/v1/policies")).json()).toMatchObject({ isReady: true, policies: [] });
  });

  it("hold no secret", async () => {
    sync();
    const secret = Buffer.from(fake.agent.options.datapath.privateKey).toString("base64");
    for (const path of ["/v1/status", "/v1/peers", "/v1/drops", "/v1/identities", "/v1/policies", "/metrics"]) {
      expect(await (await loopback(path)).text(), path).not.toContain(secret);
    }
  });

  it("show policies with what cannot be enforced", async () => {
    sync();
    const policy = (name: string, spec: unknown) =>
      [`policy/CiliumNetworkPolicy/default/${name}`, {
        apiVersion: "cilium.io/v2",
        kind: "CiliumNetworkPolicy",
        metadata: { name, namespace: "default" },
        spec,
      }] as const;
    const endpointSelector = { matchLabels: { app: "app2" } };
    // a policy that this member cannot enforce closes it: never an open gate
    fake.source.sink!.apply({
      t: "delta",
      revision: 6,
      deletes: [],
      puts: [policy("unknown", { endpointSelector, nonsense: 1 })],
    });
    expect((await (await loopback("/v1/policies")).json()).enforcement).toEqual({ ingress: true, egress: true });
    fake.source.sink!.apply({
      t: "delta",
      revision: 7,
      deletes: ["policy/CiliumNetworkPolicy/default/unknown"],
      puts: [],
    });
    expect((await (await loopback("/v1/policies")).json()).enforcement).toEqual({ ingress: false, egress: false });
    fake.source.sink!.apply({
      t: "delta",
      revision: 8,
      deletes: [],
      puts: [
        policy("l4", { endpointSelector, ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }] }] }] }),
        policy("l7", {
          endpointSelector,
          ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules: { kafka: [{}] } }] }],
        }),
      ],
    });
    const { policies, enforcement } = await (await loopback("/v1/policies")).json();
    expect(enforcement.ingress).toBe(true);
    expect(policies.map((p: { name: string; state: string; selectsSelf: boolean }) => [p.name, p.state, p.selectsSelf]))
      .toEqual([["l4", "enforced", true], ["l7", "refused", true]]);
    expect(policies[1].reason).toMatch(/kafka/);
    expect(fake.agent.health.items().map(({ code }) => code)).toContain("policy-refused");
  });

  it("give Prometheus counters that never go back while the datapath runs", async () => {
    sync();
    fake.link.counters.addDrop(INGRESS, DROP_POLICY_DENIED);
    const scrapeText = async () => await (await loopback("/metrics")).text();
    expect(await scrapeText()).toMatch(/^edgemesh_up 1$/m);
    expect(await scrapeText()).toMatch(
      /^edgemesh_dropped_packets_total\{direction="ingress",reason="POLICY_DENIED"\} 1$/m,
    );
    fake.link.counters.addDrop(INGRESS, DROP_POLICY_DENIED);
    expect(await scrapeText()).toMatch(/reason="POLICY_DENIED"\} 2$/m);
  });
});

describe("serveHttp", () => {
  let path: string;
  let servers: HttpServers | undefined;

  beforeEach(() => path = join(mkdtempSync(join(tmpdir(), "edgemesh-http-")), "run", "agent.sock"));
  afterEach(async () => {
    await servers?.close();
    servers = undefined;
  });

  const serve = async () =>
    servers = await serveHttp(fake.agent, { socket: path, loopback: { host: "127.0.0.1", port: 0 } }, actions);

  it("serves the command line on a socket that only its owner may use", async () => {
    sync();
    await serve();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const client = new AgentClient(path);
    expect(await client.get<StatusDocument>("/v1/status")).toMatchObject({ kind: "Status", member: { name: "m2" } });
    expect(await client.post("/v1/ping", { to: "m3", sequence: 1, timeoutMs: 5 })).toMatchObject({
      to: "10.9.0.3",
      member: "edge1/m3",
      result: "answered",
      roundTripMs: 1.5,
    });
    fake.link.pingResult = { verdict: DROP_POLICY_DENIED };
    expect(await client.post("/v1/ping", { to: "10.9.0.3" })).toMatchObject({
      result: "dropped",
      reason: "POLICY_DENIED",
    });
    fake.link.pingResult = undefined;
    expect(await client.post("/v1/ping", { to: "fd09::3" })).toMatchObject({ result: "timeout" });
    await expect(client.post("/v1/ping", { to: "nobody" })).rejects.toMatchObject({ code: "EDGE_NOT_FOUND" });
    await expect(client.post("/v1/ping", { to: 7 })).rejects.toMatchObject({ code: "EDGE_USAGE" });
    await expect(client.post("/v1/ping", { to: "m3", timeoutMs: 1e9 })).rejects.toMatchObject({ code: "EDGE_USAGE" });
    expect(await client.post("/v1/leave", {})).toMatchObject({ kind: "Left", hubNotTold: null });
    expect(left).toBe(1);
  });

  it("takes the policies of a whole repository at once for a dry run", async () => {
    await serve();
    const documents = [{ kind: "NetworkPolicy", metadata: { annotations: { note: "x".repeat(1_000_000) } } }];
    await expect(new AgentClient(path).post("/v1/policy/dry-run", { documents })).rejects.toMatchObject({
      code: "EDGE_DATAPATH_STOPPED",
    });
  });

  it("serves loopback, whose real requests are judged by their Host too", async () => {
    await serve();
    const { port } = servers!.loopback!;
    const get = (host: string) =>
      new Promise<number>((resolve, reject) => {
        request({ host: "127.0.0.1", port, path: "/livez", headers: { host } }, (response) => {
          response.resume();
          resolve(response.statusCode!);
        }).on("error", reject).end();
      });
    expect(await get(`127.0.0.1:${port}`)).toBe(200);
    expect(await get("evil.example")).toBe(403);
  });

  it("takes over a socket that a killed agent left, and not one that answers", async () => {
    await serve();
    await expect(serveHttp(fake.agent, { socket: path, loopback: undefined }, actions)).rejects.toMatchObject({
      code: "EDGE_AGENT_BUSY",
    });
    await servers!.close();
    expect(existsSync(path)).toBe(false);
    writeFileSync(path, "");
    await serve();
    expect(await new AgentClient(path).get("/v1/status")).toMatchObject({ kind: "Status" });
  });

  it("says which port is taken, and leaves no socket behind", async () => {
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
    const { port } = holder.address() as AddressInfo;
    const other = `${path}.2`;
    await expect(serveHttp(fake.agent, { socket: other, loopback: { host: "127.0.0.1", port } }, actions)).rejects
      .toMatchObject({ code: "EDGE_PORT_BUSY" });
    holder.close();
    expect(existsSync(other)).toBe(false);
  });

  it("tells a client that nobody listens", async () => {
    await expect(new AgentClient(path).get("/v1/status")).rejects.toMatchObject({
      code: "EDGE_AGENT_NOT_RUNNING",
      exitCode: 4,
    });
  });
});
