/** Checks the documents of a manifest one by one: policies, and what stands beside them in a policy repository. */
import { keyOfPolicy } from "../../src/policy/model.ts";
import { readPolicy } from "../../src/policy/read_policy.ts";
import { readManifest } from "../manifest.ts";
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
 * @param seen keys of objects of other files and where they stand; those of this one are added
 */
export function validateText(file: string, text: string, seen: Map<string, string> = new Map()): ValidationResult {
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
    const add = (path: string, code: string, message: string) =>
      findings.push({ file, ...positionOf(path), object, path, code, message });
    const result = readPolicy(value);
    if ("errors" in result) {
      for (const { path, code, message } of result.errors) add(path, code, message);
      continue;
    }
    const key = keyOfPolicy(result.policy);
    const before = seen.get(key);
    if (before === undefined) {
      seen.set(key, `${file}:${position.line}`);
      valid++;
    } else add("metadata.name", "CONFLICT", `${object} is there already: ${before}`);
  }
  return { documents: manifest.documents.length, valid, findings };
}
