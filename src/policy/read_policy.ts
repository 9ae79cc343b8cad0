/**
 * The door for policy documents: plain data in (already parsed from JSON or YAML), a `Policy` or every error out. Nothing invalid is
 * half read: one error refuses the whole object. Never throws, whatever the data.
 */
import type { PolicyError, PolicyErrorCode } from "./errors.ts";
import type { PolicyFeatures } from "./features.ts";
import { didYouMean, field, type Fields, Problems, quote } from "./fields.ts";
import type { Policy, PolicySpec } from "./model.ts";
import { readCiliumSpecs } from "./parse_cilium.ts";
import { readAdminSpecs, readBaselineSpecs, readClusterSpecs } from "./parse_cluster.ts";
import { readNetworkPolicySpec } from "./parse_kubernetes.ts";
import { readMetadata } from "./parse_metadata.ts";

export type { PolicyFeatures } from "./features.ts";
export type PolicyResult = { readonly policy: Policy } | { readonly errors: readonly PolicyError[] };

interface Kind {
  readonly apiVersion: string;
  readonly isNamespaced: boolean;
  /** object fields beside apiVersion, kind and metadata */
  readonly fields: readonly string[];
  readonly read: (document: Fields, namespace: string, features: PolicyFeatures, problems: Problems) => PolicySpec[];
}

const KINDS: Readonly<Record<string, Kind>> = {
  NetworkPolicy: {
    apiVersion: "networking.k8s.io/v1",
    isNamespaced: true,
    fields: ["spec", "status"],
    read: (document, namespace, _features, problems) => {
      const spec = readNetworkPolicySpec(document, namespace, problems);
      return spec === undefined ? [] : [spec];
    },
  },
  CiliumNetworkPolicy: {
    apiVersion: "cilium.io/v2",
    isNamespaced: true,
    fields: ["spec", "specs", "status"],
    read: readCiliumSpecs,
  },
  CiliumClusterwideNetworkPolicy: {
    apiVersion: "cilium.io/v2",
    isNamespaced: false,
    fields: ["spec", "specs", "status"],
    read: readCiliumSpecs,
  },
  ClusterNetworkPolicy: {
    apiVersion: "policy.networking.k8s.io/v1alpha2",
    isNamespaced: false,
    fields: ["spec", "status"],
    read: readClusterSpecs,
  },
  AdminNetworkPolicy: {
    apiVersion: "policy.networking.k8s.io/v1alpha1",
    isNamespaced: false,
    fields: ["spec", "status"],
    read: readAdminSpecs,
  },
  BaselineAdminNetworkPolicy: {
    apiVersion: "policy.networking.k8s.io/v1alpha1",
    isNamespaced: false,
    fields: ["spec", "status"],
    read: readBaselineSpecs,
  },
};

const NO_ENVOY = "there is no Envoy; write http rules in a CiliumNetworkPolicy";

/** Kinds of Cilium's that stand beside policies, and why we do not enforce them. */
const UNSUPPORTED_KINDS: Readonly<Record<string, string>> = {
  CiliumLocalRedirectPolicy: "services are not redirected here",
  CiliumEgressGatewayPolicy: "members reach the outside by their own routes",
  CiliumEnvoyConfig: NO_ENVOY,
  CiliumClusterwideEnvoyConfig: NO_ENVOY,
};

/** The kinds that `readPolicy` takes. */
export const POLICY_KINDS: readonly string[] = Object.keys(KINDS);

/** @param features what the mesh can do; by default what is enforced is accepted */
export function readPolicy(document: unknown, features: PolicyFeatures = {}): PolicyResult {
  const problems = new Problems();
  const policy = readDocument(document, features, problems);
  return policy === undefined || problems.any ? { errors: problems.errors } : { policy };
}

function readDocument(value: unknown, features: PolicyFeatures, problems: Problems): Policy | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return problems.add("", "NOT_AN_OBJECT", "A policy document is an object with apiVersion, kind, metadata and spec");
  }
  const document = value as Fields;
  const name = readKind(document, problems);
  if (name === undefined) return undefined;
  const kind = KINDS[name]!;
  problems.object(document, "", ["apiVersion", "kind", "metadata", ...kind.fields]);
  const meta = readMetadata(document, kind.isNamespaced, problems);
  return {
    kind: name,
    namespace: meta.namespace,
    name: meta.name,
    specs: kind.read(document, meta.namespace, features, problems),
  };
}

/** The kind, when it is one of ours with its API version. */
function readKind(document: Fields, problems: Problems): string | undefined {
  const kind = field(document, "kind");
  if (kind === undefined) return problems.add("kind", "MISSING", `Object without a kind: ${POLICY_KINDS.join(", ")}`);
  const name = problems.text(kind, "kind");
  if (name === undefined) return undefined;
  if (!Object.hasOwn(KINDS, name)) return problems.add("kind", ...unknownKind(name));
  const expected = KINDS[name]!.apiVersion;
  const version = field(document, "apiVersion");
  if (version === expected) return name;
  const found = typeof version === "string" ? quote(version) : "none";
  return problems.add(
    "apiVersion",
    version === undefined ? "MISSING" : "BAD_VALUE",
    `${name} is of apiVersion ${expected}, got ${found}`,
  );
}

function unknownKind(name: string): [PolicyErrorCode, string] {
  if (Object.hasOwn(UNSUPPORTED_KINDS, name)) {
    return ["UNSUPPORTED_KIND", `${name} is not supported: ${UNSUPPORTED_KINDS[name]}`];
  }
  return [
    "UNKNOWN_KIND",
    `${quote(name)} is no policy kind: ${POLICY_KINDS.join(", ")}${didYouMean(name, POLICY_KINDS)}`,
  ];
}
