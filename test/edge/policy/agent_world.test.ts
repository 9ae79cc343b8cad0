import { expect, it } from "vitest";
import { makeApp } from "../../../edge/agent/http.ts";
import { type AgentReader, readAgentWorld } from "../../../edge/policy/agent_world.ts";
import { traceFlow } from "../../../edge/policy/trace.ts";
import { entriesOf } from "../../src/mesh/fixtures.ts";
import { type FakeAgent, makeAgent } from "../agent/fakes.ts";

function readerOf(fake: FakeAgent): AgentReader {
  const app = makeApp(fake.agent, "loopback", { leave: () => Promise.resolve(undefined) });
  return {
    get: async <T>(path: string) =>
      await (await app.request(`http://x${path}`, { headers: { host: "127.0.0.1:9780" } })).json() as T,
  };
}

const POLICY = {
  apiVersion: "cilium.io/v2",
  kind: "CiliumNetworkPolicy",
  metadata: { name: "p", namespace: "default" },
  spec: {
    endpointSelector: { matchLabels: { app: "app2" } },
    ingress: [{
      fromEndpoints: [{ matchLabels: { app: "app3" } }],
      toPorts: [{ ports: [{ port: "80", protocol: "TCP" }] }],
    }],
  },
};

it("a running agent's state answers what its datapath would", async () => {
  const fake = makeAgent();
  await fake.agent.start();
  const reader = readerOf(fake);
  await expect(readAgentWorld(reader)).rejects.toMatchObject({ code: "EDGE_NOT_FOUND" });
  fake.source.sink!.apply({
    t: "snapshot",
    epoch: "e",
    revision: 5,
    entries: [...entriesOf(1, 2, 3), ["policy/CiliumNetworkPolicy/default/p", POLICY]],
  });
  const { world, named, refused } = await readAgentWorld(reader);
  expect(refused).toEqual([]);
  const ask = (from: string, port: number) =>
    traceFlow(world, { from: named.get(from)!, to: named.get("m2")!, protocol: 6, port, side: "both" });
  expect(ask("m3", 80)).toMatchObject({
    verdict: "allow",
    steps: [{ side: "egress", endpoint: "edge1/m3" }, { side: "ingress", decidedBy: { path: "spec.ingress[0]" } }],
  });
  expect(ask("edge1/m3", 81)).toMatchObject({ verdict: "deny", reason: { code: 133, name: "POLICY_DENIED" } });
  expect(ask("m1", 80).verdict).toBe("deny");
  expect(ask("reserved:host", 80).verdict).toBe("allow");
});

it("counts of rules come with the revision that they belong to", async () => {
  const fake = makeAgent();
  await fake.agent.start();
  fake.source.sink!.apply({
    t: "snapshot",
    epoch: "e",
    revision: 5,
    entries: [...entriesOf(1, 2, 3), ["policy/CiliumNetworkPolicy/default/p", POLICY]],
  });
  const reader = readerOf(fake);
  type Answer = {
    undecidedHits: number | null;
    policies: { rules: { path: string; verdict: string; hits: number | null }[] }[];
  };
  const before = await reader.get<Answer>("/v1/policies");
  expect([before.undecidedHits, before.policies[0]!.rules[0]!.hits]).toEqual([null, null]);
  const [rule] = fake.agent.doors.policies.rules().filter(({ path }) => path === "spec.ingress[0]");
  const ruleHits = new Float64Array(8);
  ruleHits[0] = 3;
  ruleHits[rule!.index + 1] = 41;
  fake.link.snapshot = { ...fake.link.snapshot, policyRevision: fake.agent.doors.policies.revision, ruleHits };
  const after = await reader.get<Answer>("/v1/policies");
  expect(after.undecidedHits).toBe(3);
  expect(after.policies[0]!.rules).toEqual([{ path: "spec.ingress[0]", verdict: "allow", hits: 41 }]);
});

it("CIDR groups and services that a policy means are those of the agent", async () => {
  const fake = makeAgent();
  await fake.agent.start();
  const policy = {
    apiVersion: "cilium.io/v2",
    kind: "CiliumNetworkPolicy",
    metadata: { name: "out", namespace: "default" },
    spec: {
      endpointSelector: { matchLabels: { app: "app2" } },
      egress: [
        { toCIDRSet: [{ cidrGroupRef: "office" }] },
        { toServices: [{ k8sService: { serviceName: "db", namespace: "shop" } }] },
      ],
    },
  };
  const office = {
    apiVersion: "cilium.io/v2",
    kind: "CiliumCIDRGroup",
    metadata: { name: "office" },
    spec: { externalCIDRs: ["192.0.2.0/24"] },
  };
  fake.source.sink!.apply({
    t: "snapshot",
    epoch: "e",
    revision: 5,
    entries: [
      ...entriesOf(1, 2, 3),
      ["policy/CiliumNetworkPolicy/default/out", policy],
      ["cidrgroup/office", office],
      ["service/shop/db", { labels: {}, addresses: ["198.51.100.7"] }],
    ],
  });
  const { world, named } = await readAgentWorld(readerOf(fake));
  const verdictTo = (address: Uint8Array) => {
    const flow = { from: named.get("m2")!, to: { address }, protocol: 6, port: 443, side: "both" as const };
    return traceFlow(world, flow).verdict;
  };
  expect(verdictTo(Uint8Array.of(192, 0, 2, 9))).toBe("allow");
  expect(verdictTo(Uint8Array.of(198, 51, 100, 7))).toBe("allow");
  expect(verdictTo(Uint8Array.of(198, 51, 100, 8))).toBe("deny");
});
