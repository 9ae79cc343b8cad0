import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatPrefix } from "../../../src/ip/address.ts";
import { readCidrGroup } from "../../../src/policy/read_cidr_group.ts";

function group(spec: unknown, more: Record<string, unknown> = {}) {
  return { apiVersion: "cilium.io/v2", kind: "CiliumCIDRGroup", metadata: { name: "g" }, spec, ...more };
}

/** document, path of the error, its code, words of its message */
const REFUSED: readonly (readonly [string, unknown, string, string, string])[] = [
  ["a list", [], "", "NOT_AN_OBJECT", "object"],
  ["a policy", { kind: "NetworkPolicy" }, "kind", "UNKNOWN_KIND", "CiliumCIDRGroup"],
  ["no kind", {}, "kind", "MISSING", "CiliumCIDRGroup"],
  ["another version", { ...group({}), apiVersion: "cilium.io/v1" }, "apiVersion", "BAD_VALUE", "v2alpha1"],
  [
    "a namespace",
    group({}, { metadata: { name: "g", namespace: "n" } }),
    "metadata.namespace",
    "CONFLICT",
    "namespace",
  ],
  ["no spec", group(undefined), "spec", "MISSING", "externalCIDRs"],
  ["no prefixes", group({}), "spec.externalCIDRs", "MISSING", "[]"],
  ["a slip", group({ externalCidrs: [] }), "spec.externalCidrs", "UNKNOWN_FIELD", 'did you mean "externalCIDRs"?'],
  ["text for a list", group({ externalCIDRs: "10.0.0.0/8" }), "spec.externalCIDRs", "WRONG_TYPE", "list"],
  ["a bare address", group({ externalCIDRs: ["::1"] }), "spec.externalCIDRs[0]", "BAD_VALUE", '"::1/128"'],
  [
    "a label that is none",
    group({ externalCIDRs: [] }, { metadata: { name: "g", labels: { "a b": "" } } }),
    'metadata.labels["a b"]',
    "BAD_VALUE",
    "label key",
  ],
];

describe("readCidrGroup", () => {
  it.each(["cilium.io/v2", "cilium.io/v2alpha1"])("reads a group of %s", (apiVersion) => {
    const result = readCidrGroup({
      ...group({ externalCIDRs: ["192.0.2.7/24", "2001:db8::/32"] }),
      apiVersion,
      metadata: { name: "g", labels: { team: "core", empty: null } },
      status: {},
    });
    if ("errors" in result) throw new Error(JSON.stringify(result.errors));
    const { name, labels, prefixes } = result.group;
    expect([name, labels, prefixes.map(formatPrefix)])
      .toEqual(["g", { team: "core", empty: "" }, ["192.0.2.0/24", "2001:db8::/32"]]);
  });

  it.each(REFUSED)("refuses %s", (_, document, path, code, words) => {
    const result = readCidrGroup(document);
    const errors = "errors" in result ? result.errors : [];
    expect(errors.map((e) => `${e.path} ${e.code}`)).toContain(`${path} ${code}`);
    expect(errors.find((e) => e.path === path && e.code === code)!.message).toContain(words);
  });

  it("never throws, and never half reads", () => {
    const junk = fc.anything({ withNullPrototype: true, withBigInt: true, withDate: true, withMap: true });
    fc.assert(
      fc.property(junk, fc.constantFrom("spec", "metadata", "kind", "externalCIDRs", "labels"), (value, at) => {
        const document: Record<string, unknown> = { ...group({ externalCIDRs: ["10.0.0.0/8"] }) };
        if (at === "externalCIDRs") document["spec"] = { externalCIDRs: value };
        else if (at === "labels") document["metadata"] = { name: "g", labels: value };
        else document[at] = value;
        for (const one of [value, document]) {
          const result = readCidrGroup(one);
          if ("errors" in result) expect(result.errors.length).toBeGreaterThan(0);
          else expect(result.group.name).not.toBe("");
        }
      }),
      { numRuns: 2000 },
    );
  });
});
