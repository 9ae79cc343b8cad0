/**
 * Which addresses belong to which names, as answers told: what `toFQDNs` peers stand for. The DNS proxy teaches it, the agent hands
 * what changed to the policy engine, and its snapshot lives in the state directory so that a restart forgets nothing.
 *
 * An address lives until its time is up. It then waits for the next `expire`, which asks whether a connection still uses it: if
 * so, it is kept as long as that is so (Cilium calls it a zombie), else it is gone. What a limit pushes out waits the same way.
 * Until it is gone it is in force.
 *
 * Nothing here reads a clock or does IO. Every size is bounded, whoever asks and whatever is answered.
 *
 * @see Cilium, `tofqdns-min-ttl`, `tofqdns-endpoint-max-ip-per-hostname`, `tofqdns-max-deferred-connection-deletes`
 */
import { formatAddress, parseAddress } from "../ip/address.ts";
import { canonicalName } from "./pattern.ts";

/** Bounds of a `NameCache`. */
export interface NameLimits {
  /** an answer counts at least so long, seconds; 0: as it says */
  readonly minTtlSeconds: number;
  /** addresses of one name whose time is not up */
  readonly maxAddressesPerName: number;
  /** addresses of all names together, those that are due included; beyond, the names that were learned longest ago are forgotten whole */
  readonly maxAddresses: number;
  /** addresses whose time is up and that are kept for their connections */
  readonly maxDue: number;
}

/** Cilium's defaults. It has no bound for all names together: ours keeps the cache below 4 MB. */
const DEFAULT_NAME_LIMITS: NameLimits = {
  minTtlSeconds: 0,
  maxAddressesPerName: 1000,
  maxAddresses: 10_000,
  maxDue: 10_000,
};

/** Longest time that an answer counts, seconds (RFC 8767 §4): a week. */
const MAX_TTL_SECONDS = 604_800;
/** What a restored address lives at least: the datapath has to see its connections again first. */
export const RESTORE_GRACE_MS = 120_000;
const SNAPSHOT_VERSION = 1;

/** A cache as plain data. Times are relative to the moment of saving: clocks that count from boot do not survive one. */
export interface NameSnapshot {
  readonly version: typeof SNAPSHOT_VERSION;
  /** wall clock when it was saved */
  readonly unixMs: number;
  readonly names:
    readonly (readonly [name: string, addresses: readonly (readonly [address: string, forMs: number])[]])[];
}

/** In place of an end: the time is up, the address waits for `expire`. Below every end. */
const DUE = -Infinity;

/** Addresses of one name: canonical text -> when their time is up, or `DUE`. */
interface Entry {
  readonly expiryMs: Map<string, number>;
  dueCount: number;
}

/** Names and their addresses. Times (`nowMs`) are of one clock that never steps back. */
export class NameCache {
  #limits: NameLimits;
  /** in the order in which they were last learned */
  readonly #names = new Map<string, Entry>();
  /** names whose addresses are others than at the last `takeChanges` */
  readonly #changed = new Set<string>();
  // Invariant: the sums over all entries.
  #addressCount = 0;
  #dueCount = 0;
  #forgottenCount = 0;

  /** @param limits what differs from the defaults */
  constructor(limits: Partial<NameLimits> = {}) {
    this.#limits = { ...DEFAULT_NAME_LIMITS, ...limits };
  }

  /** Addresses of all names together, those that are due included. */
  get size(): number {
    return this.#addressCount;
  }

  /** Addresses whose time is up and that wait for `expire`, or for their connections to end. */
  get dueCount(): number {
    return this.#dueCount;
  }

  /** Addresses that limits pushed out since start. */
  get forgottenCount(): number {
    return this.#forgottenCount;
  }

  /** Takes other limits; they hold from the next `learn` on. */
  setLimits(limits: Partial<NameLimits>): void {
    this.#limits = { ...DEFAULT_NAME_LIMITS, ...limits };
  }

