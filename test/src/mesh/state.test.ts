import { describe, expect, it } from "vitest";
import fc from "fast-check";
import type { DatapathCommand } from "../../../src/datapath/control.ts";
import { formatPrefix } from "../../../src/ip/address.ts";
import type { EntryValue, RoutingSettings, SnapshotFrame, StateFrame } from "../../../src/mesh/entries.ts";
import { equalData } from "../../../src/mesh/equal_data.ts";
import type { MeshState } from "../../../src/mesh/state.ts";
import { RECORD_GRACE_MS } from "../../../src/mesh/tables.ts";
import { entriesOf, entryOf, makeState, memberOf, NOW_MS, SETTINGS, signed } from "./fixtures.ts";

type Entry = readonly [string, EntryValue];

const snapshot = (entries: readonly Entry[], revision = 1): SnapshotFrame => ({
  t: "snapshot",
  epoch: "e",
  revision,
  entries,
});
const delta = (revision: number, puts: readonly Entry[], deletes: readonly string[] = []): StateFrame => ({
  t: "delta",
  revision,
  puts,
  deletes,
});

/** Commands as short texts. */
function told(commands: readonly DatapathCommand[]): string[] {
  return commands.map((command) => {
    switch (command.op) {
      case "self":
        return `self ${command.identity}`;
      case "peer":
        return `peer ${command.name}`;
      case "removePeer":
        return `remove peer ${command.publicKey[0]}`;
      case "ip":
        return `ip ${formatPrefix(command.prefix)} ${command.identity} via ${command.peer?.[0] ?? "none"}`;
      case "removeIp":
        return `remove ip ${formatPrefix(command.prefix)}`;
      default:
        return command.op;
    }
  });
}

