/** Runs every scenario file of this folder with the runner of `edgemesh policy test`. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { readManifest } from "../../../edge/manifest.ts";
import { readScenarios } from "../../../edge/policy/read_scenario.ts";
import { runScenario } from "../../../edge/policy/run_scenario.ts";

const FOLDER = dirname(fileURLToPath(import.meta.url));

describe.each(readdirSync(FOLDER).filter((name) => name.endsWith(".yaml")))("%s", (name) => {
  const manifest = readManifest(readFileSync(join(FOLDER, name), "utf8"));
  if ("errors" in manifest) throw new Error(JSON.stringify(manifest.errors));
  const read = readScenarios(manifest.documents);

  it("can be read", () => {
    expect(read.flatMap((one) => "bad" in one ? one.bad.errors : [])).toEqual([]);
    expect(read.length).toBeGreaterThan(0);
  });

  const results = read.flatMap((one) => "scenario" in one ? [runScenario(one.scenario)] : []);
  it.each(results.filter(({ unsupported }) => unsupported === undefined))("$id holds", ({ failures }) => {
    expect(failures.map(({ probeText, expected, got, decidedBy }) => ({ probeText, expected, got, decidedBy })))
      .toEqual([]);
  });

  // A case that the engine cannot judge yet says so, and is never counted as passed. It starts to be judged by itself.
  const waiting = results.filter(({ unsupported }) => unsupported !== undefined);
  if (waiting.length > 0) {
    it.each(waiting)("$id is reported as unsupported, with a reason", ({ unsupported, failures }) => {
      expect(unsupported).toMatch(/not (yet )?supported|is off|unknown/i);
      expect(failures).toEqual([]);
    });
  }
});
