/**
 * The arm64 program, run by qemu's user mode on this machine's kernel: every system call, structure and cipher of it is exercised by
 * carrying traffic to the x64 program. What needs an arm64 kernel is in `kernel_member.test.ts`.
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "../../scripts/lab/lab.ts";
import { answered, makeEnd, makePsk, reaches, startFromMesh } from "../../scripts/lab/peers.ts";
import { Agent } from "../../scripts/lab/program.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const TRAFFIC = ["node", join(ROOT, "scripts/lab/traffic.mjs")];

let lab: Lab;
let onArm64: readonly string[];
beforeAll(async () => {
  const sysroot = execFileSync(join(ROOT, "test/interop/kernel/machine"), ["sysroot"], { encoding: "utf8" }).trim();
  onArm64 = ["qemu-aarch64-static", "-L", sysroot, join(ROOT, "dist/edgemesh-linux-arm64")];
  lab = await Lab.create(["a", "b"]);
});
afterAll(() => lab?.close());

describe("the arm64 program", () => {
  it("says its version and its CPU", async () => {
    const version = await new Agent(lab, "a", onArm64).json(["version", "--verbose"]);
    expect(version).toMatchObject({ cpu: "arm64" });
    expect(version.version).toBe((await new Agent(lab, "b").json(["version"])).version);
  });

  it("carries pings, TCP and UDP to the x64 program and back, over IPv4 and IPv6", async () => {
    const [a, b] = [await makeEnd(lab, "a", 1), await makeEnd(lab, "b", 2)];
    const psk = await makePsk(lab);
    const agent = await startFromMesh(lab, a, [{ end: b, psk }], { command: onArm64 });
    const other = await startFromMesh(lab, b, [{ end: a, psk, endpoint: `${lab.node("a").ip4}:51871` }]);
    await reaches(lab, "b", a.mesh4);
    await reaches(lab, "a", b.mesh6);
    expect(await answered(lab, "a", b.mesh4, 20, 0.05)).toBe(20);
    await lab.start("b", "serve", [...TRAFFIC, "serve", "9000", "b"]).saw(/^ready$/m);
    await lab.start("b", "udp-serve", [...TRAFFIC, "udp-serve", "5300"]).saw(/^ready$/m);
    for (const address of [b.mesh4, b.mesh6]) {
      const sent = await lab.run("a", [...TRAFFIC, "send", address, "9000", "8"]);
      expect(sent.stdout.trim()).toBe(`same ${8 << 20}`);
      expect((await lab.run("a", [...TRAFFIC, "udp", address, "5300", "1200"])).stdout.trim()).toBe("echo");
    }
    await lab.start("a", "serve", [...TRAFFIC, "serve", "9001", "a"]).saw(/^ready$/m);
    const back = await lab.run("b", [...TRAFFIC, "send", a.mesh4, "9001", "8"]);
    expect(back.stdout.trim()).toBe(`same ${8 << 20}`);
    const { device, state } = await agent.json(["status"]);
    expect(state).toBe("ready");
    expect(device.isUp).toBe(true);
    expect(agent.process!.log()).not.toMatch(/ERROR|crash/i);
    expect(await agent.process!.stop()).toBe(0);
    expect(await other.process!.stop()).toBe(0);
  });

  it("opens what the x64 program seals with AEGIS-128L, and seals with it only if that is faster here", async () => {
    const [a, b] = [await makeEnd(lab, "a", 3), await makeEnd(lab, "b", 4)];
    const aeads = ["aegis128l", "aes256gcm"];
    const agent = await startFromMesh(lab, a, [{ end: b }], { command: onArm64, aeads });
    const other = await startFromMesh(lab, b, [{ end: a, endpoint: `${lab.node("a").ip4}:51871` }], { aeads });
    await reaches(lab, "b", a.mesh4);
    expect(await answered(lab, "b", a.mesh4, 20, 0.05)).toBe(20);
    const { device } = await agent.json(["status"]);
    const [toA, toB] = [(await other.json(["peers"])).peers[0].aead, (await agent.json(["peers"])).peers[0].aead];
    const x64 = (await other.json(["status"])).device.offload.memberAeads;
    expect(toA).toBe(x64.split(", ")[0] || "chacha20poly1305");
    // qemu's AES is slower than its ChaCha20: the self-test's answers are right, and the measurement says no
    expect(device.offload.memberAead).toMatch(/aegis128l (is only )?[0-9.]+x/);
    expect(toB).toBe(device.offload.memberAeads.split(", ")[0] || "chacha20poly1305");
    expect(await agent.process!.stop()).toBe(0);
    expect(await other.process!.stop()).toBe(0);
  });
});
