import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type HttpRequest, HttpRuleSet } from "../../../src/l7/http_rules.ts";
import type { RuleRef } from "../../../src/policy/explain.ts";
import type { HeaderMatch, HttpRule } from "../../../src/policy/model.ts";

const REF: RuleRef = {
  index: 0,
  policy: "CiliumNetworkPolicy/a/web",
  path: "spec.ingress[0]",
  verdict: "allow",
  tier: 200,
};
const OTHER: RuleRef = { ...REF, index: 1, policy: "CiliumNetworkPolicy/a/admin" };

function setOf(...rules: HttpRule[]): HttpRuleSet {
  return new HttpRuleSet([{ rule: REF, l7: { kind: "http", rules } }]);
}

function ask(parts: Partial<HttpRequest> = {}): HttpRequest {
  return { method: "GET", path: "/", host: "shop", headers: ["Host", "shop"], ...parts };
}

function allows(rule: Partial<HttpRule>, parts: Partial<HttpRequest> = {}): boolean {
  return setOf({ headers: [], ...rule }).judge(ask(parts)).rule !== undefined;
}

describe("HttpRuleSet", () => {
  it("lets an empty rule match every request, and no rule none", () => {
    expect(allows({})).toBe(true);
    expect(allows({ method: "", path: "", host: "" }, { host: undefined })).toBe(true);
    expect(setOf().judge(ask()).rule).toBeUndefined();
    const dns = new HttpRuleSet([{ rule: REF, l7: { kind: "dns", rules: [{ pattern: "*" }] } }]);
    expect(dns.judge(ask()).rule).toBeUndefined();
  });

  it.each([
    // the cases of Cilium's documentation
    ["/", "/", true],
    ["/", "/public", false],
    ["/public$", "/public", true],
    ["/public$", "/public/x", false],
    ["/public", "/public?x=1", false],
    ["/public.*", "/public?x=1", true],
    ["/path1$", "/path1", true],
    ["/v1/(exterior|interior)", "/v1/interior", true],
    ["/v1/(exterior|interior)", "/v1/interiors", false],
    ["a|/b", "/ab", false],
    ["GET|/x", "/x", true],
  ])("matches path %s against the whole of %s: %s", (path, asked, expected) => {
    expect(allows({ path }, { path: asked })).toBe(expected);
  });

  it("matches method and host over their whole value, and case by case", () => {
    expect(allows({ method: "GET|HEAD" }, { method: "HEAD" })).toBe(true);
    expect(allows({ method: "GET" }, { method: "GETS" })).toBe(false);
    expect(allows({ method: "get" }, { method: "GET" })).toBe(false);
    expect(allows({ host: "shop\\.example" }, { host: "shop.example" })).toBe(true);
    expect(allows({ host: "shop\\.example" }, { host: "shop.example:8080" })).toBe(false);
    expect(allows({ host: ".*" }, { host: undefined })).toBe(false);
  });

  it("wants method, path, host and headers all to hold", () => {
    const rule = { method: "GET", path: "/a", host: "h", headers: [{ name: "X-Key", value: "1" }] };
    const right = { method: "GET", path: "/a", host: "h", headers: ["x-key", "1"] };
    expect(allows(rule, right)).toBe(true);
    for (const wrong of [{ method: "PUT" }, { path: "/b" }, { host: "g" }, { headers: ["x-key", "2"] }]) {
      expect(allows(rule, { ...right, ...wrong })).toBe(false);
    }
  });

  it("compares a header by all its values, and its name without case", () => {
    const twice = { headers: ["X-Key", "1", "x-KEY", "2"] };
    expect(allows({ headers: [{ name: "x-key", value: "1,2" }] }, twice)).toBe(true);
    expect(allows({ headers: [{ name: "x-key", value: "1" }] }, twice)).toBe(false);
    expect(allows({ headers: [{ name: "X-key" }] }, twice)).toBe(true);
    expect(allows({ headers: [{ name: "X-key", value: "" }] }, twice)).toBe(true);
    expect(allows({ headers: [{ name: "X-other" }] }, twice)).toBe(false);
    expect(allows({ headers: [{ name: "host", value: "shop" }] })).toBe(true);
  });

  it("takes rules as alternatives, and names the first that matches and its policy", () => {
    const set = new HttpRuleSet([
      { rule: REF, l7: { kind: "http", rules: [{ path: "/a", headers: [] }] } },
      { rule: OTHER, l7: { kind: "http", rules: [{ path: "/b", headers: [] }, { path: "/.*", headers: [] }] } },
    ]);
    expect(set.judge(ask({ path: "/a" })).rule).toBe(REF);
    expect(set.judge(ask({ path: "/b" })).rule).toBe(OTHER);
    expect(set.policies).toEqual([REF.policy, OTHER.policy]);
  });

  it("lets a rule whose expression cannot be compiled match nothing", () => {
    expect(allows({ path: "(" }, { path: "(" })).toBe(false);
    expect(allows({ path: "/(?=a)a" }, { path: "/a" })).toBe(false);
    expect(allows({ method: "a{2000}" }, { method: "a" })).toBe(false);
    expect(setOf({ path: "(", headers: [] }, { path: "/", headers: [] }).judge(ask()).rule).toBe(REF);
  });
});

