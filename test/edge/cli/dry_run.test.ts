import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { CommandContext } from "../../../edge/cli/context.ts";
import { dryRunText } from "../../../edge/cli/dry_run.ts";
import { apply, remove } from "../../../edge/cli/objects.ts";
import { policyDryRun } from "../../../edge/cli/policy_dry_run.ts";
import type { DryRunFlow, DryRunMember, DryRunResult } from "../../../edge/sync/dry_run.ts";
import { isNamespaced, kindOf } from "../../../edge/kinds.ts";
import { startTestHub, type TestHub } from "../../support/hub.ts";

const FLOW: DryRunFlow = {
  direction: "ingress",
  source: "10.219.0.3",
  destination: "10.219.0.2",
  peer: "lab/box-b",
  protocol: "TCP",
  port: 5432,
  count: 3,
  before: { verdict: "FORWARD", rule: "NetworkPolicy/shop/web spec.ingress[0]" },
  after: { verdict: "POLICY_DENY", rule: "CiliumNetworkPolicy/shop/deny spec.ingressDeny[0]" },
  isAudited: false,
};
const OUT: DryRunFlow = {
  ...FLOW,
  direction: "egress",
  source: "10.219.0.2",
  destination: "2001:db8::7",
  peer: null,
  protocol: "ICMPv6",
  port: 128,
  count: 1,
  after: { verdict: "POLICY_DENIED", rule: null },
  isAudited: true,
};
const answered = (name: string, changes: Partial<DryRunResult> = {}): DryRunMember => ({
  name,
  state: "answered",
  reason: changes.fault ?? null,
  result: { flows: [], total: 0, lookedAt: 7, toProxy: 0, ...changes },
});

describe("dryRunText", () => {
  it("lists what would be dropped in columns, and who was not heard", () => {
    const text = dryRunText({
      members: [
        answered("a", { flows: [FLOW, OUT], total: 3, toProxy: 1 }),
        answered("b"),
        { name: "c", state: "not-asked", reason: "it is not connected", result: null },
        { name: "d", state: "not-asked", reason: "it is not connected", result: null },
        answered("e", { lookedAt: 0, fault: "no state\x1b[2J" }),
      ],
    });
    // columns are padded: two blanks and more between them
    expect(text.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
      ["MEMBER", "FLOW", "FLOWS", "NOW", "THEN", "BY"],
      [
        "a",
        "ingress lab/box-b (10.219.0.3) -> 10.219.0.2 5432/TCP",
        "3",
        "FORWARD",
        "POLICY_DENY",
        "CiliumNetworkPolicy/shop/deny spec.ingressDeny[0]",
      ],
      [
        "a",
        "egress 10.219.0.2 -> 2001:db8::7 ICMPv6 type 128",
        "1",
        "FORWARD",
        "POLICY_DENIED (audit)",
        "no rule allows it",
      ],
      ["and 1 more that are not shown"],
      ["3 would be newly dropped (14 flows of 2 members looked at)"],
      ["1 flow would newly be judged by a proxy, request by request"],
      ["not asked, it is not connected: c, d"],
      ["no answer, no state?[2J: e"],
      [""],
    ]);
  });

  it("says clearly that nothing would be dropped", () => {
    expect(dryRunText({ members: [answered("a", { lookedAt: 1 })] })).toBe(
      "nothing would be newly dropped (1 flow of 1 member looked at)\n",
    );
    const silent: DryRunMember = { name: "a", state: "no-answer", reason: "it did not answer in time", result: null };
    expect(dryRunText({ members: [silent] })).toBe(
      "what would be newly dropped is not known: no member answered\nno answer, it did not answer in time: a\n",
    );
    expect(dryRunText({ members: [] })).toBe("nothing would be newly dropped (0 flows of 0 members looked at)\n");
  });
});

