import { describe, expect, it } from "vitest";
import { runScenario } from "../../../edge/policy/run_scenario.ts";
import { reportLines, reportOf } from "../../../edge/policy/scenario_report.ts";
import { cnp, readGood, scenario } from "./harness.ts";

const OPEN_80 = cnp({ ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }] }] }] });
const DENY_80 = cnp({ ingressDeny: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }] }] }] }, "d");
const probe = (more: Record<string, unknown>) => ({
  from: "shop/web",
  to: "shop/db",
  port: 80,
  expect: "allow",
  ...more,
});
const run = (more: Record<string, unknown>) => runScenario(readGood(scenario(more)));

describe("runScenario", () => {
  it("fails a probe that expects another verdict, and names the rule that decided", () => {
    const { failures, probes, unsupported } = run({
      policies: [OPEN_80],
      probes: [probe({}), probe({ expect: "deny" }), probe({ port: 81 })],
    });
    expect([probes, unsupported]).toEqual([3, undefined]);
    expect(failures).toEqual([
      {
        id: "case",
        probe: probe({ expect: "deny" }),
        probeText: "shop/web -> shop/db TCP/80",
        expected: "deny",
        got: "allow",
        decidedBy: "CiliumNetworkPolicy shop/p rule 0 (spec.ingress[0])",
      },
      expect.objectContaining({ got: "deny (133 POLICY_DENIED)", decidedBy: null }),
    ]);
  });

  it("compares the drop reason and the flow's verdict where they are given", () => {
    const { failures } = run({
      policies: [OPEN_80, DENY_80],
      probes: [
        probe({ expect: "deny", dropReason: 181, verdict: "DROPPED" }),
        probe({ expect: "deny", dropReason: 133 }),
        probe({ expect: "deny", verdict: "AUDIT" }),
        probe({ port: 81, expect: "deny", dropReason: 133 }),
      ],
    });
    expect(failures.map(({ expected, got }) => [expected, got])).toEqual([
      ["deny (133)", "deny (181 POLICY_DENY)"],
      ["deny (AUDIT)", "deny (181 POLICY_DENY)"],
    ]);
  });

  it("asks only the side that is meant, never an end that policies cannot select, never a reply, never a loop", () => {
    const { failures } = run({
      endpoints: [{ ref: "shop/web", labels: { app: "web" } }, { ref: "shop/db", labels: { app: "db" } }, {
        ref: "far:shop/db",
        labels: { app: "db" },
      }],
      policies: [cnp({ ingress: [{}], egress: [{}] })],
      probes: [
        probe({ expect: "deny" }),
        probe({ side: "egress" }),
        probe({ side: "ingress", expect: "deny" }),
        probe({ to: "far:shop/db" }),
        probe({ reply: true }),
        probe({ from: "shop/db" }),
        probe({ from: "shop/db", to: "shop/web", side: "ingress" }),
        probe({ from: "shop/db", to: "shop/web", side: "egress", expect: "deny" }),
      ],
    });
    expect(failures).toEqual([]);
  });

  it("knows an address as the endpoint's that has it", () => {
    const policies = [cnp({ ingress: [{ fromEndpoints: [{ matchLabels: { app: "web" } }] }] })];
    const probes = [
      { fromIP: "10.1.0.1", to: "shop/db", port: 1, expect: "allow" },
      { fromIP: "10.1.0.9", to: "shop/db", port: 1, expect: "deny" },
      { from: "shop/web", toIP: "fd00:0:0::2", port: 1, expect: "allow" },
    ];
    expect(run({ policies, probes }).failures).toEqual([]);
  });

  it("keeps labels of other sources apart from those of Kubernetes", () => {
    const endpoints = [{ ref: "shop/web", labels: { "any:app": "web" } }, {
      ref: "shop/db",
      labels: { "k8s:app": "db" },
    }];
    const from = (key: string) => cnp({ ingress: [{ fromEndpoints: [{ matchLabels: { [key]: "web" } }] }] });
    expect(run({ endpoints, policies: [from("k8s:app")], probes: [probe({ expect: "deny" })] }).failures).toEqual([]);
    expect(run({ endpoints, policies: [from("app")], probes: [probe({})] }).failures).toEqual([]);
  });

  it("fails every probe when a policy is refused, and says why", () => {
    const { failures } = run({ policies: [cnp({ ingres: [] })], probes: [probe({}), probe({ expect: "deny" })] });
    expect(failures).toHaveLength(2);
    expect(failures[1]!.got).toMatch(/^policy refused: CiliumNetworkPolicy shop\/p: spec.*ingres/);
  });

  it("does not run what this release cannot enforce, and says why", () => {
    const groups = cnp({ ingress: [{ fromGroups: [{ aws: {} }] }] });
    expect(run({ policies: [groups], probes: [probe({})] })).toMatchObject({
      unsupported: expect.stringMatching(/^CiliumNetworkPolicy shop\/p: spec.ingress\[0\].fromGroups: .*not supported/),
      failures: [],
    });
    expect(run({ policies: [groups], valid: false }).unsupported).toMatch(/fromGroups/);
    const odd = [{ ref: "shop/web" }, { ref: "shop/db" }, { ref: "x", reserved: ["host", "health"] }];
    expect(run({ endpoints: odd, probes: [probe({})] }).unsupported).toMatch(/host and health/);
  });

  it("asks whether objects are valid", () => {
    expect(run({ policies: [OPEN_80], valid: true }).failures).toEqual([]);
    expect(run({ policies: [OPEN_80, cnp({ ingress: 1 })], valid: false }).failures).toEqual([]);
    expect(run({ policies: [OPEN_80], valid: false }).failures[0]).toMatchObject({
      expected: "refused",
      got: "accepted",
    });
    expect(run({ policies: [cnp({ ingress: 1 })], valid: true }).failures[0]!.got).toMatch(/^refused: .*spec.ingress/);
  });

  it("judges a request by the rules of the proxies on its way, and says how it was answered", () => {
    const policies = [cnp({
      ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules: { http: [{ path: "/a" }] } }] }],
    })];
    const ask = (http: Record<string, unknown>, more: Record<string, unknown> = {}) => probe({ http, ...more });
    const good = [
      ask({ path: "/a" }, { httpStatus: 200 }),
      ask({ path: "/b" }, { expect: "deny", httpStatus: 403, dropReason: 324, verdict: "DROPPED" }),
      ask({ path: "/b", httpStatus: 403 }), // the connection is open
      ask({ path: "/a#x" }, { expect: "deny", httpStatus: 400 }),
      ask({ path: "/a" }, { port: 81, expect: "deny", dropReason: 133 }),
      probe({ verdict: "REDIRECTED" }),
      probe({ dns: { name: "a.test" }, expect: "deny", dnsRcode: "REFUSED" }),
    ];
    expect(run({ policies, probes: good }).failures).toEqual([]);
    const bad = [
      ask({ path: "/b" }),
      ask({ path: "/a" }, { expect: "deny" }),
      ask({ path: "/a" }, { httpStatus: 403 }),
    ];
    expect(run({ policies, probes: bad }).failures.map(({ expected, got, decidedBy }) => [expected, got, decidedBy]))
      .toEqual([
        ["allow", "deny (324 PROXY_REFUSED), answered with 403", expect.stringContaining("spec.ingress[0]")],
        ["deny", "allow, answered with 200", expect.stringContaining("spec.ingress[0]")],
        ["allow (HTTP 403)", "allow, answered with 200", expect.stringContaining("spec.ingress[0]")],
      ]);
    expect(run({ policies, probes: [probe({ sni: "a.test" })] }).unsupported).toMatch(/sni/);
  });

  it("compares names with a pattern", () => {
    const table = (kind: string, pattern: string, match: boolean) =>
      run({
        probes: undefined,
        kind,
        pattern,
        checks: [{ name: "A.test", match }, { name: "no name!", match: false }],
      });
    expect(table("matchPattern", "*.test", true).failures).toEqual([]);
    expect(table("matchName", "a.TEST.", true)).toMatchObject({ failures: [], probes: 2 });
    expect(table("matchPattern", "*.test", false).failures).toMatchObject([{ expected: "no match", got: "match" }]);
    expect(table("matchName", "*.test", true).failures.map(({ got }) => got)).toEqual([
      expect.stringContaining("has a star"),
      expect.stringContaining("has a star"),
    ]);
    expect(table("matchPattern", "..", true).failures).toHaveLength(2);
  });

  it("refuses a group that cannot be read, as it does a policy", () => {
    const cidrGroups = [{ apiVersion: "cilium.io/v2", kind: "CiliumCIDRGroup", metadata: { name: "g" }, spec: {} }];
    expect(run({ cidrGroups, probes: [probe({})] }).failures[0]!.got).toMatch(
      /^policy refused: CiliumCIDRGroup g: spec/,
    );
  });

  it("takes policies of one name as two", () => {
    const policies = [OPEN_80, { ...OPEN_80, spec: { ...DENY_80.spec } }];
    const { failures } = run({ policies, probes: [probe({ expect: "allow" })] });
    expect(failures[0]!.decidedBy).toBe("CiliumNetworkPolicy shop/p (2) rule 0 (spec.ingressDeny[0])");
  });
});

