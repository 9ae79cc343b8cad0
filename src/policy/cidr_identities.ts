/**
 * Identities of prefixes. Every prefix that an active rule mentions (holes too), every address learned for a name and every prefix
 * that needs a record of its own gets a number of this node's own scope, so that the ipcache's longest prefix tells them apart. They
 * never leave the node.
 */
import { formatPrefix, type IpPrefix, maskedPrefix } from "../ip/address.ts";
import { type Labels, SOURCE_CIDR } from "../identity/labels.ts";
import { PrefixTree } from "../ip/prefix_tree.ts";
import { SCOPE_LOCAL } from "../identity/ranges.ts";

/** An ipcache entry that follows the policies in use. */
export interface PrefixEntry {
  readonly prefix: IpPrefix;
  /** what look-ups in the policy table use */
  readonly identity: number;
  /** what senders put into the VNI for an address inside the mesh; absent: outside, any world identity */
  readonly wireIdentity?: number;
}

/** Changes of the ipcache. */
export interface PrefixChanges {
  readonly put: readonly PrefixEntry[];
  readonly remove: readonly IpPrefix[];
}

/** A prefix in use. */
export interface KnownPrefix {
  readonly prefix: IpPrefix;
  readonly identity: number;
  uses: number;
  /** as it should stand in the ipcache; `undefined`: not at all, the mesh's own entry counts */
  shown: PrefixEntry | undefined;
  /** as the ipcache was told */
  told: PrefixEntry | undefined;
}

const LAST_LOCAL = 0xff_ffff;

export class CidrIdentities {
  readonly #known = new PrefixTree<KnownPrefix>();
  readonly #taken = new Set<number>();
  #next = 1;
  readonly #untold = new Set<KnownPrefix>();
  /** told, and out of use */
  readonly #gone = new Map<string, IpPrefix>();

  /** One more use of a prefix. @returns what is known of it when this is the first: it is not shown yet */
  use(prefix: IpPrefix): KnownPrefix | undefined {
    if (prefix.length === 0) return undefined; // the world of its family, which has a number
    const known = this.#known.get(prefix);
    if (known !== undefined) {
      known.uses++;
      return undefined;
    }
    const made: KnownPrefix = {
      prefix: maskedPrefix(prefix),
      identity: this.#allocate(),
      uses: 1,
      shown: undefined,
      told: undefined,
    };
    this.#known.set(prefix, made);
    return made;
  }

  /** One use less. @returns the identity when it was the last: it is free again */
  release(prefix: IpPrefix): number | undefined {
    const known = this.#known.get(prefix);
    if (known === undefined || --known.uses > 0) return undefined;
    this.#known.delete(prefix);
    this.#taken.delete(known.identity);
    this.#untold.delete(known);
    if (known.told !== undefined) this.#gone.set(formatPrefix(known.prefix), known.prefix);
    return known.identity;
  }

  /** Exactly this prefix; `undefined` while it is not in use. */
  get(prefix: IpPrefix): KnownPrefix | undefined {
    return this.#known.get(prefix);
  }

  /** Those in use around a prefix, longest first. */
  around(prefix: IpPrefix): KnownPrefix[] {
    return this.#known.around(prefix);
  }

  /** Those in use within a prefix. */
  within(prefix: IpPrefix): KnownPrefix[] {
    return this.#known.within(prefix);
  }

  /** Puts a prefix into the ipcache at the next `takeChanges`. */
  show(known: KnownPrefix, wireIdentity: number | undefined): void {
    if (known.shown !== undefined && known.shown.wireIdentity === wireIdentity) return;
    const { prefix, identity } = known;
    known.shown = wireIdentity === undefined ? { prefix, identity } : { prefix, identity, wireIdentity };
    this.#untold.add(known);
  }

  /** Keeps a prefix out of the ipcache, or takes it out. */
  hide(known: KnownPrefix): void {
    if (known.shown === undefined) return;
    known.shown = undefined;
    this.#untold.add(known);
  }

  /** What the ipcache has to change since the last call. A prefix put again under another number is only put. */
  takeChanges(): PrefixChanges {
    const put: PrefixEntry[] = [];
    const remove: IpPrefix[] = [];
    for (const known of this.#untold) {
      const { shown, told } = known;
      known.told = shown;
      if (shown === undefined) {
        if (told !== undefined) remove.push(known.prefix);
        continue;
      }
      this.#gone.delete(formatPrefix(known.prefix));
      if (told === undefined || told.wireIdentity !== shown.wireIdentity) put.push(shown);
    }
    remove.push(...this.#gone.values());
    this.#untold.clear();
    this.#gone.clear();
    return { put, remove };
  }

  /** All that should stand in the ipcache, for one that starts empty. */
  all(): PrefixEntry[] {
    return this.#known.values().flatMap(({ shown }) => shown === undefined ? [] : [shown]);
  }

  /** The next free number; a freed one comes back as late as possible. */
  #allocate(): number {
    if (this.#taken.size >= LAST_LOCAL) throw new RangeError("No local identity is free");
    while (this.#taken.has(SCOPE_LOCAL | this.#next)) this.#next = this.#next === LAST_LOCAL ? 1 : this.#next + 1;
    const identity = SCOPE_LOCAL | this.#next;
    this.#next = this.#next === LAST_LOCAL ? 1 : this.#next + 1;
    this.#taken.add(identity);
    return identity;
  }
}

/** Labels of a prefix's identity: the prefix, and the world it belongs to. */
export function labelsOfPrefix(prefix: IpPrefix): Labels {
  const family = prefix.address.length === 4 ? "ipv4" : "ipv6";
  return { [`${SOURCE_CIDR}:${formatPrefix(prefix)}`]: "", [`reserved:world-${family}`]: "" };
}

export const WORLD_IPV4: IpPrefix = { address: new Uint8Array(4), length: 0 };
export const WORLD_IPV6: IpPrefix = { address: new Uint8Array(16), length: 0 };
