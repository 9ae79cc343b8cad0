import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Bitset } from "../../../src/hub/bitset.ts";
import { computeViews } from "../../../src/hub/visibility.ts";
import { labelsOfMember } from "../../../src/identity/member_labels.ts";
import type { Policy } from "../../../src/policy/model.ts";
import { Reach } from "../../support/reach.ts";
import { readPolicy } from "../../../src/policy/read_policy.ts";
import { documentArb, labelsOf, makeSources, memberArb, settingsArb } from "../policy/generate.ts";

const settings = { enforcementMode: "default", defaultLocalCluster: true, allowLocalhost: "always" } as const;
const names = ["web", "client", "db", "other"];
const classes = names.map((app, i) => ({
  identity: 65792 + i,
  labels: labelsOfMember({ cluster: "edge1", namespace: "default", namespaceLabels: {}, labels: { app } }),
}));

function policy(kind: string, name: string, spec: unknown): Policy {
  const apiVersion = kind === "NetworkPolicy" ? "networking.k8s.io/v1" : "cilium.io/v2";
  const metadata = kind.includes("Clusterwide") ? { name } : { name, namespace: "default" };
  return readOne({ apiVersion, kind, metadata, spec });
}

function readOne(document: unknown): Policy {
  const result = readPolicy(document, { nodeSelectorLabels: true });
  if ("errors" in result) throw new Error(JSON.stringify(result.errors));
  return result.policy;
}

const app = (name: string) => ({ matchLabels: { app: name } });
const ingressFrom = (to: string, ...from: string[]) =>
  policy("NetworkPolicy", `to-${to}`, {
    podSelector: app(to),
    ingress: from.length === 0 ? [] : [{ from: from.map((name) => ({ podSelector: app(name) })) }],
  });

/** Who sees whom, as "a-b" with a before b. */
function pairs(
  policies: Policy[],
  over: Partial<typeof settings> & { enforcementMode?: "always" | "never" } = {},
): string[] {
  const views = computeViews(classes, policies, { ...settings, ...over }, "edge1");
  const seen: string[] = [];
  views.forEach((view, i) => {
    for (let j = 0; j < i; j++) {
      const sees = view.peers?.has(j) ?? true;
      expect(views[j]!.peers?.has(i) ?? true).toBe(sees);
      if (sees) seen.push([names[i]!, names[j]!].sort().join("-"));
    }
  });
  return seen.sort();
}
const ALL = ["client-db", "client-other", "client-web", "db-other", "db-web", "other-web"];

