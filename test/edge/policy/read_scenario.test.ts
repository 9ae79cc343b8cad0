import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readManifest } from "../../../edge/manifest.ts";
import { readScenarios } from "../../../edge/policy/read_scenario.ts";
import { errorsOf, readGood, readText, scenario } from "./harness.ts";

const PROBE = { from: "shop/web", to: "shop/db", port: 80, expect: "allow" };

describe("readScenarios", () => {
  it("takes one scenario, a list, and cases, in JSON and in YAML, several documents too", () => {
    const one = JSON.stringify(scenario({ probes: [] }));
    expect(readText(one)).toHaveLength(1);
    expect(readText(`[${one}, ${one.replace("case", "other")}]`)).toHaveLength(2);
    expect(readText(`{"cases": [${one}]}`)).toHaveLength(1);
    expect(readText(`id: a\nprobes: []\n---\nid: b\nprobes: []\n`)).toHaveLength(2);
  });

  it("fills in defaults, and what a ref says", () => {
    const read = readGood(scenario({
      endpoints: [
        { ref: "shop/web" },
        { ref: "other:bank/db" },
        { ref: "reserved:health" },
        { ref: "node:n1", reserved: ["reserved:host"] },
      ],
      probes: [{ from: "shop/web", toIP: "192.0.2.1", proto: "ICMPv6", expect: "deny" }],
    }));
    expect(read.config).toMatchObject({
      localCluster: "cluster1",
      policyDefaultLocalCluster: true,
      enableL7Proxy: true,
    });
    expect(read.endpoints).toMatchObject([
      { namespace: "shop", name: "web", cluster: "cluster1", reserved: [] },
      { namespace: "bank", name: "db", cluster: "other" },
      { namespace: "", reserved: ["health"] },
      { namespace: "", name: "n1", reserved: ["host"] },
    ]);
    expect(read.question).toMatchObject({ probes: [{ side: "both", isReply: false, port: 128, expect: "deny" }] });
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    ["an unknown field", { probes: [], polices: [] }, /^polices: Unknown field "polices"; did you mean "policies"\?/],
    ["an unknown field of a probe", { probes: [{ ...PROBE, expects: "deny" }] }, /^probes\[0\].expects: .*"expect"/],
    ["an unknown setting", { config: { localcluster: "x" }, probes: [] }, /^config.localcluster: .*"localCluster"/],
    [
      "a mode that is none",
      { config: { enforcementMode: "on" }, probes: [] },
      /config.enforcementMode: "on" is not one/,
    ],
    ["a flavor that is none", { flavor: "calico", probes: [] }, /^flavor: "calico" is not one of cilium, k8s, kcnp/],
    [
      "nobody of that name",
      { probes: [{ ...PROBE, to: "shop/bd" }] },
      /probes\[0\].to: "shop\/bd" .*did you mean "shop\/db"/,
    ],
    [
      "two sources",
      { probes: [{ ...PROBE, fromIP: "10.0.0.1" }] },
      /probes\[0\].from: Probe with both from and fromIP/,
    ],
    ["no source", { probes: [{ ...PROBE, from: undefined }] }, /probes\[0\].from: Probe without from or fromIP/],
    [
      "no address",
      { probes: [{ ...PROBE, from: undefined, fromIP: "10.0.0.300" }] },
      /fromIP: "10.0.0.300" is no IP address/,
    ],
    ["no port", { probes: [{ ...PROBE, port: undefined }] }, /probes\[0\].port: Probe without a port/],
    ["a port of ICMP", { probes: [{ ...PROBE, proto: "ICMP" }] }, /probes\[0\].port: port does not go with ICMP/],
    ["a port that is text", { probes: [{ ...PROBE, port: "80" }] }, /probes\[0\].port: Expected a whole number/],
    ["a protocol in lower case", { probes: [{ ...PROBE, proto: "tcp" }] }, /probes\[0\].proto: .*did you mean "TCP"/],
    [
      "an expectation that is none",
      { probes: [{ ...PROBE, expect: "drop" }] },
      /probes\[0\].expect: "drop" is not one/,
    ],
    ["no question", {}, /Scenario without probes, checks or valid/],
    ["two questions", { probes: [], valid: true }, /Scenario with both probes and valid/],
    [
      "a label that is a number",
      { endpoints: [{ ref: "a/b", labels: { v: 1 } }], probes: [] },
      /labels.v: .*write "1"/,
    ],
    [
      "two endpoints of one ref",
      { endpoints: [{ ref: "a/b" }, { ref: "a/b" }], probes: [] },
      /endpoints\[1\].ref: Two/,
    ],
    ["a pod of no namespace", { endpoints: [{ ref: "b" }], probes: [] }, /"b" is in no namespace/],
    [
      "a reserved label that is none",
      { endpoints: [{ ref: "x", reserved: ["moon"] }], probes: [] },
      /"moon" is no reserved/,
    ],
    [
      "a check without a match",
      { kind: "matchName", pattern: "a", checks: [{ name: "a" }] },
      /checks\[0\].match: Expected/,
    ],
  ])("refuses %s", (_, more, reason) => {
    expect(errorsOf(scenario(more)).join("\n")).toMatch(reason);
  });

  it("refuses a second scenario of the same id, and reads the others of the file", () => {
    const text =
      "- { id: a, probes: [] }\n- { id: a, probes: [] }\n- { id: b, probes: [], x: 1 }\n- { id: c, probes: [] }\n";
    const read = readText(text);
    expect(read.map((one) => "bad" in one ? [one.bad.id, one.bad.errors[0]!.position.line] : one.scenario.id)).toEqual(
      ["a", ["a", 2], ["b", 3], "c"],
    );
  });

  it("never throws, whatever the data", () => {
    const words = fc.constantFrom("id", "probes", "endpoints", "config", "policies", "checks", "kind", "valid", "ref");
    const anything = fc.letrec((tie) => ({
      value: fc.oneof({ maxDepth: 4 }, fc.jsonValue(), fc.array(tie("value")), fc.dictionary(words, tie("value"))),
    })).value;
    fc.assert(fc.property(anything, (value) => {
      const manifest = readManifest(JSON.stringify(value));
      if ("errors" in manifest) return;
      for (const one of readScenarios(manifest.documents)) {
        if ("bad" in one) expect(one.bad.errors.length).toBeGreaterThan(0);
      }
    }));
  });
});
