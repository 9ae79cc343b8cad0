import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { agreedAead } from "../../../src/mesh/agreed_aead.ts";
import { readMemberRecord } from "../../../src/mesh/records.ts";
import type { DatapathCommand, PutPeer } from "../../../src/datapath/control.ts";
import type { MemberRecord } from "../../../src/mesh/entries.ts";
import { entryOf, makeState, memberOf, NOW_MS, SETTINGS } from "./fixtures.ts";

describe("agreedAead", () => {
  it.each([
    [[], [], undefined],
    [["aegis128l", "aes256gcm"], [], undefined],
    [["aegis128l", "aes256gcm"], ["aes256gcm"], "aes256gcm"],
    [["aes256gcm", "aegis128l"], ["aegis128l", "aes256gcm"], "aegis128l"],
    [["aegis128l"], ["aes256gcm"], undefined],
    [["chacha20poly1305"], ["chacha20poly1305"], undefined],
    [["of-a-later-release"], ["of-a-later-release"], undefined],
  ])("of %j and %j is %s", (own, theirs, aead) => expect(agreedAead(own, theirs)).toBe(aead));

  it("is the same from both sides, whatever they announce", () => {
    const names = fc.uniqueArray(fc.constantFrom("aegis128l", "aes256gcm", "chacha20poly1305", "x"));
    fc.assert(fc.property(names, names, (a, b) => {
      expect(agreedAead(a, b)).toBe(agreedAead(b, a));
    }));
  });
});

describe("a record's aeads", () => {
  it("are none where the record is of an older hub, and are kept even if unknown here", () => {
    const { aeads: _aeads, ...old } = memberOf(3);
    expect(readMemberRecord(old).aeads).toEqual([]);
    expect(readMemberRecord(memberOf(3, { aeads: ["aegis128l", "next"] })).aeads).toEqual(["aegis128l", "next"]);
  });

  it.each([["text"], [["AEGIS"]], [[1]], [[""]], [new Array(9).fill("a")]])("must not be %j", (aeads) => {
    expect(() => readMemberRecord({ ...memberOf(3), aeads })).toThrow(RangeError);
  });

  it("of both sides decide what the datapath is told, and a change is told again", () => {
    const both = ["aegis128l", "aes256gcm"];
    const state = makeState();
    const peerOf = (commands: readonly DatapathCommand[], name: string) =>
      commands.find((command): command is PutPeer => command.op === "peer" && command.name === name);
    let revision = 1;
    const put = (record: MemberRecord) =>
      state.apply({ t: "delta", revision: ++revision, puts: [entryOf(record)], deletes: [] }, NOW_MS).commands;
    const members = [memberOf(1, { aeads: both }), memberOf(2, { aeads: both }), memberOf(3)];
    const entries = [["settings", SETTINGS] as const, ...members.map(entryOf)];
    const first = state.apply({ t: "snapshot", epoch: "e", revision, entries }, NOW_MS).commands;
    expect(peerOf(first, "edge1/m1")?.aead).toBe("aegis128l");
    expect(peerOf(first, "edge1/m3")).not.toHaveProperty("aead");
    const second = put(memberOf(1, { aeads: ["aes256gcm"] }));
    expect(peerOf(second, "edge1/m1")?.aead).toBe("aes256gcm");
    expect(peerOf(second, "edge1/m3")).toBeUndefined();
    const third = put(memberOf(2, { aeads: [] })); // we take ours back
    expect(peerOf(third, "edge1/m1")).toBeDefined();
    expect(peerOf(third, "edge1/m1")).not.toHaveProperty("aead");
  });
});
