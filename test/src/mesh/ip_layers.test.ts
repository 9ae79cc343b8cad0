import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { PutIp } from "../../../src/datapath/control.ts";
import { formatPrefix, type IpPrefix, parseAddress, parsePrefix, prefixContains } from "../../../src/ip/address.ts";
import { IpLayers, type PolicyPrefix } from "../../../src/mesh/ip_layers.ts";

const GATEWAY = new Uint8Array(32).fill(1);
const POD = 65_600;
const WORLD = 9;
const LOCAL = 0x0100_0001;

function mesh(prefix: string, identity: number, peer?: Uint8Array): PutIp {
  return { op: "ip", prefix: parsePrefix(prefix)!, identity, ...(peer && { peer }) };
}

function policy(prefix: string, identity = LOCAL, wireIdentity?: number): PolicyPrefix {
  return { prefix: parsePrefix(prefix)!, identity, ...(wireIdentity !== undefined && { wireIdentity }) };
}

/** What a datapath holds after some takes, as text. */
class Held {
  readonly layers = new IpLayers();
  readonly #entries = new Map<string, string>();

  take(): string[] {
    const { removals, puts } = this.layers.takeChanges();
    for (const { prefix } of removals) this.#entries.delete(formatPrefix(prefix));
    for (const put of puts) this.#entries.set(formatPrefix(put.prefix), textOf(put));
    return [...this.#entries].map(([prefix, text]) => `${prefix} ${text}`).sort();
  }
}

function textOf({ identity, wireIdentity, peer }: PutIp): string {
  return `${identity}${wireIdentity === undefined ? "" : `/${wireIdentity}`}${
    peer === undefined ? "" : ` via ${peer[0]}`
  }`;
}

describe("IpLayers", () => {
  it("puts a prefix of a policy where the mesh has nothing", () => {
    const held = new Held();
    held.layers.putPolicy(policy("192.0.2.0/24"));
    expect(held.take()).toEqual([`192.0.2.0/24 ${LOCAL}`]);
    held.layers.removePolicy(parsePrefix("192.0.2.0/24")!);
    expect(held.take()).toEqual([]);
  });

  it("leaves addresses of the mesh with the mesh's identity, inside and at the prefix of a policy", () => {
    const held = new Held();
    held.layers.putMesh(mesh("10.8.0.0/16", POD, GATEWAY));
    held.layers.putPolicy(policy("10.8.1.0/24"));
    held.layers.putPolicy(policy("10.8.0.0/16", LOCAL + 1));
    held.layers.putPolicy(policy("10.0.0.0/8", LOCAL + 2));
    expect(held.take()).toEqual([`10.0.0.0/8 ${LOCAL + 2}`, `10.8.0.0/16 ${POD} via 1`]);
  });

  it("tells addresses apart in a network outside that lies behind a peer, and keeps them reachable there", () => {
    const held = new Held();
    held.layers.putPolicy(policy("198.51.100.7/32"));
    expect(held.take()).toEqual([`198.51.100.7/32 ${LOCAL}`]);
    held.layers.putMesh(mesh("0.0.0.0/0", WORLD, GATEWAY));
    expect(held.take()).toEqual([`0.0.0.0/0 ${WORLD} via 1`, `198.51.100.7/32 ${LOCAL}/${WORLD} via 1`]);
    held.layers.removeMesh(parsePrefix("0.0.0.0/0")!);
    expect(held.take()).toEqual([`198.51.100.7/32 ${LOCAL}`]);
  });

  it("gives an address of the mesh its own local identity only when the policy's is made for its identity", () => {
    const held = new Held();
    held.layers.putMesh(mesh("10.9.0.2/32", POD, GATEWAY));
    held.layers.putPolicy(policy("10.9.0.2/32", LOCAL, POD));
    expect(held.take()).toEqual([`10.9.0.2/32 ${LOCAL}/${POD} via 1`]);
    held.layers.putMesh(mesh("10.9.0.2/32", POD + 1, GATEWAY)); // the member got other labels
    expect(held.take()).toEqual([`10.9.0.2/32 ${POD + 1} via 1`]);
  });

  it("never puts a policy's prefix at an address of this node", () => {
    const held = new Held();
    held.layers.putPolicy(policy("10.9.0.1/32"));
    held.layers.setOwn([parsePrefix("10.9.0.1/32")!]);
    expect(held.take()).toEqual([]);
    held.layers.setOwn([]);
    expect(held.take()).toEqual([`10.9.0.1/32 ${LOCAL}`]);
  });

  it("tells what an address is known by", () => {
    const { layers } = new Held();
    layers.putMesh(mesh("10.8.0.0/16", POD, GATEWAY));
    layers.putPolicy(policy("192.0.2.0/24"));
    layers.takeChanges();
    expect(layers.identityOf(parseAddress("10.8.3.4")!)).toBe(POD);
    expect(layers.identityOf(parseAddress("192.0.2.9")!)).toBe(LOCAL);
    expect(layers.identityOf(parseAddress("203.0.113.1")!)).toBeUndefined();
    expect(layers.identityOf(parseAddress("2001:db8::1")!)).toBeUndefined();
  });

  it("says nothing about what stayed the same, and everything to a new datapath", () => {
    const { layers } = new Held();
    layers.putMesh(mesh("10.8.0.0/16", POD, GATEWAY));
    layers.putPolicy(policy("192.0.2.0/24"));
    expect(layers.takeChanges().puts).toHaveLength(2);
    layers.putMesh(mesh("10.8.0.0/16", POD, GATEWAY.slice()));
    expect(layers.takeChanges()).toEqual({ removals: [], puts: [] });
    expect(layers.all()).toHaveLength(2);
  });

  it("ends the same whatever the order of changes, and as the rules say", () => {
    const prefixes = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.9.0.1/32"];
    const change = fc.record({
      layer: fc.constantFrom("mesh", "policy", "own"),
      prefix: fc.constantFrom(...prefixes),
      identity: fc.constantFrom(POD, WORLD, undefined),
      isTaken: fc.boolean(),
    });
    fc.assert(fc.property(fc.array(change, { maxLength: 40 }), (changes) => {
      const held = new Held();
      const meshNow = new Map<string, PutIp>();
      const policyNow = new Map<string, PolicyPrefix>();
      let own: IpPrefix[] = [];
      for (const { layer, prefix, identity, isTaken } of changes) {
        const parsed = parsePrefix(prefix)!;
        if (layer === "own") held.layers.setOwn(own = identity === undefined ? [] : [parsed]);
        else if (layer === "mesh") {
          if (identity === undefined) meshNow.delete(prefix), held.layers.removeMesh(parsed);
          else {
            meshNow.set(prefix, mesh(prefix, identity, GATEWAY));
            held.layers.putMesh(meshNow.get(prefix)!);
          }
        } else if (identity === undefined) policyNow.delete(prefix), held.layers.removePolicy(parsed);
        else {
          policyNow.set(prefix, policy(prefix, LOCAL, identity === POD ? POD : undefined));
          held.layers.putPolicy(policyNow.get(prefix)!);
        }
        if (isTaken) held.take();
      }
      expect(held.take()).toEqual(naive(meshNow, policyNow, own));
    }));
  });
});

/** Every prefix asked by itself, as the head comment of `ip_layers.ts` says. */
function naive(meshNow: Map<string, PutIp>, policyNow: Map<string, PolicyPrefix>, own: IpPrefix[]): string[] {
  const lines: string[] = [];
  for (const text of new Set([...meshNow.keys(), ...policyNow.keys()])) {
    const prefix = parsePrefix(text)!;
    const covering = [...meshNow.values()]
      .filter((entry) => entry.prefix.length <= prefix.length && prefixContains(entry.prefix, prefix.address))
      .sort((a, b) => b.prefix.length - a.prefix.length)[0];
    const wanted = policyNow.get(text);
    const isOwn = own.some((one) => formatPrefix(one) === text) && !meshNow.has(text);
    if (isOwn || (wanted === undefined && covering === undefined)) continue;
    if (covering === undefined) lines.push(`${text} ${wanted!.identity}`);
    else if (wanted === undefined) lines.push(`${text} ${covering.identity} via 1`);
    else if (covering.identity === WORLD || (meshNow.has(text) && wanted.wireIdentity === covering.identity)) {
      lines.push(`${text} ${wanted.identity}/${covering.identity} via 1`);
    } else if (meshNow.has(text)) lines.push(`${text} ${covering.identity} via 1`);
  }
  return lines.sort();
}
