import { connect as connectTlsSocket, createServer, type TLSSocket } from "node:tls";
import { mkdtempSync, rmSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openHubKeys } from "../../../edge/hub/ca.ts";
import type { HubState } from "../../../edge/hub/state.ts";
import { AdminClient } from "../../../edge/sync/admin_client.ts";
import { TrustedClock } from "../../../edge/sync/clock.ts";
import { parseEndpoint } from "../../../edge/sync/endpoint.ts";
import { type HttpAnswer, HttpConnection, type HttpRequest } from "../../../edge/sync/http.ts";
import { joinHub, type JoinOptions } from "../../../edge/sync/join_client.ts";
import { leaveHub } from "../../../edge/sync/leave_client.ts";
import { encodeMsgpack } from "../../../edge/sync/msgpack.ts";
import { connectTls } from "../../../edge/sync/tls.ts";
import { fromHex, toBase64, toHex } from "../../../src/bytes/text.ts";
import { readToken, writeToken } from "../../../src/hub/token.ts";
import { makeLog, type Relay, startRelay, startTestHub, type TestHub } from "../../support/hub.ts";

const NATIVE = { Request: globalThis.Request, Response: globalThis.Response };
const TIMEOUT_MS = 5_000;
const HOUR_MS = 3_600_000;

let hub: TestHub;
const cleanups: (() => unknown)[] = [];

beforeEach(async () => {
  hub = await startTestHub();
});
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
  await hub.close();
});

function joinOptions(more: Partial<JoinOptions> = {}): JoinOptions {
  return {
    deviceSecretKey: new Uint8Array(randomBytes(32)),
    wireguardPublicKey: new Uint8Array(randomBytes(32)),
    wireguardPort: 51871,
    timeoutMs: TIMEOUT_MS,
    firstPauseMs: 5,
    ...more,
  };
}

async function request(
  wanted: Omit<HttpRequest, "body"> & { body?: Uint8Array | string },
  host?: string,
): Promise<HttpAnswer> {
  const trust = { caPem: hub.keys.caPem, clock: new TrustedClock() };
  const socket = await connectTls(parseEndpoint(hub.endpoint)!, { trust, timeoutMs: TIMEOUT_MS });
  if (host !== undefined) overrideHost(socket, host);
  const connection = new HttpConnection(socket, hub.endpoint);
  try {
    const { body, ...rest } = wanted;
    const octets = typeof body === "string" ? new TextEncoder().encode(body) : body;
    return await connection.request({ ...rest, ...(octets && { body: octets }) }, TIMEOUT_MS);
  } finally {
    connection.close();
  }
}

function overrideHost(socket: TLSSocket, host: string): void {
  const write = socket.write.bind(socket) as (bytes: Uint8Array) => boolean;
  socket.write = ((bytes: Uint8Array) => {
    const text = new TextDecoder("latin1").decode(bytes).replace(/host: [^\r]*/, `host: ${host}`);
    return write(new TextEncoder().encode(text));
  }) as typeof socket.write;
}

function json(answer: HttpAnswer): Record<string, unknown> {
  return JSON.parse(new TextDecoder().decode(answer.body));
}

