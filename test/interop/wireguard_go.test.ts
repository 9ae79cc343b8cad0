/**
 * Debian's wireguard-go as the other end of a tunnel, in both roles: handshake with PSK, IPv4 and IPv6, small packets and
 * bulk TCP both ways, roaming of either side, persistent keepalive. `peers.ts` draws the two ends.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Lab, until } from "../../scripts/lab/lab.ts";
import type { Agent } from "../../scripts/lab/program.ts";
import {
  answered,
  type End,
  makeEnd,
  makePsk,
  PYTHON,
  reaches,
  startFromMesh,
  WireguardGo,
} from "../../scripts/lab/peers.ts";

let lab: Lab;
let ours: End;
let theirs: End;
let psk: string;
let agent: Agent | undefined;
let other: WireguardGo | undefined;

beforeAll(async () => {
  lab = await Lab.create(["a", "w"]);
  ours = await makeEnd(lab, "a", 1);
  theirs = await makeEnd(lab, "w", 2);
  psk = await makePsk(lab);
});
afterEach(async () => {
  await agent?.process?.stop();
  await other?.stop();
  agent = other = undefined;
});
afterAll(() => lab?.close());

const endpointOf = (name: string): string => `${lab.node(name).ip4}:51871`;

async function weInitiate(): Promise<void> {
  other = new WireguardGo(lab, theirs);
  await other.start({ end: ours, psk });
  agent = await startFromMesh(lab, ours, [{ end: theirs, psk, endpoint: endpointOf("w") }]);
}

async function theyInitiate(): Promise<void> {
  other = new WireguardGo(lab, theirs);
  agent = await startFromMesh(lab, ours, [{ end: theirs, psk }]);
  await other.start({ end: ours, psk, endpoint: endpointOf("a") });
}

/** Moves some megabytes of unpredictable bytes over TCP and compares what arrived. */
async function carries(from: string, to: string, address: string, megabytes: number): Promise<void> {
  const file = `${lab.node(to).dir}/bulk`;
  await lab.run(to, ["dd", "if=/dev/urandom", `of=${file}`, "bs=1M", `count=${megabytes}`, "status=none"]);
  const sum = (await lab.run(to, ["sha256sum", file])).stdout.split(" ")[0];
  const server = lab.start(to, `http-${to}-${from}`, [
    PYTHON,
    "-u",
    "-m",
    "http.server",
    "8080",
    "--bind",
    address,
    "-d",
    lab.node(to).dir,
  ]);
  try {
    await server.saw(/Serving HTTP/);
    const got = `${lab.node(from).dir}/got`;
    const url = address.includes(":") ? `http://[${address}]:8080/bulk` : `http://${address}:8080/bulk`;
    const done = await lab.run(from, [
      "curl",
      "-s",
      "-g",
      "-m",
      "60",
      "-o",
      got,
      url,
    ]);
    expect(done.code).toBe(0);
    expect((await lab.run(from, ["sha256sum", got])).stdout.split(" ")[0]).toBe(sum);
  } finally {
    await server.stop();
  }
}