describe("computeViews", () => {
  it("shows everybody to everybody while no policy closes anything", () => {
    const views = computeViews(classes, [], settings, "edge1");
    expect(views.every((view) => view.peers === undefined && view.identities === undefined)).toBe(true);
  });

  it("gives each class the policies that select it, in order", () => {
    const all = policy("CiliumClusterwideNetworkPolicy", "everybody", {
      endpointSelector: {},
      enableDefaultDeny: { ingress: false, egress: false },
      ingress: [{ fromEntities: ["cluster"] }],
    });
    const views = computeViews(classes, [ingressFrom("web", "client"), all], settings, "edge1");
    expect(views[0]!.policies).toEqual(["CiliumClusterwideNetworkPolicy//everybody", "NetworkPolicy/default/to-web"]);
    expect(views[1]!.policies).toEqual(["CiliumClusterwideNetworkPolicy//everybody"]);
  });

  it("a closed ingress still talks outward, so its peers stay", () => {
    expect(pairs([ingressFrom("web", "client")])).toEqual(ALL);
  });

  it("hides those between which both directions are closed", () => {
    const closed = policy("NetworkPolicy", "web", {
      podSelector: app("web"),
      policyTypes: ["Ingress", "Egress"],
      ingress: [{ from: [{ podSelector: app("client") }], ports: [{ port: 80 }] }],
    });
    expect(pairs([closed])).toEqual(ALL.filter((pair) => !pair.includes("web") || pair === "client-web"));
  });

  it("needs both ends to agree on a direction", () => {
    const webOut = policy("NetworkPolicy", "web", {
      podSelector: app("web"),
      policyTypes: ["Ingress", "Egress"],
      egress: [{ to: [{ podSelector: app("db") }] }],
    });
    expect(pairs([webOut, ingressFrom("db", "client")])).not.toContain("db-web");
    expect(pairs([webOut, ingressFrom("db", "web")])).toContain("db-web");
  });

  it("a deny of everything hides, one of some ports does not", () => {
    const deny = (toPorts?: unknown) =>
      policy("CiliumNetworkPolicy", "deny", {
        endpointSelector: app("web"),
        enableDefaultDeny: { ingress: false, egress: false },
        ingressDeny: [{ fromEndpoints: [app("other")], ...(toPorts ? { toPorts } : {}) }],
        egressDeny: [{ toEndpoints: [app("other")] }],
      });
    expect(pairs([deny()])).toEqual(ALL.filter((pair) => pair !== "other-web"));
    expect(pairs([deny([{ ports: [{ port: "80", protocol: "TCP" }] }])])).toEqual(ALL);
  });

  it("entities that hold members let them in, others do not", () => {
    const from = (entity: string) =>
      policy("CiliumNetworkPolicy", "web", {
        endpointSelector: app("web"),
        ingress: [{ fromEntities: [entity] }],
        egress: [{ toEntities: ["world"] }],
      });
    expect(pairs([from("cluster")])).toEqual(ALL);
    expect(pairs([from("world")])).toEqual(ALL.filter((pair) => !pair.includes("web")));
  });

  it("follows the enforcement mode", () => {
    const closed = policy("NetworkPolicy", "all", { podSelector: {}, policyTypes: ["Ingress", "Egress"] });
    expect(pairs([closed])).toEqual([]);
    expect(pairs([closed], { enforcementMode: "never" } as never)).toEqual(ALL);
    expect(pairs([], { enforcementMode: "always" } as never)).toEqual([]);
  });

  it("names the identities that own policies can match, also where the other end is closed", () => {
    const out = policy("NetworkPolicy", "web", {
      podSelector: app("web"),
      policyTypes: ["Ingress", "Egress"],
      egress: [{ to: [{ podSelector: app("db") }] }],
    });
    const views = computeViews(classes, [out, ingressFrom("db")], settings, "edge1");
    expect(views[0]!.peers!.has(2)).toBe(false);
    expect(views[0]!.identities!.has(2)).toBe(true);
    expect(views[0]!.identities!.has(1)).toBe(false);
  });

  it("is symmetric and agrees with a naive answer on random policies", () => {
    const subset = fc.subarray(names);
    const one = fc.record({
      to: fc.constantFrom(...names),
      from: subset,
      out: subset,
      direction: fc.constantFrom(0, 1, 2),
    });
    fc.assert(fc.property(fc.array(one, { maxLength: 6 }), (specs) => {
      const policies = specs.map(({ to, from, out, direction }, i) =>
        policy("NetworkPolicy", `p${i}`, {
          podSelector: app(to),
          policyTypes: [["Ingress"], ["Egress"], ["Ingress", "Egress"]][direction],
          ...(direction !== 1 && from.length > 0 &&
            { ingress: [{ from: from.map((name) => ({ podSelector: app(name) })) }] }),
          ...(direction !== 0 && out.length > 0 &&
            { egress: [{ to: out.map((name) => ({ podSelector: app(name) })) }] }),
        })
      );
      const lets = (direction: 0 | 1, subject: string, peer: string) => {
        const own = specs.filter((s) => s.to === subject && (s.direction === 2 || s.direction === direction));
        return own.length === 0 || own.some((s) => (direction === 0 ? s.from : s.out).includes(peer));
      };
      const passes = (a: string, b: string) => lets(1, a, b) && lets(0, b, a);
      const expected = ALL.filter((pair) => {
        const [a, b] = pair.split("-") as [string, string];
        return passes(a, b) || passes(b, a);
      });
      expect(pairs(policies)).toEqual(expected);
    }));
  });
});

