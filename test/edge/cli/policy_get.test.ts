import { createServer } from "node:http";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { PoliciesDocument } from "../../../edge/agent/documents.ts";
import type { CommandContext } from "../../../edge/cli/context.ts";
import { policyGet } from "../../../edge/cli/policy.ts";

const DOCUMENT: PoliciesDocument = {
  apiVersion: "edgemesh/v1",
  kind: "Policies",
  isReady: true,
  revision: 4,
  enforcement: { ingress: true, egress: false },
  settings: {
    cluster: "lab",
    enforcementMode: "always",
    defaultLocalCluster: true,
    allowLocalhost: "always",
    auditMode: true,
  },
  undecidedHits: 7,
  policies: [{
    kind: "CiliumNetworkPolicy",
    namespace: "shop",
    name: "web",
    state: "enforced",
    reason: null,
    selectsSelf: true,
    rules: [{ path: "spec.ingress[0]", verdict: "allow", hits: 41 }, {
      path: "spec.ingressDeny[0]",
      verdict: "deny",
      hits: null,
    }],
    document: {},
  }],
  cidrGroups: [{ name: "office", document: { spec: { externalCIDRs: ["192.0.2.0/24", "2001:db8::/32"] } } }],
  services: [
    { namespace: "shop", name: "db", labels: {}, selector: { app: "db" }, addresses: [] },
    { namespace: "shop", name: "old", labels: {}, selector: null, addresses: [] },
  ],
};

const server = createServer((_, response) => response.end(JSON.stringify(DOCUMENT)));
const socket = join(mkdtempSync(join(tmpdir(), "edgemesh-get-")), "agent.sock");
beforeEach(() => new Promise<void>((resolve) => void server.listen(socket, resolve)));
afterEach(() => new Promise<void>((resolve) => void server.close(() => resolve())));

async function get(output: string): Promise<string> {
  let text = "";
  const terminal = { out: (more: string) => void (text += more) };
  const config = { socket, timeoutMs: 5000, output };
  await policyGet({ loaded: { config }, terminal } as unknown as CommandContext);
  return text;
}

it("policy get lists policies; -o wide each rule with its hits, and what no rule decided", async () => {
  expect(await get("text")).not.toContain("HITS");
  const lines = (await get("wide")).split("\n");
  expect(lines[0]).toBe(
    "revision 4: ingress closed but for rules, egress open; audit mode: nothing is dropped, only reported; enforcement always",
  );
  expect(lines.slice(4)).toEqual([
    "POLICY                        RULE                 ACTION  HITS",
    "CiliumNetworkPolicy shop/web  spec.ingress[0]      allow   41",
    "CiliumNetworkPolicy shop/web  spec.ingressDeny[0]  deny    ?",
    "no rule                       -                    -       7",
    "",
    "KIND             NAMESPACE  NAME    MEANS",
    "CiliumCIDRGroup  -          office  192.0.2.0/24, 2001:db8::/32",
    "Service          shop       db      members with app=db",
    "Service          shop       old     nobody",
    "",
  ]);
  expect(JSON.parse(await get("json")).policies[0].rules[0].hits).toBe(41);
});
