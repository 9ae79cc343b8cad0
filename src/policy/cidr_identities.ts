/**
 * Identities of outside addresses. Every prefix that an active rule mentions (holes too) gets a number of this node's own scope, so
 * that the ipcache's longest prefix tells the rules' addresses apart. They never leave the node.
 */
import { formatPrefix, type IpPrefix, prefixContains } from "../ip/address.ts";
import { type Labels, SOURCE_CIDR } from "../identity/labels.ts";
import { SCOPE_LOCAL } from "../identity/ranges.ts";
import { IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6 } from "../identity/reserved.ts";

/** ipcache entries that follow the policies in use. */
export interface PrefixChanges {
  readonly put: readonly { readonly prefix: IpPrefix; readonly identity: number }[];
  readonly remove: readonly IpPrefix[];
}

interface Known {
  readonly prefix: IpPrefix;
  readonly identity: number;
  uses: number;
  /** the ipcache was told */
  isTold: boolean;
}

const LAST_LOCAL = 0xff_ffff;

export class CidrIdentities {
  readonly #known = new Map<string, Known>();
  readonly #taken = new Set<number>();
  #next = 1;
  readonly #untold = new Set<Known>();
  readonly #gone = new Map<string, IpPrefix>();

  /** One more use of a prefix. @returns its new identity when this is the first */
  use(prefix: IpPrefix): number | undefined {
    if (prefix.length === 0) return undefined; // the world of its family, which has a number
    const text = formatPrefix(prefix);
    const known = this.#known.get(text);
    if (known !== undefined) {
      known.uses++;
      return undefined;
    }
    const made: Known = { prefix, identity: this.#allocate(), uses: 1, isTold: false };
    this.#known.set(text, made);
    this.#untold.add(made);
    return made.identity;
  }

  /** One use less. @returns the identity when it was the last: it is free again */
  release(prefix: IpPrefix): number | undefined {
    const text = formatPrefix(prefix);
    const known = this.#known.get(text);
    if (known === undefined || --known.uses > 0) return undefined;
    this.#known.delete(text);
    this.#taken.delete(known.identity);
    this.#untold.delete(known);
    if (known.isTold) this.#gone.set(text, prefix);
    return known.identity;
  }

  /** The identity of exactly this prefix; `undefined` while it is not in use. */
  identityOfPrefix(prefix: IpPrefix): number | undefined {
    return this.#known.get(formatPrefix(prefix))?.identity;
  }

  /** What the ipcache has to change since the last call. A prefix put again under another number is only put. */
  takeChanges(): PrefixChanges {
    const put = [...this.#untold].map((known) => {
      known.isTold = true;
      this.#gone.delete(formatPrefix(known.prefix));
      return { prefix: known.prefix, identity: known.identity };
    });
    const remove = [...this.#gone.values()];
    this.#untold.clear();
    this.#gone.clear();
    return { put, remove };
  }

  /** All that is in use, for an ipcache that starts empty. */
  all(): PrefixChanges["put"] {
    return [...this.#known.values()].map(({ prefix, identity }) => ({ prefix, identity }));
  }

  /** The identity of an outside address: of the longest prefix in use, else its family's world. */
  identityOf(address: Uint8Array): number {
    let best: Known | undefined;
    for (const known of this.#known.values()) {
      if (prefixContains(known.prefix, address) && (best === undefined || known.prefix.length > best.prefix.length)) {
        best = known;
      }
    }
    return best?.identity ?? (address.length === 4 ? IDENTITY_WORLD_IPV4 : IDENTITY_WORLD_IPV6);
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
