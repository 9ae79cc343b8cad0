import { dirname } from "node:path";
import { describe, expect, it } from "vitest";
import { policyTest } from "../../../edge/cli/policy_test.ts";
import { policyTrace } from "../../../edge/cli/policy_trace.ts";
import { policyValidate } from "../../../edge/cli/policy_validate.ts";
import { cnp, run, scenario, writeFiles } from "./harness.ts";

const GOOD = cnp({ ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }] }] }] });
const MESH = scenario({
  policies: [GOOD, cnp({ ingressDeny: [{ fromEndpoints: [{}] }] }, "deny")],
  probes: [{ fromIP: "192.0.2.1", to: "shop/db", port: 80, expect: "allow" }],
});

describe("policy validate", () => {
  it("names file, line, object, field and what was meant", async () => {
    const [file] = writeFiles({
      "a.yaml": `${JSON.stringify(GOOD)}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: web, namespace: shop }
spec:
  endpointSelector: {}
  ingress:
    - fromEntity: [world]
    - toPorts: [{ ports: [{ port: "99999" }] }]
`,
    });
    const { code, out } = await run(policyValidate, [file!]);
    const lines = out.split("\n");
    expect(code).toBe(1);
    expect(lines[0]).toMatch(
      /a\.yaml:9: CiliumNetworkPolicy shop\/web: spec\.ingress\[0\]\.fromEntity: Unknown field .*did you mean "fromEntities"/,
    );
    expect(lines[1]).toMatch(/a\.yaml:10: .*spec\.ingress\[1\]\.toPorts\[0\]\.ports\[0\]\.port: .*99999/);
    expect(lines[2]).toBe("2 documents: 1 valid, 1 not");
  });

  it("answers 0 when all is valid, and gives a document to programs", async () => {
    const [file] = writeFiles({ "a.json": JSON.stringify({ kind: "List", items: [GOOD] }), "b.yaml": "" });
    expect(await run(policyValidate, [dirname(file!)])).toMatchObject({ code: 0, out: "1 document: 1 valid, 0 not\n" });
    const { out } = await run(policyValidate, [file!], {}, "json");
    expect(JSON.parse(out)).toMatchObject({
      kind: "ValidationResult",
      documents: 1,
      valid: 1,
      invalid: 0,
      findings: [],
    });
  });

  it("finds an object that is there twice, and text that is none", async () => {
    const [a, b] = writeFiles({ "a.json": JSON.stringify(GOOD), "b.yaml": "a: [1\n" });
    const twice = await run(policyValidate, [a!, a!]);
    expect(twice).toMatchObject({ code: 1, out: expect.stringMatching(/shop\/p is there already: .*a\.json:1/) });
    const broken = await run(policyValidate, [b!], {}, "json");
    expect([broken.code, JSON.parse(broken.out).findings[0].code]).toEqual([1, "BAD_TEXT"]);
  });

  it("answers 2 for a file that is not there, or holds nothing", async () => {
    const [empty] = writeFiles({ "a.yaml": "# nothing\n" });
    await expect(run(policyValidate, ["/nonexistent.yaml"])).rejects.toMatchObject({ exitCode: 2 });
    await expect(run(policyValidate, [empty!])).rejects.toMatchObject({ exitCode: 2 });
    await expect(run(policyValidate, [])).rejects.toMatchObject({ exitCode: 2 });
  });
});

describe("policy test", () => {
  const probe = { from: "shop/web", to: "shop/db", port: 80 };
  const text = (more: Record<string, unknown>) => JSON.stringify(scenario(more));
  const passes = text({ policies: [GOOD], probes: [{ ...probe, expect: "allow" }] });
  const fails = text({ policies: [GOOD], probes: [{ ...probe, expect: "deny" }] });
  const waits = text({ policies: [cnp({ ingress: [{ fromGroups: [{}] }] })], probes: [{ ...probe, expect: "deny" }] });

  it.each([
    ["all passed", passes, {}, 0],
    ["one failed", fails, {}, 1],
    ["one cannot be run", waits, {}, 0],
    ["one cannot be run, and --strict", waits, { strict: "on" }, 1],
    ["one cannot be read", text({ probes: [{ ...probe, expect: "allow", x: 1 }] }), {}, 2],
    ["the text is none", "a: [1", {}, 2],
  ])("ends, when %s, with its code", async (_, content, options, code) => {
    const files = writeFiles({ "s.yaml": content });
    expect((await run(policyTest, files, options)).code).toBe(code);
  });

  it("says where a bad scenario stands, and runs the others", async () => {
    const files = writeFiles({ "s.yaml": "- { id: a, probes: [] }\n- { id: b, probs: [] }\n" });
    const { err, out } = await run(policyTest, files);
    expect(err).toMatch(/s\.yaml:2: \[1\]\.probs: Unknown field "probs"; did you mean "probes"\?/);
    expect(out).toContain("2 scenarios: 1 passed, 1 failed, 0 unsupported");
  });

  it("prints the report as JSON", async () => {
    const { out } = await run(policyTest, writeFiles({ "s.json": fails }), {}, "json");
    expect(JSON.parse(out)).toEqual({
      cases: 1,
      passed: 0,
      failed: 1,
      unsupported: 0,
      contested: { passed: 0, failed: 0, unsupported: 0 },
      probes: { total: 1, passed: 0, failed: 1 },
      failures: [{
        id: "case",
        probe: { ...probe, expect: "deny" },
        expected: "deny",
        got: "allow",
        decidedBy: "CiliumNetworkPolicy shop/p rule 0 (spec.ingress[0])",
      }],
      unsupportedCases: [],
    });
  });
});

