/**
 * HTTP rules with real packets: member a asks member b, which has rules for what comes in; then a has rules for what goes out. What
 * the server sees of its client, what `observe` shows, and what happens to a connection whose rule goes away.
 */
import { join } from "node:path";
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Running, until } from "../../scripts/lab/lab.ts";
import { Mesh } from "./mesh.ts";

const PORT = 8080;
/** Answers with method, path and who it believes to talk to. */
const SERVER = `
const server = require("node:http").createServer((request, response) => {
  let octets = 0;
  request.on("data", (chunk) => octets += chunk.length);
  request.on("end", () => response.end([request.method, request.url, request.socket.remoteAddress, octets].join(" ")));
});
server.listen(${PORT}, "::", () => console.log("ready"));
`;

let mesh: Mesh;
let server: Running;

beforeAll(async () => {
  mesh = await Mesh.start(["a", "b"]);
  await mesh.join("a", "--label", "app=client");
  await mesh.join("b", "--label", "app=web");
  const file = join(mesh.agent("b").node.dir, "server.cjs");
  writeFileSync(file, SERVER);
  server = mesh.lab.start("b", "server", ["node", file]);
  await server.saw(/^ready$/m);
}, 120_000);

afterAll(async () => {
  await server?.stop();
  await mesh?.close();
});

/** A policy of one member. */
function policy(name: string, app: string, spec: string): string {
  return `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: ${name}, namespace: default }
spec:
  endpointSelector: { matchLabels: { app: ${app} } }
${spec}
`;
}

const rules = (direction: "ingress" | "egress", http: string) =>
  `  ${direction}:\n    - toPorts: [{ ports: [{ port: "${PORT}", protocol: TCP }], rules: { http: ${http} } }]`;

/** Status and text of one request from a. */
async function ask(family: 4 | 6, path: string, ...more: string[]): Promise<string> {
  const address = await mesh.address("b", family);
  const host = family === 6 ? `[${address}]` : address;
  const argv = ["curl", "-s", "-g", "-m", "4", "-w", " %{http_code}", ...more, `http://${host}:${PORT}${path}`];
  return (await mesh.lab.run("a", argv)).stdout.trim();
}

const answers = (what: string, family: 4 | 6, path: string, expected: RegExp) =>
  until(what, async () => expected.test(await ask(family, path)), 15_000);

describe("HTTP rules", () => {
  it("of ingress let through what they say, with the client's own address, and answer 403 to the rest", async () => {
    await mesh.apply(policy("in", "web", rules("ingress", '[{ method: "GET|PUT", path: "/public/.*" }]')));
    await answers("a rule on the way in", 4, "/secret", / 403$/);
    for (const family of [4, 6] as const) {
      const from = await mesh.address("a", family);
      expect(await ask(family, "/public/x")).toMatch(new RegExp(`^GET /public/x (::ffff:)?${from} 0 200$`));
      expect(await ask(family, "/secret")).toMatch(
        /^Access denied\s+No HTTP rule of CiliumNetworkPolicy\/default\/in /,
      );
      expect(await ask(family, "/public/../secret", "--path-as-is")).toMatch(/ 403$/);
      expect(await ask(family, "/public/x", "-X", "DELETE")).toMatch(/ 403$/);
      const big = await ask(family, "/public/big", "-T", process.execPath);
      expect(big).toMatch(/^PUT \/public\/big \S+ [1-9][0-9]{6,} 200$/);
    }
  }, 60_000);

  it("are shown by observe, with what they decided", async () => {
    const shown = await mesh.agent("b").ask(["observe", "--protocol", "http", "--all"]);
    expect(shown).toMatch(
      /edge1\/a:\d+ \(ID:\d+\) -> edge1\/b:8080 \(ID:\d+\) http-response FORWARDED \(HTTP\/1\.1 200 /,
    );
    expect(shown).toMatch(/http-request DROPPED \(HTTP\/1\.1 403 \(GET http:\/\/[^/]+\/secret\); No HTTP rule of /);
    const dropped = await mesh.agent("b").ask([
      "observe",
      "--verdict",
      "DROPPED",
      "--http-status",
      "403",
      "-o",
      "json",
      "--last",
      "1",
    ]);
    expect(JSON.parse(dropped).flow).toMatchObject({ verdict: "DROPPED", Type: "L7", traffic_direction: "INGRESS" });
  }, 30_000);

  it("that go away leave the port to what else is said, and open connections with it", async () => {
    await mesh.apply(
      policy("in", "web", `  ingress:\n    - toPorts: [{ ports: [{ port: "${PORT}", protocol: TCP }] }]`),
    );
    await answers("no rule for HTTP", 4, "/secret", / 200$/);
    await mesh.apply(policy("in", "web", `  ingress:\n    - toPorts: [{ ports: [{ port: "1", protocol: TCP }] }]`));
    await answers("a port that is closed", 4, "/public/x", /^000$/);
    await mesh.hub.ask(["delete", "CiliumNetworkPolicy", "in", "-n", "default"]);
    await answers("no policy", 4, "/secret", / 200$/);
  }, 60_000);

  it("of egress are kept by the member that asks", async () => {
    await mesh.apply(policy("out", "client", rules("egress", '[{ path: "/ok" }]')));
    await answers("a rule on the way out", 4, "/secret", / 403$/);
    for (const family of [4, 6] as const) {
      expect(await ask(family, "/ok")).toMatch(/^GET \/ok \S+ 0 200$/);
      expect(await ask(family, "/secret")).toMatch(/CiliumNetworkPolicy\/default\/out /);
    }
    const shown = await mesh.agent("a").ask([
      "observe",
      "--traffic-direction",
      "egress",
      "--http-path",
      "^/ok$",
      "-o",
      "wide",
    ]);
    expect(shown).toMatch(/FORWARDED .* by CiliumNetworkPolicy\/default\/out spec\.egress\[0\]/);
  }, 60_000);
});
