/** The compiled program does not let its surroundings change it: files of the current folder, TMPDIR, the runtime's variables. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "../../scripts/lab/lab.ts";
import { makeEnd, reaches, startFromMesh } from "../../scripts/lab/peers.ts";
import { Agent, formUnderTest } from "../../scripts/lab/program.ts";

let lab: Lab;
beforeAll(async () => {
  lab = await Lab.create(["a", "b"]);
});
afterAll(() => lab?.close());

describe.skipIf(formUnderTest() !== "binary")("the compiled program", () => {
  it("reads neither .env nor bunfig.toml nor package.json of the folder where it is started", async () => {
    const folder = join(lab.dir, "hostile");
    mkdirSync(folder);
    const mark = join(folder, "was-here");
    writeFileSync(join(folder, "evil.ts"), `require("node:fs").writeFileSync(${JSON.stringify(mark)}, "");`);
    writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./evil.ts"]\n');
    writeFileSync(join(folder, ".env"), "EDGEMESH_LOG_LEVEL=nonsense\nEDGEMESH_SOCKET=/nonexistent/from-dot-env\n");
    writeFileSync(join(folder, "package.json"), '{ "imports": { "#x": "./evil.ts" } }');
    const program = new Agent(lab, "a").command.join(" ");
    expect((await lab.run("a", ["sh", "-c", `cd ${folder} && exec ${program} version`])).code).toBe(0);
    const status = await lab.run("a", ["sh", "-c", `cd ${folder} && exec ${program} status`]);
    expect(status.code).toBe(4);
    expect(status.stderr).not.toContain("from-dot-env");
    expect(existsSync(mark)).toBe(false);
  });

  it("carries traffic with a TMPDIR that does not exist: libsodium needs no file", async () => {
    const [a, b] = [await makeEnd(lab, "a", 1), await makeEnd(lab, "b", 2)];
    const env = { TMPDIR: "/nonexistent", HOME: "/nonexistent" };
    await startFromMesh(lab, b, [{ end: a }], { env });
    await startFromMesh(lab, a, [{ end: b, endpoint: `${lab.node("b").ip4}:51871` }], { env });
    await reaches(lab, "a", b.mesh4);
  });
});
