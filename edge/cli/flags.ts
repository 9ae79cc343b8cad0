/**
 * Reads the command line of a long-running command by the table of settings, without commander. Takes `--flag value`,
 * `--flag=value`, switches, and `--` before arguments.
 */
import { nearest, type RawFlags } from "../config.ts";
import { EdgeError } from "../errors.ts";
import { rowOf, type SettingKey, settingOfFlag, settingsOf } from "../settings.ts";
import type { CommandSpec } from "./context.ts";

/** A command line, taken apart; values are not checked yet. */
export interface ParsedLine {
  readonly flags: RawFlags;
  readonly args: readonly string[];
}

/**
 * Takes a command line apart.
 * @param words what follows the command's name
 * @throws EdgeError EDGE_USAGE
 */
export function parseLine(spec: CommandSpec, words: readonly string[]): ParsedLine {
  const known = new Set(settingsOf(spec.scopes));
  const flags = new Map<SettingKey, string[]>();
  const args: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (word === "--") {
      args.push(...words.slice(i + 1));
      break;
    }
    if (!word.startsWith("--")) {
      if (word.startsWith("-") && word !== "-") throw unknownFlag(spec, word, known);
      args.push(word);
      continue;
    }
    const equals = word.indexOf("=");
    const flag = word.slice(2, equals < 0 ? undefined : equals);
    const key = settingOfFlag(flag);
    if (key === undefined || !known.has(key)) throw unknownFlag(spec, `--${flag}`, known);
    let value: string | undefined = equals < 0 ? undefined : word.slice(equals + 1);
    if (value === undefined && rowOf(key).isSwitch) value = "on";
    value ??= words[++i];
    if (value === undefined) throw usage(spec, `Cannot read "--${flag}": it needs a value`);
    const before = flags.get(key);
    if (before === undefined) flags.set(key, [value]);
    else before.push(value);
  }
  const most = spec.args?.length ?? 0;
  // never echo an argument: it may be a token
  if (args.length > most) throw usage(spec, `Cannot run "${spec.path.join(" ")}": too many arguments`);
  return { flags, args };
}

function unknownFlag(spec: CommandSpec, word: string, known: ReadonlySet<SettingKey>): EdgeError {
  const near = nearest(word.replace(/^-+/, ""), [...known].map((key) => rowOf(key).flag));
  const hint = near === undefined ? "" : `; did you mean "--${near}"?`;
  return usage(spec, `Cannot read "${word.split("=")[0]}": no such flag of "${spec.path.join(" ")}"${hint}`);
}

function usage(spec: CommandSpec, message: string): EdgeError {
  return new EdgeError("EDGE_USAGE", message, { fix: `See "edgemesh ${spec.path.join(" ")} --help".` });
}
