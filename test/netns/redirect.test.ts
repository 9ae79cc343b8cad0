/**
 * Flows through a proxy on a real machine: Linux has to take the packets of the proxy addresses (reverse path filter and log of martian
 * addresses on), hand them to a program, and take back what that program sends. Two members; `a` has a relay in the place of a proxy,
 * `b` is edgemesh from a mesh file. The relay passes everything on, so the two ends must not notice it.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { Lab, type Running } from "../../scripts/lab/lab.ts";
import { type End, makeEnd, startFromMesh } from "../../scripts/lab/peers.ts";
import { formUnderTest } from "../../scripts/lab/program.ts";
import { proxyClientAddress, proxyServerAddress } from "../../src/datapath/proxy_addresses.ts";
import type { TestRule } from "../fakes/mesh_node.ts";
import { TRAFFIC } from "./mesh.ts";
import type { RelayConfig } from "./relay_member.ts";

const form = formUnderTest();
const PORT = 8080;

let lab: Lab | undefined;
afterEach(async () => {
  await lab?.close();
  lab = undefined;
});

/** What TCP and UDP of `PORT` need: a proxy. Everything else is allowed. */
const RULES: readonly TestRule[] = [
  { identity: 0, protocol: 6, port: PORT, verdict: "http" },
  { identity: 0, protocol: 17, port: PORT, verdict: "dns" },
];

async function startRelay(lab: Lab, a: End, b: End, rules: RelayConfig["rules"], offload: boolean): Promise<Running> {
  const config: RelayConfig = {
    privateKey: a.privateKey,
    addresses: [a.mesh4, a.mesh6],
    underlay: a.underlay,
    identity: a.identity,
    offload,
    peer: {
      publicKey: b.publicKey,
      endpoint: `${lab.node("b").ip4}:${b.port}`,
      underlay: b.underlay,
      addresses: [b.mesh4, b.mesh6],
      identity: b.identity,
    },
    rules,
  };
  const program = join(import.meta.dirname, "relay_member.ts");
  const runtime = form === "bun" ? [process.env["BUN"]!] : [process.env["DENO"]!, "run", "--no-lock", "--quiet", "-A"];
  const relay = lab.start("a", "relay", [...runtime, program, JSON.stringify(config)]);
  await relay.saw(/^ready$/m);
  return relay;
}

/** TCP in small and in bulk, a page that names its reader, and UDP: from `client` to `server`. */
async function checkTraffic(lab: Lab, client: End, server: End): Promise<void> {
  for (const address of [server.mesh4, server.mesh6]) {
    const url = `http://${address.includes(":") ? `[${address}]` : address}:${PORT}/`;
    const page = await lab.run(client.name, ["curl", "-s", "-g", "-m", "5", url]);
    const own = address.includes(":") ? client.mesh6 : client.mesh4;
    expect(page.stdout).toBe(`hello from ${server.name} to ${own}\n`);
    const bulk = await lab.run(client.name, [...TRAFFIC, "send", address, String(PORT), "20"], { timeoutMs: 60_000 });
    expect(bulk.stdout, bulk.stderr).toMatch(/^same /);
    for (const octets of [1, 1200, 4000]) {
      const done = await lab.run(client.name, [...TRAFFIC, "udp", address, String(PORT), String(octets)]);
      expect(done.stdout.trim(), `${octets} octets to ${address}`).toBe(octets > 1300 ? "silence" : "echo");
    }
  }
}

/** Programs of other users must not reach servers past the proxy: they are refused at once, not left waiting (28). */
async function checkGuard(lab: Lab, relay: Running): Promise<void> {
  const hasUsers = readFileSync("/proc/self/uid_map", "utf8").includes("4294967295");
  if (!hasUsers) return; // a lab made without root has one user only
  expect(relay.log()).toMatch(/^guard on$/m);
  for (const address of [proxyServerAddress(4), `[${proxyServerAddress(6)}]`]) {
    const nobody = ["setpriv", "--reuid", "65534", "--clear-groups"];
    const done = await lab.run("a", [...nobody, "curl", "-s", "-g", "-m", "2", `http://${address}:40000/`]);
    expect(done.code).toBe(7);
  }
}

/** A container's packets are forwarded, and come with our own address where it is masqueraded: they must not reach the proxy's ends. */
async function checkForwarded(lab: Lab): Promise<void> {
  const container =
    "ip link add docker9 type veth peer name inside9 && ip link set inside9 up && ip addr add 172.31.9.1/24 dev docker9 && " +
    "ip -6 addr add fd31:9::1/64 dev docker9 nodad && ip link set docker9 up && " +
    "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
  expect((await lab.run("a", ["sh", "-c", container])).code).toBe(0);
  for (const family of [4, 6] as const) {
    const from = family === 4 ? "172.31.9.2" : "fd31:9::2";
    for (const address of [proxyClientAddress(family), proxyServerAddress(family)]) {
      const own = await lab.run("a", ["ip", "route", "get", address]);
      expect(own.stdout).toContain("dev edgemesh0");
      const route = await lab.run("a", ["ip", "route", "get", address, "from", from, "iif", "docker9"]);
      expect(route.stdout).not.toContain("dev edgemesh0");
    }
  }
}

/** A compiled program has no relay to run. */
describe.skipIf(form === "binary")("flows through a proxy", () => {
  it.each(
    [
      ["egress", true],
      ["egress", false],
      ["ingress", true],
      ["ingress", false],
    ] as const,
  )("%s, offload %s: both ends see each other, and the relay sees all", async (direction, offload) => {
    lab = await Lab.create(["a", "b"]);
    for (const name of ["a", "b"]) {
      const strict = "for f in all default; do sysctl -qw net.ipv4.conf.$f.rp_filter=1; done";
      expect((await lab.run(name, ["sh", "-c", strict])).code).toBe(0);
    }
    const a = await makeEnd(lab, "a", 1), b = await makeEnd(lab, "b", 2);
    await startFromMesh(lab, b, [{ end: a, endpoint: `${lab.node("a").ip4}:${a.port}` }]);
    const rules = direction === "egress" ? { egress: RULES } : { ingress: RULES };
    const relay = await startRelay(lab, a, b, rules, offload);
    const [client, server] = direction === "egress" ? [a, b] : [b, a];
    const serve = lab.start(server.name, "serve", [...TRAFFIC, "serve", String(PORT), server.name]);
    const udpServe = lab.start(server.name, "udp-serve", [...TRAFFIC, "udp-serve", String(PORT)]);
    await serve.saw(/^ready$/m);
    await udpServe.saw(/^ready$/m);
    await checkTraffic(lab, client, server);
    await checkGuard(lab, relay);
    await checkForwarded(lab);
    await checkTraffic(lab, client, server);
    await relay.stop();
    expect((await lab.run("a", ["ip", "rule", "show"])).stdout).not.toContain("169.254.101.");
    const log = relay.log();
    for (const protocol of [6, 17]) {
      for (const [from, to] of [[client.mesh4, server.mesh4], [client.mesh6, server.mesh6]]) {
        const side = `${direction === "egress" ? 1 : 0} ${b.identity}`;
        expect(log).toMatch(new RegExp(`^flow ${protocol} ${side} ${from} \\d+ ${to} ${PORT}$`, "m"));
      }
    }
    const flows = JSON.parse(/^flows (.*)$/m.exec(log)![1]!);
    expect(flows).toContainEqual(expect.objectContaining({ direction, isRedirected: true, destinationPort: PORT }));
  }, 120_000);
});
