/**
 * Power cuts: hub and members are killed with SIGKILL at moments that nobody chose, and started again. Identity and addresses
 * must be what they were, nothing that was granted may be lost, and traffic must not wait for the hub.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pause, until } from "../../scripts/lab/lab.ts";
import { allowOnly, Mesh } from "./mesh.ts";

let mesh: Mesh;
let toA: string;
let toB: string;

beforeAll(async () => {
  mesh = await Mesh.start(["a", "b", "c", "d", "e"]);
  mesh.startJoin("a", await mesh.token("--label", "app=client"));
  mesh.startJoin("b", await mesh.token("--label", "app=web"));
  await Promise.all([mesh.isUp("a"), mesh.isUp("b")]);
  [toA, toB] = [await mesh.address("a"), await mesh.address("b")];
  await until("a pings b", () => mesh.pings("a", toB));
});
afterAll(() => mesh?.close());

describe("the hub is killed", () => {
  it("and members go on talking", async () => {
    await mesh.hub.process!.kill();
    for (let i = 0; i < 5; i++) expect(await mesh.pings("a", toB)).toBe(true);
    expect((await mesh.agent("a").http("/livez")).status).toBe(200);
  });

  it("and a member that is killed too comes back without it: same identity, same addresses, same policies", async () => {
    const before = await mesh.self("b");
    // what arrived just now may be written some seconds later, to spare the flash (edge/agent/store.ts)
    await pause(4_000);
    await mesh.agent("b").process!.kill();
    mesh.agent("b").start(["run"]);
    await until("b has its addresses", async () => (await mesh.agent("b").cli(["status", "-o", "json"])).code === 0);
    expect(await mesh.self("b")).toEqual(before);
    // a's session is of the life before: b answers only in a new one, which a starts when it hears nothing
    await until("a pings b", () => mesh.pings("a", toB, 1), 30_000);
    expect((await mesh.agent("b").json(["status"])).mesh.isStale).toBe(true);
  });

  it("and comes back as itself, with its members and policies", async () => {
    const before = await mesh.self("a");
    mesh.startHub();
    await mesh.isUp("hub");
    await until("a is in sync", async () => (await mesh.agent("a").json(["status"])).hub.state === "synced", 40_000);
    await until("b is in sync", async () => (await mesh.agent("b").json(["status"])).hub.state === "synced", 40_000);
    const { members } = await mesh.hub.json(["hub", "member", "list"]);
    expect(members.map(({ name }: { name: string }) => name).sort()).toEqual(expect.arrayContaining(["a", "b"]));
    expect(await mesh.self("a")).toEqual(before);
    await until("hub is reached", async () => mesh.pings("a", await mesh.address("hub")), 30_000);
  });

  it("while a member joins, and it joins all the same, once", async () => {
    for (const [name, afterMs] of [["c", 30], ["d", 250], ["e", 700]] as const) {
      const token = await mesh.token();
      mesh.startJoin(name, token);
      await pause(afterMs);
      await mesh.hub.process!.kill();
      await pause(100);
      mesh.startHub();
      await mesh.isUp("hub");
      await mesh.isUp(name);
    }
    const { members } = await mesh.hub.json(["hub", "member", "list"]);
    for (const name of ["c", "d", "e"]) {
      expect(members.filter((member: { name: string }) => member.name.startsWith(name)).length, name).toBe(1);
    }
    const addresses = await Promise.all(["a", "b", "c", "d", "e"].map((name) => mesh.address(name)));
    expect(new Set(addresses).size).toBe(5);
    await until("c pings a", () => mesh.pings("c", toA));
  });

  it("right after a policy was applied, and the policy is still there", async () => {
    await mesh.serve("b", 8080);
    await mesh.serve("b", 8081);
    await mesh.apply(allowOnly("web", "client", 8080));
    await mesh.hub.process!.kill();
    mesh.startHub();
    await mesh.isUp("hub");
    await until("8081 is closed", async () => (await mesh.get("a", toB, 8081)) === undefined, 40_000);
    expect(await mesh.get("a", toB, 8080)).toContain("hello from b");
  });
});

describe("a member is killed", () => {
  it("while it joins, and the same token lets it in again, as the same member", async () => {
    await mesh.agent("e").ask(["leave"]);
    const token = await mesh.token();
    for (const afterMs of [20, 150, 400]) {
      const joining = mesh.startJoin("e", token);
      await pause(afterMs);
      await joining.kill();
    }
    // it may have been enrolled by now: then it only has to run
    const again = mesh.startJoin("e", token);
    await until(
      "e runs or is enrolled already",
      async () => again.exitCode !== undefined || (await mesh.agent("e").cli(["status", "-o", "json"])).code === 0,
    );
    if (again.exitCode !== undefined) {
      expect(again.log()).toMatch(/already/i);
      mesh.agent("e").start(["run"]);
    }
    await mesh.isUp("e");
    const { members } = await mesh.hub.json(["hub", "member", "list"]);
    expect(members.filter(({ name }: { name: string }) => name.startsWith("e")).length).toBe(1);
  });

  it("again and again while it runs, and is what it was each time", async () => {
    const before = await mesh.self("c");
    for (const afterMs of [0, 100, 400, 900]) {
      await mesh.agent("c").process!.kill();
      mesh.agent("c").start(["run"]);
      await pause(afterMs);
    }
    await mesh.isUp("c");
    expect(await mesh.self("c")).toEqual(before);
    await until("c pings a", () => mesh.pings("c", toA, 1), 30_000);
  });

  it("with SIGTERM, and leaves in order: no device, no socket, exit 0", async () => {
    const running = mesh.agent("d").process!;
    expect(await running.stop()).toBe(0);
    expect((await mesh.lab.run("d", ["ip", "link", "show", "edgemesh0"])).code).not.toBe(0);
    expect((await mesh.agent("d").cli(["status"])).code).toBe(4);
  });
});
