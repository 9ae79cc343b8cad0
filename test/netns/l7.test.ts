/**
 * HTTP rules on packets: a policy lets some requests through and answers others with 403, at the server (ingress) and at the client
 * (egress), over both families; programs notice nothing of the proxy but that. The dry run and the flow list tell about it.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../../scripts/lab/lab.ts";
import { Mesh, TRAFFIC } from "./mesh.ts";

let mesh: Mesh;

beforeAll(async () => {
  mesh = await Mesh.start(["a", "b"]);
  mesh.startJoin("a", await mesh.token("--label", "app=client"));
  mesh.startJoin("b", await mesh.token("--label", "app=web"));
  await Promise.all([mesh.isUp("a"), mesh.isUp("b")]);
  await mesh.serve("b", 80);
  await mesh.serve("b", 81);
});
afterAll(() => mesh?.close());

/** Status and body of one request from a to b; status 0 when nothing was answered. */
async function get(path: string, options: { family?: 4 | 6; port?: number; args?: readonly string[] } = {}) {
  const { family = 4, port = 80, args = [] } = options;
  const address = await mesh.address("b", family);
  const host = family === 6 ? `[${address}]` : address;
  const url = `http://${host}:${port}${path}`;
  const done = await mesh.lab.run("a", ["curl", "-s", "-g", "-m", "3", "-w", "\n%{http_code}", ...args, url]);
  const cut = done.stdout.lastIndexOf("\n");
  return { status: Number(done.stdout.slice(cut + 1)), body: done.stdout.slice(0, cut) };
}

function policy(name: string, app: string, direction: "ingress" | "egress", path: string): string {
  const peer = direction === "ingress" ? "from" : "to";
  return `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: ${name}, namespace: default }
spec:
  endpointSelector: { matchLabels: { app: ${app} } }
  ${direction}:
    - ${peer}Endpoints: [{}]
      toPorts:
        - ports: [{ port: "80", protocol: TCP }]
          rules: { http: [{ method: GET, path: "${path}" }] }
`;
}

describe.each(["ingress", "egress"] as const)("HTTP rules on %s", (direction) => {
  const member = direction === "ingress" ? "b" : "a";
  const app = direction === "ingress" ? "web" : "client";

  beforeAll(async () => {
    await mesh.apply(policy("http", app, direction, "/public(/.*)?"));
    await until("the policy is in force", async () => (await get("/secret")).status === 403);
  });
  afterAll(async () => {
    await mesh.hub.ask(["delete", "CiliumNetworkPolicy", "http", "-n", "default"]);
    await until("the policy is gone", async () => (await get("/secret")).status === 200);
  });

  it("let the requests through that they name, with their own addresses", async () => {
    const from = await mesh.address("a");
    expect(await get("/public")).toEqual({ status: 200, body: `hello from b to ${from}\n` });
    expect((await get("/public/x?y=1")).status).toBe(200);
    expect((await get("/public", { family: 6 })).body).toContain(await mesh.address("a", 6));
  });

  it("answer the others with 403 and say which policy has the rules", async () => {
    const { status, body } = await get("/secret");
    expect(status).toBe(403);
    expect(body).toContain("Access denied");
    expect(body).toContain("http");
    expect((await get("/public", { args: ["-X", "DELETE"] })).status).toBe(403);
    expect((await get("/secret", { family: 6 })).status).toBe(403);
  });

  it("leave other ports to the rest of the policy", async () => {
    expect((await get("/public", { port: 81 })).status).toBe(0);
  });

  it("refuse what is not HTTP", async () => {
    const done = await mesh.lab.run("a", [...TRAFFIC, "send", await mesh.address("b"), "80", "1"]);
    expect(done.code).not.toBe(0);
  });

  it("show in the member's flows", async () => {
    const lines = (await mesh.agent(member).ask(["observe", "--last", "200", "-o", "json"])).trim().split("\n");
    const flows = lines.map((line) => JSON.parse(line));
    const text = JSON.stringify(flows);
    expect(text).toContain("/secret");
    expect(text).toContain("403");
    expect(await mesh.agent(member).ask(["observe", "--last", "200", "--http-status", "403"])).toContain("/secret");
  });
});

describe("a dry run", () => {
  it("names the connection that a change would cut, and cuts nothing", async () => {
    const to = await mesh.address("b");
    const held = mesh.lab.start("a", "hold", [...TRAFFIC, "hold", to, "81"]);
    await held.saw(/^echo 3$/m);
    const file = join(mesh.hub.node.dir, "closed.yaml");
    writeFileSync(file, policy("closed", "web", "ingress", "/"));
    const shown = await mesh.hub.ask(["apply", "-f", file, "--dry-run"]);
    expect(shown).toMatch(/b .*:?81/);
    expect(shown).toContain("POLICY_DENIED");
    const count = /echo (\d+)\n?$/.exec(held.log().trim())![1];
    await held.saw(new RegExp(`^echo ${Number(count) + 5}$`, "m"));
    await held.stop();
  });
});
