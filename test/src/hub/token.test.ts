import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromHex, toBase64Url } from "../../../src/bytes/text.ts";
import { type JoinToken, readToken, tokenIdText, verifierOf, writeToken } from "../../../src/hub/token.ts";

const fill = (count: number, from: number) => Uint8Array.from({ length: count }, (_, i) => (from + i) & 255);
const sample: JoinToken = {
  id: fill(8, 1),
  secret: fill(16, 0x20),
  caPin: fill(32, 0x80),
  endpoints: ["hub.example.net:7443", "192.0.2.1:7443", "[2001:db8::1]:443"],
  issuedAt: 1_790_000_000_000,
  notAfter: 1_790_086_400_000,
  needsApproval: false,
};
/** `sample` as a second implementation (Python: struct, base64, hashlib) writes it */
const TEXT = "em1_AQABAgMEBQYHCCAhIiMkJSYnKCkqKywtLi-AgYKDhIWGh4iJiouMjY6PkJGSk5SVlpeYmZqbnJ2en2qxO4Bqso0AAw9odWIu" +
  "ZXhhbXBsZS5uZXQdEwDAAAIBHRP_IAENuAAAAAAAAAAAAAAAAQG7_c7xjhvb2";

const label = fc.stringMatching(/^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$/);
const endpoint = fc.oneof(
  fc.tuple(fc.array(label, { minLength: 1, maxLength: 4 }), fc.integer({ min: 1, max: 65535 })).map(([labels, port]) =>
    `${labels.join(".")}:${port}`
  ),
  fc.tuple(fc.ipV4(), fc.integer({ min: 1, max: 65535 })).map(([ip, port]) => `${ip}:${port}`),
);
const seconds = fc.integer({ min: 0, max: 0xffff_fffe }).map((s) => s * 1000);
const octets = (count: number) => fc.uint8Array({ minLength: count, maxLength: count });
const token: fc.Arbitrary<JoinToken> = fc.record({
  id: octets(8),
  secret: octets(16),
  caPin: octets(32),
  endpoints: fc.array(endpoint, { minLength: 1, maxLength: 3 }),
  issuedAt: seconds,
  notAfter: fc.oneof(seconds, fc.constant(Infinity)),
  needsApproval: fc.boolean(),
});

function faultOf(text: string): string {
  const read = readToken(text);
  return "fault" in read ? read.fault.code : "none";
}

