/**
 * The ways from member to member, over IPv4 and IPv6 underlays: VXLAN instead of Geneve, native, hybrid with a member that moves
 * while a connection is open, and without encryption. Counters of nft on the router tell what went over the wire.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { until } from "../../scripts/lab/lab.ts";
import { Mesh, TRAFFIC } from "./mesh.ts";

let mesh: Mesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

/** Counts datagrams that the router forwards, by destination port. */
async function countPorts(mesh: Mesh): Promise<(port: number) => Promise<number>> {
  await mesh.lab.shell(`
    nsenter --net=/run/netns/router nft -f - <<'END'
    table inet wire {
      chain forward {
        type filter hook forward priority 0;
        udp dport 51871 counter
        udp dport 6081 counter
        udp dport 8472 counter
      }
    }
END
  `);
  return async (port) => {
    const { stdout } = await mesh.lab.run("router", ["nft", "list", "table", "inet", "wire"]);
    return Number(new RegExp(`udp dport ${port} counter packets (\\d+)`).exec(stdout)?.[1]);
  };
}

async function modeOf(mesh: Mesh, from: string, to: string): Promise<string> {
  const { peers } = await mesh.agent(from).json(["peers"]);
  return peers.find((peer: { name: string; isHub: boolean }) => to === "hub" ? peer.isHub : peer.name === to)?.mode;
}

/** Every pair pings in both families; a bulk of TCP comes back whole; the largest packet passes. */
async function checkTraffic(mesh: Mesh, names: readonly string[]): Promise<void> {
  for (const from of names) {
    for (const to of names.filter((name) => name !== from)) {
      for (const family of [4, 6] as const) {
        const address = await mesh.address(to, family);
        await until(`${from} pings ${to} over IPv${family}`, () => mesh.pings(from, address));
      }
    }
  }
  const [from, to] = names as [string, string];
  const server = await mesh.serve(to, 8080);
  for (const family of [4, 6] as const) {
    const address = await mesh.address(to, family);
    const done = await mesh.lab.run(from, [...TRAFFIC, "send", address, "8080", "20"], { timeoutMs: 60_000 });
    expect(done.code, done.stdout + done.stderr).toBe(0);
  }
  await server.stop();
  const { device } = await mesh.agent(from).json(["status"]);
  const largest = ["ping", "-c1", "-W2", "-M", "do", "-s", String(device.mtuBytes - 28), await mesh.address(to)];
  expect((await mesh.lab.run(from, largest)).code).toBe(0);
}

async function joinAll(mesh: Mesh, ...names: string[]): Promise<void> {
  for (const name of names) await mesh.join(name);
}

describe.each([4, 6] as const)("over an IPv%i underlay", (underlay) => {
  it.each(
    [
      ["tunnel", "geneve"],
      ["tunnel", "vxlan"],
      ["native", "geneve"],
    ] as const,
  )("%s with %s carries everything inside WireGuard", async (mode, tunnelProtocol) => {
    const flags = ["--routing-mode", mode, "--tunnel-protocol", tunnelProtocol];
    mesh = await Mesh.start(["a", "b"], { underlay, flags });
    const packets = await countPorts(mesh);
    await joinAll(mesh, "a", "b");
    await checkTraffic(mesh, ["a", "b", "hub"]);
    const { routing, health, peers } = await mesh.agent("a").json(["status"]);
    expect(routing).toEqual({ mode, tunnelProtocol, encryption: "wireguard", network: "" });
    expect(health).toEqual([]);
    expect(peers.withSession).toBe(2);
    expect(await modeOf(mesh, "a", "b")).toBe(mode);
    expect(await packets(51871)).toBeGreaterThan(1000);
    expect([await packets(6081), await packets(8472)]).toEqual([0, 0]);
  }, 120_000);

  it.each(["geneve", "vxlan"] as const)("%s without encryption is plain, and says so", async (tunnelProtocol) => {
    const flags = ["--encryption", "none", "--tunnel-protocol", tunnelProtocol];
    mesh = await Mesh.start(["a", "b"], { underlay, flags });
    const packets = await countPorts(mesh);
    await joinAll(mesh, "a", "b");
    expect(mesh.agent("a").process!.log()).toContain("warning: this mesh does NOT ENCRYPT its traffic");
    await checkTraffic(mesh, ["a", "b", "hub"]);
    const [port, other] = tunnelProtocol === "geneve" ? [6081, 8472] : [8472, 6081];
    expect(await packets(port)).toBeGreaterThan(1000);
    expect([await packets(51871), await packets(other)]).toEqual([0, 0]);
    const status = await mesh.agent("a").json(["status"]);
    expect(status.health.map(({ code }: { code: string }) => code)).toEqual(["unencrypted"]);
    expect(status).toMatchObject({ state: "degraded", routing: { encryption: "none" } });
    expect(await mesh.agent("a").ask(["status"])).toMatch(/2 peers, NOT ENCRYPTED[\s\S]*Routing: .*NOT ENCRYPTED/);
    expect((await mesh.agent("a").http("/readyz")).status).toBe(200);
    const { peers } = await mesh.agent("a").json(["peers"]);
    for (const peer of peers) expect(peer).toMatchObject({ state: "unencrypted", lastHandshake: null });
  }, 120_000);
});