describe("MeshState", () => {
  it("turns a snapshot into this node, its peers and their addresses", () => {
    const state = makeState();
    const change = state.apply(snapshot(entriesOf(1, 2, 3)), NOW_MS);
    expect(told(change.commands)).toEqual([
      "self 65794",
      "peer edge1/m1",
      "peer edge1/m3",
      "ip 10.9.0.1/32 65793 via 1",
      "ip fd09::1/128 65793 via 1",
      "ip 10.9.0.3/32 65795 via 3",
      "ip fd09::3/128 65795 via 3",
    ]);
    expect(change.refused).toEqual([]);
    expect([change.isSelfChanged, change.isSettingsChanged, change.isMembersChanged]).toEqual([true, true, true]);
    expect(state.position).toEqual({ epoch: "e", revision: 1 });
    expect(state.self?.name).toBe("m2");
    expect(state.routes()).toEqual(["10.9.0.0/16", "fd09::1/128", "fd09::3/128"]);
  });

  it("keeps the hub awake, and gives every peer its first endpoint", () => {
    const change = makeState().apply(snapshot(entriesOf(1, 2, 3)), NOW_MS);
    const peers = change.commands.filter((command) => command.op === "peer");
    expect(peers.map((peer) => [peer.keepaliveSeconds, peer.endpoint?.port])).toEqual([[25, 51871], [0, 51871]]);
  });

  it("says nothing when the same is put again", () => {
    const state = makeState();
    state.apply(snapshot(entriesOf(1, 2, 3)), NOW_MS);
    const change = state.apply(snapshot(entriesOf(1, 2, 3), 2), NOW_MS);
    expect(change.commands).toEqual([]);
    expect(change.isMembersChanged).toBe(false);
    expect(state.position?.revision).toBe(2);
  });

  it("removes a member that is deleted, or absent from a snapshot", () => {
    for (const frame of [delta(2, [], ["member/edge1/m3"]), snapshot(entriesOf(1, 2), 2)]) {
      const state = makeState();
      state.apply(snapshot(entriesOf(1, 2, 3)), NOW_MS);
      expect(told(state.apply(frame, NOW_MS).commands)).toEqual([
        "remove ip 10.9.0.3/32",
        "remove ip fd09::3/128",
        "remove peer 3",
      ]);
    }
  });

  it("removes the old key before it puts the new one", () => {
    const state = makeState();
    state.apply(snapshot(entriesOf(2, 3)), NOW_MS);
    const change = state.apply(delta(2, [entryOf(memberOf(3, { publicKey: new Uint8Array(32).fill(33) }))]), NOW_MS);
    expect(told(change.commands)).toEqual([
      "remove peer 3",
      "peer edge1/m3",
      "ip 10.9.0.3/32 65795 via 33",
      "ip fd09::3/128 65795 via 33",
    ]);
  });

  it("drops all peers when its own record is taken back, and says that it has none", () => {
    const state = makeState();
    state.apply(snapshot(entriesOf(2, 3)), NOW_MS);
    const change = state.apply(delta(2, [], ["member/edge1/m2", "member/edge1/m3"]), NOW_MS);
    expect(told(change.commands)).toContain("remove peer 3");
    expect([change.isSelfChanged, state.self]).toEqual([true, undefined]);
  });

  it("routes prefixes behind members, and notices when the member comes later or goes", () => {
    const state = makeState();
    state.apply(snapshot([...entriesOf(2), ["ip/10.8.0.0/16", { identity: 70_000, member: "edge1/m3" }]]), NOW_MS);
    expect(told(state.allCommands())).toContain("ip 10.8.0.0/16 70000 via none");
    expect(state.routes()).toEqual(["10.9.0.0/16"]);
    state.apply(delta(2, [entryOf(memberOf(3))]), NOW_MS);
    expect(told(state.allCommands())).toContain("ip 10.8.0.0/16 70000 via 3");
    expect(state.routes()).toContain("10.8.0.0/16");
    state.apply(delta(3, [], ["member/edge1/m3"]), NOW_MS);
    expect(told(state.allCommands())).toContain("ip 10.8.0.0/16 70000 via none");
  });

  it("never lets a prefix entry take a member's own address", () => {
    const state = makeState();
    const steal: Entry = ["ip/10.9.0.3/32", { identity: 70_000, member: "edge1/m1" }];
    state.apply(snapshot([...entriesOf(1, 2, 3), steal]), NOW_MS);
    expect(told(state.allCommands())).toContain("ip 10.9.0.3/32 65795 via 3");
    state.apply(delta(2, [["ip/10.9.0.3/32", { identity: 70_001 }]]), NOW_MS);
    expect(told(state.allCommands())).toContain("ip 10.9.0.3/32 65795 via 3");
    state.apply(delta(3, [], ["member/edge1/m3"]), NOW_MS);
    expect(told(state.allCommands())).toContain("ip 10.9.0.3/32 70001 via none");
  });

  it("tells the policy engine what came and went", () => {
    const policy = {
      apiVersion: "networking.k8s.io/v1",
      kind: "NetworkPolicy",
      metadata: { name: "p", namespace: "default" },
    };
    const state = makeState();
    const first = state.apply(
      snapshot([
        ...entriesOf(2),
        ["identity/65800", { labels: { "k8s:app": "web" } }],
        ["namespace/default", { labels: {} }],
        ["policy/NetworkPolicy/default/p", policy],
      ]),
      NOW_MS,
    );
    expect(first.identities.puts).toEqual([[65_800, { labels: { "k8s:app": "web" } }]]);
    expect(first.namespaces.puts).toEqual([["default", { labels: {} }]]);
    expect(first.policies.puts).toEqual([["NetworkPolicy/default/p", policy]]);
    const second = state.apply(
      delta(2, [["namespace/default", { labels: {} }]], ["policy/NetworkPolicy/default/p"]),
      NOW_MS,
    );
    expect(second.namespaces).toEqual({ puts: [], deletes: [] });
    expect(second.policies).toEqual({ puts: [], deletes: ["NetworkPolicy/default/p"] });
  });

  it("tells the policy engine of CIDR groups and services", () => {
    const group = { apiVersion: "cilium.io/v2", kind: "CiliumCIDRGroup", metadata: { name: "office" }, spec: {} };
    const selecting = { labels: { tier: "db" }, selector: { app: "db" }, addresses: [] };
    const listing = { labels: {}, addresses: ["192.0.2.7", "2001:db8::7"] };
    const state = makeState();
    const first = state.apply(
      snapshot([
        ...entriesOf(2),
        ["cidrgroup/office", group],
        ["service/shop/db", selecting],
        ["service/shop/legacy", listing],
      ]),
      NOW_MS,
    );
    expect(first.refused).toEqual([]);
    expect(first.cidrGroups).toEqual({ puts: [["office", group]], deletes: [] });
    expect(first.services.puts).toEqual([["shop/db", selecting], ["shop/legacy", listing]]);
    expect(state.services.get("shop/legacy")).toEqual(listing);
    const second = state.apply(delta(2, [["service/shop/db", { ...selecting }]], ["cidrgroup/office"]), NOW_MS);
    expect(second.services).toEqual({ puts: [], deletes: [] });
    expect(second.cidrGroups).toEqual({ puts: [], deletes: ["office"] });
    expect([...first.replaced]).toEqual([
      ["cidrgroup/office", undefined],
      ["service/shop/db", undefined],
      ["service/shop/legacy", undefined],
    ]);
    expect([...second.replaced]).toEqual([["cidrgroup/office", group]]);
    expect([...state.cidrGroups.keys()]).toEqual([]);
  });

  it("takes the settings of policy that are there, and leaves absent ones absent", () => {
    const state = makeState();
    state.apply(snapshot(entriesOf(2)), NOW_MS);
    expect(state.settings).toEqual(SETTINGS);
    const policy = {
      ...SETTINGS.policy,
      auditMode: true,
      cidrMatchMode: ["nodes", "pods"] as const,
      hostFirewall: true,
      fqdn: { minTtlSeconds: 60, maxIpsPerName: 50, rejectCode: "nameError" as const },
    };
    const change = state.apply(delta(2, [["settings", { ...SETTINGS, policy }]]), NOW_MS);
    expect(change.isSettingsChanged).toBe(true);
    expect(state.settings?.policy).toEqual(policy);
  });
});

