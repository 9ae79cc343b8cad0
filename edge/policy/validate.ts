/** Checks the documents of a manifest one by one: policies, and what stands beside them in a policy repository. */
import { readEndpointSlice, readService } from "../../src/hub/services.ts";
import type { PolicyError } from "../../src/policy/errors.ts";
import { didYouMean, quote } from "../../src/policy/fields.ts";
import { keyOfPolicy } from "../../src/policy/model.ts";
import { CIDR_GROUP_KIND, readCidrGroup } from "../../src/policy/read_cidr_group.ts";
import { NAMESPACE_KIND, readNamespaceObject } from "../../src/policy/read_namespace.ts";
import { type PolicyFeatures, readPolicy } from "../../src/policy/read_policy.ts";
import { OBJECT_KINDS } from "../kinds.ts";
import { readManifest } from "../manifest.ts";
import { DEFAULT_FEATURES } from "./flags.ts";
import { nameOf } from "./make_world.ts";

/** One thing that is wrong. */
export interface Finding {
  readonly file: string;
  /** both count from 1 */
  readonly line: number;
  readonly column: number;
  /** "CiliumNetworkPolicy shop/web"; empty when the text itself cannot be read */
  readonly object: string;
  /** field, e.g. "spec.ingress[0].toPorts"; empty for the object as a whole */
  readonly path: string;
  /** stable; BAD_TEXT for what is no YAML or JSON */
  readonly code: string;
  readonly message: string;
}

export interface ValidationResult {
  readonly documents: number;
  readonly valid: number;
  readonly findings: readonly Finding[];
}

/**
 * Checks one text.
 * @param seen     keys of objects of other files and where they stand; those of this one are added
 * @param features what the mesh can do
 */
export function validateText(
  file: string,
  text: string,
  seen: Map<string, string> = new Map(),
  features: PolicyFeatures = DEFAULT_FEATURES,
): ValidationResult {
  const manifest = readManifest(text);
  if ("errors" in manifest) {
    const findings = manifest.errors.map(({ message, position }): Finding => ({
      file,
      ...position,
      object: "",
      path: "",
      code: "BAD_TEXT",
      message,
    }));
    return { documents: 0, valid: 0, findings };
  }
  const findings: Finding[] = [];
  let valid = 0;
  for (const { value, position, positionOf } of manifest.documents) {
    const object = nameOf(value);
    const findingOf = ({ path, code, message }: PolicyError) => ({
      file,
      ...positionOf(path),
      object,
      path,
      code,
      message,
    });
    const result = readObject(value, features);
    if ("errors" in result) {
      findings.push(...result.errors.map(findingOf).sort((a, b) => a.line - b.line));
      continue;
    }
    const { key } = result;
    const before = seen.get(key);
    if (before === undefined) {
      seen.set(key, `${file}:${position.line}`);
      valid++;
    } else {
      const message = `${object} is there already: ${before}`;
      findings.push(findingOf({ path: "metadata.name", code: "CONFLICT", message }));
    }
  }
  return { documents: manifest.documents.length, valid, findings };
}

/** The key of an object, unique among all kinds, or what is wrong with it. */
function readObject(
  value: unknown,
  features: PolicyFeatures,
): { readonly key: string } | { readonly errors: readonly PolicyError[] } {
  const kind = typeof value === "object" && value !== null ? (value as { kind?: unknown }).kind : undefined;
  const keyOf = ({ namespace, name }: { namespace: string; name: string }) => ({ key: `${kind}/${namespace}/${name}` });
  switch (kind) {
    case CIDR_GROUP_KIND: {
      const result = readCidrGroup(value);
      return "errors" in result ? result : keyOf({ namespace: "", name: result.group.name });
    }
    case "Service": {
      const result = readService(value);
      return "errors" in result ? result : keyOf(result.service);
    }
    case "EndpointSlice": {
      const result = readEndpointSlice(value);
      return "errors" in result ? result : keyOf(result.slice);
    }
    case NAMESPACE_KIND: {
      const result = readNamespaceObject(value);
      return "errors" in result ? result : keyOf({ namespace: "", name: result.namespace.name });
    }
  }
  const result = readPolicy(value, features);
  if ("policy" in result) return { key: keyOfPolicy(result.policy) };
  return { errors: result.errors.map((error) => error.code === "UNKNOWN_KIND" ? unknownKind(error, kind) : error) };
}

/** Names the kinds that are no policies too. */
function unknownKind(error: PolicyError, kind: unknown): PolicyError {
  const known = OBJECT_KINDS.map((one) => one.kind);
  const text = String(kind);
  return { ...error, message: `${quote(text)} is none of the kinds ${known.join(", ")}${didYouMean(text, known)}` };
}