describe("joinHub", () => {
  it("brings a device into the mesh with its name, addresses and signed record", async () => {
    const { id, token } = await hub.admin.createToken({ labels: { site: "lyon" } });
    const { answer, caPem, endpoints } = await joinHub(token, joinOptions({ name: "pi-7", labels: { app: "web" } }));
    expect(answer).toMatchObject({ status: "joined", name: "pi-7", epoch: "test-epoch" });
    expect(answer.addresses.length).toBe(2);
    expect(toHex(answer.recordKey)).toBe(toHex(hub.keys.signer.publicKey));
    expect(caPem).toBe(hub.keys.caPem);
    expect(endpoints).toEqual([hub.endpoint]);
    const members = await hub.admin.members();
    expect(members).toMatchObject([{
      name: "pi-7",
      state: "active",
      labels: { app: "web", site: "lyon" },
      tokenId: id,
    }]);
    expect(await hub.admin.tokens()).toMatchObject([{ id, state: "used-up", used: 1, uses: 1 }]);
  });

  it("tells a device that must be approved to wait, and lets it in afterwards", async () => {
    const { token } = await hub.admin.createToken({ approve: "manual" });
    const { answer } = await joinHub(token, joinOptions({ name: "pi-8" }));
    expect(answer.status).toBe("pending");
    await hub.admin.approveMember("pi-8");
    expect(await hub.admin.members()).toMatchObject([{ name: "pi-8", state: "active" }]);
  });

  const refusals: readonly [string, string, (token: string, id: string) => Promise<string>][] = [
    ["expired", "EDGE_TOKEN_EXPIRED", (token) => {
      hub.clock.unixMs += 25 * HOUR_MS;
      return Promise.resolve(token);
    }],
    ["used-up", "EDGE_TOKEN_USED", async (token) => {
      await joinHub(token, joinOptions());
      return token;
    }],
    ["revoked", "EDGE_TOKEN_REVOKED", async (token, id) => {
      await hub.admin.revokeToken(id);
      return token;
    }],
    ["unknown", "EDGE_TOKEN_UNKNOWN", (token) => {
      const read = readToken(token);
      if (!("token" in read)) throw new Error("token cannot be read");
      return Promise.resolve(writeToken({ ...read.token, id: fromHex("0123456789abcdef")! }));
    }],
    ["bad-proof", "EDGE_TOKEN_REFUSED", (token) => {
      const read = readToken(token);
      if (!("token" in read)) throw new Error("token cannot be read");
      return Promise.resolve(writeToken({ ...read.token, secret: new Uint8Array(16) }));
    }],
  ];
  it.each(refusals)("is refused with code %s, exit code 5 and its own message", async (code, edgeCode, spoil) => {
    const { id, token } = await hub.admin.createToken({});
    const spoilt = await spoil(token, id);
    const failure = await joinHub(spoilt, joinOptions()).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: edgeCode, exitCode: 5 });
    expect((failure as Error).message).toContain(`(${code})`);
    expect((failure as Error).message).not.toContain(token);
  });

  it("is refused as replayed when the same device asks again much later", async () => {
    const { token } = await hub.admin.createToken({ uses: 2 });
    const options = joinOptions();
    await joinHub(token, options);
    hub.clock.unixMs += 16 * 60_000;
    await expect(joinHub(token, options)).rejects.toMatchObject({ code: "EDGE_TOKEN_REPLAYED", exitCode: 5 });
  });

  it("finds a damaged token before any packet is sent", async () => {
    const relay = await relayTo(hub);
    const { token } = await hub.admin.createToken({ endpoints: [relay.endpoint] });
    for (
      const damaged of [
        token.slice(0, -1),
        token.replace(/.(?=.{20}$)/, (c) => c === "A" ? "B" : "A"),
        "hello",
        "",
      ]
    ) {
      await expect(joinHub(damaged, joinOptions())).rejects.toMatchObject({ code: "EDGE_TOKEN_DAMAGED", exitCode: 5 });
    }
    expect(relay.connections).toBe(0);
    await joinHub(`  ${token}\n`, joinOptions());
    expect(relay.connections).toBe(2);
  });

  it("gives up with exit code 75 when no hub answers in time", async () => {
    const { token } = await hub.admin.createToken({ endpoints: ["127.0.0.1:1"] });
    const failure = joinHub(token, joinOptions({ timeoutMs: 60 }));
    await expect(failure).rejects.toMatchObject({ code: "EDGE_HUB_UNREACHABLE", exitCode: 75 });
  });

  it("goes on to the next endpoint when one does not answer", async () => {
    const { token } = await hub.admin.createToken({ endpoints: ["127.0.0.1:1", hub.endpoint] });
    const { endpoints } = await joinHub(token, joinOptions());
    expect(endpoints).toEqual([hub.endpoint, "127.0.0.1:1"]);
  });

  it("gets the same answer again when the first one was lost", async () => {
    await hub.close();
    const relays: Relay[] = [];
    let joins = 0;
    hub = await startTestHub((state) =>
      overridden(state, {
        async join(...args) {
          const answer = await state.join(...args);
          if (++joins === 1) relays[0]!.cut();
          return answer;
        },
      })
    );
    relays.push(await relayTo(hub));
    const { token } = await hub.admin.createToken({ endpoints: [relays[0]!.endpoint] });
    const { answer } = await joinHub(token, joinOptions({ name: "pi-9" }));
    expect(joins).toBe(2);
    expect(answer.name).toBe("pi-9");
    const members = await hub.admin.members();
    expect(members.map(({ name, addresses }) => ({ name, addresses }))).toEqual([
      { name: "pi-9", addresses: answer.addresses },
    ]);
    expect(await hub.admin.tokens()).toMatchObject([{ used: 1 }]);
  });

  it("sends nothing of the token to a server whose CA is another", async () => {
    const evil = await startImpostor((mine) => mine.caPem);
    const { token } = await hub.admin.createToken({ endpoints: [evil.endpoint] });
    await expect(joinHub(token, joinOptions())).rejects.toMatchObject({ code: "EDGE_HUB_UNTRUSTED" });
    expect(evil.requests).toEqual(["GET /v1/ca HTTP/1.1"]);
  });

  it("sends nothing of the token to a server that shows the right CA and has not its key", async () => {
    const evil = await startImpostor(() => hub.keys.caPem);
    const { token } = await hub.admin.createToken({ endpoints: [evil.endpoint] });
    await expect(joinHub(token, joinOptions())).rejects.toMatchObject({ code: "EDGE_HUB_UNTRUSTED" });
    expect(evil.requests).toEqual(["GET /v1/ca HTTP/1.1"]);
  });

  it("judges the end of a certificate by what it knows for certain, not by a clock that stands at 1970", async () => {
    const { token } = await hub.admin.createToken({});
    const at1970 = new TrustedClock([], () => 1000);
    await joinHub(token, joinOptions({ clock: at1970 }));
    const later = new TrustedClock([Date.now() + 500 * 24 * HOUR_MS], () => 1000);
    const { token: second } = await hub.admin.createToken({});
    const failure = joinHub(second, joinOptions({ clock: later }));
    await expect(failure).rejects.toMatchObject({
      code: "EDGE_HUB_UNTRUSTED",
      message: expect.stringContaining("expired"),
    });
  });
});

