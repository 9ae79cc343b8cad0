import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Backoff } from "../../../edge/sync/backoff.ts";
import { RELEASE_UNIX_MS, TrustedClock } from "../../../edge/sync/clock.ts";
import { formatEndpoint, parseEndpoint } from "../../../edge/sync/endpoint.ts";
import { readHubMessage, readMemberMessage, timeMessageOf } from "../../../edge/sync/messages.ts";
import { toHex } from "../../../src/bytes/text.ts";

describe("parseEndpoint", () => {
  it.each([
    ["hub.example:7443", { host: "hub.example", port: 7443 }],
    ["192.0.2.1:1", { host: "192.0.2.1", port: 1 }],
    ["[2001:db8::1]:65535", { host: "2001:db8::1", port: 65535 }],
  ])("reads %s, and formatEndpoint writes it again", (text, endpoint) => {
    expect(parseEndpoint(text)).toEqual(endpoint);
    expect(formatEndpoint(endpoint)).toBe(text);
  });

  it.each([
    "",
    "hub",
    ":1",
    "hub:",
    "hub:0",
    "hub:65536",
    "hub:1x",
    "a b:1",
    "2001:db8::1:7443",
    "[hub]:1",
    "[192.0.2.1]:1",
    "[::zz]:1",
    "http://hub:1",
    "user@hub:1",
    `${"x".repeat(300)}:1`,
  ])("refuses %s", (text) => expect(parseEndpoint(text)).toBeUndefined());
});

describe("Backoff", () => {
  it("doubles up to its cap, keeps at least half of each pause, and starts again", () => {
    for (const [random, share] of [[0, 0.5], [0.999999999, 1]] as const) {
      const backoff = new Backoff({ firstMs: 500, capMs: 30_000, random: () => random });
      const pauses = Array.from({ length: 8 }, () => backoff.next());
      const ceilings = [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
      pauses.forEach((pauseMs, i) => expect(pauseMs).toBeCloseTo(ceilings[i]! * share, 3));
      backoff.reset();
      expect(backoff.next()).toBeCloseTo(500 * share, 3);
    }
  });

  it("never overflows, however often it failed", () => {
    const backoff = new Backoff({ firstMs: 1, capMs: 30_000 });
    for (let i = 0; i < 5000; i++) expect(backoff.next()).toBeLessThanOrEqual(30_000);
  });
});

describe("TrustedClock", () => {
  it("is the system clock when that is ahead, else the newest time that is certain", () => {
    const clock = { unixMs: 1000, nowMs: 0 };
    const trusted = new TrustedClock([5000], () => clock.unixMs, () => clock.nowMs);
    expect(trusted.now()).toBe(RELEASE_UNIX_MS);
    trusted.learn(RELEASE_UNIX_MS + 90_000);
    expect(trusted.now()).toBe(RELEASE_UNIX_MS + 90_000);
    expect(trusted.behindMs()).toBe(RELEASE_UNIX_MS + 90_000 - 1000);
    clock.unixMs = RELEASE_UNIX_MS + 500_000;
    expect(trusted.now()).toBe(RELEASE_UNIX_MS + 500_000);
    expect(trusted.behindMs()).toBe(0);
  });

  it("goes on with monotonic time while the system clock stands still", () => {
    const clock = { nowMs: 0 };
    const trusted = new TrustedClock([RELEASE_UNIX_MS + 1000], () => 0, () => clock.nowMs);
    clock.nowMs = 60_000;
    expect(trusted.now()).toBe(RELEASE_UNIX_MS + 61_000);
    trusted.learn(RELEASE_UNIX_MS + 2000); // older than what is known by now
    expect(trusted.now()).toBe(RELEASE_UNIX_MS + 61_000);
  });

  it("learns no time that is none", () => {
    const trusted = new TrustedClock([Infinity, NaN], () => 0, () => 0);
    for (const time of [NaN, Infinity, 1.5, -1, 2 ** 53]) trusted.learn(time);
    expect(trusted.now()).toBe(RELEASE_UNIX_MS);
  });
});

describe("messages", () => {
  it("signs time as heading, challenge and 64 bits of milliseconds", () => {
    const message = toHex(timeMessageOf(new Uint8Array([1, 2]), 0x1_0203_0405));
    expect(message).toBe(toHex(new TextEncoder().encode("edgemesh hub time v1")) + "00" + "0102" + "0000000102030405");
  });

  it("reads anything without throwing", () => {
    const t = fc.constantFrom(
      "hello",
      "auth",
      "welcome",
      "refused",
      "ping",
      "pong",
      "ack",
      "report",
      "snapshot",
      "delta",
    );
    const value = fc.oneof(
      fc.anything(),
      fc.record({ t, report: fc.anything(), revision: fc.anything(), entries: fc.anything(), puts: fc.anything() }),
    );
    fc.assert(fc.property(value, (given) => {
      readHubMessage(given);
      readMemberMessage(given);
    }));
  });

  it("takes a member's report only with addresses, a port and a version", () => {
    const report = { endpoints: ["192.0.2.1:51871"], localAddress: "", wireguardPort: 51871, version: "1" };
    const read = (changes: object) => readMemberMessage({ t: "report", report: { ...report, ...changes } });
    expect(read({})).toEqual({ t: "report", report });
    const aeads = ["aegis128l", "of-a-later-release"];
    expect(read({ aeads })).toEqual({ t: "report", report: { ...report, aeads } });
    for (const network of ["lan", ""]) {
      expect(read({ network })).toEqual({ t: "report", report: { ...report, network } });
    }
    const wrong = [
      { network: "two words" },
      { network: 1 },
      { endpoints: ["hub.example:1"] },
      { endpoints: ["192.0.2.1"] },
      { endpoints: new Array(9).fill("192.0.2.1:1") },
      { localAddress: "here" },
      { wireguardPort: 0 },
      { wireguardPort: 1.5 },
      { wireguardPort: 65536 },
      { version: "" },
      { extra: 1 },
      { aeads: "aegis128l" },
      { aeads: ["AEGIS"] },
      { aeads: new Array(9).fill("a") },
      { aeads: null },
    ];
    for (const changes of wrong) expect(read(changes), JSON.stringify(changes)).toBeUndefined();
  });
});
