import { describe, expect, it } from "vitest";
import { validateText } from "../../../edge/policy/validate.ts";
import { cnp } from "./harness.ts";

const POLICY = cnp({ ingress: [{}] });
const GROUP = {
  apiVersion: "cilium.io/v2",
  kind: "CiliumCIDRGroup",
  metadata: { name: "g" },
  spec: { externalCIDRs: ["10.0.0.0/8"] },
};
const SERVICE = { apiVersion: "v1", kind: "Service", metadata: { name: "s", namespace: "shop" }, spec: {} };
const SLICE = {
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: { name: "s-1", namespace: "shop", labels: { "kubernetes.io/service-name": "s" } },
  addressType: "IPv4",
  endpoints: [{ addresses: ["192.0.2.1"] }],
};
const NAMESPACE = { apiVersion: "v1", kind: "Namespace", metadata: { name: "shop", labels: { team: "core" } } };

const validate = (...documents: unknown[]) =>
  validateText("f.yaml", documents.map((one) => JSON.stringify(one)).join("\n---\n"));

describe("validateText", () => {
  it("takes what stands beside policies in a repository", () => {
    expect(validate(POLICY, GROUP, SERVICE, SLICE, NAMESPACE)).toEqual({ documents: 5, valid: 5, findings: [] });
  });

  it.each([
    ["a group", { ...GROUP, spec: { externalCIDRs: ["10.0.0.0"] } }, "CiliumCIDRGroup g", "spec.externalCIDRs[0]"],
    ["a service", { ...SERVICE, spec: { selectr: {} } }, "Service shop/s", "spec.selectr"],
    ["a slice", { ...SLICE, endpoints: [{ addresses: ["x"] }] }, "EndpointSlice shop/s-1", "endpoints[0].addresses[0]"],
    ["a namespace", { ...NAMESPACE, apiVersion: "v2" }, "Namespace shop", "apiVersion"],
  ])("says what is wrong with %s", (_, document, object, path) => {
    const { valid, findings } = validate(document);
    expect(valid).toBe(0);
    expect(findings.map((finding) => [finding.object, finding.path])).toEqual([[object, path]]);
  });

  it("tells objects of one name apart by their kind, and finds one that is there twice", () => {
    const twin = { ...SERVICE, metadata: { name: "g", namespace: "shop" } };
    expect(validate(GROUP, twin).findings).toEqual([]);
    const [finding] = validate(GROUP, GROUP).findings;
    expect([finding!.line, finding!.code, finding!.message]).toEqual([
      3,
      "CONFLICT",
      "CiliumCIDRGroup g is there already: f.yaml:1",
    ]);
  });

  it("names every kind that it knows for one that it does not", () => {
    const [finding] = validate({ ...SERVICE, kind: "Servise" }).findings;
    expect(finding!.path).toBe("kind");
    expect(finding!.message).toMatch(/NetworkPolicy.*CiliumCIDRGroup.*did you mean "Service"\?/);
  });

  it("reads regular expressions, and says at which line one is none", () => {
    const http = { ports: [{ port: "80", protocol: "TCP" }], rules: { http: [{ path: "/(" }] } };
    const [finding] = validate(POLICY, cnp({ ingress: [{ toPorts: [http] }] }, "q")).findings;
    expect([finding!.line, finding!.path]).toEqual([3, "spec.ingress[0].toPorts[0].rules.http[0].path"]);
    expect(finding!.message).toContain("RE2");
  });

  it("takes what the mesh can do into account", () => {
    const text = JSON.stringify(cnp({ egress: [{ toNodes: [{}] }] }));
    expect(validateText("f", text).findings.map(({ code }) => code)).toEqual(["TURNED_OFF"]);
    expect(validateText("f", text, new Map(), { nodeSelectorLabels: true }).findings).toEqual([]);
  });
});
