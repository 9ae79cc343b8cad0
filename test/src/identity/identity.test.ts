import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isIdentityLabel } from "../../../src/identity/filter.ts";
import { bareKey, formatLabelList, parseLabel, parseLabelList, splitKey } from "../../../src/identity/labels.ts";
import { labelsOfMember } from "../../../src/identity/member_labels.ts";
import { clusterRange, isInCluster, isWireIdentity } from "../../../src/identity/ranges.ts";
import { nameOfReserved, RESERVED_LABELS, reservedOfName } from "../../../src/identity/reserved.ts";

describe("labels", () => {
  it("are written sorted by key, not by source, with a semicolon after each", () => {
    const labels = {
      "reserved:zone": "",
      "k8s:app": "sensor",
      "k8s:io.kubernetes.pod.namespace": "edge",
      "cni:b": "1",
    };
    expect(formatLabelList(labels)).toBe("k8s:app=sensor;cni:b=1;k8s:io.kubernetes.pod.namespace=edge;reserved:zone=;");
  });

  it("read back what they write", () => {
    const key = fc.stringMatching(/^(k8s|cni|reserved):[a-z]{1,3}(\/[a-z]{1,3})?$/);
    fc.assert(
      fc.property(
        fc.dictionary(key, fc.stringMatching(/^[a-z=:.-]{0,6}$/), { minKeys: 1, noNullPrototype: true }),
        (labels) => {
          const text = formatLabelList(labels);
          expect(parseLabelList(text)).toEqual(labels);
          expect(formatLabelList(Object.fromEntries(Object.entries(labels).reverse()))).toBe(text);
        },
      ),
    );
  });

  it.each([[""], [";"], ["k8s:a=1;;"], ["k8s:=x;"], ["k8s:a=1;k8s:a=2;"], ["=x;"]])("refuse the list %j", (text) => {
    expect(parseLabelList(text)).toBeUndefined();
  });

  it("take the source off only when it is a known one", () => {
    expect(splitKey("k8s:app")).toEqual({ source: "k8s", key: "app" });
    expect(splitKey("app")).toEqual({ source: "any", key: "app" });
    expect(splitKey("foo:app")).toEqual({ source: "any", key: "foo:app" });
    expect(parseLabel("app=web")).toEqual({ source: "unspec", key: "app", value: "web" });
    expect(parseLabel("any:app=a=b")).toEqual({ source: "any", key: "app", value: "a=b" });
    expect(bareKey("k8s:a/b:c")).toBe("a/b:c");
  });
});

describe("isIdentityLabel", () => {
  it.each([
    ["app", true],
    ["app.kubernetes.io/name", true],
    ["io.kubernetes.pod.namespace", true],
    ["io.kubernetes.pod.uid", false],
    ["io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", true],
    ["kubernetes.io/hostname", false],
    ["pod-template-hash", false],
    ["statefulset.kubernetes.io/pod-name", false],
    ["failure-domain.beta.kubernetes.io/zone", false],
    ["my.app.k8s.io", true],
    ["annotation.x", false],
    ["topology.kubernetes.io/zone", false],
  ])("says of %s: %s", (key, counts) => {
    expect(isIdentityLabel("k8s", key)).toBe(counts);
    expect(isIdentityLabel("reserved", key)).toBe(true);
  });
});

describe("labelsOfMember", () => {
  it("derives what a Cilium agent derives, in the store's form", () => {
    const labels = labelsOfMember({
      cluster: "edge-a",
      namespace: "edge",
      namespaceLabels: { team: "core" },
      labels: { app: "sensor", "pod-template-hash": "abc" },
    });
    expect(formatLabelList(labels)).toBe(
      "k8s:app=sensor;k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=edge;" +
        "k8s:io.cilium.k8s.namespace.labels.team=core;k8s:io.cilium.k8s.policy.cluster=edge-a;" +
        "k8s:io.cilium.k8s.policy.serviceaccount=default;k8s:io.kubernetes.pod.namespace=edge;",
    );
  });

  it("lets no member pose as another cluster, namespace or service account", () => {
    const honest = { cluster: "a", namespace: "n", namespaceLabels: {}, labels: {}, serviceAccount: "s" };
    const forged = labelsOfMember({
      ...honest,
      labels: {
        "io.cilium.k8s.policy.cluster": "b",
        "io.kubernetes.pod.namespace": "kube-system",
        "io.cilium.k8s.policy.serviceaccount": "root",
        "io.cilium.k8s.namespace.labels.team": "core",
      },
      namespaceLabels: { "kubernetes.io/metadata.name": "kube-system" },
    });
    expect(forged).toEqual(labelsOfMember(honest));
  });
});

describe("identity numbers", () => {
  it("of a cluster begin at 256 past its bits", () => {
    expect(clusterRange(42)).toEqual({ first: 2_752_512 + 256, last: 2_818_047 });
    expect(clusterRange(42, 511)).toEqual({ first: 1_376_256 + 256, last: 1_409_023 });
    expect(clusterRange(0).first).toBe(256);
    expect(() => clusterRange(256)).toThrow(RangeError);
    expect(clusterRange(511, 511).last).toBe(2 ** 24 - 1);
  });

  it("tell their cluster, and what travels from what does not", () => {
    expect(isInCluster(2_752_600, 42)).toBe(true);
    expect(isInCluster(2_752_600, 43)).toBe(false);
    expect(isInCluster(0x0100_0000 + 5, 0)).toBe(false);
    expect(isWireIdentity(2 ** 24)).toBe(false);
    expect(isWireIdentity(1.5)).toBe(false);
    expect(isWireIdentity(-1)).toBe(false);
  });

  it("below 11 have names, and the API server's is also a remote node", () => {
    for (let i = 0; i <= 10; i++) expect(reservedOfName(nameOfReserved(i)!)).toBe(i);
    expect(nameOfReserved(11)).toBeUndefined();
    expect(reservedOfName("nobody")).toBeUndefined();
    expect(Object.keys(RESERVED_LABELS.get(7)!)).toEqual(["reserved:kube-apiserver", "reserved:remote-node"]);
  });
});
