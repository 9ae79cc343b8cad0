/**
 * Reads policy scenarios from the documents of a file: one scenario, a list, or `{cases: [...]}`. Strict: an unknown field, a probe
 * that names nobody, a value of the wrong type are errors with their place. A bad scenario does not spoil the others of its file.
 *
 * Read first: scenario.ts (what comes out).
 */
import { field, type Fields, joinPath, Problems, quote } from "../../src/policy/fields.ts";
import type { PolicyError } from "../../src/policy/errors.ts";
import type { ManifestDocument, Position } from "../manifest.ts";
import { readConfig } from "./read_config.ts";
import { readEndpoint } from "./read_endpoint.ts";
import { readProbes } from "./read_probe.ts";
import { addressesOf, itemsAt, labelsOf, textAt } from "./read_values.ts";
import { type DnsAnswer, FLAVORS, type Question, type Scenario, type ScenarioService } from "./scenario.ts";

const SCENARIO_FIELDS = [
  "id",
  "source",
  "note",
  "flavor",
  "config",
  "namespaces",
  "endpoints",
  "policies",
  "cidrGroups",
  "services",
  "dnsCache",
  "probes",
  "kind",
  "pattern",
  "checks",
  "valid",
  "why",
  "contested",
];

/** A scenario that cannot be read, and why. */
export interface BadScenario {
  readonly id: string;
  readonly position: Position;
  readonly errors: readonly (PolicyError & { readonly position: Position })[];
}

export type ReadScenario = { readonly scenario: Scenario } | { readonly bad: BadScenario };

/** All scenarios of one file, in its order. */
export function readScenarios(documents: readonly ManifestDocument[]): ReadScenario[] {
  const found: ReadScenario[] = [];
  const ids = new Set<string>();
  for (const document of documents) {
    for (const { value, path, problems } of casesOf(document.value)) {
      const scenario = problems.any ? undefined : readOne(value, path, problems, ids);
      found.push(
        scenario !== undefined && !problems.any
          ? { scenario }
          : { bad: badScenario(idOf(value) ?? (path || "scenario"), path, problems, document) },
      );
    }
  }
  return found;
}

function badScenario(id: string, path: string, problems: Problems, document: ManifestDocument): BadScenario {
  const errors = problems.errors.map((error) => ({ ...error, position: document.positionOf(error.path) }));
  return { id, position: document.positionOf(path), errors };
}

interface Case {
  readonly value: unknown;
  readonly path: string;
  readonly problems: Problems;
}