describe("a header condition with mismatch", () => {
  const judge = (header: HeaderMatch, headers: string[]) => setOf({ headers: [header] }).judge(ask({ headers }));

  it("lets the request pass in any case, untouched where it holds", () => {
    const headers = ["X-Key", "1"];
    for (const mismatch of ["LOG", "ADD", "DELETE", "REPLACE"] as const) {
      const judgement = judge({ name: "x-key", value: "1", mismatch }, headers);
      expect(judgement).toEqual({ rule: REF, headers, mismatches: [] });
      expect(judgement.headers).toBe(headers);
    }
  });

  it("LOG says it and changes nothing", () => {
    const headers = ["X-Key", "2"];
    const judgement = judge({ name: "X-Key", value: "1", mismatch: "LOG" }, headers);
    expect(judgement.headers).toBe(headers);
    expect(judgement.mismatches).toEqual(["header X-Key is another: LOG"]);
  });

  it("ADD puts the value beside those that are there", () => {
    const judgement = judge({ name: "X-Key", value: "1", mismatch: "ADD" }, ["x-key", "2"]);
    expect(judgement.headers).toEqual(["x-key", "2", "X-Key", "1"]);
  });

  it("REPLACE leaves one header with the value", () => {
    const judgement = judge({ name: "X-Key", value: "1", mismatch: "REPLACE" }, ["x-key", "2", "A", "b", "X-KEY", "3"]);
    expect(judgement.headers).toEqual(["A", "b", "X-Key", "1"]);
    expect(judge({ name: "X-Key", value: "1", mismatch: "REPLACE" }, []).headers).toEqual(["X-Key", "1"]);
  });

  it("DELETE takes away a header with another value, and has nothing to do without one", () => {
    expect(judge({ name: "X-Key", value: "1", mismatch: "DELETE" }, ["x-key", "2", "A", "b"]).headers).toEqual([
      "A",
      "b",
    ]);
    expect(judge({ name: "X-Key", value: "1", mismatch: "DELETE" }, ["A", "b"]).mismatches).toEqual([]);
    expect(judge({ name: "X-Key", mismatch: "DELETE" }, ["A", "b"]).headers).toEqual(["A", "b"]);
  });

  it("acts for every rule that matches, and for none that does not", () => {
    const add = (name: string): HeaderMatch => ({ name, value: "1", mismatch: "ADD" });
    const set = setOf({ path: "/", headers: [] }, { path: "/no", headers: [add("X-No")] }, { headers: [add("X-Yes")] });
    expect(set.judge(ask({ headers: [] })).headers).toEqual(["X-Yes", "1"]);
    expect(set.judge(ask({ headers: [] })).rule).toBe(REF);
  });

  it("touches no header that says how the message is read, and writes none that is no header", () => {
    const headers = ["Content-Length", "5"];
    const cut = judge({ name: "content-length", value: "4", mismatch: "REPLACE" }, headers);
    expect(cut.headers).toBe(headers);
    expect(judge({ name: "X", value: "a\r\nX-Admin: 1", mismatch: "ADD" }, []).rule).toBeUndefined();
    expect(judge({ name: "X: a\r\nY", value: "", mismatch: "ADD" }, []).rule).toBeUndefined();
  });
});

describe("HttpRuleSet against a naive evaluator", () => {
  it("agrees on random rules and requests", () => {
    const word = fc.constantFrom("a", "b", "ab");
    const regex = fc.option(fc.constantFrom("a", "b", "a|b", ".*", "ab?"), { nil: undefined });
    const header = fc.record({ name: fc.constantFrom("x", "Y"), value: fc.option(word, { nil: undefined }) });
    const rules = fc.array(
      fc.record({ method: regex, path: regex, host: regex, headers: fc.array(header, { maxLength: 2 }) }),
      {
        maxLength: 4,
      },
    );
    const request = fc.record({
      method: word,
      path: word,
      host: fc.option(word, { nil: undefined }),
      headers: fc.array(fc.tuple(fc.constantFrom("X", "y"), word), { maxLength: 3 }).map((pairs) => pairs.flat()),
    });
    const isWhole = (source: string | undefined, text: string | undefined) =>
      source === undefined || (text !== undefined && new RegExp(`^(?:${source})$`).test(text));
    const joined = (headers: readonly string[], name: string) =>
      headers.filter((_, i) => i % 2 === 1 && headers[i - 1]!.toLowerCase() === name.toLowerCase());
    fc.assert(fc.property(rules, request, (list, asked) => {
      const expected = list.some((rule) =>
        isWhole(rule.method, asked.method) && isWhole(rule.path, asked.path) && isWhole(rule.host, asked.host) &&
        rule.headers.every(({ name, value }) => {
          const values = joined(asked.headers, name);
          return values.length > 0 && (value === undefined || values.join(",") === value);
        })
      );
      expect(setOf(...list as HttpRule[]).judge(asked).rule !== undefined).toBe(expected);
    }));
  });
});
