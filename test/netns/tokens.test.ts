/** Every way in which a token can be no good has its own message, and exit code 5; a hub that is not there is worth a new try. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../../scripts/lab/lab.ts";
import { Mesh } from "./mesh.ts";

let mesh: Mesh;
beforeAll(async () => {
  mesh = await Mesh.start(["a", "b"]);
});
afterAll(() => mesh?.close());

const said: string[] = [];

/** What `join` says to a token on node a, which must not become a member by it. */
async function refusal(token: string): Promise<{ code: number; message: string }> {
  const done = await mesh.enrol("a", token, "--timeout", "5s");
  expect((await mesh.agent("a").cli(["run"])).code, "it must not be enrolled").toBe(3);
  return { code: done.code, message: done.stderr };
}

function isNew(message: string): void {
  const first = message.split("\n").find((line) => line.trim() !== "")!;
  expect(said).not.toContain(first);
  said.push(first);
}

describe("a token that is no good", () => {
  it("is found damaged before a packet is sent", async () => {
    const token = await mesh.token();
    const at = Math.floor(token.length / 2);
    const damaged = token.slice(0, at) + (token[at] === "A" ? "B" : "A") + token.slice(at + 1);
    const capture = mesh.lab.start("a", "any-packet", [
      "tcpdump",
      "-Z",
      "root",
      "-n",
      "-l",
      "-i",
      "eth0",
      "tcp or udp",
    ]);
    await capture.saw(/listening on/);
    const { code, message } = await refusal(damaged);
    await capture.stop();
    expect(code).toBe(5);
    expect(message).toMatch(/damaged/i);
    expect(capture.log()).toMatch(/\b0 packets captured/);
    isNew(message);
  });

  it("may be cut short or be something else altogether", async () => {
    const token = await mesh.token();
    for (const text of [token.slice(0, -3), token.slice(0, 10), "em1_", "hello", `${token}x`]) {
      expect((await refusal(text)).code, text.slice(0, 6)).toBe(5);
    }
  });

  it("has expired", async () => {
    const { id, token } = await mesh.hub.json(["hub", "token", "create", "--ttl", "1s"]);
    mesh.tokens.push(token);
    await until("it has expired", async () => {
      const { tokens } = await mesh.hub.json(["hub", "token", "list"]);
      return tokens.some((made: { id: string; notAfter: number }) => made.id === id && made.notAfter < Date.now());
    });
    const { code, message } = await refusal(token);
    expect(code).toBe(5);
    expect(message).toMatch(/expired/i);
    isNew(message);
  });

  it("is used up", async () => {
    const token = await mesh.token();
    expect((await mesh.enrol("b", token)).code).toBe(0);
    const { code, message } = await refusal(token);
    expect(code).toBe(5);
    expect(message).toMatch(/used/i);
    isNew(message);
  });

  it("was revoked", async () => {
    const made = await mesh.hub.json(["hub", "token", "create"]);
    await mesh.hub.ask(["hub", "token", "revoke", made.id]);
    const { code, message } = await refusal(made.token);
    expect(code).toBe(5);
    expect(message).toMatch(/revoked/i);
    isNew(message);
  });

  it("is of another hub", async () => {
    // the same CA and addresses, but an id that this hub never gave: its store starts anew, its CA stays
    const token = await mesh.token();
    await mesh.hub.process!.stop();
    const stores = (await mesh.lab.run("hub", ["sh", "-c", `find ${mesh.hub.stateDir} -name 'hub.db*'`])).stdout.trim()
      .split("\n");
    expect(stores.length).toBeGreaterThan(0);
    await mesh.lab.run("hub", ["rm", "-f", ...stores]);
    mesh.startHub();
    await mesh.isUp("hub");
    const { code, message } = await refusal(token);
    expect(code).toBe(5);
    expect(message).toMatch(/unknown|does not know|not of this hub/i);
    isNew(message);
  });
});

describe("a hub that is not there", () => {
  it("is exit 75 after the timeout, and the token is still good afterwards", async () => {
    const token = await mesh.token();
    await mesh.hub.process!.kill();
    const done = await mesh.enrol("a", token, "--timeout", "2s");
    expect(done.code).toBe(75);
    expect(done.stderr).toMatch(/hub/i);
    mesh.startHub();
    await mesh.isUp("hub");
    expect((await mesh.enrol("a", token)).code).toBe(0);
  });

  it("is tried again until it comes, when no timeout is given", async () => {
    await mesh.agent("a").cli(["leave"]);
    const token = await mesh.token();
    await mesh.hub.process!.kill();
    mesh.startJoin("a", token);
    await mesh.agent("a").process!.saw(/again|retry|unreachable|reach/i);
    mesh.startHub();
    await mesh.isUp("hub");
    await mesh.isUp("a");
  });
});
