/**
 * Members whose datapath has two Workers (`--datapath-workers 2`), as processes: a -- router -- b. The same traffic as with one,
 * offloads switched while it runs, a peer that is born again, and ends after which nothing is left.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Lab, until } from "../../scripts/lab/lab.ts";
import { answered, type End, makeEnd, reaches, startFromMesh } from "../../scripts/lab/peers.ts";
import type { Agent } from "../../scripts/lab/program.ts";
import { TRAFFIC } from "./mesh.ts";

const FLAGS = ["--datapath-workers", "2"];
const MEGABYTES = 32;

let lab: Lab;
let a: End, b: End;
beforeEach(async () => {
  lab = await Lab.create(["a", "b"]);
  [a, b] = [await makeEnd(lab, "a", 1), await makeEnd(lab, "b", 2)];
});
afterEach(() => lab.close());

async function start(flagsOfB = FLAGS, aeads: readonly string[] = []): Promise<[Agent, Agent]> {
  const onB = await startFromMesh(lab, b, [{ end: a, endpoint: `${lab.node("a").ip4}:51871` }], {
    flags: flagsOfB,
    aeads,
  });
  const onA = await startFromMesh(lab, a, [{ end: b, endpoint: `${lab.node("b").ip4}:51871` }], {
    flags: FLAGS,
    aeads,
  });
  await reaches(lab, "a", b.mesh4);
  return [onA, onB];
}

/** Bulk both ways, compared, and a datagram that comes back. */
async function checkTraffic(): Promise<void> {
  for (const [from, to] of [[a, b], [b, a]] as const) {
    for (const address of [to.mesh4, to.mesh6]) {
      const sent = await lab.run(from.name, [...TRAFFIC, "send", address, "9000", String(MEGABYTES)]);
      expect(sent.stdout.trim(), sent.stderr).toBe(`same ${MEGABYTES << 20}`);
    }
    expect((await lab.run(from.name, [...TRAFFIC, "udp", to.mesh4, "5300", "1300"])).stdout.trim()).toBe("echo");
  }
}

async function serve(): Promise<void> {
  for (const name of ["a", "b"]) {
    await lab.start(name, "serve", [...TRAFFIC, "serve", "9000", name]).saw(/^ready$/m);
    await lab.start(name, "udp-serve", [...TRAFFIC, "udp-serve", "5300"]).saw(/^ready$/m);
  }
}

async function hasTun(name: string): Promise<boolean> {
  return (await lab.run(name, ["ip", "link", "show", "dev", "edgemesh0"])).code === 0;
}

async function expectNoBadTags(...agents: Agent[]): Promise<void> {
  for (const agent of agents) {
    expect((await agent.json(["status"])).traffic.ingressDrops).not.toHaveProperty("BAD_TAG");
  }
}

describe("a datapath of two Workers", () => {
  it.each([[["aegis128l", "aes256gcm"]], [[]]])(
    "carries what one carries, sealed with %j where the CPU can",
    async (aeads) => {
      const [onA, onB] = await start(FLAGS, aeads);
      await serve();
      await checkTraffic();
      expect(await answered(lab, "a", b.mesh6, 20, 0.05)).toBe(20);
      for (const agent of [onA, onB]) expect((await agent.json(["status"])).device.datapathWorkers).toBe(2);
      expect((await onA.cli(["status"])).stdout).toContain("2 datapath Workers");
      await expectNoBadTags(onA, onB);
    },
  );

  it("speaks with one of one Worker, which comes back with other keys", async () => {
    const [onA, onB] = await start([]);
    expect((await onB.json(["status"])).device.datapathWorkers).toBe(1);
    await serve();
    await checkTraffic();
    await onB.process!.stop();
    await startFromMesh(lab, b, [{ end: a, endpoint: `${lab.node("a").ip4}:51871` }], { flags: FLAGS });
    await reaches(lab, "b", a.mesh4);
    await checkTraffic();
    await expectNoBadTags(onA);
  });

  it("switches offloads while it runs", async () => {
    const settings = join(lab.node("b").dir, "settings.yaml");
    writeFileSync(settings, "offload: auto\ndatapath-workers: 2\n");
    const [, onB] = await start(["--config", settings]);
    await serve();
    const segmentOf = async () => (await onB.json(["status"])).device.offload.udpSegment;
    expect(await segmentOf()).toMatch(/^on/);
    for (const [words, expected] of [["none", /^off, by configuration/], ["auto", /^on/]] as const) {
      writeFileSync(settings, `offload: ${words}\ndatapath-workers: 2\n`);
      onB.process!.signal("SIGHUP");
      await until(
        `offloads are ${words}`,
        async () => expected.test(await segmentOf()),
        10_000,
        () => onB.process!.log(),
      );
      await checkTraffic();
    }
  });

  it("leaves nothing behind, stopped or killed, and refuses other numbers", async () => {
    const [onA, onB] = await start();
    expect(await onA.process!.stop()).toBe(0);
    onB.process!.signal("SIGKILL");
    for (const name of ["a", "b"]) await until(`no device is left on ${name}`, async () => !await hasTun(name), 5000);
    const refused = await onA.cli(["run", "--mesh", "mesh.yaml", "--datapath-workers", "3"]);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain("must be one of 1, 2");
  });
});
