/**
 * What a change of policies does to a member that runs: the dry run says it beforehand; a change that cuts the member off from a hub
 * that it reaches through the mesh is taken back by the member itself.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../../scripts/lab/lab.ts";
import { HUB_PORT, Mesh, TRAFFIC } from "./mesh.ts";

let mesh: Mesh;
let hubAddress: string;

/** The hub's first mesh address is one of its advertised ones, so that members can reach it through the mesh too. */
const HUB_MESH_ADDRESS = "10.64.0.1";

beforeAll(async () => {
  mesh = await Mesh.start(["a", "b"], {
    flags: [
      "--member-cidr",
      "10.64.0.0/16",
      "--member-cidr",
      "fd64::/64",
      "--advertise",
      `${HUB_MESH_ADDRESS}:${HUB_PORT}`,
    ],
  });
  hubAddress = await mesh.address("hub");
  mesh.startJoin("a", await mesh.token("--label", "app=client"), "--policy-confirm-timeout", "4s");
  mesh.startJoin("b", await mesh.token("--label", "app=web"));
  await Promise.all([mesh.isUp("a"), mesh.isUp("b")]);
  await mesh.serve("b", 81);
});
afterAll(() => mesh?.close());

const CLOSED = (app: string, direction: "ingress" | "egress") => `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: closed, namespace: default }
spec: { endpointSelector: { matchLabels: { app: ${app} } }, ${direction}: [{}] }
`;

describe("a dry run", () => {
  it("names the connection that a change would cut, and cuts nothing", async () => {
    const held = mesh.lab.start("a", "hold", [...TRAFFIC, "hold", await mesh.address("b"), "81"]);
    await held.saw(/^echo 3$/m);
    const file = join(mesh.hub.node.dir, "closed.yaml");
    writeFileSync(file, CLOSED("web", "ingress"));
    const shown = await mesh.hub.ask(["apply", "-f", file, "--dry-run"]);
    expect(shown).toMatch(/b .*:?81/);
    expect(shown).toContain("POLICY_DENIED");
    expect(await mesh.agent("b").ask(["policy", "dry-run", "-f", file])).toContain("POLICY_DENIED");
    const count = Number(/echo (\d+)\n?$/.exec(held.log().trim())![1]);
    await held.saw(new RegExp(`^echo ${count + 5}$`, "m"));
    await held.stop();
  });
});

describe("a policy that cuts a member off from its hub", () => {
  const codes = async () => (await mesh.agent("a").json(["status"])).health.map(({ code }: { code: string }) => code);
  const hub = async () => (await mesh.agent("a").json(["status"])).hub;

  it("is rolled back by the member, which says so, and holds once it is mended", async () => {
    expect(hubAddress).toBe(HUB_MESH_ADDRESS);
    // from now on the hub's API is to be had through the mesh only
    const { ip4 } = mesh.hub.node;
    await mesh.lab.shell(`ip -n router rule add pref 10 to ${ip4} ipproto tcp dport ${HUB_PORT} prohibit`);
    await mesh.agent("a").process!.stop();
    mesh.agent("a").start(["run", "--policy-confirm-timeout", "4s"]);
    await until(
      "a reaches its hub through the mesh",
      async () => (await mesh.agent("a").cli(["status"])).code === 0 && (await hub()).state === "synced",
      60_000,
      () => mesh.agent("a").process!.log(),
    );
    await mesh.apply(CLOSED("client", "egress"));
    await until("the change is taken back", async () => (await codes()).includes("policy-rolled-back"), 30_000);
    expect(mesh.agent("a").process!.log()).toContain("policy-rolled-back");
    await until("the hub is heard again", async () => (await hub()).state === "synced", 60_000);
    expect(await mesh.pings("a", await mesh.address("b"))).toBe(true);
    await mesh.hub.ask(["delete", "CiliumNetworkPolicy", "closed", "-n", "default"]);
    await until("nothing is rolled back any more", async () => !(await codes()).includes("policy-rolled-back"), 60_000);
  }, 240_000);
});