describe("MeshState refuses", () => {
  function reasonFor(entry: Entry): string | undefined {
    const state = makeState();
    const change = state.apply(snapshot([...entriesOf(2, 3), entry]), NOW_MS);
    // the rest is unharmed
    expect(state.self?.name).toBe("m2");
    expect(told(state.allCommands())).toContain("ip 10.9.0.3/32 65795 via 3");
    expect(state.refusedTotal).toBe(change.refused.length);
    return state.refused.get(entry[0]);
  }

  const other = (changes: Parameters<typeof memberOf>[1]): Entry => ["member/edge1/m9", signed(memberOf(9, changes))];

  it.each<[string, Entry, RegExp]>([
    [
      "a record signed by another key",
      ["member/edge1/m9", signed(memberOf(9), new Uint8Array(32).fill(8))],
      /signature/,
    ],
    ["a record under another's key", ["member/edge1/m8", signed(memberOf(9))], /name must be that of the key/],
    [
      "a record of another cluster's name",
      other({ cluster: { name: "edge2", id: 2 } }),
      /name must be that of the key/,
    ],
    ["a short key", other({ publicKey: new Uint8Array(31) }), /publicKey must be 32 octets/],
    ["a zero key", other({ publicKey: new Uint8Array(32) }), /publicKey must not be zero/],
    ["an address with leading zeros", other({ addresses: ["10.009.0.9"] }), /addresses\[0\] must be an IP address/],
    ["an address that is not canonical", other({ addresses: ["fd09:0::9"] }), /canonical/],
    ["the same address twice", other({ addresses: ["10.9.0.9", "10.9.0.9"] }), /different/],
    ["an endpoint without a port", other({ endpoints: ["192.0.2.1"] }), /endpoints\[0\]/],
    ["an identity beyond 24 bits", other({ identity: 0x1000000 }), /identity/],
    ["a fractional time", other({ notAfter: 1.5 }), /notAfter/],
    ["an unsigned record", ["member/edge1/m9", memberOf(9) as unknown as EntryValue], /record must be octets/],
    ["an identity of zero", ["identity/0", { labels: {} }], /identity/],
    ["an identity with leading zeros", ["identity/0123", { labels: {} }], /identity/],
    ["a prefix with host bits", ["ip/10.8.0.1/16", { identity: 1 }], /canonical/],
    ["a bare address as a prefix", ["ip/10.8.0.1", { identity: 1 }], /prefix/],
    ["labels that are no texts", ["namespace/x", { labels: { a: 1 } } as unknown as EntryValue], /labels\.a/],
    ["a policy under another name", ["policy/NetworkPolicy/default/p", {
      kind: "NetworkPolicy",
      metadata: { name: "q" },
    }], /name/],
    ["a CIDR group under another name", ["cidrgroup/g", { kind: "CiliumCIDRGroup", metadata: { name: "h" } }], /name/],
    ["a CIDR group of another kind", ["cidrgroup/g", { kind: "Service", metadata: { name: "g" } }], /CiliumCIDRGroup/],
    ["a service without a namespace", ["service/db", { labels: {}, addresses: [] }], /NAMESPACE/],
    ["a service with a bad address", ["service/shop/db", { labels: {}, addresses: ["10.1"] }], /addresses\[0\]/],
    ["a service with too many", ["service/shop/db", { labels: {}, addresses: Array(4097).fill("10.0.0.1") }], /4096/],
    [
      "a service with a selector that is no map",
      ["service/shop/db", { labels: {}, selector: [], addresses: [] } as unknown as EntryValue],
      /selector/,
    ],
    ["an unknown kind", ["endpoint/default/x", {}], /does not know/],
    ["a key of absurd length", [`namespace/${"x".repeat(1000)}`, { labels: {} }], /characters/],
  ])("%s", (_, entry, reason) => {
    expect(reasonFor(entry)).toMatch(reason);
  });

  it.each([
    ["a key", { publicKey: new Uint8Array(32).fill(3) }, /key belongs to edge1\/m3/],
    ["an underlay address", { underlay: "172.31.0.3" }, /underlay 172.31.0.3 belongs to edge1\/m3/],
    ["a mesh address", { addresses: ["10.9.0.3"] }, /address 10.9.0.3 belongs to edge1\/m3/],
    ["our own address", { addresses: ["10.9.0.2"] }, /address 10.9.0.2 belongs to edge1\/m2/],
  ])("a second claim on %s", (_, changes, reason) => {
    const state = makeState();
    state.apply(snapshot([...entriesOf(2, 3), other(changes)]), NOW_MS);
    expect(state.refused.get("member/edge1/m9")).toMatch(reason);
    expect(state.members.has("edge1/m9")).toBe(false);
    // the claim holds as soon as the other gives it up
    state.apply(delta(2, [], ["member/edge1/m3", "member/edge1/m2"]), NOW_MS);
    expect(state.members.has("edge1/m9")).toBe(true);
  });

  it("its own record with another key", () => {
    const state = makeState();
    state.apply(
      snapshot([["settings", SETTINGS], entryOf(memberOf(2, { publicKey: new Uint8Array(32).fill(5) }))]),
      NOW_MS,
    );
    expect(state.self).toBeUndefined();
    expect(state.refused.get("member/edge1/m2")).toMatch(/own/);
  });

  it.each([
    [{ mode: "direct" }, /^routing\.mode must be one of tunnel, native, hybrid/],
    [{ encryption: "ipsec" }, /^routing\.encryption must be one of wireguard, none/],
    [{ mode: "native", encryption: "none" }, /mode native needs encryption wireguard/],
    [{ mode: "hybrid", encryption: "none" }, /mode hybrid needs encryption wireguard/],
  ])("routing that there is not, by name: %j", (changes, reason) => {
    const routing = { ...SETTINGS, routing: { ...SETTINGS.routing, ...changes } as unknown as RoutingSettings };
    const state = makeState();
    state.apply(snapshot([...entriesOf(2).slice(1), ["settings", routing]]), NOW_MS);
    expect(state.refused.get("settings")).toMatch(reason);
    expect(state.allCommands().some((command) => command.op === "self")).toBe(false);
  });

  it.each<[string, object, RegExp]>([
    ["an audit mode that is no switch", { auditMode: "yes" }, /policy\.auditMode must be true or false/],
    ["an unknown match mode", { cidrMatchMode: ["hosts"] }, /policy\.cidrMatchMode\[0\] must be one of nodes, pods/],
    ["a negative minimum TTL", { fqdn: { minTtlSeconds: -1 } }, /policy\.fqdn\.minTtlSeconds/],
    ["no address for a name", { fqdn: { maxIpsPerName: 0 } }, /policy\.fqdn\.maxIpsPerName/],
    ["an unknown answer code", { fqdn: { rejectCode: "servfail" } }, /refused, nameError/],
  ])("settings with %s", (_, policy, reason) => {
    const bad = { ...SETTINGS, policy: { ...SETTINGS.policy, ...policy } } as unknown as EntryValue;
    const state = makeState();
    state.apply(snapshot([...entriesOf(2).slice(1), ["settings", bad]]), NOW_MS);
    expect(state.refused.get("settings")).toMatch(reason);
  });

  it.each<[string, unknown]>([
    ["nothing", undefined],
    ["another type", { t: "patch", revision: 2 }],
    ["a revision that is no number", { t: "delta", revision: "2", puts: [], deletes: [] }],
    ["an old revision", { t: "delta", revision: 0, puts: [], deletes: [] }],
    ["a change at the revision that we have", { t: "delta", revision: 1, puts: [], deletes: ["settings"] }],
    ["a snapshot without an epoch", { t: "snapshot", epoch: "", revision: 2, entries: [] }],
    ["entries that are no pairs", { t: "snapshot", epoch: "e", revision: 2, entries: [["settings"]] }],
    ["deletes that are no texts", { t: "delta", revision: 2, puts: [], deletes: [7] }],
  ])("a frame with %s whole, and changes nothing", (_, frame) => {
    const state = makeState();
    state.apply(snapshot(entriesOf(1, 2, 3)), NOW_MS);
    const before = [...state.allCommands()];
    const change = state.apply(frame as StateFrame, NOW_MS);
    expect(change.frameRefused).toBeTypeOf("string");
    expect(change.commands).toEqual([]);
    expect([state.position?.revision, state.allCommands()]).toEqual([1, before]);
  });

  it("nothing in an empty delta at the revision that we have: a hub so answers a resume", () => {
    const state = makeState();
    state.apply(snapshot(entriesOf(1, 2, 3)), NOW_MS);
    const change = state.apply({ t: "delta", revision: 1, puts: [], deletes: [] }, NOW_MS);
    expect([change.frameRefused, change.commands, state.position?.revision]).toEqual([undefined, [], 1]);
  });

  it("a delta before any snapshot", () => {
    expect(makeState().apply(delta(2, []), NOW_MS).frameRefused).toMatch(/before the first snapshot/);
  });
});

