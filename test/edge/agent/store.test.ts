import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { nodeDurableDir } from "../../../edge/agent/durable_dir.ts";
import { type Identity, type Membership, MemberStore, saveDelayMs } from "../../../edge/agent/store.ts";
import { entriesOf, NOW_MS } from "../../src/mesh/fixtures.ts";

let dir: string;
beforeEach(() => dir = mkdtempSync(join(tmpdir(), "edgemesh-store-")));
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const open = () => new MemberStore(nodeDurableDir(dir));

const MEMBERSHIP: Membership = {
  name: "pi-7",
  cluster: "edge1",
  hubEndpoints: ["hub.example:7443"],
  caPem: "-----BEGIN CERTIFICATE-----",
  recordKey: new Uint8Array(32).fill(3),
  isPending: false,
  joinedUnixMs: NOW_MS,
};
const IDENTITY: Identity = {
  deviceSeed: new Uint8Array(32).fill(1),
  wireguardKey: new Uint8Array(32).fill(2),
  membership: MEMBERSHIP,
};

/** msgpackr gives octets as the runtime's own kind of them */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
}

describe("MemberStore", () => {
  it("gives back what it was given, in another process too", () => {
    const store = open();
    store.saveIdentity(IDENTITY);
    store.saveClock({ stampFloorUnixMs: NOW_MS + 5, trustedUnixMs: NOW_MS });
    store.saveState({ epoch: "e", revision: 9, entries: entriesOf(1, 2), syncedUnixMs: NOW_MS }, 0);
    expect(store.writes).toBe(3);
    const again = open();
    expect(plain(again.loadIdentity())).toEqual(plain(IDENTITY));
    expect(again.loadIdentity()!.wireguardKey).toBeInstanceOf(Uint8Array);
    expect(again.loadClock()).toEqual({ stampFloorUnixMs: NOW_MS + 5, trustedUnixMs: NOW_MS });
    expect(plain(again.loadState())).toEqual(plain({
      epoch: "e",
      revision: 9,
      entries: entriesOf(1, 2),
      syncedUnixMs: NOW_MS,
    }));
    expect(again.notes).toEqual([]);
  });

  it("keeps an identity without a membership: keys come before the join", () => {
    const store = open();
    store.saveIdentity({ ...IDENTITY, membership: undefined });
    expect(open().loadIdentity()).toMatchObject({ membership: undefined });
  });

  it("forgets membership and state when it leaves, and keeps the device keys", () => {
    const store = open();
    store.saveIdentity(IDENTITY);
    store.saveState({ epoch: "e", revision: 9, entries: [], syncedUnixMs: NOW_MS }, 0);
    store.leave();
    expect(open().loadState()).toBeUndefined();
    const identity = open().loadIdentity()!;
    expect([identity.membership, [...identity.deviceSeed]]).toEqual([undefined, [...IDENTITY.deviceSeed]]);
  });

  it("starts without what is damaged, and notes it", () => {
    open().saveIdentity(IDENTITY);
    writeFileSync(join(dir, "identity"), "rubbish");
    const store = open();
    expect(store.loadIdentity()).toBeUndefined();
    expect(store.notes).toEqual(['"identity" was damaged and set aside']);
  });

  it("does not use a whole file whose content is of another shape", () => {
    const store = open();
    store.saveIdentity({ ...IDENTITY, deviceSeed: new Uint8Array(5) });
    const again = open();
    expect(again.loadIdentity()).toBeUndefined();
    expect(again.notes).toEqual(['"identity" was written by another release and is not used']);
  });

  it("refuses to go on with an identity that is not on disk", () => {
    writeFileSync(join(dir, "file"), "");
    const store = new MemberStore(nodeDurableDir(join(dir, "file")));
    expect(() => store.saveIdentity(IDENTITY)).toThrow(expect.objectContaining({ code: "EDGE_STATE_UNWRITABLE" }));
    store.saveClock({ stampFloorUnixMs: 1, trustedUnixMs: 1 });
    expect(store.fault).toBeDefined();
  });

  it("waits longer the more it has written in the last hour", () => {
    const store = open();
    const state = { epoch: "e", revision: 1, entries: [], syncedUnixMs: NOW_MS };
    expect(store.nextSaveDelayMs(0)).toBe(1000);
    for (let i = 0; i < 5; i++) store.saveState(state, i * 1000);
    expect(store.nextSaveDelayMs(6000)).toBe(32_000);
    expect(store.nextSaveDelayMs(6000 + 3_600_000)).toBe(1000);
    expect(saveDelayMs(1000)).toBe(15 * 60_000);
  });
});
