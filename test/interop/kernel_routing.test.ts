/**
 * Linux's own devices as the peer in every routing mode: Geneve and VXLAN, inside WireGuard and plain, and bare inside WireGuard,
 * each over IPv4 and IPv6 underlays; full-size packets, and TCP with the kernel's offloads, both ways. One machine (`machine.ts`)
 * goes through all of them: both sides tell each other by files where they are.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, type Running } from "../../scripts/lab/lab.ts";
import { type End, makeEnd, makePsk, reaches, startFromMesh } from "../../scripts/lab/peers.ts";
import { Machine, MACHINE_ADDRESS, MACHINE_ADDRESS6 } from "./machine.ts";

interface Way {
  readonly name: string;
  readonly mode: "tunnel" | "native";
  readonly protocol: "geneve" | "vxlan";
  readonly encryption: "wireguard" | "none";
  readonly family: 4 | 6;
}

const WAYS: readonly Way[] = ([4, 6] as const).flatMap((family) => [
  ...(["geneve", "vxlan"] as const).flatMap((protocol) =>
    (["wireguard", "none"] as const).map((encryption): Way => ({
      name: `${protocol} ${encryption === "none" ? "without encryption" : "inside WireGuard"}, IPv${family}`,
      mode: "tunnel",
      protocol,
      encryption,
      family,
    }))
  ),
  { name: `bare inside WireGuard, IPv${family}`, mode: "native", protocol: "geneve", encryption: "wireguard", family },
]);

/** TCP octets each way and family: emulated, the machine takes its time. */
const BULK = "4M";

let lab: Lab;
let machine: Machine;
let ours: End;
let kernel: End;
let psk: string;
let server: Running;
beforeAll(async () => {
  lab = await Lab.create(["o", "k"]);
  machine = await Machine.create(lab);
  ours = await makeEnd(lab, "o", 1);
  kernel = await makeEnd(lab, "k", 2);
  psk = await makePsk(lab);
  writeFileSync(join(machine.share, "key"), kernel.privateKey, { mode: 0o600 });
  writeFileSync(join(machine.share, "psk"), psk, { mode: 0o600 });
  server = lab.start("o", "iperf3", ["iperf3", "-s"]);
  machine.boot(WAYS.map(guestScript).join("\n") + "ethtool -k eth0 | grep -E 'tx-tcp|udp_tnl|generic-seg'\n", 900);
}, 120_000);
afterAll(async () => {
  await server?.stop();
  await lab?.close();
});

/** Outer addresses: the machines' own where nothing else is around the tunnel. */
function underlaysOf({ encryption, family }: Way): { ours: string; kernel: string } {
  const node = lab.node("o");
  if (encryption === "none") {
    return family === 4 ? { ours: node.ip4, kernel: MACHINE_ADDRESS } : { ours: node.ip6, kernel: MACHINE_ADDRESS6 };
  }
  return family === 4 ? { ours: "172.31.0.1", kernel: "172.31.0.2" } : { ours: "fd31::1", kernel: "fd31::2" };
}

/** Octets of the inner packet: what our agent gives its device with that underlay. */
const mtuOf = ({ family }: Way): number => (family === 4 ? 1355 : 1335);

const hostLength = (address: string): string => `${address}/${address.includes(":") ? 128 : 32}`;

function guestScript(way: Way, i: number): string {
  const { mode, encryption, family } = way;
  const underlays = underlaysOf(way);
  const node = lab.node("o");
  const device = mode === "native" ? "wg0" : "tun0";
  return `
    until [ -e /share/go-${i} ]; do sleep 0.2; done
    ${encryption === "wireguard" ? wireguardLines(way, family === 4 ? node.ip4 : `[${node.ip6}]`) : ""}
    ${mode === "tunnel" ? tunnelLines(way, underlays.ours) : ""}
    touch /share/ready-${i}
    traffic() {
      ping -c 5 -i 0.3 -W 5 ${ours.mesh4} &&
        ping -c 5 -i 0.3 -W 5 ${ours.mesh6} &&
        ping -c 1 -W 5 -M do -s ${mtuOf(way) - 28} ${ours.mesh4} &&
        ping -c 1 -W 5 -M do -s ${mtuOf(way) - 48} ${ours.mesh6} || return 1
      for to in ${ours.mesh4} ${ours.mesh6}; do
        iperf3 -c $to -n ${BULK} -f k && iperf3 -c $to -n ${BULK} -f k -R || return 1
      done
      echo all good
    }
    traffic >/share/result-${i}.tmp 2>&1 || true
    ip -s link show ${device} >>/share/result-${i}.tmp
    mv /share/result-${i}.tmp /share/result-${i}
    until [ -e /share/next-${i} ]; do sleep 0.2; done
    ${mode === "tunnel" ? "ip link del tun0" : ""}
    ${encryption === "wireguard" ? "ip link del wg0" : ""}
  `;
}

