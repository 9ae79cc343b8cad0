import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MAX_ERRORS, POLICY_ERROR_CODES } from "../../../src/policy/errors.ts";
import { readPolicy } from "../../../src/policy/read_policy.ts";
import { documentArb } from "./generate.ts";

/** A CiliumNetworkPolicy whose spec has these fields besides its selector. */
function cnp(spec: Record<string, unknown>, kind = "CiliumNetworkPolicy") {
  const metadata = kind === "CiliumNetworkPolicy" ? { name: "p", namespace: "shop" } : { name: "p" };
  return { apiVersion: "cilium.io/v2", kind, metadata, spec: { endpointSelector: {}, ...spec } };
}

function knp(spec: Record<string, unknown>) {
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: { name: "p" },
    spec: { podSelector: {}, ...spec },
  };
}

const ports = (...list: unknown[]) => cnp({ ingress: [{ toPorts: [{ ports: list }] }] });
const cidr = (value: unknown) => cnp({ egress: [{ toCIDR: [value] }] });
const set = (value: unknown) => cnp({ egress: [{ toCIDRSet: [value] }] });
const block = (value: unknown) => knp({ ingress: [{ from: [{ ipBlock: value }] }] });
const icmp = (value: unknown) => cnp({ ingress: [{ icmps: [{ fields: [value] }] }] });
const http = (rules: unknown, port: unknown = { port: "80", protocol: "TCP" }) =>
  cnp({ ingress: [{ toPorts: [{ ports: [port], rules: { http: rules } }] }] });
const dns = (rules: unknown, port: unknown = { port: "53" }) =>
  cnp({ egress: [{ toPorts: [{ ports: [port], rules: { dns: rules } }] }] });
const service = (value: unknown) => cnp({ egress: [{ toServices: [value] }] });
const fqdn = (value: unknown) => cnp({ egress: [{ toFQDNs: [value] }] });
const HTTP_AT = "spec.ingress[0].toPorts[0].rules.http";
const DNS_AT = "spec.egress[0].toPorts[0].rules.dns";
/** A CiliumClusterwideNetworkPolicy about hosts. */
const nodes = (spec: Record<string, unknown>) => ({
  apiVersion: "cilium.io/v2",
  kind: "CiliumClusterwideNetworkPolicy",
  metadata: { name: "p" },
  spec: { nodeSelector: {}, ...spec },
});
const kports = (...list: unknown[]) => knp({ ingress: [{ ports: list }] });

