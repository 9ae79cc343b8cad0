/**
 * Members that seal with AEGIS-128L for each other, as processes over real networks:
 *
 *   a -- router -- b      from mesh files, over IPv4 and over IPv6, where a full message has not one octet to spare
 *   hub, a, b             joined: announced, signed and told by the hub; taken back and given again
 */
import { afterEach, describe, expect, it } from "vitest";
import { Lab, until } from "../../scripts/lab/lab.ts";
import { answered, makeEnd, reaches, startFromMesh } from "../../scripts/lab/peers.ts";
import type { Agent } from "../../scripts/lab/program.ts";
import { Mesh, TRAFFIC } from "./mesh.ts";

const AEADS = ["aegis128l", "aes256gcm"];
const MTU = 1354;

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

/** What a member seals with for another. */
async function aeadTo(agent: Agent, name: string): Promise<string | null> {
  const { peers } = await agent.json(["peers"]);
  return peers.find((peer: { name: string }) => peer.name === name)?.aead ?? null;
}

async function canAegis(agent: Agent): Promise<boolean> {
  return (await agent.json(["status"])).device.offload.memberAeads.includes("aegis128l");
}

/** A ping of exactly that many octets, which may not be cut. */
async function pingWhole(lab: Lab, from: string, to: string, octets: number): Promise<boolean> {
  const header = to.includes(":") ? 48 : 28;
  const done = await lab.run(from, [
    "ping",
    "-M",
    "do",
    "-c",
    "2",
    "-i",
    "0.2",
    "-W",
    "2",
    "-s",
    `${octets - header}`,
    to,
  ]);
  return done.code === 0;
}

describe("AEGIS-128L between members", () => {
  it.each([4, 6] as const)("carries full packets, TCP and UDP over an underlay of IPv%d", async (family) => {
    const lab = await Lab.create(["a", "b"]);
    closing.push(() => lab.close());
    const [a, b] = [await makeEnd(lab, "a", 1), await makeEnd(lab, "b", 2)];
    const at = (name: string) => family === 4 ? `${lab.node(name).ip4}:51871` : `[${lab.node(name).ip6}]:51871`;
    const onB = await startFromMesh(lab, b, [{ end: a, endpoint: at("a") }], { aeads: AEADS });
    const onA = await startFromMesh(lab, a, [{ end: b, endpoint: at("b") }], { aeads: AEADS });
    await reaches(lab, "a", b.mesh4);
    const expected = await canAegis(onA) ? "aegis128l" : "chacha20poly1305";
    expect([await aeadTo(onA, "b"), await aeadTo(onB, "a")]).toEqual([expected, expected]);
    expect((await onA.json(["status"])).device.mtuBytes).toBe(MTU);
    for (const to of [b.mesh4, b.mesh6]) {
      expect(await pingWhole(lab, "a", to, MTU), `${to}, full`).toBe(true);
      expect(await pingWhole(lab, "a", to, MTU + 1), `${to}, more than full`).toBe(false);
    }
    await lab.start("b", "serve", [...TRAFFIC, "serve", "9000", "b"]).saw(/^ready$/m);
    await lab.start("b", "udp-serve", [...TRAFFIC, "udp-serve", "5300"]).saw(/^ready$/m);
    for (const to of [b.mesh4, b.mesh6]) {
      expect((await lab.run("a", [...TRAFFIC, "send", to, "9000", "16"])).stdout.trim()).toBe(`same ${16 << 20}`);
      expect((await lab.run("a", [...TRAFFIC, "udp", to, "5300", "1300"])).stdout.trim()).toBe("echo");
    }
    const { traffic } = await onB.json(["status"]);
    expect(traffic.ingressDrops).not.toHaveProperty("BAD_TAG");
  });

  it("is not spoken with a node that announces nothing, though the other node offers it", async () => {
    const lab = await Lab.create(["a", "b"]);
    closing.push(() => lab.close());
    const [a, b] = [await makeEnd(lab, "a", 1), await makeEnd(lab, "b", 2)];
    // each believes another thing, as when records reach them at different moments
    const onB = await startFromMesh(lab, b, [{ end: a, endpoint: `${lab.node("a").ip4}:51871` }]);
    const onA = await startFromMesh(lab, a, [{ end: b, endpoint: `${lab.node("b").ip4}:51871` }], { aeads: AEADS });
    await reaches(lab, "a", b.mesh4);
    expect(await answered(lab, "a", b.mesh4, 20, 0.05)).toBe(20);
    expect(await aeadTo(onB, "a")).toBe("chacha20poly1305");
    expect(await aeadTo(onA, "b")).toBe(await canAegis(onA) ? "aegis128l" : "chacha20poly1305");
  });

  it("comes with the hub's records, goes when a member takes it back, and nobody notices", async () => {
    const mesh = await Mesh.start(["a", "b"]);
    closing.push(() => mesh.close());
    const { lab } = mesh;
    await mesh.join("a");
    await mesh.join("b");
    const [a, b] = [mesh.agent("a"), mesh.agent("b")];
    const address = await mesh.address("a");
    const hasRecords = async (mtu: number) => (await a.json(["status"])).device.mtuBytes === mtu;
    if (!await canAegis(a)) return; // this CPU has nothing to offer; the rest is about what it offers
    await until("a's record announces AEGIS-128L", () => hasRecords(MTU), 10_000);
    await reaches(lab, "b", address);

    // a new life of b: its state on disk and a's knowledge have both records, so the first session is already sealed with it
    await b.process!.stop();
    b.start(["run"]);
    await mesh.isUp("b");
    await reaches(lab, "b", address);
    await until("b seals with AEGIS-128L", async () => await aeadTo(b, "a") === "aegis128l", 10_000);
    expect(await aeadTo(a, "b")).toBe("aegis128l");

    // b comes back with it forbidden; a hears of it from the hub, and gives up the session that it made before
    await b.process!.stop();
    b.start(["run", "--member-aead", "off"]);
    await mesh.isUp("b");
    await reaches(lab, "b", address);
    expect(await answered(lab, "b", address, 40, 0.1)).toBe(40);
    expect(await aeadTo(b, "a")).toBe("chacha20poly1305");
    await until("a seals with ChaCha20-Poly1305", async () => await aeadTo(a, "b") === "chacha20poly1305", 15_000);
    expect((await b.json(["status"])).device.mtuBytes).toBe(MTU + 1);
    for (const agent of [a, b]) {
      expect((await agent.json(["status"])).traffic.ingressDrops).not.toHaveProperty("BAD_TAG");
    }
  });
});
