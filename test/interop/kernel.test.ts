/**
 * A whole arm64 machine: Debian's kernel under qemu (`kernel/machine`), reached through a tap.
 *
 *   hub 10.71.1.2 ---- router ---- 10.71.2.2 k  tap0 10.71.100.1 ==== eth0 10.71.100.2 [the machine]
 *
 * First our arm64 program runs in it and joins a hub outside. Then Linux's own WireGuard and Geneve devices are the peer of our
 * program outside: nothing but the kernel's code on the other end.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pause, type Running, tail, until } from "../../scripts/lab/lab.ts";
import { answered, type End, makeEnd, makePsk, reaches, startFromMesh } from "../../scripts/lab/peers.ts";
import { Mesh } from "../netns/mesh.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const MACHINE = join(ROOT, "test/interop/kernel/machine");
const GUEST = "10.71.100.2";
/** Emulated, the program takes its time to start. */
const BOOT_MS = 150_000;

const NETWORK = `
set -eu
ip addr add ${GUEST}/24 dev eth0
ip link set eth0 up
ip route add default via 10.71.100.1
`;

let mesh: Mesh;

beforeAll(async () => {
  mesh = await Mesh.start(["k"]);
  await mesh.lab.shell(`
    ip -n k tuntap add tap0 mode tap
    ip -n k addr add 10.71.100.1/24 dev tap0
    ip -n k link set tap0 up
    nsenter --net=/run/netns/k sysctl -qw net.ipv4.ip_forward=1
    ip -n router route add 10.71.100.0/24 via ${mesh.lab.node("k").ip4}
  `);
}, 120_000);
afterAll(() => mesh?.close());

/** A folder that the machine sees as /share; files in it are how both sides tell each other how far they are. */
function makeShare(name: string): string {
  const share = join(mesh.lab.node("k").dir, name);
  mkdirSync(share);
  return share;
}

function boot(share: string, script: string): Running {
  const file = join(share, "guest.sh");
  writeFileSync(file, `${NETWORK}${script}`);
  const machine = mesh.lab.start("k", `machine-${share.split("/").at(-1)}`, [
    ...[MACHINE, "run", "--tap", "tap0", "--share", share, "--memory", "1024", "--timeout", "280", file],
  ], { env: { EDGEMESH_CACHE: process.env["EDGEMESH_CACHE"] ?? "" } });
  return machine;
}

async function appears(share: string, name: string, machine: Running, timeoutMs = BOOT_MS): Promise<string> {
  const file = join(share, name);
  const evidence = (): string =>
    `${tail(machine.log())}\n${
      existsSync(join(share, "agent.log")) ? tail(readFileSync(join(share, "agent.log"), "utf8")) : ""
    }`;
  await until(
    `the machine writes "${name}"`,
    () => {
      if (machine.exitCode !== undefined) throw new Error(`the machine ended with ${machine.exitCode}:\n${evidence()}`);
      return existsSync(file);
    },
    timeoutMs,
    evidence,
  );
  return readFileSync(file, "utf8").trim();
}

describe("our arm64 program on Debian's arm64 kernel", () => {
  it("joins a hub outside the machine, answers ping through the mesh, and pings back", async () => {
    const share = makeShare("member");
    copyFileSync(join(ROOT, "dist/edgemesh-linux-arm64"), join(share, "edgemesh"));
    writeFileSync(join(share, "token"), await mesh.token(), { mode: 0o600 });
    const toHub = await mesh.address("hub");
    const machine = boot(
      share,
      `
      cp /share/edgemesh /tmp/edgemesh   # 9p cannot map a program
      export EDGEMESH_STATE_DIR=/tmp/state EDGEMESH_SOCKET=/tmp/agent.sock
      /tmp/edgemesh version
      /tmp/edgemesh join @/share/token --name board >/share/agent.log 2>&1 &
      until /tmp/edgemesh status --wait --timeout 60s >/share/status.tmp 2>&1; do kill -0 $!; sleep 1; done
      mv /share/status.tmp /share/status
      ping -c 5 -W 5 ${toHub} >/share/ping.tmp && mv /share/ping.tmp /share/ping
      until [ -e /share/done ]; do sleep 0.3; done
      kill -TERM $!; wait $! && echo agent ended in order
      `,
    );
    await appears(share, "status", machine);
    const board = (await mesh.hub.json(["peers"])).peers.find(({ name }: { name: string }) => name === "board");
    const address = board.addresses[0].split("/")[0];
    const address6 = board.addresses[1].split("/")[0];
    await reaches(mesh.lab, "hub", address, 30_000);
    await reaches(mesh.lab, "hub", address6, 30_000);
    expect(await answered(mesh.lab, "hub", address, 10)).toBe(10);
    expect(await appears(share, "ping", machine, 60_000)).toContain(" 0% packet loss");
    writeFileSync(join(share, "done"), "");
    expect(await machine.ended).toBe(0);
    expect(machine.log()).toMatch(/arm64|aarch64/);
    expect(machine.log()).toContain("agent ended in order");
  }, 300_000);
});

