import { describe, expect, it } from "vitest";
import { loadConfig } from "../../../edge/config.ts";
import { policySettingsOf } from "../../../edge/hub/policy_settings.ts";
import { EntrySet } from "../../../src/mesh/entry_set.ts";
import type { SettingKey } from "../../../edge/settings.ts";

const load = async (flags: Partial<Record<SettingKey, string>>) => {
  const { config } = await loadConfig({
    flags: new Map(Object.entries(flags).map(([key, text]) => [key as SettingKey, [text]])),
    env: {},
    readFile: () => "",
    parseFile: () => Promise.resolve({}),
  });
  return policySettingsOf(config);
};

describe("policySettingsOf", () => {
  it("says no more than a hub of the first release did, unless it is asked to", async () => {
    expect(await load({})).toEqual({
      enforcementMode: "default",
      defaultLocalCluster: true,
      allowLocalhost: "always",
    });
  });

  it("takes every flag, and members take what comes of it", async () => {
    const policy = await load({
      enablePolicy: "always",
      policyAuditMode: "on",
      policyCidrMatchMode: "pods, nodes",
      policyDefaultLocalCluster: "off",
      allowLocalhost: "policy",
      enableHostFirewall: "on",
      fqdnMinTtlSeconds: "3600",
      fqdnMaxIpsPerName: "50",
      fqdnRejectCode: "nameError",
    });
    expect(policy).toEqual({
      enforcementMode: "always",
      defaultLocalCluster: false,
      allowLocalhost: "policy",
      auditMode: true,
      cidrMatchMode: ["nodes", "pods"],
      hostFirewall: true,
      fqdn: { minTtlSeconds: 3600, maxIpsPerName: 50, rejectCode: "nameError" },
    });
    const entries = new EntrySet({ selfName: "lab/a", publicKey: new Uint8Array(32), trust: { kind: "local" } });
    const settings = {
      cluster: { name: "lab", id: 7 },
      routing: { mode: "tunnel", tunnelProtocol: "geneve", encryption: "wireguard" },
      policy,
      memberCidrs: [],
    } as const;
    const staged = entries.stage({ t: "snapshot", epoch: "e", revision: 1, entries: [["settings", settings]] });
    if (typeof staged === "string") throw new Error(staged);
    expect(entries.commit(staged).refused).toEqual([]);
    expect(entries.settings?.policy).toEqual(policy);
  });

  it("refuses what is no mode", async () => {
    await expect(load({ policyCidrMatchMode: "nodes,hosts" })).rejects.toThrow(
      /must be none, nodes, pods or nodes,pods/,
    );
    await expect(load({ enablePolicy: "maybe" })).rejects.toThrow(/must be one of default, always, never/);
  });
});
