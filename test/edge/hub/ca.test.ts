import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { X509Certificate } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openHubKeys } from "../../../edge/hub/ca.ts";
import { pinOfCa } from "../../../edge/sync/pin.ts";
import { verifyEd25519 } from "../../../edge/sync/ed25519.ts";
import { toHex } from "../../../src/bytes/text.ts";

const DAY_MS = 86_400_000;
const NOW_MS = Date.UTC(2026, 10, 24);

describe("openHubKeys", () => {
  let dir: string;
  beforeEach(() => {
    dir = join(mkdtempSync(join(tmpdir(), "edgemesh-ca-")), "hub");
  });
  afterEach(() => rmSync(join(dir, ".."), { recursive: true, force: true }));

  it("makes keys once and finds the same ones again", async () => {
    const first = await openHubKeys(dir);
    const second = await openHubKeys(dir);
    expect(second.caPem).toBe(first.caPem);
    expect(toHex(second.caPin)).toBe(toHex(first.caPin));
    expect(second.adminToken).toBe(first.adminToken);
    expect(toHex(second.signer.publicKey)).toBe(toHex(first.signer.publicKey));
    const message = new Uint8Array([1, 2, 3]);
    expect(verifyEd25519(first.signer.publicKey, message, second.signer.sign(message))).toBe(true);
    expect(verifyEd25519(first.signer.publicKey, new Uint8Array([1, 2]), second.signer.sign(message))).toBe(false);
  });

  it("leaves nothing secret readable by others and no temporary file", async () => {
    const keys = await openHubKeys(dir);
    await keys.serverCertificate([], NOW_MS);
    for (const name of ["ca.key", "server.key", "sign.key", "admin.token"]) {
      expect(statSync(join(dir, name)).mode & 0o777, name).toBe(0o600);
    }
    expect(readdirSync(dir).filter((name) => name.endsWith(".new"))).toEqual([]);
  });

  it("makes a lost or damaged CA certificate again with the same pin", async () => {
    const first = await openHubKeys(dir);
    for (const damage of [() => rmSync(join(dir, "ca.pem")), () => writeFileSync(join(dir, "ca.pem"), "zap")]) {
      damage();
      const again = await openHubKeys(dir);
      expect(toHex(again.caPin)).toBe(toHex(first.caPin));
    }
  });

  it("refuses to start with a damaged or missing CA key rather than to lock every member out", async () => {
    await openHubKeys(dir);
    writeFileSync(join(dir, "ca.key"), "zap");
    await expect(openHubKeys(dir)).rejects.toMatchObject({ code: "EDGE_STATE_INVALID" });
    rmSync(join(dir, "ca.key"));
    await expect(openHubKeys(dir)).rejects.toMatchObject({ code: "EDGE_STATE_INVALID" });
  });

  it("refuses to start with a damaged signing key", async () => {
    await openHubKeys(dir);
    writeFileSync(join(dir, "sign.key"), "c2hvcnQ=\n");
    await expect(openHubKeys(dir)).rejects.toMatchObject({ code: "EDGE_STATE_INVALID" });
  });

  it("shows a server certificate that the CA signed, for the names given and loopback, valid since 1970", async () => {
    const keys = await openHubKeys(dir);
    const { certPem, notAfterMs } = await keys.serverCertificate(["hub.example", "192.0.2.7", "2001:db8::7"], NOW_MS);
    const certificate = new X509Certificate(certPem);
    expect(certificate.verify(new X509Certificate(keys.caPem).publicKey)).toBe(true);
    expect(certificate.ca).toBe(false);
    for (const host of ["hub.example", "localhost", "edgemesh-hub"]) expect(certificate.checkHost(host)).toBe(host);
    for (const ip of ["192.0.2.7", "2001:db8::7", "127.0.0.1", "::1"]) expect(certificate.checkIP(ip)).toBe(ip);
    expect(certificate.checkHost("other.example")).toBeUndefined();
    expect(Date.parse(certificate.validFrom)).toBe(0);
    expect(Date.parse(certificate.validTo)).toBe(notAfterMs);
  });

  it("keeps the server certificate until a name is added or its end comes near", async () => {
    const keys = await openHubKeys(dir);
    const first = await keys.serverCertificate(["hub.example"], NOW_MS);
    expect((await keys.serverCertificate(["hub.example"], NOW_MS + 200 * DAY_MS)).certPem).toBe(first.certPem);
    const added = await keys.serverCertificate(["hub.example", "two.example"], NOW_MS);
    expect(added.certPem).not.toBe(first.certPem);
    const renewed = await keys.serverCertificate(["hub.example"], NOW_MS + 300 * DAY_MS);
    expect(renewed.notAfterMs).toBeGreaterThan(added.notAfterMs);
    writeFileSync(join(dir, "server.pem"), readFileSync(join(dir, "ca.pem")));
    expect((await keys.serverCertificate(["hub.example"], NOW_MS)).certPem).toContain("BEGIN CERTIFICATE");
  });
});

describe("pinOfCa", () => {
  it("takes exactly one CA certificate", async () => {
    const dir = mkdtempSync(join(tmpdir(), "edgemesh-pin-"));
    const keys = await openHubKeys(dir);
    const { certPem } = await keys.serverCertificate([], NOW_MS);
    rmSync(dir, { recursive: true, force: true });
    expect(pinOfCa(keys.caPem)).toEqual(keys.caPin);
    expect(pinOfCa(certPem)).toBeUndefined();
    expect(pinOfCa(keys.caPem + keys.caPem)).toBeUndefined();
    expect(pinOfCa("")).toBeUndefined();
    expect(pinOfCa("x".repeat(100_000))).toBeUndefined();
  });
});
