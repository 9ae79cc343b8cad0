/**
 * Policies about the outside, on packets: a network behind a gateway that is not ours (Debian's wireguard-go and a Geneve endpoint
 * that says "world" in the VNI) has a name server and two web servers. CIDR rules tell its addresses apart; FQDN rules open what the
 * DNS proxy saw an answer for, and nothing else.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, type Running, until } from "../../scripts/lab/lab.ts";
import { type End, makeEnd, WireguardGo } from "../../scripts/lab/peers.ts";
import { Agent } from "../../scripts/lab/program.ts";

const SCRIPTS = join(import.meta.dirname, "../../scripts/lab");
const TRAFFIC = [process.execPath, join(SCRIPTS, "traffic.mjs")];
const DNS = [process.execPath, join(SCRIPTS, "dns_server.mjs")];

const WORLD = 2;
const NAME_SERVER = "192.0.2.53";
const [DB, OTHER] = ["192.0.2.7", "192.0.2.8"];

let lab: Lab;
let agent: Agent;
let gateway: WireguardGo;
let nameServer: Running;
let self: End;

beforeAll(async () => {
  lab = await Lab.create(["a", "gw"]);
  self = await makeEnd(lab, "a", 1);
  const gw = { ...await makeEnd(lab, "gw", 2), identity: WORLD };
  gateway = new WireguardGo(lab, gw);
  await gateway.start({ end: self, endpoint: `${lab.node("a").ip4}:51871` });
  for (const address of [NAME_SERVER, DB, OTHER]) await gateway.ip("addr", "add", `${address}/32`, "dev", "mesh0");
  nameServer = lab.start("gw", "dns", [...DNS, NAME_SERVER, `db.example=${DB}`, `other.example=${OTHER}`]);
  await nameServer.saw(/^ready$/m);
  for (const port of ["80", "443"]) {
    await lab.start("gw", `serve-${port}`, [...TRAFFIC, "serve", port, "gw"]).saw(/^ready$/m);
  }
  agent = new Agent(lab, "a");
  writeFileSync(join(agent.node.dir, "own.key"), `${self.privateKey}\n`, { mode: 0o600 });
  bring("");
  const running = agent.start(["run", "--mesh", meshFile()]);
  await until("the outside is reached without a policy", () => reaches(DB, 80), 20_000, () => running.log());
});
afterAll(() => lab?.close());

function meshFile(): string {
  return join(agent.node.dir, "mesh.yaml");
}

/** Writes the mesh file with this policy; "" for none. */
function bring(egress: string): void {
  const { dir } = agent.node;
  writeFileSync(
    meshFile(),
    `
node:
  name: a
  cluster: { name: edge1, id: 1 }
  privateKeyFile: own.key
  addresses: [${self.mesh4}/32]
  underlay: ${self.underlay}
  listenPort: ${self.port}
  identity: ${self.identity}
  labels: { app: client }
peers:
  - name: gw
    cluster: { name: edge1, id: 1 }
    underlay: ${gateway.self.underlay}
    publicKey: ${gateway.self.publicKey}
    endpoint: ${lab.node("gw").ip4}:51871
    addresses: [10.9.0.2/32]
    labels: { app: gateway }
ips: [{ prefix: 192.0.2.0/24, peer: gw, identity: 9 }]
policies: [policy.yaml]
`,
  );
  const document = egress === "" ? "" : `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: outside, namespace: default }
spec:
  endpointSelector: {}
  egress:
${egress}
`;
  writeFileSync(join(dir, "policy.yaml"), document);
}

/** The same for a member that runs; waits until the policy is in force. */
async function change(egress: string): Promise<void> {
  const before = (await agent.json(["status"])).policy.revision;
  bring(egress);
  agent.process!.signal("SIGHUP");
  await until("the policy is in force", async () => (await agent.json(["status"])).policy.revision > before);
}

