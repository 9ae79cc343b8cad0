/** One valid document of every kind, which together use every field that policies have. */
import type { PolicyFeatures } from "../../../src/policy/features.ts";

/** Everything on, and expressions that have a bracket too many refused. */
export const ALL_FEATURES: PolicyFeatures = {
  nodeSelectorLabels: true,
  extendedProtocols: true,
  checkRegex: (source) => source.split("(").length === source.split(")").length ? undefined : "a bracket too many",
};

const TERMS = { matchLabels: { app: "a" }, matchExpressions: [{ key: "tier", operator: "In", values: ["1", "2"] }] };
const EXISTS = { matchExpressions: [{ key: "tier", operator: "Exists" }] };
const EVERY_POD = { namespaces: {} };
const PODS = { pods: { namespaceSelector: TERMS, podSelector: EXISTS } };
const META = { name: "p", namespace: "shop", labels: { a: "b" }, annotations: { c: "d" } };

function toPorts(rules: unknown, ...ports: unknown[]) {
  return [{ ports, rules }];
}

const HTTP = toPorts(
  {
    http: [{
      method: "GET|POST",
      path: "/(a|b)/.*",
      host: "a.b",
      headers: ["X-A", "X-B: c"],
      headerMatches: [{ name: "x-c", value: "d", mismatch: "LOG" }],
    }],
  },
  { port: "80", endPort: 90, protocol: "TCP" },
  { port: "web", protocol: "TCP" },
);
const DNS = toPorts({ dns: [{ matchName: "a.b" }, { matchPattern: "**.b" }] }, { port: "53", protocol: "ANY" });

export const VALID_DOCUMENTS: readonly Readonly<Record<string, unknown>>[] = [
  {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: META,
    spec: {
      podSelector: TERMS,
      policyTypes: ["Ingress", "Egress"],
      ingress: [{
        from: [{ podSelector: TERMS, namespaceSelector: EXISTS }, {
          ipBlock: { cidr: "10.0.0.0/8", except: ["10.1.0.0/16"] },
        }],
        ports: [{ protocol: "UDP", port: 53 }, { port: "web" }],
      }],
      egress: [{ to: [{ podSelector: {} }], ports: [{ port: 80, endPort: 90 }] }],
    },
  },
  {
    apiVersion: "cilium.io/v2",
    kind: "CiliumNetworkPolicy",
    metadata: META,
    spec: {
      description: "why",
      labels: [{ key: "a", value: "b", source: "k8s" }],
      log: { value: "c" },
      endpointSelector: TERMS,
      enableDefaultDeny: { ingress: true, egress: false },
      ingress: [
        { fromEndpoints: [TERMS, EXISTS], toPorts: HTTP, authentication: { mode: "disabled" } },
        { fromCIDR: ["10.0.0.0/8"], icmps: [{ fields: [{ type: "EchoRequest", family: "IPv6" }, { type: 8 }] }] },
        { fromCIDRSet: [{ cidr: "10.0.0.0/8", except: ["10.1.0.0/16"] }], fromRequires: [] },
        { fromEntities: ["world", "kube-apiserver"] },
        { fromNodes: [TERMS] },
      ],
      ingressDeny: [{ fromEndpoints: [TERMS], toPorts: [{ ports: [{ port: "0", protocol: "GRE" }] }] }],
      egress: [
        { toEndpoints: [TERMS], toPorts: DNS },
        { toFQDNs: [{ matchName: "a.b" }, { matchPattern: "*.b" }], toPorts: HTTP },
        { toCIDRSet: [{ cidrGroupRef: "g", except: ["10.1.0.0/16"] }, { cidrGroupSelector: TERMS }] },
        {
          toServices: [
            { k8sService: { serviceName: "s", namespace: "n" } },
            { k8sServiceSelector: { selector: TERMS, namespace: "n" } },
          ],
        },
        { toNodes: [EXISTS] },
      ],
      egressDeny: [{ toEntities: ["cluster"] }, { toCIDR: ["10.0.0.0/8"] }, {
        toServices: [{ k8sService: { serviceName: "s" } }],
      }],
    },
  },
  {
    apiVersion: "cilium.io/v2",
    kind: "CiliumClusterwideNetworkPolicy",
    metadata: { name: "p" },
    spec: { nodeSelector: TERMS, ingress: [{ fromEntities: ["health"] }], egress: [{ toPorts: DNS }] },
    specs: [{ endpointSelector: {}, egressDeny: [{}] }],
  },
  {
    apiVersion: "policy.networking.k8s.io/v1alpha2",
    kind: "ClusterNetworkPolicy",
    metadata: { name: "p" },
    spec: {
      tier: "Admin",
      priority: 10,
      subject: PODS,
      ingress: [{
        name: "n",
        action: "Deny",
        from: [EVERY_POD, PODS],
        protocols: [
          { tcp: { destinationPort: { number: 80 } } },
          { udp: { destinationPort: { range: { start: 80, end: 90 } } } },
          { destinationNamedPort: "web" },
        ],
      }],
      egress: [{
        action: "Accept",
        to: [{ nodes: TERMS }, { networks: ["10.0.0.0/8"] }, { domainNames: ["*.a.b"] }],
        protocols: [{ sctp: { destinationPort: { number: 80 } } }],
      }],
    },
  },
  {
    apiVersion: "policy.networking.k8s.io/v1alpha1",
    kind: "AdminNetworkPolicy",
    metadata: { name: "p" },
    spec: {
      priority: 10,
      subject: EVERY_POD,
      ingress: [{
        action: "Pass",
        from: [PODS],
        ports: [{ portNumber: { port: 80, protocol: "UDP" } }, { namedPort: "web" }],
      }],
      egress: [{ action: "Allow", to: [EVERY_POD], ports: [{ portRange: { start: 80, end: 90, protocol: "TCP" } }] }],
    },
  },
  {
    apiVersion: "policy.networking.k8s.io/v1alpha1",
    kind: "BaselineAdminNetworkPolicy",
    metadata: { name: "default" },
    spec: { subject: EVERY_POD, egress: [{ action: "Deny", to: [{ networks: ["0.0.0.0/0"] }] }] },
  },
];

/** A place in a document: the object or list that holds it, its key there, and the keys that lead to it. */
export interface Place {
  readonly parent: Record<string, unknown>;
  readonly key: string;
  readonly way: readonly string[];
}

/** Every place of a document, in order. Of one that holds itself: each only once on its way. */
export function placesOf(document: unknown, way: readonly string[] = [], around: readonly unknown[] = []): Place[] {
  if (typeof document !== "object" || document === null || around.includes(document)) return [];
  const parent = document as Record<string, unknown>;
  return Object.keys(parent).flatMap((key) => [
    { parent, key, way: [...way, key] },
    ...placesOf(parent[key], [...way, key], [...around, document]),
  ]);
}