describe("leaveHub", () => {
  it("takes a member out, and says yes again to one that has left", async () => {
    const { token } = await hub.admin.createToken({});
    const options = joinOptions();
    await joinHub(token, options);
    const leave = () =>
      leaveHub({
        endpoints: [hub.endpoint],
        caPem: hub.keys.caPem,
        deviceSecretKey: options.deviceSecretKey,
        timeoutMs: TIMEOUT_MS,
      });
    await leave();
    expect(await hub.admin.members()).toEqual([]);
    await leave();
  });

  it("does not believe a signature over another challenge", async () => {
    const zeros = toBase64(new Uint8Array(32));
    const body = JSON.stringify({ challenge: zeros, deviceKey: zeros, signature: toBase64(new Uint8Array(64)) });
    const answer = await request({
      method: "POST",
      path: "/v1/leave",
      headers: { "content-type": "application/json" },
      body,
    });
    expect(answer.status).toBe(409);
  });
});

describe("the hub's HTTP surface", () => {
  it("leaves the runtime's Request and Response alone: other servers of the process need them", async () => {
    expect(globalThis.Response).toBe(NATIVE.Response);
    expect(globalThis.Request).toBe(NATIVE.Request);
    expect((await request({ method: "GET", path: "/v1/ca" })).status).toBe(200);
  });

  it("gives its CA to anybody", async () => {
    const answer = await request({ method: "GET", path: "/v1/ca" });
    expect(answer.status).toBe(200);
    expect(new TextDecoder().decode(answer.body)).toBe(hub.keys.caPem);
  });

  it("answers a JSON join as it answers a MessagePack one", async () => {
    const challenge = await request({ method: "POST", path: "/v1/join/challenge" });
    expect(json(challenge)).toEqual({ challenge: expect.stringMatching(/^[A-Za-z0-9+/]{43}=$/) });
    const octets = (count: number) => toBase64(new Uint8Array(randomBytes(count)));
    const body = JSON.stringify({
      challenge: json(challenge)["challenge"],
      tokenId: octets(8),
      deviceKey: octets(32),
      publicKey: octets(32),
      caPin: toBase64(hub.keys.caPin),
      name: "",
      namespace: "",
      labels: {},
      namedPorts: [],
      localAddress: "",
      listenPort: 51871,
      proof: octets(32),
      signature: octets(64),
    });
    const answer = await request({
      method: "POST",
      path: "/v1/join",
      headers: { "content-type": "application/json" },
      body,
    });
    expect(answer.status).toBe(403);
    expect(json(answer)).toMatchObject({ code: expect.any(String), message: expect.any(String), isRetryable: false });
  });

  it.each([
    [
      "a page's request",
      { method: "GET", path: "/v1/ca", headers: { origin: "https://evil.example" } },
      undefined,
      403,
    ],
    ["a name that is not the hub's", { method: "GET", path: "/v1/ca" }, "evil.example", 403],
    ["the hub's name", { method: "GET", path: "/v1/ca" }, "edgemesh-hub:7443", 200],
    ["an address", { method: "GET", path: "/v1/ca" }, "[::1]:7443", 200],
    ["an unknown path", { method: "GET", path: "/nothing" }, undefined, 404],
    ["sync without an upgrade", { method: "GET", path: "/v1/sync" }, undefined, 404],
    ["a body of no known type", { method: "POST", path: "/v1/join", body: "x" }, undefined, 415],
    ["an empty body", post("/v1/join", ""), undefined, 400],
    ["a body that is no JSON", post("/v1/join", "{"), undefined, 400],
    ["a body with nothing in it", post("/v1/join", "{}"), undefined, 400],
    ["a body that is a list", post("/v1/join", "[]"), undefined, 400],
    ["a body that is too long", post("/v1/join", `"${"x".repeat(70_000)}"`), undefined, 413],
    ["a body in chunks", chunked("/v1/join", ["{", "}"]), undefined, 400],
    ["chunks that are too long", chunked("/v1/join", new Array(80).fill("x".repeat(1000))), undefined, 413],
  ] as [string, HttpRequest, string | undefined, number][])("judges %s", async (_name, wanted, host, status) => {
    const answer = await request(wanted, host);
    expect(answer.status).toBe(status);
    if (status >= 400) expect(json(answer)).toEqual({ code: expect.any(String), message: expect.any(String) });
  });

  it("answers any body with 4xx and stays alive", async () => {
    const paths = ["/v1/join", "/v1/leave", "/v1/join/challenge"];
    const types = ["application/json", "application/msgpack"];
    const body = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.json().map((text) => new TextEncoder().encode(text)),
      fc.dictionary(fc.constantFrom("challenge", "deviceKey", "labels", "signature"), fc.anything()).map((value) =>
        new TextEncoder().encode(JSON.stringify(value) ?? "")
      ),
      fc.dictionary(fc.constantFrom("challenge", "tokenId", "labels"), fc.uint8Array()).map(encodeMsgpack),
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...paths), fc.constantFrom(...types), body, async (path, type, octets) => {
        const answer = await request({ method: "POST", path, headers: { "content-type": type }, body: octets });
        if (path === "/v1/join/challenge") expect(answer.status).toBe(200);
        else expect(answer.status >= 400 && answer.status < 500).toBe(true);
      }),
      { numRuns: 60 },
    );
    expect(hub.lines.filter((line) => line.includes("hub-request-failed"))).toEqual([]);
  });

  it("renews its certificate while connections stay", async () => {
    const relay = await relayTo(hub);
    const trust = { caPem: hub.keys.caPem, clock: new TrustedClock() };
    const socket = await connectTls(parseEndpoint(relay.endpoint)!, { trust, timeoutMs: TIMEOUT_MS });
    const connection = new HttpConnection(socket, relay.endpoint);
    const before = hub.server.status().certificateNotAfter;
    expect(await hub.server.renewCertificate()).toBe(false);
    const upgraded = await connection.upgrade("/v1/sync", "edgemesh-sync", TIMEOUT_MS);
    expect(upgraded).toHaveProperty("head");
    hub.clock.unixMs += 300 * 24 * HOUR_MS;
    expect(await hub.server.renewCertificate()).toBe(true);
    expect(hub.server.status().certificateNotAfter).toBeGreaterThan(before);
    expect(socket.destroyed).toBe(false);
    expect((await request({ method: "GET", path: "/v1/ca" })).status).toBe(200);
    expect(hub.endpoint).toBe(`127.0.0.1:${hub.server.port}`);
    socket.destroy();
  });

  it("closes and counts a sync stream of random octets, half frames and giant lengths", async () => {
    const streams = [new Uint8Array([0xff, 0xff, 0xff, 0xff]), randomBytes(1000), new Uint8Array([0, 0, 0, 1, 0xc1])];
    for (const octets of streams) {
      const socket = await upgraded(hub);
      socket.write(octets);
      await closed(socket);
    }
    await expect.poll(() => hub.server.status().counters["brokenFrames"]).toBe(streams.length);
    const half = await upgraded(hub);
    half.write(new Uint8Array([0, 0, 1]));
    half.end();
    await closed(half);
    expect(hub.server.sync.hasRoom()).toBe(true);
  });
});

