/** `--dns-listen` and `--dns-upstream`: what they take, and what they say to what they do not. */
import { describe, expect, it } from "vitest";
import { SETTINGS } from "../../edge/settings.ts";

describe("--dns-listen", () => {
  it.each([
    ["127.0.0.1:53", { address: "127.0.0.1", port: 53 }],
    ["[::1]:5353", { address: "::1", port: 5353 }],
    ["[2001:DB8:0::1]:53", { address: "2001:db8::1", port: 53 }],
  ])("takes %s", (text, value) => {
    expect(SETTINGS.dnsListen.parse(text)).toEqual(value);
  });

  it.each([
    "",
    "127.0.0.1",
    ":53",
    "0.0.0.0:53",
    "[::]:53",
    "::1:53",
    "localhost:53",
    "127.0.0.1:0",
    "127.0.0.1:65536",
    "1.2.3:53",
  ])(
    "refuses %j with a sentence",
    (text) => {
      expect(() => SETTINGS.dnsListen.parse(text)).toThrow(/^must be one address and port such as 127\.0\.0\.1:53/);
    },
  );

  it("is off by default", () => {
    expect(SETTINGS.dnsListen.default).toBeUndefined();
  });
});

describe("--dns-upstream", () => {
  it.each([
    ["192.0.2.53", { address: "192.0.2.53", port: 53 }],
    ["192.0.2.53:5353", { address: "192.0.2.53", port: 5353 }],
    ["2001:db8::53", { address: "2001:db8::53", port: 53 }],
    ["[2001:db8::53]", { address: "2001:db8::53", port: 53 }],
    ["[2001:db8::53]:5353", { address: "2001:db8::53", port: 5353 }],
  ])("takes %s", (text, value) => {
    expect(SETTINGS.dnsUpstreams.parse(text)).toEqual(value);
  });

  it.each(["", "0.0.0.0", "dns.example", "192.0.2.53:", "192.0.2.53:99999", "192.0.2.256", "https://1.1.1.1"])(
    "refuses %j with a sentence",
    (text) => {
      expect(() => SETTINGS.dnsUpstreams.parse(text)).toThrow(/^must be one address such as 192\.0\.2\.53/);
    },
  );
});