function wireguardLines(way: Way, endpoint: string): string {
  const { ours: outer, kernel: own } = underlaysOf(way);
  const isNative = way.mode === "native";
  const allowed = isNative ? [ours.mesh4, ours.mesh6] : [outer];
  const addresses = isNative ? [kernel.mesh4, kernel.mesh6] : [own];
  return [
    "ip link add wg0 type wireguard",
    `wg set wg0 listen-port 51871 private-key /share/key peer ${ours.publicKey} preshared-key /share/psk ` +
    `allowed-ips ${allowed.map(hostLength).join(",")} endpoint ${endpoint}:51871`,
    ...addresses.map((address) => `ip addr add ${hostLength(address)} dev wg0 ${address.includes(":") ? "nodad" : ""}`),
    `ip link set wg0 mtu ${isNative ? mtuOf(way) : 1430} up`,
    ...allowed.map((address) => `ip route add ${hostLength(address)} dev wg0`),
  ].join("\n    ");
}

function tunnelLines(way: Way, outer: string): string {
  const [encap, hops] = way.family === 4 ? ["ip", "ttl"] : ["ip6", "hoplimit"]; // 0 otherwise: no router would pass it on
  const type = way.protocol === "geneve" ? "geneve external" : "vxlan external dstport 8472";
  // The VNI is the sender's identity; the device takes it from each route, as Cilium's does. Plain Linux delivers what is for the
  // device's own MAC address, which is the one that we send to.
  return [
    `ip link add tun0 address 00:02:00:00:00:01 type ${type}`,
    `ip link set tun0 mtu ${mtuOf(way)} up`,
    `ip addr add ${kernel.mesh4}/32 dev tun0`,
    `ip addr add ${kernel.mesh6}/128 dev tun0 nodad`,
    ...[[ours.mesh4, kernel.mesh4], [ours.mesh6, kernel.mesh6]].flatMap(([to, from]) => [
      `ip route add ${
        hostLength(to!)
      } encap ${encap} id ${kernel.identity} dst ${outer} ${hops} 64 dev tun0 src ${from}`,
      `ip neigh add ${to} lladdr 02:00:00:00:00:01 dev tun0`,
    ]),
  ].join("\n    ");
}

describe("Linux's own devices are a peer", () => {
  it.each(WAYS.map((way, i) => [way.name, way, i] as const))("%s", async (_, way, i) => {
    const underlays = underlaysOf(way);
    const endpoint = way.family === 4 ? `${MACHINE_ADDRESS}:51871` : `[${MACHINE_ADDRESS6}]:51871`;
    const peer = { end: { ...kernel, underlay: underlays.kernel }, psk, endpoint };
    const agent = await startFromMesh(lab, { ...ours, underlay: underlays.ours }, [peer], {
      routing: `mode: ${way.mode}, tunnelProtocol: ${way.protocol}, encryption: ${way.encryption}`,
    });
    try {
      writeFileSync(join(machine.share, `go-${i}`), "");
      await machine.appears(`ready-${i}`);
      await reaches(lab, "o", kernel.mesh4, 30_000);
      await reaches(lab, "o", kernel.mesh6, 30_000);
      for (const size of [0, 1, 500, mtuOf(way) - 28]) {
        const done = await lab.run("o", ["ping", "-c1", "-W5", "-M", "do", "-s", String(size), kernel.mesh4]);
        expect(done.code, `${size} octets`).toBe(0);
      }
      const result = await machine.appears(`result-${i}`, 120_000);
      expect(result).toContain("all good");
      expect(result.match(/5 received/g)?.length, result).toBe(2);
      const { traffic, device, routing } = await agent.json(["status"]);
      expect(device.mtuBytes).toBe(mtuOf(way));
      expect(routing).toMatchObject({ mode: way.mode, encryption: way.encryption });
      expect(traffic.ingressDrops).toEqual({});
      const { peers } = await agent.json(["peers"]);
      expect(peers[0].lastHandshake === null).toBe(way.encryption === "none");
    } finally {
      writeFileSync(join(machine.share, `next-${i}`), "");
      await agent.process!.stop();
    }
  }, 240_000);

  it("with its offloads on, and nothing of it failed", async () => {
    const { code, output } = await machine.finish();
    expect(code, output).toBe(0);
    expect(output).toMatch(/generic-segmentation-offload: on/);
    expect(output).toMatch(/tx-tcp-segmentation: on/);
  }, 60_000);
});
