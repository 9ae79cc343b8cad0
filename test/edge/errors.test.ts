import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { asEdgeError, EdgeError, type EdgeErrorCode, errnoOf, ERROR_CODES, messageOf } from "../../edge/errors.ts";
import { VERSION } from "../../edge/version.ts";

describe("EdgeError", () => {
  it("has the exit code and the advice of its code", () => {
    const error = new EdgeError("EDGE_TOKEN_EXPIRED", "Cannot join: expired");
    expect([error.exitCode, error.fix]).toEqual([5, ERROR_CODES.EDGE_TOKEN_EXPIRED.fix]);
    expect(new EdgeError("EDGE_USAGE", "x", { fix: "Do y." }).fix).toBe("Do y.");
  });

  it("takes a code of another release without breaking", () => {
    const error = new EdgeError("EDGE_FROM_THE_FUTURE" as EdgeErrorCode, "x");
    expect([error.code, error.exitCode]).toEqual(["EDGE_FROM_THE_FUTURE", 1]);
  });
});

describe("ERROR_CODES", () => {
  it("advises in whole sentences", () => {
    for (const [code, { fix }] of Object.entries(ERROR_CODES)) {
      expect(fix, code).toMatch(/^[A-Z"].*[.]$/);
      expect(code).toMatch(/^EDGE_[A-Z_]+$/);
    }
  });
});

describe("asEdgeError", () => {
  it("knows errors that carry one of our codes, and no others", () => {
    const foreign = Object.assign(new Error("Cannot open TUN"), { code: "EDGE_TUN_DENIED" });
    expect(asEdgeError(foreign)).toMatchObject({ code: "EDGE_TUN_DENIED", exitCode: 6, message: "Cannot open TUN" });
    expect(asEdgeError(Object.assign(new Error("x"), { code: "ENOENT" }))).toBeUndefined();
    expect(asEdgeError("text")).toBeUndefined();
  });
});

describe("messageOf and errnoOf", () => {
  it("take anything", () => {
    expect(messageOf(null)).toBe("null");
    expect(errnoOf(undefined)).toBe("");
    expect(errnoOf({ code: 7 })).toBe("");
  });
});

describe("VERSION", () => {
  it("is that of package.json", () => {
    const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
    expect(VERSION).toBe(version);
  });
});