describe("Bitset", () => {
  it("is a set of numbers", () => {
    fc.assert(fc.property(fc.array(fc.nat(99)), fc.array(fc.nat(99)), (a, b) => {
      const set = new Bitset(100);
      for (const n of a) set.add(n);
      const other = new Bitset(100);
      for (const n of b) other.add(n);
      const wide = new Bitset(200);
      for (const n of a) wide.add(n);
      expect(wide.toKey()).toBe(set.toKey());
      set.removeAll(other);
      const expected = new Set(a.filter((n) => !b.includes(n)));
      for (let n = 0; n < 140; n++) expect(set.has(n)).toBe(expected.has(n));
      set.addAll(other);
      for (const n of b) set.remove(n);
      for (let n = 0; n < 140; n++) expect(set.has(n)).toBe(expected.has(n));
      set.fill();
      for (let n = 0; n < 140; n++) expect(set.has(n)).toBe(n < 100);
    }));
  });

  it("reopens what a normal deny closes where the admin tier accepts it, and hides nothing under audit mode", () => {
    const deny = policy("CiliumNetworkPolicy", "deny", {
      endpointSelector: app("web"),
      ingressDeny: [{ fromEndpoints: [{}] }],
      egressDeny: [{ toEndpoints: [{}] }],
    });
    const accept = (tier: string) =>
      readOne({
        apiVersion: "policy.networking.k8s.io/v1alpha2",
        kind: "ClusterNetworkPolicy",
        metadata: { name: "admin" },
        spec: {
          tier,
          priority: 1,
          subject: { namespaces: {} },
          ingress: [{ action: "Accept", from: [{ pods: { podSelector: app("db") } }] }],
        },
      });
    const hidden = ALL.filter((pair) => !pair.includes("web"));
    expect(pairs([deny])).toEqual(hidden);
    expect(pairs([deny, accept("Baseline")])).toEqual(hidden);
    expect(pairs([deny, accept("Admin")])).toEqual([...hidden, "db-web"].sort());
    expect(pairs([deny], { auditMode: true } as never)).toEqual(ALL);
  });

  it("sends a policy for hosts to all with the host firewall, and to nobody without", () => {
    const hosts = policy("CiliumClusterwideNetworkPolicy", "hosts", {
      nodeSelector: { matchLabels: { zone: "a" } },
      ingress: [{ fromEntities: ["health"] }],
      egress: [{ toEntities: ["health"] }],
    });
    const views = (hostFirewall: boolean) => computeViews(classes, [hosts], { ...settings, hostFirewall }, "edge1");
    expect(views(true).map((view) => [view.policies, view.peers])).toEqual(
      classes.map(() => [["CiliumClusterwideNetworkPolicy//hosts"], undefined]),
    );
    expect(views(false).map(({ policies }) => policies)).toEqual(classes.map(() => []));
  });

  it("never hides two members between whom any packet may pass, on random policies of all kinds", () => {
    let hidden = 0;
    const world = fc.record({
      settings: settingsArb,
      documents: fc.array(documentArb, { maxLength: 6 }),
      members: fc.array(memberArb, { minLength: 2, maxLength: 6 }),
    });
    fc.assert(
      fc.property(world, ({ settings, documents, members }) => {
        const policies = documents.map(readOne);
        const reach = new Reach(policies, settings, makeSources());
        const views = computeViews(
          members.map((member, i) => ({ identity: 65_792 + i, labels: labelsOf(member) })),
          policies,
          settings.policy,
          settings.cluster,
        );
        const asMember = (at: number) => ({
          labels: labelsOf(members[at]!),
          namedPorts: members[at]!.namedPorts,
          nodeLabels: members[at]!.labels,
        });
        for (let a = 0; a < members.length; a++) {
          for (let b = 0; b < a; b++) {
            const sees = views[a]!.peers?.has(b) ?? true;
            if (!sees) hidden++;
            if (!sees) expect(reach.mayTalk(asMember(a), asMember(b))).toBe(false);
          }
        }
      }),
      { seed: 7, numRuns: 600 },
    );
    expect(hidden).toBeGreaterThan(100);
  });
});
