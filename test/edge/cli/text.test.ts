import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import type { DropDocument, PeersDocument, StatusDocument } from "../../../edge/agent/documents.ts";
import { completionOf } from "../../../edge/cli/completion.ts";
import { COMMANDS, GROUPS } from "../../../edge/cli/commands.ts";
import type { CommandContext } from "../../../edge/cli/context.ts";
import { connectedText } from "../../../edge/cli/hub_member.ts";
import { dropLine } from "../../../edge/cli/monitor.ts";
import { ageText, byteText, clean, labelText, table } from "../../../edge/cli/output.ts";
import { isSettled } from "../../../edge/cli/status.ts";
import { dumpText, showText } from "../../../edge/cli/wg.ts";

describe("output", () => {
  it("puts cells under their headings", () => {
    expect(table(["A", "LONG"], [["xyz", "1"], ["", "22"]])).toBe("A    LONG\nxyz  1\n     22\n");
  });

  it("shows sizes, ages and labels as people read them", () => {
    expect([byteText(0), byteText(1023), byteText(1536), byteText(3 * 1024 ** 3)]).toEqual([
      "0 B",
      "1023 B",
      "1.5 KiB",
      "3.0 GiB",
    ]);
    expect([ageText(-5), ageText(90_000), ageText(600_000), ageText(9_000_000), ageText(1e9)]).toEqual([
      "0s",
      "90s",
      "10m",
      "2h",
      "11d",
    ]);
    expect([labelText({ b: "2", a: "1" }), labelText({})]).toEqual(["a=1,b=2", "-"]);
  });

  it("lets nothing steer the terminal", () => {
    expect(clean("a\u001b[31mb\nc")).toBe("a?[31mb?c");
  });
});

describe("hub member list", () => {
  it("says since when a member is connected, and of the hub itself nothing", () => {
    const connection = { since: 1_000, from: "192.0.2.1:5", version: "1", appliedRevision: null, sentBytes: 0 };
    expect(connectedText({ connection, isHub: false }, 31_000)).toBe("for 30s");
    expect(connectedText({ connection: null, isHub: false }, 31_000)).toBe("no");
    expect(connectedText({ connection: null, isHub: true }, 31_000)).toBe("-");
  });
});

const DROP: DropDocument = {
  at: "2026-01-02T03:04:05.000Z",
  direction: "ingress",
  reason: "POLICY_DENIED",
  text: "Policy denied",
  source: "10.9.0.1",
  destination: "fd09::2",
  protocol: "TCP",
  sourcePort: 4000,
  destinationPort: 8081,
  identity: 70000,
};

describe("monitor", () => {
  it("writes a drop on one line", () => {
    expect(dropLine(DROP)).toBe(
      "2026-01-02T03:04:05.000Z xx drop POLICY_DENIED ingress identity 70000 10.9.0.1:4000 -> [fd09::2]:8081 TCP (Policy denied)",
    );
    expect(dropLine({ ...DROP, source: null, destination: null })).toContain(" ? -> ? ");
  });
});

const PEERS: PeersDocument = {
  apiVersion: "edgemesh/v1",
  kind: "Peers",
  publicKey: "OWN=",
  wireguardPort: 51871,
  tun: "edgemesh0",
  peers: [{
    name: "b",
    cluster: { name: "edge1", id: 1 },
    addresses: ["10.9.0.2"],
    underlay: "172.31.0.2",
    identity: 7,
    namespace: "default",
    labels: {},
    namedPorts: [],
    publicKey: "PEER=",
    isHub: false,
    state: "active",
    mode: "tunnel",
    network: "",
    underlayAddr: "192.0.2.1:51871",
    lastHandshake: "2026-01-01T00:00:00.000Z",
    rxBytes: 2048,
    txBytes: 10,
    aead: "aegis128l",
    pathMtuBytes: 1376,
    keepaliveSeconds: 25,
    hasPresharedKey: true,
    prefixes: ["10.9.0.2/32"],
  }],
};

describe("wg show", () => {
  it("prints what wg prints, with the keys hidden", () => {
    expect(showText(PEERS, Date.UTC(2026, 0, 1, 1, 2, 3))).toBe(`interface: edgemesh0
  public key: OWN=
  private key: (hidden)
  listening port: 51871

peer: PEER=
  preshared key: (hidden)
  endpoint: 192.0.2.1:51871
  allowed ips: 172.31.0.2/32, 10.9.0.2/32
  latest handshake: 1 hour, 2 minutes, 3 seconds ago
  transfer: 2.0 KiB received, 10 B sent
  persistent keepalive: every 25 seconds
`);
    expect(dumpText(PEERS).split("\n")[1]!.split("\t")).toEqual([
      "PEER=",
      "(hidden)",
      "192.0.2.1:51871",
      "172.31.0.2/32,10.9.0.2/32",
      "1767225600",
      "2048",
      "10",
      "25",
    ]);
  });
});

describe("status --wait", () => {
  const document = (changes: object): StatusDocument =>
    ({
      state: "ready",
      member: {},
      device: { isUp: true },
      policy: { isReady: true },
      hub: { state: "synced" },
      ...changes,
    }) as unknown as StatusDocument;

  it("waits for addresses, device, policies and hub", () => {
    expect(isSettled(document({}))).toBe(true);
    expect(isSettled(document({ state: "degraded", hub: { state: "none" } }))).toBe(true);
    for (
      const missing of [
        { state: "starting" },
        { state: "failing" },
        { member: null },
        { device: { isUp: false } },
        { policy: { isReady: false } },
        { hub: { state: "offline" } },
      ]
    ) expect(isSettled(document(missing)), JSON.stringify(missing)).toBe(false);
  });
});

describe("completion", () => {
  async function scriptFor(shell: string): Promise<string> {
    let text = "";
    const context = { args: [shell], terminal: { out: (part: string) => text += part } } as unknown as CommandContext;
    await completionOf(COMMANDS, GROUPS)(context);
    return text;
  }

  it("knows every command in every shell", async () => {
    for (const shell of ["bash", "zsh", "fish"]) {
      const script = await scriptFor(shell);
      for (const word of COMMANDS.flatMap((spec) => spec.path)) expect(script, `${shell} ${word}`).toContain(word);
    }
    await expect((async () => await scriptFor("tcsh"))()).rejects.toMatchObject({ code: "EDGE_USAGE" });
  });

  it("completes in bash", async () => {
    const complete = async (...words: string[]) =>
      execFileSync("bash", [
        "-c",
        `${await scriptFor("bash")}\nCOMP_WORDS=(${
          words.map((word) => `'${word}'`).join(" ")
        }); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _edgemesh; echo "\${COMPREPLY[*]}"`,
      ], { encoding: "utf8" }).trim().split(" ");
    expect(await complete("edgemesh", "st")).toEqual(["status"]);
    expect(await complete("edgemesh", "hub", "token", "")).toEqual(["create", "list", "revoke"]);
    expect(await complete("edgemesh", "status", "--wa")).toEqual(["--wait"]);
  });
});
