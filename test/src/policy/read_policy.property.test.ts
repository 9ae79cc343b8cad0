/** Whatever comes in, a policy or errors come out; and what is wrong is named so that it can be found and mended. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readManifest } from "../../../edge/manifest.ts";
import { MAX_ERRORS, type PolicyError } from "../../../src/policy/errors.ts";
import { POLICY_KINDS, readPolicy } from "../../../src/policy/read_policy.ts";
import { ALL_FEATURES, placesOf, VALID_DOCUMENTS } from "./documents.ts";

const NAMES = [...new Set(VALID_DOCUMENTS.flatMap((document) => placesOf(document).map(({ key }) => key)))]
  .filter((key) => !/^[0-9]+$/.test(key));

/** Maps whose keys are not fields. */
const MAPS = ["matchLabels", "labels", "annotations"];

const junkArb = fc.oneof(
  fc.anything({ withNullPrototype: true, withBigInt: true, withDate: true, withMap: true, withSparseArray: true }),
  fc.constantFrom(null, undefined, "", "*", "0", "ANY", "world", [], {}, [{}], [[]], 0, -1, 1e9, NaN, "__proto__"),
);

function errorsOf(document: unknown): readonly PolicyError[] {
  const result = readPolicy(document, ALL_FEATURES);
  if ("policy" in result) {
    // What is accepted goes to other threads and into files.
    expect(structuredClone(result.policy)).toEqual(result.policy);
    for (const { rules } of result.policy.specs) for (const rule of rules) expect(rule.path).toMatch(/^specs?\b/);
    return [];
  }
  expect(result.errors.length).toBeGreaterThan(0);
  expect(result.errors.length).toBeLessThanOrEqual(MAX_ERRORS);
  for (const { path, message } of result.errors) {
    expect(message).toMatch(/^\S/);
    expect(message).not.toMatch(/\.$|undefined|\[object|NaN is|\n/);
    expect(message.length).toBeLessThan(600);
    expect(path.length).toBeLessThan(400);
  }
  return result.errors;
}

describe("readPolicy", () => {
  it("accepts a document of every kind", () => {
    expect(VALID_DOCUMENTS.map(({ kind }) => kind)).toEqual(POLICY_KINDS);
    for (const document of VALID_DOCUMENTS) expect(errorsOf(document)).toEqual([]);
  });

  it("finds a slip in the name of every field, and names the field that was meant", () => {
    for (const document of VALID_DOCUMENTS) {
      placesOf(document).forEach(({ key, way }, at) => {
        if (/^[0-9]+$/.test(key) || MAPS.includes(way.at(-2) ?? "") || way[0] === "apiVersion" || way[0] === "kind") {
          return;
        }
        const copy = structuredClone(document);
        const { parent } = placesOf(copy)[at]!;
        const slip = `${key.slice(0, -1)}x${key.slice(-1)}`;
        parent[slip] = parent[key];
        delete parent[key];
        const found = errorsOf(copy).find((error) => error.code === "UNKNOWN_FIELD" && error.path.endsWith(slip));
        expect(found?.message, way.join(".")).toContain(`did you mean "${key}"?`);
      });
    }
  });

  it("refuses a field that nobody knows, wherever it stands", () => {
    for (const document of VALID_DOCUMENTS) {
      placesOf(document).forEach(({ parent, key, way }, at) => {
        const value = parent[key];
        if (typeof value !== "object" || Array.isArray(value) || MAPS.includes(key)) return;
        const copy = structuredClone(document);
        const place = placesOf(copy)[at]!;
        (place.parent[key] as Record<string, unknown>)["zzzzz"] = 1;
        expect(errorsOf(copy).map(({ code }) => code), way.join(".")).toContain("UNKNOWN_FIELD");
      });
    }
  });

  it("takes a place that was changed, dropped or doubled as good or names what is wrong", () => {
    let refused = 0;
    const changeArb = fc.record({
      at: fc.nat(),
      how: fc.constantFrom("junk" as const, "drop" as const, "double" as const, "move" as const, "text" as const),
      junk: junkArb,
      text: fc.oneof(fc.string(), fc.constantFrom(...NAMES)),
      name: fc.constantFrom(...NAMES),
    });
    fc.assert(
      fc.property(
        fc.constantFrom(...VALID_DOCUMENTS),
        fc.array(changeArb, { minLength: 1, maxLength: 3 }),
        (document, changes) => {
          const copy = structuredClone(document) as Record<string, unknown>;
          for (const { at, how, junk, text, name } of changes) {
            const places = placesOf(copy);
            if (places.length === 0) return;
            const { parent, key } = places[at % places.length]!;
            if (how === "junk") parent[key] = junk;
            else if (how === "text") parent[key] = text;
            else if (how === "drop") delete parent[key];
            else if (how === "move") parent[name] = parent[key];
            else if (Array.isArray(parent[key])) {
              parent[key] = [
                ...parent[key] as unknown[],
                ...parent[key] as unknown[],
              ];
            }
          }
          if (errorsOf(copy).length > 0) refused++;
        },
      ),
      { numRuns: 3000 },
    );
    expect(refused).toBeGreaterThan(1000);
  });

  it("answers random octets, and valid text with random octets in it, with errors or a policy", () => {
    const texts = VALID_DOCUMENTS.map((document) => new TextEncoder().encode(JSON.stringify(document)));
    const read = (octets: Uint8Array) => {
      const manifest = readManifest(new TextDecoder().decode(octets));
      if ("errors" in manifest) expect(manifest.errors.length).toBeGreaterThan(0);
      else for (const { value } of manifest.documents) errorsOf(value);
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), read), { numRuns: 1000 });
    fc.assert(
      fc.property(
        fc.constantFrom(...texts),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 32, max: 126 })), { maxLength: 3 }),
        (text, changes) => {
          const octets = text.slice();
          for (const [at, octet] of changes) octets[at % octets.length] = octet;
          read(octets);
        },
      ),
      { numRuns: 1000 },
    );
  });

  it("reads a document with 100 000 faults as fast as one with few", () => {
    const peers = new Array(100_000).fill({ matchLabel: {} });
    const entities = new Array(100_000).fill("wordl");
    const document = structuredClone(VALID_DOCUMENTS[1]!) as { spec: Record<string, unknown> };
    document.spec["ingress"] = [{ fromEndpoints: peers }, { fromEntities: entities }];
    expect(errorsOf(document)).toHaveLength(MAX_ERRORS);
  });
});