describe("the admin API", () => {
  it("wants the credential, and has patience for ten wrong ones", async () => {
    const asStranger = (credential: string) =>
      new AdminClient({ endpoint: hub.endpoint, caPem: hub.keys.caPem, credential });
    expect((await request({ method: "GET", path: "/v1/admin/status" })).status).toBe(401);
    for (let i = 0; i < 9; i++) {
      await expect(asStranger("wrong").status()).rejects.toMatchObject({ code: "EDGE_AGENT_DENIED" });
    }
    expect((await request({ method: "GET", path: "/v1/admin/nothing" })).status).toBe(429);
    expect((await hub.admin.status()).cluster).toEqual({ name: "lab", id: 7 });
  });

  it("does not send the credential to a server that is not the hub", async () => {
    const evil = await startImpostor(() => hub.keys.caPem);
    const admin = new AdminClient({ endpoint: evil.endpoint, caPem: hub.keys.caPem, credential: hub.keys.adminToken });
    await expect(admin.status()).rejects.toMatchObject({ code: "EDGE_HUB_UNTRUSTED" });
    expect(evil.requests).toEqual([]);
  });

  it("stores all documents or none, gives them back and deletes them", async () => {
    const policy = {
      apiVersion: "cilium.io/v2",
      kind: "CiliumNetworkPolicy",
      metadata: { name: "web", namespace: "default" },
      spec: { endpointSelector: {}, ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }] }] }] },
    };
    const bad = await hub.admin.apply([policy, { kind: "Pudding" }]);
    expect(bad.errors).toMatchObject([{ index: 1 }]);
    expect(await hub.admin.objects()).toEqual([]);
    const good = await hub.admin.apply([policy]);
    expect(good).toMatchObject({
      applied: [{ kind: "CiliumNetworkPolicy", name: "web", action: "created" }],
      errors: [],
    });
    expect(await hub.admin.objects({ kind: "CiliumNetworkPolicy" })).toMatchObject([{ metadata: { name: "web" } }]);
    await hub.admin.deleteObject("CiliumNetworkPolicy", "default", "web");
    await expect(hub.admin.deleteObject("CiliumNetworkPolicy", "default", "web")).rejects.toMatchObject({
      code: "EDGE_NOT_FOUND",
    });
  });

  it.each([
    ["uses of 0", { uses: 0 }],
    ["an endpoint without a port", { endpoints: ["hub.example"] }],
    ["four endpoints", { endpoints: ["a:1", "b:1", "c:1", "d:1"] }],
    ["a field that nobody knows", { secret: "x" }],
    ["a name for many devices", { uses: 5, name: "pi" }],
    ["a label that is none", { labels: { "in valid": "x" } }],
  ])("refuses to make a token with %s", async (_name, body) => {
    const failure = hub.admin.createToken(body as never);
    await expect(failure).rejects.toMatchObject({ code: "EDGE_HUB_REFUSED" });
    expect(await hub.admin.tokens()).toEqual([]);
  });

  it("says 404 for what is not there", async () => {
    await expect(hub.admin.revokeToken("0123456789abcdef")).rejects.toMatchObject({ code: "EDGE_NOT_FOUND" });
    await expect(hub.admin.revokeMember("nobody")).rejects.toMatchObject({ code: "EDGE_NOT_FOUND" });
    await expect(hub.admin.removeMember("nobody")).rejects.toMatchObject({ code: "EDGE_NOT_FOUND" });
    await expect(hub.admin.approveMember("nobody")).rejects.toMatchObject({ code: "EDGE_NOT_FOUND" });
  });

  it("keeps an audit of tries to join, newest first", async () => {
    const { id, token } = await hub.admin.createToken({});
    await joinHub(token, joinOptions({ name: "pi-1" }));
    await joinHub(token, joinOptions()).catch(() => {});
    const audit = await hub.admin.audit();
    const joins = audit.filter((record) => record["event"] === "join");
    expect(joins).toMatchObject([{ result: "used-up", tokenId: id }, { result: "joined", member: "pi-1" }]);
  });
});

