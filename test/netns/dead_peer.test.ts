/**
 * A peer whose program is gone, or whose machine is: its machine or the router answers every datagram with an ICMP error, to the one
 * socket that all peers share. What goes to the others must not notice.
 */
import { afterEach, describe, expect, it } from "vitest";
import { until } from "../../scripts/lab/lab.ts";
import { Mesh, TRAFFIC } from "./mesh.ts";

let mesh: Mesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

/** ICMP errors about unreachable destinations that a member's machine was sent. */
async function unreachables({ lab }: Mesh, name: string): Promise<number> {
  const { stdout } = await lab.run(name, ["cat", "/proc/net/snmp"]);
  const [names, values] = stdout.split("\n").filter((line) => line.startsWith("Icmp:")).map((line) => line.split(" "));
  return Number(values![names!.indexOf("InDestUnreachs")]);
}

/** Sends to b, which does not answer, while c is talked to. */
async function checkOthers(mesh: Mesh, toB: string, toC: string): Promise<void> {
  const { lab } = mesh;
  const before = await unreachables(mesh, "a");
  const pinging = lab.start("a", "ping-b", ["ping", "-i0.01", "-s", "1000", "-W1", toB]);
  await until("a's machine hears that b is gone", async () => await unreachables(mesh, "a") > before, 20_000);
  const pings = await lab.run("a", ["ping", "-c100", "-i0.01", "-W1", toC]);
  expect(pings.stdout).toContain(" 0% packet loss");
  const sent = await lab.run("a", [...TRAFFIC, "send", toC, "8080", "50"], { timeoutMs: 60_000 });
  expect(sent.code, sent.stdout + sent.stderr).toBe(0);
  await pinging.stop();
  const { traffic } = await mesh.agent("a").json(["status"]);
  expect(traffic.egressDrops.UNDERLAY_SEND ?? 0).toBe(0);
}

describe.each(["wireguard", "none"] as const)("with encryption %s", (encryption) => {
  it("a dead peer's ICMP errors hurt no other", async () => {
    const started = mesh = await Mesh.start(["a", "b", "c"], { flags: ["--encryption", encryption] });
    for (const name of ["a", "b", "c"]) await started.join(name);
    const [toB, toC] = [await started.address("b"), await started.address("c")];
    for (const to of [toB, toC]) await until(`a pings ${to}`, () => started.pings("a", to));
    const server = await started.serve("c", 8080);
    await started.agent("b").process!.kill(); // its kernel says: port unreachable
    await checkOthers(started, toB, toC);
    await started.lab.shell("ip -n router link set to-b down"); // the router says: no route, or no such host
    await checkOthers(started, toB, toC);
    await server.stop();
  }, 120_000);
});
