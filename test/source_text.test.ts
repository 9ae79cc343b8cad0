/** The tools that read source as text are not fooled by comments, strings, templates and regular expressions. */
import { describe, expect, it } from "vitest";
import { codeOf, importsOf } from "./source_text.ts";

describe("codeOf", () => {
  it("blanks comments and strings and keeps every line and column", () => {
    const source = "a(); // Deno\n/* Bun\n */ b(\"Deno\", 'x\\'Bun');";
    const code = codeOf(source);
    expect(code).toHaveLength(source.length);
    expect(code).not.toMatch(/Deno|Bun/);
    expect(code.split("\n")[2]).toContain("b(");
  });

  it("keeps the code inside a template and blanks its text", () => {
    const code = codeOf("`Bun ${Deno.x({ a: `Bun ${y}` })} Bun` + Deno");
    expect(code.match(/Deno/g)).toHaveLength(2);
    expect(code).not.toContain("Bun");
  });

  it("tells a regular expression from a division", () => {
    expect(codeOf('const r = /Bun[/]"/; Deno')).toMatch(/^const r = \/ +\/; Deno$/);
    expect(codeOf("a / Deno / b")).toBe("a / Deno / b");
    expect(codeOf("(a) / Deno / b")).toContain("Deno");
  });
});

describe("importsOf", () => {
  it("finds every form, and whether it is erased or loaded later", () => {
    const source = [
      'import "./effect.ts";',
      'import a, { b } from "./a.ts";',
      'import type { T } from "./t.ts";',
      'import { type U, type V } from "./u.ts";',
      'import { type W, x } from "./w.ts";',
      'export * from "./all.ts";',
      'export type { Y } from "./y.ts";',
      'import {\n  m,\n  n,\n} from "./many.ts";',
      'const z = await import("./later.ts");',
      '// import "./no.ts";',
      "const s = \"import x from './no.ts'\";",
    ].join("\n");
    expect(
      importsOf(source).map(({ from, isType, isDynamic }) =>
        `${from}${isType ? " type" : ""}${isDynamic ? " later" : ""}`
      ),
    )
      .toEqual([
        "./effect.ts",
        "./a.ts",
        "./t.ts type",
        "./u.ts type",
        "./w.ts",
        "./all.ts",
        "./y.ts type",
        "./many.ts",
        "./later.ts later",
      ]);
  });
});
