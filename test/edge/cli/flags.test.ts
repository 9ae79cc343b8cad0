import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { COMMANDS, LONG_RUNNING } from "../../../edge/cli/commands.ts";
import { parseLine } from "../../../edge/cli/flags.ts";
import { EdgeError } from "../../../edge/errors.ts";
import { rowOf, settingsOf } from "../../../edge/settings.ts";

const specOf = (name: string) => COMMANDS.find((spec) => spec.path.join(" ") === name)!;

describe("parseLine", () => {
  it("reads values after a blank and after an equals sign, switches and arguments", () => {
    const { flags, args } = parseLine(specOf("join"), [
      "--tun=x=y",
      "tok",
      "--enrol-only",
      "--label",
      "a=1",
      "--label",
      "b=2",
    ]);
    expect(args).toEqual(["tok"]);
    expect(Object.fromEntries(flags)).toEqual({ tun: ["x=y"], enrolOnly: ["on"], labels: ["a=1", "b=2"] });
  });

  it("takes everything after -- as an argument, and - alone too", () => {
    expect(parseLine(specOf("join"), ["-"]).args).toEqual(["-"]);
    expect(parseLine(specOf("join"), ["--", "--tun"]).args).toEqual(["--tun"]);
  });

  it.each([
    [["--tunn", "x"], 'did you mean "--tun"?'],
    [["--cluster-id", "1"], "no such flag"],
    [["-x"], "no such flag"],
    [["--tun"], "needs a value"],
  ])("refuses %j", (words, reason) => {
    expect(() => parseLine(specOf("run"), words)).toThrow(reason);
  });

  it("never shows an argument that is too much: it may be a token", () => {
    try {
      parseLine(specOf("join"), ["@file", "em1_secretsecret_12345678"]);
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({ code: "EDGE_USAGE" });
      expect((error as EdgeError).message).not.toContain("secret");
    }
  });

  it("gives a line or an EdgeError, whatever the words", () => {
    fc.assert(fc.property(fc.constantFrom(...LONG_RUNNING), fc.array(fc.string()), (name, words) => {
      try {
        parseLine(specOf(name), words);
      } catch (error) {
        expect(error).toBeInstanceOf(EdgeError);
      }
    }));
  });
});

describe("the command table", () => {
  it("names each command once, with a summary and an example of its own", () => {
    const names = COMMANDS.map((spec) => spec.path.join(" "));
    expect(new Set(names).size).toBe(names.length);
    for (const { path, examples, summary } of COMMANDS) {
      expect(summary).toMatch(/^[a-z].*[^.]$/);
      expect(examples.some((line) => line.includes(path.join(" "))), path.join(" ")).toBe(true);
    }
  });

  it("has no flag twice in one command, but for an option that stands for the setting", () => {
    for (const spec of COMMANDS) {
      const flags = settingsOf(spec.scopes).map((key) => rowOf(key).flag);
      expect(new Set(flags).size).toBe(flags.length);
      const options = (spec.options ?? []).map(({ flag }) => flag);
      expect(new Set(options).size).toBe(options.length);
    }
  });

  it("keeps what stays running apart from commander", () => {
    for (const name of LONG_RUNNING) expect(specOf(name).options ?? []).toEqual([]);
  });
});
