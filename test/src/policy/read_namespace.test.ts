import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readNamespaceObject } from "../../../src/policy/read_namespace.ts";

const namespace = (metadata: unknown) => ({ apiVersion: "v1", kind: "Namespace", metadata });

describe("readNamespaceObject", () => {
  it("reads name and labels, and leaves the rest to Kubernetes", () => {
    const document = { ...namespace({ name: "shop", labels: { team: "core" }, uid: "1" }), spec: {}, status: {} };
    expect(readNamespaceObject(document)).toEqual({ namespace: { name: "shop", labels: { team: "core" } } });
  });

  it.each([
    ["a list", [], ""],
    ["another version", { ...namespace({ name: "a" }), apiVersion: "v2" }, "apiVersion"],
    ["no name", namespace({}), "metadata.name"],
    ["a name with a dot", namespace({ name: "a.b" }), "metadata.name"],
    ["a label that is none", namespace({ name: "a", labels: { team: 1 } }), "metadata.labels.team"],
    ["a stray field", { ...namespace({ name: "a" }), label: {} }, "label"],
  ])("refuses %s", (_, document, path) => {
    const result = readNamespaceObject(document);
    expect("errors" in result && result.errors.map((error) => error.path)).toEqual([path]);
  });

  it("never throws", () => {
    fc.assert(fc.property(fc.anything(), (value) => {
      for (const document of [value, namespace(value), namespace({ name: "a", labels: value })]) {
        const result = readNamespaceObject(document);
        expect("errors" in result ? result.errors.length > 0 : result.namespace.name === "a").toBe(true);
      }
    }));
  });
});
