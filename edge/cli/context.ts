/** What a command's handler is given, and how the command table describes a command. */
import type { LoadedConfig } from "../config.ts";
import type { Scope } from "../settings.ts";

/** The terminal, as a handler sees it. */
export interface Terminal {
  /** whole text, with its line feeds */
  out(text: string): void;
  err(text: string): void;
  /** all of standard input as text */
  readInput(): Promise<string>;
  /** escape sequences may be written to standard output */
  readonly hasColor: boolean;
  /** aborted by SIGINT and SIGTERM: what runs until then ends with exit code 0 */
  readonly interrupted: AbortSignal;
}

/** One call of a command. */
export interface CommandContext {
  readonly args: readonly string[];
  /** options of the command itself (not settings) by flag; several values for a repeated one */
  readonly options: ReadonlyMap<string, readonly string[]>;
  readonly loaded: LoadedConfig;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly terminal: Terminal;
  /** reads the settings again with the same flags, for SIGHUP */
  readonly reload: () => Promise<LoadedConfig>;
}

/** Runs a command. @returns the exit code @throws EdgeError, which the caller prints */
export type Handler = (context: CommandContext) => Promise<number>;

export interface ArgumentSpec {
  readonly name: string;
  readonly help: string;
  readonly isOptional?: true;
  readonly isList?: true;
}

/** An option of one command. */
export interface OptionSpec {
  readonly flag: string;
  readonly short?: string;
  /** how the value is shown; none for a switch */
  readonly value?: string;
  readonly help: string;
  readonly isList?: true;
}

/** One row of the command table. */
export interface CommandSpec {
  /** words that name it: ["hub", "token", "create"] */
  readonly path: readonly string[];
  readonly summary: string;
  readonly args?: readonly ArgumentSpec[];
  /** which settings it knows as flags */
  readonly scopes: readonly Scope[];
  readonly options?: readonly OptionSpec[];
  /** command lines, without the program's name */
  readonly examples: readonly string[];
  readonly load: () => Promise<Handler>;
}

/** The last value of an option; undefined when it was not given. */
export function optionOf(context: CommandContext, flag: string): string | undefined {
  return context.options.get(flag)?.at(-1);
}
