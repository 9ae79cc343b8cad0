import { describe, expect, it } from "vitest";
import type { PutPeer, SetSelf } from "../../../src/datapath/control.ts";
import { parseAddress } from "../../../src/ip/address.ts";
import type { EntryValue, MemberRecord, RoutingSettings } from "../../../src/mesh/entries.ts";
import { readMemberRecord } from "../../../src/mesh/records.ts";
import { isNetworkName, modeBetween, networkOf, plainAddressOf, routingFault } from "../../../src/mesh/routing.ts";
import type { MeshState } from "../../../src/mesh/state.ts";
import { entryOf, makeState, memberOf, NOW_MS, SETTINGS } from "./fixtures.ts";

const ZONE = "topology.kubernetes.io/zone";
const routing = (changes: Partial<RoutingSettings>): RoutingSettings => ({ ...SETTINGS.routing, ...changes });
const plainSettings = { ...SETTINGS, routing: routing({ encryption: "none" }) };

/** A state of these members under these settings; member 2 is this one. */
function stateOf(settings: Partial<RoutingSettings>, ...members: MemberRecord[]): MeshState {
  const state = makeState();
  const entries: (readonly [string, EntryValue])[] = [
    ["settings", { ...SETTINGS, routing: routing(settings) }],
    ...members.map(entryOf),
  ];
  state.apply({ t: "snapshot", epoch: "e", revision: 1, entries }, NOW_MS);
  return state;
}

const peersOf = (state: MeshState) =>
  new Map(state.allCommands().filter((command): command is PutPeer => command.op === "peer").map((p) => [p.name, p]));
const selfOf = (state: MeshState) => state.allCommands().find((command): command is SetSelf => command.op === "self")!;

describe("settings of routing", () => {
  it("do without encryption in tunnel mode only", () => {
    for (const mode of ["tunnel", "native", "hybrid"] as const) {
      expect(routingFault(routing({ mode }))).toBeUndefined();
      expect(routingFault(routing({ mode, encryption: "none" })) === undefined).toBe(mode === "tunnel");
    }
  });
});

describe("a network", () => {
  it("is the one that a member names, else its zone", () => {
    expect(networkOf({ network: "", labels: {} })).toBe("");
    expect(networkOf({ network: "", labels: { [ZONE]: "lyon-1" } })).toBe("lyon-1");
    expect(networkOf({ network: "lan", labels: { [ZONE]: "lyon-1" } })).toBe("lan");
  });

  it.each([["", true], ["lan-1.a_B", true], ["-lan", false], ["a b", false], ["x".repeat(64), false]])(
    'may be called "%s": %s',
    (name, isGood) => {
      expect(isNetworkName(name)).toBe(isGood);
      if (isGood) expect(readMemberRecord(memberOf(3, { network: name })).network).toBe(name);
      else expect(() => readMemberRecord(memberOf(3, { network: name }))).toThrow(/network must be/);
    },
  );

  it("is none in a record that was signed before there were networks", () => {
    const { network: _network, ...old } = memberOf(3);
    expect(readMemberRecord(old).network).toBe("");
  });
});

describe("the mode between two members", () => {
  const lan = { network: "lan", labels: {} };
  const nowhere = { network: "", labels: {} };

  it("is the mesh's, unless that is hybrid", () => {
    expect(modeBetween(lan, nowhere, routing({ mode: "native" }))).toBe("native");
    expect(modeBetween(lan, lan, routing({ mode: "tunnel" }))).toBe("tunnel");
  });

  it("is native in hybrid where both name one network, and the same from both sides", () => {
    const hybrid = routing({ mode: "hybrid" });
    const members = [lan, nowhere, { network: "wan", labels: {} }, { network: "", labels: { [ZONE]: "lan" } }];
    for (const a of members) {
      for (const b of members) {
        const isOne = networkOf(a) !== "" && networkOf(a) === networkOf(b);
        expect(modeBetween(a, b, hybrid)).toBe(isOne ? "native" : "tunnel");
        expect(modeBetween(a, b, hybrid)).toBe(modeBetween(b, a, hybrid));
      }
    }
    expect(modeBetween(undefined, lan, hybrid)).toBe("tunnel");
  });

  it("changes in the tables when a member moves, for that member alone", () => {
    const state = stateOf(
      { mode: "hybrid" },
      memberOf(1),
      memberOf(2, { network: "lan" }),
      memberOf(3, { network: "lan" }),
      memberOf(4, { network: "lan" }),
    );
    expect([...peersOf(state)].map(([name, peer]) => [name, peer.mode])).toEqual([
      ["edge1/m1", "tunnel"],
      ["edge1/m3", "native"],
      ["edge1/m4", "native"],
    ]);
    expect(selfOf(state).acceptsNative).toBe(true);
    const moved = entryOf(memberOf(3, { network: "wan" }));
    const { commands } = state.apply({ t: "delta", revision: 2, puts: [moved], deletes: [] }, NOW_MS);
    expect(commands).toMatchObject([{ op: "peer", name: "edge1/m3", mode: "tunnel" }]);
    const own = entryOf(memberOf(2, { network: "wan" }));
    const second = state.apply({ t: "delta", revision: 3, puts: [own], deletes: [] }, NOW_MS);
    expect(second.commands).toMatchObject([
      { op: "peer", name: "edge1/m3", mode: "native" },
      { op: "peer", name: "edge1/m4", mode: "tunnel" },
    ]);
  });
});

describe("a mesh without encryption", () => {
  it("sends to a member's own address, and to none that is the mesh's", () => {
    expect(plainAddressOf(memberOf(3), SETTINGS)).toBeUndefined();
    expect(plainAddressOf(memberOf(3), plainSettings)).toEqual(parseAddress("172.31.0.3"));
    expect(plainAddressOf(memberOf(3, { underlay: "10.9.0.3" }), plainSettings)).toBeUndefined();
    expect(plainAddressOf(memberOf(3, { underlay: "10.9.77.3" }), plainSettings)).toBeUndefined();
    expect(plainAddressOf(memberOf(3, { underlay: "fd09::3" }), plainSettings)).toBeUndefined();
  });

  it("gives the datapath no endpoint and no keepalive, so that no handshake begins", () => {
    const state = stateOf({ encryption: "none" }, memberOf(1), memberOf(2), memberOf(3, { underlay: "10.9.0.3" }));
    expect(selfOf(state)).toMatchObject({ encryption: "none", plain: parseAddress("172.31.0.2") });
    const [hub, other] = [...peersOf(state).values()];
    expect(hub).toMatchObject({ mode: "tunnel", keepaliveSeconds: 0, plain: parseAddress("172.31.0.1") });
    for (const peer of [hub!, other!]) expect("endpoint" in peer).toBe(false);
    expect("plain" in other!).toBe(false);
  });

  it("turns back into one with encryption, live", () => {
    const state = stateOf({ encryption: "none" }, memberOf(1), memberOf(2));
    const change = state.apply({ t: "delta", revision: 2, puts: [["settings", SETTINGS]], deletes: [] }, NOW_MS);
    expect(change.commands).toMatchObject([
      { op: "self", encryption: "wireguard" },
      { op: "peer", name: "edge1/m1", keepaliveSeconds: 25, endpoint: { port: 51871 } },
    ]);
    expect(change.commands.every((command) => !("plain" in command))).toBe(true);
  });
});
