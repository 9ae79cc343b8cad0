/**
 * The ipcache: prefix -> identity, and the peer that the prefix is behind. The longest prefix that covers an address decides.
 *
 * The packet path asks `find` for an entry index and reads its facts with `identityOf` and `peerOf`; none of them allocates.
 * An address that no prefix covers belongs to `world`: the caller says so, this table does not.
 */
import type { IpPrefix } from "../ip/address.ts";
import { NO_VALUE, PrefixTable } from "../ip/prefix_table.ts";

/** Known, but behind no peer: not reachable through the mesh. */
export const NO_PEER = -1;

/** One entry, as lists and status show it. */
export interface IpCacheEntry {
  readonly prefix: IpPrefix;
  readonly identity: number;
  /** what the sender puts into the VNI: the identity, unless that is one of this node's own scope */
  readonly wireIdentity: number;
  /** slot of the peer, or -1 */
  readonly peer: number;
}

/** Prefixes with their identities and peers. Indexes are valid until the next `put` or `remove`. */
export class IpCache {
  readonly #prefixes = new PrefixTable();
  #identities = new Uint32Array(64);
  #wireIdentities = new Uint32Array(64);
  #peers = new Int32Array(64);
  readonly #free: number[] = [];
  #used = 0;

  /** Number of prefixes. */
  get size(): number {
    return this.#prefixes.size;
  }

  /**
   * Adds a prefix, or replaces what is known of it.
   * @param identity 0 to 2^32 - 1
   * @param peer     slot of the peer, or -1
   * @param wireIdentity what the VNI of its packets says
   */
  put(prefix: IpPrefix, identity: number, peer: number, wireIdentity = identity): void {
    let index = this.#prefixes.get(prefix);
    if (index === NO_VALUE) {
      index = this.#free.pop() ?? this.#used++;
      if (index >= this.#identities.length) this.#grow();
      this.#prefixes.set(prefix, index);
    }
    this.#identities[index] = identity;
    this.#wireIdentities[index] = wireIdentity;
    this.#peers[index] = peer;
  }

  /** Removes exactly this prefix; whether it was there. */
  remove(prefix: IpPrefix): boolean {
    const index = this.#prefixes.get(prefix);
    if (index === NO_VALUE) return false;
    this.#prefixes.delete(prefix);
    this.#free.push(index);
    return true;
  }

  /** Makes every prefix behind a peer unreachable; identities stay. For a peer that goes: its slot may get another. */
  forgetPeer(peer: number): void {
    for (let i = 0; i < this.#used; i++) if (this.#peers[i] === peer) this.#peers[i] = NO_PEER;
  }

  /** Index of the entry for the address at `at`, or -1. @param version 4 or 6 */
  find(bytes: Uint8Array, at: number, version: number): number {
    return this.#prefixes.find(bytes, at, version);
  }

  /** Index of the entry for an IPv4 address, or -1. @param word as `readI32` gives it */
  find4(word: number): number {
    return this.#prefixes.find4(word);
  }

  /** Index of the entry for the IPv6 address at `at`, or -1. */
  find6(bytes: Uint8Array, at: number): number {
    return this.#prefixes.find6(bytes, at);
  }

  /** Identity of an entry that `find` gave. */
  identityOf(index: number): number {
    return this.#identities[index]!;
  }

  /** What the VNI of packets from an entry that `find` gave must say. */
  wireIdentityOf(index: number): number {
    return this.#wireIdentities[index]!;
  }

  /** Peer slot of an entry that `find` gave, or -1. */
  peerOf(index: number): number {
    return this.#peers[index]!;
  }

  /** All entries, in no particular order. */
  *entries(): IterableIterator<IpCacheEntry> {
    for (const [prefix, index] of this.#prefixes.entries()) {
      yield {
        prefix,
        identity: this.#identities[index]!,
        wireIdentity: this.#wireIdentities[index]!,
        peer: this.#peers[index]!,
      };
    }
  }

  #grow(): void {
    const identities = new Uint32Array(2 * this.#identities.length);
    identities.set(this.#identities);
    this.#identities = identities;
    const wireIdentities = new Uint32Array(2 * this.#wireIdentities.length);
    wireIdentities.set(this.#wireIdentities);
    this.#wireIdentities = wireIdentities;
    const peers = new Int32Array(2 * this.#peers.length);
    peers.set(this.#peers);
    this.#peers = peers;
  }
}
