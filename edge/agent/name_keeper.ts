/**
 * Names and their addresses, between the DNS proxy that learns them, the policies that mean them (`toFQDNs`), and the disk: a
 * restart forgets nothing. Holds nothing while no policy mentions a name.
 */
import { NameCache, type NameLimits } from "../../src/fqdn/cache.ts";
import { matchesPattern } from "../../src/fqdn/pattern.ts";
import type { FqdnSettings } from "../../src/mesh/entries.ts";
import type { Timers } from "./timers.ts";

export interface NameKeeperDoors {
  /** what was saved last; undefined: nothing usable */
  readonly load: () => unknown;
  readonly save: (snapshot: unknown) => void;
  /** brings all addresses of these names to policy and datapath; none: the name is gone */
  readonly publish: (names: ReadonlyMap<string, readonly string[]>) => void;
  /** addresses outside that live connections use, as canonical text */
  readonly addressesInUse: () => Promise<ReadonlySet<string>>;
  /** monotonic milliseconds */
  readonly nowMs: () => number;
  readonly unixMs: () => number;
  readonly timers: Timers;
}

/** How often names are looked at whose time may be up. */
const EXPIRE_EVERY_MS = 5_000;
/** Names are written at most so often: flash wears out, and what is lost is asked for again. */
const SAVE_EVERY_MS = 60_000;

/** One per agent. */
export class NameKeeper {
  readonly #doors: NameKeeperDoors;
  #cache: NameCache | undefined;
  #patterns: readonly string[] = [];
  #limits: Partial<NameLimits> = {};
  #hasUnsaved = false;
  #isExpiring = false;
  #savedMs = -Infinity;
  #cancelTimer: (() => void) | undefined;

  constructor(doors: NameKeeperDoors) {
    this.#doors = doors;
  }

  get patterns(): readonly string[] {
    return this.#patterns;
  }

  /** Addresses held, of all names. */
  get size(): number {
    return this.#cache?.size ?? 0;
  }

  /** Every name with its addresses, for people. */
  *list(): Iterable<readonly [name: string, addresses: readonly string[]]> {
    for (const name of this.#cache?.names() ?? []) yield [name, this.#cache!.alive(name)];
  }

  setLimits(settings: FqdnSettings | undefined): void {
    this.#limits = {
      ...(settings?.minTtlSeconds !== undefined && { minTtlSeconds: settings.minTtlSeconds }),
      ...(settings?.maxIpsPerName !== undefined && { maxAddressesPerName: settings.maxIpsPerName }),
    };
    this.#cache?.setLimits(this.#limits);
  }

  /**
   * The patterns of names that policies in force mention. The first ones bring back what is on disk; names that none mentions any
   * more are forgotten.
   */
  setPatterns(patterns: readonly string[]): void {
    if (patterns.join(" ") === this.#patterns.join(" ")) return;
    this.#patterns = patterns;
    if (patterns.length > 0 && this.#cache === undefined) this.#begin();
    this.#cache?.keepOnly((name) => this.isWanted(name));
    this.#publish();
    if (patterns.length === 0) this.#end();
  }

  /** Whether some policy in force means a name (canonical). */
  isWanted(name: string): boolean {
    return this.#patterns.some((pattern) => matchesPattern(pattern, name));
  }

  /** Takes an answer. What it changes is with the datapath as soon as the datapath is. */
  learn(name: string, addresses: readonly string[], ttlSeconds: number): void {
    const cache = this.#cache;
    if (cache === undefined || !this.isWanted(name)) return;
    cache.learn(name, addresses, ttlSeconds, this.#doors.nowMs());
    this.#hasUnsaved = true;
    this.#publish();
  }

  /** Writes what is not written yet. */
  stop(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (this.#hasUnsaved) this.#save();
  }

  #begin(): void {
    const doors = this.#doors;
    this.#cache = new NameCache(this.#limits);
    this.#cache.restore(doors.load(), doors.nowMs(), doors.unixMs());
    this.#cancelTimer = doors.timers.every(EXPIRE_EVERY_MS, () => void this.#expire());
  }

  #end(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#save();
    this.#cache = undefined;
  }

  async #expire(): Promise<void> {
    if (this.#isExpiring) return;
    this.#isExpiring = true;
    try {
      this.#cache?.expire(this.#doors.nowMs(), () => true);
      // connections are looked at only when some address waits for the answer
      const inUse = (this.#cache?.dueCount ?? 0) > 0 ? await this.#doors.addressesInUse() : undefined;
      const cache = this.#cache;
      if (cache === undefined) return;
      if (inUse !== undefined) cache.expire(this.#doors.nowMs(), (address) => inUse.has(address));
      this.#publish();
      if (this.#hasUnsaved && this.#doors.nowMs() - this.#savedMs >= SAVE_EVERY_MS) this.#save();
    } catch {
      // the datapath is being started again: the next round asks anew
    } finally {
      this.#isExpiring = false;
    }
  }

  #publish(): void {
    const changes = this.#cache?.takeChanges();
    if (changes === undefined || changes.size === 0) return;
    this.#hasUnsaved = true;
    this.#doors.publish(changes);
  }

  #save(): void {
    if (this.#cache === undefined) return;
    this.#hasUnsaved = false;
    this.#savedMs = this.#doors.nowMs();
    this.#doors.save(this.#cache.snapshot(this.#savedMs, this.#doors.unixMs()));
  }
}