describe("validity", () => {
  it("uses a record past its end for the grace, then drops it; ours stays", () => {
    const state = makeState();
    state.apply(snapshot(entriesOf(2, 3)), NOW_MS);
    const { notAfter } = memberOf(3);
    expect(state.expire(notAfter + RECORD_GRACE_MS).commands).toEqual([]);
    const change = state.expire(notAfter + RECORD_GRACE_MS + 1);
    expect(told(change.commands)).toContain("remove peer 3");
    expect(state.refused.get("member/edge1/m3")).toMatch(/ran out/);
    expect(state.self).toBeDefined();
    // a renewed record brings it back
    state.apply(delta(2, [entryOf(memberOf(3, { notAfter: notAfter * 2 }))]), notAfter + RECORD_GRACE_MS + 1);
    expect(state.members.has("edge1/m3")).toBe(true);
  });
});

describe("local trust", () => {
  it("takes plain records, and still checks every field", () => {
    const state = makeState({ trust: { kind: "local" } });
    const plain = (number: number, changes = {}): Entry => [
      `member/edge1/m${number}`,
      memberOf(number, changes) as unknown as EntryValue,
    ];
    state.apply(snapshot([["settings", SETTINGS], plain(2), plain(3), plain(4, { underlay: "x" })]), NOW_MS);
    expect([...state.members.keys()]).toEqual(["edge1/m2", "edge1/m3"]);
    expect(state.refused.get("member/edge1/m4")).toMatch(/underlay/);
  });
});