function casesOf(value: unknown): Case[] {
  if (Array.isArray(value)) return value.map((item, i) => ({ value: item, path: `[${i}]`, problems: new Problems() }));
  const problems = new Problems();
  if (!isFields(value) || !Object.hasOwn(value, "cases")) return [{ value, path: "", problems }];
  problems.object(value, "", ["cases", "source", "note"]);
  const cases = problems.items(value["cases"], "cases") ?? [];
  const whole = problems.any ? [{ value, path: "", problems }] : [];
  return [...whole, ...cases.map((item, i) => ({ value: item, path: `cases[${i}]`, problems: new Problems() }))];
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function idOf(value: unknown): string | undefined {
  const id = isFields(value) ? field(value, "id") : undefined;
  return typeof id === "string" ? id : undefined;
}

function readOne(value: unknown, path: string, problems: Problems, ids: Set<string>): Scenario | undefined {
  const fields = problems.object(value, path, SCENARIO_FIELDS);
  if (fields === undefined) return undefined;
  const id = textAt(fields, path, "id", problems);
  if (id === undefined || id === "") return problems.add(joinPath(path, "id"), "MISSING", "Scenario without an id");
  if (ids.has(id)) {
    problems.add(joinPath(path, "id"), "CONFLICT", `Another scenario of this file has the id ${quote(id)}`);
  }
  ids.add(id);
  textAt(fields, path, "source", problems);
  textAt(fields, path, "note", problems);
  const flavor = field(fields, "flavor") ?? "cilium";
  const config = readConfig(field(fields, "config"), joinPath(path, "config"), problems);
  const endpoints = itemsAt(
    fields,
    path,
    "endpoints",
    problems,
    (item, at) => readEndpoint(item, at, config.localCluster, problems),
  );
  const refs = new Set<string>();
  endpoints.forEach(({ ref }, i) => {
    if (refs.has(ref)) {
      problems.add(`${joinPath(path, "endpoints")}[${i}].ref`, "CONFLICT", `Two endpoints have the ref ${quote(ref)}`);
    }
    refs.add(ref);
  });
  const question = readQuestion(fields, path, [...refs], problems);
  if (question === undefined) return undefined;
  return {
    id,
    flavor: problems.word(flavor, joinPath(path, "flavor"), FLAVORS) ?? "cilium",
    config,
    namespaces: readNamespaces(field(fields, "namespaces"), joinPath(path, "namespaces"), problems),
    endpoints,
    policies: itemsAt(fields, path, "policies", problems, (item) => item),
    cidrGroups: itemsAt(fields, path, "cidrGroups", problems, (item) => item),
    services: itemsAt(fields, path, "services", problems, (item, at) => readService(item, at, problems)),
    dnsCache: itemsAt(fields, path, "dnsCache", problems, (item, at) => readAnswer(item, at, problems)),
    question,
    isContested: readContested(field(fields, "contested"), joinPath(path, "contested"), problems),
  };
}

/** true, or a text that says who disagrees. */
function readContested(value: unknown, path: string, problems: Problems): boolean {
  if (value === undefined) return false;
  if (typeof value === "string") return value !== "";
  return problems.boolean(value, path) ?? false;
}

function readNamespaces(
  value: unknown,
  path: string,
  problems: Problems,
): Map<string, Readonly<Record<string, string>>> {
  const namespaces = new Map<string, Readonly<Record<string, string>>>();
  const fields = value === undefined ? undefined : problems.anyObject(value, path);
  for (const name of Object.keys(fields ?? {})) {
    const at = joinPath(path, name);
    const one = field(fields!, name);
    const namespace = one === undefined ? undefined : problems.object(one, at, ["labels"]);
    namespaces.set(name, namespace === undefined ? {} : labelsOf(field(namespace, "labels"), `${at}.labels`, problems));
  }
  return namespaces;
}

function readService(item: unknown, path: string, problems: Problems): ScenarioService | undefined {
  const fields = problems.object(item, path, ["name", "namespace", "labels", "selector", "endpointIPs"]);
  if (fields === undefined) return undefined;
  const name = textAt(fields, path, "name", problems);
  if (name === undefined) return problems.add(joinPath(path, "name"), "MISSING", "Service without a name");
  const selector = field(fields, "selector");
  return {
    name,
    namespace: textAt(fields, path, "namespace", problems) ?? "default",
    labels: labelsOf(field(fields, "labels"), joinPath(path, "labels"), problems),
    selector: selector === undefined ? undefined : labelsOf(selector, joinPath(path, "selector"), problems),
    endpointAddresses: addressesOf(fields, path, "endpointIPs", problems),
  };
}

function readAnswer(item: unknown, path: string, problems: Problems): DnsAnswer | undefined {
  const fields = problems.object(item, path, ["name", "ips", "ttl"]);
  if (fields === undefined) return undefined;
  const name = textAt(fields, path, "name", problems);
  if (name === undefined) return problems.add(joinPath(path, "name"), "MISSING", "Answer without a name");
  const ttl = field(fields, "ttl");
  const ttlSeconds = ttl === undefined ? 3600 : problems.integer(ttl, joinPath(path, "ttl"), 0, 2 ** 31 - 1) ?? 0;
  return { name, addresses: addressesOf(fields, path, "ips", problems), ttlSeconds };
}

/** Probes, or a table of names, or whether the objects are valid: exactly one of them. */
function readQuestion(
  fields: Fields,
  path: string,
  refs: readonly string[],
  problems: Problems,
): Question | undefined {
  const asked = ["probes", "checks", "valid"].filter((name) => field(fields, name) !== undefined);
  if (asked.length === 0) return problems.add(path, "MISSING", "Scenario without probes, checks or valid");
  if (asked.length > 1) return problems.add(path, "CONFLICT", `Scenario with both ${asked[0]} and ${asked[1]}`);
  const strays = { probes: ["kind", "pattern", "why"], checks: ["why"], valid: ["kind", "pattern"] }[asked[0]!]!;
  for (const name of strays) {
    if (field(fields, name) === undefined) continue;
    problems.add(joinPath(path, name), "CONFLICT", `${name} does not go with ${asked[0]}`);
  }
  if (asked[0] === "probes") {
    return { kind: "probes", probes: readProbes(field(fields, "probes"), joinPath(path, "probes"), refs, problems) };
  }
  if (asked[0] === "checks") return readNameTable(fields, path, problems);
  const valid = problems.boolean(field(fields, "valid"), joinPath(path, "valid"));
  return valid === undefined ? undefined : { kind: "valid", valid, why: textAt(fields, path, "why", problems) };
}

function readNameTable(fields: Fields, path: string, problems: Problems): Question | undefined {
  const kind = problems.word(field(fields, "kind"), joinPath(path, "kind"), ["matchName", "matchPattern"]);
  const pattern = problems.text(field(fields, "pattern"), joinPath(path, "pattern"));
  const checks = itemsAt(fields, path, "checks", problems, (item, at) => {
    const check = problems.object(item, at, ["name", "match"]);
    if (check === undefined) return undefined;
    const name = problems.text(field(check, "name"), joinPath(at, "name"));
    const match = problems.boolean(field(check, "match"), joinPath(at, "match"));
    return name === undefined || match === undefined ? undefined : { name, match };
  });
  return kind === undefined || pattern === undefined ? undefined : { kind: "names", field: kind, pattern, checks };
}