describe("the hub's log", () => {
  it("has no key, token or credential in it", async () => {
    const lines: string[] = [];
    const options = joinOptions({ log: makeLog(lines) });
    const { token } = await hub.admin.createToken({});
    await joinHub(token, options);
    await joinHub(token, joinOptions()).catch(() => {});
    await request({ method: "GET", path: "/v1/admin/status", headers: { authorization: "Bearer wrong-secret" } });
    const read = readToken(token);
    if (!("token" in read)) throw new Error("token cannot be read");
    const all = [...hub.lines, ...lines].join("\n");
    const secrets = [read.token.secret, options.deviceSecretKey, hub.keys.signSeed];
    const texts = [token, token.slice(4, 60), hub.keys.adminToken, "wrong-secret", "PRIVATE KEY"];
    for (const secret of secrets) texts.push(toHex(secret), toBase64(secret), String([...secret]));
    for (const text of texts) expect(all.includes(text), text.slice(0, 8)).toBe(false);
    expect(hub.lines.length).toBeGreaterThan(0);
  });
});

function post(path: string, body: string) {
  return { method: "POST", path, headers: { "content-type": "application/json" }, body };
}

/** A request whose body has no length in front. */
function chunked(path: string, parts: readonly string[]) {
  const headers = { "content-type": "application/json", "transfer-encoding": "chunked" };
  const body = [...parts, ""].map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join("");
  return { method: "POST", path, headers, body };
}

