/** Whom the local resolver asks. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { fixedServers, readResolvConf, systemServers } from "../../../edge/proxy/dns_servers.ts";
import { isSameAddress } from "../../../edge/proxy/dns_upstream.ts";

describe("readResolvConf", () => {
  it("reads name servers as the C library does", () => {
    const text = [
      "# nameserver 192.0.2.9",
      "search example.com",
      "nameserver 192.0.2.1",
      "\tnameserver  2001:DB8::1 ; the second",
      "nameserver fe80::1%eth0",
      "nameserver 192.0.2.4",
      "options edns0",
    ].join("\n");
    expect(readResolvConf(text)).toEqual([
      { address: "192.0.2.1", port: 53 },
      { address: "2001:DB8::1", port: 53 },
      { address: "fe80::1%eth0", port: 53 },
    ]);
  });

  it.each([
    "",
    "nameserver",
    "nameserver x",
    "nameserver 1.2.3",
    "nameserver 192.0.2.256",
    "nameserver ::1::",
    "nameservers 192.0.2.1",
  ])(
    "finds none in %j",
    (text) => {
      expect(readResolvConf(text)).toEqual([]);
    },
  );
});

describe("systemServers", () => {
  it("follows the file, leaves the resolver itself out, and takes a missing file as empty", () => {
    const folder = mkdtempSync(join(tmpdir(), "edgemesh-dns-"));
    const file = join(folder, "resolv.conf");
    try {
      const servers = systemServers(file, { address: "127.0.0.1", port: 53 });
      expect(servers.current()).toEqual([]);
      writeFileSync(file, "nameserver 127.0.0.1\nnameserver 192.0.2.1\n");
      expect(servers.current()).toEqual([{ address: "192.0.2.1", port: 53 }]);
      expect(servers.current()).toBe(servers.current());
      writeFileSync(file, "nameserver 192.0.2.22\n");
      expect(servers.current()).toEqual([{ address: "192.0.2.22", port: 53 }]);
      rmSync(file);
      expect(servers.current()).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("never asks itself by another spelling", () => {
    const listen = { address: "::1", port: 53 };
    const self = { address: "0:0:0:0:0:0:0:1", port: 53 };
    const other = { address: "::1", port: 5353 };
    expect(fixedServers([self, other], listen).current()).toEqual([other]);
    expect(isSameAddress("fe80::1%eth0", "fe80:0::1")).toBe(true);
    expect(isSameAddress("::ffff:192.0.2.1", "192.0.2.1")).toBe(true);
    expect(isSameAddress("fe80::1", "fe80::2")).toBe(false);
  });
});
