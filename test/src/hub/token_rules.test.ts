import { describe, expect, it } from "vitest";
import type { JoinRequest } from "../../../src/hub/join.ts";
import type { TokenRow } from "../../../src/hub/records.ts";
import { grantOf, refusalOfToken, stateOfToken } from "../../../src/hub/token_rules.ts";

const NOW = 1_800_000_000_000;
const token: TokenRow = {
  id: "0102030405060708",
  verifier: new Uint8Array(32),
  caPin: new Uint8Array(32),
  createdAt: NOW - 1000,
  notAfter: NOW + 1000,
  uses: 2,
  used: 0,
  revokedAt: null,
  labels: { site: "lyon" },
  namespace: "",
  name: "",
  approve: "auto",
  lastUsedBy: "",
  lastUsedAt: null,
};
const wishes = { name: "", namespace: "", labels: {}, namedPorts: [] } as unknown as JoinRequest;
const asking = (change: Partial<JoinRequest>) => ({ ...wishes, ...change });

describe("a token", () => {
  it("is valid up to its time and its uses, and never after it was revoked", () => {
    expect(stateOfToken(token, NOW + 1000)).toBe("valid");
    expect(stateOfToken(token, NOW + 1001)).toBe("expired");
    expect(stateOfToken({ ...token, notAfter: null }, NOW * 2)).toBe("valid");
    expect(stateOfToken({ ...token, used: 2 }, NOW)).toBe("used-up");
    expect(stateOfToken({ ...token, uses: null, used: 1e9 }, NOW)).toBe("valid");
    expect(stateOfToken({ ...token, revokedAt: NOW, used: 2 }, NOW)).toBe("revoked");
  });

  it("says why it admits nobody, and whether trying again may help", () => {
    expect(refusalOfToken(token, NOW)).toBeUndefined();
    expect(refusalOfToken({ ...token, used: 2 }, NOW)).toMatchObject({ code: "used-up", isRetryable: false });
    expect(refusalOfToken({ ...token, revokedAt: 1 }, NOW)).toMatchObject({ code: "revoked", isRetryable: false });
    expect(refusalOfToken(token, NOW + 5000)).toMatchObject({
      code: "expired",
      message: "the token expired at 2027-01-15T08:00:01.000Z",
    });
    expect(refusalOfToken({ ...token, createdAt: NOW + 3_600_000 }, NOW)).toMatchObject({
      code: "clock",
      isRetryable: true,
    });
  });

  it("gives its labels, and lets the device choose what it leaves open", () => {
    const grant = grantOf(token, asking({ name: "pi-7", labels: { app: "web" } }));
    expect(grant).toEqual({ grant: { name: "pi-7", namespace: "default", labels: { app: "web", site: "lyon" } } });
    const fixed = { ...token, name: "pi-1", namespace: "prod" };
    expect(grantOf(fixed, wishes)).toMatchObject({ grant: { name: "pi-1", namespace: "prod" } });
    expect(grantOf(fixed, asking({ name: "pi-1", labels: { site: "lyon" } }))).toHaveProperty("grant");
  });

  it.each([
    ["another name", { name: "pi-2" }, 'the token is for the name "pi-1"'],
    ["another namespace", { namespace: "dev" }, 'the token is for the namespace "prod"'],
    ["another value of a fixed label", { labels: { site: "rome" } }, 'the token fixes the label "site"'],
    ["a name that is none", { name: "Pi 7" }, "no DNS label"],
    ["a namespace that is none", { namespace: "a/b" }, "no DNS label"],
    ["a label that is none", { labels: { "a b": "" } }, "not what Kubernetes takes"],
    ["65 labels", { labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`l${i}`, ""])) }, "more than 64"],
    ["a port name twice", { namedPorts: Array(2).fill({ name: "a", port: 1, protocol: "TCP" }) }, "twice"],
  ])("refuses %s", (_what, change, why) => {
    const answer = grantOf({ ...token, name: "pi-1", namespace: "prod" }, asking(change as Partial<JoinRequest>));
    if (!("refusal" in answer)) throw new Error("granted");
    expect(answer.refusal.code).toBe("bad-request");
    expect(answer.refusal.message).toContain(why);
  });
});
