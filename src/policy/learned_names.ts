/**
 * Which addresses the patterns of FQDN rules name at present. Names come from the DNS cache, patterns from the rules in force; an
 * address is told about when the patterns that name it change.
 *
 * A name that is known costs its addresses only; a new one is compared with the patterns that have a star; a pattern that comes into
 * force is compared with the names. Policies are never looked at.
 */
import { matchesPattern } from "../fqdn/pattern.ts";
import { formatAddress, type IpAddress } from "../ip/address.ts";

interface LearnedName {
  readonly name: string;
  /** in force, and matching */
  patterns: readonly string[];
  addresses: ReadonlyMap<string, IpAddress>;
}

export class LearnedNames {
  readonly #tell: (address: IpAddress, patterns: readonly string[]) => void;
  readonly #names = new Map<string, LearnedName>();
  /** by the text of the address */
  readonly #ofAddress = new Map<string, Set<LearnedName>>();
  /** pattern -> rules that use it */
  readonly #uses = new Map<string, number>();
  readonly #starred = new Set<string>();

  /** @param tell takes the patterns that name an address now, sorted; none: nothing names it */
  constructor(tell: (address: IpAddress, patterns: readonly string[]) => void) {
    this.#tell = tell;
  }

  /** Patterns in force, sorted. */
  get patterns(): readonly string[] {
    return [...this.#uses.keys()].sort();
  }

  /** @param addresses all that the name has now; none: the name is forgotten */
  put(name: string, addresses: readonly IpAddress[]): void {
    const before = this.#names.get(name);
    if (before === undefined && addresses.length === 0) return;
    const known = before ?? { name, patterns: this.#patternsOf(name), addresses: new Map() };
    const old = known.addresses;
    known.addresses = new Map(addresses.map((address) => [formatAddress(address), address]));
    if (addresses.length === 0) this.#names.delete(name);
    else this.#names.set(name, known);
    for (const [text, address] of known.addresses) {
      if (old.has(text)) continue;
      const owners = this.#ofAddress.get(text);
      if (owners === undefined) this.#ofAddress.set(text, new Set([known]));
      else owners.add(known);
      if (known.patterns.length > 0) this.#tellAbout(text, address);
    }
    for (const [text, address] of old) {
      if (known.addresses.has(text)) continue;
      const owners = this.#ofAddress.get(text)!;
      owners.delete(known);
      if (owners.size === 0) this.#ofAddress.delete(text);
      if (known.patterns.length > 0) this.#tellAbout(text, address);
    }
  }

  usePattern(pattern: string): void {
    const uses = this.#uses.get(pattern) ?? 0;
    this.#uses.set(pattern, uses + 1);
    if (uses > 0) return;
    if (pattern.includes("*")) this.#starred.add(pattern);
    for (const known of this.#namesLike(pattern)) this.#setPatterns(known, [...known.patterns, pattern].sort());
  }

  releasePattern(pattern: string): void {
    const uses = (this.#uses.get(pattern) ?? 0) - 1;
    if (uses > 0) this.#uses.set(pattern, uses);
    if (uses !== 0) return;
    this.#uses.delete(pattern);
    this.#starred.delete(pattern);
    for (const known of this.#namesLike(pattern)) {
      this.#setPatterns(known, known.patterns.filter((one) => one !== pattern));
    }
  }

  #namesLike(pattern: string): LearnedName[] {
    if (pattern.includes("*")) return [...this.#names.values()].filter(({ name }) => matchesPattern(pattern, name));
    const known = this.#names.get(pattern);
    return known === undefined ? [] : [known];
  }

  #patternsOf(name: string): string[] {
    const found = [...this.#starred].filter((pattern) => matchesPattern(pattern, name));
    return (this.#uses.has(name) ? [...found, name] : found).sort();
  }

  #setPatterns(known: LearnedName, patterns: readonly string[]): void {
    known.patterns = patterns;
    for (const [text, address] of known.addresses) this.#tellAbout(text, address);
  }

  #tellAbout(text: string, address: IpAddress): void {
    const patterns = new Set<string>();
    for (const { patterns: some } of this.#ofAddress.get(text) ?? []) for (const one of some) patterns.add(one);
    this.#tell(address, [...patterns].sort());
  }
}