  /**
   * Adds an answer. The newer end of an address's life wins, an answer never shortens it.
   *
   * @param name       canonical; another text is ignored
   * @param addresses  text; what is no address is ignored, an IPv4-mapped one is the IPv4 address
   * @param ttlSeconds 0 to a week, what is beyond is cut off
   * @returns whether the name has addresses that it had not
   */
  learn(name: string, addresses: readonly string[], ttlSeconds: number, nowMs: number): boolean {
    if (canonicalName(name) !== name) return false;
    const seconds = Math.min(Math.max(ttlSeconds, this.#limits.minTtlSeconds, 0), MAX_TTL_SECONDS);
    return this.#put(name, addresses.map((address) => [address, nowMs + seconds * 1000]));
  }

  /**
   * Moves time on: what is up becomes due, and what was due leaves unless a connection uses it.
   *
   * @param isInUse whether a connection to the address is alive; asked for due addresses only
   */
  expire(nowMs: number, isInUse: (address: string) => boolean): void {
    for (const [name, entry] of this.#names) {
      for (const [address, expiryMs] of entry.expiryMs) {
        if (expiryMs > nowMs) continue;
        if (isInUse(address)) this.#makeDue(name, entry, address);
        else this.#remove(name, entry, address);
      }
      if (entry.expiryMs.size === 0) this.#names.delete(name);
    }
  }

  /** Forgets every name that the caller has no use for any more: no pattern mentions it. */
  keepOnly(isWanted: (name: string) => boolean): void {
    for (const [name, entry] of this.#names) {
      if (!isWanted(name)) this.#forget(name, entry);
    }
  }

  /** The addresses that are in force for a name, as canonical text; empty for a name that nobody learned. */
  alive(name: string): readonly string[] {
    return [...this.#names.get(name)?.expiryMs.keys() ?? []];
  }

  /** All names that have addresses, the one that was learned last at the end. */
  names(): IterableIterator<string> {
    return this.#names.keys();
  }

  /** The names whose addresses changed since the last call, with all that are in force now; empty: the name is gone. */
  takeChanges(): ReadonlyMap<string, readonly string[]> {
    const changes = new Map([...this.#changed].map((name) => [name, this.alive(name)] as const));
    this.#changed.clear();
    return changes;
  }

  /** Everything as plain data, for the state directory. */
  snapshot(nowMs: number, unixMs: number): NameSnapshot {
    const names = [...this.#names].map(([name, entry]) =>
      [
        name,
        [...entry.expiryMs].map(([address, expiryMs]) => [address, Math.max(0, expiryMs - nowMs)] as const),
      ] as const
    );
    return { version: SNAPSHOT_VERSION, unixMs, names };
  }

  /**
   * Adds what a snapshot holds. The time that passed since counts, but what it holds lives at least `RESTORE_GRACE_MS`: longer
   * connections than that are then seen to be alive. A wall clock that was set back counts as no time.
   *
   * @param data anything; what is not as `snapshot` writes it is left out
   * @returns how many addresses were taken
   */
  restore(data: unknown, nowMs: number, unixMs: number): number {
    const before = this.#addressCount;
    if (!isRecord(data) || data["version"] !== SNAPSHOT_VERSION || !Array.isArray(data["names"])) return 0;
    const savedMs = data["unixMs"];
    const passedMs = typeof savedMs === "number" && savedMs < unixMs ? unixMs - savedMs : 0;
    for (const item of data["names"].slice(-this.#limits.maxAddresses)) {
      const read = readSaved(item);
      if (read === undefined) continue;
      const addresses = read.addresses.map(([address, forMs]) =>
        [address, nowMs + Math.max(RESTORE_GRACE_MS, Math.min(forMs, MAX_TTL_SECONDS * 1000) - passedMs)] as const
      );
      this.#put(read.name, addresses);
    }
    return Math.max(0, this.#addressCount - before);
  }

  #put(name: string, addresses: readonly (readonly [address: string, expiryMs: number])[]): boolean {
    const entry = this.#names.get(name) ?? { expiryMs: new Map<string, number>(), dueCount: 0 };
    const hadCount = this.#addressCount;
    for (const [text, expiryMs] of addresses) {
      const address = canonicalAddress(text);
      if (address === undefined) continue;
      this.#revive(entry, address, expiryMs);
    }
    this.#pushOut(name, entry);
    if (entry.expiryMs.size === 0) return false;
    const isNew = this.#addressCount > hadCount;
    if (isNew) this.#changed.add(name);
    this.#names.delete(name);
    this.#names.set(name, entry);
    this.#bound(name);
    return isNew;
  }

  #revive(entry: Entry, address: string, expiryMs: number): void {
    const known = entry.expiryMs.get(address);
    if (known === undefined) this.#addressCount++;
    if (known === DUE) this.#countDue(entry, -1);
    entry.expiryMs.set(address, Math.max(known ?? DUE, expiryMs));
  }

  /** Of the addresses that are not due, those beyond the limit that end first become due now. */
  #pushOut(name: string, entry: Entry): void {
    const excess = entry.expiryMs.size - entry.dueCount - this.#limits.maxAddressesPerName;
    if (excess <= 0) return;
    const byEnd = [...entry.expiryMs].filter(([, expiryMs]) => expiryMs !== DUE).sort((a, b) => a[1] - b[1]);
    for (const [address] of byEnd.slice(0, excess)) {
      this.#forgottenCount++;
      this.#makeDue(name, entry, address);
    }
  }

  #makeDue(name: string, entry: Entry, address: string): void {
    if (entry.expiryMs.get(address) === DUE) return;
    if (this.#dueCount >= this.#limits.maxDue) return this.#remove(name, entry, address);
    entry.expiryMs.set(address, DUE);
    this.#countDue(entry, 1);
  }

  #countDue(entry: Entry, by: number): void {
    entry.dueCount += by;
    this.#dueCount += by;
  }

  /** Forgets the names that were learned longest ago until all fit, but never the newest. */
  #bound(newest: string): void {
    for (const [name, entry] of this.#names) {
      if (this.#addressCount <= this.#limits.maxAddresses || name === newest) return;
      this.#forgottenCount += entry.expiryMs.size;
      this.#forget(name, entry);
    }
  }

  #forget(name: string, entry: Entry): void {
    for (const address of [...entry.expiryMs.keys()]) this.#remove(name, entry, address);
    this.#names.delete(name);
    this.#changed.add(name);
  }

  #remove(name: string, entry: Entry, address: string): void {
    if (entry.expiryMs.get(address) === DUE) this.#countDue(entry, -1);
    entry.expiryMs.delete(address);
    this.#addressCount--;
    this.#changed.add(name);
  }
}

/** The one text of an address; an IPv4-mapped IPv6 address is the IPv4 one, as the kernel sends to it (RFC 4038 §4.2). */
export function canonicalAddress(text: string): string | undefined {
  const address = parseAddress(text);
  if (address === undefined) return undefined;
  const isMapped = address.length === 16 && address[10] === 0xff && address[11] === 0xff &&
    address.subarray(0, 10).every((octet) => octet === 0);
  return formatAddress(isMapped ? address.slice(12) : address);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function readSaved(item: unknown): { name: string; addresses: [string, number][] } | undefined {
  if (!Array.isArray(item) || typeof item[0] !== "string" || canonicalName(item[0]) !== item[0]) return undefined;
  if (!Array.isArray(item[1])) return undefined;
  const addresses = item[1].filter((pair): pair is [string, number] =>
    Array.isArray(pair) && typeof pair[0] === "string" && typeof pair[1] === "number" && pair[1] >= 0
  );
  return { name: item[0], addresses };
}