describe("Linux's own WireGuard and Geneve", () => {
  it("are a peer: handshake with PSK, pings of both families and every size, both ways", async () => {
    const share = makeShare("kernel");
    const { lab } = mesh;
    await lab.addNode("o");
    const ours: End = await makeEnd(lab, "o", 1);
    const kernel: End = await makeEnd(lab, "k", 2);
    const psk = await makePsk(lab);
    writeFileSync(join(share, "key"), kernel.privateKey, { mode: 0o600 });
    writeFileSync(join(share, "psk"), psk, { mode: 0o600 });
    await startFromMesh(lab, ours, [{ end: kernel, psk, endpoint: `${GUEST}:51871` }]);
    const machine = boot(
      share,
      `
      ip link add wg0 type wireguard
      wg set wg0 listen-port 51871 private-key /share/key peer ${ours.publicKey} preshared-key /share/psk allowed-ips ${ours.underlay}/32 \
        endpoint ${lab.node("o").ip4}:51871
      ip addr add ${kernel.underlay}/32 dev wg0
      ip link set wg0 mtu 1420 up
      ip route add ${ours.underlay}/32 dev wg0
      # the VNI is the sender's identity, so it differs by direction: the device takes it from each route, as Cilium's does.
      # Cilium accepts any inner MAC; plain Linux delivers what is for the device's own, which we send.
      ip link add gen0 address 00:02:00:00:00:01 type geneve external
      ip link set gen0 mtu 1355 up
      ip addr add ${kernel.mesh4}/32 dev gen0
      ip addr add ${kernel.mesh6}/128 dev gen0 nodad
      ip route add ${ours.mesh4}/32 encap ip id ${kernel.identity} dst ${ours.underlay} dev gen0 src ${kernel.mesh4}
      ip -6 route add ${ours.mesh6}/128 encap ip id ${kernel.identity} dst ${ours.underlay} dev gen0 src ${kernel.mesh6}
      ip neigh add ${ours.mesh4} lladdr 02:00:00:00:00:01 dev gen0
      ip -6 neigh add ${ours.mesh6} lladdr 02:00:00:00:00:01 dev gen0
      touch /share/ready
      ping -c 10 -i 0.3 -W 5 ${ours.mesh4} >/share/ping.tmp && ping -c 5 -i 0.3 -W 5 ${ours.mesh6} >>/share/ping.tmp && mv /share/ping.tmp /share/ping
      until [ -e /share/done ]; do sleep 0.3; done
      wg show wg0 latest-handshakes; wg show wg0 transfer
      ip -s link show gen0
      `,
    );
    await appears(share, "ready", machine);
    await reaches(lab, "o", kernel.mesh4, 30_000);
    await reaches(lab, "o", kernel.mesh6, 30_000);
    for (const size of [0, 1, 500, 1200, 1355 - 28]) {
      expect(
        (await lab.run("o", ["ping", "-c1", "-W5", "-M", "do", "-s", String(size), kernel.mesh4])).code,
        `${size} octets`,
      ).toBe(0);
    }
    expect(await answered(lab, "o", kernel.mesh4, 10)).toBe(10);
    expect(await appears(share, "ping", machine, 60_000)).toMatch(/10 received[\s\S]*5 received/);
    await pause(100);
    writeFileSync(join(share, "done"), "");
    expect(await machine.ended).toBe(0);
    expect(Number(/\t(\d{9,})/.exec(machine.log())?.[1])).toBeGreaterThan(1_000_000_000);
  }, 300_000);
});
