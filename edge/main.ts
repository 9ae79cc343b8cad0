/**
 * The program's entry: finds the command, reads the settings, runs it, and turns what it throws into text and an exit code.
 *
 * What stays running (`run`, `join`, `hub run`) is taken apart here without commander, and each command's code is imported only
 * when it is called: a member that runs holds nothing that it does not use (D13).
 */
import { readFileSync } from "node:fs";
import { COMMANDS, LONG_RUNNING } from "./cli/commands.ts";
import type { CommandContext, CommandSpec } from "./cli/context.ts";
import { parseLine } from "./cli/flags.ts";
import { endProcess, makeTerminal } from "./cli/terminal.ts";
import { loadConfig, type LoadedConfig, type RawFlags } from "./config.ts";
import { asEdgeError, EXIT_FAILED, EXIT_OK, EXIT_USAGE } from "./errors.ts";

/** Runs one command line. @returns the exit code */
export async function main(
  words: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<number> {
  const terminal = makeTerminal(env);
  try {
    const found = await findCommand(words, terminal);
    if (found === undefined) return words.length === 0 ? EXIT_USAGE : EXIT_OK;
    const { spec, args, flags, options } = found;
    const reload = () => load(flags, env);
    const context: CommandContext = { args, options, loaded: await reload(), env, terminal, reload };
    return await (await spec.load())(context);
  } catch (error) {
    const known = asEdgeError(error);
    if (known !== undefined) {
      terminal.err(`edgemesh: ${known.message}\n  ${known.fix}\n`);
      return known.exitCode;
    }
    // a bug of ours: say all that there is
    terminal.err(
      `edgemesh: internal error: ${error instanceof Error ? error.stack ?? error.message : String(error)}\n`,
    );
    return EXIT_FAILED;
  }
}

interface Found {
  readonly spec: CommandSpec;
  readonly args: readonly string[];
  readonly flags: RawFlags;
  readonly options: ReadonlyMap<string, readonly string[]>;
}

async function findCommand(words: readonly string[], terminal: CommandContext["terminal"]): Promise<Found | undefined> {
  const name = LONG_RUNNING.find((candidate) => `${words.join(" ")} `.startsWith(`${candidate} `));
  const end = words.indexOf("--");
  const isHelp = words.slice(0, end < 0 ? undefined : end).some((word) => word === "--help" || word === "-h");
  if (name !== undefined && !isHelp) {
    const spec = COMMANDS.find((candidate) => candidate.path.join(" ") === name)!;
    return { spec, options: new Map(), ...parseLine(spec, words.slice(spec.path.length)) };
  }
  const { parseCommand } = await import("./cli/program.ts");
  const isVersion = words.length === 1 && words[0] === "--version";
  return await parseCommand(words.length === 0 ? ["--help"] : isVersion ? ["version"] : words, terminal);
}

function load(flags: RawFlags, env: Readonly<Record<string, string | undefined>>): Promise<LoadedConfig> {
  const readFile = (path: string) => readFileSync(path, "utf8");
  // YAML is loaded only for a file that is not JSON
  const parseFile = async (text: string, path: string): Promise<unknown> =>
    path.endsWith(".json") ? JSON.parse(text) : (await import("yaml")).parse(text);
  return loadConfig({ flags, env, readFile, parseFile });
}

if (import.meta.main) {
  // not process.exit at once: standard output may be a pipe that has not taken everything yet
  process.exitCode = await main(process.argv.slice(2), process.env);
  await endProcess();
}