/** The state with some methods of another; private fields stay the original's. */
function overridden(state: HubState, methods: Partial<HubState>): HubState {
  return new Proxy(state, {
    get(target, name) {
      const own = methods[name as keyof HubState];
      if (own !== undefined) return own;
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

async function relayTo(to: TestHub): Promise<Relay> {
  const relay = await startRelay(to.server.port);
  cleanups.push(() => relay.close());
  return relay;
}

/** A server with a CA of its own that answers the first request with a CA certificate, and notes what it was asked. */
async function startImpostor(shownCa: (mine: { caPem: string }) => string) {
  const dir = mkdtempSync(join(tmpdir(), "edgemesh-impostor-"));
  const keys = await openHubKeys(dir);
  const { certPem, keyPem } = await keys.serverCertificate([], Date.now());
  const requests: string[] = [];
  const server = createServer({ cert: certPem, key: keyPem, minVersion: "TLSv1.3" }, (socket) => {
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk) => {
      requests.push(String(chunk).split("\r\n")[0]!);
      const ca = shownCa(keys);
      socket.end(`HTTP/1.1 200 OK\r\ncontent-length: ${ca.length}\r\n\r\n${ca}`);
    });
  });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanups.push(() => {
    server.close();
    rmSync(dir, { recursive: true, force: true });
  });
  return { endpoint: `127.0.0.1:${(server.address() as { port: number }).port}`, requests };
}

/** A sync stream without a proof. */
async function upgraded(to: TestHub): Promise<TLSSocket> {
  const socket = connectTlsSocket({
    host: "127.0.0.1",
    port: to.server.port,
    ca: to.keys.caPem,
    servername: "edgemesh-hub",
  });
  socket.on("error", () => {});
  socket.write("GET /v1/sync HTTP/1.1\r\nhost: edgemesh-hub\r\nconnection: Upgrade\r\nupgrade: edgemesh-sync\r\n\r\n");
  await new Promise((resolve) => socket.once("data", resolve));
  return socket;
}

function closed(socket: TLSSocket): Promise<void> {
  socket.resume();
  return new Promise((resolve) => {
    socket.once("end", () => socket.destroy());
    socket.once("close", () => resolve());
  });
}
