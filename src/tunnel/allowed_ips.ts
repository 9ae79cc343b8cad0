/**
 * Allowed IPs of the whole device: which peer an address is behind. One table, so that no peer can claim part of another's
 * prefix; the longest prefix that covers an address decides.
 */
import { formatPrefix, type IpPrefix, maskedPrefix } from "../ip/address.ts";
import { PrefixTable } from "../ip/prefix_table.ts";

export class AllowedIps {
  readonly #table = new PrefixTable();
  /** What each peer was given, by canonical text. One that has moved to another peer may still stand here: the table decides. */
  readonly #given = new Map<number, Map<string, IpPrefix>>();

  /** Slot of the peer that an IPv4 address is behind, or -1. @param word the address as `readI32` gives it */
  find4(word: number): number {
    return this.#table.find4(word);
  }

  /** The same for the 16 octets of an IPv6 address at `at`. */
  find6(bytes: Uint8Array, at: number): number {
    return this.#table.find6(bytes, at);
  }

  /**
   * Makes `prefixes` all that a peer has. One that another peer had moves here; those of this peer that are not named go.
   * Host bits are ignored.
   */
  replace(slot: number, prefixes: readonly IpPrefix[]): void {
    const wanted = new Map(
      prefixes.map((prefix) => maskedPrefix(prefix)).map((masked) => [formatPrefix(masked), masked]),
    );
    for (const [text, prefix] of this.#given.get(slot) ?? []) {
      if (!wanted.has(text) && this.#table.get(prefix) === slot) this.#table.delete(prefix);
    }
    for (const prefix of wanted.values()) this.#table.set(prefix, slot);
    if (wanted.size > 0) this.#given.set(slot, wanted);
    else this.#given.delete(slot);
  }

  /** The prefixes of a peer, with host bits cleared, in no particular order. */
  prefixesOf(slot: number): IpPrefix[] {
    return [...this.#given.get(slot)?.values() ?? []].filter((prefix) => this.#table.get(prefix) === slot);
  }
}