/** document, path of an error, its code, words of its message */
const REFUSED: readonly (readonly [string, unknown, string, string, string])[] = [
  ["text", "x", "", "NOT_AN_OBJECT", "object"],
  ["a list", [], "", "NOT_AN_OBJECT", "object"],
  ["no kind", {}, "kind", "MISSING", "NetworkPolicy"],
  ["a kind with a slip", { kind: "NetworkPolice" }, "kind", "UNKNOWN_KIND", 'did you mean "NetworkPolicy"?'],
  [
    "another of Cilium's kinds",
    { kind: "CiliumEgressGatewayPolicy" },
    "kind",
    "UNSUPPORTED_KIND",
    "CiliumEgressGateway",
  ],
  ["a kind that is a method of objects", { kind: "constructor" }, "kind", "UNKNOWN_KIND", "constructor"],
  [
    "an old API version",
    { ...knp({}), apiVersion: "extensions/v1beta1" },
    "apiVersion",
    "BAD_VALUE",
    "networking.k8s.io/v1",
  ],
  ["no name", { ...knp({}), metadata: {} }, "metadata.name", "MISSING", "name"],
  ["a name in capitals", { ...knp({}), metadata: { name: "P" } }, "metadata.name", "BAD_VALUE", "lower-case"],
  [
    "a namespace in a cluster-wide object",
    { ...cnp({ ingress: [{}] }, "CiliumClusterwideNetworkPolicy"), metadata: { name: "p", namespace: "n" } },
    "metadata.namespace",
    "CONFLICT",
    "namespace",
  ],
  ["a field with a slip", knp({ ingres: [] }), "spec.ingres", "UNKNOWN_FIELD", 'did you mean "ingress"?'],
  [
    "a field of the other kind",
    knp({ ingress: [{ fromEndpoints: [] }] }),
    "spec.ingress[0].fromEndpoints",
    "UNKNOWN_FIELD",
    "known: from, ports",
  ],
  ["a stray field in an object", { ...knp({}), spce: {} }, "spce", "UNKNOWN_FIELD", "spec"],
  // NetworkPolicy
  ["no podSelector", { ...knp({}), spec: {} }, "spec.podSelector", "MISSING", "{}"],
  [
    "an unknown policyType",
    knp({ policyTypes: ["ingress"] }),
    "spec.policyTypes[0]",
    "BAD_VALUE",
    'did you mean "Ingress"?',
  ],
  ["three policyTypes", knp({ policyTypes: ["Ingress", "Egress", "Egress"] }), "spec.policyTypes", "TOO_MANY", "two"],
  ["an empty peer", knp({ ingress: [{ from: [{}] }] }), "spec.ingress[0].from[0]", "MISSING", "podSelector"],
  [
    "ipBlock beside a selector",
    knp({ ingress: [{ from: [{ ipBlock: { cidr: "10.0.0.0/8" }, podSelector: {} }] }] }),
    "spec.ingress[0].from[0]",
    "CONFLICT",
    "alone",
  ],
  ["a bare address", block({ cidr: "10.0.0.1" }), "spec.ingress[0].from[0].ipBlock.cidr", "BAD_VALUE", '"10.0.0.1/32"'],
  [
    "a hole outside",
    block({ cidr: "10.0.0.0/8", except: ["11.0.0.0/16"] }),
    "spec.ingress[0].from[0].ipBlock.except[0]",
    "BAD_VALUE",
    "not inside",
  ],
  [
    "a hole as large as the block",
    block({ cidr: "10.0.0.0/8", except: ["10.0.0.0/8"] }),
    "spec.ingress[0].from[0].ipBlock.except[0]",
    "BAD_VALUE",
    "not inside",
  ],
  [
    "a hole of the other family",
    block({ cidr: "0.0.0.0/0", except: ["::/1"] }),
    "spec.ingress[0].from[0].ipBlock.except[0]",
    "BAD_VALUE",
    "not inside",
  ],
  ["endPort without a port", kports({ endPort: 90 }), "spec.ingress[0].ports[0].endPort", "CONFLICT", "without"],
  [
    "endPort with a name",
    kports({ port: "http", endPort: 90 }),
    "spec.ingress[0].ports[0].endPort",
    "CONFLICT",
    "name",
  ],
  [
    "endPort below the port",
    kports({ port: 91, endPort: 90 }),
    "spec.ingress[0].ports[0].endPort",
    "BAD_VALUE",
    "below",
  ],
  ["port 0", kports({ port: 0 }), "spec.ingress[0].ports[0].port", "BAD_VALUE", "1 to 65535"],
  [
    "a number in quotes",
    kports({ port: "80" }),
    "spec.ingress[0].ports[0].port",
    "BAD_VALUE",
    "write 80 without quotes",
  ],
  ["a protocol in lower case", kports({ protocol: "tcp" }), "spec.ingress[0].ports[0].protocol", "BAD_VALUE", "TCP"],
  [
    "In without values",
    knp({ podSelector: { matchExpressions: [{ key: "a", operator: "In" }] } }),
    "spec.podSelector.matchExpressions[0].values",
    "MISSING",
    "value",
  ],
  [
    "Exists with values",
    knp({ podSelector: { matchExpressions: [{ key: "a", operator: "Exists", values: ["x"] }] } }),
    "spec.podSelector.matchExpressions[0].values",
    "CONFLICT",
    "no values",
  ],
  [
    "an unknown operator",
    knp({ podSelector: { matchExpressions: [{ key: "a", operator: "in", values: ["x"] }] } }),
    "spec.podSelector.matchExpressions[0].operator",
    "BAD_VALUE",
    "In",
  ],
  [
    "a label source in a NetworkPolicy",
    knp({ podSelector: { matchLabels: { "k8s:app": "x" } } }),
    'spec.podSelector.matchLabels["k8s:app"]',
    "BAD_VALUE",
    "label key",
  ],
  [
    "a number as a label's value",
    knp({ podSelector: { matchLabels: { app: 1 } } }),
    "spec.podSelector.matchLabels.app",
    "WRONG_TYPE",
    'write "1"',
  ],
  [
    "a label's value with a space",
    knp({ podSelector: { matchLabels: { app: "a b" } } }),
    "spec.podSelector.matchLabels.app",
    "BAD_VALUE",
    "label value",
  ],
  // CiliumNetworkPolicy
  [
    "neither spec nor specs",
    { apiVersion: "cilium.io/v2", kind: "CiliumNetworkPolicy", metadata: { name: "p" } },
    "spec",
    "MISSING",
    "specs",
  ],
  ["no section", cnp({}), "spec", "MISSING", "ingressDeny"],
  ["no selector", { ...cnp({}), spec: { ingress: [{}] } }, "spec.endpointSelector", "MISSING", "{}"],
  [
    "nodeSelector in a namespace",
    cnp({ nodeSelector: {}, ingress: [{}] }),
    "spec.nodeSelector",
    "CONFLICT",
    "Clusterwide",
  ],
  [
    "two subjects",
    nodes({ endpointSelector: {}, ingress: [{}] }),
    "spec.nodeSelector",
    "CONFLICT",
    "endpointSelector",
  ],
  [
    "HTTP rules of a host",
    nodes({ egress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules: { http: [{}] } }] }] }),
    "spec.egress[0].toPorts[0].rules.http",
    "CONFLICT",
    "endpointSelector",
  ],
  [
    "two kinds of peers",
    cnp({ ingress: [{ fromEndpoints: [{}], fromCIDR: ["10.0.0.0/8"] }] }),
    "spec.ingress[0]",
    "CONFLICT",
    "fromCIDR",
  ],
  [
    "an unknown entity",
    cnp({ ingress: [{ fromEntities: ["World"] }] }),
    "spec.ingress[0].fromEntities[0]",
    "BAD_VALUE",
    'did you mean "world"?',
  ],
  [
    "a peer of the other direction",
    cnp({ ingress: [{ toEndpoints: [{}] }] }),
    "spec.ingress[0].toEndpoints",
    "UNKNOWN_FIELD",
    "fromEndpoints",
  ],
  [
    "icmps with toPorts",
    cnp({ ingress: [{ icmps: [{}], toPorts: [{}] }] }),
    "spec.ingress[0].icmps",
    "CONFLICT",
    "toPorts",
  ],
  [
    "removed fromRequires",
    cnp({ ingress: [{ fromRequires: [{}] }] }),
    "spec.ingress[0].fromRequires",
    "REMOVED",
    "1.19",
  ],
  [
    "toFQDNs in a deny rule",
    cnp({ egressDeny: [{ toFQDNs: [{ matchName: "a.b" }] }] }),
    "spec.egressDeny[0].toFQDNs",
    "CONFLICT",
    "toCIDR",
  ],
  [
    "toFQDNs beside another peer",
    cnp({ egress: [{ toFQDNs: [{ matchName: "a.b" }], toEntities: ["world"] }] }),
    "spec.egress[0]",
    "CONFLICT",
    "toFQDNs",
  ],
  [
    "a name and a pattern",
    fqdn({ matchName: "a.b", matchPattern: "*.b" }),
    "spec.egress[0].toFQDNs[0]",
    "CONFLICT",
    "each",
  ],
  ["neither of them", fqdn({}), "spec.egress[0].toFQDNs[0]", "MISSING", "matchName"],
  ["a star in a name", fqdn({ matchName: "*.b" }), "spec.egress[0].toFQDNs[0].matchName", "BAD_VALUE", "matchPattern"],
  ["a name with a slash", fqdn({ matchName: "a/b" }), "spec.egress[0].toFQDNs[0].matchName", "BAD_VALUE", "letters"],
  [
    "a name of 256 characters",
    fqdn({ matchName: "a.".repeat(128) }),
    "spec.egress[0].toFQDNs[0].matchName",
    "BAD_VALUE",
    "255",
  ],
  [
    "a pattern with a space",
    fqdn({ matchPattern: "* b" }),
    "spec.egress[0].toFQDNs[0].matchPattern",
    "BAD_VALUE",
    "letters",
  ],
  ["a service without anything", service({}), "spec.egress[0].toServices[0]", "MISSING", "k8sServiceSelector"],
  [
    "a service by name and by labels",
    service({ k8sService: { serviceName: "s" }, k8sServiceSelector: { selector: {} } }),
    "spec.egress[0].toServices[0]",
    "CONFLICT",
    "each",
  ],
  [
    "a service without a name",
    service({ k8sService: { name: "s" } }),
    "spec.egress[0].toServices[0].k8sService.name",
    "UNKNOWN_FIELD",
    "serviceName",
  ],
  [
    "a service selector without a selector",
    service({ k8sServiceSelector: { namespace: "n" } }),
    "spec.egress[0].toServices[0].k8sServiceSelector.selector",
    "MISSING",
    "selector",
  ],
  [
    "a service of a namespace in capitals",
    service({ k8sService: { serviceName: "s", namespace: "N" } }),
    "spec.egress[0].toServices[0].k8sService.namespace",
    "BAD_VALUE",
    "namespace",
  ],
  ["toGroups", cnp({ egress: [{ toGroups: [{}] }] }), "spec.egress[0].toGroups", "UNSUPPORTED_GROUPS", "toGroups"],
  ["fromNodes", cnp({ ingress: [{ fromNodes: [{}] }] }), "spec.ingress[0].fromNodes", "TURNED_OFF", "remote-node"],
  // L7
  [
    "http and dns in one block",
    cnp({ egress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules: { http: [{}], dns: [{}] } }] }] }),
    "spec.egress[0].toPorts[0].rules",
    "CONFLICT",
    "block for each",
  ],
  ["an empty list of http rules", http([]), HTTP_AT, "MISSING", "[{}]"],
  [
    "http without a protocol",
    http([{}], { port: "80" }),
    "spec.ingress[0].toPorts[0].ports[0].protocol",
    "CONFLICT",
    "TCP, not ANY",
  ],
  [
    "http over UDP",
    http([{}], { port: "80", protocol: "UDP" }),
    "spec.ingress[0].toPorts[0].ports[0].protocol",
    "CONFLICT",
    "TCP, not UDP",
  ],
  [
    "http on every port",
    http([{}], { port: "0", protocol: "TCP" }),
    "spec.ingress[0].toPorts[0].ports[0].port",
    "CONFLICT",
    "every port",
  ],
  [
    "a rule with a slip",
    http([{ methods: "GET" }]),
    `${HTTP_AT}[0].methods`,
    "UNKNOWN_FIELD",
    'did you mean "method"?',
  ],
  ["a method that is a list", http([{ method: ["GET"] }]), `${HTTP_AT}[0].method`, "WRONG_TYPE", "list"],
  [
    "a header's name with a space",
    http([{ headers: [": x"] }]),
    `${HTTP_AT}[0].headers[0]`,
    "BAD_VALUE",
    "header name",
  ],
  [
    "a header of HTTP/2",
    http([{ headers: [":path /"] }]),
    `${HTTP_AT}[0].headers[0]`,
    "BAD_VALUE",
    "method, path and host",
  ],
  ["a value with a new line", http([{ headers: ["x: a\nb"] }]), `${HTTP_AT}[0].headers[0]`, "BAD_VALUE", "characters"],
  [
    "a header match without a name",
    http([{ headerMatches: [{ value: "x" }] }]),
    `${HTTP_AT}[0].headerMatches[0].name`,
    "MISSING",
    "name",
  ],
  [
    "an unknown action",
    http([{ headerMatches: [{ name: "x", mismatch: "LOGS" }] }]),
    `${HTTP_AT}[0].headerMatches[0].mismatch`,
    "BAD_VALUE",
    'did you mean "LOG"?',
  ],
  [
    "a header to add without a value",
    http([{ headerMatches: [{ name: "x", mismatch: "ADD" }] }]),
    `${HTTP_AT}[0].headerMatches[0].value`,
    "MISSING",
    "ADD",
  ],
  [
    "a header that the proxy writes itself",
    http([{ headerMatches: [{ name: "Content-Length", value: "0", mismatch: "REPLACE" }] }]),
    `${HTTP_AT}[0].headerMatches[0].mismatch`,
    "CONFLICT",
    "LOG",
  ],
  [
    "a value beyond Latin-1",
    http([{ headerMatches: [{ name: "x", value: "\u20ac" }] }]),
    `${HTTP_AT}[0].headerMatches[0].value`,
    "BAD_VALUE",
    "characters",
  ],
  [
    "a secret",
    http([{ headerMatches: [{ name: "x", secret: { name: "s" } }] }]),
    `${HTTP_AT}[0].headerMatches[0].secret`,
    "UNSUPPORTED_SECRET",
    "value",
  ],
  [
    "dns on ingress",
    cnp({ ingress: [{ toPorts: [{ ports: [{ port: "53" }], rules: { dns: [{ matchPattern: "*" }] } }] }] }),
    "spec.ingress[0].toPorts[0].rules.dns",
    "CONFLICT",
    "egress",
  ],
  [
    "dns without ports",
    cnp({ egress: [{ toPorts: [{ rules: { dns: [{ matchPattern: "*" }] } }] }] }),
    "spec.egress[0].toPorts[0].ports",
    "MISSING",
    "53",
  ],
  [
    "dns on a range",
    dns([{ matchPattern: "*" }], { port: "53", endPort: 54 }),
    "spec.egress[0].toPorts[0].ports[0].endPort",
    "CONFLICT",
    "range",
  ],
  [
    "dns on every port",
    dns([{ matchPattern: "*" }], { port: "0" }),
    "spec.egress[0].toPorts[0].ports[0].port",
    "CONFLICT",
    "every port",
  ],
  [
    "dns over SCTP",
    dns([{ matchPattern: "*" }], { port: "53", protocol: "SCTP" }),
    "spec.egress[0].toPorts[0].ports[0].protocol",
    "CONFLICT",
    "SCTP",
  ],
  ["an empty list of names", dns([]), DNS_AT, "MISSING", "matchPattern"],
  ["a rule without a name", dns([{}]), `${DNS_AT}[0]`, "MISSING", "matchName"],
  [
    "Kafka",
    cnp({ ingress: [{ toPorts: [{ rules: { kafka: [{}] } }] }] }),
    "spec.ingress[0].toPorts[0].rules.kafka",
    "REMOVED",
    "1.20",
  ],
  [
    "TLS",
    cnp({ egress: [{ toPorts: [{ serverNames: ["a"] }] }] }),
    "spec.egress[0].toPorts[0].serverNames",
    "UNSUPPORTED_TLS",
    "serverNames",
  ],
  [
    "a listener",
    cnp({ egress: [{ toPorts: [{ listener: {} }] }] }),
    "spec.egress[0].toPorts[0].listener",
    "UNSUPPORTED_LISTENER",
    "listener",
  ],
  [
    "required authentication",
    cnp({ ingress: [{ authentication: { mode: "required" } }] }),
    "spec.ingress[0].authentication.mode",
    "UNSUPPORTED_AUTHENTICATION",
    "required",
  ],
  [
    "L7 in a deny rule",
    cnp({ ingressDeny: [{ toPorts: [{ rules: {} }] }] }),
    "spec.ingressDeny[0].toPorts[0].rules",
    "CONFLICT",
    "ports only",
  ],
  [
    "a CIDR group in capitals",
    set({ cidrGroupRef: "G" }),
    "spec.egress[0].toCIDRSet[0].cidrGroupRef",
    "BAD_VALUE",
    "name",
  ],
  [
    "a hole of a group that is no prefix",
    set({ cidrGroupRef: "g", except: ["10.0.0.1"] }),
    "spec.egress[0].toCIDRSet[0].except[0]",
    "BAD_VALUE",
    "/32",
  ],
  [
    "a source in a group's labels",
    set({ cidrGroupSelector: { matchLabels: { "cidrgroup:a": "b" } } }),
    'spec.egress[0].toCIDRSet[0].cidrGroupSelector.matchLabels["cidrgroup:a"]',
    "BAD_VALUE",
    "label key",
  ],
  ["a set entry with nothing", set({}), "spec.egress[0].toCIDRSet[0].cidr", "MISSING", "cidr"],
  [
    "a set entry with two",
    set({ cidr: "10.0.0.0/8", cidrGroupRef: "g" }),
    "spec.egress[0].toCIDRSet[0]",
    "CONFLICT",
    "cidrGroupRef",
  ],
  [
    "a wider hole",
    set({ cidr: "10.0.0.0/8", except: ["10.0.0.0/7"] }),
    "spec.egress[0].toCIDRSet[0].except[0]",
    "BAD_VALUE",
    "not inside",
  ],
  ["a mask in words", cidr("10.0.0.0/255.0.0.0"), "spec.egress[0].toCIDR[0]", "BAD_VALUE", "prefix"],
  ["a bare IPv6 address", cidr("fd00::1"), "spec.egress[0].toCIDR[0]", "BAD_VALUE", '"fd00::1/128"'],
  [
    "labels of a prefix",
    cnp({ ingress: [{ fromEndpoints: [{ matchLabels: { "cidr:10.0.0.0/8": "" } }] }] }),
    'spec.ingress[0].fromEndpoints[0].matchLabels["cidr:10.0.0.0/8"]',
    "UNSUPPORTED_LABEL_SOURCE",
    "fromCIDR",
  ],
  ["no port", ports({ protocol: "TCP" }), "spec.ingress[0].toPorts[0].ports[0].port", "MISSING", '"0"'],
  ["a port as a number", ports({ port: 80 }), "spec.ingress[0].toPorts[0].ports[0].port", "WRONG_TYPE", 'write "80"'],
  ["a port too high", ports({ port: "65536" }), "spec.ingress[0].toPorts[0].ports[0].port", "BAD_VALUE", "65535"],
  [
    "GRE",
    ports({ port: "0", protocol: "GRE" }),
    "spec.ingress[0].toPorts[0].ports[0].protocol",
    "TURNED_OFF",
    "enable-extended-ip-protocols",
  ],
  [
    "ICMP as a protocol",
    ports({ port: "8", protocol: "ICMP" }),
    "spec.ingress[0].toPorts[0].ports[0].protocol",
    "BAD_VALUE",
    "icmps",
  ],
  ["41 ports", ports(...new Array(41).fill({ port: "1" })), "spec.ingress[0].toPorts[0].ports", "TOO_MANY", "40"],
  [
    "an ICMP name of the other family",
    icmp({ type: "PacketTooBig" }),
    "spec.ingress[0].icmps[0].fields[0].type",
    "BAD_VALUE",
    "IPv4",
  ],
  ["an ICMP type too high", icmp({ type: 256 }), "spec.ingress[0].icmps[0].fields[0].type", "BAD_VALUE", "255"],
  ["no ICMP type", icmp({}), "spec.ingress[0].icmps[0].fields[0].type", "MISSING", "type"],
];

