import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type ManifestDocument,
  type ManifestError,
  MAX_DEPTH,
  MAX_DOCUMENTS,
  MAX_MANIFEST_BYTES,
  readManifest,
} from "../../edge/manifest.ts";
import { readPolicy } from "../../src/policy/read_policy.ts";

function documentsOf(text: string): readonly ManifestDocument[] {
  const result = readManifest(text);
  if ("errors" in result) throw new Error(JSON.stringify(result.errors));
  return result.documents;
}

function errorsOf(text: string): readonly ManifestError[] {
  const result = readManifest(text);
  return "errors" in result ? result.errors : [];
}

const POLICY = `# a comment
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: p, namespace: shop }
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: web
  ingress:
  - from:
    - podSelector: {}
    ports:
    - port: http
      endPort: 90
`;

describe("readManifest", () => {
  it("reads YAML and JSON alike", () => {
    const [yaml] = documentsOf(POLICY);
    const [json] = documentsOf(JSON.stringify(yaml!.value));
    expect(json!.value).toEqual(yaml!.value);
    expect("policy" in readPolicy({ ...(yaml!.value as object), spec: { podSelector: {} } })).toBe(true);
  });

  it("takes many documents and lists apart, and leaves empty ones out", () => {
    const list = "kind: List\nitems:\n- kind: A\n- kind: B\n";
    const documents = documentsOf(`---\n# nothing\n---\nkind: X\n---\n${list}---\n`);
    expect(documents.map((d) => (d.value as { kind: string }).kind)).toEqual(["X", "A", "B"]);
    expect(documents.map((d) => d.position.line)).toEqual([4, 8, 9]);
    expect(documentsOf("")).toEqual([]);
    expect(documentsOf("# only a comment\n")).toEqual([]);
  });

  it("points a policy's error at its line and column", () => {
    const [document] = documentsOf(POLICY);
    const result = readPolicy(document!.value);
    const error = "errors" in result ? result.errors[0]! : undefined;
    expect(error?.path).toBe("spec.ingress[0].ports[0].endPort");
    expect(document!.positionOf(error!.path)).toEqual({ line: 14, column: 7 });
  });

  it("points at quoted names, and at the nearest field above one that is missing", () => {
    const [document] = documentsOf(POLICY);
    expect(document!.positionOf('spec.podSelector.matchLabels["app.kubernetes.io/name"]')).toEqual({
      line: 8,
      column: 7,
    });
    expect(document!.positionOf("spec.ingress[0].to")).toEqual(document!.positionOf("spec.ingress[0]"));
    expect(document!.positionOf("status.x")).toEqual({ line: 2, column: 1 });
    expect(document!.positionOf("")).toEqual({ line: 2, column: 1 });
  });

  it("follows aliases and merge keys to values and positions", () => {
    const [document] = documentsOf("base: &b { app: web }\nspec:\n  <<: *b\n  labels: *b\n");
    expect(document!.value).toEqual({ base: { app: "web" }, spec: { app: "web", labels: { app: "web" } } });
    expect(document!.positionOf("spec.labels.app")).toEqual({ line: 1, column: 12 });
  });

  it.each([
    ["broken syntax", "a: [1, 2\n", 2],
    ["a name twice", "a: 1\na: 2\n", 2],
    ["a tag that nobody knows", "a: !secret x\n", 1],
    ["a field name that is a list", "? [a, b]\n: 1\n", 1],
    ["binary data", "a: 1\nb: !!binary aGVsbG8=\n", 2],
    ["an alias to nothing", "a: 1\nb: *nobody\n", 2],
  ])("refuses %s with its line", (_, text, line) => {
    const errors = errorsOf(text);
    expect(errors.length).toBeGreaterThan(0);
    expect(errors[0]!.position.line).toBe(line);
    expect(errors[0]!.message).not.toContain("\n");
  });

  it("gives no document when any is broken", () => {
    expect("documents" in readManifest("kind: A\n---\na: [\n")).toBe(false);
  });

  it("refuses an alias bomb without expanding it", () => {
    let text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
    for (let i = 1; i < 12; i++) text += `a${i}: &a${i} [${new Array(10).fill(`*a${i - 1}`).join(",")}]\n`;
    expect(errorsOf(text)[0]!.message).toContain("aliases");
  });

  it("refuses an alias inside its own anchor", () => {
    expect(errorsOf("a: &a [1, *a]\n").length).toBeGreaterThan(0);
  });

  it("refuses what is too large, too deep or too many", () => {
    expect(errorsOf("x".repeat(MAX_MANIFEST_BYTES + 1))[0]!.message).toContain("larger");
    expect(errorsOf("\u00e9".repeat(MAX_MANIFEST_BYTES - 1))[0]!.message).toContain("larger");
    expect(errorsOf("[".repeat(100_000)).length).toBe(1);
    expect(errorsOf("[".repeat(MAX_DEPTH + 2) + "]".repeat(MAX_DEPTH + 2))[0]!.message).toContain("deeper");
    expect(documentsOf("[".repeat(MAX_DEPTH) + "]".repeat(MAX_DEPTH)).length).toBe(1);
    for (const indicator of ["- ", "? ", "-\t", "? - "]) {
      expect(errorsOf(indicator.repeat(5_000) + "x")[0]!.message, indicator).toContain("deeper");
      expect(errorsOf(indicator.repeat(200) + "x").length, indicator).toBeGreaterThan(0); // fewer: by the document itself
    }
    expect(documentsOf(`a: |\n  ${"- ".repeat(200)}\n`).length).toBe(1);
    expect(errorsOf("a: 1\n---\n".repeat(MAX_DOCUMENTS + 5))[0]!.message).toContain("documents");
  });

  it("never throws, whatever the text", () => {
    const piece = fc.constantFrom(
      "a: ",
      "- ",
      "\n",
      "  ",
      "&x ",
      "*x",
      "{",
      "}",
      "[",
      "]",
      "---\n",
      "!t ",
      "|\n",
      "'",
      '"',
      "<<: ",
      "? ",
      "\u0000",
      "%YAML 9\n",
      "\t",
    );
    fc.assert(
      fc.property(
        fc.oneof(fc.string({ unit: "binary" }), fc.array(piece, { maxLength: 30 }).map((p) => p.join(""))),
        (text) => {
          const result = readManifest(text);
          if ("errors" in result) expect(result.errors.length).toBeGreaterThan(0);
          else for (const document of result.documents) expect(document.positionOf("a[0].b").line).toBeGreaterThan(0);
        },
      ),
      { numRuns: 500 },
    );
  });
});
