/**
 * Reads the settings: `loadConfig` turns flags, environment and file into one frozen, checked object by the table of
 * `settings.ts`, and reports all faults at once.
 *
 * Precedence: flag, then `EDGEMESH_*` variable, then the file of `--config`, then the default. The name in the file is that of
 * the flag. A secret also has a `..._FILE` variable that names a file to read it from. Nothing else in the program reads the
 * environment: what systemd and the terminal say comes from `readSurroundings` here.
 */
import { EdgeError, messageOf } from "./errors.ts";
import { type Config, rowOf, type SettingKey, settingOfFlag, SETTINGS, variableOf } from "./settings.ts";

export type { Config } from "./settings.ts";

const KEYS = Object.keys(SETTINGS) as SettingKey[];
const FLAGS = KEYS.map((key) => SETTINGS[key].flag);

/** Where a value came from, for `version --verbose` and messages. */
export type Origin = "flag" | "environment" | "file" | "default";

/** Values as the command line gave them, by setting; several for a repeated flag. */
export type RawFlags = ReadonlyMap<SettingKey, readonly string[]>;

/** What `loadConfig` reads. */
export interface ConfigSources {
  readonly flags: RawFlags;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** reads a text file; throws as node:fs does */
  readonly readFile: (path: string) => string;
  /** turns the text of `--config` into data; may throw. Loaded only when there is such a file. */
  readonly parseFile: (text: string, path: string) => Promise<unknown>;
}

/** The settings with the places they came from. */
export interface LoadedConfig {
  readonly config: Config;
  readonly origins: Readonly<Record<SettingKey, Origin>>;
  /** things that are no fault but look like a mistake: variables that nobody reads */
  readonly warnings: readonly string[];
}

/** Several faults in settings; the message lists them all, one a line. */
export class ConfigError extends EdgeError {
  readonly faults: readonly string[];
  constructor(faults: readonly string[]) {
    super(
      "EDGE_CONFIG_INVALID",
      faults.length === 1 ? faults[0]! : `${faults.length} settings are wrong:\n  ${faults.join("\n  ")}`,
    );
    this.name = "ConfigError";
    this.faults = faults;
  }
}

interface Found {
  readonly texts: readonly string[];
  readonly origin: Origin;
  /** how the source is named in a fault */
  readonly from: string;
}

/**
 * Reads all settings.
 * @throws ConfigError with every fault found
 */
export async function loadConfig(sources: ConfigSources): Promise<LoadedConfig> {
  const faults: string[] = [];
  const found = new Map<SettingKey, Found>();
  for (const key of KEYS) {
    const value = sources.flags.get(key);
    if (value !== undefined) found.set(key, { texts: value, origin: "flag", from: `--${SETTINGS[key].flag}` });
    else readVariable(key, sources, found, faults);
  }
  const file = found.get("config")?.texts.at(-1);
  if (file !== undefined) await readSettingsFile(file, sources, found, faults);
  const config: Record<string, unknown> = {};
  const origins: Record<string, Origin> = {};
  for (const key of KEYS) {
    origins[key] = found.get(key)?.origin ?? "default";
    config[key] = valueOf(key, found.get(key), sources.env, faults);
  }
  if (faults.length > 0) throw new ConfigError(faults);
  return {
    config: Object.freeze(config) as Config,
    origins: origins as Record<SettingKey, Origin>,
    warnings: strayVariables(sources.env),
  };
}

function readVariable(key: SettingKey, sources: ConfigSources, found: Map<SettingKey, Found>, faults: string[]): void {
  const row = rowOf(key);
  const variable = variableOf(key);
  const text = sources.env[variable];
  if (text !== undefined && text !== "") {
    const texts = row.isList ? text.split(",").map((part) => part.trim()).filter((part) => part !== "") : [text];
    found.set(key, { texts, origin: "environment", from: variable });
    return;
  }
  const path = row.isSecret ? sources.env[`${variable}_FILE`] : undefined;
  if (path === undefined || path === "") return;
  try {
    const secret = sources.readFile(path).trim();
    found.set(key, { texts: [secret], origin: "environment", from: `${variable}_FILE` });
  } catch (error) {
    faults.push(`${variable}_FILE: cannot read "${path}": ${messageOf(error)}`);
  }
}

