import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { labelsOfMember } from "../../src/identity/member_labels.ts";
import { keyOfPolicy, type Policy } from "../../src/policy/model.ts";
import { Reach } from "./reach.ts";
import { readPolicy } from "../../src/policy/read_policy.ts";
import { REDIRECT } from "../../src/verdict.ts";
import { documentArb, labelsOf, makeSources, memberArb, settingsArb } from "../src/policy/generate.ts";
import { judge, type Other } from "../src/policy/naive.ts";

function read(document: unknown): Policy {
  const result = readPolicy(document, { nodeSelectorLabels: true });
  if ("errors" in result) throw new Error(JSON.stringify(result.errors));
  return result.policy;
}

const PORTS = [0, 7, 8, 9, 52, 53, 54, 78, 79, 80, 81, 82, 127, 128, 129, 442, 443, 444, 65534, 65535];
const PROTOCOLS = [6, 17, 132, 1, 58, 47];

describe("Reach", () => {
  it("finds exactly those pairs between which the naive evaluator lets some protocol and port through", () => {
    let open = 0;
    let closed = 0;
    fc.assert(
      fc.property(
        settingsArb,
        fc.array(documentArb, { maxLength: 5 }),
        memberArb,
        memberArb,
        (settings, documents, m, n) => {
          const docs = [...new Map(documents.map((d) => [keyOfPolicy(read(d)), d])).values()];
          const [a, b] = [m, n].map((one) => ({
            labels: labelsOf({ ...one, cluster: "c1" }),
            namedPorts: one.namedPorts,
          }));
          const subject = (one: Other) => ({ ...one, identity: 0, namespace: "" });
          const flows = PROTOCOLS.flatMap((protocol) => PORTS.map((port) => ({ protocol, port })));
          const isOpen = (verdict: number) => verdict === 0 || verdict === REDIRECT;
          const starts = (from: Other, to: Other) =>
            flows.some((flow) =>
              isOpen(judge(docs, subject(from), settings, to, { ...flow, direction: 1 })) &&
              isOpen(judge(docs, subject(to), settings, from, { ...flow, direction: 0 }))
            );
          const reach = new Reach(docs.map(read), settings, makeSources());
          const expected = starts(a!, b!) || starts(b!, a!);
          expected ? open++ : closed++;
          expect(reach.mayTalk(a!, b!)).toBe(expected);
          expect(reach.mayTalk(b!, a!)).toBe(expected);
        },
      ),
      { seed: 5, numRuns: 400 },
    );
    expect(Math.min(open, closed)).toBeGreaterThan(20);
  });

  it("needs one port that both ends agree on", () => {
    const policy = (name: string, app: string, section: string, port: string) =>
      read({
        apiVersion: "cilium.io/v2",
        kind: "CiliumNetworkPolicy",
        metadata: { name, namespace: "shop" },
        spec: { endpointSelector: { matchLabels: { app } }, [section]: [{ toPorts: [{ ports: [{ port }] }] }] },
      });
    const member = (app: string) => ({
      labels: labelsOfMember({ cluster: "c1", namespace: "shop", namespaceLabels: {}, labels: { app } }),
      namedPorts: [],
    });
    const settings = {
      cluster: "c1",
      policy: { enforcementMode: "default", defaultLocalCluster: true, allowLocalhost: "always" },
    } as const;
    const closed = [
      policy("a", "web", "egress", "80"),
      policy("b", "db", "ingress", "81"),
      policy("c", "db", "egress", "9"),
      policy("d", "web", "ingress", "10"),
    ];
    expect(new Reach(closed, settings).mayTalk(member("web"), member("db"))).toBe(false);
    expect(new Reach([...closed, policy("e", "web", "egress", "81")], settings).mayTalk(member("web"), member("db")))
      .toBe(true);
  });

  it("asks little for a thousand members of few identities", () => {
    const reach = new Reach([], {
      cluster: "c1",
      policy: { enforcementMode: "always", defaultLocalCluster: true, allowLocalhost: "always" },
    });
    const members = Array.from({ length: 1000 }, (_, i) => ({
      labels: labelsOfMember({ cluster: "c1", namespace: "shop", namespaceLabels: {}, labels: { app: `a${i % 10}` } }),
      namedPorts: [],
    }));
    let open = 0;
    for (const a of members) for (const b of members) if (reach.mayTalk(a, b)) open++;
    expect(open).toBe(0);
  });
});
