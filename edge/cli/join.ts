/** `edgemesh join`: enrol with a token, then run. */
import { readFileSync } from "node:fs";
import { equalConstantTime } from "../../src/bytes/compare.ts";
import { readToken } from "../../src/hub/token.ts";
import { nodeDurableDir } from "../agent/durable_dir.ts";
import { enrol } from "../agent/enrol.ts";
import { runMember } from "../agent/run.ts";
import { MemberStore } from "../agent/store.ts";
import { readSurroundings } from "../config.ts";
import { EdgeError, EXIT_OK, messageOf } from "../errors.ts";
import { createLog } from "../log.ts";
import { pinOfCa } from "../sync/pin.ts";
import type { CommandContext } from "./context.ts";

/** Longest token file that is read. */
const MAX_TOKEN_FILE_CHARS = 4096;

export async function join(context: CommandContext): Promise<number> {
  const { config } = context.loaded;
  const surroundings = readSurroundings(context.env, process.pid);
  const text = await readTokenText(context);
  const read = readToken(text);
  if ("fault" in read) throw new EdgeError("EDGE_TOKEN_DAMAGED", `Cannot read the token: ${read.fault.message}`);
  const store = new MemberStore(nodeDurableDir(config.stateDir));
  if (isMemberOf(store, read.token.caPin)) {
    context.terminal.err("this machine is a member of that mesh already\n");
  } else {
    const log = createLog({ level: config.logLevel, format: config.logFormat, isJournal: surroundings.isJournal });
    const { membership, addresses, isEncrypted } = await enrol(text, config, store, log);
    const state = membership.isPending ? "waits for approval" : "joined";
    context.terminal.err(`${state}: "${membership.name}" in mesh "${membership.cluster}", ${addresses.join(", ")}\n`);
    if (!isEncrypted) context.terminal.err("warning: this mesh does NOT ENCRYPT its traffic\n");
  }
  return config.enrolOnly ? EXIT_OK : await runMember(context);
}

/** A container's entry point says "join" at every start: what is done is done. */
function isMemberOf(store: MemberStore, caPin: Uint8Array): boolean {
  const membership = store.loadIdentity()?.membership;
  if (membership === undefined || membership.isPending) return false;
  const known = pinOfCa(membership.caPem);
  return known !== undefined && equalConstantTime(known, caPin);
}

/** The argument, standard input for "-", a file for "@FILE"; without an argument `EDGEMESH_TOKEN` or `EDGEMESH_TOKEN_FILE`. */
async function readTokenText(context: CommandContext): Promise<string> {
  const [argument] = context.args;
  const { token, tokenFile } = readSurroundings(context.env, process.pid);
  const text = argument === undefined
    ? token ?? (tokenFile === undefined ? undefined : readTokenFile(tokenFile))
    : argument === "-"
    ? await context.terminal.readInput()
    : argument.startsWith("@")
    ? readTokenFile(argument.slice(1))
    : argument;
  if (text !== undefined) return text.trim();
  throw new EdgeError("EDGE_USAGE", "Cannot join: there is no token", {
    fix: "Give it as an argument, as - (standard input), as @FILE, or in EDGEMESH_TOKEN_FILE.",
  });
}

function readTokenFile(path: string): string {
  try {
    return readFileSync(path, "utf8").slice(0, MAX_TOKEN_FILE_CHARS);
  } catch (error) {
    throw new EdgeError("EDGE_USAGE", `Cannot read the token file "${path}": ${messageOf(error)}`, {
      fix: "Check the path and its permissions.",
    });
  }
}
