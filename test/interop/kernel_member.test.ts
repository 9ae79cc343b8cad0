/**
 * Our arm64 program on Debian's arm64 kernel (`machine.ts`): it joins a hub outside the machine and answers ping through the mesh.
 */
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { answered, reaches } from "../../scripts/lab/peers.ts";
import { Mesh } from "../netns/mesh.ts";
import { Machine } from "./machine.ts";

const ROOT = join(import.meta.dirname, "..", "..");

let mesh: Mesh;
let machine: Machine;
beforeAll(async () => {
  mesh = await Mesh.start(["k"]);
  machine = await Machine.create(mesh.lab);
}, 120_000);
afterAll(() => mesh?.close());

it(
  "our arm64 program on an arm64 kernel joins a hub outside the machine, answers ping through the mesh, and pings back",
  async () => {
    const { share } = machine;
    copyFileSync(join(ROOT, "dist/edgemesh-linux-arm64"), join(share, "edgemesh"));
    writeFileSync(join(share, "token"), await mesh.token(), { mode: 0o600 });
    const toHub = await mesh.address("hub");
    machine.boot(`
      cp /share/edgemesh /tmp/edgemesh   # 9p cannot map a program
      export EDGEMESH_STATE_DIR=/tmp/state EDGEMESH_SOCKET=/tmp/agent.sock
      /tmp/edgemesh version --verbose
      /tmp/edgemesh join @/share/token --name board >/share/agent.log 2>&1 &
      until /tmp/edgemesh status --wait --timeout 60s >/share/status.tmp 2>&1; do kill -0 $!; sleep 1; done
      mv /share/status.tmp /share/status
      ping -c 5 -W 5 ${toHub} >/share/ping.tmp && mv /share/ping.tmp /share/ping
      until [ -e /share/done ]; do sleep 0.3; done
      kill -TERM $!; wait $! && echo agent ended in order
    `);
    await machine.appears("status");
    const board = (await mesh.hub.json(["peers"])).peers.find(({ name }: { name: string }) => name === "board");
    const address = board.addresses[0].split("/")[0];
    const address6 = board.addresses[1].split("/")[0];
    await reaches(mesh.lab, "hub", address, 30_000);
    await reaches(mesh.lab, "hub", address6, 30_000);
    expect(await answered(mesh.lab, "hub", address, 10)).toBe(10);
    expect(await machine.appears("ping", 60_000)).toContain(" 0% packet loss");
    const { code, output } = await machine.finish();
    expect(code, output).toBe(0);
    expect(output).toMatch(/arm64/);
    expect(output).toContain("agent ended in order");
  },
  300_000,
);
