/**
 * The proxies of this member: each runs only while a policy in force needs it, and its code is loaded then. The datapath is told
 * where they listen; a flow for a proxy that does not run is dropped there (NO_PROXY), so a gate is never open by accident.
 */
import type { SetProxy } from "../../src/datapath/control.ts";
import { messageOf } from "../errors.ts";

/** A proxy that runs. */
export interface RunningProxy {
  /** on every mesh address of this member */
  readonly port: number;
  stop(): Promise<void>;
}

export interface ProxiesDoors {
  /** @throws when an address is not there (yet), or the port is taken */
  readonly start: Readonly<Record<ProxyKind, (addresses: readonly string[]) => Promise<RunningProxy>>>;
  /** tells the datapath */
  readonly tell: (command: SetProxy) => void;
  /** why a proxy that is needed does not run; undefined: it does */
  readonly fault: (kind: ProxyKind, reason: string | undefined) => void;
}

export type ProxyKind = "http" | "dns";
const PROXY_KINDS: readonly ProxyKind[] = ["http", "dns"];

/** What is wanted of one proxy: the addresses to listen on, empty for none; as one text to compare. */
interface Slot {
  wanted: readonly string[];
  /** addresses that `proxy` listens on */
  has: string;
  proxy: RunningProxy | undefined;
  isBusy: boolean;
}

/** One per agent. `align` may be called as often as one likes. */
export class Proxies {
  readonly #doors: ProxiesDoors;
  readonly #slots: Readonly<Record<ProxyKind, Slot>> = { http: emptySlot(), dns: emptySlot() };

  constructor(doors: ProxiesDoors) {
    this.#doors = doors;
  }

  /** Where they listen now: what a datapath that starts anew has to know. */
  get command(): SetProxy {
    return { op: "proxy", http: this.#slots.http.proxy?.port ?? 0, dns: this.#slots.dns.proxy?.port ?? 0 };
  }

  /**
   * Starts and stops what is needed. A start that fails is tried again at the next call.
   * @param needs     which proxies policies in force need
   * @param addresses this member's mesh addresses; they must be on the device
   */
  align(needs: Readonly<Record<ProxyKind, boolean>>, addresses: readonly string[]): Promise<void> {
    return this.#alignAll((kind) => needs[kind] ? addresses : []);
  }

  stop(): Promise<void> {
    return this.#alignAll(() => []);
  }

  async #alignAll(wanted: (kind: ProxyKind) => readonly string[]): Promise<void> {
    await Promise.all(PROXY_KINDS.map((kind) => {
      this.#slots[kind].wanted = wanted(kind);
      return this.#alignOne(kind);
    }));
  }

  async #alignOne(kind: ProxyKind): Promise<void> {
    const slot = this.#slots[kind];
    if (slot.isBusy) return; // whoever is at it looks again when done
    slot.isBusy = true;
    try {
      while (slot.wanted.join(" ") !== slot.has) {
        const old = slot.proxy;
        slot.proxy = undefined;
        slot.has = "";
        if (old !== undefined) {
          this.#doors.tell(this.command);
          await old.stop();
        }
        const addresses = slot.wanted;
        if (addresses.length === 0) continue;
        slot.proxy = await this.#doors.start[kind](addresses);
        slot.has = addresses.join(" ");
        this.#doors.tell(this.command);
      }
      this.#doors.fault(kind, undefined);
    } catch (error) {
      this.#doors.fault(kind, messageOf(error));
    } finally {
      slot.isBusy = false;
    }
  }
}

function emptySlot(): Slot {
  return { wanted: [], has: "", proxy: undefined, isBusy: false };
}
