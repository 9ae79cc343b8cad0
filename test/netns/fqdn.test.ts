/**
 * Learned names with real packets: member a may reach, outside the mesh, only what one name stands for. The outside is an address
 * that its mesh file puts behind member b, as a gateway would be; that b does not know it does not matter here: what counts is
 * whether a lets the packet go.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { Lab, type Running, until } from "../../scripts/lab/lab.ts";
import { Agent } from "../../scripts/lab/program.ts";
import { DnsPrograms, NEW_ADDRESS } from "./dns_programs.ts";

const WORLD = 2;
const NAME_SERVER = "10.9.0.2";

let lab: Lab;
let programs: DnsPrograms;
let server: Running;
let a: Agent;

beforeAll(async () => {
  lab = await Lab.create(["a", "b"]);
  const nodes = await Promise.all(["a", "b"].map(nodeOf));
  for (const [i, name] of ["a", "b"].entries()) {
    const { privateKeyFile, publicKey: _publicKey, endpoint: _endpoint, ...own } = nodes[i]!;
    const { privateKeyFile: _private, ...peer } = nodes[1 - i]!;
    const file = {
      node: { ...own, privateKeyFile, listenPort: 51871 },
      peers: [peer],
      ips: name === "a" ? [{ prefix: `${NEW_ADDRESS}/32`, identity: WORLD, peer: "b" }] : [],
      policies: name === "a" ? [POLICY] : [],
    };
    writeFileSync(join(lab.node(name).dir, "mesh.yaml"), stringify(file));
  }
  a = new Agent(lab, "a");
  await run(a);
  await run(new Agent(lab, "b"));
  programs = new DnsPrograms(lab);
  server = await programs.serve("b");
}, 60_000);

afterAll(async () => {
  await server?.stop();
  await lab?.close();
});

const POLICY = {
  apiVersion: "cilium.io/v2",
  kind: "CiliumNetworkPolicy",
  metadata: { name: "names", namespace: "default" },
  spec: {
    endpointSelector: { matchLabels: { app: "a" } },
    egress: [
      {
        toEndpoints: [{ matchLabels: { app: "b" } }],
        toPorts: [{ ports: [{ port: "53", protocol: "ANY" }], rules: { dns: [{ matchPattern: "*" }] } }],
      },
      { toFQDNs: [{ matchName: "new.example.com" }] },
    ],
  },
};

async function nodeOf(name: string, index: number) {
  const { stdout: key } = await lab.run(name, ["wg", "genkey"]);
  const { stdout: publicKey } = await lab.run(name, ["wg", "pubkey"], { input: key });
  const privateKeyFile = join(lab.node(name).dir, "wg.key");
  writeFileSync(privateKeyFile, key, { mode: 0o600 });
  return {
    name,
    addresses: [`10.9.0.${index + 1}/32`],
    labels: { app: name },
    privateKeyFile,
    publicKey: publicKey.trim(),
    endpoint: `${lab.node(name).ip4}:51871`,
  };
}

async function run(agent: Agent): Promise<Running> {
  const running = agent.start(["run", "--mesh", join(agent.node.dir, "mesh.yaml")]);
  await until(
    `${agent.node.name} is ready`,
    async () => (await agent.cli(["status", "--wait", "--timeout", "5s"])).code === 0,
    20_000,
    () => running.log(),
  );
  return running;
}

/** What a does with a packet to the outside. */
async function fate(): Promise<string> {
  await lab.run("a", ["ping", "-c1", "-W1", NEW_ADDRESS]);
  return await a.ask(["observe", "--to-ip", NEW_ADDRESS, "--last", "1"]);
}

describe("a name that toFQDNs mentions", () => {
  it("opens its addresses once it was asked for, and other names open nothing", async () => {
    await lab.run("a", ["ip", "route", "replace", NEW_ADDRESS, "dev", "edgemesh0"]);
    expect(await fate()).toMatch(/Policy denied/i);
    expect(await programs.ask("a", NAME_SERVER, "news.example.com")).toBe(`1 ${NEW_ADDRESS}`);
    expect(await fate()).toMatch(/Policy denied/i);
    expect(await programs.ask("a", NAME_SERVER, "New.Example.com")).toBe(`1 ${NEW_ADDRESS}`);
    expect(await fate()).toMatch(/FORWARDED/);
  }, 60_000);

  it("is known after a restart, without being asked for", async () => {
    await a.process!.stop();
    await server.stop();
    await run(a);
    await lab.run("a", ["ip", "route", "replace", NEW_ADDRESS, "dev", "edgemesh0"]);
    expect(await fate()).toMatch(/FORWARDED/);
  }, 60_000);
});
