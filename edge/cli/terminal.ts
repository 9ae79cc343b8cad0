/** The real terminal: standard streams and signals. */
import type { Terminal } from "./context.ts";

/** Largest standard input that is read, characters. */
const MAX_INPUT_CHARS = 16 * 1024 * 1024;

/** Signals are watched from the first time that somebody asks for `interrupted`. */
export function makeTerminal(env: Readonly<Record<string, string | undefined>>): Terminal {
  let interrupted: AbortController | undefined;
  for (const stream of [process.stdout, process.stderr]) {
    if (!stream.listeners("error").includes(ignoreClosedPipe as never)) stream.on("error", ignoreClosedPipe);
  }
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    readInput,
    hasColor: process.stdout.isTTY === true && !env["NO_COLOR"],
    get interrupted() {
      if (interrupted === undefined) {
        const made = new AbortController();
        interrupted = made;
        process.once("SIGINT", () => made.abort());
        process.once("SIGTERM", () => made.abort());
      }
      return interrupted.signal;
    },
  };
}

/** `edgemesh peers | head -1`: who reads has seen enough. */
function ignoreClosedPipe(error: Error & { code?: string }): void {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
}

async function readInput(): Promise<string> {
  let text = "";
  process.stdin.setEncoding("utf8");
  for await (const chunk of process.stdin) {
    text += chunk;
    if (text.length > MAX_INPUT_CHARS) throw new RangeError("standard input is longer than 16 MB");
  }
  return text;
}

/** Ends the process with `process.exitCode` when both streams have given out what they hold: timers do not keep it. */
export async function endProcess(): Promise<void> {
  const drained = (stream: NodeJS.WriteStream) => new Promise<void>((resolve) => stream.write("", () => resolve()));
  await Promise.all([drained(process.stdout), drained(process.stderr)]);
  process.exit();
}
