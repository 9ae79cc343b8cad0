import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { makeLog } from "../../support/hub.ts";

// node:sqlite came with Node 22
const hasSqlite = "Bun" in globalThis || "Deno" in globalThis || Number(process.versions.node.split(".")[0]) >= 22;

describe.skipIf(!hasSqlite)("openHub (needs node:sqlite: not on Node before 22)", () => {
  let stateDir: string;
  beforeEach(() => void (stateDir = mkdtempSync(join(tmpdir(), "edgemesh-open-"))));
  afterEach(() => rmSync(stateDir, { recursive: true, force: true }));

  async function open(more: object = {}) {
    const { openHub } = await import("../../../edge/hub/hub.ts");
    return await openHub({
      stateDir,
      clusterName: "lab",
      clusterId: 7,
      listen: "127.0.0.1:0",
      advertise: [],
      memberCidrs: [],
      routing: { mode: "tunnel", tunnelProtocol: "geneve", encryption: "wireguard" },
      version: "test",
      log: makeLog([]),
      ...more,
    });
  }

  it("finds the same mesh and the same keys after a restart", async () => {
    const first = await open();
    const { epoch, settings } = first.state;
    await first.state.createToken({ endpoints: ["127.0.0.1:1"], caPin: first.keys.caPin });
    const pin = first.server.status().caPin;
    await first.close();
    const second = await open();
    expect(second.state.epoch).toBe(epoch);
    expect(second.state.settings).toEqual(settings);
    expect(second.state.listTokens().length).toBe(1);
    expect(second.server.status().caPin).toBe(pin);
    await second.close();
  });

  it("gives each hub an IPv6 prefix of its own", async () => {
    const hub = await open();
    const pin = hub.server.status().caPin;
    expect(hub.state.settings.memberCidrs).toEqual([
      "10.219.0.0/16",
      expect.stringMatching(/^fd[0-9a-f]{2}:[0-9a-f]{1,4}:[0-9a-f]{1,4}::\/64$/),
    ]);
    expect(hub.state.settings.memberCidrs[1]!.slice(2, 4)).toBe(pin.slice(0, 2));
    await hub.close();
  });

  it("refuses the store of another cluster, a port that is taken and a store in use, each by its code", async () => {
    const hub = await open();
    const listen = `127.0.0.1:${hub.server.port}`;
    await expect(open()).rejects.toMatchObject({ code: "EDGE_STATE_UNWRITABLE" });
    await expect(open({ listen, store: `sqlite:${stateDir}/other.db` })).rejects.toMatchObject({
      code: "EDGE_PORT_BUSY",
    });
    await hub.close();
    await expect(open({ clusterName: "other" })).rejects.toMatchObject({ code: "EDGE_CONFIG_INVALID", exitCode: 2 });
    await expect(open({ listen: "nowhere" })).rejects.toMatchObject({ code: "EDGE_CONFIG_INVALID" });
    await (await open()).close();
  });
});
