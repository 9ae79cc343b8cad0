import { describe, expect, it } from "vitest";
import type { PolicyFeatures } from "../../../src/policy/features.ts";
import type { Rule } from "../../../src/policy/model.ts";
import { readPolicy } from "../../../src/policy/read_policy.ts";

const HTTP_PORT = { port: "80", protocol: "TCP" };

function rulesOf(spec: Record<string, unknown>, features?: PolicyFeatures): readonly Rule[] {
  const result = readPolicy({
    apiVersion: "cilium.io/v2",
    kind: "CiliumClusterwideNetworkPolicy",
    metadata: { name: "p" },
    spec: { ...(spec["nodeSelector"] === undefined && { endpointSelector: {} }), ...spec },
  }, features);
  if ("errors" in result) throw new Error(JSON.stringify(result.errors, undefined, 2));
  return result.policy.specs.flatMap(({ rules }) => rules);
}

const http = (rule: Record<string, unknown>, features?: PolicyFeatures) =>
  rulesOf({ ingress: [{ toPorts: [{ ports: [HTTP_PORT], rules: { http: [rule] } }] }] }, features)[0]!.l7;

describe("L7 rules", () => {
  it("make a rule of its own of each block, beside one for all other blocks", () => {
    const rules = rulesOf({
      egress: [{
        toEntities: ["world"],
        toPorts: [
          { ports: [{ port: "1", protocol: "TCP" }] },
          { ports: [HTTP_PORT], rules: { http: [{}] } },
          { ports: [{ port: "53" }], rules: { dns: [{ matchName: "A.b" }, { matchPattern: "*" }] } },
          { ports: [{ port: "2", protocol: "TCP" }], rules: {} },
        ],
      }],
    });
    expect(rules.map(({ path, l7 }) => [path, l7])).toEqual([
      ["spec.egress[0]", undefined],
      ["spec.egress[0].toPorts[1]", { kind: "http", rules: [{ headers: [] }] }],
      ["spec.egress[0].toPorts[2]", { kind: "dns", rules: [{ pattern: "a.b." }, { pattern: "*" }] }],
    ]);
    expect(rules.map(({ ports }) => ports!.map((range) => range.first))).toEqual([[1, 2], [80], [53, 53]]);
    expect(rules.every(({ peers }) => peers![0]!.kind === "entity")).toBe(true);
  });

  it("leave no rule for other blocks where there are none", () => {
    const rules = rulesOf({ ingress: [{ toPorts: [{ ports: [HTTP_PORT], rules: { http: [{}] } }] }] });
    expect(rules.map(({ path }) => path)).toEqual(["spec.ingress[0].toPorts[0]"]);
    expect(rules[0]!.peers).toBeUndefined();
  });

  it("let DNS be TCP and UDP only, whatever ANY says", () => {
    const block = {
      ports: [{ port: "53", protocol: "ANY" }, { port: "dns" }],
      rules: { dns: [{ matchPattern: "*" }] },
    };
    const [rule] = rulesOf({ egress: [{ toPorts: [block] }] });
    expect(rule!.ports!.map(({ protocol }) => protocol)).toEqual([6, 17]);
    expect(rule!.names).toEqual([{ name: "dns", protocols: [6, 17] }]);
  });

  it("take ranges and names of ports for HTTP", () => {
    const ports = [{ port: "8000", endPort: 8010, protocol: "TCP" }, { port: "web", protocol: "TCP" }];
    const [rule] = rulesOf({ ingress: [{ toPorts: [{ ports, rules: { http: [{}] } }] }] });
    expect(rule!.ports).toEqual([{ protocol: 6, first: 8000, last: 8010 }]);
    expect(rule!.names).toEqual([{ name: "web", protocols: [6] }]);
  });

  it("reject nothing where enableDefaultDeny is false, in that direction only", () => {
    const entry = (rules: unknown, port: unknown) => [{ toPorts: [{ ports: [port], rules }] }];
    const rules = rulesOf({
      enableDefaultDeny: { egress: false },
      ingress: entry({ http: [{ method: "GET" }] }, HTTP_PORT),
      egress: [
        ...entry({ http: [{ method: "GET" }] }, HTTP_PORT),
        ...entry({ dns: [{ matchName: "a.b" }] }, { port: "53" }),
      ],
    });
    expect(rules.map(({ l7 }) => l7!.rules)).toEqual([
      [{ method: "GET", headers: [] }],
      [{ method: "GET", headers: [] }, { headers: [] }],
      [{ pattern: "a.b." }, { pattern: "*" }],
    ]);
  });

  it("take only DNS on egress for hosts", () => {
    const toPorts = [{ ports: [{ port: "53" }], rules: { dns: [{ matchPattern: "*" }] } }];
    const [rule] = rulesOf({ nodeSelector: { matchLabels: { role: "edge" } }, egress: [{ toPorts }] });
    expect(rule!.l7!.kind).toBe("dns");
  });

  it("read every field of an HTTP rule; an empty expression is none", () => {
    const rule = {
      method: "GET|POST",
      path: "/v[0-9]+/.*",
      host: "",
      headers: ["X-Token", "X-Team: core", "X-Old value of words", "x-many:a:b"],
      headerMatches: [
        { name: "X-Key", value: "1", mismatch: "LOG" },
        { name: "X-There", mismatch: "" },
        { name: "X-Away", mismatch: "DELETE" },
      ],
    };
    expect(http(rule)).toEqual({
      kind: "http",
      rules: [{
        method: "GET|POST",
        path: "/v[0-9]+/.*",
        headers: [
          { name: "x-token" },
          { name: "x-team", value: "core" },
          { name: "x-old", value: "value of words" },
          { name: "x-many", value: "a:b" },
          { name: "x-key", value: "1", mismatch: "LOG" },
          { name: "x-there" },
          { name: "x-away", mismatch: "DELETE" },
        ],
      }],
    });
  });

  it("ask what reads regular expressions about each of them", () => {
    const asked: string[] = [];
    const checkRegex = (source: string) => {
      asked.push(source);
      return source.includes("(") ? "a bracket too many" : undefined;
    };
    http({ method: "GET", path: "/", host: "a" }, { checkRegex });
    expect(asked).toEqual(["GET", "/", "a"]);
    expect(() => http({ path: "/(" }, { checkRegex })).toThrow(
      /spec.ingress\[0\].*http\[0\].path.*a bracket too many/s,
    );
  });

  it("are refused while the proxy is off", () => {
    expect(() => http({}, { l7Proxy: false })).toThrow(/TURNED_OFF/);
    expect(() => http({}, { l7Proxy: true })).not.toThrow();
  });
});
