/** `edgemesh completion bash|zsh|fish`: scripts made from the command table and the table of settings. */
import { EdgeError, EXIT_OK } from "../errors.ts";
import { rowOf, settingsOf } from "../settings.ts";
import type { CommandSpec, Handler } from "./context.ts";

/** What the groups of commands are about, by their words. */
type Groups = Readonly<Record<string, string>>;

/** What may stand on a command line. */
interface Candidate {
  readonly word: string;
  readonly help: string;
}

/** The words before it as the shell compares them, and what may follow. */
interface Case {
  readonly words: string;
  readonly candidates: readonly Candidate[];
}

/** The command that completes the commands of a table. */
export function completionOf(commands: readonly CommandSpec[], groups: Groups): Handler {
  return (context) => {
    const make = { bash: bashScript, zsh: zshScript, fish: fishScript }[context.args[0]!];
    if (make === undefined) {
      throw new EdgeError("EDGE_USAGE", `Cannot complete for "${context.args[0]}": bash, zsh or fish`);
    }
    context.terminal.out(make(casesOf(commands, groups)));
    return Promise.resolve(EXIT_OK);
  };
}

/** Long flags of a command, each with its help. */
function flagsOf(spec: CommandSpec): readonly { flag: string; help: string }[] {
  const own = (spec.options ?? []).map(({ flag, help }) => ({ flag, help }));
  const settings = settingsOf(spec.scopes).map(rowOf).map(({ flag, help }) => ({ flag, help }));
  const names = new Set(own.map(({ flag }) => flag));
  return [...own, ...settings.filter(({ flag }) => !names.has(flag)), { flag: "help", help: "show help" }];
}

/** Every position on a command line: the words before it, and what may follow. */
function positionsOf(commands: readonly CommandSpec[], groups: Groups): readonly Case[] {
  const found = new Map<string, Map<string, string>>();
  for (const { path, summary } of commands) {
    for (let i = 0; i < path.length; i++) {
      const before = path.slice(0, i).join(" ");
      const here = found.get(before) ?? new Map<string, string>();
      const help = i === path.length - 1 ? summary : groups[path.slice(0, i + 1).join(" ")] ?? "";
      here.set(path[i]!, help);
      found.set(before, here);
    }
  }
  return [...found].map(([words, next]) => ({ words, candidates: [...next].map(([word, help]) => ({ word, help })) }));
}

/** What may follow each run of words, flags among it. */
function casesOf(commands: readonly CommandSpec[], groups: Groups): readonly Case[] {
  const flags = commands.map((spec) => ({
    words: spec.path.join(" "),
    candidates: flagsOf(spec).map(({ flag, help }) => ({ word: `--${flag}`, help })),
  }));
  return [...positionsOf(commands, groups), ...flags];
}

function bashScript(cases: readonly Case[]): string {
  const lines = cases.map(({ words, candidates }) =>
    `    "${words}") COMPREPLY=($(compgen -W "${candidates.map(({ word }) => word).join(" ")}" -- "$current")) ;;`
  );
  return `# bash completion of edgemesh
_edgemesh() {
  local current="\${COMP_WORDS[COMP_CWORD]}" words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ "\${COMP_WORDS[i]}" == -* ]] && break
    words="\${words:+$words }\${COMP_WORDS[i]}"
  done
  COMPREPLY=()
  case "$words" in
${lines.join("\n")}
    *) COMPREPLY=($(compgen -f -- "$current")) ;;
  esac
}
complete -F _edgemesh edgemesh
`;
}

function zshScript(cases: readonly Case[]): string {
  const lines = cases.map(({ words, candidates }) => {
    const items = candidates.map(({ word, help }) => `'${word}:${quoteZsh(help)}'`).join(" ");
    return `    "${words}") candidates=(${items}) ;;`;
  });
  return `#compdef edgemesh
# zsh completion of edgemesh
_edgemesh() {
  local -a candidates
  local before="" i
  for ((i = 2; i < CURRENT; i++)); do
    [[ "\${words[i]}" == -* ]] && break
    before="\${before:+$before }\${words[i]}"
  done
  case "$before" in
${lines.join("\n")}
    *) _files; return ;;
  esac
  _describe 'edgemesh' candidates
}
compdef _edgemesh edgemesh
`;
}

function fishScript(cases: readonly Case[]): string {
  const lines = cases.flatMap(({ words, candidates }) =>
    candidates.map(({ word, help }) => {
      const what = word.startsWith("--") ? `-l ${word.slice(2)}` : `-a ${word}`;
      return `complete -c edgemesh -n '__edgemesh_at "${words}"' -f ${what} -d '${help.replace(/['\\]/g, "\\$&")}'`;
    })
  );
  return `# fish completion of edgemesh
function __edgemesh_at
    set -l words
    for word in (commandline -opc)[2..-1]
        string match -q -- '-*' $word; and break
        set -a words $word
    end
    test "$words" = "$argv[1]"
end
${lines.join("\n")}
`;
}

function quoteZsh(help: string): string {
  return help.replaceAll("'", "'\\''").replaceAll(":", "\\:");
}
