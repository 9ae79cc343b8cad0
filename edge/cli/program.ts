/** Commander's side of the command table: parsing and help of everything that does not stay running. */
import { Command, CommanderError, Option } from "commander";
import { EdgeError, EXIT_OK } from "../errors.ts";
import { type RawFlags } from "../config.ts";
import { rowOf, type Setting, type SettingKey, settingsOf, variableOf } from "../settings.ts";
import { COMMANDS, GROUPS } from "./commands.ts";
import type { CommandSpec, OptionSpec, Terminal } from "./context.ts";

/** A command line, understood; undefined when help was asked for, and has been printed. */
export interface Invocation {
  readonly spec: CommandSpec;
  readonly args: readonly string[];
  readonly flags: RawFlags;
  readonly options: ReadonlyMap<string, readonly string[]>;
}

/**
 * Understands a command line.
 * @param words what follows the program's name
 * @throws EdgeError EDGE_USAGE
 */
export async function parseCommand(words: readonly string[], terminal: Terminal): Promise<Invocation | undefined> {
  let found: Invocation | undefined;
  const program = makeProgram(terminal, (invocation) => found = invocation);
  try {
    await program.parseAsync([...words], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === EXIT_OK) return undefined;
    throw new EdgeError("EDGE_USAGE", usageMessage(error.message), { fix: 'See "edgemesh --help".' });
  }
  return found;
}

function usageMessage(text: string): string {
  const plain = text.replace(/^error: /, "").replace(/\s+/g, " ").trim();
  return `Cannot read the command line: ${plain === "(outputHelp)" ? "a command is missing" : plain}`;
}

/** The whole program for commander. */
function makeProgram(terminal: Terminal, onAction: (invocation: Invocation) => void): Command {
  const program = new Command("edgemesh").description("Puts this machine into a Cilium-style Cluster Mesh");
  const groups = new Map<string, Command>([["", program]]);
  for (const spec of COMMANDS) {
    const parent = groupOf(spec.path.slice(0, -1), groups);
    addCommand(parent, spec, onAction);
  }
  program.addHelpText(
    "after",
    "\nExamples:\n  edgemesh hub run --advertise hub.example.net:7443\n  edgemesh hub token create\n  edgemesh join @token.txt\n",
  );
  for (const command of allOf(program)) {
    command.exitOverride().configureOutput({ writeOut: (text) => terminal.out(text), writeErr: () => {} });
    command.showHelpAfterError(false).showSuggestionAfterError(true);
  }
  return program;
}

function allOf(command: Command): Command[] {
  return [command, ...command.commands.flatMap((child) => allOf(child as Command))];
}

function groupOf(path: readonly string[], groups: Map<string, Command>): Command {
  const key = path.join(" ");
  const known = groups.get(key);
  if (known !== undefined) return known;
  const group = groupOf(path.slice(0, -1), groups).command(path.at(-1)!).description(GROUPS[key] ?? "");
  groups.set(key, group);
  return group;
}

function addCommand(parent: Command, spec: CommandSpec, onAction: (invocation: Invocation) => void): void {
  const command = parent.command(spec.path.at(-1)!).description(spec.summary);
  for (const argument of spec.args ?? []) {
    const name = `${argument.name}${argument.isList ? "..." : ""}`;
    command.argument(argument.isOptional ? `[${name}]` : `<${name}>`, argument.help);
  }
  const own = new Set((spec.options ?? []).map(({ flag }) => flag));
  for (const option of spec.options ?? []) command.addOption(commandOption(option));
  const settings = settingsOf(spec.scopes).filter((key) => !own.has(rowOf(key).flag));
  for (const key of settings) command.addOption(settingOption(key, rowOf(key)));
  command.addHelpText("after", `\nExamples:\n${spec.examples.map((line) => `  edgemesh ${line}`).join("\n")}\n`);
  command.action((...all: unknown[]) => {
    const given = (all.at(-1) as Command).opts() as Record<string, unknown>;
    const args = all.slice(0, -2).flat().filter((word): word is string => typeof word === "string");
    const flags = new Map<SettingKey, readonly string[]>();
    for (const key of settings) {
      const value = given[camelCase(rowOf(key).flag)];
      if (value !== undefined) flags.set(key, textsOf(value));
    }
    const options = new Map<string, readonly string[]>();
    for (const flag of own) {
      const value = given[camelCase(flag)];
      if (value !== undefined) options.set(flag, textsOf(value));
    }
    onAction({ spec, args, flags, options });
  });
}

function settingOption(key: SettingKey, row: Setting<unknown>): Option {
  const short = row.short === undefined ? "" : `-${row.short}, `;
  const value = row.isSwitch ? "" : ` <${row.value ?? "VALUE"}>`;
  const shown = row.defaultText ??
    (row.default === undefined || row.isList || row.isSwitch ? undefined : String(row.default));
  const help = `${row.help}${shown === undefined ? "" : ` (default: ${shown})`} [${variableOf(key)}]`;
  return collecting(new Option(`${short}--${row.flag}${value}`, help), row.isSwitch === true);
}

function commandOption({ flag, short, value, help }: OptionSpec): Option {
  const option = new Option(
    `${short === undefined ? "" : `-${short}, `}--${flag}${value === undefined ? "" : ` <${value}>`}`,
    help,
  );
  return collecting(option, value === undefined);
}

/** Values stay texts, all of them: they are checked where everything else is. */
function collecting(option: Option, isSwitch: boolean): Option {
  return isSwitch
    ? option
    : option.argParser((text: string, before: readonly string[] | undefined) => [...(before ?? []), text]);
}

function textsOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value as string[] : ["on"];
}

function camelCase(flag: string): string {
  return flag.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