describe("readPolicy", () => {
  it.each(REFUSED)("refuses %s", (_, document, path, code, words) => {
    const result = readPolicy(document);
    const errors = "errors" in result ? result.errors : [];
    expect(errors.map((e) => `${e.path} ${e.code}`)).toContain(`${path} ${code}`);
    expect(errors.find((e) => e.path === path && e.code === code)!.message).toContain(words);
  });

  it("uses every code it declares", () => {
    expect(new Set(REFUSED.map(([, , , code]) => code))).toEqual(new Set(POLICY_ERROR_CODES));
  });

  it("refuses the whole object for one bad rule of specs", () => {
    const good = { endpointSelector: {}, ingress: [{}] };
    const result = readPolicy({
      ...cnp({}),
      spec: good,
      specs: [good, { endpointSelector: {}, ingress: [{ fromX: [] }] }],
    });
    expect("errors" in result && result.errors.map((e) => e.path)).toEqual(["specs[1].ingress[0].fromX"]);
  });

  it("does not say that a field is missing whose name was misspelt, in its place or in the object", () => {
    const misspelt = [
      cnp({ egress: [{ toFQDNs: [{ matchPatern: "*" }] }] }),
      service({ k8sService: { servicename: "s" } }),
      { ...cnp({}), spec: { endpointSelecter: {}, ingress: [{}] } },
      { ...cnp({}), spec: { endpointSelector: {}, ingres: [{}] } },
    ];
    for (const document of misspelt) {
      const result = readPolicy(document);
      expect("errors" in result && result.errors.map(({ code }) => code)).toEqual(["UNKNOWN_FIELD"]);
    }
    const both = readPolicy({ ...cnp({}), spec: { endpointSelecter: {} } });
    expect("errors" in both && both.errors.map(({ code }) => code)).toEqual(["UNKNOWN_FIELD"]);
  });

  it("names all errors, up to a limit", () => {
    const result = readPolicy(kports(...new Array(500).fill({ port: 0 })));
    expect("errors" in result && result.errors.length).toBe(MAX_ERRORS);
  });

  it("takes what stands in real objects but says nothing of traffic", () => {
    const document = {
      ...cnp({
        description: "why",
        labels: [{ key: "team", value: "core", source: "k8s" }],
        log: { value: "note" },
        ingress: [{ fromRequires: [], authentication: { mode: "disabled" }, toPorts: null }],
      }),
      metadata: { name: "p", uid: "1", annotations: { a: "b" }, managedFields: [{}], creationTimestamp: null },
      status: { conditions: [] },
    };
    expect(readPolicy(document)).toHaveProperty("policy");
  });

  it("never throws on random data, and never half reads it", () => {
    const words = [
      "apiVersion",
      "kind",
      "metadata",
      "spec",
      "specs",
      "ingress",
      "from",
      "ports",
      "endpointSelector",
      "matchLabels",
      "__proto__",
    ];
    const junk = fc.anything({
      key: fc.oneof(fc.constantFrom(...words), fc.string()),
      maxDepth: 5,
      withNullPrototype: true,
      withBigInt: true,
      withDate: true,
      withMap: true,
      withTypedArray: true,
    });
    fc.assert(
      fc.property(junk, (value) => {
        const result = readPolicy(value);
        expect("errors" in result && result.errors.length > 0).toBe(true);
      }),
      { numRuns: 3000 },
    );
  });

  it("never throws on valid documents with one value replaced by junk", () => {
    let refused = 0;
    fc.assert(
      fc.property(documentArb, fc.nat(), fc.anything(), (document, at, junk) => {
        const places: [Record<string, unknown>, string][] = [];
        const visit = (value: unknown): void => {
          if (typeof value !== "object" || value === null) return;
          for (const key of Object.keys(value)) {
            places.push([value as Record<string, unknown>, key]);
            visit((value as Record<string, unknown>)[key]);
          }
        };
        const copy = structuredClone(document);
        visit(copy);
        const [parent, key] = places[at % places.length]!;
        parent[key] = junk;
        const result = readPolicy(copy);
        if ("errors" in result) {
          expect(result.errors.length).toBeGreaterThan(0);
          refused++;
        } else expect(result.policy.name).not.toBe("");
      }),
      { numRuns: 3000 },
    );
    expect(refused).toBeGreaterThan(500);
  });
});
