/**
 * Offloads that are switched while packets flow, and answers that come from the address that was spoken to, with members as
 * processes: a -- router -- b.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Lab, until } from "../../scripts/lab/lab.ts";
import { type End, makeEnd, reaches, startFromMesh } from "../../scripts/lab/peers.ts";
import type { Agent } from "../../scripts/lab/program.ts";
import { Mesh, TRAFFIC } from "./mesh.ts";

const OFFLOADS = ["tunTso", "tunUso", "tcpMerge", "udpMerge", "udpSegment", "udpGro"] as const;
const MEGABYTES = 16;

let lab: Lab;
let a: End, b: End;
async function makeLab(): Promise<void> {
  lab = await Lab.create(["a", "b"]);
  [a, b] = [await makeEnd(lab, "a", 1), await makeEnd(lab, "b", 2)];
}

async function offloadOf(agent: Agent): Promise<readonly string[]> {
  const { device } = await agent.json(["status"]);
  return OFFLOADS.map((name) => device.offload[name]);
}

/** Sends a bulk both ways, in both families, and compares what came. */
async function checkBulk(): Promise<void> {
  for (const [from, to] of [[a, b], [b, a]] as const) {
    for (const address of [to.mesh4, to.mesh6]) {
      const sent = await lab.run(from.name, [...TRAFFIC, "send", address, "9000", String(MEGABYTES)]);
      expect(sent.stdout.trim(), sent.stderr).toBe(`same ${MEGABYTES << 20}`);
    }
  }
}

async function serveBoth(): Promise<void> {
  for (const name of ["a", "b"]) await lab.start(name, "serve", [...TRAFFIC, "serve", "9000", name]).saw(/^ready$/m);
}

/** Where a member sends what is for a peer. */
async function endpointOf(agent: Agent, name: string): Promise<string> {
  const { peers } = await agent.json(["peers"]);
  return peers.find((peer: { name: string }) => peer.name === name).underlayAddr;
}

describe("offloads", () => {
  beforeEach(makeLab);
  afterEach(() => lab.close());

  it("are switched by SIGHUP, one by one, and the traffic goes on", async () => {
    const settings = join(lab.node("b").dir, "settings.yaml");
    writeFileSync(settings, "offload: auto\n");
    const onA = await startFromMesh(lab, a, [{ end: b, endpoint: `${lab.node("b").ip4}:51871` }]);
    const onB = await startFromMesh(lab, b, [{ end: a }], { flags: ["--config", settings] });
    await reaches(lab, "a", b.mesh4);
    await serveBoth();
    await checkBulk();
    const all = await offloadOf(onB);
    for (const fact of all) expect(fact).toMatch(/^on/);
    const off = "off, by configuration";
    for (
      const [words, expected] of [
        ["no-udp-gso,no-udp-gro", [...all.slice(0, 4), off, off]],
        ["no-tcp-merge,no-udp-merge", [all[0], all[1], off, off, all[4], all[5]]],
        ["udp-gso, udp-gro, tcp-merge", [off, off, all[2], off, all[4], all[5]]],
        ["none", OFFLOADS.map(() => off)],
        ["auto", all],
      ] as const
    ) {
      writeFileSync(settings, `offload: ${words}\n`);
      onB.process!.signal("SIGHUP");
      await until(
        `b has its offloads at "${words}"`,
        async () => JSON.stringify(await offloadOf(onB)) === JSON.stringify(expected),
        10_000,
        () => onB.process!.log(),
      );
      await checkBulk();
    }
    expect((await onA.json(["status"])).traffic.ingressDrops).not.toHaveProperty("BAD_TAG");
    expect(onB.process!.log()).toContain("offload-changed");
  }, 120_000);

  it("stay off where the member started without, and say that they need a restart", async () => {
    const settings = join(lab.node("b").dir, "settings.yaml");
    writeFileSync(settings, "offload: none\n");
    await startFromMesh(lab, a, [{ end: b, endpoint: `${lab.node("b").ip4}:51871` }]);
    const onB = await startFromMesh(lab, b, [{ end: a }], { flags: ["--config", settings] });
    await reaches(lab, "a", b.mesh4);
    await serveBoth();
    await checkBulk();
    writeFileSync(settings, "offload: auto\n");
    onB.process!.signal("SIGHUP");
    await until("b has what it can have", async () => {
      const [tso, , , merge, gso, gro] = await offloadOf(onB);
      return tso!.startsWith("off until a restart") && tso === merge && gso!.startsWith("on") && gro!.startsWith("on");
    });
    await checkBulk();
  }, 60_000);
});

it("offloads of a hub's member are switched by SIGHUP too", async () => {
  const dir = mkdtempSync(join(tmpdir(), "edgemesh-offload-"));
  const settings = join(dir, "settings.yaml");
  writeFileSync(settings, "offload: no-udp-gro\n");
  const mesh = await Mesh.start([], { flags: ["--config", settings] });
  try {
    expect((await offloadOf(mesh.hub)).at(-1)).toBe("off, by configuration");
    writeFileSync(settings, "offload: no-tcp-merge\n");
    mesh.hub.process!.signal("SIGHUP");
    await until("the hub's member has switched", async () => {
      const facts = await offloadOf(mesh.hub);
      return facts[2] === "off, by configuration" && facts.at(-1) === "on";
    });
  } finally {
    await mesh.close();
    rmSync(dir, { recursive: true });
  }
}, 60_000);

describe("a member with two addresses", () => {
  beforeEach(makeLab);
  afterEach(() => lab.close());

  it.each([4, 6] as const)("answers over IPv%d from the one that was spoken to, until it is gone", async (family) => {
    const first = family === 4 ? lab.node("b").ip4 : lab.node("b").ip6;
    const second = family === 4 ? "10.71.2.9" : "fd71:0:0:2::9";
    const endpoint = (address: string) => family === 4 ? `${address}:51871` : `[${address}]:51871`;
    await lab.shell(
      family === 4
        ? `ip -n b addr add ${second}/24 dev eth0`
        : `ip -n b addr add ${second}/64 dev eth0 nodad preferred_lft 0`,
    );
    const onA = await startFromMesh(lab, a, [{ end: b, endpoint: endpoint(second) }]);
    const onB = await startFromMesh(lab, b, [{ end: a }]);
    await reaches(lab, "a", b.mesh4);
    await serveBoth();
    await checkBulk();
    // whoever answers from elsewhere has moved there: a would send to it
    expect(await endpointOf(onA, "b")).toBe(endpoint(second));
    await lab.shell(`ip -n b addr del ${second}/${family === 4 ? 24 : 64} dev eth0`);
    await reaches(lab, "b", a.mesh4); // b speaks, from any address, and a follows
    await checkBulk();
    expect(await endpointOf(onA, "b")).toBe(endpoint(first));
    const { device, traffic } = await onB.json(["status"]);
    expect(device.offload.udpSegment).toBe("on"); // the source was to blame, not the run
    expect(traffic.egressDrops).not.toHaveProperty("UNDERLAY_SEND");
  }, 60_000);
});
