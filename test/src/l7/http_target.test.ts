import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isAuthority, MAX_PATH, readTarget } from "../../../src/l7/http_target.ts";

const pathOf = (target: string): string => {
  const read = readTarget("GET", target);
  return "path" in read ? `${read.path}${read.isRedirect ? " (redirect)" : ""}` : `refused: ${read.refusal}`;
};

describe("readTarget", () => {
  it.each([
    ["/", "/"],
    ["/a/b?x=1", "/a/b?x=1"],
    ["/a/", "/a/"],
    ["/public/../secret", "/secret"],
    ["/public/%2e%2e/secret", "/secret"],
    ["/public/.%2E/secret", "/secret"],
    ["/../../etc", "/etc"],
    ["/a/./b", "/a/b"],
    ["/a/..", "/"],
    ["/a/b/..", "/a/"],
    ["/a/.", "/a/"],
    ["//a///b", "/a/b"],
    ["/a\\b", "/a/b"],
    ["/a\\..\\secret", "/secret"],
    ["/%61dmin", "/admin"],
    ["/a%20b", "/a%20b"],
    ["/a%2", "/a%252"],
    ["/100%", "/100%25"],
    ["/%%32e", "/%252e"],
    ["/%2%65", "/%252e"],
    ["/%252e%252e/", "/%252e%252e/"],
    ["/a?x=/../y//%2f%41", "/a?x=/../y//%2f%41"],
    ["/a?", "/a?"],
    ["/public%2fsecret", "/public/secret (redirect)"],
    ["/public/..%2fsecret", "/secret (redirect)"],
    ["/public%5C..%5Csecret", "/secret (redirect)"],
    ["//host/x", "/host/x"],
  ])("brings %s to %s", (target, expected) => expect(pathOf(target)).toBe(expected));

  it.each([
    ["/a#b", "fragment"],
    ["/a b", "escaped"],
    ["/\u00e4", "escaped"],
    ["/a\u0000", "escaped"],
    ["", "neither"],
    ["a/b", "neither"],
    ["*", "OPTIONS"],
    ["https://h/", "neither"],
    ["ftp://h/", "neither"],
    ["http:///x", "neither"],
    ["http://user@h/", "host"],
    ["http://h,g/", "host"],
    ["/" + "a".repeat(MAX_PATH), "longer"],
  ])("refuses %s", (target, reason) => expect(pathOf(target)).toContain(reason));

  it("reads host and path of an absolute target", () => {
    expect(readTarget("GET", "http://other:81/a/../b?c")).toEqual({
      path: "/b?c",
      authority: "other:81",
      isRedirect: false,
    });
    expect(readTarget("GET", "HTTP://other")).toEqual({ path: "/", authority: "other", isRedirect: false });
    expect(readTarget("GET", "http://other?q")).toEqual({ path: "/?q", authority: "other", isRedirect: false });
    expect(readTarget("OPTIONS", "*")).toEqual({ path: "*", isRedirect: false });
  });

  it("reaches a form that it leaves as it is, without dots, doubled or escaped separators", () => {
    const piece = fc.constantFrom("/", ".", "..", "%2e", "%2f", "%5c", "\\", "a", "%", "%41", "2", "e", "%25", "?");
    fc.assert(fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const read = readTarget("GET", `/${pieces.join("")}`);
      if (!("path" in read)) throw new Error(read.refusal);
      expect(readTarget("GET", read.path)).toEqual({ path: read.path, isRedirect: false });
      const path = read.path.split("?")[0]!;
      expect(path).not.toMatch(/\/\/|\\|%2e|%2f|%5c/i);
      expect(path.split("/").some((segment) => segment === "." || segment === "..")).toBe(false);
    }));
  });

  it("never throws, whatever the target is", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (target) => {
      const read = readTarget("GET", target);
      expect("path" in read || read.refusal.length > 0).toBe(true);
    }));
  });
});

describe("isAuthority", () => {
  it.each(["h", "h:80", "10.0.0.1:80", "[fd00::1]", "[fd00::1]:80", "", "h:"])("takes %s", (text) => {
    expect(isAuthority(text)).toBe(true);
  });
  it.each(["a@h", "h/x", "h:80:80", "h:123456", "a, b", "h ", "fd00::1", "[h]", "\u00e4"])("refuses %s", (text) => {
    expect(isAuthority(text)).toBe(false);
  });
});