describe("the report", () => {
  const results = [
    runScenario(readGood(scenario({ id: "good", probes: [probe({})] }))),
    runScenario(readGood(scenario({ id: "bad", probes: [probe({}), probe({ expect: "deny" })] }))),
    runScenario(readGood(scenario({ id: "new", policies: [cnp({ ingress: [{ fromGroups: [{}] }] })], probes: [] }))),
    runScenario(readGood(scenario({ id: "open", contested: "two releases", probes: [probe({ expect: "deny" })] }))),
  ];
  const unread = { id: "odd", position: { line: 3, column: 1 }, errors: [] };

  it("counts scenarios and probes, contested ones apart", () => {
    const report = reportOf([{ place: "a", results, bad: [unread] }]);
    expect(report).toMatchObject({
      cases: 4,
      passed: 1,
      failed: 2,
      unsupported: 1,
      contested: { passed: 0, failed: 1 },
      probes: { total: 3, passed: 2, failed: 1 },
      unsupportedCases: [{ id: "new", reason: expect.stringContaining("fromGroups") }],
    });
    expect(report.failures.map(({ id, probe }) => [id, probe === null])).toEqual([["bad", false], ["odd", true]]);
  });

  it("says one line for each failure and each unsupported scenario, then the totals", () => {
    expect(reportLines([{ place: "a", results, bad: [] }])).toEqual([
      "bad · shop/web -> shop/db TCP/80: expected deny, got allow by no rule",
      "contested: open · shop/web -> shop/db TCP/80: expected deny, got allow by no rule",
      expect.stringMatching(/^new · unsupported: .*fromGroups/),
      "3 scenarios: 1 passed, 1 failed, 1 unsupported",
      "3 probes: 2 passed, 1 failed",
      "contested: 0 passed, 1 failed, 0 unsupported",
    ]);
  });
});