it("hybrid is native inside a network, and switches a member that moves while its connections stay open", async () => {
  mesh = await Mesh.start(["a", "b", "c"], { flags: ["--routing-mode", "hybrid", "--network", "lan"] });
  const lab = mesh.lab;
  await mesh.join("a", "--network", "lan");
  await mesh.join("b", "--network", "lan");
  const settings = join(mesh.agent("c").node.dir, "settings.yaml");
  writeFileSync(settings, "network: wan\n");
  await mesh.join("c", "--config", settings);
  await checkTraffic(mesh, ["a", "b", "c", "hub"]);
  expect(await modeOf(mesh, "a", "b")).toBe("native");
  expect(await modeOf(mesh, "b", "hub")).toBe("native");
  expect([await modeOf(mesh, "a", "c"), await modeOf(mesh, "c", "a")]).toEqual(["tunnel", "tunnel"]);

  const server = await mesh.serve("c", 8081);
  const held = lab.start("a", "held", [...TRAFFIC, "hold", await mesh.address("c"), "8081"]);
  await held.saw(/echo 5$/m);
  for (const [network, mode] of [["lan", "native"], ["wan", "tunnel"]] as const) {
    const before = Number(/echo (\d+)\s*$/.exec(held.log())![1]);
    writeFileSync(settings, `network: ${network}\n`);
    mesh.agent("c").process!.signal("SIGHUP");
    const m = mesh;
    await until(
      `a and c are ${mode}`,
      async () => await modeOf(m, "a", "c") === mode && await modeOf(m, "c", "a") === mode,
      30_000,
      () => m.agent("c").process!.log(),
    );
    expect((await mesh.agent("c").json(["status"])).routing.network).toBe(network);
    expect([await modeOf(mesh, "a", "b"), await modeOf(mesh, "b", "c")]).toEqual(["native", mode]);
    await held.saw(new RegExp(`echo ${before + 30}$`, "m"));
  }
  expect(held.exitCode).toBeUndefined();
  for (const name of ["a", "c"]) {
    const { traffic } = await mesh.agent(name).json(["status"]);
    expect(traffic.ingressDrops).toEqual({});
  }
  await server.stop();
}, 150_000);

it("without encryption, a tunnel port that is taken is named, and taken over when it is free", async () => {
  mesh = await Mesh.start(["a"], { flags: ["--encryption", "none"] });
  const { lab } = mesh;
  const blocker = lab.start("a", "blocker", [...TRAFFIC, "udp-serve", "6081"]);
  await blocker.saw(/ready/);
  mesh.startJoin("a", await mesh.token());
  const m = mesh;
  const healthOf = async (): Promise<{ code: string; text: string }[]> => {
    const done = await m.agent("a").cli(["status", "-o", "json"]);
    return done.code === 0 ? JSON.parse(done.stdout).health : [];
  };
  await until(
    "a says why its datapath is down",
    async () =>
      (await healthOf()).some(({ code, text }) => code === "datapath-down" && /UDP port 6081.*EADDRINUSE/.test(text)),
  );
  await blocker.stop();
  const address = await mesh.address("hub");
  await until("a reaches the hub", () => m.pings("a", address), 60_000, () => m.agent("a").process!.log());
  expect((await healthOf()).map(({ code }) => code)).toEqual(["unencrypted"]);
}, 120_000);

describe("a hub", () => {
  it("does not start with settings that do not fit, and says which", async () => {
    mesh = await Mesh.start([]);
    const done = await mesh.hub.cli(["hub", "run", "--routing-mode", "native", "--encryption", "none"]);
    expect(done.code).not.toBe(0);
    expect(done.stderr).toMatch(/mode native needs encryption wireguard/);
  }, 60_000);
});