async function reaches(address: string, port: number): Promise<boolean> {
  return (await lab.run("a", ["curl", "-s", "-m", "1", `http://${address}:${port}/`])).code === 0;
}

/** Asks the name server, as any program does. @returns an address, or the code of the refusal */
async function resolve(name: string, server = NAME_SERVER): Promise<string> {
  const script = `
const { Resolver } = require("node:dns");
const resolver = new Resolver({ timeout: 1500, tries: 2 });
resolver.setServers(["${server}"]);
resolver.resolve4("${name}", (error, addresses) => console.log(error ? error.code : addresses[0]));
`;
  return (await lab.run("a", [process.execPath, "-e", script])).stdout.trim();
}

const ALLOW_DNS = (pattern: string) => `
    - toCIDR: [${NAME_SERVER}/32]
      toPorts:
        - ports: [{ port: "53", protocol: ANY }]
          rules: { dns: [{ matchPattern: "${pattern}" }] }
`;

describe("CIDR rules", () => {
  it("tell addresses of a network behind a gateway apart", async () => {
    await change(`    - toCIDR: [${DB}/32]\n      toPorts: [{ ports: [{ port: "80" }] }]`);
    expect(await reaches(DB, 80)).toBe(true);
    expect(await reaches(DB, 443)).toBe(false);
    expect(await reaches(OTHER, 80)).toBe(false);
  });

  it("have holes", async () => {
    await change(`    - toCIDRSet: [{ cidr: 192.0.2.0/24, except: [${OTHER}/32] }]`);
    expect(await reaches(DB, 80)).toBe(true);
    expect(await reaches(OTHER, 80)).toBe(false);
  });
});

describe("FQDN rules", () => {
  beforeAll(() => change(`${ALLOW_DNS("*.example")}    - toFQDNs: [{ matchName: db.example }]`));

  it("open an address when an answer names it, and not before", async () => {
    expect(await reaches(DB, 443)).toBe(false);
    expect(await resolve("db.example")).toBe(DB);
    expect(await reaches(DB, 443)).toBe(true);
  });

  it("open nothing for a name that may be asked for and is in no rule", async () => {
    expect(await resolve("other.example")).toBe(OTHER);
    expect(await reaches(OTHER, 443)).toBe(false);
  });

  it("refuse a name that may not be asked for, before the server hears of it", async () => {
    expect(await resolve("secret.test")).toBe("EREFUSED");
    expect(nameServer.log()).toContain("asked db.example");
    expect(nameServer.log()).not.toContain("asked secret.test");
    expect(await agent.ask(["observe", "--last", "100"])).toContain("secret.test");
  });

  it("keep what was learned over a restart", async () => {
    await agent.process!.stop();
    const running = agent.start(["run", "--mesh", meshFile()]);
    await until("the learned address is open again", () => reaches(DB, 443), 20_000, () => running.log());
    expect(await reaches(OTHER, 443)).toBe(false);
  });

  it("hold for the local resolver too, which learns from what it is answered", async () => {
    await agent.process!.stop();
    const flags = ["--dns-listen", "127.0.0.9:53", "--dns-upstream", NAME_SERVER];
    const running = agent.start(["run", "--mesh", meshFile(), ...flags]);
    await until(
      "the resolver answers",
      async () => (await resolve("db.example", "127.0.0.9")) === DB,
      20_000,
      () => running.log(),
    );
    expect(await resolve("secret.test", "127.0.0.9")).toBe("EREFUSED");
    await change(`${ALLOW_DNS("*")}    - toFQDNs: [{ matchPattern: "o*.example" }]`);
    expect(await reaches(OTHER, 443)).toBe(false);
    expect(await resolve("other.example", "127.0.0.9")).toBe(OTHER);
    expect(await reaches(OTHER, 443)).toBe(true);
  });

  it("close with the rule, also what is open", async () => {
    await change(ALLOW_DNS("*"));
    expect(await reaches(OTHER, 443)).toBe(false);
  });
});