describe("properties", () => {
  /** small numbers, so that claims collide */
  const anyEntry: fc.Arbitrary<Entry> = fc.oneof(
    fc.constant<Entry>(["settings", SETTINGS]),
    fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 })).map(
      ([number, key, address]): Entry =>
        entryOf(
          memberOf(number, {
            publicKey: new Uint8Array(32).fill(number === 2 ? 2 : key),
            addresses: [`10.9.0.${address}`],
          }),
        ),
    ),
    fc.tuple(fc.integer({ min: 0, max: 7 }), fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 6 })).map(
      ([host, identity, member]): Entry => [`ip/10.9.0.${host}/32`, { identity, member: `edge1/m${member}` }],
    ),
    fc.tuple(fc.integer({ min: 300, max: 303 }), fc.string()).map(([id, label]): Entry => [
      `identity/${id}`,
      { labels: { "k8s:a": label } },
    ]),
  );

  function tablesOf(state: MeshState): string[] {
    return told(state.allCommands()).sort();
  }

  it("the tables are the same however the entries are cut into frames", () => {
    fc.assert(
      fc.property(fc.array(anyEntry, { maxLength: 30 }), fc.array(fc.nat(4), { maxLength: 30 }), (entries, cuts) => {
        const last = new Map(entries);
        const whole = makeState();
        whole.apply(snapshot([...last], 1), NOW_MS);
        const cut = makeState();
        cut.apply(snapshot([], 1), NOW_MS);
        let revision = 1;
        let left = [...entries];
        for (let i = 0; left.length > 0; i++) {
          const count = 1 + (cuts[i] ?? 0);
          cut.apply(delta(++revision, left.slice(0, count)), NOW_MS);
          left = left.slice(count);
        }
        expect(tablesOf(cut)).toEqual(tablesOf(whole));
        expect([...cut.refused.keys()].sort()).toEqual([...whole.refused.keys()].sort());
      }),
    );
  });

  it("the commands lead from the old tables to the new ones", () => {
    fc.assert(
      fc.property(fc.array(fc.array(fc.tuple(anyEntry, fc.boolean()), { maxLength: 6 }), { maxLength: 8 }), (steps) => {
        const state = makeState();
        const peers = new Map<string, DatapathCommand>();
        const ips = new Map<string, DatapathCommand>();
        const follow = (commands: readonly DatapathCommand[]) => {
          for (const command of commands) {
            if (command.op === "peer") peers.set(String(command.publicKey), command);
            else if (command.op === "removePeer") expect(peers.delete(String(command.publicKey))).toBe(true);
            else if (command.op === "ip") ips.set(formatPrefix(command.prefix), command);
            else if (command.op === "removeIp") expect(ips.delete(formatPrefix(command.prefix))).toBe(true);
          }
        };
        follow(state.apply(snapshot([]), NOW_MS).commands);
        steps.forEach((step, i) => {
          const puts = step.filter(([, isDelete]) => !isDelete).map(([entry]) => entry);
          const deletes = step.filter(([, isDelete]) => isDelete).map(([[key]]) => key);
          follow(state.apply(delta(i + 2, puts, deletes), NOW_MS).commands);
        });
        const all = state.allCommands().filter((command) => command.op === "peer" || command.op === "ip");
        expect(told([...peers.values(), ...ips.values()]).sort()).toEqual(told(all).sort());
      }),
    );
  });

  it("never throws, whatever the keys and values", () => {
    const key = fc.oneof(
      fc.string(),
      fc.tuple(fc.constantFrom("member", "identity", "namespace", "ip", "policy", "settings"), fc.string())
        .map(([kind, rest]) => `${kind}/${rest}`),
      fc.constantFrom("settings", "member/edge1/m3", "ip/10.0.0.0/8", "identity/300", "policy/NetworkPolicy/default/p"),
    );
    const value = fc.oneof(
      fc.anything({ withTypedArray: true, withNullPrototype: true, withBigInt: true, withDate: true }),
      fc.record({ record: fc.uint8Array(), signature: fc.uint8Array({ minLength: 64, maxLength: 64 }) }),
    );
    fc.assert(fc.property(fc.array(fc.tuple(key, value)), (entries) => {
      const state = makeState();
      state.apply(snapshot(entriesOf(2, 3)), NOW_MS);
      const change = state.apply(delta(2, entries as unknown as Entry[], []), NOW_MS);
      expect(change.frameRefused).toBeUndefined();
      state.expire(NOW_MS);
      state.routes();
    }));
    fc.assert(fc.property(fc.anything(), (frame) => {
      makeState().apply(frame as StateFrame, NOW_MS);
    }));
  });

  it("survives its own entries: what goes to disk gives the same tables", () => {
    fc.assert(fc.property(fc.array(anyEntry, { maxLength: 20 }), (entries) => {
      const state = makeState();
      state.apply(snapshot(entries), NOW_MS);
      const again = makeState();
      again.apply(snapshot(state.entries()), NOW_MS);
      expect(tablesOf(again)).toEqual(tablesOf(state));
    }));
  });
});

describe("equalData", () => {
  it("compares octets, lists and mappings by content", () => {
    expect(equalData({ a: [1, new Uint8Array([2])] }, { a: [1, new Uint8Array([2])] })).toBe(true);
    expect(equalData({ a: undefined }, {})).toBe(false);
    expect(equalData(new Uint8Array([1]), [1])).toBe(false);
    expect(equalData([1], { 0: 1 })).toBe(false);
    expect(equalData(null, {})).toBe(false);
  });
});
