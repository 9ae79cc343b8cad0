import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { main } from "../../edge/main.ts";
import { writeToken } from "../../src/hub/token.ts";

let dir: string;
let said: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "edgemesh-main-"));
  said = "";
  for (const stream of [process.stdout, process.stderr]) {
    vi.spyOn(stream, "write").mockImplementation((text) => {
      said += String(text);
      return true;
    });
  }
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(dir, { recursive: true, force: true });
});

const run = (words: string[], env: Record<string, string> = {}) =>
  main(words, { EDGEMESH_STATE_DIR: dir, EDGEMESH_SOCKET: join(dir, "s"), ...env });

const TOKEN = writeToken({
  id: new Uint8Array(8).fill(1),
  secret: new Uint8Array(16).fill(2),
  caPin: new Uint8Array(32).fill(3),
  endpoints: ["127.0.0.1:9"], // discard: nobody listens
  issuedAt: Date.UTC(2026, 0, 1),
  notAfter: Infinity,
  needsApproval: false,
});

describe("main", () => {
  it("exits 2 for settings and flags that are wrong, and names them all", async () => {
    expect(await run(["run", "--tun", "a/b", "--aead", "x"])).toBe(2);
    expect(said).toMatch(
      /2 settings are wrong:\n.*--tun "a\/b": must be.*\n.*--aead "x": must be one of auto, libsodium/,
    );
    expect(await run(["run", "--tunn"])).toBe(2);
  });

  it("exits 3 when this machine has not joined", async () => {
    expect(await run(["run"])).toBe(3);
    expect(said).toMatch(/Cannot run: no membership.*\n.*edgemesh join/);
  });

  it("exits 5 for a damaged token, in whatever way it comes, and never shows it", async () => {
    const at = 40;
    const damaged = TOKEN.slice(0, at) + (TOKEN[at] === "A" ? "B" : "A") + TOKEN.slice(at + 1);
    writeFileSync(join(dir, "token"), `${damaged}\n`);
    expect(await run(["join", damaged])).toBe(5);
    expect(await run(["join", `@${join(dir, "token")}`])).toBe(5);
    expect(await run(["join"], { EDGEMESH_TOKEN: damaged })).toBe(5);
    expect(await run(["join"], { EDGEMESH_TOKEN_FILE: join(dir, "token") })).toBe(5);
    expect(said).toContain("Cannot read the token");
    expect(said).not.toContain(damaged.slice(4, 60));
  });

  it("exits 75 when no hub can be reached in time, with its keys already on disk", async () => {
    expect(await run(["join", TOKEN, "--enrol-only", "--timeout", "1ms"])).toBe(75);
    expect(said).toContain("Cannot reach");
    expect(said).not.toContain(TOKEN.slice(4, 60));
    expect(readFileSync(join(dir, "identity")).length).toBeGreaterThan(64);
  });

  it("exits 2 without a token, or with a token file that is not there", async () => {
    expect(await run(["join"])).toBe(2);
    expect(await run(["join", "@/none"])).toBe(2);
    expect(said).toContain("Cannot join: there is no token");
  });

  it("reads a settings file that is JSON", async () => {
    writeFileSync(join(dir, "c.json"), '{ "tun": "x/y" }');
    expect(await run(["run", "--config", join(dir, "c.json")])).toBe(2);
    expect(said).toMatch(/"tun" in .*c\.json "x\/y": must be a device name/);
  });
});
