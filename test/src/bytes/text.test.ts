import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromBase64, fromBase64Url, fromHex, toBase64, toBase64Url, toHex } from "../../../src/bytes/text.ts";

describe("bytes as text", () => {
  it("reads back what it wrote, and writes what Node's Buffer writes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      const buffer = Buffer.from(bytes);
      expect(toHex(bytes)).toBe(buffer.toString("hex"));
      expect(toBase64(bytes)).toBe(buffer.toString("base64"));
      expect(toBase64Url(bytes)).toBe(buffer.toString("base64url"));
      expect(fromHex(toHex(bytes).toUpperCase())).toEqual(bytes);
      expect(fromBase64(toBase64(bytes))).toEqual(bytes);
      expect(fromBase64Url(toBase64Url(bytes))).toEqual(bytes);
    }));
  });

  it.each(["0", "0g", " 00", "00 ", "0x00", "+1"])("refuses %j as hexadecimal", (text) => {
    expect(fromHex(text)).toBeUndefined();
  });

  it.each(["A", "AA", "AAA", "AB==", "AA=A", "====", "AA==\n", "AA-_", " AA==", "AAAAA==="])(
    "refuses %j as base64",
    (text) => {
      expect(fromBase64(text)).toBeUndefined();
    },
  );

  it.each(["A", "AA==", "AB", "AA+/", "AAAAA", "AA ", "AA\n"])("refuses %j as base64url", (text) => {
    expect(fromBase64Url(text)).toBeUndefined();
  });

  it("survives any text, and accepts only what it would write itself", () => {
    fc.assert(fc.property(fc.string(), (text) => {
      const bytes = fromBase64(text), url = fromBase64Url(text), hex = fromHex(text);
      if (bytes) expect(toBase64(bytes)).toBe(text);
      if (url) expect(toBase64Url(url)).toBe(text);
      if (hex) expect(toHex(hex)).toBe(text.toLowerCase());
    }));
  });
});