const POLICY = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: closed, namespace: default }
spec: { podSelector: {} }
`;

describe("the commands", () => {
  let dir: string;
  let file: string;
  let out: string;
  let err: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "edgemesh-dry-"));
    file = join(dir, "p.yaml");
    writeFileSync(file, POLICY);
    [out, err] = ["", ""];
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const context = (config: object, options: Record<string, string[]>, args: string[] = []): CommandContext => ({
    args,
    options: new Map(Object.entries(options)),
    loaded: { config: { output: "text", timeoutMs: 5000, ...config } },
    terminal: { out: (text: string) => void (out += text), err: (text: string) => void (err += text) },
  } as unknown as CommandContext);

  describe("apply --dry-run", () => {
    let hub: TestHub;
    beforeEach(async () => void (hub = await startTestHub()));
    afterEach(() => hub.close());
    const at = () => {
      const hubCa = join(dir, "ca.pem");
      writeFileSync(hubCa, hub.keys.caPem);
      return { hubUrl: `https://${hub.endpoint}`, hubCa, adminCredential: hub.keys.adminToken };
    };

    it("says what would change and what members would drop", async () => {
      await hub.state.putHubMember({
        name: "hub",
        deviceKey: new Uint8Array(32).fill(1),
        publicKey: new Uint8Array(32).fill(2),
        underlay: "",
        endpoints: [],
        namespace: "default",
        labels: {},
        namedPorts: [],
      });
      hub.server.sync.dryRuns.addLocal("hub", () => Promise.resolve(answered("hub").result!));
      const options = { "filename": [file], "dry-run": [""] };
      expect(await apply(context(at(), options))).toBe(0);
      expect(out).toBe(
        "NetworkPolicy default/closed created (dry run)\n" +
          "nothing would be newly dropped (7 flows of 1 member looked at)\n",
      );
      expect(await hub.admin.objects()).toEqual([]);
      out = "";
      await apply(context({ ...at(), output: "json" }, options));
      expect(JSON.parse(out).dryRun.members[0]).toMatchObject({ name: "hub", state: "answered" });
    });

    it("delete --dry-run says what members would drop, and deletes nothing", async () => {
      await hub.admin.apply([{
        apiVersion: "networking.k8s.io/v1",
        kind: "NetworkPolicy",
        metadata: { name: "closed", namespace: "default" },
        spec: { podSelector: {} },
      }]);
      const options = { "dry-run": [""] };
      expect(await remove(context(at(), options, ["netpol", "closed"]))).toBe(0);
      expect(out).toBe(
        "NetworkPolicy default/closed deleted (dry run)\n" +
          "nothing would be newly dropped (0 flows of 0 members looked at)\n",
      );
      expect(await hub.admin.objects()).toHaveLength(1);
      await expect(remove(context(at(), options, ["svc", "db"]))).rejects.toMatchObject({ code: "EDGE_NOT_FOUND" });
    });

    it("says what is wrong, and then nothing of flows", async () => {
      writeFileSync(file, POLICY.replace("podSelector", "podSelect"));
      expect(await apply(context(at(), { "filename": [file], "dry-run": [""] }))).toBe(1);
      expect(out).toBe("");
      expect(err).toContain("podSelect");
    });
  });

  it("policy dry-run asks the agent of this machine", async () => {
    const bodies: string[] = [];
    const server = createServer((request, response) => {
      let body = `${request.method} ${request.url} `;
      request.on("data", (chunk) => void (body += chunk));
      request.on("end", () => {
        bodies.push(body);
        response.end(JSON.stringify({ apiVersion: "edgemesh/v1", kind: "DryRun", ...answered("x").result }));
      });
    });
    const socket = join(dir, "agent.sock");
    await new Promise<void>((resolve) => void server.listen(socket, resolve));
    try {
      expect(await policyDryRun(context({ socket }, { filename: [file] }))).toBe(0);
    } finally {
      await new Promise<void>((resolve) => void server.close(() => resolve()));
    }
    expect(bodies[0]).toMatch(/^POST \/v1\/policy\/dry-run \{"documents":\[\{.*"closed"/);
    expect(out).toBe("nothing would be newly dropped (7 flows of 1 member looked at)\n");
  });
});

describe("names of kinds", () => {
  it.each([
    ["cnp", "CiliumNetworkPolicy"],
    ["CCNP", "CiliumClusterwideNetworkPolicy"],
    ["networkpolicies", "NetworkPolicy"],
    ["anp", "AdminNetworkPolicy"],
    ["banp", "BaselineAdminNetworkPolicy"],
    ["ciliumcidrgroups", "CiliumCIDRGroup"],
    ["cidrgroup", "CiliumCIDRGroup"],
    ["svc", "Service"],
    ["endpointslices", "EndpointSlice"],
    ["ns", "Namespace"],
    ["Gateway", "Gateway"],
  ])("%s is %s", (word, kind) => expect(kindOf(word)).toBe(kind));

  it("knows which live in a namespace", () => {
    expect(["Service", "CiliumNetworkPolicy", "Gateway"].every(isNamespaced)).toBe(true);
    expect(["Namespace", "CiliumCIDRGroup", "BaselineAdminNetworkPolicy"].some(isNamespaced)).toBe(false);
  });
});
