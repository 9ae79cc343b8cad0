/**
 * The ipcache that the datapath holds, from two layers: what the mesh says of its prefixes, and the prefixes that policies need told
 * apart (CIDR rules, learned names), which have local identities.
 *
 * - An address of the mesh keeps its identity, whatever prefix of a policy lies around it or inside its entry.
 * - A prefix of the mesh whose identity is the world's (a network behind a gateway) is the outside: policies tell its addresses
 *   apart, and they stay reachable behind the same peer.
 *
 * Each change looks at the prefixes that it can touch, and answers with what the datapath has to change. Pure; used by
 * `edge/agent/engine_policies.ts`.
 */
import type { PutIp } from "../datapath/control.ts";
import { isWorldIdentity } from "../identity/reserved.ts";
import { formatPrefix, type IpAddress, type IpPrefix, maskedPrefix, prefixContains } from "../ip/address.ts";

/** A prefix of policies, and the local identity that stands for it. */
export interface PolicyPrefix {
  readonly prefix: IpPrefix;
  readonly identity: number;
  /** the identity that the mesh gives this very address, where policies tell it from others of that identity */
  readonly wireIdentity?: number;
}

/** Commands for the datapath. Removals may be applied before anything else of the same message. */
export interface IpChanges {
  readonly removals: readonly { readonly op: "removeIp"; readonly prefix: IpPrefix }[];
  readonly puts: readonly PutIp[];
}

export class IpLayers {
  readonly #mesh = new Map<string, PutIp>();
  readonly #policy = new Map<string, PolicyPrefix>();
  /** this node's own addresses: nothing of a policy is put there */
  #own: ReadonlySet<string> = new Set();
  readonly #sent = new Map<string, PutIp>();
  readonly #dirty = new Map<string, IpPrefix>();

  /** Host prefixes of this node. */
  setOwn(prefixes: readonly IpPrefix[]): void {
    const own = new Set(prefixes.map(formatPrefix));
    for (const prefix of prefixes) if (!this.#own.has(formatPrefix(prefix))) this.#touch(prefix);
    for (const [text, { prefix }] of this.#policy) if (this.#own.has(text) && !own.has(text)) this.#touch(prefix);
    this.#own = own;
  }

  /** An entry of the mesh. */
  putMesh(entry: PutIp): void {
    this.#mesh.set(formatPrefix(entry.prefix), entry);
    this.#touchInside(entry.prefix);
  }

  removeMesh(prefix: IpPrefix): void {
    if (this.#mesh.delete(formatPrefix(prefix))) this.#touchInside(prefix);
  }

  /** A prefix that policies use. */
  putPolicy(entry: PolicyPrefix): void {
    this.#policy.set(formatPrefix(entry.prefix), entry);
    this.#touch(entry.prefix);
  }

  removePolicy(prefix: IpPrefix): void {
    if (this.#policy.delete(formatPrefix(prefix))) this.#touch(prefix);
  }

  /** What changed since the last call. */
  takeChanges(): IpChanges {
    const removals: { op: "removeIp"; prefix: IpPrefix }[] = [];
    const puts: PutIp[] = [];
    for (const [text, prefix] of this.#dirty) {
      const before = this.#sent.get(text);
      const after = this.#entryAt(text, prefix);
      if (after === undefined) {
        this.#sent.delete(text);
        if (before !== undefined) removals.push({ op: "removeIp", prefix });
      } else if (before === undefined || !isSame(before, after)) {
        this.#sent.set(text, after);
        puts.push(after);
      }
    }
    this.#dirty.clear();
    return { removals, puts };
  }

  /** The identity that the datapath knows an address by; undefined: nothing covers it. As of the last `takeChanges`. */
  identityOf(address: IpAddress): number | undefined {
    for (let length = 8 * address.length; length >= 0; length--) {
      const found = this.#sent.get(formatPrefix(maskedPrefix({ address, length })));
      if (found !== undefined) return found.identity;
    }
    return undefined;
  }

  /** Everything, for a datapath that holds nothing yet. */
  all(): readonly PutIp[] {
    this.takeChanges();
    return [...this.#sent.values()];
  }

  #touch(prefix: IpPrefix): void {
    this.#dirty.set(formatPrefix(prefix), prefix);
  }

  /** What an entry of the mesh decides: its own prefix, and those of policies inside. */
  #touchInside(prefix: IpPrefix): void {
    this.#touch(prefix);
    for (const { prefix: inner } of this.#policy.values()) {
      if (inner.length >= prefix.length && prefixContains(prefix, inner.address)) this.#touch(inner);
    }
  }

  #entryAt(text: string, prefix: IpPrefix): PutIp | undefined {
    const mesh = this.#mesh.get(text);
    const policy = this.#policy.get(text);
    if (mesh !== undefined) return policy === undefined ? mesh : combined(mesh, policy);
    if (policy === undefined || this.#own.has(text)) return undefined;
    const around = this.#meshAround(prefix);
    if (around === undefined) return { op: "ip", prefix, identity: policy.identity };
    return isWorldIdentity(around.identity) ? combined({ ...around, prefix }, policy) : undefined;
  }

  /** The longest entry of the mesh that covers a prefix, other than its own. */
  #meshAround({ address, length }: IpPrefix): PutIp | undefined {
    for (let shorter = length - 1; shorter >= 0; shorter--) {
      const found = this.#mesh.get(formatPrefix(maskedPrefix({ address, length: shorter })));
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

/** A mesh entry under the local identity of a policy's prefix, where that prefix may stand for it. */
function combined(mesh: PutIp, policy: PolicyPrefix): PutIp {
  const isMeant = isWorldIdentity(mesh.identity) || policy.wireIdentity === mesh.identity;
  return isMeant ? { ...mesh, identity: policy.identity, wireIdentity: mesh.identity } : mesh;
}

function isSame(a: PutIp, b: PutIp): boolean {
  return a.identity === b.identity && a.wireIdentity === b.wireIdentity &&
    (a.peer === b.peer || (a.peer !== undefined && b.peer !== undefined && isSameKey(a.peer, b.peer)));
}

function isSameKey(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((octet, i) => octet === b[i]);
}