describe("policy trace", () => {
  const files = writeFiles({
    "mesh.json": JSON.stringify(MESH),
    "two.yaml": "[{ id: a, probes: [] }, { id: b, probes: [] }]",
  });
  const trace = (from: string, to: string, port: string, output = "text") =>
    run(policyTrace, [], { scenario: files[0]!, from, to, port }, output);

  it("lists each end with its rules and the one that decided", async () => {
    const { code, out } = await trace("shop/web", "shop/db", "80");
    expect(code).toBe(0);
    expect(out).toContain("shop/web -> shop/db TCP port 80\n");
    expect(out).toContain("1. egress of shop/web (open), to identity");
    expect(out).toContain("   allow: nothing closes this direction\n");
    expect(out).toContain("2. ingress of shop/db (closed but for rules), from identity");
    expect(out).toContain(
      "   deny  CiliumNetworkPolicy shop/deny rule 0 (spec.ingressDeny[0])\n   allow  CiliumNetworkPolicy shop/p",
    );
    expect(out).toContain("   deny: decided by CiliumNetworkPolicy shop/deny rule 0 (spec.ingressDeny[0])\n");
    expect(out).toMatch(/Verdict: deny \(181 POLICY_DENY\)\n$/);
  });

  it("shows what a proxy judges by", async () => {
    const rules = { http: [{ method: "GET", path: "/a", headers: ["x-a: b"] }, {}] };
    const [file] = writeFiles({
      "l7.json": JSON.stringify(scenario({
        policies: [cnp({ ingress: [{}, { toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules }] }] })],
        probes: [],
      })),
    });
    const flow = { scenario: file!, from: "shop/web", to: "shop/db", port: "80" };
    const { out } = await run(policyTrace, [], flow);
    expect(out).toContain(
      "   redirect: decided by CiliumNetworkPolicy shop/p rule 1 (spec.ingress[1].toPorts[0])\n" +
        "      HTTP method GET, path /a, header x-a: b  by CiliumNetworkPolicy shop/p rule 1",
    );
    expect(out).toContain("      HTTP any request  by ");
    expect(out).toMatch(/Verdict: redirect\n$/);
    const document = JSON.parse((await run(policyTrace, [], flow, "json")).out);
    expect(document).toMatchObject({ verdict: "redirect", reason: null });
    expect(document.steps[1].l7).toMatchObject([{ kind: "http", requests: [expect.any(String), "HTTP any request"] }]);
  });

  it("takes addresses, of endpoints and of nobody, and names of protocols in any case", async () => {
    const outside = JSON.parse((await trace("192.0.2.1", "10.1.0.2", "80/tcp", "json")).out);
    expect(outside).toMatchObject({
      kind: "PolicyTrace",
      verdict: "allow",
      to: { name: "shop/db" },
      from: { identity: null },
    });
    expect((await trace("192.0.2.1", "shop/db", "icmp")).out).toContain("no rule allows it");
    expect((await trace("shop/db", "shop/db", "1/UDP")).out).toContain("An endpoint always reaches itself");
  });

  it.each([
    [{ from: "shop/wed", to: "shop/db", port: "80" }, 1, /did you mean "shop\/web"/],
    [{ from: "shop/web", to: "shop/db", port: "80/GRE" }, 2, /--port/],
    [{ from: "shop/web", to: "shop/db", port: "99999" }, 2, /--port/],
    [{ from: "shop/web", to: "shop/db", port: "300/ICMP" }, 2, /--port/],
    [{ from: "shop/web", to: "shop/db" }, 2, /--port is missing/],
    [{ from: "shop/web", to: "shop/db", port: "80", id: "other" }, 1, /other/],
  ])("refuses %j", async (options, exitCode, message) => {
    await expect(run(policyTrace, [], { scenario: files[0]!, ...options } as Record<string, string>)).rejects
      .toMatchObject({
        exitCode,
        message: expect.stringMatching(message),
      });
  });

  it("asks which scenario of several, and the agent when none is named", async () => {
    const flow = { from: "reserved:host", to: "reserved:health", port: "4240" };
    await expect(run(policyTrace, [], { scenario: files[1]!, ...flow })).rejects.toMatchObject({ exitCode: 2 });
    expect((await run(policyTrace, [], { scenario: files[1]!, id: "b", ...flow })).out).toContain("Verdict: allow");
    await expect(run(policyTrace, [], flow)).rejects.toMatchObject({ code: "EDGE_AGENT_NOT_RUNNING" });
  });
});
