import { describe, expect, it } from "vitest";
import fc from "fast-check";
import {
  ConfigError,
  loadConfig,
  type LoadedConfig,
  nearest,
  type RawFlags,
  readSurroundings,
} from "../../edge/config.ts";
import { rowOf, type SettingKey, SETTINGS, variableOf } from "../../edge/settings.ts";
import { NO_OFFLOADS } from "../../src/offload/switches.ts";

interface Sources {
  flags?: Record<string, readonly string[]>;
  env?: Record<string, string>;
  files?: Record<string, string>;
}

function load({ flags = {}, env = {}, files = {} }: Sources): Promise<LoadedConfig> {
  return loadConfig({
    flags: new Map(Object.entries(flags)) as RawFlags,
    env,
    readFile: (path) => {
      if (files[path] === undefined) throw new Error("ENOENT: no such file");
      return files[path];
    },
    parseFile: (text) => Promise.resolve(JSON.parse(text)),
  });
}

async function faultsOf(sources: Sources): Promise<readonly string[]> {
  try {
    await load(sources);
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
  return [];
}

describe("loadConfig", () => {
  it("gives every default, frozen", async () => {
    const { config, origins } = await load({});
    expect(config.wireguardPort).toBe(51871);
    expect(config.httpListen).toEqual({ host: "127.0.0.1", port: 9780 });
    expect(config.underlayMtuBytes).toBe(1500);
    expect(config.socket).toBe("/run/edgemesh/edgemesh.sock");
    expect(Object.values(origins).every((origin) => origin === "default")).toBe(true);
    expect(Object.isFrozen(config)).toBe(true);
  });

  it("prefers flag to variable to file to default", async () => {
    const files = { "/c": '{"tun": "file0", "wireguard-port": 1000, "log-level": "error", "offload": false}' };
    const { config, origins } = await load({
      flags: { config: ["/c"], tun: ["flag0"] },
      env: { EDGEMESH_TUN: "env0", EDGEMESH_WIREGUARD_PORT: "2000" },
      files,
    });
    expect([config.tun, config.wireguardPort, config.logLevel, config.offload]).toEqual([
      "flag0",
      2000,
      "error",
      NO_OFFLOADS,
    ]);
    expect([origins.tun, origins.wireguardPort, origins.logLevel, origins.aead]).toEqual([
      "flag",
      "environment",
      "file",
      "default",
    ]);
  });

  it("reports all faults at once, with the place each came from", async () => {
    const faults = await faultsOf({
      flags: { config: ["/c"], tun: ["a/b"] },
      env: { EDGEMESH_WIREGUARD_PORT: "70000", EDGEMESH_AEAD: "rot13" },
      files: { "/c": '{"underlay-mtu": 12, "wireguard-prt": 1}' },
    });
    expect(faults).toHaveLength(5);
    expect(faults.join("\n")).toContain('--tun "a/b": must be a device name');
    expect(faults.join("\n")).toContain('EDGEMESH_WIREGUARD_PORT "70000": must be a whole number from 1 to 65535');
    expect(faults.join("\n")).toContain('did you mean "wireguard-port"?');
  });

  it("reads a secret from the file that the _FILE variable names, and never shows it", async () => {
    const files = { "/s": "hunter2\n" };
    const { config } = await load({ env: { EDGEMESH_ADMIN_CREDENTIAL_FILE: "/s" }, files });
    expect(config.adminCredential).toBe("hunter2");
    expect(await faultsOf({ env: { EDGEMESH_ADMIN_CREDENTIAL_FILE: "/none" } })).toHaveLength(1);
  });

  it("takes lists from repeated flags, and from commas in a variable", async () => {
    const { config } = await load({ flags: { labels: ["a=1", "b=2"] }, env: { EDGEMESH_ADVERTISE: "h:1, [::1]:2" } });
    expect(config.labels).toEqual([["a", "1"], ["b", "2"]]);
    expect(config.advertise).toEqual(["h:1", "[::1]:2"]);
  });

  it("takes systemd's directories as defaults", async () => {
    const env = { STATE_DIRECTORY: "/var/lib/private/edgemesh:/x", RUNTIME_DIRECTORY: "/run/em" };
    const { config } = await load({ env });
    expect([config.stateDir, config.socket]).toEqual(["/var/lib/private/edgemesh", "/run/em/edgemesh.sock"]);
  });

  it("warns of a variable that nobody reads, with the nearest name", async () => {
    const { warnings } = await load({ env: { EDGEMESH_LOG_LEVL: "debug", EDGEMESH_TOKEN: "x" } });
    expect(warnings).toEqual(["variable EDGEMESH_LOG_LEVL is no setting; did you mean EDGEMESH_LOG_LEVEL?"]);
  });

  it("refuses a local interface that is not on loopback", async () => {
    expect(await faultsOf({ flags: { httpListen: ["0.0.0.0:9780"] } })).toHaveLength(1);
    expect((await load({ flags: { httpListen: ["none"] } })).config.httpListen).toBeUndefined();
  });

  it("never throws anything but a ConfigError, whatever the texts", async () => {
    const keys = Object.keys(SETTINGS) as SettingKey[];
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...keys.filter((key) => key !== "config")), fc.string(), async (key, text) => {
        try {
          await load({ flags: { [key]: [text] } });
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError);
        }
      }),
    );
  });
});

describe("the table of settings", () => {
  const keys = Object.keys(SETTINGS) as SettingKey[];

  it("has one flag and one variable for each setting", () => {
    expect(new Set(keys.map((key) => rowOf(key).flag)).size).toBe(keys.length);
    expect(variableOf("underlayMtuBytes")).toBe("EDGEMESH_UNDERLAY_MTU");
  });

  it("has defaults that its own parsers take", () => {
    for (const key of keys) {
      const row = rowOf(key);
      if (row.default === undefined || row.isList) continue;
      const text = row.defaultText ?? String(row.default);
      expect(row.parse(text), key).toEqual(row.default);
    }
  });
});

describe("nearest", () => {
  it("finds a slip and leaves strangers alone", () => {
    expect(nearest("wiregard-port", ["tun", "wireguard-port"])).toBe("wireguard-port");
    expect(nearest("banana", ["tun", "wireguard-port"])).toBeUndefined();
  });
});

describe("readSurroundings", () => {
  it("takes the watchdog only when it is meant for this process", () => {
    expect(readSurroundings({ WATCHDOG_USEC: "60000000", WATCHDOG_PID: "7" }, 7).watchdogMs).toBe(60_000);
    expect(readSurroundings({ WATCHDOG_USEC: "60000000", WATCHDOG_PID: "8" }, 7).watchdogMs).toBeUndefined();
    expect(readSurroundings({}, 7)).toMatchObject({ notifySocket: undefined, isJournal: false, noColor: false });
  });
});