describe("writeToken and readToken", () => {
  it("agree on a token whose text is known", () => {
    const text = writeToken(sample);
    expect(text).toBe(TEXT);
    expect(text).toMatch(/^em1_[A-Za-z0-9_-]+_[a-z2-7]{8}$/);
    expect(readToken(text)).toEqual({ token: sample });
  });

  it("stay below 220 characters for three usual endpoints", () => {
    const endpoints = ["hub-1.edge.example.net:7443", "hub-2.edge.example.net:7443", "203.0.113.200:7443"];
    expect(writeToken({ ...sample, endpoints }).length).toBeLessThanOrEqual(220);
    expect(writeToken({ ...sample, endpoints: ["192.0.2.1:7443"] }).length).toBe(112);
  });

  it("read after write gives the same token", () => {
    fc.assert(fc.property(token, (t) => void expect(readToken(writeToken(t))).toEqual({ token: t })));
  });

  it("white space around a token is ignored", () => {
    expect(readToken(`\n  ${writeToken(sample)}\r\n`)).toEqual({ token: sample });
  });

  it("a change of any one character is found, and no message repeats the token", () => {
    const text = writeToken(sample);
    const characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    for (let i = 0; i < text.length; i++) {
      for (const other of characters) {
        if (other === text[i]) continue;
        const read = readToken(text.slice(0, i) + other + text.slice(i + 1));
        if (!("fault" in read)) throw new Error(`character ${i} changed to ${other} was not noticed`);
        expect(read.fault.code).toBe(i < 4 ? "not-a-token" : "damaged");
        expect(read.fault.message).not.toContain(text.slice(10, 20));
      }
    }
  });

  it("a lost, doubled or swapped character is found", () => {
    const text = writeToken(sample);
    for (let i = 4; i < text.length; i++) {
      expect(faultOf(text.slice(0, i) + text.slice(i + 1))).toBe("damaged");
      expect(faultOf(text.slice(0, i) + text[i] + text.slice(i))).toBe("damaged");
      if (i + 1 < text.length && text[i] !== text[i + 1]) {
        expect(faultOf(text.slice(0, i) + text[i + 1] + text[i] + text.slice(i + 2))).toBe("damaged");
      }
    }
    expect(faultOf(text.slice(0, 40) + "\n" + text.slice(40))).toBe("damaged");
  });

  it("no text makes readToken throw", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => void readToken(text)));
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => void readToken("em1_" + text)));
    for (const text of ["", "em1_", "em1__aaaaaaaa", "K10abc::server:secret", "em1_" + "A".repeat(5000)]) {
      expect(faultOf(text)).not.toBe("none");
    }
  });

  it("no payload behind a right check makes readToken throw, and only whole ones are tokens", () => {
    const checked = (payload: Uint8Array) => {
      // the writer's own check over a body that it would never write
      const body = "em1_" + toBase64Url(payload);
      return withCheck(body);
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 120 }), (bytes) => {
      const read = readToken(checked(bytes));
      if ("token" in read) expect(writeToken(read.token)).toBe(checked(bytes));
    }));
    const good = readPayload(writeToken(sample));
    for (let end = 0; end < good.length; end++) expect(faultOf(checked(good.slice(0, end)))).toBe("damaged");
    expect(faultOf(checked(Uint8Array.of(...good, 0)))).toBe("damaged");
    expect(faultOf(checked(good.with(0, 2)))).toBe("unsupported-version");
    expect(faultOf(checked(good.with(1, 0x80)))).toBe("damaged");
  });

  it("writeToken refuses what cannot be written", () => {
    for (const bad of ["hub", "hub:0", "hub:70000", "2001:db8::1:7443", "[hub]:1", "1.2.3:1", "a b:1", ""]) {
      expect(() => writeToken({ ...sample, endpoints: [bad] }), bad).toThrow(RangeError);
    }
    expect(() => writeToken({ ...sample, endpoints: [] })).toThrow(RangeError);
    expect(() => writeToken({ ...sample, endpoints: Array(4).fill("hub:1") })).toThrow(RangeError);
    expect(() => writeToken({ ...sample, secret: fill(15, 0) })).toThrow(RangeError);
    expect(() => writeToken({ ...sample, issuedAt: -1 })).toThrow(RangeError);
  });
});

describe("what is derived from a token", () => {
  it("the verifier is HMAC-SHA256 of a fixed text under the secret", () => {
    // computed with Python's hmac module
    const expected = fromHex("73343f6ffbd3329c08974410993340fafcf87e746c6556d90906186010522108");
    expect(verifierOf(fill(16, 0x20))).toEqual(expected);
  });

  it("the id is shown as 16 hexadecimal digits", () => {
    expect(tokenIdText(sample.id)).toBe("0102030405060708");
  });
});

function readPayload(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.slice(4, -9), "base64url"));
}

/** The check of the format, written out a second time: five bits a character of SHA-256 over the text. */
function withCheck(body: string): string {
  const digest = new Uint8Array(createHash("sha256").update(body).digest());
  let bits = "";
  for (const octet of digest) bits += octet.toString(2).padStart(8, "0");
  let check = "";
  for (let i = 0; i < 8; i++) check += "abcdefghijklmnopqrstuvwxyz234567"[parseInt(bits.slice(5 * i, 5 * i + 5), 2)];
  return `${body}_${check}`;
}
