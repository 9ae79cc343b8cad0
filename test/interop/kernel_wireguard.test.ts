/**
 * Linux's own WireGuard and Geneve devices as the peer of our program: nothing but the kernel's code on the other end. The kernel is
 * Debian's, for arm64, in a machine of its own (`machine.ts`), since this one's may have neither device.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Lab } from "../../scripts/lab/lab.ts";
import { answered, makeEnd, makePsk, reaches, startFromMesh } from "../../scripts/lab/peers.ts";
import { Machine, MACHINE_ADDRESS } from "./machine.ts";

let lab: Lab;
let machine: Machine;
beforeAll(async () => {
  lab = await Lab.create(["o", "k"]);
  machine = await Machine.create(lab);
});
afterAll(() => lab?.close());

it(
  "Linux's own WireGuard and Geneve are a peer: handshake with PSK, pings of both families and every size, both ways",
  async () => {
    const { share } = machine;
    const ours = await makeEnd(lab, "o", 1);
    const kernel = await makeEnd(lab, "k", 2);
    const psk = await makePsk(lab);
    writeFileSync(join(share, "key"), kernel.privateKey, { mode: 0o600 });
    writeFileSync(join(share, "psk"), psk, { mode: 0o600 });
    await startFromMesh(lab, ours, [{ end: kernel, psk, endpoint: `${MACHINE_ADDRESS}:51871` }]);
    machine.boot(`
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
    `);
    await machine.appears("ready");
    await reaches(lab, "o", kernel.mesh4, 30_000);
    await reaches(lab, "o", kernel.mesh6, 30_000);
    for (const size of [0, 1, 500, 1200, 1355 - 28]) {
      expect(
        (await lab.run("o", ["ping", "-c1", "-W5", "-M", "do", "-s", String(size), kernel.mesh4])).code,
        `${size} octets`,
      ).toBe(0);
    }
    expect(await answered(lab, "o", kernel.mesh4, 10)).toBe(10);
    expect(await machine.appears("ping", 60_000)).toMatch(/10 received[\s\S]*5 received/);
    const { code, output } = await machine.finish();
    expect(code, output).toBe(0);
    expect(Number(/\t(\d{9,})/.exec(output)?.[1])).toBeGreaterThan(1_000_000_000); // of the last handshake, Unix seconds
  },
  300_000,
);
