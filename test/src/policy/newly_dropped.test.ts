import { describe, expect, it } from "vitest";
import { PolicyEngine } from "../../../src/policy/engine.ts";
import { EGRESS, INGRESS, type PolicySettings } from "../../../src/policy/model.ts";
import { newlyDropped, type RecentFlow } from "../../../src/policy/newly_dropped.ts";
import { readPolicy } from "../../../src/policy/read_policy.ts";
import { parseAddress } from "../../../src/ip/address.ts";
import { nameOfVerdict } from "../../../src/verdict.ts";

const WEB = 65_800;
const CLIENT = 65_801;
const labelsOf = (app: string) => ({
  "k8s:app": app,
  "k8s:io.kubernetes.pod.namespace": "default",
  "k8s:io.cilium.k8s.policy.cluster": "edge1",
});

function engineWith(documents: readonly object[], policy: Partial<PolicySettings> = {}): PolicyEngine {
  const engine = new PolicyEngine();
  const settings = { enforcementMode: "default", defaultLocalCluster: true, allowLocalhost: "always" } as const;
  engine.setSettings({ cluster: "edge1", policy: { ...settings, ...policy } });
  engine.setSubject({ labels: labelsOf("web"), identity: WEB, namespace: "default", namedPorts: [] });
  engine.putIdentity(CLIENT, labelsOf("client"));
  for (const document of documents) {
    const result = readPolicy(document);
    if ("errors" in result) throw new Error(JSON.stringify(result.errors));
    engine.putPolicy(`${result.policy.kind}/default/${result.policy.name}`, result.policy);
  }
  engine.takeUpdate();
  return engine;
}

const cilium = (name: string, spec: object) => ({
  apiVersion: "cilium.io/v2",
  kind: "CiliumNetworkPolicy",
  metadata: { name, namespace: "default" },
  spec: { endpointSelector: {}, ...spec },
});
const flow = (changes: Partial<RecentFlow> = {}): RecentFlow => ({
  direction: INGRESS,
  address: parseAddress("10.9.0.3")!,
  identity: CLIENT,
  protocol: 6,
  port: 80,
  ...changes,
});

const fromClients = cilium("clients", {
  ingress: [{
    fromEndpoints: [{ matchLabels: { app: "client" } }],
    toPorts: [{ ports: [{ port: "80", protocol: "TCP" }] }],
  }],
});
const toOffice = cilium("office", { egress: [{ toCIDR: ["192.0.2.0/24"] }] });

describe("newlyDropped", () => {
  it("names flows that pass now and would not, with the rules that decide", () => {
    const deny = cilium("deny", { ingressDeny: [{ fromEntities: ["all"] }] });
    const flows = [flow(), flow({ port: 81 })];
    const { dropped } = newlyDropped(flows, engineWith([fromClients]), engineWith([fromClients, deny]));
    expect(dropped.map(({ flow }) => flow.port)).toEqual([80]); // 81 is dropped already
    const { before, after } = dropped[0]!;
    expect([before.decidedBy?.policy, nameOfVerdict(after.verdict), after.decidedBy?.path]).toEqual([
      "CiliumNetworkPolicy/default/clients",
      "POLICY_DENY",
      "spec.ingressDeny[0]",
    ]);
  });

  it("judges an outside address by each engine's own prefixes", () => {
    const out = (text: string): RecentFlow => {
      const { identity: _inside, ...rest } = flow({ direction: EGRESS, address: parseAddress(text)!, port: 443 });
      return rest;
    };
    const flows = [out("192.0.2.7"), out("198.51.100.7")];
    const { dropped } = newlyDropped(flows, engineWith([]), engineWith([toOffice]));
    expect(dropped.map(({ flow }) => flow)).toEqual([flows[1]]);
    expect(newlyDropped(flows, engineWith([toOffice]), engineWith([])).dropped).toEqual([]);
  });

  it("tells flows that a proxy would judge from those that are dropped", () => {
    const http = cilium("http", {
      ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules: { http: [{ method: "GET" }] } }] }],
    });
    const { dropped, toProxy } = newlyDropped([flow(), flow({ port: 81 })], engineWith([]), engineWith([http]));
    expect([dropped.map(({ flow }) => flow.port), toProxy.map(({ flow }) => flow.port)]).toEqual([[81], [80]]);
  });

  it("counts in audit mode what would be reported", () => {
    const closed = engineWith([fromClients], { auditMode: true });
    const { dropped } = newlyDropped([flow({ port: 81 })], engineWith([], { auditMode: true }), closed);
    expect(dropped.map(({ after }) => [nameOfVerdict(after.verdict), nameOfVerdict(after.audited!)])).toEqual([
      ["FORWARD", "POLICY_DENIED"],
    ]);
    expect(newlyDropped([flow({ port: 81 })], closed, closed).dropped).toEqual([]);
  });
});
