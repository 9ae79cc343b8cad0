/** Commander's release wants Node 22: these tests run on Bun and on Deno, and on a Node that is new enough. */
import { describe, expect, it } from "vitest";
import type { Terminal } from "../../../edge/cli/context.ts";
import { COMMANDS } from "../../../edge/cli/commands.ts";
import type { Invocation } from "../../../edge/cli/program.ts";

const isOldNode = !("Bun" in globalThis) && !("Deno" in globalThis) && Number(process.versions.node.split(".")[0]) < 22;
const suite = isOldNode ? describe.skip : describe;

function makeTerminal(): Terminal & { text: string } {
  return {
    text: "",
    out(text) {
      this.text += text;
    },
    err: () => {},
    readInput: () => Promise.resolve(""),
    hasColor: false,
    interrupted: new AbortController().signal,
  };
}

async function parse(...words: string[]): Promise<Invocation | undefined> {
  const { parseCommand } = await import("../../../edge/cli/program.ts");
  return await parseCommand(words, makeTerminal());
}

suite("parseCommand (commander 15 wants Node 22 or newer)", () => {
  it("finds a command three words deep, with its options and settings apart", async () => {
    const found = await parse(
      "hub",
      "token",
      "create",
      "--uses",
      "3",
      "--label",
      "a=1",
      "--label",
      "b=2",
      "-o",
      "json",
    );
    expect(found!.spec.path).toEqual(["hub", "token", "create"]);
    expect(Object.fromEntries(found!.options)).toEqual({ uses: ["3"], label: ["a=1", "b=2"] });
    expect(Object.fromEntries(found!.flags)).toEqual({ output: ["json"] });
  });

  it("reads arguments, switches and repeated short options", async () => {
    expect(await parse("ping", "box-b", "-c", "2")).toMatchObject({ args: ["box-b"] });
    expect((await parse("status", "--wait", "--timeout", "5s"))!.options.has("wait")).toBe(true);
    expect((await parse("apply", "-f", "a", "-f", "-"))!.options.get("filename")).toEqual(["a", "-"]);
    expect((await parse("get"))!.args).toEqual([]);
    const several = await parse("policy", "test", "a.yaml", "b.yaml", "--strict", "-o", "json");
    expect([several!.args, several!.options.has("strict")]).toEqual([["a.yaml", "b.yaml"], true]);
  });

  it.each([
    [["statsu"], /Did you mean status/],
    [["ping"], /missing required argument 'target'/],
    [["policy", "validate"], /missing required argument 'file'/],
    [["peers", "x"], /too many arguments/],
    [["status", "--wat"], /unknown option '--wat'/],
    [["hub"], /./],
    [["version", "-o"], /argument missing/],
  ])("refuses %j with exit code 2", async (words, reason) => {
    await expect(parse(...words)).rejects.toMatchObject({
      code: "EDGE_USAGE",
      exitCode: 2,
      message: expect.stringMatching(reason),
    });
  });

  it("prints help with examples for every command", async () => {
    const { parseCommand } = await import("../../../edge/cli/program.ts");
    for (const spec of COMMANDS) {
      const terminal = makeTerminal();
      expect(await parseCommand([...spec.path, "--help"], terminal)).toBeUndefined();
      expect(terminal.text, spec.path.join(" ")).toContain(`Usage: edgemesh ${spec.path.join(" ")}`);
      expect(terminal.text).toContain(`edgemesh ${spec.examples[0]}`);
    }
  });
});
