import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readEndpointSlice, readService, serviceEntryOf } from "../../../src/hub/services.ts";

const service = (spec: object, metadata: object = {}) => ({
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "db", namespace: "shop", ...metadata },
  spec,
});
const slice = (endpoints: unknown, changes: object = {}) => ({
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: { name: "db-x7", namespace: "shop", labels: { "kubernetes.io/service-name": "db" } },
  addressType: "IPv4",
  endpoints,
  ports: [{ name: "sql", port: 5432, protocol: "TCP" }],
  ...changes,
});

function addressesOf(document: unknown): readonly string[] {
  const result = readEndpointSlice(document);
  if ("errors" in result) throw new Error(JSON.stringify(result.errors));
  return result.slice.addresses;
}

function errorsOf(result: { errors?: readonly { path: string; message: string }[] }): string[] {
  return (result.errors ?? []).map(({ path, message }) => `${path}: ${message}`);
}

describe("readService", () => {
  it("takes what kubectl prints of a service, and keeps labels and selector", () => {
    const document = service({
      type: "ClusterIP",
      selector: { app: "db" },
      clusterIP: "10.96.0.7",
      clusterIPs: ["10.96.0.7"],
      internalTrafficPolicy: "Cluster",
      ipFamilies: ["IPv4"],
      ipFamilyPolicy: "SingleStack",
      ports: [{ port: 5432 }],
      sessionAffinity: "None",
    }, { labels: { tier: "data" }, creationTimestamp: "2026-01-01T00:00:00Z", uid: "1", resourceVersion: "2" });
    expect(readService({ ...document, status: { loadBalancer: {} } })).toEqual({
      service: { namespace: "shop", name: "db", labels: { tier: "data" }, selector: { app: "db" } },
    });
  });

  it("counts an empty selector as none", () => {
    expect(readService(service({ selector: {} }))).toEqual({ service: { namespace: "shop", name: "db", labels: {} } });
    expect(readService({ ...service({}), spec: undefined })).toMatchObject({ service: { name: "db" } });
  });

  it.each<[string, unknown, RegExp]>([
    ["another API version", { ...service({}), apiVersion: "v2" }, /apiVersion: Service is of apiVersion v1, got "v2"/],
    ["an unknown field", service({ selectr: {} }), /spec\.selectr: Unknown field "selectr"; did you mean "selector"/],
    ["a bad selector", service({ selector: { "-": "x" } }), /spec\.selector: "-" and its value are no label/],
    ["an external name", service({ type: "ExternalName" }), /spec\.type: .*toFQDNs/],
    ["a name with a dot", service({}, { name: "a.b" }), /metadata\.name: "a\.b" is no service name/],
    ["no name", { ...service({}), metadata: {} }, /metadata\.name: Object without a name/],
  ])("refuses %s", (_, document, message) => {
    expect(errorsOf(readService(document) as object).join("\n")).toMatch(message);
  });
});

describe("readEndpointSlice", () => {
  it("lists the addresses of endpoints that take traffic, canonical and once", () => {
    expect(addressesOf(slice([
      { addresses: ["192.0.2.1"], conditions: { ready: true } },
      { addresses: ["192.0.2.2"], conditions: { ready: false } },
      { addresses: ["192.0.2.3"], conditions: { ready: false, serving: true, terminating: true } },
      { addresses: ["192.0.2.4"], conditions: { ready: false, serving: true } },
      { addresses: ["192.0.2.5"], conditions: null, targetRef: { kind: "Pod", name: "x" }, nodeName: "n", zone: "z" },
      { addresses: ["192.0.2.1"] },
    ]))).toEqual(["192.0.2.1", "192.0.2.3", "192.0.2.5"]);
    expect(addressesOf(slice([{ addresses: ["2001:DB8:0::7"] }], { addressType: "IPv6" }))).toEqual(["2001:db8::7"]);
    expect(addressesOf(slice(null))).toEqual([]);
  });

  it.each<[string, unknown, RegExp]>([
    ["no service", { ...slice([]), metadata: { name: "x" } }, /metadata\.labels: .*kubernetes\.io\/service-name/],
    ["names in place of addresses", slice([], { addressType: "FQDN" }), /addressType: "FQDN" is not one of IPv4, IPv6/],
    ["no address type", slice([], { addressType: null }), /addressType: EndpointSlice without addressType/],
    ["the other family", slice([{ addresses: ["::1"] }]), /endpoints\[0\]\.addresses\[0\]: "::1" is no IPv4 address/],
    ["what is no address", slice([{ addresses: ["192.0.2.256"] }]), /"192\.0\.2\.256" is no IP address/],
    ["an endpoint without an address", slice([{}]), /endpoints\[0\]\.addresses: Expected 1 to 100 addresses/],
    ["too many", slice(Array(1001).fill({ addresses: ["192.0.2.1"] })), /endpoints: More than 1000 endpoints/],
    ["a readiness that is none", slice([{ addresses: ["192.0.2.1"], conditions: { ready: "yes" } }]), /true or false/],
  ])("refuses %s", (_, document, message) => {
    expect(errorsOf(readEndpointSlice(document) as object).join("\n")).toMatch(message);
  });
});

describe("serviceEntryOf", () => {
  const one = { namespace: "shop", name: "a", service: "db", addresses: ["192.0.2.9", "192.0.2.1"] };
  const two = { namespace: "shop", name: "b", service: "db", addresses: ["192.0.2.1", "2001:db8::1"] };
  const plain = { namespace: "shop", name: "db", labels: { tier: "data" } };

  it("names the pods of a service with a selector, and the addresses of one without", () => {
    expect(serviceEntryOf({ ...plain, selector: { app: "db" } }, [one])).toEqual({
      labels: { tier: "data" },
      selector: { app: "db" },
      addresses: [],
    });
    expect(serviceEntryOf(plain, [one, two]).addresses).toEqual(["192.0.2.1", "192.0.2.9", "2001:db8::1"]);
    expect(serviceEntryOf(plain, [two, one])).toEqual(serviceEntryOf(plain, [one, two]));
  });
});

describe("any data", () => {
  it("gives an object or errors, never an exception", () => {
    const junk = fc.object({ maxDepth: 4 });
    fc.assert(
      fc.property(junk, junk, junk, (metadata, spec, endpoint) => {
        for (const document of [metadata, service(spec, metadata), slice([endpoint]), slice(endpoint)]) {
          for (const result of [readService(document), readEndpointSlice(document)]) {
            if ("errors" in result) expect(result.errors.length).toBeGreaterThan(0);
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});