async function readSettingsFile(
  path: string,
  sources: ConfigSources,
  found: Map<SettingKey, Found>,
  faults: string[],
): Promise<void> {
  let data: unknown;
  try {
    data = await sources.parseFile(sources.readFile(path), path);
  } catch (error) {
    faults.push(`--config "${path}": ${messageOf(error)}`);
    return;
  }
  if (data === null || data === undefined) return; // an empty file sets nothing
  if (typeof data !== "object" || Array.isArray(data)) {
    faults.push(`--config "${path}": must be a mapping of settings`);
    return;
  }
  for (const [name, value] of Object.entries(data)) {
    const key = settingOfFlag(name);
    if (key === undefined || key === "config") {
      const near = nearest(name, FLAGS);
      faults.push(`"${name}" in ${path}: no such setting${near === undefined ? "" : `; did you mean "${near}"?`}`);
      continue;
    }
    const texts = textsOf(value, rowOf(key).isList === true);
    if (texts === undefined) {
      faults.push(`"${name}" in ${path}: must be ${rowOf(key).isList ? "a list of texts" : "one value"}`);
    } else if (!found.has(key)) found.set(key, { texts, origin: "file", from: `"${name}" in ${path}` });
  }
}

function textsOf(value: unknown, isList: boolean): readonly string[] | undefined {
  const items = Array.isArray(value) ? value : [value];
  if (Array.isArray(value) && !isList) return undefined;
  if (!items.every((item) => ["string", "number", "boolean"].includes(typeof item))) return undefined;
  return items.map(String);
}

function valueOf(key: SettingKey, from: Found | undefined, env: ConfigSources["env"], faults: string[]): unknown {
  const row = rowOf(key);
  if (from === undefined) return defaultOf(key, env);
  const read = (text: string): unknown => {
    try {
      return row.parse(text);
    } catch (error) {
      const shown = row.isSecret ? "" : ` "${text}"`;
      faults.push(`${from.from}${shown}: ${messageOf(error)}`);
      return undefined;
    }
  };
  if (row.isList) return Object.freeze(from.texts.map(read));
  return read(from.texts.at(-1)!);
}

/** systemd names the directories that it made for the unit (systemd.exec(5), StateDirectory=). */
function defaultOf(key: SettingKey, env: ConfigSources["env"]): unknown {
  const stateDirectory = env["STATE_DIRECTORY"]?.split(":")[0];
  if (key === "stateDir" && stateDirectory) return stateDirectory;
  const runtimeDirectory = env["RUNTIME_DIRECTORY"]?.split(":")[0];
  if (key === "socket" && runtimeDirectory) return `${runtimeDirectory}/edgemesh.sock`;
  return SETTINGS[key].default;
}

/** Variables that are no setting but belong to a command (the token of `join`). */
const OTHER_VARIABLES = new Set(["EDGEMESH_TOKEN", "EDGEMESH_TOKEN_FILE"]);

function strayVariables(env: ConfigSources["env"]): string[] {
  const known = new Set(
    KEYS.flatMap((key) => [variableOf(key), ...(rowOf(key).isSecret ? [`${variableOf(key)}_FILE`] : [])]),
  );
  const strays = Object.keys(env).filter((name) =>
    name.startsWith("EDGEMESH_") && !known.has(name) && !OTHER_VARIABLES.has(name)
  );
  return strays.sort().map((name) => {
    const near = nearest(name, [...known]);
    return `variable ${name} is no setting${near === undefined ? "" : `; did you mean ${near}?`}`;
  });
}

/** The candidate with the fewest edits from `word`, if it is near enough to be a slip; else `undefined`. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestEdits = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const edits = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (edits < bestEdits) [best, bestEdits] = [candidate, edits];
  }
  return best;
}

/** Levenshtein's distance: insertions, deletions and replacements that lead from `a` to `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** What the machine's service manager and terminal say through the environment. */
export interface Surroundings {
  /** systemd's notification socket: a path, or "@name" in the abstract name space */
  readonly notifySocket: string | undefined;
  /** the watchdog wants a sign of life at least this often; undefined: none is expected */
  readonly watchdogMs: number | undefined;
  /** standard error goes to the journal (systemd.exec(5)) */
  readonly isJournal: boolean;
  /** https://no-color.org */
  readonly noColor: boolean;
  /** token of `join`, from `EDGEMESH_TOKEN` or the file that `EDGEMESH_TOKEN_FILE` names */
  readonly token: string | undefined;
  readonly tokenFile: string | undefined;
}

/** Reads what is not a setting of ours. `WATCHDOG_PID` of another process means that its watchdog is not for us. */
export function readSurroundings(env: ConfigSources["env"], pid: number): Surroundings {
  const watchdogUs = Number(env["WATCHDOG_USEC"] ?? "");
  const isOurs = env["WATCHDOG_PID"] === undefined || env["WATCHDOG_PID"] === String(pid);
  return {
    notifySocket: env["NOTIFY_SOCKET"] || undefined,
    watchdogMs: isOurs && watchdogUs > 0 ? watchdogUs / 1000 : undefined,
    isJournal: (env["JOURNAL_STREAM"] ?? "") !== "",
    noColor: (env["NO_COLOR"] ?? "") !== "",
    token: env["EDGEMESH_TOKEN"] || undefined,
    tokenFile: env["EDGEMESH_TOKEN_FILE"] || undefined,
  };
}