describe("wireguard-go answers our handshake", () => {
  it("carries pings of both families both ways, in Geneve with the sender's identity", async () => {
    await weInitiate();
    await reaches(lab, "a", theirs.mesh4);
    await reaches(lab, "a", theirs.mesh6);
    await reaches(lab, "w", ours.mesh4);
    await reaches(lab, "w", ours.mesh6);
    expect(await answered(lab, "a", theirs.mesh4, 20, 0.05)).toBe(20);
    expect(await other!.lastHandshake()).toBeGreaterThan(0);
    const counts = await other!.stop();
    expect(other!.geneve!.log()).not.toContain("fault:");
    expect(counts.received).toBeGreaterThan(20);
  });

  it("carries packets of every size up to the MTU, and TCP in bulk both ways over IPv4 and IPv6", async () => {
    await weInitiate();
    await reaches(lab, "a", theirs.mesh4);
    for (const size of [0, 1, 15, 16, 17, 511, 1200, 1355 - 28]) {
      const done = await lab.run("a", ["ping", "-c1", "-W2", "-M", "do", "-s", String(size), theirs.mesh4]);
      expect(done.code, `ping with ${size} octets`).toBe(0);
    }
    await carries("a", "w", theirs.mesh4, 8);
    await carries("w", "a", ours.mesh4, 8);
    await carries("a", "w", theirs.mesh6, 4);
    await carries("w", "a", ours.mesh6, 4);
    const counts = await other!.stop();
    expect(counts.faults).toBe(0);
    expect(counts.largest).toBeLessThanOrEqual(1355);
  });

  it("follows wireguard-go to another address and port", async () => {
    await weInitiate();
    await reaches(lab, "a", theirs.mesh4);
    await lab.moveTo("w", "10.71.2.77");
    try {
      await other!.wg("set", "listen-port", "40404");
      await reaches(lab, "w", ours.mesh4);
      expect(await answered(lab, "a", theirs.mesh4, 10, 0.05)).toBe(10);
    } finally {
      await lab.moveTo("w", lab.node("w").ip4);
    }
  });

  it("is followed by wireguard-go when our own address changes", async () => {
    await weInitiate();
    await reaches(lab, "a", theirs.mesh4);
    await lab.moveTo("a", "10.71.1.77");
    try {
      await reaches(lab, "a", theirs.mesh4);
      expect(await other!.wg("show", "endpoints")).toContain("10.71.1.77:51871");
      expect(await answered(lab, "w", ours.mesh4, 10, 0.05)).toBe(10);
    } finally {
      await lab.moveTo("a", lab.node("a").ip4);
    }
  });
});

describe("we answer wireguard-go's handshake", () => {
  it("learns where it is and carries traffic both ways", async () => {
    await theyInitiate();
    await reaches(lab, "w", ours.mesh4);
    await reaches(lab, "w", ours.mesh6);
    expect(await answered(lab, "a", theirs.mesh4, 10, 0.05)).toBe(10);
    await carries("a", "w", theirs.mesh4, 4);
    await carries("w", "a", ours.mesh4, 4);
    expect((await other!.stop()).faults).toBe(0);
  });

  it("takes a new session after wireguard-go was restarted", async () => {
    await theyInitiate();
    await reaches(lab, "w", ours.mesh4);
    await other!.stop();
    other = new WireguardGo(lab, theirs);
    await other.start({ end: ours, psk, endpoint: endpointOf("a") });
    await reaches(lab, "w", ours.mesh4);
    await reaches(lab, "a", theirs.mesh4);
  });

  it("is heard every second when it asks for a keepalive of one second", async () => {
    other = new WireguardGo(lab, theirs);
    await other.start({ end: ours, psk });
    agent = await startFromMesh(lab, ours, [{ end: theirs, psk, endpoint: endpointOf("w"), persistentKeepalive: 1 }]);
    await until("a handshake without traffic", async () => (await other!.lastHandshake()) > 0);
    const before = (await other.transfer()).received;
    await until("three keepalives of 32 octets", async () => (await other!.transfer()).received >= before + 96, 6_000);
  });

  it("lets nothing through when the preshared keys differ", async () => {
    other = new WireguardGo(lab, theirs);
    await other.start({ end: ours, psk: await makePsk(lab) });
    agent = await startFromMesh(lab, ours, [{ end: theirs, psk, endpoint: endpointOf("w") }]);
    expect(await answered(lab, "a", theirs.mesh4, 5, 0.5)).toBe(0);
    expect(await answered(lab, "w", ours.mesh4, 2, 0.5)).toBe(0);
    expect((await other.transfer()).received).toBeGreaterThan(0); // it was asked, and did not agree
    expect(other.geneve!.log()).not.toContain("first:");
  });
});
