/** The door for CiliumCIDRGroup objects: prefixes under a name, which `cidrGroupRef` and `cidrGroupSelector` of policies mean. */
import type { IpPrefix } from "../ip/address.ts";
import type { PolicyError } from "./errors.ts";
import { field, type Fields, Problems, quote } from "./fields.ts";
import { readPrefix } from "./parse_cidr.ts";
import { readMetadata, readOwnLabels } from "./parse_metadata.ts";

/** Prefixes outside the cluster, under a name and labels. */
export interface CidrGroup {
  readonly name: string;
  /** its own labels, keys without a source */
  readonly labels: Readonly<Record<string, string>>;
  /** host bits are cleared */
  readonly prefixes: readonly IpPrefix[];
}

export type CidrGroupResult = { readonly group: CidrGroup } | { readonly errors: readonly PolicyError[] };

export const CIDR_GROUP_KIND = "CiliumCIDRGroup";
/** The older one is of Cilium up to 1.17; the shape is the same. */
const API_VERSIONS = ["cilium.io/v2", "cilium.io/v2alpha1"];

/** Reads plain data. One error refuses the whole object. Never throws, whatever the data. */
export function readCidrGroup(document: unknown): CidrGroupResult {
  const problems = new Problems();
  const group = readDocument(document, problems);
  return group === undefined || problems.any ? { errors: problems.errors } : { group };
}

function readDocument(value: unknown, problems: Problems): CidrGroup | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return problems.add(
      "",
      "NOT_AN_OBJECT",
      `A ${CIDR_GROUP_KIND} is an object with apiVersion, kind, metadata and spec`,
    );
  }
  const document = value as Fields;
  const kind = field(document, "kind");
  if (kind !== CIDR_GROUP_KIND) {
    const found = typeof kind === "string" ? quote(kind) : "none";
    return problems.add(
      "kind",
      kind === undefined ? "MISSING" : "UNKNOWN_KIND",
      `Expected ${CIDR_GROUP_KIND}, got ${found}`,
    );
  }
  const version = field(document, "apiVersion");
  if (typeof version !== "string" || !API_VERSIONS.includes(version)) {
    const found = typeof version === "string" ? quote(version) : "none";
    return problems.add(
      "apiVersion",
      version === undefined ? "MISSING" : "BAD_VALUE",
      `${CIDR_GROUP_KIND} is of apiVersion ${API_VERSIONS.join(" or ")}, got ${found}`,
    );
  }
  problems.object(document, "", ["apiVersion", "kind", "metadata", "spec", "status"]);
  const { name } = readMetadata(document, false, problems);
  const labels = readOwnLabels(document, problems);
  return { name, labels, prefixes: readPrefixes(document, problems) };
}

function readPrefixes(document: Fields, problems: Problems): IpPrefix[] {
  const prefixes: IpPrefix[] = [];
  const value = field(document, "spec");
  if (value === undefined) problems.add("spec", "MISSING", "Object without spec.externalCIDRs");
  const spec = value === undefined ? undefined : problems.object(value, "spec", ["externalCIDRs"]);
  if (spec === undefined) return prefixes;
  const path = "spec.externalCIDRs";
  const listed = field(spec, "externalCIDRs");
  if (listed === undefined) problems.add(path, "MISSING", "Group without externalCIDRs; [] is a group of none");
  else {
    problems.items(listed, path)?.forEach((item, i) => {
      const prefix = readPrefix(item, `${path}[${i}]`, problems);
      if (prefix !== undefined) prefixes.push(prefix);
    });
  }
  return prefixes;
}
