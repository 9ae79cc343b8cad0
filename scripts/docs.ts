/**
 * Keeps the documents true. Writes what can be generated into README.md (the table of drop reasons), and checks the rest: links
 * and commands that README names exist, every dependency has its line in DECISIONS.md, CHANGELOG.md has its Unreleased part.
 *
 *   deno task docs          writes README.md
 *   deno task docs:check    changes nothing, and fails with one line for every fault
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { REASONS } from "../src/verdict.ts";
import { ERROR_CODES } from "../edge/errors.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** A part of README.md between `<!-- begin NAME -->` and `<!-- end NAME -->` that is generated. */
const PARTS: Readonly<Record<string, () => string>> = {
  "drop reasons": () =>
    ["| number | name | meaning |", "| --- | --- | --- |"].concat(
      [...REASONS].map(([number, { name, text }]) => `| ${number} | \`${name}\` | ${text} |`),
    ).join("\n"),
  "error codes": () =>
    ["| code | exit | what to do |", "| --- | --- | --- |"].concat(
      Object.entries(ERROR_CODES).map(([code, { exit, fix }]) =>
        `| \`${code}\` | ${exit} | ${fix.replaceAll("|", "\\|")} |`
      ),
    ).join("\n"),
};

/** Fills every part; a part whose marks are missing is a fault. */
function withParts(text: string, faults: string[]): string {
  for (const [name, make] of Object.entries(PARTS)) {
    const begin = `<!-- begin ${name} -->`;
    const end = `<!-- end ${name} -->`;
    const from = text.indexOf(begin);
    const to = text.indexOf(end);
    if (from < 0 || to < from) faults.push(`README.md has no "${begin}" ... "${end}"`);
    else text = `${text.slice(0, from + begin.length)}\n\n${make()}\n\n${text.slice(to)}`;
  }
  return text;
}

function read(file: string): string {
  return existsSync(join(ROOT, file)) ? readFileSync(join(ROOT, file), "utf8") : "";
}

/** Relative links and inline names of files and tasks. */
function faultsOfReadme(text: string): string[] {
  const faults: string[] = [];
  for (const [, target] of text.matchAll(/\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)/g)) {
    if (!existsSync(join(ROOT, target!))) faults.push(`README.md links to "${target}", which does not exist`);
  }
  for (const [, path] of text.matchAll(/`((?:src|edge|ffi|test|scripts)\/[A-Za-z0-9_./-]*)(?: [^`]*)?`/g)) {
    if (!existsSync(join(ROOT, path!))) faults.push(`README.md names \`${path}\`, which does not exist`);
  }
  const tasks = Object.keys(JSON.parse(read("deno.json")).tasks);
  for (const [, task] of text.matchAll(/deno task ([a-z:]+)/g)) {
    if (!tasks.includes(task!)) faults.push(`README.md names the task "${task}", which deno.json does not have`);
  }
  return faults;
}

function faultsOfDecisions(text: string): string[] {
  const { dependencies, devDependencies } = JSON.parse(read("package.json"));
  return [...Object.keys(dependencies), ...Object.keys(devDependencies)]
    .filter((name) => !text.includes(`\`${name}\``))
    .map((name) => `DECISIONS.md has no line that says why we depend on \`${name}\``);
}

function faultsOfChangelog(text: string): string[] {
  return /^## \[Unreleased\]/m.test(text) ? [] : ["CHANGELOG.md has no part [Unreleased]"];
}

const isCheck = process.argv.includes("--check");
const faults: string[] = [];
const readme = read("README.md");
const filled = withParts(readme, faults);
if (filled !== readme) {
  if (isCheck) faults.push("README.md has an old generated part: run `deno task docs`");
  else writeFileSync(join(ROOT, "README.md"), filled);
}
faults.push(
  ...faultsOfReadme(filled),
  ...faultsOfDecisions(read("DECISIONS.md")),
  ...faultsOfChangelog(read("CHANGELOG.md")),
);
for (const fault of faults) console.error(`docs: ${fault}`);
process.exit(faults.length > 0 ? 1 : 0);
