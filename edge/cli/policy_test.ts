/** `edgemesh policy test SCENARIO...`: what policies do, without a mesh. */
import { EdgeError, EXIT_FAILED, EXIT_OK, EXIT_USAGE } from "../errors.ts";
import { readManifest } from "../manifest.ts";
import { type BadScenario, readScenarios } from "../policy/read_scenario.ts";
import { runScenario } from "../policy/run_scenario.ts";
import { type FileResult, reportLines, reportOf } from "../policy/scenario_report.ts";
import type { CommandContext } from "./context.ts";
import { type NamedText, readTexts } from "./files.ts";
import { clean, printDocument } from "./output.ts";

export async function policyTest(context: CommandContext): Promise<number> {
  const { terminal, loaded: { config } } = context;
  if (context.args.length === 0) throw new EdgeError("EDGE_USAGE", "Cannot test: no scenario file was named");
  const files = (await readTexts(context.args, terminal)).map(runFile);
  if (files.every(({ results, bad }) => results.length + bad.length === 0)) {
    throw new EdgeError("EDGE_MANIFEST_INVALID", `Cannot test "${context.args.join(", ")}": no scenario in it`);
  }
  for (const { place, bad } of files) for (const one of bad) terminal.err(badText(place, one));
  const report = reportOf(files);
  if (!await printDocument(terminal, config.output, report)) {
    terminal.out(reportLines(files).map((line) => `${clean(line)}\n`).join(""));
  }
  if (files.some(({ bad }) => bad.length > 0)) return EXIT_USAGE;
  const isOk = report.failed === 0 && (report.unsupported === 0 || !context.options.has("strict"));
  return isOk ? EXIT_OK : EXIT_FAILED;
}

function runFile({ text, place }: NamedText): FileResult {
  const manifest = readManifest(text);
  if ("errors" in manifest) {
    const errors = manifest.errors.map((error) => ({ ...error, path: "", code: "NOT_AN_OBJECT" as const }));
    return { place, results: [], bad: [{ id: place, position: errors[0]!.position, errors }] };
  }
  const read = readScenarios(manifest.documents);
  return {
    place,
    results: read.flatMap((one) => "scenario" in one ? [runScenario(one.scenario)] : []),
    bad: read.flatMap((one) => "bad" in one ? [one.bad] : []),
  };
}

function badText(place: string, { errors }: BadScenario): string {
  return errors.map(({ position, path, message }) =>
    `${clean(`${place}:${position.line}: ${path === "" ? "" : `${path}: `}${message}`)}\n`
  ).join("");
}
