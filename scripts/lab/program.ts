/**
 * The program under test, in its three forms, and one machine's use of it: `new Agent(lab, "a")` has the state directory and
 * the socket of node `a`, so that a test or the demo reads like what a person types.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Finished, Lab, LabNode, Running, RunOptions } from "./lab.ts";

/** Bun from source, Deno from source, or the compiled program. */
export type Form = "bun" | "deno" | "binary";
export const FORMS: readonly Form[] = ["bun", "deno", "binary"];

const ROOT = join(import.meta.dirname, "..", "..");

/**
 * The command that starts edgemesh in a form; its arguments follow.
 * BUN and DENO come from `scripts/setup`, EDGEMESH_BINARY overrides the built file.
 */
export function commandOf(form: Form): readonly string[] {
  const main = join(ROOT, "edge/main.ts");
  switch (form) {
    case "bun":
      return [fromEnvironment("BUN"), main];
    case "deno":
      return [fromEnvironment("DENO"), "run", "--no-lock", "--quiet", "-A", main];
    case "binary": {
      const arch = process.arch === "arm64" ? "arm64" : "x64";
      return [process.env["EDGEMESH_BINARY"] ?? join(ROOT, `dist/edgemesh-linux-${arch}`)];
    }
  }
}

/** The form that this run of the tests is about (EDGEMESH_FORM), by default the compiled program. */
export function formUnderTest(): Form {
  const form = process.env["EDGEMESH_FORM"] ?? "binary";
  if (!FORMS.includes(form as Form)) throw new RangeError(`Cannot test form "${form}": expected ${FORMS.join(", ")}`);
  return form as Form;
}

function fromEnvironment(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`Cannot start edgemesh: ${name} is not set; start with scripts/with or scripts/test`);
  return value;
}

/** edgemesh on one node of the lab. */
export class Agent {
  readonly lab: Lab;
  readonly node: LabNode;
  readonly command: readonly string[];
  readonly stateDir: string;
  readonly socket: string;
  /** all that were started here, oldest first */
  readonly processes: Running[] = [];

  /** @param form which form of the program, or a command of one's own that starts it */
  constructor(lab: Lab, name: string, form: Form | readonly string[] = formUnderTest()) {
    this.lab = lab;
    this.node = lab.node(name);
    this.command = typeof form === "string" ? commandOf(form) : form;
    this.stateDir = join(this.node.dir, "state");
    this.socket = join(this.node.dir, "agent.sock");
  }

  /** Where it finds its state and its socket; everything else is said with flags. */
  get env(): Record<string, string> {
    return { EDGEMESH_STATE_DIR: this.stateDir, EDGEMESH_SOCKET: this.socket };
  }

  /** Runs one command to its end. */
  cli(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return this.lab.run(this.node.name, [...this.command, ...args], {
      ...options,
      env: { ...this.env, ...options.env },
    });
  }

  /** The same, and its output; throws with what it said when it does not exit 0. */
  async ask(args: readonly string[], options: RunOptions = {}): Promise<string> {
    const done = await this.cli(args, options);
    if (done.code !== 0) {
      throw new Error(
        `"edgemesh ${
          args.join(" ")
        }" on ${this.node.name} ended with ${done.code}: ${done.stderr.trim()}\n${done.stdout}`,
      );
    }
    return done.stdout;
  }

  /** The same with `-o json`, parsed. */
  // deno-lint-ignore no-explicit-any
  async json(args: readonly string[], options: RunOptions = {}): Promise<any> {
    return JSON.parse(await this.ask([...args, "-o", "json"], options));
  }

  /** Starts a command that stays: `["run"]`, `["hub", "run", ...]`, `["join", token]`. */
  start(args: readonly string[], env: Readonly<Record<string, string>> = {}): Running {
    const name = `${this.node.name}-${this.processes.length + 1}`;
    const running = this.lab.start(this.node.name, name, [...this.command, ...args], { env: { ...this.env, ...env } });
    this.processes.push(running);
    return running;
  }

  /** The one that was started last. */
  get process(): Running | undefined {
    return this.processes.at(-1);
  }

  /** GET on the node's own loopback, by default the health and metrics port. */
  async http(
    path: string,
    options: { readonly headers?: readonly string[]; readonly url?: string } = {},
  ): Promise<{ status: number; body: string }> {
    const headers = (options.headers ?? []).flatMap((header) => ["-H", header]);
    const url = options.url ?? "http://127.0.0.1:9780";
    const done = await this.lab.run(this.node.name, [
      "curl",
      "-s",
      "-g",
      "-m",
      "5",
      "-w",
      "\n%{http_code}",
      ...headers,
      `${url}${path}`,
    ]);
    const cut = done.stdout.lastIndexOf("\n");
    return { status: Number(done.stdout.slice(cut + 1)), body: done.stdout.slice(0, cut) };
  }
}

/** Memory of a process in bytes: all that is resident, and the anonymous part that nothing can reclaim. */
export function memoryOf(pid: number): { readonly residentBytes: number; readonly anonymousBytes: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const kilobytes = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? NaN);
  return { residentBytes: kilobytes("Rss") * 1024, anonymousBytes: kilobytes("Anonymous") * 1024 };
}

/** CPU time of a process in seconds, all threads. */
export function cpuSecondsOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100; // utime, stime in USER_HZ, which is 100 on Linux
}
